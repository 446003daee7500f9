import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import LowRankPreconditioner, conjugate_gradient, pivoted_cholesky


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 20), k=st.integers(0, 20), seed=st.integers(0, 1000))
def test_is_the_inverse(n, k, seed):
    factor, r = _randn(n, k, seed=seed), _randn(n, 3, seed=seed + 1)
    apply = LowRankPreconditioner(factor, ridge=0.3)
    system = factor @ factor.mT + 0.3 * torch.eye(n, dtype=torch.float64)
    assert torch.allclose(apply(r), torch.linalg.solve(system, r), atol=1e-11)
    assert torch.allclose(apply(r[:, 0]), apply(r)[:, 0], atol=1e-14)


@pytest.mark.parametrize("ridge", [1e-4, 1e-9, 1e-14, 1e-20])
def test_keeps_its_digits_at_tiny_ridges(ridge):
    # L = Q S with exact columns of the identity rotated: the answer in range(L) is known.
    q = torch.linalg.qr(_randn(100, 8)).Q
    singular = torch.logspace(0, -2, 8, dtype=torch.float64)
    apply = LowRankPreconditioner(q * singular, ridge=ridge)
    r = q @ torch.ones(8, dtype=torch.float64)
    expected = q @ (1 / (singular.square() + ridge))
    found = q.mT @ apply(r)  # in the range, where the textbook formula loses eps / ridge
    assert torch.allclose(found, q.mT @ expected, rtol=1e-10, atol=0)


def test_is_symmetric_positive_definite():
    apply = LowRankPreconditioner(_randn(40, 6), ridge=1e-8)
    p = apply(torch.eye(40, dtype=torch.float64))
    assert float((p - p.mT).abs().max()) <= 1e-8 * float(p.abs().max())
    eigenvalues = torch.linalg.eigvalsh((p + p.mT) / 2)
    assert float(eigenvalues[-1]) == pytest.approx(1e8, rel=1e-6)
    assert float(eigenvalues[0]) > 0


@pytest.mark.parametrize("dimensions", [1, 2])
def test_cuts_the_steps_on_a_kernel_matrix(dimensions):
    # RBF, ridge 1e-3: with rank 100 of 1,000 points a twentieth of the steps is left.
    x = torch.rand(1000, dimensions, generator=torch.Generator().manual_seed(0)).double()
    k = torch.exp(-torch.cdist(x, x).square() / (2 * 0.2**2))
    system = k + 1e-3 * torch.eye(1000, dtype=torch.float64)
    found = pivoted_cholesky(k, rank=100)
    b = _randn(1000, 2)
    apply = LowRankPreconditioner(found.factor, ridge=1e-3)
    plain = conjugate_gradient(lambda v: system @ v, b)
    faster = conjugate_gradient(lambda v: system @ v, b, preconditioner=apply)
    assert plain.converged and faster.converged
    assert faster.iterations <= plain.iterations / 20, (plain.iterations, faster.iterations)


def test_dtype_in_is_dtype_out():
    factor, r = _randn(30, 4), _randn(30, 2)
    apply = LowRankPreconditioner(factor.float(), ridge=0.1)
    assert apply(r.float()).dtype == torch.float32 and apply(r).dtype == torch.float64
    exact = LowRankPreconditioner(factor, ridge=0.1)(r)
    assert torch.allclose(apply(r.float()).double(), exact, atol=1e-5)
    assert repr(apply) == "LowRankPreconditioner(n=30, rank=4, ridge=0.1)"


@pytest.mark.parametrize(
    ("error", "match", "factor", "ridge"),
    [
        (TypeError, "factor", [[1.0]], 1.0),
        (ValueError, r"factor: .*\(3,\)", torch.ones(3), 1.0),
        (ValueError, r"factor: .*\(0, 2\)", torch.ones(0, 2), 1.0),
        (ValueError, "factor: 1 of 1", torch.tensor([[math.nan]]), 1.0),
        (ValueError, "ridge", torch.ones(3, 1), 0.0),
        (TypeError, "ridge", torch.ones(3, 1), "1"),
    ],
)
def test_errors(error, match, factor, ridge):
    with pytest.raises(error, match=match):
        LowRankPreconditioner(factor, ridge=ridge)


def test_wrong_columns_name_the_shapes():
    with pytest.raises(ValueError, match=r"columns: expected shape \(3, c\), got \(4, 1\)"):
        LowRankPreconditioner(torch.ones(3, 1), ridge=1.0)(torch.ones(4, 1))


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="smaller rank"),
    ):
        LowRankPreconditioner(torch.ones(1000, 100), ridge=1.0)
