"""Kernels as parameters of scikit-learn estimators, as values in files, and by name."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import GridSearchCV

from mercer.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Kernel,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Precomputed,
    RationalQuadratic,
    SpectralMixture,
    White,
    resolve_kernel,
)
from mercer.kernels.registry import KERNELS


def points(n, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Ridge(RegressorMixin, BaseEstimator):
    """A kernel ridge regression as an estimator of a later room will do it."""

    def __init__(self, kernel="rbf", alpha=1e-2):
        self.kernel = kernel
        self.alpha = alpha

    def fit(self, X, y):
        self.X_ = torch.as_tensor(X)
        kernel = clone(resolve_kernel(self.kernel))
        self.kernel_ = kernel.fit(self.X_).requires_grad_(False)
        gram = self.kernel_.gram(self.X_)
        self.dual_ = gram.solve(torch.as_tensor(y), ridge=self.alpha).solution
        return self

    def predict(self, X):
        return (self.kernel_.gram(torch.as_tensor(X), self.X_) @ self.dual_).numpy()


@pytest.mark.parametrize("jobs", [1, 2])
def test_grid_search(jobs):
    x = points(80).numpy()
    y = np.sin(2 * x[:, 0])
    kernel = RBF() + White(0.1)
    grid = {"kernel__left__lengthscale": np.array([0.05, 1.0, 50.0]), "alpha": [1e-3]}
    search = GridSearchCV(Ridge(kernel), grid, cv=3, n_jobs=jobs).fit(x, y)
    assert search.best_params_["kernel__left__lengthscale"] == 1.0
    assert kernel.left.lengthscale.item() == 1.0  # the user's own is as it was
    swap = GridSearchCV(Ridge(kernel), {"kernel": ["rbf", Linear(), kernel]}, cv=3).fit(x, y)
    assert repr(swap.best_params_["kernel"]) != "Linear()"


def test_parameters_by_identity():
    scales = torch.tensor([1.0, 2.0])
    kernel = RBF(scales)
    assert kernel.get_params()["lengthscale"] is scales
    matrix = torch.eye(3)
    assert Precomputed(matrix).get_params()["matrix"] is matrix
    left = RBF()
    both = left * Matern(nu=2.5)
    assert both.get_params(deep=False) == {"left": left, "right": both.right}
    assert both.get_params()["right__nu"] == 2.5
    twin = clone(both)
    assert twin.left is not left and twin.right.nu == 2.5


def test_set_params_reaches_inside():
    kernel = 2.0 * (RBF() + Matern(nu=0.5))
    kernel.set_params(kernel__left__lengthscale=[1.0, 2.0], kernel__right__nu=2.5, scale=3.0)
    assert repr(kernel) == "Scaled(Sum(RBF(lengthscale=[1.0, 2.0]), Matern(nu=2.5)), scale=3.0)"
    x = points(4, 2)
    expected = 3.0 * (RBF([1.0, 2.0])(x) + Matern(nu=2.5)(x))
    torch.testing.assert_close(kernel(x), expected)
    kernel.set_params(kernel=Linear())
    assert repr(kernel) == "Scaled(Linear(), scale=3.0)"
    with pytest.raises(ValueError, match=r"Invalid parameter 'scale__nu' for Scaled"):
        kernel.set_params(scale__nu=1)
    with pytest.raises(ValueError, match=r"Invalid parameter 'nu' for Linear"):
        kernel.set_params(kernel__nu=1)


def test_a_failed_change_leaves_the_kernel_whole():
    kernel = RBF(2.0)
    with pytest.raises(ValueError, match=r"^lengthscale: expected finite numbers > 0"):
        kernel.set_params(lengthscale=-1.0)
    assert kernel.lengthscale.item() == 2.0 and kernel.get_params()["lengthscale"] == 2.0
    with pytest.raises(ValueError, match=r"^lengthscale"):
        kernel.lengthscale = 0.0
    assert kernel.lengthscale.item() == 2.0


def test_properties_read_and_write():
    kernel = RBF(0.7)
    assert kernel.lengthscale.item() == pytest.approx(0.7, rel=1e-15)
    kernel.lengthscale = 0.3
    assert kernel.raw_lengthscale.item() == pytest.approx(math.log(0.3), rel=1e-15)
    kernel.lengthscale = torch.tensor([1.0, 2.0, 3.0])
    assert kernel.lengthscale.shape == (3,)
    kernel.lengthscale = 4.0
    assert kernel.lengthscale.tolist() == pytest.approx([4.0] * 3)
    with pytest.raises(ValueError, match=r"^lengthscale: expected shape \(3,\) or a number"):
        kernel.lengthscale = [1.0, 2.0]
    quadratic = RationalQuadratic(alpha=2.0)
    with pytest.raises(ValueError, match=r"^alpha: expected one number"):
        quadratic.alpha = [1.0, 2.0]


def test_hyperparameters_are_learnt():
    x = points(60)
    target = (1.5 * Matern([0.5, 2.0, 1.0], nu=2.5))(x).detach()
    kernel = 1.0 * Matern([1.0, 1.0, 1.0], nu=2.5)
    optimizer = torch.optim.LBFGS(kernel.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (kernel(x) - target).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert kernel.kernel.lengthscale.tolist() == pytest.approx([0.5, 2.0, 1.0], rel=1e-4)
    assert kernel.scale.item() == pytest.approx(1.5, rel=1e-4)
    assert clone(kernel).scale.item() == 1.0
    assert clone(kernel.to_spec()).scale.item() == pytest.approx(1.5, rel=1e-4)


def test_float32_inputs_with_float64_hyperparameters():
    x = points(5).float()
    assert RBF(0.7)(x).dtype == torch.float32
    low = RBF(0.7, dtype=torch.float32)
    assert low.raw_lengthscale.dtype == torch.float32 and low(points(5)).dtype == torch.float64
    assert clone(low).raw_lengthscale.dtype == torch.float32


@pytest.mark.parametrize(
    ("kernel", "distance"),
    [
        (RBF("median"), lambda x: torch.pdist(x)),
        (Matern("median"), lambda x: torch.pdist(x)),
        (Laplacian("median"), lambda x: torch.pdist(x, p=1.0)),
        (
            Periodic("median", period=2.0),
            lambda x: torch.pdist(torch.cat([(math.pi * x).cos(), (math.pi * x).sin()], -1)),
        ),
    ],
    ids=lambda value: repr(value)[:10],
)
def test_median_lengthscale(kernel, distance):
    x = points(101)
    with pytest.raises(RuntimeError, match=r"left to the data.*call fit\(x\)"):
        kernel(x)
    with pytest.raises(RuntimeError, match=r"call fit\(x\)"):
        (kernel + 1.0).gram(x)
    fitted = clone(kernel + 1.0).fit(x)
    assert fitted.left.lengthscale.item() == pytest.approx(distance(x).median().item(), rel=1e-12)
    assert "median" in repr(kernel) and "median" not in repr(fitted)
    assert "median" in repr(clone(fitted)) and "median" not in repr(clone(fitted.to_spec()))


@pytest.mark.parametrize("kernel", [RBF("median"), Linear("median")], ids=["RBF", "Linear"])
@pytest.mark.parametrize("d", [1, 40])
def test_median_keeps_its_digits_beside_an_offset_and_ignores_rounding(kernel, d):
    x = points(60, d).mul(1024).round() / 1024  # to which 2^27 is added without rounding
    near, far = (clone(kernel).fit(z).lengthscale.item() for z in (x, x + 2.0**27))
    assert far == pytest.approx(near, rel=1e-9)
    # Equal rows are at distance zero, and not at that of rounding, many of them too.
    repeated = torch.cat([x[:2].repeat(40, 1), x[:1] + 5])
    apart = [torch.dist(a, b).item() for a, b in ((x[0], x[1]), (x[0], x[0] + 5))]
    found = clone(kernel).fit(repeated).lengthscale.item()
    assert min(abs(found - one) for one in apart) < 1e-6 * max(apart)


def test_median_of_many_rows_is_of_some_of_them_and_the_same_each_time():
    x = points(5000)
    first, second = (RBF("median").fit(x).lengthscale.item() for _ in range(2))
    assert first == second
    assert first == pytest.approx(torch.pdist(x).median().item(), rel=0.02)


def test_median_ignores_duplicates_and_refuses_nothing_else():
    x = torch.zeros(50, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"two different rows"):
        RBF("median").fit(x)
    x[0, 0] = 3.0
    assert RBF("median").fit(x).lengthscale.item() == pytest.approx(3.0)
    x[1, 1] = math.nan
    with pytest.raises(ValueError, match=r"finite numbers"):
        RBF("median").fit(x)


def test_median_is_saved_as_it_is(tmp_path):
    waiting = RBF("median") + Constant(2.0)
    waiting.save_pretrained(tmp_path / "a")
    assert repr(Kernel.from_pretrained(tmp_path / "a")) == repr(waiting)
    fitted = (RBF("median") + Constant(2.0)).fit(points(20))
    fitted.save_pretrained(tmp_path / "b")
    loaded = Kernel.from_pretrained(tmp_path / "b")
    assert torch.equal(loaded(points(5)), fitted(points(5)))


def test_files_hold_a_config_that_people_can_read(tmp_path):
    kernel = 2.0 * RBF([1.0, 2.0]) + SpectralMixture([1.0], [[0.1, 0.2]], [[0.3, 0.4]])
    kernel.save_pretrained(tmp_path / "k")
    config = json.loads((tmp_path / "k" / "config.json").read_text())
    assert config["class"] == "kernels.Sum"
    assert config["config"]["left"]["config"]["kernel"]["config"] == {"lengthscale": [1.0, 2.0]}
    with pytest.raises(ValueError, match="is not a RBF"):
        RBF.from_pretrained(tmp_path / "k")


def test_precomputed_is_saved(tmp_path):
    a = points(6)
    kernel = Precomputed(a @ a.mT)
    kernel.save_pretrained(tmp_path / "k")
    index = torch.arange(6, dtype=torch.float64)
    assert torch.equal(Kernel.from_pretrained(tmp_path / "k")(index), kernel(index))
    assert repr(kernel) == "Precomputed(<6x6 matrix>)"


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_names(name):
    kernel = resolve_kernel(name)
    assert resolve_kernel(kernel) is kernel
    x = points(10)
    found = kernel.fit(x)(x)
    assert found.shape == (10, 10) and torch.isfinite(found).all()


def test_names_are_those_of_scikit_learn():
    from sklearn.metrics.pairwise import pairwise_kernels

    x = points(10)
    for name in ("cosine", "linear"):
        expected = pairwise_kernels(x.numpy(), metric=name)
        assert abs(resolve_kernel(name)(x).detach().numpy() - expected).max() <= 1e-12


def test_unknown_names():
    with pytest.raises(ValueError, match=r"^kernel: expected one of .*'rbf'.*got 'gauss'"):
        resolve_kernel("gauss")
    with pytest.raises(ValueError, match=r"pass Precomputed\(matrix\) itself"):
        resolve_kernel("precomputed")
    with pytest.raises(TypeError, match=r"^kernel: expected a Kernel or one of"):
        resolve_kernel(3)


def test_images_add_up_with_images_only():
    constant = Constant(event_ndim=3)
    images = torch.zeros(2, 5, 3, 4, 4)
    assert constant(images).shape == (2, 5, 5)
    assert (constant + 1.0).event_ndim == 3
    with pytest.raises(ValueError, match=r"^right: expected a kernel of points with 3 axes"):
        constant + RBF()


def test_built_on_the_meta_device():
    with torch.device("meta"):
        mixture = SpectralMixture([1.0, 2.0], means=[[0.0], [1.0]], scales=[[1.0], [1.0]])
        for kernel in (mixture, ArcCosine(), 2.0 * RBF() + Periodic()):
            assert all(p.is_meta for p in kernel.parameters())
            assert kernel(torch.zeros(5, 1)).is_meta


def test_a_state_brings_the_lengthscale_that_a_kernel_waits_for():
    x = points(20)
    fitted, waiting = (RBF("median") + Constant(2.0) for _ in range(2))
    fitted.fit(x)
    assert math.isnan(waiting.left.lengthscale.item())
    waiting.load_state_dict(fitted.state_dict())
    assert torch.equal(waiting(x), fitted(x))
    empty = RBF("median")
    waiting.left.load_state_dict(empty.state_dict())
    with pytest.raises(RuntimeError, match=r"call fit\(x\)"):
        waiting(x)
    waiting.left.lengthscale = 2.0  # by hand
    assert torch.equal(waiting.left(x), RBF(2.0)(x))
