"""The tangent kernel of wide networks that are trained with surrogate gradients."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import final

import torch
from torch import Tensor, nn

from .._core.checks import check_finite, check_real, check_tensor
from .._core.config import block_rows, require_memory
from .._core.precision import full_precision, is_plain, working_dtype
from ..kernels.surrogate import surrogate_derivative
from .network import Network
from .prediction import Prediction
from .propagate import Selves, cross
from .surrogate_flow import influence, trained_covariance
from .surrogate_pointwise import with_surrogate, without_surrogate
from .surrogate_spectrum import SurrogateSpectrum
from .wide_kernel import NNGP, Std

_COPIES = 12  # of the largest covariance while an operation runs


@final
class SurrogateNTK(nn.Module):
    r"""The kernel by which wide networks move when surrogate gradients train them.

    A network whose activations jump (sign, step) is trained with a surrogate :math:`\chi` in
    place of :math:`\phi'` in the backward pass. Its parameters then move along the surrogate
    Jacobian :math:`\tilde J`, its outputs by the true one, and in the limit of infinite width

    .. math:: \frac{d f(x)}{dt} = -\eta \sum_i I(x, x_i) \frac{\partial L}{\partial f(x_i)},
        \qquad I(x, x') = \lim J(x)\, \tilde J(x')^\top,

    with a deterministic kernel, :math:`I^1 = N^1` and

    .. math:: N^{l+1} = \sigma_w^2 E[\phi(u) \phi(v)] + \sigma_b^2, \qquad
        I^{l+1} = N^{l+1} + \sigma_w^2 E[\phi'(u) \chi(v)] \odot I^l,

    where u belongs to the row, with the true derivative, and v to the column, with the
    surrogate. It is finite where the tangent kernel of the jump is not.

    It is called like a `Kernel`, and is none: it is not symmetric (unless all inputs have the
    same norm, or each surrogate is the derivative), so that Cholesky factors, symmetric
    eigenvalues and whatever takes a kernel for positive semi-definite would be wrong.

    Parameters
    ----------
    module : Module or Network
        The network, as `NTK` takes it, with `mercer.kernels.SurrogateActivation` for its
        activations; it is read and not kept.
    surrogate : str or callable, optional
        The surrogate of the activations that bring none; see
        `mercer.kernels.surrogate_derivative`. Without it they keep their derivatives.
    parametrization : {"ntk", "standard", "torch"}, default "ntk"
        See `NTK`.
    w_std, b_std : float, sequence, mapping or Tensor, optional
        See `NTK`.
    example : Tensor of shape (n, *event), optional
        See `NTK`.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Attributes
    ----------
    nngp : NNGP
        The kernel N of the untrained outputs, which has the hyperparameters ``w_std``, ``b_std``.

    Raises
    ------
    NoRuleError
        If the module does what has no rule.
    ValueError
        If an activation jumps and has no surrogate, so that the kernel is infinite, or an
        argument does not fit.

    References
    ----------
    Eilers, Memmesheimer, Goedeke: A generalized neural tangent kernel for surrogate gradient
    learning, NeurIPS 2024, arXiv 2405.15539.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from mercer.kernels import SurrogateActivation
    >>> net = nn.Sequential(nn.Linear(2, 8), SurrogateActivation("sign", "erf"), nn.Linear(8, 1))
    >>> k = SurrogateNTK(net, w_std=1.0, b_std=0.0)
    >>> x = torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    >>> with torch.no_grad():
    ...     k(x)
    tensor([[1.6366, 1.0694],
            [0.8676, 2.8006]])
    >>> k.spectrum(x).converges
    True
    >>> k.predict(x, torch.tensor([1.0, -1.0]), x).mean
    tensor([ 1., -1.])
    """

    def __init__(
        self,
        module: nn.Module | Network,
        *,
        surrogate: str | Callable[[Tensor], Tensor] | None = None,
        parametrization: str = "ntk",
        w_std: Std = None,
        b_std: Std = None,
        example: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if surrogate is not None:
            surrogate_derivative(surrogate)
        if not isinstance(module, Network):
            from .reader import read  # which imports every rule

            module = read(module, example)
        operations = tuple(with_surrogate(op, surrogate) for op in module.operations)
        self._network = replace(module, operations=operations)
        self.nngp = NNGP(
            replace(module, operations=tuple(map(without_surrogate, operations))),
            parametrization=parametrization,
            w_std=w_std,
            b_std=b_std,
            device=device,
            dtype=dtype,
        )

    @property
    def network(self) -> Network:
        """What was read from the module."""
        return self._network

    @property
    def event_ndim(self) -> int:
        """How many trailing axes of an input make one point."""
        return self.nngp.event_ndim

    # -- evaluation ------------------------------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Evaluate the kernel.

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            Points of the rows: where outputs move.
        y : Tensor of shape (m, *event), optional
            Points of the columns: whose losses move them; without them those of the rows.

        Returns
        -------
        Tensor of shape (n, m)
            I, not symmetric, in the dtype of x.

        Raises
        ------
        TypeError, ValueError
            If an input does not fit, or reaches a jump with variance zero, where the kernel is
            infinite.
        MemoryError
            If the matrix does not fit the memory budget.
        """
        return self.both(x, y)[1]

    def both(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Evaluate the NNGP kernel and this one in one pass.

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            Points of the rows.
        y : Tensor of shape (m, *event), optional
            Points of the columns; without them those of the rows.

        Returns
        -------
        tuple of Tensor of shape (n, m)
            N and I.
        """
        self._check("x", x)
        columns = x if y is None else self._check("y", y)
        if columns.dtype != x.dtype or columns.device != x.device:
            raise ValueError(
                f"y: expected {x.dtype} on {x.device} like x, got {columns.dtype} on "
                f"{columns.device}"
            )
        with full_precision(x):
            work = working_dtype(x.dtype)
            pair = self._pair(x.to(work), columns.to(work), y is None or y is x)
        self._check_values(pair[1])
        return pair[0].to(x.dtype), pair[1].to(x.dtype)

    def _pair(self, x: Tensor, y: Tensor, same: bool) -> tuple[Tensor, Tensor]:
        n, m = len(x), len(y)
        require_memory(
            x.element_size() * 3 * n * m,
            f"two kernel matrices of shape {(n, m)} in {x.dtype}",
            "evaluate fewer points at a time",
        )
        plan = self.network.plan
        largest = max(
            math.prod(op.positions)
            * math.prod(p for p, f in zip(op.positions, full, strict=True) if f)
            for op, full in zip(plan.operations, plan.cross, strict=True)
            if full is not None
        )
        step = block_rows(_COPIES * x.element_size() * largest * m, most=max(n, 1))
        columns = self._selves(y)
        blocks = []
        for part in x.split(step) if n else [x]:
            s, t = cross(self._selves(part), columns)
            blocks.append((s, torch.zeros_like(s) if t is None else t))
        s, t = (torch.cat(both) for both in zip(*blocks, strict=True))
        if same:
            own, tangent = self._self_state(x)
            s = torch.diagonal_scatter(s, own)
            t = torch.diagonal_scatter(t, tangent)
        return s, t

    def _selves(self, x: Tensor, output: bool = False) -> Selves:
        return Selves(self.network.plan, self.nngp._scales(), x, output)

    def _self_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self._selves(x, output=True)
        s, t = found.states[len(self.network.operations) - 1]
        return s, torch.zeros_like(s) if t is None else t

    def diag(self, x: Tensor) -> Tensor:
        """Evaluate the kernel of each point with itself.

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            Points.

        Returns
        -------
        Tensor of shape (n,)
            The diagonal of ``k(x)``.
        """
        self._check("x", x)
        with full_precision(x):
            found = self._self_state(x.to(working_dtype(x.dtype)))[1]
        self._check_values(found.unsqueeze(-1))
        return found.to(x.dtype)

    def _check(self, name: str, x: Tensor) -> Tensor:
        event = self.network.event_shape
        if check_tensor(name, x).ndim != len(event) + 1 or tuple(x.shape[1:]) != event:
            wanted = ", ".join(map(str, event))
            raise ValueError(
                f"{name}: expected shape (n, {wanted}) as the network takes, got {tuple(x.shape)}"
            )
        return x

    def _check_values(self, values: Tensor) -> None:
        if not is_plain(values) or bool(torch.isfinite(values).all()):
            return
        rows = (~torch.isfinite(values)).any(1).nonzero().flatten().tolist()
        raise ValueError(
            f"x: the kernel is not finite for {len(rows)} points (row {rows[0]} first); an input "
            "that reaches a jump with variance zero makes it infinite: expected inputs that are "
            "not zero, or b_std > 0"
        )

    # -- training --------------------------------------------------------------------------------

    @torch.no_grad()
    def spectrum(self, x: Tensor) -> SurrogateSpectrum:
        """Compute the eigenvalues of the kernel matrix, which decide whether training converges.

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            Training points, at least one.

        Returns
        -------
        SurrogateSpectrum
            Complex eigenvalues, with a plot.
        """
        self._check_points("x", x)
        what = f"the eigenvalues of a matrix of shape {(len(x), len(x))}"
        require_memory(8 * 5 * len(x) ** 2, what, "use fewer points")
        return SurrogateSpectrum.of(self(x.double()))

    @torch.no_grad()
    def predict(
        self,
        x: Tensor,
        y: Tensor,
        x_test: Tensor,
        *,
        t: float = math.inf,
        learning_rate: float = 1.0,
    ) -> Prediction:
        r"""Predict the ensemble of wide networks that surrogate gradients train.

        Gradient flow of rate :math:`\eta` on the loss :math:`\frac{1}{2M} \sum (f - y)^2`, with M
        the number of targets, as in `dynamics`. Over random initial networks,

        .. math:: E f_t = A_t y, \quad
            \mathrm{cov} f_t = N_{xx} - N_{xX} A_t^\top - A_t N_{Xx} + A_t N_{XX} A_t^\top, \quad
            A_t = I_{xX} I_{XX}^{-1} (1 - e^{-\eta t I_{XX} / M}).

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            Training points.
        y : Tensor of shape (n,) or (n, outputs)
            Targets.
        x_test : Tensor of shape (m, *event)
            Where to predict.
        t : float, default inf
            How long they are trained; steps of gradient descent, where these are small.
        learning_rate : float, default 1.0
            :math:`\eta`.

        Returns
        -------
        Prediction
            Mean and covariance, in the dtype of y, with a plot.

        Raises
        ------
        TypeError, ValueError
            If an argument does not fit, or training has no end: an eigenvalue of the kernel
            matrix has no positive real part.
        """
        self._check_points("x", x)
        self._check_points("x_test", x_test)
        check_tensor("y", y)
        if y.ndim not in (1, 2) or len(y) != len(x):
            raise ValueError(
                f"y: expected shape ({len(x)},) or ({len(x)}, outputs), got {tuple(y.shape)}"
            )
        check_finite("y", y)
        rate = check_real("learning_rate", learning_rate, above=0.0)
        if t != math.inf:
            check_real("t", t, least=0.0)
        prior, tangent = self.both(x.double())
        prior_cross, tangent_cross = self.both(x_test.double(), x.double())
        whole = self.nngp(x_test.double())
        weights = influence(tangent, tangent_cross, t * rate / max(y.numel(), 1))  # (m, n)
        return Prediction(
            (weights @ y.to(weights)).to(y.dtype),
            trained_covariance(whole, prior_cross, prior, weights).to(y.dtype),
            float(t),
        )

    def _check_points(self, name: str, x: Tensor) -> None:
        if not len(self._check(name, x)):
            raise ValueError(f"{name}: expected at least one point, got {tuple(x.shape)}")
        check_finite(name, x)
