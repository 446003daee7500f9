"""Kernel logistic regression in its dual, by iteratively reweighted least squares."""

import torch
from torch import Tensor

from .losses import LogisticLoss
from .newton_cg import NewtonFit

_FLOOR = 1e-12  # of probabilities in weights; the fixed point does not depend on it
_MOST_HALVINGS = 40


@torch.no_grad()
def kernel_irls(
    matrix: Tensor,
    labels: Tensor,
    weights: Tensor,
    ridge: float,
    *,
    intercept: bool = True,
    tol: float = 1e-10,
    max_iter: int = 100,
) -> NewtonFit:
    r"""Minimise the log loss of a function :math:`f = K \alpha + b` with a ridge.

    .. math:: \min_{\alpha, b} \sum_i w_i \ell_i(f_i) + \frac{\lambda}{2} \alpha^\top K \alpha

    Each step is that of weighted ridge regression,

    .. math:: \alpha \leftarrow (K + \lambda W^{-1})^{-1} (f + W^{-1}(y - p) - b),
        \qquad 1^\top \alpha = 0

    with :math:`W = w\,p(1 - p)`, halved until the objective falls.

    Parameters
    ----------
    matrix : Tensor of shape (n, n)
        K, symmetric positive semi-definite, float64.
    labels : Tensor of shape (n,)
        0 or 1, float64.
    weights : Tensor of shape (n,)
        Positive weights of rows.
    ridge : float
        :math:`\lambda`, positive.
    intercept : bool, default True
        Whether there is a b, which is not penalised.
    tol : float, default 1e-10
        The share of the objective that a further step is expected to gain, at which to stop.
    max_iter : int, default 100
        Most steps.

    Returns
    -------
    NewtonFit
        :math:`\alpha` (n, 1) and b (1,).

    References
    ----------
    Younes, "Introduction to machine learning", 2024, arXiv 2409.02668.
    """
    w = weights.unsqueeze(-1)  # (n, 1)
    loss = LogisticLoss(2 * labels.unsqueeze(-1) - 1, w)
    ones = torch.ones_like(w)
    alpha, image, f = (torch.zeros_like(w) for _ in range(3))  # (n, 1); K alpha; f
    b = w.new_zeros(1)
    objective, fall, iteration = loss.value(f), torch.inf, 0
    for iteration in range(1, max_iter + 1):
        residual = -loss.gradient(f)  # w (y - p)
        p = f.sigmoid()
        curvature = w * (p * (1 - p)).clamp_min(_FLOOR)
        # (K + ridge / W)^-1 = W^(1/2) (ridge + W^(1/2) K W^(1/2))^-1 W^(1/2), which is well posed.
        root = curvature.sqrt()
        system = matrix * root * root.mT
        system.diagonal().add_(ridge)
        both = torch.cat([f + residual / curvature, ones], -1)  # (n, 2)
        both = root * torch.cholesky_solve(root * both, torch.linalg.cholesky(system))
        following, along = both[:, :1], both[:, 1:]
        c = following.sum(0) / along.sum(0) if intercept else torch.zeros_like(b)
        step, shift = following - c * along - alpha, c - b
        moved = matrix @ step
        slope = float((moved * (ridge * alpha - residual)).sum() - (shift * residual.sum(0)).sum())
        fall = -slope / 2 / max(objective, 1e-300)
        length = 1.0
        for _ in range(_MOST_HALVINGS):
            now, seen = alpha + length * step, image + length * moved
            trial = loss.value(seen + b + length * shift)
            trial += ridge / 2 * float((now * seen).sum())
            if trial <= objective + 1e-4 * length * slope:
                break
            length /= 2
        else:
            # Rounding decides from here on.
            return NewtonFit(alpha, b, iteration, fall, fall <= max(tol, 1e-10))
        alpha, image, b, objective = now, seen, b + length * shift, trial
        f = image + b
        if fall <= tol:
            return NewtonFit(alpha, b, iteration, fall, True)
    return NewtonFit(alpha, b, iteration, fall, False)
