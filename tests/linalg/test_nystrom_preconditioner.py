import math

import pytest
import torch

import mercer
from mercer.linalg import conjugate_gradient, nystrom_preconditioner


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rbf(n=400, lengthscale=0.1, seed=0):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.exp(-torch.cdist(x, x).square() / (2 * lengthscale**2))


def test_is_the_nystrom_approximation_of_its_products():
    k = _rbf(lengthscale=0.3)
    asked = []

    def matvec(v):
        asked.append(v)
        return k @ v

    p = nystrom_preconditioner(matvec, 400, ridge=1e-2, rank=50, generator=0)
    omega = torch.cat(asked, -1)
    sketch = k @ omega
    dense = sketch @ torch.linalg.pinv(omega.mT @ sketch, rtol=1e-13) @ sketch.mT
    found = (p.basis * p.eigenvalues) @ p.basis.mT
    assert float((found - dense).norm() / dense.norm()) <= 1e-8
    # Of a positive semi-definite matrix it is a lower bound, as are its eigenvalues.
    assert float(torch.linalg.eigvalsh(k - found)[0]) >= -1e-10
    exact = torch.linalg.eigvalsh(k).flip(0)[:50]
    assert bool((p.eigenvalues <= exact + 1e-10).all())
    assert torch.allclose(p.eigenvalues[:5], exact[:5], rtol=1e-2)


def _condition(p, k, ridge):
    system = k + ridge * torch.eye(len(k), dtype=torch.float64)
    root = p.inverse_root(torch.eye(len(k), dtype=torch.float64))
    values = torch.linalg.eigvalsh(root @ system @ root)
    return float(values[-1] / values[0])


def test_the_condition_number_is_what_the_theorem_says():
    # Theorem 1.1: with twice 1.5 times the effective dimension, 28 in expectation.
    k, ridge = _rbf(lengthscale=0.3), 1e-2
    values = torch.linalg.eigvalsh(k)
    dimension = float((values / (values + ridge)).sum())
    rank = min(2 * math.ceil(1.5 * dimension) + 1, 400)
    conditions = [
        _condition(
            nystrom_preconditioner(lambda v: k @ v, 400, ridge=ridge, rank=rank, generator=s),
            k,
            ridge,
        )
        for s in range(5)
    ]
    assert rank < 400 and sum(conditions) / 5 < 28


def test_the_rank_is_found():
    for lengthscale, low, high in ((0.5, 32, 64), (0.1, 64, 256)):
        k, widths = _rbf(lengthscale=lengthscale), []

        def matvec(v, k=k, widths=widths):
            widths.append(v.shape[1])
            return k @ v

        p = nystrom_preconditioner(matvec, 400, ridge=1e-2, generator=0)
        rank = len(p.eigenvalues)
        assert low <= rank <= high and sum(widths) == rank, "no product is taken twice"
        assert float(p.eigenvalues[-1]) <= 1e-2
        assert _condition(p, k, 1e-2) < 10
    capped = nystrom_preconditioner(lambda v: k @ v, 400, ridge=1e-9, most_rank=50, generator=0)
    assert len(capped.eigenvalues) == 50
    everything = nystrom_preconditioner(lambda v: 2 * v, 40, ridge=1e-3, generator=0)
    assert len(everything.eigenvalues) == 40


def test_cuts_the_steps_of_conjugate_gradients():
    k, b = _rbf(800), _randn(800, 2)
    system = k + 1e-3 * torch.eye(800, dtype=torch.float64)
    p = nystrom_preconditioner(lambda v: k @ v, 800, ridge=1e-3, generator=0)
    plain = conjugate_gradient(lambda v: system @ v, b)
    faster = conjugate_gradient(lambda v: system @ v, b, preconditioner=p)
    assert plain.converged and faster.converged
    assert faster.iterations <= plain.iterations / 10, (plain.iterations, faster.iterations)
    assert torch.allclose(faster.solution, torch.linalg.solve(system, b), rtol=1e-3, atol=1e-2)


def test_low_rank_zero_and_float32():
    factor = _randn(60, 3)
    p = nystrom_preconditioner(
        lambda v: factor @ (factor.mT @ v), 60, ridge=0.5, rank=10, generator=0
    )
    system = factor @ factor.mT + 0.5 * torch.eye(60, dtype=torch.float64)
    assert torch.allclose(p(system), torch.eye(60).double(), atol=1e-8)
    zero = nystrom_preconditioner(torch.zeros_like, 60, ridge=0.5, generator=0)
    assert torch.allclose(zero(factor), factor / 0.5)
    k = _rbf(lengthscale=0.3)
    found = [
        nystrom_preconditioner(
            lambda v, dtype=dtype: k.to(dtype) @ v, 400, ridge=1e-2, generator=0, dtype=dtype
        )
        for dtype in (torch.float32, torch.float64)
    ]
    low, high = (_condition(p, k, 1e-2) for p in found)
    assert high <= low < 28  # the shift hides eigenvalues at the rounding of float32


def test_draws_from_its_generator_only(global_state_unchanged):
    k = _rbf(100)
    one, two = (nystrom_preconditioner(lambda v: k @ v, 100, ridge=0.1, generator=5) for _ in "ab")
    assert torch.equal(one.basis, two.basis)


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (TypeError, "matvec", (torch.eye(3), 3), {}),
        (ValueError, "size", (torch.clone, 0), {}),
        (ValueError, "ridge", (torch.clone, 3), {"ridge": 0.0}),
        (ValueError, "rank: .*3", (torch.clone, 3), {"rank": 4}),
        (ValueError, "most_rank", (torch.clone, 3), {"most_rank": 0}),
        (ValueError, r"matvec: .*\(3, 3\).*\(2, 3\)", (lambda v: v[1:], 3), {}),
        (ValueError, "matvec: 9 of 9", (lambda v: v * math.inf, 3), {}),
        (ValueError, "matvec: expected a positive semi", (torch.neg, 3), {}),
    ],
)
def test_errors(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        nystrom_preconditioner(*args, **{"ridge": 1.0, **kwargs})


def test_memory_budget():
    with mercer.config.override(memory_budget="1 MiB"), pytest.raises(MemoryError, match="rank"):
        nystrom_preconditioner(torch.clone, 1000, ridge=1.0)
