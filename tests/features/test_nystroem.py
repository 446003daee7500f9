import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_approximation import Nystroem as SklearnNystroem

import mercer
from mercer.features import Nystroem
from mercer.kernels import RBF, Kernel, Linear, Matern, Polynomial, White
from tests.contracts.feature_map import FeatureMapContract


class TestNystroem(FeatureMapContract):
    def make(self, **factory):
        return Nystroem.random(RBF(3.0), 6, 5, **factory)


class TestNystroemOfACompositeKernel(FeatureMapContract):
    def make(self, **factory):
        kernel = 2.0 * Matern([1.0, 2.0, 3.0, 2.0, 1.0, 2.0], nu=2.5) + 0.1
        return Nystroem.random(kernel, 6, 8, **factory)


def _randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KERNELS = [RBF(1.5), Matern(2.0, nu=1.5), Polynomial(degree=2), 2.0 * RBF(1.0) + Linear()]


def _frozen(kernel: Kernel) -> Kernel:
    return copy.deepcopy(kernel).requires_grad_(False)


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 25), seed=st.integers(0, 1000))
def test_exact_where_all_points_are_landmarks(kernel, n, seed):
    x, k = _randn(n, 3, seed=seed), _frozen(kernel)
    z = Nystroem(k, x)(x)
    scale = float(k.diag(x).max())
    assert z.shape == (n, n)
    assert float((z @ z.mT - k(x)).abs().max()) <= 1e-7 * scale


@pytest.mark.parametrize("kernel", KERNELS, ids=repr)
def test_is_the_projection_on_the_landmarks(kernel):
    x, k = _randn(60, 3), _frozen(kernel)
    landmarks = x[:8]
    phi = Nystroem(k, landmarks)
    z = phi(x)
    expected = k(x, landmarks) @ torch.linalg.solve(k(landmarks), k(landmarks, x))
    assert torch.allclose(z @ z.mT, expected, atol=1e-9 * float(expected.abs().max()))
    residual = k(x) - z @ z.mT
    # Exact beside a landmark, and what is left elsewhere is positive semi-definite.
    assert float(residual[:8].abs().max()) <= 1e-9 * float(expected.abs().max())
    assert float(torch.linalg.eigvalsh(residual)[0]) >= -1e-9 * float(expected.abs().max())


def test_equals_scikit_learns_on_its_landmarks():
    x = _randn(200, 4)
    theirs = SklearnNystroem(gamma=0.3, n_components=30, random_state=0).fit(x.numpy())
    ours = Nystroem(RBF(math.sqrt(1 / 0.6)), torch.from_numpy(theirs.components_))
    np.testing.assert_allclose(ours(x).numpy(), theirs.transform(x.numpy()), atol=1e-10)


def test_the_residual_is_that_of_pivoted_cholesky():
    x, k = _randn(100, 2), _frozen(RBF(0.7))
    found = mercer.linalg.pivoted_cholesky(k(x), rank=12)
    z = Nystroem(k, x[found.pivots])(x)
    left = k.diag(x) - z.square().sum(-1)
    assert torch.allclose(left, found.residual_diagonal, atol=1e-9)


def test_repeated_landmarks_change_nothing():
    x, k = _randn(50, 3), _frozen(RBF(2.0))
    once = Nystroem(k, x[:6])(x)
    phi = Nystroem(k, torch.cat([x[:6], x[:6], x[2:4] + 1e-12]))
    twice = phi(x)
    assert twice.shape == (50, 14)
    assert torch.allclose(twice @ twice.mT, once @ once.mT, atol=1e-9)
    assert float(phi.whitening.abs().max()) < 1e4
    same = Nystroem(k, torch.ones(5, 3))(torch.ones(1, 3))
    assert float(same.square().sum()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-3)])
def test_nearly_singular_landmarks_stay_accurate(dtype, tolerance):
    x = torch.linspace(0, 1, 400, dtype=torch.float64).unsqueeze(-1)
    k = _frozen(RBF(0.5))
    z = Nystroem(k, x[::8].to(dtype))(x.to(dtype)).double()  # 50 landmarks, of rank 15 or so
    error = k(x) - z @ z.mT
    assert float(error.abs().max()) <= tolerance


def test_float32_inputs_do_not_blur_a_float64_map():
    x, k = torch.linspace(0, 1, 100).unsqueeze(-1), _frozen(RBF(0.5))
    phi = Nystroem(k, x[::4].double())
    z = phi(x)
    assert z.dtype == torch.float32
    assert torch.allclose(z.double(), phi(x.double()), atol=1e-6)


def test_cutoff_leaves_directions_out():
    k, x = _frozen(RBF(1.0)), _randn(20, 2)
    values = torch.linalg.eigvalsh(k(x))
    between = float((values[-6] + values[-7]) / 2 / values[-1])
    phi = Nystroem(k, x, cutoff=between)
    assert int(torch.linalg.matrix_rank(phi.whitening)) == 6
    assert Nystroem(k, x, cutoff=1.0).whitening.abs().max() == 0.0  # no eigenvalue is above


def test_blocks_equal_the_formula():
    x, phi = _randn(3000, 3), Nystroem(RBF(2.0), _randn(40, 3, seed=1))
    leading = x.reshape(30, 100, 3)
    one_by_one = torch.stack([phi(row) for row in x[:50]])
    assert torch.allclose(phi(x)[:50], one_by_one, atol=1e-9)
    assert torch.equal(phi(leading).reshape(3000, 40), phi(x))
    traced = phi(x.clone().requires_grad_())
    assert traced.requires_grad
    assert torch.allclose(traced, phi(x), atol=1e-9)


def test_far_data_keep_their_digits():
    x, k = _randn(200, 3), _frozen(RBF(1.0))
    near = Nystroem(k, x[:20])(x)
    far = Nystroem(k, x[:20] + 1e4)(x + 1e4)
    assert torch.allclose(far @ far.mT, near @ near.mT, atol=1e-9)


@pytest.mark.parametrize("n", [10, 3000])
def test_an_outlier_costs_the_other_rows_no_digits(n):
    x, phi = _randn(n, 6), Nystroem(RBF(2.0), _randn(40, 6, seed=1))
    expected = phi(x)
    found = phi(torch.cat([x, torch.full((1, 6), 1e9, dtype=torch.float64)]))
    assert torch.allclose(found[:-1], expected, atol=1e-8)
    assert float(found[-1].abs().max()) == 0.0


def test_the_kernel_is_copied():
    k = RBF(1.0)
    phi = Nystroem(k, _randn(5, 2))
    before = phi(torch.ones(2).double())
    k.lengthscale = 3.0
    assert torch.equal(phi(torch.ones(2).double()), before)
    assert isinstance(phi.kernel, RBF) and phi.kernel.lengthscale.item() == 1.0
    assert not list(phi.parameters())
    assert repr(phi) == "Nystroem(in_features=2, num_features=5, kernel=RBF())"


def test_saved_hyperparameters_come_back_exactly(tmp_path):
    k = Matern([0.1, 0.7], nu=2.5) * RBF(1 / 3)
    phi = Nystroem.from_data(k, _randn(100, 2).float(), 10, cutoff=1e-9, generator=0)
    phi.save_pretrained(tmp_path / "saved")
    loaded = Nystroem.from_pretrained(tmp_path / "saved")
    x = _randn(5, 2)
    assert torch.equal(loaded(x), phi(x)) and torch.equal(loaded(x.float()), phi(x.float()))
    assert loaded.cutoff == 1e-9 and repr(loaded) == repr(phi)
    twin = copy.deepcopy(loaded)
    twin.reset_parameters(0)
    assert torch.isfinite(twin(x)).all() and torch.equal(loaded(x), phi(x))


def test_reset_forgets_the_landmarks_for_those_that_random_draws():
    phi = Nystroem.from_data(RBF(1.0), 5 + _randn(40, 3), 6, generator=0)
    phi.reset_parameters(4)
    drawn = Nystroem.random(RBF(1.0), 3, 6, generator=4, dtype=torch.float64)
    assert torch.equal(phi.landmarks, drawn.landmarks)
    assert torch.equal(phi.whitening, drawn.whitening)


def test_median_lengthscale_is_set_from_the_data():
    k, x = RBF("median"), 7 * _randn(300, 4)
    phi = Nystroem.from_data(k, x, 20, generator=0)
    expected = torch.pdist(x).median()
    assert phi.kernel is not None
    assert phi.kernel.lengthscale.item() == pytest.approx(float(expected), rel=1e-9)  # type: ignore[attr-defined]
    assert k.to_spec().get_params()["lengthscale"] == "median"
    with pytest.raises(RuntimeError, match="left to the data"):
        Nystroem(k, x[:5])
    set_already = RBF("median").fit(torch.arange(3.0).unsqueeze(-1))
    again = Nystroem.from_data(set_already, x, 20, generator=0)
    assert again.kernel is not None
    assert again.kernel.lengthscale.item() == 1.0  # type: ignore[attr-defined]


def test_ridge_on_the_features_is_the_subset_of_regressors():
    # The machine that it is made for: weights on the features equal the closed form in k.
    x, k = _randn(120, 2), _frozen(RBF(1.0))
    y = torch.sin(2 * x[:, :1])
    phi = Nystroem(k, x[:15])
    z, a, ridge = phi(x), k(x, x[:15]), 1e-3
    ours = z @ torch.linalg.solve(z.mT @ z + ridge * torch.eye(15), z.mT @ y)
    theirs = a @ torch.linalg.solve(a.mT @ a + ridge * k(x[:15]), a.mT @ y)
    assert torch.allclose(ours, theirs, atol=1e-7)


def test_noise_is_part_of_the_landmarks_matrix_only():
    k, x = _frozen(RBF(1.0) + White(0.5)), _randn(30, 2)
    landmarks = x[:6]
    z = Nystroem(k, landmarks)(x[6:])
    clean = _frozen(RBF(1.0))
    system = clean(landmarks) + 0.5 * torch.eye(6)
    a = clean(x[6:], landmarks)
    assert torch.allclose(z @ z.mT, a @ torch.linalg.solve(system, a.mT), atol=1e-10)


class _Indefinite(Kernel):
    def _evaluate(self, x, y):
        return -(x @ y.mT)

    def _diagonal(self, x):
        return -x.square().sum(-1)


@pytest.mark.parametrize(
    ("error", "match", "kernel", "landmarks", "kwargs"),
    [
        (TypeError, "kernel: expected a Kernel, got str", "rbf", torch.ones(3, 2), {}),
        (TypeError, "landmarks", RBF(), [[1.0]], {}),
        (ValueError, r"landmarks: .*\(3,\)", RBF(), torch.ones(3), {}),
        (ValueError, r"landmarks.shape\[0\]", RBF(), torch.ones(0, 3), {}),
        (ValueError, r"landmarks.shape\[1\]", RBF(), torch.ones(3, 0), {}),
        (ValueError, "landmarks: 1 of 2", RBF(), torch.tensor([[1.0, math.nan]]), {}),
        (ValueError, "cutoff", RBF(), torch.ones(3, 2), {"cutoff": -1.0}),
        (ValueError, "cutoff", RBF(), torch.ones(3, 2), {"cutoff": 2.0}),
        (ValueError, "kernel: .*semi-definite", _Indefinite(), torch.eye(3), {}),
        (ValueError, r"x: expected shape \(..., 2\)", RBF([1.0, 2.0]), torch.ones(3, 3), {}),
    ],
)
def test_refuses(error, match, kernel, landmarks, kwargs):
    with pytest.raises(error, match=match):
        Nystroem(kernel, landmarks, **kwargs)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (TypeError, "kernel", {"kernel": "rbf"}),
        (TypeError, "x: ", {"x": [[1.0]]}),
        (ValueError, r"x: expected 2 axes.*\(5,\)", {"x": torch.ones(5)}),
        (ValueError, "x: 1 of 2", {"x": torch.tensor([[0.0], [math.inf]])}),
        (ValueError, r"num_features: .*the 9 points of x \(9, 2\), got 10", {"num_features": 10}),
        (ValueError, "num_features", {"num_features": 0}),
        (ValueError, "method: .*'kmeans'.*'best'", {"landmarks": "best"}),
        (ValueError, "ridge", {"ridge": 0.0, "landmarks": "leverage"}),
        (TypeError, "generator", {"generator": 1.5}),
    ],
)
def test_from_data_refuses(error, match, changes):
    arguments = {"kernel": RBF(), "x": torch.ones(9, 2), "num_features": 3, **changes}
    with pytest.raises(error, match=match):
        Nystroem.from_data(**arguments)


def test_memory_budget():
    phi = Nystroem(RBF(), _randn(100, 2))
    with mercer.config.override(memory_budget="1 MiB"):
        with pytest.raises(MemoryError, match=r"feature matrix of shape \(9000, 100\)"):
            phi(_randn(9000, 2))
        with pytest.raises(MemoryError, match="fewer landmarks"):
            Nystroem(RBF(), _randn(300, 2))
