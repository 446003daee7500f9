import math

import pytest
import torch

import mercer
from mercer.linalg import eigenpro
from mercer.linalg.subsampled_spectrum import subsampled_spectrum

N = 300
X = torch.rand(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
K = torch.exp(-torch.cdist(X, X) / 0.5)
Y = torch.sin(7 * X[:, :1]) + torch.tensor([[0.0, 1.0]]).double()  # (n, 2)


def _columns(index):
    return K[:, index]


def _solve(**options):
    return eigenpro(_columns, Y, K.diagonal(), **{"ridge": 0.5, "generator": 0, **options})


@pytest.mark.parametrize("ridge", [0.3, 2.0])
@pytest.mark.parametrize("options", [{}, {"rank": 0}, {"batch_size": 40, "rank": 12}])
def test_equals_the_direct_solution(ridge, options):
    found = _solve(ridge=ridge, tolerance=1e-9, max_epochs=400, **options)
    system = K + ridge * torch.eye(N, dtype=torch.float64)
    assert found.converged and bool((found.residual <= 1e-9).all())
    assert torch.allclose(found.solution, torch.linalg.solve(system, Y), atol=1e-7)
    left = (Y - system @ found.solution).norm(dim=0) / Y.norm(dim=0)
    assert torch.allclose(found.residual, left, atol=1e-12)
    assert found.history.shape == (found.iterations, 2)
    assert bool((found.history[-1] <= 1e-9).all())


def test_a_step_is_the_preconditioned_gradient():
    # One epoch of one batch, all points the subsample: the update in the eigenbasis of K.
    found = _solve(rank=10, batch_size=N, subsample=N, max_epochs=1)
    values, vectors = torch.linalg.eigh(K)
    values, vectors = values.flip(0), vectors.flip(1)
    shrink = (values[10] + 0.5) / (values + 0.5)
    shrink[10:] = 1.0
    expected = (vectors * shrink) @ (vectors.mT @ Y)
    ratio = found.solution / expected
    assert torch.allclose(ratio, ratio.mean().expand_as(ratio), rtol=1e-9)
    # The step is that of the largest eigenvalue that is left, and of the diagonal.
    assert 0.5 / float(values[10] + 0.5) < float(ratio.mean()) < 1 / float(values[10] + 0.5)


def test_cutting_eigenvalues_lets_batches_be_large():
    plain = _solve(rank=0, batch_size=150, ridge=1.0, max_epochs=15)
    cut = _solve(rank=30, batch_size=150, ridge=1.0, max_epochs=15)
    assert bool((cut.residual < plain.residual / 3).all()), (cut.residual, plain.residual)
    auto = _solve(ridge=1.0, max_epochs=15)
    assert 0 < auto.rank <= N // 4 and auto.batch_size <= N
    assert bool((auto.residual < plain.residual).all())


def test_what_the_spectrum_says_is_what_is_left():
    found = subsampled_spectrum(
        _columns, K.diagonal(), ridge=0.5, size=N, rank=7, wanted_batch=9, block=64, seed=1
    )
    shuffled = K[found.points][:, found.points]
    cut = (found.vectors * found.factors) @ found.vectors.mT  # (n, n)
    left = shuffled - shuffled @ cut @ shuffled
    values = torch.linalg.eigvalsh(left)
    sigma = torch.linalg.eigvalsh(K).flip(0)
    # Cut so that with the ridge beside it each of the first is as the eighth.
    expected = sigma - (1 - (sigma[7] + 0.5) / (sigma + 0.5)) * sigma
    expected[7:] = sigma[7:]
    assert torch.allclose(values, expected.sort().values, atol=1e-10)
    assert found.largest_diagonal >= float(left.diagonal().max()) + 0.5
    assert found.largest_eigenvalue >= float(sigma[7] + 0.5) / N
    assert found.step(1) == pytest.approx(1 / found.largest_diagonal)


def test_resumes_to_the_same_bits():
    states = []
    whole = _solve(
        max_epochs=6,
        tolerance=1e-12,
        checkpoint=lambda state: states.append({k: v.clone() for k, v in state.items()}),
    )
    assert [int(state["epoch"]) for state in states] == [1, 2, 3, 4, 5, 6]
    rest = _solve(max_epochs=6, tolerance=1e-12, resume=states[2], generator=99)
    assert torch.equal(rest.solution, whole.solution) and torch.equal(rest.history, whole.history)
    done = _solve(max_epochs=6, tolerance=1e-12, resume=states[-1])
    assert torch.equal(done.solution, whole.solution) and done.iterations == 6


def test_goes_on_from_a_start():
    system = K + 0.5 * torch.eye(N, dtype=torch.float64)
    exact = torch.linalg.solve(system, Y)
    found = _solve(start=exact, tolerance=1e-10)
    assert found.iterations == 1 and found.converged
    one = eigenpro(_columns, Y[:, 0], K.diagonal(), ridge=0.5, generator=0, start=exact[:, 0])
    assert one.solution.shape == (N,) and one.residual.shape == ()


def test_steps_that_are_too_long_are_cut():
    # The subsample misses a group of points, so that its spectrum is far too small.
    k = K.clone()
    k[50:, :50] = k[:50, 50:] = 0.0
    k[:50, :50] = 1.0 + 0.1 * torch.eye(50)
    found = eigenpro(
        lambda i: k[:, i],
        Y,
        k.diagonal(),
        ridge=0.5,
        subsample=12,
        rank=8,
        batch_size=N,
        generator=3,
        tolerance=1e-6,
        max_epochs=600,
    )
    system = k + 0.5 * torch.eye(N, dtype=torch.float64)
    assert found.converged
    assert torch.allclose(found.solution, torch.linalg.solve(system, Y), atol=1e-4)
    with pytest.raises(ValueError, match="columns: expected a positive semi"):
        eigenpro(lambda i: -10 * K[:, i] * (i > 5), Y, K.diagonal(), subsample=1, generator=0)


def test_float32_columns_do_for_what_they_are_worth():
    low = K.float()
    found = eigenpro(
        lambda i: low[:, i], Y.float(), low.diagonal(), ridge=1.0, generator=0, tolerance=1e-5
    )
    assert found.solution.dtype == torch.float32 and found.residual.dtype == torch.float64
    assert found.converged


def test_draws_from_its_generator_only(global_state_unchanged):
    one, two = _solve(max_epochs=3), _solve(max_epochs=3)
    assert torch.equal(one.solution, two.solution)
    other = _solve(max_epochs=3, generator=1)
    assert not torch.equal(one.solution, other.solution)


def test_progress_goes_to_standard_error(capfd):
    _solve(max_epochs=2, show_progress=True)
    out, error = capfd.readouterr()
    assert out == "" and "EigenPro" in error


def test_zero_right_hand_sides_stay_zero():
    found = eigenpro(_columns, torch.zeros(N).double(), K.diagonal(), generator=0)
    assert torch.equal(found.solution, torch.zeros(N).double()) and found.converged


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "columns", {"columns": K}),
        (TypeError, "rhs", {"rhs": [1.0]}),
        (ValueError, r"diagonal: expected shape \(300,\)", {"diagonal": K.diagonal()[1:]}),
        (ValueError, "diagonal: expected entries", {"diagonal": -K.diagonal()}),
        (ValueError, "diagonal: 300 of 300", {"diagonal": K.diagonal() * math.nan}),
        (ValueError, "ridge", {"ridge": -1.0}),
        (ValueError, "subsample", {"subsample": N + 1}),
        (ValueError, "rank", {"rank": 50, "subsample": 50}),
        (ValueError, "batch_size", {"batch_size": N + 1}),
        (ValueError, "tolerance", {"tolerance": 0.0}),
        (ValueError, "max_epochs", {"max_epochs": 0}),
        (ValueError, "start", {"start": Y[1:]}),
        (ValueError, "resume: expected a state with", {"resume": {"solution": Y}}),
        (
            ValueError,
            r"columns: expected shape \(300, ",
            {"columns": lambda i: K[i], "subsample": 9},
        ),
    ],
)
def test_errors(error, match, changes):
    good = {"columns": _columns, "rhs": Y, "diagonal": K.diagonal(), "generator": 0}
    with pytest.raises(error, match=match):
        eigenpro(**{**good, **changes})


def test_memory_budget():
    with mercer.config.override(memory_budget="1 MiB"), pytest.raises(MemoryError, match="fewer"):
        _solve()


def test_targets_of_very_different_sizes_each_have_their_own_residual():
    x = torch.linspace(0, 1, 60).double()
    k = torch.exp(-5 * (x[:, None] - x).abs())
    y = torch.stack([1e3 * x, 1e-3 * torch.sin(9 * x)], 1)
    found = eigenpro(lambda i: k[:, i], y, k.diagonal(), ridge=1.0, generator=0)
    assert found.converged and found.iterations < 40
    # Of each row when its turn came: at first all of it is left.
    torch.testing.assert_close(found.history[0], torch.ones(2).double(), rtol=0.5, atol=0.0)
