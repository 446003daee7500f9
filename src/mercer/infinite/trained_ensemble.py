"""An ensemble of wide networks in training: its outputs and errors at any time."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import torch
from torch import Tensor

from .._core.config import require_memory
from ..kernels import Kernel
from .early_stopping import StoppingTime, find_stopping_time
from .eigenmodes import Eigenmodes, Points
from .error_curve import ErrorCurve
from .kernel_matrices import Times, both, check_points, check_targets, check_times
from .learning_times import LearningTimes
from .prediction import Prediction

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@final
@dataclass(frozen=True, eq=False)
class Dynamics:
    """An ensemble of infinitely wide networks in training, made by `dynamics`.

    All times ``t`` are a number or a sequence of T of them: times, or whole numbers of steps, or
    infinity. Results have a leading axis of T where a sequence came, and the dtype of the targets.

    Attributes
    ----------
    kernel, prior : Kernel
        That of training, T, and the covariance of untrained outputs, S.
    x : Tensor of shape (n, *event)
        Training points.
    y : Tensor of shape (n,) or (n, outputs)
        Targets.
    ridge : float
        What is added to the diagonal of T.
    target_noise : float
        Variance of the noise that each network has on its targets.
    """

    kernel: Kernel
    prior: Kernel
    x: Tensor
    y: Tensor
    ridge: float
    target_noise: float
    _together: bool
    _modes: Eigenmodes

    def _times(self, t: Times) -> tuple[Tensor, bool]:
        return check_times(t, whole=self._modes.rule.unit == "steps")

    def _points(self, x: Tensor) -> Points:
        check_points("x", x, self.kernel)
        x = x.to(self.x.device)
        cross, prior = both(self.kernel, self.prior, self._together, x, self.x)  # (m, n) each
        spectrum = self._modes.spectrum
        return Points(spectrum.project(cross), spectrum.rotate(prior.mT))

    def _finish(self, values: Tensor, single: bool, outputs: bool = True) -> Tensor:
        """Drop the axes that the caller did not have, and return to the caller's dtype."""
        if outputs and self.y.ndim == 1:
            values = values.squeeze(-1)
        return (values.squeeze(0) if single else values).to(self.y.dtype)

    # -- outputs ---------------------------------------------------------------------------------

    @torch.no_grad()
    def mean(self, t: Times, x: Tensor | None = None) -> Tensor:
        """Return the mean output over the ensemble, (m,) or (m, outputs).

        Parameters
        ----------
        t : float or sequence of float
            Times.
        x : Tensor of shape (m, *event), optional
            Points; the training points by default.

        Returns
        -------
        Tensor of shape (m,), (m, outputs), (T, m) or (T, m, outputs)
            The mean.
        """
        times, single = self._times(t)
        at = None if x is None else self._points(x)
        return self._finish(self._modes.outputs(times, self._modes.targets, at), single)

    @torch.no_grad()
    def covariance(self, t: Times, x: Tensor | None = None) -> Tensor:
        """Return the covariance over the ensemble between points, the same for each output.

        Parameters
        ----------
        t : float or sequence of float
            Times.
        x : Tensor of shape (m, *event), optional
            Points; the training points by default.

        Returns
        -------
        Tensor of shape (m, m) or (T, m, m)
            The covariance.
        """
        times, single = self._times(t)
        shape = (len(times), *[len(self.x if x is None else x)] * 2)
        need = 16 * math.prod(shape)
        require_memory(need, f"covariances of shape {shape} in float64", "ask for fewer times")
        if x is None:
            found = self._modes.training_covariance(times)
        else:
            before = self.prior(x.detach().double().to(self.x.device))  # (m, m)
            found = self._modes.test_covariance(times, self._points(x), before)
        return self._finish(found, single, outputs=False)

    @torch.no_grad()
    def predict(self, t: float, x: Tensor | None = None) -> Prediction:
        """Return mean and covariance at one time, with a plot.

        Parameters
        ----------
        t : float
            The time.
        x : Tensor of shape (m, *event), optional
            Points; the training points by default.

        Returns
        -------
        Prediction
            Both.
        """
        times, single = self._times(t)
        if not single:
            raise ValueError(f"t: expected one number, got {len(times)} of them")
        return Prediction(self.mean(t, x), self.covariance(t, x), float(times[0]))

    @torch.no_grad()
    def outputs(
        self,
        t: Times,
        initial: Tensor,
        x: Tensor | None = None,
        initial_x: Tensor | None = None,
    ) -> Tensor:
        """Return the outputs of the one network that began at given outputs.

        Parameters
        ----------
        t : float or sequence of float
            Times.
        initial : Tensor of the shape of y
            Its outputs at the training points before training.
        x : Tensor of shape (m, *event), optional
            Points; the training points by default.
        initial_x : Tensor of shape (m,) or (m, outputs), optional
            Its outputs there before training.

        Returns
        -------
        Tensor of shape (m,), (m, outputs), (T, m) or (T, m, outputs)
            Its outputs.
        """
        times, single = self._times(t)
        outputs = self._modes.targets.shape[1]
        begin = check_targets("initial", initial, len(self.x), outputs).to(self.x.device)
        gap = self._modes.targets - self._modes.spectrum.rotate(begin)  # (n, outputs)
        if (x is None) != (initial_x is None):
            raise ValueError("x, initial_x: expected both or neither")
        if x is None or initial_x is None:
            return self._finish(begin + self._modes.outputs(times, gap, None), single)
        at = self._points(x)
        there = check_targets("initial_x", initial_x, len(x), outputs).to(self.x.device)
        return self._finish(there + self._modes.outputs(times, gap, at), single)

    # -- errors ----------------------------------------------------------------------------------

    @torch.no_grad()
    def squared_error(
        self, t: Times, x: Tensor | None = None, y: Tensor | None = None
    ) -> ErrorCurve:
        """Return the mean squared error of the ensemble and of a network at many times.

        Parameters
        ----------
        t : float or sequence of float
            Times.
        x : Tensor of shape (m, *event), optional
            Test points; the training points by default.
        y : Tensor of shape (m,) or (m, outputs), optional
            Targets there.

        Returns
        -------
        ErrorCurve
            Errors (T,), with a plot. Twice the loss of `dynamics`.
        """
        return self._error_curves(x, y)(self._times(t)[0])

    def _error_curves(self, x: Tensor | None, y: Tensor | None) -> Callable[[Tensor], ErrorCurve]:
        """Make the function from times to errors, with what does not depend on times done."""
        if (x is None) != (y is None):
            raise ValueError("x, y: expected both or neither")
        if x is None or y is None:
            errors = self._modes.training_error
        else:
            at = self._points(x)
            outputs = self._modes.targets.shape[1]
            targets = check_targets("y", y, len(x), outputs).to(self.x.device)
            before = self.prior.diag(x.detach().double().to(self.x.device))  # (m,)
            errors = self._modes.test_error(at, targets, before)

        def curve(times: Tensor) -> ErrorCurve:
            ensemble, variance = errors(times)
            return ErrorCurve(times, ensemble.cpu(), variance.cpu(), self._modes.rule.unit)

        return curve

    @torch.no_grad()
    def degrees_of_freedom(self, t: Times) -> Tensor:
        """Return the trace of the matrix that maps targets to outputs at the training points.

        Parameters
        ----------
        t : float or sequence of float
            Times.

        Returns
        -------
        Tensor of shape () or (T,)
            From 0 before training to the rank of the kernel.
        """
        times, single = self._times(t)
        trace = (1 - self._modes.left(times)).sum(-1).cpu()  # (T,)
        return trace.squeeze(0) if single else trace

    # -- times and rates -------------------------------------------------------------------------

    @property
    def largest_learning_rate(self) -> float:
        """The learning rate at the edge of stability of gradient descent; infinite for the flow."""
        return self._modes.rule.largest_rate(float(self._modes.damped()[0]))

    @torch.no_grad()
    def learning_times(self) -> LearningTimes:
        """Return how long each principal component of the kernel takes to be learnt.

        Returns
        -------
        LearningTimes
            Eigenvalues, times in which a component's residual falls by a factor e, and how much
            of the targets lies along it.
        """
        rank = self._modes.spectrum.rank
        power = self._modes.targets.square().sum(-1)  # (n,)
        return LearningTimes(
            eigenvalues=self._modes.spectrum.eigenvalues[:rank].cpu(),
            times=self._modes.rule.decay_times(self._modes.damped()[:rank]).cpu(),
            target_share=(
                power[:rank] / power.sum().clamp(min=torch.finfo(power.dtype).tiny)
            ).cpu(),
            unit=self._modes.rule.unit,
        )

    @torch.no_grad()
    def early_stopping(
        self,
        x: Tensor | None = None,
        y: Tensor | None = None,
        *,
        noise: float | None = None,
        of: Literal["network", "ensemble"] = "network",
    ) -> StoppingTime:
        r"""Find the time to stop at, by held-out points or by the variance of the noise.

        Without points, the error of predicting the targets without their noise, of variance
        :math:`\sigma^2`, is estimated at the training points without bias by
        :math:`\|y - f_t\|^2 / n + 2 \sigma^2 \mathrm{tr}\,H_t / n - \sigma^2`, where
        :math:`H_t` maps targets to outputs.

        Parameters
        ----------
        x : Tensor of shape (m, *event), optional
            Held-out points.
        y : Tensor of shape (m,) or (m, outputs), optional
            Targets there.
        noise : float, optional
            The variance of the noise on the training targets, instead of points.
        of : {"network", "ensemble"}
            Whose error is to be least: that of one network, or of the mean over many.

        Returns
        -------
        StoppingTime
            The time, the errors there and at the end, and the curve.

        Raises
        ------
        ValueError
            If neither or both ways are given, or a step is past the edge of stability.

        References
        ----------
        Raskutti, Wainwright, Yu: Early stopping and non-parametric regression, 2014,
        arXiv 1306.3574.
        """
        return find_stopping_time(self, self._error_curves(x, y), x is not None, noise, of)

    def plot(
        self, ax: "Axes | None" = None, x: Tensor | None = None, y: Tensor | None = None
    ) -> "Axes":
        """Draw the error at the training points along training, and at test points if given.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        x : Tensor of shape (m, *event), optional
            Test points.
        y : Tensor of shape (m,) or (m, outputs), optional
            Targets there.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        scales = self.learning_times().times
        scales = scales[scales.isfinite()]
        low, high = (1.0, 10.0) if not len(scales) else (0.01 * scales.min(), 10 * scales.max())
        times = torch.logspace(math.log10(low), math.log10(high), 200, dtype=torch.float64)
        if self._modes.rule.unit == "steps":
            times = times.round().clamp(min=1).unique()
        ax = self.squared_error(times).plot(ax, "training")
        if x is not None or y is not None:
            self.squared_error(times, x, y).plot(ax, "test")
        return ax
