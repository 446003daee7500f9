import numpy as np
import pytest
import torch

from mercer.linalg import RidgePath
from mercer.linalg.ridge_path import RidgeChoice


def _problem(n=60, q=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator).double()
    k = torch.exp(-0.5 * torch.cdist(x, x).square())
    y = torch.stack([x[:, 0].sin() + 0.3 * x[:, 1], x.square().sum(-1)][:q], -1)
    weights = torch.randint(1, 4, (n,), generator=generator).double()
    return k, y + 0.1 * torch.randn(n, q, generator=generator).double(), weights


def _fit(k, y, ridge, weights, intercept):
    """Solve the bordered system as it is written in books."""
    n = len(k)
    system = torch.zeros(n + 1, n + 1).double()
    system[:n, :n] = k + ridge * torch.diag(1 / weights)
    system[:n, n] = system[n, :n] = float(intercept)
    system[n, n] = float(not intercept)
    found = torch.linalg.solve(system, torch.cat([y, torch.zeros(1, y.shape[1]).double()]))
    return found[:n], found[n]


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="The closed form of leave-one-out residuals equals n refits (n = 60).",
)
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_equals_refits(intercept, weighted, evidence):
    k, y, weights = _problem()
    w = weights if weighted else torch.ones(60).double()
    path = RidgePath(k, y, weights=w if weighted else None, intercept=intercept)
    refits = []
    for i in range(60):
        keep = torch.arange(60) != i
        a, b = _fit(k[keep][:, keep], y[keep], 0.3, w[keep], intercept)
        refits.append(y[i] - k[i, keep] @ a - b)
    error = float((path.leave_one_out(0.3) - torch.stack(refits)).abs().max())
    evidence(required="<= 1e-12", measured=error, what=f"intercept {intercept}, {weighted=}")
    assert error <= 1e-12
    score = (w.unsqueeze(-1) * torch.stack(refits).square()).sum() / w.sum()
    assert path.scores(torch.tensor([0.3], dtype=torch.float64), "loo").item() == pytest.approx(
        float(score), rel=1e-11
    )


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="An unpenalised intercept is the bordered system, and centring K and y.",
)
@pytest.mark.parametrize("weighted", [False, True])
def test_solutions_with_an_intercept(weighted, evidence):
    k, y, weights = _problem()
    w = weights if weighted else torch.ones(60).double()
    path = RidgePath(k, y, weights=w if weighted else None, intercept=True)
    a, b = path.solve(0.3)
    expected, bias = _fit(k, y, 0.3, w, True)
    error = float(max((a - expected).abs().max(), (b - bias).abs().max()))
    evidence(required="<= 1e-11", measured=error, what=f"bordered, {weighted=}")
    assert error <= 1e-11
    if not weighted:
        h = torch.eye(60).double() - 1 / 60
        centred = torch.linalg.solve(h @ k @ h + 0.3 * torch.eye(60).double(), h @ y)
        error = float((centred - a).abs().max())
        evidence(required="<= 1e-11", measured=error, what="centred")
        assert error <= 1e-11


def test_gcv_is_its_definition_and_the_choice_is_a_minimum():
    k, y, _ = _problem()
    for intercept in (False, True):
        path = RidgePath(k, y, intercept=intercept)
        a, b = path.solve(0.3)
        # The hat matrix, column by column, as the solution is linear in the targets.
        columns = RidgePath(k, torch.eye(60).double(), intercept=intercept).solve(0.3)
        hat = k @ columns[0] + columns[1]
        residual = y - k @ a - b
        expected = 60 * residual.square().sum() / (60 - hat.diag().sum()) ** 2
        found = path.scores(torch.tensor([0.3], dtype=torch.float64), "gcv").item()
        assert found == pytest.approx(float(expected), rel=1e-10)
        assert path.effective_dimension(0.3) == pytest.approx(float(hat.diag().sum()))
        for criterion in ("loo", "gcv"):
            choice = path.minimise(criterion)
            assert isinstance(choice, RidgeChoice)
            assert choice.score <= float(choice.scores.min())
            near = path.scores(choice.ridge * torch.tensor([0.97, 1.03]).double(), criterion)
            assert choice.score <= float(near.min())


def test_weights_are_repeated_rows():
    k, y, weights = _problem()
    index = torch.arange(60).repeat_interleave(weights.long())
    repeated = RidgePath(k[index][:, index], y[index], intercept=True)
    weighted = RidgePath(k, y, weights=weights, intercept=True)
    assert weighted.effective_dimension(0.3) == pytest.approx(repeated.effective_dimension(0.3))
    left, right = weighted.solve(0.3), repeated.solve(0.3)
    torch.testing.assert_close(left[1], right[1])
    sums = torch.zeros(60, 2).double().index_add_(0, index, right[0])
    torch.testing.assert_close(left[0], sums, rtol=1e-9, atol=1e-9)


def test_a_vector_of_targets_comes_back_as_one():
    k, y, _ = _problem()
    whole, column = RidgePath(k, y), RidgePath(k, y[:, 0])
    assert column.solve(0.1)[0].shape == (60,)
    assert column.leave_one_out(0.1).shape == (60,)
    torch.testing.assert_close(column.solve(0.1)[0], whole.solve(0.1)[0][:, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.ones(5).double()}, r"targets: expected shape \(60,\)"),
        ({"weights": torch.zeros(60).double()}, "weights: expected 60 positive"),
        ({"matrix": -torch.eye(60).double()}, "matrix: expected a positive semi-definite"),
        ({"matrix": torch.zeros(3, 4).double()}, "matrix: expected a square"),
        ({"targets": torch.full((60,), np.nan).double()}, "targets"),
    ],
)
def test_bad_input(change, message):
    k, y, _ = _problem()
    with pytest.raises(ValueError, match=message):
        RidgePath(**({"matrix": k, "targets": y} | change))


def test_bad_ridges():
    k, y, _ = _problem()
    path = RidgePath(k, y)
    with pytest.raises(ValueError, match="ridge"):
        path.solve(0.0)
    with pytest.raises(ValueError, match="criterion"):
        path.minimise("aic")
    with pytest.raises(ValueError, match="not zero"):
        RidgePath(torch.zeros(3, 3).double(), torch.ones(3).double()).minimise()


def test_one_row_with_an_intercept_says_nothing_about_the_ridge():
    path = RidgePath(torch.ones(1, 1).double(), torch.ones(1).double(), intercept=True)
    for criterion in ("loo", "gcv"):
        choice = path.minimise(criterion)
        assert choice.score == np.inf and choice.ridge > 0


@pytest.mark.parametrize("criterion", ["loo", "gcv"])
def test_a_weighted_criterion_does_not_depend_on_the_unit_of_weights(criterion):
    k, y, weights = _problem()
    grid = torch.logspace(-2, 1, 4).double()
    one = RidgePath(k, y, weights=weights, intercept=True).scores(grid, criterion)
    # Weights times 8 and the ridge times 8 are the same problem, and the same mean.
    eight = RidgePath(k, y, weights=8 * weights, intercept=True).scores(8 * grid, criterion)
    torch.testing.assert_close(one, eight, rtol=1e-9, atol=0.0)
