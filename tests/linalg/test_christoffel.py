import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest

import mercer
from mercer._core.config import resident_memory
from mercer._core.random import draw_uniform
from mercer.linalg import ChristoffelDensity

M = 6


def legendre(x, m=M):
    return torch.from_numpy(np.polynomial.legendre.legvander(x.numpy(), m - 1))


def gauss(count=200):
    nodes, masses = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(nodes), torch.from_numpy(masses) / 2


def uniform(count, source):
    return 2 * draw_uniform((count,), source) - 1


def _continuous(m=M, **options):
    return ChristoffelDensity(lambda x: legendre(x, m), *gauss(), sampler=uniform, **options)


def _finite(n=7, m=2, seed=0):
    source = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, m, generator=source, dtype=torch.float64)
    masses = torch.rand(n, generator=source, dtype=torch.float64)
    return ChristoffelDensity(lambda i: rows[i.long()], torch.arange(n).double(), masses)


def test_orthonormal_and_the_leverage_of_legendre():
    nodes, masses = gauss()
    density = _continuous()
    moments = density.basis(nodes).mT * masses @ density.basis(nodes)
    torch.testing.assert_close(moments, torch.eye(M).double(), atol=1e-13, rtol=0)
    x = torch.linspace(-1, 1, 11).double()
    exact = (legendre(x).square() * (2 * torch.arange(M) + 1)).sum(1)
    torch.testing.assert_close(density.leverage(x), exact, rtol=1e-12, atol=0)
    torch.testing.assert_close(density.weights(x), M / exact, rtol=1e-12, atol=0)
    assert float(density.leverage(nodes) @ masses) == pytest.approx(M, rel=1e-12)
    raw = legendre(x) @ density.transform
    torch.testing.assert_close(raw, density.basis(x))


def test_ill_conditioned_features_are_made_orthonormal():
    # Powers up to 20 on [0, 1]: their moments have a condition above 1e24.
    x = torch.linspace(0, 1, 4001).double()
    density = ChristoffelDensity(lambda x: torch.stack([x**k for k in range(13)], 1), x)
    moments = density.basis(x).mT @ density.basis(x) / len(x)
    assert float((moments - torch.eye(13)).abs().max()) <= 1e-6
    found, _, rows = density.draw_projection(torch.Generator().manual_seed(0))
    assert len(found.unique()) == 13
    torch.testing.assert_close(rows, density.basis(found), rtol=1e-5, atol=1e-5)


def test_independent_draws_have_the_density():
    density = _finite()
    source = torch.Generator().manual_seed(0)
    _, index, rows = density.draw_independent(20_000, source)
    law = density.leverage(density.nodes) * density.measure / 2
    assert float(law.sum()) == pytest.approx(1.0)
    counts = torch.bincount(index, minlength=7)
    assert chisquare(counts.tolist(), (20_000 * law).tolist()).pvalue > 1e-4
    torch.testing.assert_close(rows, density.basis(density.nodes[index]))


def _distribution(x, m=M):
    """Distribution function of K_m / m under the uniform measure, by the primitive."""
    total = np.zeros_like(x)
    for k in range(m):
        square = np.polynomial.legendre.Legendre.basis(k) ** 2 * (2 * k + 1)
        total += square.integ(lbnd=-1)(x) / 2
    return total / m


@pytest.mark.parametrize("bound", [None, float(M * M)])
def test_continuous_draws_have_the_density(bound):
    source = torch.Generator().manual_seed(1)
    density = _continuous(bound=bound)
    points, index, rows = density.draw_independent(4000, source)
    assert index is None and kstest(points.numpy(), _distribution).pvalue > 1e-4
    torch.testing.assert_close(rows, density.basis(points))


@pytest.mark.paper(
    "machines-dpp-weighted-least-squares",
    kind="exact",
    claim="Points of a continuous projection DPP have the Christoffel density each, and repel as "
    "its kernel says.",
)
def test_continuous_projection(evidence):
    source = torch.Generator().manual_seed(2)
    density = _continuous()
    draws = torch.stack([density.draw_projection(source)[0] for _ in range(800)])  # (800, M)
    every = draws[torch.arange(800), torch.arange(800) % M]
    p = float(kstest(every.numpy(), _distribution).pvalue)
    evidence(required="p > 1e-4", measured=p, what="Kolmogorov-Smirnov of one point of each draw")
    assert p > 1e-4
    # Variance of a linear statistic: int h^2 K - int int h h K^2.
    nodes, masses = gauss()
    basis = density.basis(nodes)
    h = nodes.abs()
    kernel = basis @ basis.mT
    exact = float((h.square() * masses) @ kernel.diagonal())
    exact -= float((h * masses) @ kernel.square() @ (h * masses))
    sums = draws.abs().sum(1)
    mean = float((h * masses) @ kernel.diagonal())
    z = abs(float(sums.mean()) - mean) / (exact / 800) ** 0.5
    evidence(required="<= 4 standard errors", measured=z, what="mean of sum |x|")
    evidence(
        required="in [0.8, 1.25]",
        measured=float(sums.var()) / exact,
        what="variance of sum |x| over the exact one",
    )
    assert z <= 4 and 0.8 <= float(sums.var()) / exact <= 1.25


@pytest.mark.paper(
    "machines-dpp-weighted-least-squares",
    kind="exact",
    claim="Inclusion frequencies of a discrete projection DPP are K_m(x, x) mu within three "
    "standard errors, and the residuals sum to m - k + 1 at each step.",
)
def test_discrete_projection(evidence):
    density, draws = _finite(12, 4, seed=3), 3000
    source = torch.Generator().manual_seed(0)
    index = torch.cat([density.draw_projection(source)[1] for _ in range(draws)])
    share = torch.bincount(index, minlength=12) / draws
    law = density.leverage(density.nodes) * density.measure
    z = float(((share - law) * (draws / (law * (1 - law))).sqrt()).abs().max())
    evidence(required="<= 3", measured=z, what="largest of 12, in standard errors")
    assert z <= 3
    rows = density.basis(density.nodes) * density.measure.sqrt().unsqueeze(1)
    points = index[:4]
    gap = 0.0
    for step in range(5):
        q, _ = torch.linalg.qr(rows[points[:step]].mT)
        residual = (rows - rows @ q @ q.mT).square().sum()
        gap = max(gap, abs(float(residual) - (4 - step)))
    evidence(required="<= 1e-12", measured=gap, what="sum of residuals less m - k + 1")
    assert gap <= 1e-12


def test_a_bound_that_is_too_low():
    with pytest.raises(ValueError, match="bound: expected one of K_m"):
        _continuous(bound=2.0).draw_independent(50, torch.Generator().manual_seed(0))
    # Nodes in the middle only: the bound that they give is far too low, and grows.
    middle = torch.linspace(-0.5, 0.5, 101).double()
    density = ChristoffelDensity(legendre, middle, sampler=uniform)
    before = float(density.leverage(middle).max())
    points, _, _ = density.draw_independent(200, torch.Generator().manual_seed(0))
    assert float(density.leverage(points).max()) > 10 * before


def test_features_that_vanish_everywhere_else():
    hat = lambda x: (x.abs() < 1e-9).double().unsqueeze(1)
    density = ChristoffelDensity(hat, torch.zeros(1).double(), sampler=uniform)
    assert math.isinf(float(density.weights(torch.ones(1).double())))
    _, index, _ = ChristoffelDensity(hat, torch.tensor([0.0, 1.0]).double()).draw_independent(
        9, None
    )
    assert index.tolist() == [0] * 9


@pytest.mark.usefixtures("global_state_unchanged")
def test_generator_leaves_the_global_state():
    for density in (_continuous(), _finite()):
        one, two = (density.draw_projection(torch.Generator().manual_seed(4)) for _ in range(2))
        assert torch.equal(one[0], two[0])


def test_memory():
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**10),
        pytest.raises(MemoryError, match="thin the nodes"),
    ):
        _continuous()


NODES = torch.linspace(-1, 1, 9).double()


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "features", {"features": None}),
        (TypeError, "sampler", {"sampler": 3}),
        (TypeError, "nodes", {"nodes": [1.0]}),
        (ValueError, "nodes", {"nodes": torch.zeros(0)}),
        (ValueError, "nodes", {"nodes": torch.full((3,), torch.nan)}),
        (ValueError, "measure", {"measure": torch.ones(3)}),
        (ValueError, "measure", {"measure": -torch.ones(9)}),
        (ValueError, "measure", {"measure": torch.zeros(9)}),
        (ValueError, "bound", {"bound": 0.0}),
        (ValueError, "features", {"features": lambda x: x}),
        (ValueError, "features", {"features": lambda x: torch.ones(3, 2)}),
        (ValueError, "features", {"features": lambda x: torch.full((9, 2), torch.inf)}),
        (TypeError, "features", {"features": lambda x: None}),
        (ValueError, "numerical rank 1", {"features": lambda x: torch.ones(9, 3)}),
        (ValueError, "numerical rank 9", {"features": lambda x: legendre(x, 12)}),
        (
            ValueError,
            "numerical rank 1",
            {"features": lambda x: torch.eye(9, 2) * torch.eye(9, 2)[0]},
        ),
    ],
)
def test_errors(error, match, kwargs):
    with pytest.raises(error, match=match):
        ChristoffelDensity(**{"features": legendre, "nodes": NODES, **kwargs})


def test_errors_of_draws_and_points():
    wrong = ChristoffelDensity(legendre, NODES, sampler=lambda count, source: torch.zeros(3, 2))
    with pytest.raises(ValueError, match="sampler: expected shape"):
        wrong.draw_independent(3, None)
    grows = ChristoffelDensity(lambda x: torch.ones(len(x), 1 + len(x) // 2), NODES[:1])
    with pytest.raises(ValueError, match="features: expected 1 of them"):
        grows.basis(NODES[:2])
