"""The arc-cosine kernels: a layer of infinitely many step, ReLU or squared ReLU neurons."""

import math
from typing import final

import torch
from torch import Tensor

from .activations import PowerActivation
from .base import Kernel
from .dual import dual

_ORDERS = (0, 1, 2)


def of_chord(s: Tensor, spare: Tensor, other: Tensor, order: int) -> Tensor:
    """Evaluate J_n / pi in place from squared distances of rows of length one."""
    # sin^2 = s (4 - s) / 4 and cos = 1 - s / 2 keep small angles to the last digit.
    sine = torch.sub(4.0, s, out=spare).clamp_min_(0).mul_(s).sqrt_().mul_(0.5)
    cosine = s.mul_(-0.5).add_(1)
    rest = torch.atan2(sine, cosine, out=other).neg_().add_(math.pi)  # pi - theta
    if order == 0:
        return s.copy_(rest).div_(math.pi)
    if order == 1:
        return s.mul_(rest).add_(sine).div_(math.pi)
    # 3 sin cos + (pi - theta) (1 + 2 cos^2), by Horner in cos.
    sine.mul_(3)
    sine.addcmul_(rest, cosine, value=2)
    return s.mul_(sine).add_(rest).div_(math.pi)


@final
class ArcCosine(Kernel):
    r"""The arc-cosine kernel of a wide layer of step, ReLU or squared ReLU neurons.

    .. math::

        k_n(x, y) = 2 E_{w \sim N(0, I)}[(w \cdot x)_+^n (w \cdot y)_+^n]
        = \frac{1}{\pi} |x|^n |y|^n J_n(\theta)

    with the angle :math:`\theta` between x and y, :math:`J_0 = \pi - \theta`,
    :math:`J_1 = \sin \theta + (\pi - \theta) \cos \theta` and
    :math:`J_2 = 3 \sin \theta \cos \theta + (\pi - \theta)(1 + 2 \cos^2 \theta)`. Twice the dual
    of the activation, see `dual`.

    Parameters
    ----------
    order : {0, 1, 2}, default 1
        n: 0 for steps, 1 for ReLU, 2 for its square.

    Raises
    ------
    ValueError
        If the order is none of the three.

    References
    ----------
    Cho, Saul, "Kernel methods for deep learning", NeurIPS 2009.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    >>> ArcCosine()(x)
    tensor([[1.0000, 0.6366],
            [0.6366, 4.0000]])
    """

    def __init__(self, order: int = 1) -> None:
        super().__init__(order=order)
        if isinstance(order, bool | str) or order not in _ORDERS:
            raise ValueError(f"order: expected one of {list(_ORDERS)}, got {order!r}")
        self.order = int(order)
        self._dual = dual(PowerActivation(self.order))

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        q11 = x.square().sum(-1).unsqueeze(-1)  # (..., n, 1)
        q22 = y.square().sum(-1).unsqueeze(-2)  # (..., 1, m)
        return 2 * self._dual(q11, q22, x @ y.mT)[0]

    def _diagonal(self, x: Tensor) -> Tensor:
        return 2 * self._dual.diagonal(x.square().sum(-1))[0]
