"""Gradient descent on many parameters and many samples: its generalisation error in time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_finite, check_real
from .marchenko_pastur import MarchenkoPastur

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SCAN, _SECTIONS = 65, 60


@dataclass(frozen=True, eq=False)
class LinearErrors:
    """Errors of a linear student in time, relative to the variance of the teacher's weights.

    Attributes
    ----------
    times : Tensor of shape (times,)
        In the unit of the time constant.
    test : Tensor of shape (times,)
        Mean squared error on new samples, the noise of their labels included.
    train : Tensor of shape (times,)
        Mean squared error on the training samples.
    final : float
        The test error at infinite time.
    best_time, best_test : float
        When the test error is least, and what it is then.
    """

    times: Tensor
    test: Tensor
    train: Tensor
    final: float
    best_time: float
    best_test: float

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw both errors in time, the best time, and where the test error ends.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        ax.plot(self.times, self.test, color="#0072B2", label="test")
        ax.plot(self.times, self.train, "--", color="#D55E00", label="train")
        if math.isfinite(self.final):
            ax.axhline(self.final, color="0.5", lw=1, ls=":", label="test, at infinite time")
        ax.plot(self.best_time, self.best_test, "o", color="#009E73", label="best time to stop")
        ax.set_xscale("symlog", linthresh=float(self.times[self.times > 0].min()))
        ax.set_xlabel("time, in the unit of the time constant")
        ax.set_ylabel("mean squared error")
        ax.set_title("Gradient flow of a linear student")
        ax.legend(frameon=False)
        return ax


@final
@dataclass(frozen=True)
class LinearDynamics:
    r"""Gradient flow of a linear student on a noisy linear teacher, both of high dimension.

    The teacher is :math:`y = \bar w \cdot x + \varepsilon` with N inputs of variance 1/N, weights
    of variance 1 and noise of variance :math:`\sigma^2 = 1/\mathrm{SNR}`; the student starts from
    weights of variance :math:`\sigma_0^2 = \mathrm{INR} / \mathrm{SNR}` and follows
    :math:`\tau \dot w = X (y - X^\top w)` on P samples. With :math:`\alpha = P/N` fixed, N large,
    and eigenvalues :math:`\lambda` distributed by `MarchenkoPastur`,

    .. math::
        E_\mathrm{test}(t) = \Big\langle (1 + \sigma_0^2) e^{-2 \lambda t/\tau}
        + \frac{\sigma^2}{\lambda} (1 - e^{-\lambda t/\tau})^2 \Big\rangle + \sigma^2.

    It ends at :math:`\sigma^2 \alpha / (\alpha - 1)` for :math:`\alpha > 1`, at
    :math:`(1 - \alpha)(1 + \sigma_0^2) + \sigma^2 / (1 - \alpha)` for :math:`\alpha < 1`, where
    :math:`N - P` directions are never moved, and grows without bound at :math:`\alpha = 1`.

    Parameters
    ----------
    ratio : float
        :math:`\alpha`, samples per parameter.
    snr : float
        Variance of the teacher's weights over that of the noise.
    inr : float, default 0
        Variance of the initial weights over that of the noise.
    tau : float, default 1
        Time constant :math:`\tau`: the inverse of the learning rate.

    Attributes
    ----------
    ratio, snr, inr, tau : float
        The same.

    Raises
    ------
    TypeError
        If one is not a number.
    ValueError
        If the ratio, the SNR or tau is not above zero, or the INR is below.

    References
    ----------
    Advani, Saxe, "High-dimensional dynamics of generalization error in neural networks", 2017,
    arXiv 1710.03667.

    Examples
    --------
    >>> student = LinearDynamics(ratio=0.5, snr=4.0, inr=1.0)
    >>> student.errors([1.0, 3.0, 50.0]).test
    tensor([1.0826, 1.0330, 1.1246], dtype=torch.float64)
    >>> student.final_error
    1.125
    """

    ratio: float
    snr: float
    inr: float = 0.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        for name in ("ratio", "snr", "tau"):
            check_real(name, getattr(self, name), above=0.0)
        check_real("inr", self.inr, least=0.0)

    @property
    def law(self) -> MarchenkoPastur:
        """How the eigenvalues are distributed."""
        return MarchenkoPastur(self.ratio)

    @property
    def noise(self) -> float:
        """Variance of the noise: the error that no student falls below."""
        return 1 / self.snr

    @property
    def frozen_fraction(self) -> float:
        """Share of the directions that no sample moves: they keep their initial weights."""
        return self.law.zero_mass

    @property
    def final_error(self) -> float:
        """Test error at infinite time; infinite at one sample per parameter."""
        a = self.ratio
        if a == 1:
            return math.inf
        if a > 1:
            return self.noise * a / (a - 1)
        return (1 - a) * (1 + self.inr * self.noise) + self.noise / (1 - a)

    def errors(self, times: Sequence[float] | Tensor) -> LinearErrors:
        """Compute test and train error at each time.

        Parameters
        ----------
        times : sequence or Tensor of shape (times,)
            Not negative, at least one above zero.

        Returns
        -------
        LinearErrors
            Both, with the final error and the best time to stop.

        Raises
        ------
        TypeError
            If times are not numbers.
        ValueError
            If one is negative or not finite.
        """
        try:
            t = torch.as_tensor(times, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"times: expected numbers, got {type(times).__name__}") from error
        if t.ndim != 1 or not len(t) or float(t.min()) < 0 or float(t.max()) == 0:
            raise ValueError(
                f"times: expected a row of times >= 0, not all zero, got shape {tuple(t.shape)}"
                + (f" from {float(t.min()):g} to {float(t.max()):g}" if t.numel() else "")
            )
        check_finite("times", t)
        eigenvalues, weights = self.law.nodes()
        left = torch.exp(-2 * eigenvalues * t[:, None] / self.tau)  # (times, nodes)
        started = 1 + self.inr * self.noise
        train = (left * (eigenvalues * started + self.noise)) @ weights / self.ratio
        train = train + self.noise * max(0.0, 1 - 1 / self.ratio)
        best_time, best_test = self.optimal_stopping()
        return LinearErrors(t, self._test(t), train, self.final_error, best_time, best_test)

    def optimal_stopping(self) -> tuple[float, float]:
        r"""Find when the test error is least.

        A mode of eigenvalue :math:`\lambda` is best stopped at
        :math:`\frac{\tau}{\lambda} \log(1 + \lambda (\mathrm{SNR} + \mathrm{INR}))`, which falls
        with :math:`\lambda`: the best time for all lies between those of the ends of the spectrum.

        Returns
        -------
        tuple of float
            The time, and the test error then.
        """
        low, high = (math.log(self._mode_time(end)) for end in reversed(self.law.support))
        for _ in range(2):  # a scan, and another inside its best cells
            grid = torch.linspace(low, high, _SCAN, dtype=torch.float64)
            best = int(self._test(grid.exp()).argmin())
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _SCAN - 1)])
        ratio = (math.sqrt(5) - 1) / 2
        for _ in range(_SECTIONS):
            c, d = high - ratio * (high - low), low + ratio * (high - low)
            at = self._test(torch.tensor([c, d], dtype=torch.float64).exp())
            low, high = (low, d) if float(at[0]) < float(at[1]) else (c, high)
        time = math.exp((low + high) / 2)
        return time, float(self._test(torch.tensor([time], dtype=torch.float64))[0])

    @property
    def optimal_ridge(self) -> float:
        """The ridge of least test error, added to the eigenvalues: 1 / SNR."""
        return 1 / self.snr

    def ridge_error(self, ridge: float) -> float:
        r"""Test error of ridge regression, :math:`w = (X X^\top + \gamma)^{-1} X y`.

        Parameters
        ----------
        ridge : float
            :math:`\gamma`, above zero.

        Returns
        -------
        float
            Mean squared error on new samples.

        Raises
        ------
        TypeError
            If the ridge is not a number.
        ValueError
            If it is not above zero.
        """
        g = check_real("ridge", ridge, above=0.0)
        mean = self.law.expect(lambda s: (g**2 + self.noise * s) / (s + g).square())
        return float(mean) + self.noise

    def _mode_time(self, eigenvalue: float) -> float:
        """When a mode of one eigenvalue is best stopped."""
        sure = self.snr + self.inr
        small = eigenvalue * sure < 1e-12
        return self.tau * (sure if small else math.log1p(eigenvalue * sure) / eigenvalue)

    def _test(self, times: Tensor) -> Tensor:
        """Test error at each time, (times,)."""
        t = times[:, None] / self.tau  # (times, 1)
        started = 1 + self.inr * self.noise

        def of(s: Tensor) -> Tensor:
            learnt = -torch.expm1(-s * t)  # (times, nodes)
            safe = torch.where(s > 0, s, 1.0)
            noise = torch.where(s > 0, learnt.square() / safe, 0.0)
            return started * (1 - learnt).square() + self.noise * noise

        return self.law.expect(of) + self.noise
