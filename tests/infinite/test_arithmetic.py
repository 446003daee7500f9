"""Sums with factors, written in the ways that torch has for them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mercer.infinite import NTK
from tests.infinite.rule_networks import Net

W, B = 1.2, 0.3


def kernels(step: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Any:
    """NNGP and NTK of a function of two layers' outputs, read out."""
    module = Net(
        lambda m, z: m.head(step(m.a(z).relu(), m.b(z).relu())),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 8),
        head=nn.Linear(8, 1),
    )
    return NTK(module, w_std=W, b_std=B).requires_grad_(False).both(x, y)


def data() -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 5, generator=source, dtype=torch.float64) for n in (5, 4))
    return x, y


WEIGHTED: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = {
    "add": (lambda a, b: torch.add(a, b, alpha=2), 1, 2),
    "add_method": (lambda a, b: a.add(b, alpha=0.5), 1, 0.5),
    "add_in_place": (lambda a, b: a.add_(b, alpha=3), 1, 3),
    "sub": (lambda a, b: torch.sub(a, b, alpha=2), 1, -2),
    "sub_method": (lambda a, b: a.sub(b, alpha=0.5), 1, -0.5),
    "factors": (lambda a, b: 2 * a - b / 4, 2, -0.25),
    "number": (lambda a, b: torch.add(-a, 3 * b), -1, 3),
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_a_factor_counts_by_its_square(name: str):
    """Behind two independent layers with means mu: S = (f^2 + g^2) K + 2 f g mu mu'."""
    step, f, g = WEIGHTED[name]
    x, y = data()
    with torch.no_grad():
        s, t = kernels(lambda a, b: a, x, y)  # of one layer alone
    relu, tangent = (s - B**2) / W**2, (t - s) / W**2
    q, p = (W**2 * z.square().mean(-1) + B**2 for z in (x, y))
    means = (q[:, None] * p).sqrt() / (2 * torch.pi)
    s = W**2 * ((f**2 + g**2) * relu + 2 * f * g * means) + B**2
    for found, exact in zip(
        kernels(step, x, y), (s, W**2 * (f**2 + g**2) * tangent + s), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)


CONSTANT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: torch.add(a, 0.25, alpha=2),
    "sub": lambda a, b: torch.sub(a, -0.5),
    "sub_alpha": lambda a, b: a.sub(0.25, alpha=-2),
    "reversed": lambda a, b: 0.5 - -a,
}


@pytest.mark.parametrize("name", CONSTANT)
def test_a_number_takes_the_factor_too(name: str):
    x, y = data()
    for found, exact in zip(
        kernels(CONSTANT[name], x, y), kernels(lambda a, b: a + 0.5, x, y), strict=True
    ):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
