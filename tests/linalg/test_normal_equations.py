import pytest
import torch

from mercer.linalg import solve_normal_equations


def _moments(n, p, q, seed=0):
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, p, generator=g, dtype=torch.float64)
    y = z @ torch.randn(p, q, generator=g).double() + torch.randn(n, q, generator=g).double()
    return z, y, (z.mT @ z, z.mT @ y, float(y.square().sum()))


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_equals_the_augmented_least_squares(ridge):
    z, y, moments = _moments(50, 6, 2)
    found = solve_normal_equations(*moments, count=50.0, free=0.0, ridge=ridge)
    rows = torch.cat([z, ridge**0.5 * torch.eye(6).double()])
    targets = torch.cat([y, torch.zeros(6, 2).double()])
    expected = torch.linalg.lstsq(rows, targets).solution.mT
    assert torch.allclose(found.weight, expected, rtol=1e-11, atol=1e-12)


def test_both_ways_of_solving_agree_where_both_apply():
    _, _, (gram, cross, total) = _moments(50, 6, 2)
    # Twice the same features: singular without a ridge; half of the weight on each copy.
    double = solve_normal_equations(
        gram.repeat(2, 2), cross.repeat(2, 1), total, count=50.0, free=0.0, ridge=0.0
    )
    single = solve_normal_equations(gram, cross, total, count=50.0, free=0.0, ridge=0.0)
    assert torch.allclose(2 * double.weight, single.weight.repeat(1, 2), rtol=1e-10)
    # With a ridge the doubled problem is the single one at half the ridge.
    double = solve_normal_equations(
        gram.repeat(2, 2), cross.repeat(2, 1), total, count=50.0, free=0.0, ridge=1e-3
    )
    single = solve_normal_equations(gram, cross, total, count=50.0, free=0.0, ridge=5e-4)
    assert torch.allclose(2 * double.weight, single.weight.repeat(1, 2), rtol=1e-9)
    assert double.curve(1e-3) == pytest.approx(single.curve(5e-4), rel=1e-10)


def test_chosen_ridge_is_the_curve_s_minimum():
    _, _, moments = _moments(50, 20, 2)
    found = solve_normal_equations(*moments, count=50.0, free=0.0, ridge=None)
    values = [found.curve(float(r)) for r in found.ridges]
    assert values == found.gcv_path.tolist()
    assert found.curve(found.ridge) <= min(values)
