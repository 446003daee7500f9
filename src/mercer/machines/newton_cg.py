"""Newton's method for a convex loss of features, each step by conjugate gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from .landmark_basis import LandmarkBasis
from .losses import Loss

_MOST_INNER = 250
_MOST_HALVINGS = 40


@final
@dataclass(frozen=True, eq=False)
class NewtonFit:
    """Where Newton's method stopped.

    Attributes
    ----------
    coefficients : Tensor
        (n, q) or (r, q).
    intercept : Tensor of shape (q,)
        The intercept; zero where there is none.
    iterations : int
        Newton steps.
    fall : float
        By how much the objective would fall in one more step, over the objective.
    converged : bool
        Whether that is below the tolerance.
    """

    coefficients: Tensor
    intercept: Tensor
    iterations: int
    fall: float
    converged: bool


@torch.no_grad()
def newton_cg(
    basis: LandmarkBasis,
    loss: Loss,
    ridge: float,
    *,
    outputs: int = 1,
    intercept: bool = True,
    tilt: float = 0.0,
    start: NewtonFit | None = None,
    tol: float = 1e-10,
    max_iter: int = 100,
) -> NewtonFit:
    r"""Minimise a loss of centred features with a ridge.

    .. math:: \min_{w, b} \sum_i \ell_i(\phi_i^\top w + b) + \frac{\lambda}{2} \|w\|^2
        + t \sum_c (b - \mu^\top w)_c

    A step solves with the second derivative by conjugate gradients, preconditioned by that of
    equal curvatures, which is diagonal in this basis, as exactly as the gradient is small.

    Parameters
    ----------
    basis : LandmarkBasis
        The features.
    loss : Loss
        The losses of rows.
    ridge : float
        :math:`\lambda`, positive.
    outputs : int, default 1
        q, the number of functions.
    intercept : bool, default True
        Whether there is a b, which is not penalised.
    tilt : float, default 0.0
        t.
    start : NewtonFit, optional
        Where to start; None is zero.
    tol : float, default 1e-10
        The share of the objective that a further step is expected to gain, at which to stop.
    max_iter : int, default 100
        Most steps.

    Returns
    -------
    NewtonFit
        w, and b of the centred features.
    """
    like, r = basis.moments, len(basis.moments)
    # The last row is the intercept.
    z = like.new_zeros(r + 1, outputs)
    if start is not None:
        z = torch.cat([start.coefficients, start.intercept.unsqueeze(0)])
    free = 1.0 if intercept else 0.0
    tol = max(tol, torch.finfo(basis.cross.dtype).eps)
    linear = torch.cat([-basis.shift, like.new_ones(1)]).unsqueeze(-1) * tilt  # (r + 1, 1)

    def forward(v: Tensor, part: LandmarkBasis = basis) -> Tensor:
        return part @ v[:-1] + free * v[-1]

    def backward(u: Tensor, part: LandmarkBasis = basis) -> Tensor:
        return torch.cat([part.transposed(u), free * u.sum(0, keepdim=True)])

    def penalty(v: Tensor) -> float:
        return float(ridge / 2 * v[:-1].square().sum() + (linear * v).sum())

    def ridged(v: Tensor, damping: Tensor | float = 0.0) -> Tensor:
        return torch.cat([ridge * v[:-1], damping * v[-1:]])

    f = forward(z)  # (n, q)
    objective = loss.value(f) + penalty(z)
    fall, norms, iteration = torch.inf, None, 0
    for iteration in range(1, max_iter + 1):
        gradient = backward(loss.gradient(f)) + ridged(z) + linear
        state = loss.state(f)
        curvature = loss.diagonal(state).sum(0)  # (q,)
        # Where all rows lie on straight parts of the loss, nothing would hold the intercept.
        damping = (1e-5 * loss.steepest() - curvature).clamp_min(0)
        curvature = (curvature + damping).clamp_min(1e-12)
        scale = torch.cat([ridge + torch.outer(basis.moments, curvature), curvature.unsqueeze(0)])
        size = float((gradient.square() / scale).sum().sqrt())
        norms = size if norms is None else norms
        if size == 0.0:
            return NewtonFit(z[:-1], z[-1], iteration, 0.0, True)
        # Rows on straight parts of the loss have no part in it.
        bent, part = (state != 0).any(-1).nonzero().squeeze(-1), basis
        if len(bent) < len(state) / 2:
            part, state = basis.on_rows(bent), state[bent]

        def product(
            v: Tensor, part: LandmarkBasis = part, s: Tensor = state, d: Tensor = damping
        ) -> Tensor:
            return backward(loss.multiply(s, forward(v, part)), part) + ridged(v, d)

        tolerance = min(0.1, (size / norms) ** 0.5) if fall > 1e-5 else 1e-5
        step = _solve(product, -gradient, scale, tolerance)
        slope = float((gradient * step).sum())
        fall = -slope / 2 / max(abs(objective), 1e-300)
        moved, length = forward(step), 1.0
        for _ in range(_MOST_HALVINGS):
            trial = loss.value(f + length * moved) + penalty(z + length * step)
            if trial <= objective + 1e-4 * length * slope:
                break
            length /= 2
        else:
            # Rounding decides from here on.
            return NewtonFit(z[:-1], z[-1], iteration, fall, fall <= max(tol, 1e-10))
        z = z + length * step
        f, objective = f + length * moved, trial
        if fall <= tol:
            return NewtonFit(z[:-1], z[-1], iteration, fall, True)
    return NewtonFit(z[:-1], z[-1], iteration, fall, False)


def _solve(
    product: Callable[[Tensor], Tensor], rhs: Tensor, scale: Tensor, tolerance: float
) -> Tensor:
    """Solve by conjugate gradients, all outputs as one system."""
    x, residual = torch.zeros_like(rhs), rhs.clone()
    z = residual / scale
    direction, rho = z, float((residual * z).sum())
    target = tolerance**2 * rho
    for _ in range(_MOST_INNER):
        image = product(direction)
        curvature = float((direction * image).sum())
        if curvature <= 0:
            break
        x = x + rho / curvature * direction
        residual = residual - rho / curvature * image
        z = residual / scale
        following = float((residual * z).sum())
        if following <= target:
            break
        direction, rho = z + following / rho * direction, following
    return x if bool(x.any()) else rhs / scale
