import pytest
import torch

import mercer
from mercer._core.config import resident_memory
from mercer.linalg import effective_dimension, ink_estimate, ridge_leverage_scores
from mercer.linalg.ink_estimate import SketchedInverse, dimension_increment

SHEET = "machines-ink-estimate"


def _matrix(n=400, gamma=0.5, share=0.5, seed=0):
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=source, dtype=torch.float64)
    x[: int(share * n)] *= 0.02
    x = x[torch.randperm(n, generator=source)]
    return torch.exp(-gamma * torch.cdist(x, x).square())


def _run(k, **options):
    asked = {"ridge": 1.0, "num_columns": 900, "generator": 0, **options}
    return ink_estimate(lambda i, j: k[i][:, j], k.diagonal(), **asked)


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="With K~ from any columns, eps from the largest eigenvalue of K - K~ and alpha = "
    "(2 - eps) / (1 - eps): tau / alpha <= estimate <= tau for every i; K - K~ is not negative.",
)
def test_estimates_are_one_sided(evidence):
    k, ridge = _matrix(share=0.0), 2.0
    tau = ridge_leverage_scores(k, ridge=ridge)
    for count in (50, 100, 200, 400):
        index = torch.randperm(400, generator=torch.Generator().manual_seed(count))[:count]
        weights = torch.full((count,), 400 / count).double()
        c, inner = k[:, index], k[index][:, index]
        sketch = c @ torch.linalg.solve(inner + torch.diag(ridge / weights), c.mT)
        spectrum = torch.linalg.eigvalsh(k - sketch)
        epsilon = max(0.0, 1 - ridge / float(spectrum[-1]))
        alpha = (2 - epsilon) / (1 - epsilon)
        inverse = SketchedInverse(c, inner, weights, ridge)
        along = torch.tensor([inverse.along(k[:, i], alpha) for i in range(400)])
        ratio = (1 - along.double()) / (alpha * ridge) / tau
        evidence(
            required=f"in [{1 / alpha:.4f}, 1]",
            measured=f"[{float(ratio.min()):.4f}, {float(ratio.max()):.4f}]",
            what=f"estimate / tau, {count} columns, alpha {alpha:.2f}",
        )
        evidence(required=">= -1e-9", measured=float(spectrum[0]), what=f"K - K~, {count} columns")
        assert float(ratio.min()) >= 1 / alpha - 1e-6 and float(ratio.max()) <= 1 + 1e-6
        assert float(spectrum[0]) >= -1e-9


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="k_ii - k_i' (K + ridge I)^-1 k_i is ridge tau_i, and the increments of the effective "
    "dimension over a stream add up to it; scores fall as rows join.",
)
def test_identities(evidence):
    k, ridge = _matrix(), 2.0
    tau = ridge_leverage_scores(k, ridge=ridge)
    eye = torch.eye(400).double()
    left = k.diagonal() - (k * torch.linalg.solve(k + ridge * eye, k)).sum(0)
    gap = float((left - ridge * tau).abs().max())
    evidence(required="<= 1e-10", measured=gap, what="ridge tau")
    assert gap <= 1e-10
    total = 0.0
    for t in range(400):
        column = k[:t, t]
        solved = torch.linalg.solve(k[:t, :t] + ridge * eye[:t, :t], column)
        step = dimension_increment(
            float(k[t, t]), float(column @ solved), float(solved @ solved), ridge
        )
        assert 0 <= step <= 1
        total += step
    gap = abs(total - effective_dimension(k, ridge=ridge))
    evidence(required="<= 1e-9", measured=gap, what="sum of increments")
    assert gap <= 1e-9
    fall = float((tau[:300] - ridge_leverage_scores(k[:300, :300], ridge=ridge)).max())
    evidence(required="<= 1e-12", measured=fall, what="largest rise of a score, 300 to 400 rows")
    assert fall <= 1e-12


def test_woodbury_equals_the_dense_inverse():
    k = _matrix(60)
    index, weights = torch.arange(0, 60, 5), torch.arange(1.0, 13.0).double()
    c, inner = k[:, index], k[index][:, index]
    sketch = c @ torch.linalg.solve(inner + torch.diag(0.3 / weights), c.mT)
    eye = torch.eye(60).double()
    inverse = SketchedInverse(c, inner, weights, 0.3)
    v = torch.sin(torch.arange(60)).double()
    dense = torch.linalg.inv(sketch + 0.6 * eye)
    along, cross, own = inverse.forms(v, 2.0)
    assert along == pytest.approx(float(v @ dense @ v), rel=1e-9)
    torch.testing.assert_close(cross, c.mT @ dense @ v, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(own, (c.mT @ dense @ c).diagonal(), rtol=1e-8, atol=1e-9)
    once = torch.linalg.solve(sketch + 0.3 * eye, v)
    assert inverse.square(v) == pytest.approx(float(once @ once), rel=1e-8)


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="One pass: K~ is within ridge / (1 - accuracy) of K, scores are below the exact ones and "
    "within alpha of them, and the estimated dimension is above the exact one.",
)
def test_one_pass(evidence):
    k = _matrix(400)
    tau = ridge_leverage_scores(k, ridge=1.0)
    found = _run(k, num_columns=6400)
    c, inner = k[:, found.index], k[found.index][:, found.index]
    sketch = c @ torch.linalg.solve(inner + torch.diag(1 / found.weights), c.mT)
    norm = float(torch.linalg.eigvalsh(k - sketch)[-1])
    ratio = found.scores / tau[found.index]
    low, high = float(ratio.min()), float(ratio.max())
    above = found.dimension / float(tau.sum())
    evidence(required="< 400", measured=len(found.index), what="columns kept, 6,400 expected")
    evidence(required="<= 2", measured=norm, what="norm of K - K~ in ridges, accuracy 0.5")
    evidence(required="in [0.33, 1]", measured=f"[{low:.2f}, {high:.2f}]", what="score ratios")
    evidence(required=">= 1", measured=above, what="dimension over the exact one")
    assert len(found.index) <= 250 and norm <= 2
    assert low >= 1 / 3 and high <= 1 and above >= 1


def test_too_few_columns_for_the_estimates():
    with pytest.raises(ValueError, match=r"num_columns: all columns were dropped"):
        _run(_matrix(400), num_columns=200)


def test_columns_are_asked_for_once():
    k, asked = _matrix(150), []

    def entries(i, j):
        asked.append((len(i), int(j)))
        return k[i][:, j]

    found = ink_estimate(entries, k.diagonal(), ridge=1.0, num_columns=900, generator=0)
    assert asked == [(t, t) for t in range(1, 150)]
    assert bool((found.index.diff() > 0).all()) and bool((found.weights >= 1).all())
    assert torch.equal(found.weights, found.weights.round())


def test_float32_and_zero_rows():
    k = _matrix(50).float()
    k[7] = k[:, 7] = 0.0
    found = _run(k, num_columns=900)
    assert found.scores.dtype == torch.float32 and 7 not in found.index.tolist()


@pytest.mark.usefixtures("global_state_unchanged")
def test_generator_leaves_the_global_state():
    k = _matrix(100)
    assert torch.equal(_run(k, num_columns=900).index, _run(k, num_columns=900).index)


def test_memory():
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**10),
        pytest.raises(MemoryError, match="ask for fewer"),
    ):
        _run(_matrix(100))


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "entries", {"entries": None}),
        (ValueError, "entries", {"entries": lambda i, j: torch.ones(2, 2)}),
        (ValueError, "entries", {"entries": lambda i, j: torch.full((len(i), 1), torch.nan)}),
        (TypeError, "diagonal", {"diagonal": [1.0]}),
        (ValueError, "diagonal", {"diagonal": -torch.ones(3)}),
        (ValueError, "diagonal", {"diagonal": torch.ones(0)}),
        (ValueError, "ridge", {"ridge": 0.0}),
        (ValueError, "num_columns", {"num_columns": 0}),
        (ValueError, "accuracy", {"accuracy": 1.0}),
        (TypeError, "generator", {"generator": "seed"}),
    ],
)
def test_errors(error, match, options):
    good = {
        "entries": lambda i, j: torch.eye(3)[i][:, j],
        "diagonal": torch.ones(3),
        "ridge": 1.0,
        "num_columns": 3,
    }
    with pytest.raises(error, match=match):
        ink_estimate(**{**good, **options})
