import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import dump, load
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import mercer
from mercer.features import MonomialFeatures, Nystroem, RandomFourier
from mercer.kernels import RBF, Linear, Matern, Polynomial
from mercer.machines import FeatureTransformer
from tests.contracts.machine import MachineContract


class TestWaves(MachineContract):
    def make(self, **params):
        return FeatureTransformer(**{"num_features": 32, "random_state": 0, **params})

    def estimators(self):
        return [FeatureTransformer(), FeatureTransformer("linear", 30, options={})]


class TestLandmarks(MachineContract):
    def make(self, **params):
        given = {"num_features": 20, "method": "nystroem", "random_state": 0}
        return FeatureTransformer(**{**given, **params})

    def estimators(self):
        return [self.make(kernel="matern")]


def _data(n=300, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


@pytest.mark.parametrize(
    ("kernel", "method", "kind"),
    [
        ("rbf", None, RandomFourier),
        ("linear", None, MonomialFeatures),
        (Polynomial(degree=5), None, Nystroem),
        (RBF(2.0), "nystroem", Nystroem),
    ],
)
def test_is_the_kernels_own_feature_map(kernel, method, kind):
    x = _data()
    machine = FeatureTransformer(kernel, 64, method=method, random_state=3).fit(x)
    assert isinstance(machine.feature_map_, kind)
    np.testing.assert_allclose(
        machine.transform(x), machine.feature_map_(torch.from_numpy(x)).numpy(), atol=1e-10
    )
    seed = int(np.random.RandomState(3).randint(np.iinfo(np.int32).max))
    phi = machine.kernel_.features(64, like=torch.from_numpy(x), method=method, generator=seed)
    np.testing.assert_allclose(machine.transform(x), phi(torch.from_numpy(x)).numpy(), atol=1e-10)


def test_approximates_the_kernel_as_scikit_learns_sampler_does():
    x, gamma, m = _data(), 0.1, 4000
    exact = np.exp(-gamma * ((x[:, None] - x) ** 2).sum(-1))
    ours = FeatureTransformer(RBF((1 / (2 * gamma)) ** 0.5), m, random_state=0).fit_transform(x)
    theirs = RBFSampler(gamma=gamma, n_components=m, random_state=0).fit_transform(x)
    errors = [np.abs(z @ z.T - exact).mean() for z in (ours, theirs)]
    assert errors[0] <= min(errors[1], m**-0.5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("method", ["random_fourier", "nystroem"])
def test_takes_arrays_and_tensors_and_returns_the_callers_kind(dtype, method):
    tensor = torch.from_numpy(_data()).to(dtype)
    array = tensor.numpy()
    make = FeatureTransformer("rbf", 32, method=method, random_state=0)
    of_tensor = clone(make).fit(tensor).transform(tensor)
    of_array = clone(make).fit(array).transform(array)
    assert isinstance(of_tensor, torch.Tensor) and of_tensor.dtype == dtype
    assert isinstance(of_array, np.ndarray) and of_array.dtype == array.dtype
    np.testing.assert_array_equal(of_tensor.numpy(), of_array)
    crossed = clone(make).fit(array).transform(tensor)
    assert isinstance(crossed, torch.Tensor)
    np.testing.assert_array_equal(crossed.numpy(), of_array)


def test_integers_and_half_precision():
    x = torch.randint(0, 9, (50, 3))
    machine = FeatureTransformer("rbf", 16, random_state=0).fit(x)
    assert machine.transform(x).dtype == torch.float64
    assert machine.transform(x.numpy()).dtype == np.float64
    assert machine.transform(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_do_not_flow_and_need_not_be_stopped():
    x = torch.randn(40, 3, requires_grad=True)
    machine = FeatureTransformer("matern", 16, method="nystroem").fit(x)
    assert not machine.transform(x).requires_grad


def test_the_kernel_is_never_changed():
    kernel, x = RBF("median"), _data()
    before = kernel.get_params()
    machine = FeatureTransformer(kernel, 16, random_state=0).fit(x)
    assert machine.kernel is kernel and kernel.get_params() == before
    assert kernel.raw_lengthscale.requires_grad
    with pytest.raises(RuntimeError, match="left to the data"):
        kernel(torch.from_numpy(x))
    expected = float(torch.pdist(torch.from_numpy(x)).median())
    assert machine.kernel_.lengthscale.item() == pytest.approx(expected)
    twin = clone(machine)
    assert not hasattr(twin, "kernel_") and twin.kernel.get_params() == before


def test_random_state():
    x = _data()
    one, two, other = (
        FeatureTransformer("rbf", 16, random_state=seed).fit_transform(x) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - other).max() > 0.1
    before = torch.get_rng_state()
    FeatureTransformer("rbf", 16, method="nystroem").fit(x)
    assert torch.equal(before, torch.get_rng_state())
    shared = np.random.RandomState(5)
    a, b = (FeatureTransformer("rbf", 16, random_state=shared).fit_transform(x) for _ in range(2))
    assert np.abs(a - b).max() > 0.1


@pytest.mark.parametrize("method", ["random_fourier", "nystroem"])
def test_copies_and_files(tmp_path, method):
    x = _data()
    machine = FeatureTransformer(Matern(2.0), 16, method=method, random_state=0).fit(x)
    expected = machine.transform(x)
    dump(machine, tmp_path / "machine.joblib")
    twins = (
        copy.deepcopy(machine),
        pickle.loads(pickle.dumps(machine)),
        load(tmp_path / "machine.joblib"),
    )
    for twin in twins:
        np.testing.assert_array_equal(twin.transform(x), expected)


def test_grid_search_over_the_kernels_parameters_in_two_processes():
    x = _data(200, 2)
    y = np.sin(3 * x[:, 0])
    search = GridSearchCV(
        make_pipeline(FeatureTransformer(RBF(), 100, random_state=0), Ridge(1e-3)),
        {
            "featuretransformer__kernel__lengthscale": [0.01, 1.0, 100.0],
            "featuretransformer__num_features": [50, 100],
        },
        cv=3,
        n_jobs=2,
    ).fit(x, y)
    assert search.best_params_["featuretransformer__kernel__lengthscale"] == 1.0
    assert search.best_score_ > 0.9
    assert search.estimator.named_steps["featuretransformer"].kernel.lengthscale.item() == 1.0


def test_feature_names():
    machine = FeatureTransformer(Linear(), 64).fit(_data(20, 3))
    names = ["featuretransformer0", "featuretransformer1", "featuretransformer2"]
    assert machine.get_feature_names_out().tolist() == names
    assert machine.transform(_data(7, 3)).shape == (7, 3)


def test_options_reach_the_map():
    x = _data()
    machine = FeatureTransformer(
        RBF(2.0), 20, method="nystroem", options={"landmarks": "greedy"}
    ).fit(x)
    direct = Nystroem.from_data(RBF(2.0), torch.from_numpy(x), 20, landmarks="greedy")
    np.testing.assert_array_equal(machine.feature_map_.landmarks.numpy(), direct.landmarks.numpy())
    with pytest.raises(TypeError, match="unexpected keyword"):
        FeatureTransformer("rbf", 20, options={"landmark": 3}).fit(x)


def test_blocks_under_a_small_budget(monkeypatch):
    x = _data(60_000, 4)
    machine = FeatureTransformer("rbf", 50, method="nystroem", random_state=0).fit(x[:500])
    whole = machine.transform(x)
    sizes, forward = [], machine.feature_map_.forward

    def seen(block):
        sizes.append(len(block))
        return forward(block)

    monkeypatch.setattr(machine.feature_map_, "forward", seen)
    budget = mercer._core.config.resident_memory() + 3 * 2**24
    with mercer.config.override(memory_budget=budget):
        np.testing.assert_allclose(machine.transform(x), whole, atol=1e-9)
    assert sum(sizes) == 60_000 and max(sizes) <= 30_000
    with (
        mercer.config.override(memory_budget="1 MiB"),
        pytest.raises(MemoryError, match=r"60000 rows of 50 features in float64.*in batches"),
    ):
        machine.transform(x)


_RESIDENT = """
import sys
import numpy as np, torch, mercer
from mercer.machines import FeatureTransformer
from tests.contracts.machine import MachineContract
from mercer._core.config import resident_memory
torch.set_num_threads(1)
n, m, method, spare = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
x = np.random.default_rng(0).normal(size=(n, 4))
machine = FeatureTransformer("rbf", m, method=method, random_state=0).fit(x[:2000])
machine.transform(x[:2000])
mercer.config.memory_budget = resident_memory() + 8 * n * m + spare
z = machine.transform(x)
status = open("/proc/self/status").read()  # ru_maxrss begins with that of the parent
peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
print(mercer.config.memory_budget - peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("method", ["random_fourier", "nystroem"])
@pytest.mark.parametrize("n", [200_000, 400_000, 800_000])
def test_resident_memory_stays_under_the_budget(n, method):
    command = [sys.executable, "-c", _RESIDENT, str(n), "64", method, str(2**27)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert int(result.stdout) >= 0


def test_read_only_and_reversed_arrays():
    x = _data(40, 3)
    machine = FeatureTransformer("rbf", 16, random_state=0).fit(x)
    expected = machine.transform(x)
    x.flags.writeable = False
    np.testing.assert_array_equal(machine.transform(x), expected)
    np.testing.assert_allclose(machine.transform(x[::-1]), expected[::-1], atol=1e-12)


def test_a_linear_model_on_the_features_is_a_kernel_machine():
    x, y = load_digits(return_X_y=True)
    model = make_pipeline(FeatureTransformer("rbf", 1000, random_state=0), RidgeClassifier(1e-3))
    ours = model.fit(x[:1200], y[:1200]).score(x[1200:], y[1200:])
    theirs = SVC(C=10).fit(x[:1200], y[:1200]).score(x[1200:], y[1200:])
    assert ours >= theirs - 0.02


X = _data(9, 2)


@pytest.mark.parametrize(
    ("error", "match", "changes", "data"),
    [
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}, X),
        (TypeError, "kernel: expected a Kernel", {"kernel": 3}, X),
        (ValueError, "num_features", {"num_features": 0}, X),
        (TypeError, "num_features", {"num_features": 2.5}, X),
        (ValueError, "method", {"method": "best"}, X),
        (ValueError, "NaN", {}, np.full((3, 2), np.nan)),
        (ValueError, "X: 6 of 6 entries are NaN", {}, torch.full((3, 2), torch.nan)),
        (ValueError, r"X: expected 2 axes.*\(3,\)", {}, torch.ones(3)),
        (ValueError, "n_samples = 1 ", {}, torch.ones(1, 2)),
        (ValueError, "n_samples = 0 ", {"kernel": RBF()}, torch.ones(0, 2)),
        (ValueError, "n_features = 0", {}, torch.ones(3, 0)),
        (TypeError, "X: expected real numbers", {}, torch.ones(3, 2, dtype=torch.complex64)),
    ],
)
def test_refuses(error, match, changes, data):
    with pytest.raises(error, match=match):
        FeatureTransformer(**changes).fit(data)


def test_transform_refuses():
    machine = FeatureTransformer("rbf", 16)
    with pytest.raises(NotFittedError):
        machine.transform(torch.ones(3, 2))
    machine.fit(torch.from_numpy(X))
    with pytest.raises(ValueError, match="X has 3 features, but FeatureTransformer is expecting 2"):
        machine.transform(torch.ones(3, 3))
    with pytest.raises(ValueError, match="X: 1 of 2"):
        machine.transform(torch.tensor([[1.0, torch.inf]]))
