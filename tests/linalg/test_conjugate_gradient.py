import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import cg as scipy_cg

import mercer
from mercer.linalg import LowRankPreconditioner, conjugate_gradient, pivoted_cholesky


def _psd(n, seed=0, floor=0.1):
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.mT / n + floor * torch.eye(n, dtype=torch.float64)


def _rhs(n, r=3, seed=1):
    return torch.randn(n, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _rbf(n, lengthscale=0.1):
    x = torch.linspace(0, 1, n, dtype=torch.float64)
    return torch.exp(-(x[:, None] - x).square() / (2 * lengthscale**2))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 40), r=st.integers(1, 5), seed=st.integers(0, 1000))
def test_equals_the_direct_solution(n, r, seed):
    a, b = _psd(n, seed), _rhs(n, r, seed)
    found = conjugate_gradient(lambda v: a @ v, b, tolerance=1e-12)
    assert found.converged
    assert torch.allclose(found.solution, torch.linalg.solve(a, b), atol=1e-9)
    left = (b - a @ found.solution).norm(dim=0) / b.norm(dim=0)
    assert torch.allclose(found.residual, left, atol=1e-13)


def test_takes_the_steps_that_scipy_takes():
    a, b = _psd(200), _rhs(200, 1)[:, 0]
    steps = []
    expected, _ = scipy_cg(a.numpy(), b.numpy(), rtol=0.8e-8, callback=steps.append)
    found = conjugate_gradient(lambda v: a @ v, b, tolerance=1e-8)
    assert found.solution.shape == (200,) and found.residual.shape == ()
    assert abs(found.iterations - len(steps)) <= 1
    assert float((found.solution - torch.from_numpy(expected)).norm()) <= 1e-6 * b.norm()


def test_each_column_is_solved_as_if_alone():
    a, b = _psd(60), _rhs(60, 4)
    b[:, 1] = a @ torch.ones(60).double() * 1e6  # other sizes, other numbers of steps
    b[:, 2] = torch.linalg.eigh(a).eigenvectors[:, 3] * 1e-9  # one step
    block = conjugate_gradient(lambda v: a @ v, b)
    alone = [conjugate_gradient(lambda v: a @ v, column) for column in b.T]
    assert block.iterations == max(one.iterations for one in alone)
    assert alone[2].iterations == 1
    for column, one in zip(block.solution.T, alone, strict=True):
        assert torch.allclose(column, one.solution, rtol=1e-6, atol=0)


def test_finished_columns_leave_the_block():
    a, b = _psd(50), _rhs(50, 2)
    b[:, 0] = torch.linalg.eigh(a).eigenvectors[:, 3]
    widths = []

    def matvec(v):
        widths.append(v.shape[1])
        return a @ v

    found = conjugate_gradient(matvec, b)
    # The first residuals, one step of both, the steps of one, the residuals of both.
    assert widths == [2, 2, *[1] * (found.iterations - 1), 2]


def test_zero_right_hand_side_gives_zero():
    a, b = _psd(20), _rhs(20, 3)
    b[:, 1] = 0.0
    found = conjugate_gradient(lambda v: a @ v, b, start=torch.ones_like(b))
    assert torch.equal(found.solution[:, 1], torch.zeros(20).double())
    assert float(found.residual[1]) == 0.0 and found.converged
    nothing = conjugate_gradient(lambda v: pytest.fail("asked"), torch.zeros(20))
    assert torch.equal(nothing.solution, torch.zeros(20)) and nothing.iterations == 0


def test_goes_on_from_a_start():
    a, b = _psd(200, floor=1e-3), _rhs(200)
    whole = conjugate_gradient(lambda v: a @ v, b)
    part = conjugate_gradient(lambda v: a @ v, b, max_iterations=whole.iterations // 2)
    assert not part.converged and part.iterations == whole.iterations // 2
    rest = conjugate_gradient(lambda v: a @ v, b, start=part.solution)
    assert rest.converged and rest.iterations < whole.iterations
    done = conjugate_gradient(lambda v: a @ v, b, start=rest.solution)
    assert done.iterations == 0 and torch.equal(done.solution, rest.solution)


def test_the_residual_is_the_true_one_where_the_recursive_one_drifts():
    # Condition 1e13: the recursion believes in 1e-13, rounding does not allow it.
    spectrum = torch.logspace(0, -13, 80, dtype=torch.float64)
    q = torch.linalg.qr(_rhs(80, 80)).Q
    a, b = (q * spectrum) @ q.mT, q.sum(-1)
    found = conjugate_gradient(lambda v: a @ v, b, tolerance=1e-13)
    true = (b - a @ found.solution).norm() / b.norm()
    assert float(found.residual) == pytest.approx(float(true), rel=1e-2)
    assert found.converged == bool(true <= 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_in_is_dtype_out(dtype):
    a, b, seen = _psd(100), _rhs(100), set()
    low = a.to(dtype)

    def matvec(v):
        seen.add(v.dtype)
        return low @ v

    found = conjugate_gradient(matvec, b.to(dtype))
    assert found.solution.dtype == dtype and seen == {dtype}
    assert found.residual.dtype == torch.float64
    assert found.converged
    error = (found.solution.double() - torch.linalg.solve(a, b)).norm() / b.norm()
    assert float(error) <= 10 * 10 * torch.finfo(dtype).eps ** 0.5  # 1 / 0.1 times the residual


def test_float32_ends_where_rounding_is_in_the_way():
    k, b = (_rbf(200) + 1e-2 * torch.eye(200)).float(), _rhs(200).float()
    found = conjugate_gradient(lambda v: k @ v, b, tolerance=1e-12)
    assert not found.converged and found.iterations < 2000
    assert bool((found.residual <= 1e-4).all())
    exact = torch.linalg.solve(k.double(), b.double())
    left = (b.double() - k.double() @ found.solution.double()).norm(dim=0) / b.norm(dim=0)
    assert bool((left <= 1e-4).all())
    assert float((found.solution - exact).norm() / exact.norm()) <= 1e-4


def test_singular_matrix():
    a = _psd(30, floor=0.0)
    low = a[:, :5] @ torch.linalg.solve(a[:5, :5], a[:5])  # of rank 5
    inside = conjugate_gradient(lambda v: low @ v, low @ torch.ones(30, 1).double())
    assert inside.converged
    outside = conjugate_gradient(lambda v: low @ v, torch.ones(30).double())
    assert not outside.converged and math.isfinite(float(outside.residual))
    assert float(outside.residual) <= 1.0
    nothing = conjugate_gradient(torch.zeros_like, torch.ones(3))
    assert not nothing.converged and torch.equal(nothing.solution, torch.zeros(3))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), gap=st.floats(1e-6, 10.0))
def test_indefinite_matrices_are_named(seed, gap):
    spectrum = torch.linspace(1.0, 2.0, 20, dtype=torch.float64)
    spectrum[0] = -gap
    q = torch.linalg.qr(_rhs(20, 20, seed)).Q
    a = (q * spectrum) @ q.mT
    with pytest.raises(ValueError, match=r"matvec: expected a positive semi-definite.*p\^T A p"):
        conjugate_gradient(lambda v: a @ v, _rhs(20, 1, seed + 1), tolerance=1e-12)


def test_a_low_rank_preconditioner_cuts_the_steps():
    k, b = _rbf(400, 0.05), _rhs(400)
    system = k + 1e-4 * torch.eye(400)
    found = pivoted_cholesky(k, rank=40)
    plain = conjugate_gradient(lambda v: system @ v, b)
    faster = conjugate_gradient(
        lambda v: system @ v, b, preconditioner=LowRankPreconditioner(found.factor, ridge=1e-4)
    )
    assert plain.converged and faster.converged
    assert faster.iterations <= plain.iterations / 20
    assert torch.allclose(faster.solution, plain.solution, rtol=1e-3, atol=1e-3)
    assert torch.allclose(faster.solution, torch.linalg.solve(system, b), rtol=1e-3, atol=1e-3)


def test_is_deterministic_and_draws_nothing(global_state_unchanged):
    a, b = _psd(80, floor=1e-4), _rhs(80)
    one, two = (conjugate_gradient(lambda v: a @ v, b) for _ in range(2))
    assert torch.equal(one.solution, two.solution) and torch.equal(one.residual, two.residual)


def test_an_interruption_passes_through(capfd):
    a, b, calls = _psd(80, floor=1e-4), _rhs(80), []

    def matvec(v):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return a @ v

    with pytest.raises(KeyboardInterrupt):
        conjugate_gradient(matvec, b)
    assert capfd.readouterr() == ("", "")


def test_progress_goes_to_standard_error(capfd):
    conjugate_gradient(lambda v: 2 * v, torch.ones(3), show_progress=True)
    out, error = capfd.readouterr()
    assert out == "" and "conjugate gradients" in error


B = torch.ones(3)


@pytest.mark.parametrize(
    ("error", "match", "args", "kwargs"),
    [
        (TypeError, "matvec: expected a callable", (torch.eye(3), B), {}),
        (TypeError, "rhs", (torch.clone, [1.0]), {}),
        (TypeError, "rhs", (torch.clone, torch.ones(3, dtype=torch.long)), {}),
        (ValueError, r"rhs: .*\(2, 3, 4\)", (torch.clone, torch.ones(2, 3, 4)), {}),
        (ValueError, r"rhs: .*\(0, 2\)", (torch.clone, torch.ones(0, 2)), {}),
        (ValueError, "rhs: 1 of 3", (torch.clone, torch.tensor([1.0, math.nan, 0.0])), {}),
        (ValueError, r"matvec: .*\(3, 1\).*\(2, 1\)", (lambda v: v[1:], B), {}),
        (ValueError, "matvec: 3 of 3", (lambda v: v * math.inf, B), {}),
        (TypeError, "matvec: expected a torch.Tensor", (lambda v: None, B), {}),
        (ValueError, "matvec: expected a positive", (torch.neg, B), {}),
        (
            ValueError,
            "preconditioner: expected a pos",
            (torch.clone, B),
            {"preconditioner": torch.neg},
        ),
        (TypeError, "preconditioner", (torch.clone, B), {"preconditioner": 3}),
        (ValueError, r"start: .*\(3,\).*\(4,\)", (torch.clone, B), {"start": torch.ones(4)}),
        (
            ValueError,
            "start: 1 of 3",
            (torch.clone, B),
            {"start": torch.tensor([1.0, 0.0, math.inf])},
        ),
        (ValueError, "tolerance", (torch.clone, B), {"tolerance": 0.0}),
        (ValueError, "max_iterations", (torch.clone, B), {"max_iterations": 0}),
    ],
)
def test_errors(error, match, args, kwargs):
    with pytest.raises(error, match=match):
        conjugate_gradient(*args, **kwargs)


def test_memory_budget():
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match="solve fewer at once"),
    ):
        conjugate_gradient(torch.clone, torch.ones(1000, 50))


def test_resuming_from_any_step_gives_the_same_bits():
    a, b = _psd(40, floor=1e-3), _rhs(40)
    b[:, 1] *= 1e-3
    saved = []

    def keep(state):
        saved.append({name: tensor.clone() for name, tensor in state.items()})

    whole = conjugate_gradient(lambda v: a @ v, b, tolerance=1e-13, checkpoint=keep)
    assert len(saved) > 20
    for state in saved[::7]:
        again = conjugate_gradient(lambda v: a @ v, b, tolerance=1e-13, resume=state)
        assert torch.equal(again.solution, whole.solution)
        assert again.iterations == whole.iterations


def test_a_state_of_another_system_is_refused():
    a, b = _psd(10), torch.ones(10).double()
    saved = []
    conjugate_gradient(lambda v: a @ v, b, checkpoint=saved.append)
    with pytest.raises(ValueError, match="resume: expected a state of right-hand sides"):
        conjugate_gradient(lambda v: v, torch.ones(9).double(), resume=saved[0])
    with pytest.raises(ValueError, match=r"resume: .*missing"):
        conjugate_gradient(lambda v: a @ v, b, resume={})
