import math

import pytest
import torch

import mercer
from mercer.linalg import (
    LowRankPreconditioner,
    pivoted_cholesky,
    stochastic_logdet,
    stochastic_trace,
)

N = 300
X = torch.rand(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
K = torch.exp(-torch.cdist(X, X).square() / (2 * 0.2**2))
A = K + 1e-2 * torch.eye(N, dtype=torch.float64)
EXACT = torch.linalg.eigvalsh(A)


def _times(v):
    return A @ v


@pytest.mark.parametrize("probes", ["rademacher", "gaussian"])
@pytest.mark.parametrize(
    "function", [torch.log, torch.sqrt, lambda v: v / (v + 0.3), lambda v: v.square()]
)
def test_the_probes_spread_as_their_standard_error_says(function, probes):
    exact = float(function(EXACT).sum())
    scores = []
    for seed in range(30):
        found = stochastic_trace(
            _times, N, function, num_probes=10, steps=20, probes=probes, generator=seed
        )
        scores.append((found.value - exact) / found.standard_error)
    scores = torch.tensor(scores)
    # Student's t of nine degrees: mean 0, variance 9/7; four standard errors of each.
    assert abs(float(scores.mean())) <= 4 * (9 / 7 / 30) ** 0.5
    assert 0.4 <= float(scores.square().mean()) <= 3.0


def test_each_sample_is_the_quadratic_form():
    # With all n steps the quadrature is exact: z^T f(A) z for the very signs that were drawn.
    small = A[:30, :30]
    found = stochastic_trace(
        lambda v: small @ v, 30, torch.log, num_probes=5, steps=30, generator=3
    )
    signs = 2 * torch.randint(2, (30, 5), generator=torch.Generator().manual_seed(3)).double() - 1
    values, vectors = torch.linalg.eigh(small)
    expected = (vectors.mT @ signs).square().mT @ values.log()
    assert torch.allclose(found.samples, expected, rtol=1e-10)
    assert found.value == pytest.approx(float(expected.mean()))
    assert found.standard_error == pytest.approx(float(expected.std()) / 5**0.5)


def test_signs_are_exact_on_a_diagonal_matrix():
    values = torch.linspace(1, 3, 50).double()
    found = stochastic_trace(lambda v: values.unsqueeze(-1) * v, 50, torch.log, generator=0)
    assert found.value == pytest.approx(float(values.log().sum()), rel=1e-12)
    assert found.standard_error <= 1e-12
    trace = stochastic_trace(lambda v: values.unsqueeze(-1) * v, 50, generator=0, num_probes=1)
    assert trace.value == pytest.approx(100.0) and math.isnan(trace.standard_error)


def test_a_preconditioner_shrinks_the_error_of_the_log_determinant():
    exact = float(torch.logdet(A))
    plain = stochastic_logdet(_times, N, steps=60, num_probes=20, generator=0)
    assert abs(plain.value - exact) <= 4 * plain.standard_error
    errors = []
    for rank in (20, 60, 100):
        factor = pivoted_cholesky(K, rank=rank).factor
        p = LowRankPreconditioner(factor, ridge=1e-2)
        found = stochastic_logdet(_times, N, preconditioner=p, num_probes=20, generator=0)
        errors.append(found.standard_error)
        assert abs(found.value - exact) <= 4 * found.standard_error + 1e-9
    assert errors[0] < plain.standard_error
    assert errors[2] < errors[1] / 10 < errors[0] / 100


def test_root_and_determinant_of_a_preconditioner():
    factor = torch.linalg.cholesky(A)[:, :40]
    for rest in (None, 2.5):
        p = LowRankPreconditioner(factor, ridge=0.3, rest=rest)
        q = torch.linalg.qr(factor).Q
        outside = torch.eye(N).double() - q @ q.mT
        dense = factor @ factor.mT + 0.3 * q @ q.mT + (0.3 if rest is None else rest) * outside
        assert p.logdet() == pytest.approx(float(torch.logdet(dense)), rel=1e-12)
        root = p.inverse_root(torch.eye(N).double())
        assert torch.allclose(root, root.mT, atol=1e-10)
        assert torch.allclose(root @ dense @ root, torch.eye(N).double(), atol=1e-10)
        assert torch.allclose(p(dense), torch.eye(N).double(), atol=1e-10)


def test_memory_does_not_change_the_numbers(monkeypatch):
    plain = stochastic_trace(_times, N, torch.log, num_probes=8, generator=0)
    with (
        mercer.config.override(memory_budget=1),
        pytest.raises(MemoryError, match="fewer"),  # one probe at a time, and no room for that
    ):
        stochastic_trace(_times, N, torch.log, num_probes=8, generator=0)
    monkeypatch.setattr("mercer.linalg.stochastic_lanczos._LARGEST_BLOCK", 3)
    blocks = stochastic_trace(_times, N, torch.log, num_probes=8, generator=0)
    assert torch.allclose(plain.samples, blocks.samples, rtol=1e-12)


def test_the_global_state_is_left_alone(global_state_unchanged):
    counter = mercer.features.CounterGenerator(7)
    first = stochastic_logdet(_times, N, generator=counter)
    again = stochastic_logdet(_times, N, generator=mercer.features.CounterGenerator(7))
    assert first.value == again.value


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (TypeError, "function", lambda: stochastic_trace(_times, N, 3)),
        (ValueError, "function: .*finite", lambda: stochastic_trace(_times, N, lambda v: v / 0)),
        (ValueError, "function: .*shape", lambda: stochastic_trace(_times, N, torch.sum)),
        (ValueError, "num_probes", lambda: stochastic_trace(_times, N, num_probes=0)),
        (ValueError, "steps", lambda: stochastic_logdet(_times, N, steps=0)),
        (ValueError, "probes", lambda: stochastic_logdet(_times, N, probes="uniform")),
        (TypeError, "size", lambda: stochastic_logdet(_times, 3.0)),
        (ValueError, "matvec: .*definite", lambda: stochastic_logdet(torch.neg, N)),
        (TypeError, "preconditioner", lambda: stochastic_logdet(_times, N, preconditioner=_times)),
        (
            ValueError,
            "preconditioner: expected one for 300",
            lambda: stochastic_logdet(
                _times, N, preconditioner=LowRankPreconditioner(torch.ones(3, 1), ridge=1.0)
            ),
        ),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
