"""Every rule of networks of infinite width against finite ones."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NTK, NoRuleError, monte_carlo
from tests.infinite.rule_networks import CASES, Case, Net

SHEET = "infinite-neural-tangent-kernel"
SCALES = {"w_std": 1.4, "b_std": 0.4}


def data(shape: tuple[int, ...]) -> Tensor:
    """Three points: two alike, one apart."""
    source = torch.Generator().manual_seed(1)
    a, b, c = torch.randn(3, *shape, generator=source, dtype=torch.float64)
    return torch.stack((a, 0.8 * a + 0.5 * b, 0.7 * c))


def scales(case: Case) -> dict[str, Any]:
    """Return the hyperparameters of a case."""
    default = {} if case.options.get("parametrization") == "torch" else SCALES
    return {**default, **case.options}


def kernels(case: Case, width: int, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Compute NNGP and NTK; the width matters in the parametrizations where it enters."""
    with torch.no_grad():
        return NTK(case.make(width), example=x[:1], **scales(case)).both(x, y)


def distance(
    case: Case,
    x: Tensor,
    y: Tensor | None = None,
    *,
    samples: int | None = None,
    against: Case | None = None,
) -> tuple[float, float]:
    """Measure how far the kernels are from finite networks, in standard errors.

    The bias of a finite width is a / width + O(1 / width^2): two widths, one twice the other,
    remove its first term. Also returns the largest standard error, relative to the kernel.
    """
    rows = []
    for width in case.widths:
        found = monte_carlo(
            case.make,
            width,
            samples or case.samples,
            x.float(),
            None if y is None else y.float(),
            generator=width,
            **scales(case),
        )
        row = []
        for name, value in zip(("nngp", "ntk"), kernels(against or case, width, x, y), strict=True):
            scale = value.abs().amax()
            error = getattr(found, f"{name}_error").double() / scale
            row.append(((getattr(found, name).double() - value) / scale, error))
        rows.append(row)
    worst, coarse = 0.0, 0.0
    for (narrow, e), (wide, f) in zip(*rows, strict=True):
        error = (e.square() + 4 * f.square()).sqrt()
        worst = max(worst, float(((2 * wide - narrow).abs() / error).max()))
        coarse = max(coarse, float(error.max()))
    return worst, coarse


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Each layer rule agrees with finite networks within 4 standard errors.",
)
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if c.slow else []) for n, c in CASES.items()],
)
def test_rule(name, evidence):
    case = CASES[name]
    gap, coarse = distance(case, data(case.shape))
    evidence(required="< 4", measured=gap, what="standard errors")
    assert gap < 4
    assert coarse < 0.15, "the estimate is too coarse to tell a wrong rule"


@pytest.mark.parametrize("name", CASES)
def test_tiles_equal_their_twin(name):
    """What is evaluated in place, tile by tile, against the operations one after the other."""
    case = CASES[name]
    x = data(case.shape)
    y = x[1:] + 0.4 * x[:-1].flip(-1)  # no point twice: rounding counts for more there
    kernel = NTK(case.make(8), example=x[:1], **scales(case))
    for columns in (None, y):
        with torch.no_grad():
            fast = kernel.both(x, columns)
        with torch.enable_grad():
            naive = kernel.both(x, columns)  # hyperparameters want gradients
        for one, other in zip(fast, naive, strict=True):
            scale = other.abs().amax()
            assert ((one - other).abs() <= 1e-11 * scale).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_rule_closely(name):
    case = CASES[name]
    x = data(case.shape)
    gap, coarse = distance(case, x[:2], x[1:], samples=max(8 * 500, case.samples))
    assert gap < 4
    assert coarse < 0.08


def changed(name: str, **options: Any) -> Case:
    """Make a case with other options."""
    case = CASES[name]
    return dataclasses.replace(case, options={**case.options, **options})


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("dense_relu", changed("dense_relu", b_std=0.3)),
        ("dense_relu", CASES["dense_leaky_relu"]),
        ("dense_relu", CASES["dense_frozen_below"]),
        ("dropout_in_training", CASES["dropout_in_evaluation"]),
        ("layer_norm_before_activation", CASES["layer_norm_after_activation"]),
    ],
)
def test_wrong_rules_are_seen(name, wrong):
    gap, _ = distance(CASES[name], data(CASES[name].shape), against=wrong)
    assert gap > 4


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.out((h := m.one(x)) + h.flip(1)).mean(1),
        lambda m, x: m.out((h := m.one(x)) + h.mean(1, keepdim=True)).mean(1),
        lambda m, x: m.out((h := m.one(x)) * h.roll(1, 1)).mean(1),
        lambda m, x: m.out(F.relu(F.relu(m.one(x)).mean(1))),
        lambda m, x: m.out(F.relu(F.dropout(m.one(x))).mean(1)),
        lambda m, x: m.out(F.relu(m.one(x) * m.other(x)).mean(1)),
        lambda m, x: m.out(m.two(F.relu(m.two(F.relu(m.one(x)))))).mean(1),
        lambda m, x: m.out(F.relu(m.norm(m.one(x)) + m.other(x)).mean(1)),
        lambda m, x: m.out(F.relu(m.deep(m.one(x).transpose(1, 2))).mean(2)),
        lambda m, x: m.out(F.relu(x + m.five(x)).mean(1)),
    ],
)
def test_what_is_no_kernel_rule_is_refused(forward):
    """Dependent sums, activations of what is not normal, weights used twice: no silent number."""
    module = Net(
        forward,
        one=nn.Linear(5, 8),
        other=nn.Linear(5, 8),
        five=nn.Linear(5, 5),
        two=nn.Linear(8, 8),
        deep=nn.Conv1d(8, 8, 2, groups=8),
        norm=nn.LayerNorm(8),
        out=nn.Linear(8, 1),
    )
    with pytest.raises(NoRuleError):
        NTK(module, example=torch.zeros(1, 4, 5))
