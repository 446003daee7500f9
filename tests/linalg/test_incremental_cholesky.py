import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import IncrementalCholesky


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _psd(n, seed=0, floor=0.1):
    a = _randn(n, n, seed=seed)
    return a @ a.mT / max(n, 1) + floor * torch.eye(n, dtype=torch.float64)


def _same(kept, matrix, tolerance=1e-12):
    """Compare with a factorisation from scratch, which is unique."""
    assert len(kept) == len(matrix)
    assert torch.equal(kept.factor, kept.factor.tril())
    expected = torch.linalg.cholesky(matrix)
    assert torch.allclose(kept.factor, expected, rtol=0.0, atol=tolerance)


@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_appending_blocks_equals_one_factorisation(sizes, seed):
    n = sum(sizes)
    a = _psd(n, seed)
    kept, done = IncrementalCholesky(), 0
    for k in sizes:
        kept.append(a[:done, done : done + k], a[done : done + k, done : done + k])
        done += k
    _same(kept, a)
    b = _randn(n, 2, seed=seed + 1)
    assert torch.allclose(kept.solve(b), torch.linalg.solve(a, b), atol=1e-10)
    assert torch.allclose(kept.solve(b[:, 0]), kept.solve(b)[:, 0], atol=1e-13)
    half = kept.half_solve(b)
    assert torch.allclose(half.mT @ half, b.mT @ torch.linalg.solve(a, b), atol=1e-10)
    assert kept.logdet() == pytest.approx(float(torch.logdet(a)), abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 120), data=st.data())
def test_removing_rows_equals_one_factorisation(n, data):
    leave = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=min(n, 60)))
    a = _psd(n, n)
    stays = [i for i in range(n) if i not in leave]
    kept = IncrementalCholesky(a).remove(leave)
    _same(kept, a[stays][:, stays])
    # What is appended afterwards must not see what was there.
    back = a[stays][:, leave], a[leave][:, leave]
    _same(kept.append(*back), a[stays + leave][:, stays + leave])


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 110), k=st.integers(0, 60), seed=st.integers(0, 1000))
def test_updates_equal_one_factorisation(n, k, seed):
    a, v = _psd(n, seed), _randn(n, k, seed=seed + 1)
    _same(IncrementalCholesky(a).update(v), a + v @ v.mT, 1e-11)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 110), share=st.floats(1e-6, 0.999), seed=st.integers(0, 1000))
def test_downdates_equal_one_factorisation(n, share, seed):
    a, v = _psd(n, seed), _randn(n, seed=seed + 1)
    v = v * (share / float(v @ torch.linalg.solve(a, v))) ** 0.5
    _same(IncrementalCholesky(a).downdate(v), a - v.unsqueeze(-1) * v, 1e-10)


def test_a_long_life_keeps_its_digits():
    # 200 changes of a matrix of condition 1e8: rounding adds up, it does not multiply.
    points = torch.rand(300, generator=torch.Generator().manual_seed(0)).double()
    system = torch.exp(-50 * (points[:, None] - points).square()) + 1e-6 * torch.eye(300)
    here = list(range(60))
    kept = IncrementalCholesky(system[:60, :60])
    for step in range(200):
        leaves, comes = (17 * step) % 60, 60 + step
        kept.remove(leaves)
        here.pop(leaves)
        kept.append(system[here][:, comes], system[comes, comes])
        here.append(comes)
    error = (kept.to_dense() - system[here][:, here]).norm() / system[here][:, here].norm()
    assert float(error) <= 1e-13


def test_downdating_to_the_edge_stays_accurate():
    a, v = _psd(200, floor=1e-6), _randn(200)
    kept = IncrementalCholesky(a).update(v).downdate(v)
    assert float((kept.to_dense() - a).norm() / a.norm()) <= 1e-12
    # 1 - v^T (A + v v^T)^-1 v is about 1e-6 here, where the textbook formula has 10 digits left.
    with pytest.raises(ValueError, match=r"vector: .*must be below 1"):
        kept.downdate(2000 * v)
    assert float((kept.to_dense() - a).norm() / a.norm()) <= 1e-12


def test_room_is_kept_and_grows():
    a = _psd(50)
    kept = IncrementalCholesky(capacity=40)
    storage = kept._storage
    for i in range(40):
        kept.append(a[:i, i], a[i, i])
    assert kept._storage is storage and repr(kept) == "IncrementalCholesky(n=40, capacity=40)"
    _same(kept.append(a[:40, 40:], a[40:, 40:]), a)
    assert len(kept._storage) == 60
    assert torch.equal(IncrementalCholesky().to_dense(), torch.zeros(0, 0).double())
    assert IncrementalCholesky().logdet() == 0.0


def test_a_refused_row_changes_nothing():
    a = _psd(10)
    kept = IncrementalCholesky(a)
    with pytest.raises(ValueError, match=r"block: .*positive definite, got new row 0 of 1"):
        kept.append(a[:, 3], a[3, 3])  # a repeated row
    wrong = torch.cat([a[:, :1], a[:, 3:4]], -1)
    with pytest.raises(ValueError, match="new row 1 of 2"):
        kept.append(wrong, torch.diag(torch.tensor([100.0, 1e-3])).double())
    _same(kept, a)


def test_float32_is_taken_and_given_back():
    a, b = _psd(20), _randn(20, 2)
    kept = IncrementalCholesky(a.float())
    assert kept.factor.dtype == torch.float64
    assert kept.solve(b.float()).dtype == torch.float32
    assert torch.allclose(kept.solve(b), torch.linalg.solve(a, b), atol=1e-4)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, r"matrix: expected 2 axes", lambda: IncrementalCholesky(torch.ones(3))),
        (TypeError, "matrix", lambda: IncrementalCholesky(torch.eye(3).long())),
        (ValueError, "block: expected a square", lambda: IncrementalCholesky(torch.ones(2, 3))),
        (ValueError, "block: expected rows", lambda: IncrementalCholesky(-torch.eye(3))),
        (ValueError, "block: 1 of 1", lambda: IncrementalCholesky(torch.tensor([[math.nan]]))),
        (ValueError, "capacity", lambda: IncrementalCholesky(capacity=-1)),
        (
            ValueError,
            r"cross: expected shape \(3, 1\)",
            lambda: IncrementalCholesky(torch.eye(3)).append(torch.ones(2), torch.ones(())),
        ),
        (ValueError, "positions", lambda: IncrementalCholesky(torch.eye(3)).remove(3)),
        (ValueError, "positions", lambda: IncrementalCholesky(torch.eye(3)).remove(-1)),
        (ValueError, "positions", lambda: IncrementalCholesky(torch.eye(3)).remove([1, 1])),
        (TypeError, "positions", lambda: IncrementalCholesky(torch.eye(3)).remove(True)),
        (
            TypeError,
            "positions",
            lambda: IncrementalCholesky(torch.eye(3)).remove(torch.tensor([0.5])),
        ),
        (
            ValueError,
            r"vectors: .*\(4, 2\)",
            lambda: IncrementalCholesky(torch.eye(3)).update(torch.ones(4, 2)),
        ),
        (
            ValueError,
            "vector: expected one axis",
            lambda: IncrementalCholesky(torch.eye(3)).downdate(torch.ones(3, 1)),
        ),
        (ValueError, r"rhs: .*\(2,\)", lambda: IncrementalCholesky(torch.eye(3)).solve(B[:2])),
        (ValueError, "rhs: 3 of 3", lambda: IncrementalCholesky(torch.eye(3)).solve(B * math.inf)),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()


B = torch.ones(3)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="keep fewer rows"),
    ):
        IncrementalCholesky(capacity=1000)
