"""Means of channels that lie beside each other, against blocks of equal width."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mercer.infinite import NTK
from tests.infinite.rule_networks import Net


def wide_and_narrow(after: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    """One layer of 8 channels beside one of 24."""
    return Net(
        lambda m, x: m.head(after(m, torch.cat([m.a(x).sigmoid(), m.b(x).relu()], -1))),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 24),
        norm=nn.LayerNorm(32, eps=0.02),
        head=nn.Linear(32, 1),
    )


def four_blocks(after: Callable[[Any, Tensor], Tensor]) -> nn.Module:
    """The same channels as four layers of 8."""
    return Net(
        lambda m, x: m.head(
            after(m, torch.cat([m.a(x).sigmoid(), *(b(x).relu() for b in (m.b, m.c, m.d))], -1))
        ),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 8),
        c=nn.Linear(5, 8),
        d=nn.Linear(5, 8),
        norm=nn.LayerNorm(32, eps=0.02),
        head=nn.Linear(32, 1),
    )


AFTER: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "norm": lambda m, z: m.norm(z),
    "constant": lambda m, z: 2 * z - 1.5,
    "constant_and_norm": lambda m, z: m.norm(z + 0.5),
}


@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
@pytest.mark.parametrize("name", AFTER)
def test_a_wide_block_is_three_narrow_ones(name: str, parametrization: str):
    source = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 5, generator=source, dtype=torch.float64) for n in (6, 4))
    one, two = (
        NTK(make(AFTER[name]), parametrization=parametrization, w_std=1.2, b_std=0.3)
        for make in (wide_and_narrow, four_blocks)
    )
    with torch.no_grad():
        for other in (y, None):
            for found, exact in zip(one.both(x, other), two.both(x, other), strict=True):
                torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(one.diag(x), two.diag(x), rtol=1e-12, atol=1e-12)


def test_mean_of_sigmoids_beside_the_constant_one_half():
    """Channels of a sigmoid have mean 1/2 whatever their variance; a constant cancels it."""
    module = Net(
        lambda m, x: m.head(torch.cat([m.a(x).sigmoid(), m.b(x)], -1) - 0.125),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 24),
        head=nn.Linear(32, 1),
    )
    apart = Net(
        lambda m, x: m.head(torch.cat([m.a(x).sigmoid(), m.b(x)], -1)),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 24),
        head=nn.Linear(32, 1),
    )
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        found, without = (NTK(m, w_std=1.2, b_std=0.3).nngp(x) for m in (module, apart))
    # E (z - c)(z' - c) = E z z' - 2 c E z + c^2 with E z = 1/4 * 1/2 over all channels.
    exact = without + 1.2**2 * (0.125**2 - 2 * 0.125 * 0.125)
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
