import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import eigsh

import mercer
from mercer.linalg import lanczos, largest_eigenvalue


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _symmetric(n, seed=0):
    a = _randn(n, n, seed=seed)
    return (a + a.mT) / 2


def _naive(a, start, steps):
    """The basis by QR of the Krylov vectors, and T from it: the definition."""
    krylov = [start / start.norm()]
    for _ in range(steps - 1):
        krylov.append(a @ krylov[-1])
        krylov[-1] = krylov[-1] / krylov[-1].norm()
    q = torch.linalg.qr(torch.stack(krylov, -1)).Q
    return q.mT @ a @ q


@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 30), s=st.integers(1, 4), seed=st.integers(0, 1000), data=st.data())
def test_keeps_its_relation(n, s, seed, data):
    m = data.draw(st.integers(1, n))
    a, start = _symmetric(n, seed), _randn(n, s, seed=seed + 1)
    found = lanczos(lambda v: a @ v, start, m)
    t, q = found.tridiagonal(), found.basis  # (s, m, m), (s, n, m)
    assert torch.allclose(q.mT @ q, torch.eye(m).double().expand(s, m, m), atol=1e-12)
    rest = a @ q - q @ t  # (s, n, m)
    assert float(rest[..., :-1].abs().amax(dim=(1, 2)).max() if m > 1 else 0.0) <= 1e-11
    assert torch.allclose(rest[..., -1].norm(dim=-1), found.residual, atol=1e-11)
    assert torch.allclose(q[..., 0] * found.norm.unsqueeze(-1), start.mT, atol=1e-12)


def test_equals_the_definition():
    a, start = _symmetric(40), _randn(40)
    t = lanczos(lambda v: a @ v, start, 6).tridiagonal()
    naive = _naive(a, start, 6)
    assert torch.allclose(t.abs(), naive.abs(), atol=1e-8)
    assert torch.linalg.eigvalsh(t) == pytest.approx(torch.linalg.eigvalsh(naive), abs=1e-9)


def test_finds_the_eigenvalues_at_the_ends_as_scipy_does():
    a, start = _symmetric(300), _randn(300)
    ritz = torch.linalg.eigvalsh(lanczos(lambda v: a @ v, start, 120).tridiagonal())
    expected = eigsh(a.numpy(), k=4, which="LA", return_eigenvectors=False)
    assert ritz[-4:].tolist() == pytest.approx(sorted(expected), rel=1e-9)


def test_no_eigenvalue_is_found_twice():
    # Without re-orthogonalisation the outlier comes back as a ghost after some 20 steps.
    values = torch.cat([torch.linspace(0, 1, 199), torch.tensor([100.0])]).double()
    found = lanczos(lambda v: values.unsqueeze(-1) * v, torch.ones(200).double(), 80)
    ritz = torch.linalg.eigvalsh(found.tridiagonal())
    assert int((ritz > 2).sum()) == 1
    assert torch.allclose(found.basis.mT @ found.basis, torch.eye(80).double(), atol=1e-12)


def test_exhaustion_is_seen_for_each_start():
    values = torch.tensor([1.0, 1.0, 2.0, 3.0, 5.0]).double()
    start = torch.tensor([[1.0, 1, 0, 0, 0], [0, 2, 2, 0, 0], [1, 1, 1, 1, 1]]).double().mT
    found = lanczos(lambda v: values.unsqueeze(-1) * v, start, 5)
    assert found.steps.tolist() == [1, 2, 4] and found.exhausted.all()
    nodes, weights = found.quadrature()
    for i in range(3):
        for power in (1, 2, 7):
            exact = float((start[:, i].square() * values**power).sum())
            assert float((weights[i] * nodes[i] ** power).sum()) == pytest.approx(exact, rel=1e-12)
    assert float(nodes.min()) >= 1 - 1e-12 and float(nodes.max()) <= 5 + 1e-12


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), m=st.integers(1, 8))
def test_the_quadrature_is_exact_for_polynomials(seed, m):
    a, start = _symmetric(20, seed) / 5, _randn(20, seed=seed + 1)
    nodes, weights = lanczos(lambda v: a @ v, start, m).quadrature()
    for degree in range(2 * m):
        exact = float(start @ torch.linalg.matrix_power(a, degree) @ start)
        assert float((weights * nodes**degree).sum()) == pytest.approx(exact, abs=1e-9)


def test_float32_products_are_noticed_to_be_such():
    values = torch.tensor([1.0, 2.0, 3.0])[torch.arange(60) % 3]
    found = lanczos(lambda v: values.unsqueeze(-1) * v, _randn(60).float(), 10)
    assert int(found.steps) == 3 and bool(found.exhausted) and found.diagonal.dtype == torch.float64


@pytest.mark.parametrize("seed", range(5))
def test_largest_eigenvalue_is_a_close_bound(seed, global_state_unchanged):
    a = _symmetric(200, seed)
    exact = float(torch.linalg.eigvalsh(a)[-1])
    bound = largest_eigenvalue(lambda v: a @ v, 200, generator=seed)
    assert exact <= bound <= 1.6 * exact
    x = _randn(200, 5, seed=seed)
    k = torch.exp(-torch.cdist(x, x).square() / 10)
    exact = float(torch.linalg.eigvalsh(k)[-1])
    assert exact <= largest_eigenvalue(lambda v: k @ v, 200, generator=seed) <= 1.05 * exact
    assert largest_eigenvalue(lambda v: 2 * v, 1, generator=0) == pytest.approx(2.0)
    low = largest_eigenvalue(lambda v: a.float() @ v, 200, generator=seed, dtype=torch.float32)
    assert low == pytest.approx(bound, rel=1e-5)


@pytest.mark.parametrize(
    ("error", "match", "args"),
    [
        (TypeError, "matvec", (torch.eye(3), torch.ones(3), 2)),
        (TypeError, "start", (torch.clone, [1.0], 1)),
        (ValueError, r"start: .*\(2, 2, 2\)", (torch.clone, torch.ones(2, 2, 2), 1)),
        (ValueError, "start: 1 of 2", (torch.clone, torch.tensor([1.0, math.nan]), 1)),
        (ValueError, "start: .*zero", (torch.clone, torch.zeros(3), 2)),
        (ValueError, "steps", (torch.clone, torch.ones(3), 0)),
        (ValueError, "steps: .*3", (torch.clone, torch.ones(3), 4)),
        (ValueError, r"matvec: .*\(3, 1\)", (lambda v: v[1:], torch.ones(3), 2)),
        (ValueError, "matvec: 3 of 3", (lambda v: v * math.inf, torch.ones(3), 2)),
    ],
)
def test_errors(error, match, args):
    with pytest.raises(error, match=match):
        lanczos(*args)


def test_memory_budget():
    with mercer.config.override(memory_budget="1 MiB"), pytest.raises(MemoryError, match="fewer"):
        lanczos(torch.clone, torch.ones(1000, 10), 100)
