import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline

import mercer
from mercer._core.config import resident_memory
from mercer.kernels import RBF
from mercer.linalg import SequentialLeverage, effective_dimension
from mercer.machines import StreamingNystroem
from tests.contracts.machine import MachineContract


class TestStreamingNystroem(MachineContract):
    def make(self, **params):
        return StreamingNystroem(**{"ridge": 0.1, "random_state": 0, **params})

    def estimators(self):
        return [
            self.make(),
            StreamingNystroem(),
            StreamingNystroem("matern", ridge=3.0, budget=7, oversampling=5.0),
        ]

    def blockwise(self):
        rows = torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)).double()
        return self.make(kernel=RBF(1.0), ridge=10.0), rows


def _clustered(n=1200, seed=0):
    source = np.random.default_rng(seed)
    x = source.normal(size=(n, 2))
    x[: n // 2] *= 0.02
    return source.permutation(x)


def test_features_are_the_regularised_nystroem_matrix():
    x = _clustered(400)
    machine = StreamingNystroem(RBF(1.0), ridge=0.5, random_state=0).fit(x)
    z = machine.transform(x)
    k = np.exp(-((x[:, None] - x) ** 2).sum(-1) / 2)
    index = machine.dictionary_indices_
    np.testing.assert_array_equal(machine.dictionary_, x[index])
    system = k[index][:, index] + 0.5 * np.diag(1 / machine.weights_)
    expected = k[:, index] @ np.linalg.solve(system, k[index])
    np.testing.assert_allclose(z @ z.T, expected, atol=1e-10)
    left = np.linalg.eigvalsh(k - z @ z.T)
    assert left[0] >= -1e-10 and left[-1] <= 6 * 0.5
    d = effective_dimension(torch.from_numpy(k), ridge=0.5)
    assert machine.effective_dimension_ == pytest.approx(d, rel=0.3)


def test_is_the_sequential_dictionary():
    x = torch.from_numpy(_clustered())
    machine = StreamingNystroem(RBF(1.0), random_state=0)
    for part in x.split(300):
        machine.partial_fit(part)
    kernel = RBF(1.0).requires_grad_(False)
    state = SequentialLeverage(kernel, kernel.diag, ridge=1.0)
    dictionary = torch.from_numpy(machine.dictionary_indices_)
    state.resume(x[dictionary], dictionary, 1 / torch.from_numpy(machine.weights_), 1200)
    assert machine.n_samples_seen_ == 1200 and torch.equal(machine.dictionary_, state.rows)
    assert machine.effective_dimension_ == pytest.approx(state.effective_dimension, rel=1e-12)


def test_one_batch_is_fit_and_a_saved_machine_goes_on(tmp_path):
    x = _clustered()
    one = StreamingNystroem(RBF(1.0), random_state=3).fit(x[:600])
    two = StreamingNystroem(RBF(1.0), random_state=3).partial_fit(x[:600])
    np.testing.assert_array_equal(one.transform(x), two.transform(x))
    one.save_pretrained(tmp_path / "machine")
    again = StreamingNystroem.from_pretrained(tmp_path / "machine").partial_fit(x[600:])
    np.testing.assert_array_equal(again.transform(x), two.partial_fit(x[600:]).transform(x))
    assert again.n_samples_seen_ == 1200


@pytest.mark.paper(
    "machines-ink-estimate",
    kind="behaviour",
    claim="Ridge regression on the streamed features is nearly the exact kernel ridge regression, "
    "and better than on as many features of scikit-learn's uniform landmarks.",
)
def test_regression_on_streamed_features(evidence):
    from sklearn.kernel_approximation import Nystroem

    ratios = []
    for seed in range(5):
        x = _clustered(1500, seed)
        source = np.random.default_rng(seed)
        target = np.sin(3 * x[:, 0]) + x[:, 1] ** 2
        y = target + 0.1 * source.normal(size=1500)
        train, test = slice(0, 1000), slice(1000, 1500)
        machine = StreamingNystroem(RBF(0.7), ridge=0.1, random_state=seed)
        uniform = Nystroem(gamma=1 / (2 * 0.7**2), n_components=1, random_state=seed)
        exact = KernelRidge(alpha=0.1, kernel="rbf", gamma=uniform.gamma).fit(x[train], y[train])
        errors = [exact.predict(x[test]) - target[test]]
        machine.fit(x[train])
        uniform.set_params(n_components=len(machine.dictionary_))
        for phi in (machine, uniform):
            model = make_pipeline(phi, Ridge(0.1, fit_intercept=False)).fit(x[train], y[train])
            errors.append(model.predict(x[test]) - target[test])
        ratios.append([np.sqrt(np.mean(e**2) / np.mean(errors[0] ** 2)) for e in errors[1:]])
    ours, theirs = np.median(ratios, axis=0)
    evidence(required="<= 1.1", measured=ours, what="error over that of the exact regression")
    evidence(required="> ours", measured=theirs, what="the same for uniform landmarks")
    assert ours <= 1.1 and ours < theirs


def test_the_budget_binds_and_the_size_plateaus():
    x = _clustered(4000)
    sizes = []
    machine = StreamingNystroem(RBF(1.0), random_state=0)
    for start in range(0, 4000, 500):
        machine.partial_fit(x[start : start + 500])
        sizes.append(len(machine.dictionary_))
    assert sizes[-1] <= 2 * sizes[1]
    assert len(StreamingNystroem(RBF(1.0), budget=9).fit(x[:500]).dictionary_) == 9


def test_nothing_worth_keeping():
    machine, zeros = StreamingNystroem("linear", random_state=0), np.zeros((50, 3))
    with pytest.warns(UserWarning, match="none of 50 rows is worth keeping at the ridge 1,"):
        machine.fit(zeros)
    assert machine.transform(zeros).tolist() == [[0.0]] * 50
    assert len(machine.get_feature_names_out()) == 1 and machine.effective_dimension_ == 0.0
    x = np.random.default_rng(0).normal(size=(100, 3))
    assert 3 <= machine.partial_fit(x).transform(x).shape[1] <= 12
    same = StreamingNystroem("rbf", random_state=0).fit(np.ones((40, 2)))  # constant columns
    assert len(same.dictionary_) in (1, 2)
    assert same.effective_dimension_ == pytest.approx(40 / 41, rel=0.6)
    z = same.transform(np.ones((3, 2)))
    assert bool((np.abs((z**2).sum(1) - 1) < 0.2).all())


def test_memory():
    machine = StreamingNystroem(RBF(1.0), random_state=0).fit(_clustered(300))
    x = np.zeros((200_000, 2))
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**20),
        pytest.raises(MemoryError, match="in batches"),
    ):
        machine.transform(x)


@pytest.mark.parametrize(
    ("error", "match", "params"),
    [
        (ValueError, "ridge", {"ridge": 0.0}),
        (TypeError, "ridge", {"ridge": None}),
        (ValueError, "budget", {"budget": 0}),
        (ValueError, "oversampling", {"oversampling": -1.0}),
        (ValueError, "kernel", {"kernel": "nothing"}),
        (TypeError, "kernel", {"kernel": 3}),
    ],
)
def test_errors(error, match, params):
    with pytest.raises(error, match=match):
        StreamingNystroem(**params).fit(_clustered(50))
