"""Attention to a single token, which is two layers one after the other, whatever is trained."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from mercer.infinite import NTK, SelfAttention, Signal, rule
from tests.infinite.golden_networks import Pooled


class Values(nn.Module):
    """Attention to one token, with values of a width of their own."""

    def __init__(self, width: int, values: int) -> None:
        super().__init__()
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, values, bias=False)
        self.out = nn.Linear(values, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.value(x))


@rule(Values)
def values(module: Values, x: Signal) -> Signal:
    return x.attended(
        True,
        True,
        width=module.value.out_features,
        trains_value=module.value.weight.requires_grad,
        trains_out=module.out.weight.requires_grad,
        trains_bias=module.out.bias.requires_grad,
    )


def freeze(value: nn.Linear, out: nn.Linear, trained: tuple[bool, bool, bool]) -> None:
    for parameter, wanted in zip((value.weight, out.weight, out.bias), trained, strict=True):
        parameter.requires_grad_(wanted)


def compare(
    attention: SelfAttention | Values, parametrization: str, trained: tuple[bool, bool, bool]
) -> None:
    width = attention.value.out_features
    two = nn.Sequential(nn.Linear(8, width, bias=False), nn.Linear(width, 8))
    freeze(attention.value, attention.out, trained)
    freeze(two[0], two[1], trained)  # pyright: ignore[reportArgumentType]
    std = {}
    named = {}
    if parametrization != "torch":
        std = {"w_std": {"": 1.3, "layers.2.value": 0.8, "layers.2.out": 1.7}, "b_std": 0.4}
        named = {"w_std": {"": 1.3, "layers.2.0": 0.8, "layers.2.1": 1.7}, "b_std": 0.4}
    found, exact = (
        NTK(
            Pooled((1,), nn.Linear(5, 8), nn.ReLU(), part, nn.ReLU(), head=nn.Linear(8, 1)),
            parametrization=parametrization,
            example=torch.zeros(1, 1, 5),
            **options,
        ).requires_grad_(False)
        for part, options in ((attention, std), (two, named))
    )
    source = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 1, 5, generator=source, dtype=torch.float64) for n in (5, 4))
    for other in (y, None):
        for one, reference in zip(found.both(x, other), exact.both(x, other), strict=True):
            torch.testing.assert_close(one, reference, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(found.diag(x), exact.diag(x), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("trained", [*itertools.product([True, False], repeat=3)])
@pytest.mark.parametrize("parametrization", ["ntk", "standard", "torch"])
def test_one_token(parametrization: str, trained: tuple[bool, bool, bool]):
    compare(SelfAttention(8), parametrization, trained)


@pytest.mark.parametrize("trained", [*itertools.product([True, False], repeat=3)])
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_values_of_another_width(parametrization: str, trained: tuple[bool, bool, bool]):
    """The tangents of the values count the tokens' channels, those of the outputs the values'."""
    compare(Values(8, 20), parametrization, trained)
