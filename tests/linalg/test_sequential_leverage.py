import pytest
import torch

import mercer
from mercer._core.config import resident_memory
from mercer.linalg import SequentialLeverage, effective_dimension, ridge_leverage_scores
from mercer.linalg.sequential_leverage import _keep


def _rbf(x, y):
    return torch.exp(-0.5 * (x[:, None] - y).square().sum(-1))


def _ones(x):
    return torch.ones(len(x), dtype=torch.float64)


def _stream(n, share=0.5, seed=0):
    """Rows in the plane, a share of them in one tight cluster, shuffled."""
    source = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=source, dtype=torch.float64)
    x[: int(share * n)] *= 0.02
    return x[torch.randperm(n, generator=source)]


def _make(ridge=1.0, **options):
    return SequentialLeverage(_rbf, _ones, **{"ridge": ridge, "generator": 0, **options})


def _error(state, k):
    """What the dictionary's Nystroem matrix leaves of K: its eigenvalues."""
    columns = k[:, state.index]
    system = k[state.index][:, state.index] + state.ridge * torch.diag(state.probabilities)
    return torch.linalg.eigvalsh(k - columns @ torch.linalg.solve(system, columns.mT))


@pytest.mark.paper(
    "machines-ink-estimate",
    kind="exact",
    claim="With every row in the dictionary the sequential estimator returns the leverage scores.",
)
def test_all_rows_in_the_dictionary(evidence):
    x = _stream(400)
    state = _make(ridge=2.0, oversampling=1e15).update(x)  # nothing is ever dropped
    assert state.index.tolist() == list(range(400)) and float(state.probabilities.min()) == 1.0
    k = _rbf(x, x)
    exact = ridge_leverage_scores(k, ridge=2.0)
    error = float((state.scores(x) - exact).abs().max())
    evidence(required="<= 1e-8", measured=error)
    assert error <= 1e-8
    assert state.effective_dimension == pytest.approx(effective_dimension(k, ridge=2.0), rel=1e-10)


@pytest.mark.paper(
    "machines-ink-estimate",
    kind="behaviour",
    claim="The size of a streaming dictionary is within a factor two of q d_eff as the stream "
    "doubles, and K minus its Nystroem matrix is never negative, and a few ridges at most, at "
    "every step.",
)
def test_dictionary_over_a_stream(evidence):
    x, q = _stream(1600), 4.0
    state = _make(oversampling=q)
    for n in (200, 400, 800, 1600):
        state.update(x[state.num_seen : n])
        k = _rbf(x[:n], x[:n])
        ratio = len(state) / (q * effective_dimension(k, ridge=1.0))
        spectrum = _error(state, k)
        evidence(required="in [0.5, 2]", measured=ratio, what=f"size / (q d_eff), {n} rows")
        evidence(
            required="in [-1e-9, 6]",
            measured=f"[{float(spectrum[0]):.1e}, {float(spectrum[-1]):.2f}]",
            what=f"eigenvalues of the error in ridges, {n} rows",
        )
        assert 0.5 <= ratio <= 2.0
        assert float(spectrum[0]) >= -1e-9 and float(spectrum[-1]) <= 6.0


@pytest.mark.paper(
    "machines-ink-estimate",
    kind="behaviour",
    claim="On clustered data the error of a sequential dictionary is at most 0.67 of that of "
    "scikit-learn's uniform landmarks, as many.",
)
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_against_uniform_landmarks(evidence, share):
    from sklearn.kernel_approximation import Nystroem

    errors, theirs = [], []
    for seed in range(20):
        x = _stream(600, share, seed)
        k = _rbf(x, x)
        budget = round(1.5 * effective_dimension(k, ridge=1.0))
        state = _make(budget=budget, generator=seed).update(x)
        assert len(state) <= budget
        # The same map for both: the projection on the landmarks, weights or not.
        columns, own = k[:, state.index], k[state.index][:, state.index]
        inside = columns @ torch.linalg.lstsq(own, columns.mT, driver="gelsd").solution
        errors.append(float(torch.linalg.matrix_norm(k - inside, 2)))
        peer = Nystroem(gamma=0.5, n_components=len(state), random_state=seed)
        z = torch.from_numpy(peer.fit_transform(x.numpy()))
        theirs.append(float(torch.linalg.matrix_norm(k - z @ z.mT, 2)))
    ours, uniform = (float(torch.tensor(e).median()) for e in (errors, theirs))
    evidence(required="<= 0.67", measured=ours / uniform, what=f"{ours:.2f} against {uniform:.2f}")
    assert ours <= 0.67 * uniform


def test_estimates_are_near_the_exact_scores():
    x = _stream(1500)
    state = _make(oversampling=8.0).update(x)
    ratio = state.scores(x) / ridge_leverage_scores(_rbf(x, x), ridge=1.0)
    low, high = float(ratio.quantile(0.005)), float(ratio.quantile(0.995))
    assert low >= 0.6 and high <= 2.2
    d = effective_dimension(_rbf(x, x), ridge=1.0)
    assert state.effective_dimension == pytest.approx(d, rel=0.1)


def test_inclusion_probabilities_are_what_they_say():
    # Horvitz-Thompson: the weights 1 / p add up to the number of rows, on average.
    x = _stream(300)
    totals = torch.tensor(
        [float((1 / _make(generator=s).update(x).probabilities).sum()) for s in range(150)]
    )
    assert abs(float(totals.mean()) - 300) <= 4 * float(totals.std()) / 150**0.5


def test_keeping_is_by_the_ratio():
    ratio = torch.tensor([1.0, 0.3, 0.0, 0.9, 0.05, 0.5]).double()
    source, times = torch.Generator().manual_seed(0), 4000
    drawn = [_keep(ratio, source) for _ in range(times)]
    assert {len(d) for d in drawn} == {2, 3}
    share = torch.bincount(torch.cat(drawn), minlength=6) / times
    assert bool(((share - ratio).abs() <= 4 * (ratio * (1 - ratio) / times).sqrt() + 1e-12).all())


def test_the_budget_binds():
    x = _stream(1000, 0.0)
    for budget in (1, 20):
        state = _make(budget=budget)
        for part in x.split(100):
            assert len(state.update(part)) <= budget
        assert len(state) == budget


def test_rare_rows_are_not_forgotten():
    x = torch.cat([torch.tensor([[30.0, 0.0], [0.0, 40.0]]).double(), 0.1 * _stream(2000)])
    state = _make(ridge=0.4).update(x)
    assert {0, 1} <= set(state.index.tolist())  # alone, a row has leverage 1 / 1.4 at all times
    assert torch.equal(state.rows, x[state.index])


def test_one_pass_and_few_entries():
    asked = 0

    def kernel(a, b):
        nonlocal asked
        asked += len(a) * len(b)
        return _rbf(a, b)

    x = _stream(4000)
    state = SequentialLeverage(kernel, _ones, ridge=1.0, generator=0)
    for part in x.split(512):
        state.update(part)
    assert asked <= 2.5 * len(x) * max(len(state), 32)


def test_resumed_is_the_same():
    x = _stream(500)
    state = _make().update(x[:300])
    twin = _make().resume(state.rows, state.index, state.probabilities, state.num_seen)
    torch.testing.assert_close(twin.scores(x), state.scores(x), rtol=0, atol=0)
    a = _make(generator=9).resume(state.rows, state.index, state.probabilities, 300).update(x[300:])
    b = _make(generator=9).resume(state.rows, state.index, state.probabilities, 300).update(x[300:])
    assert torch.equal(a.index, b.index) and a.num_seen == 500


def test_nothing_seen_and_nothing_left():
    state = _make(ridge=4.0)
    assert state.scores(torch.zeros(2, 2).double()).tolist() == [0.25, 0.25]
    assert state.effective_dimension == 0.0 and len(state) == 0
    state.update(torch.zeros(0, 2).double())
    assert state.num_seen == 0
    empty = SequentialLeverage(
        lambda a, b: torch.zeros(len(a), len(b)), lambda a: torch.zeros(len(a)), ridge=1.0
    ).update(torch.ones(50, 2))
    assert len(empty) == 0 and empty.num_seen == 50 and empty.scores(torch.ones(1, 2)) == 0


def test_duplicates_count_as_often_as_they_come():
    x = torch.ones(1000, 1).double()
    state = _make(ridge=2.0, oversampling=20.0).update(x)
    assert float(state.scores(x[:1])) == pytest.approx(1 / 1002, rel=0.2)
    assert state.effective_dimension == pytest.approx(1000 / 1002, rel=0.01)


@pytest.mark.usefixtures("global_state_unchanged")
def test_generator_leaves_the_global_state():
    x = _stream(200)
    one, two, other = (_make(generator=seed).update(x) for seed in (3, 3, 4))
    assert torch.equal(one.index, two.index) and not torch.equal(one.index, other.index)


def test_float32_rows():
    x = _stream(300).float()
    state = SequentialLeverage(_rbf, lambda a: torch.ones(len(a)), ridge=1.0, generator=0)
    assert state.update(x).rows.dtype == torch.float32
    assert state.scores(x).dtype == torch.float32


def test_memory():
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**17),
        pytest.raises(MemoryError, match="budget, or a larger ridge"),
    ):
        _make(ridge=1e-6).update(_stream(3000, 0.0))


@pytest.mark.parametrize(
    ("error", "match", "options"),
    [
        (TypeError, "kernel", {"kernel": None}),
        (TypeError, "diagonal", {"diagonal": torch.ones(3)}),
        (ValueError, "ridge", {"ridge": 0.0}),
        (TypeError, "ridge", {"ridge": "1"}),
        (ValueError, "oversampling", {"oversampling": -1.0}),
        (ValueError, "budget", {"budget": 0}),
        (TypeError, "budget", {"budget": 3.5}),
        (TypeError, "generator", {"generator": "seed"}),
    ],
)
def test_errors(error, match, options):
    with pytest.raises(error, match=match):
        SequentialLeverage(**{"kernel": _rbf, "diagonal": _ones, "ridge": 1.0, **options})


def test_errors_of_rows():
    state = _make().update(_stream(40))
    for bad, error in (
        (torch.zeros(3, 5).double(), ValueError),
        (torch.full((3, 2), torch.nan), ValueError),
        (torch.zeros(3, 2).long(), TypeError),
        ([[0.0, 1.0]], TypeError),
    ):
        with pytest.raises(error, match="rows"):
            state.update(bad)
    assert state.num_seen == 40
    wrong = SequentialLeverage(lambda a, b: torch.ones(2, 2), _ones, ridge=1.0)
    with pytest.raises(ValueError, match="kernel: expected shape"):
        wrong.update(torch.zeros(5, 1))
    indefinite = SequentialLeverage(
        lambda a, b: -torch.ones(len(a), len(b)).double(), _ones, ridge=1.0
    )
    with pytest.raises(ValueError, match=r"kernel: expected a positive semi-definite"):
        indefinite.update(torch.zeros(5, 1))
    with pytest.raises(ValueError, match="equal lengths"):
        _make().resume(torch.zeros(3, 2), torch.arange(2), torch.ones(3), 5)
    with pytest.raises(ValueError, match="probabilities"):
        _make().resume(torch.zeros(3, 2), torch.arange(3), torch.zeros(3), 5)
