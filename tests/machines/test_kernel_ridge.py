import itertools

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_ridge import KernelRidge as TheirKernelRidge

import mercer
from mercer._core.config import resident_memory
from mercer.datasets import ArrayRows, BatchRows, ParquetRows
from mercer.kernels import RBF, Laplacian, Matern
from mercer.machines import KernelRidge, ridge_all_rows
from mercer.machines.landmark_sums import shifted_factor
from tests.contracts.machine import MachineContract


class TestCholesky(MachineContract):
    def make(self, **params):
        return KernelRidge(**{"alpha": 0.1, "random_state": 0, **params})

    def estimators(self):
        return [KernelRidge(), KernelRidge("linear", alpha=0.5, fit_intercept=True)]


class TestConjugateGradients(MachineContract):
    def make(self, **params):
        return KernelRidge(**{"solver": "cg", "random_state": 0, **params})

    def estimators(self):
        return [self.make(), self.make(standardize=True, fit_intercept=True)]


class TestEigenPro(MachineContract):
    float32_tolerance = 1e-2

    def make(self, **params):
        return KernelRidge(**{"solver": "eigenpro", "random_state": 0, "tol": 1e-5, **params})

    def estimators(self):
        # Weights are repeated rows in the limit only.
        return [self.make(tol=1e-10, max_iter=5000)]


class TestFalkon(MachineContract):
    float32_tolerance = 1e-2

    def make(self, **params):
        given = {"solver": "falkon", "landmarks": 30, "alpha": 0.1, "random_state": 0}
        return KernelRidge(**{**given, **params})

    def estimators(self):
        return [self.make(), self.make(fit_intercept=True, standardize=True)]

    def blockwise(self):
        return KernelRidge(solver="falkon", landmarks=50, random_state=0), torch.randn(
            30_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )


def _data(n=300, seed=0):
    x, y = make_friedman1(n + 100, noise=0.5, random_state=seed)
    return x[:n], y[:n], x[n:]


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="Kernel ridge regression (item 9) against scikit-learn's.",
)
@pytest.mark.parametrize("solver", ["cholesky", "cg", "falkon"])
def test_equals_scikit_learn(solver, evidence):
    x, y, new = _data()
    y = np.stack([y, np.sin(y)], 1)
    weights = np.random.default_rng(0).uniform(0.5, 2.0, len(x))
    theirs = TheirKernelRidge(alpha=0.3, kernel="rbf", gamma=0.5).fit(x, y, weights)
    more = {"landmarks": len(x), "tol": 1e-12} if solver == "falkon" else {"tol": 1e-13}
    mine = KernelRidge(RBF(1.0), 0.3, solver=solver, **more).fit(x, y, weights)
    error = float(np.abs(mine.predict(new) - theirs.predict(new)).max())
    evidence(required="<= 1e-8", measured=error, what=f"predictions, {solver}")
    assert error <= 1e-8
    if solver != "falkon":
        error = float(np.abs(mine.dual_coef_ - theirs.dual_coef_).max())
        evidence(required="<= 1e-8", measured=error, what=f"coefficients, {solver}")
        assert error <= 1e-8


def test_penalties_of_each_target():
    x, y, new = _data()
    y = np.stack([y, np.cos(y), y**2], 1)
    alpha = [0.1, 2.0, 0.1]
    theirs = TheirKernelRidge(alpha=np.array(alpha), kernel="rbf", gamma=0.5).fit(x, y)
    for solver in ("cholesky", "cg", "falkon"):
        more = {"landmarks": len(x)} if solver == "falkon" else {}
        mine = KernelRidge(RBF(1.0), alpha, solver=solver, tol=1e-12, **more).fit(x, y)
        np.testing.assert_allclose(mine.predict(new), theirs.predict(new), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.2, "loo", "gcv"])
def test_solvers_agree_with_an_intercept_and_weights(alpha):
    x, y, new = _data()
    weights = np.random.default_rng(1).integers(0, 3, len(x)).astype(float)
    y = y + np.random.default_rng(2).normal(scale=4.0, size=len(y))
    one = KernelRidge(Matern(5.0), alpha, fit_intercept=True, standardize=True, tol=1e-12)
    exact = one.fit(x, y, weights)
    expected, bias, chosen = exact.predict(new), exact.intercept_, exact.alpha_
    assert exact.solver_ == "cholesky"
    for solver in ("cg", "falkon"):
        if solver == "cg" and isinstance(alpha, str):
            continue
        more = {"landmarks": len(x)} if solver == "falkon" else {}
        one.set_params(solver=solver, **more).fit(x, y, weights)
        # The curve is flat at its minimum, and the grids differ.
        loose = isinstance(alpha, str)
        assert one.alpha_ == pytest.approx(chosen, rel=1.0 if loose else 0.0)
        np.testing.assert_allclose(one.predict(new), expected, rtol=1e-8, atol=0.15 * loose)
        assert one.intercept_ == pytest.approx(bias, rel=0.05 if loose else 1e-7)


def test_weights_are_repeated_rows_on_landmarks():
    x, y, new = _data()
    count = np.random.default_rng(1).integers(0, 3, len(x))
    one = KernelRidge("rbf", 0.2, solver="falkon", landmarks=50, fit_intercept=True)
    one.set_params(landmarks=x[:50], standardize=True, tol=1e-12)
    weighted = one.fit(x, y, count).predict(new)
    repeated = one.fit(x.repeat(count, 0), y.repeat(count)).predict(new)
    np.testing.assert_allclose(weighted, repeated, rtol=1e-9)


def test_landmarks_give_the_best_function_of_their_span():
    x, y, new = _data()
    kernel, z = RBF(1.0).requires_grad_(False), torch.from_numpy(x[::7].copy())
    rows, points = torch.from_numpy(x), z
    k, kz = kernel(rows, points), kernel(points)
    a = torch.linalg.solve(k.mT @ k + 0.3 * kz, k.mT @ torch.from_numpy(y))
    expected = kernel(torch.from_numpy(new), points) @ a
    mine = KernelRidge(RBF(1.0), 0.3, landmarks=x[::7], tol=1e-13).fit(x, y)
    assert mine.solver_ == "falkon" and len(mine.landmarks_) == len(z)
    np.testing.assert_allclose(mine.predict(new), expected, rtol=1e-9)


def test_iterating_on_landmarks_equals_summing(monkeypatch):
    x, y, new = _data(2000)
    make = KernelRidge(Laplacian(3.0), 0.01, landmarks=40, fit_intercept=True, random_state=0)
    make.set_params(solver="falkon", tol=1e-12)
    summed = make.fit(x, y)
    expected = summed.predict(new)
    assert "one sum" in summed.solver_reason_
    for name, value in {"_MOST_SUMMED": 0, "_POOL": 200, "_SAMPLE": 5}.items():
        monkeypatch.setattr(f"mercer.machines.ridge_landmarks.{name}", value)
    make.set_params(landmarks=summed.landmarks_)
    iterated = make.fit(x, y)
    assert "iterations" in iterated.solver_reason_ and iterated.n_iter_ > 3
    np.testing.assert_allclose(iterated.predict(new), expected, rtol=1e-9)


def test_leave_one_out_on_landmarks_is_that_of_refits():
    x, y, _ = _data(60)
    one = KernelRidge(RBF(0.7), "loo", landmarks=x[:20], fit_intercept=True, tol=1e-13).fit(x, y)
    errors = []
    for i in range(60):
        keep = np.arange(60) != i
        part = KernelRidge(RBF(0.7), one.alpha_, landmarks=x[:20], fit_intercept=True, tol=1e-13)
        errors.append(float(y[i] - part.fit(x[keep], y[keep]).predict(x[i : i + 1])[0]))
    assert one.choice_.score == pytest.approx(np.mean(np.square(errors)), rel=1e-8)


def test_rows_from_files_and_batches_give_the_same_bits(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    x, y, new = _data(5000)
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(x))
    one = KernelRidge("rbf", 0.1, landmarks=30, standardize=True, random_state=0, solver="falkon")
    expected = one.fit(x, y, weights).predict(new)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    columns = {f"c{j}": x[:, j] for j in range(10)} | {"t": y, "w": weights}
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet", row_group_size=700)
    cuts = [0, 10, 1700, 1700, 4999, 5000]
    parts = [slice(a, b) for a, b in itertools.pairwise(cuts)]
    sources = {
        "memory-mapped": ArrayRows(mapped, y, weights),
        "parquet": ParquetRows(tmp_path / "rows.parquet", "t", weight="w"),
        "batches": BatchRows(lambda: ((x[s], y[s], weights[s]) for s in parts)),
        "tensors": ArrayRows(*(torch.from_numpy(v) for v in (x, y, weights))),
    }
    for name, source in sources.items():
        found = one.fit(source)
        assert found.n_features_in_ == 10
        np.testing.assert_array_equal(found.predict(new), expected, err_msg=name)
    np.testing.assert_allclose(one.predict(ArrayRows(new)), expected, rtol=1e-12)
    np.testing.assert_array_equal(one.fit(mapped, y, weights).predict(new), expected)


def test_auto_says_what_it_took_and_why():
    x, y, _ = _data()
    assert KernelRidge().fit(x, y).solver_reason_.startswith("the matrix of 300 rows")
    with mercer.config.override(memory_budget=resident_memory() + 2**28):
        big, t = np.random.default_rng(0).normal(size=(20_000, 2)), np.arange(20_000) / 1e4
        found = KernelRidge(landmarks=None, random_state=0, alpha=10.0).fit(big, t)
        assert found.solver_ == "falkon"
        assert "does not fit the memory" in found.solver_reason_
    assert KernelRidge(landmarks=10).fit(x, y).solver_ == "falkon"


def test_not_converged_is_said():
    x, y, _ = _data()
    with pytest.warns(ConvergenceWarning, match="relative residual"):
        model = KernelRidge(solver="cg", alpha=1e-9, tol=1e-12, max_iter=2).fit(x, y)
    assert not model.converged_ and model.n_iter_ == 2


def test_predicts_diabetes_as_well_as_a_search_does():
    x, y = load_diabetes(return_X_y=True)
    model = KernelRidge(Laplacian("median"), "loo", fit_intercept=True, standardize=True)
    assert model.fit(x[:300], y[:300]).score(x[300:], y[300:]) > 0.5
    assert model.choice_.ridge == model.alpha_


def test_duplicated_rows_and_constant_columns():
    x, y, new = _data()
    x[:, 3] = 7.0
    twice = KernelRidge(standardize=True).fit(np.r_[x, x], np.r_[y, y])
    weighted = KernelRidge(standardize=True).fit(x, y, np.full(len(x), 2.0))
    np.testing.assert_allclose(twice.predict(new), weighted.predict(new), rtol=1e-9)
    same = KernelRidge(solver="falkon").fit(np.ones((5, 2)), np.arange(5.0))
    np.testing.assert_allclose(same.predict(np.ones((1, 2))), 10 / 6)
    one = KernelRidge(alpha=0.5).fit(x[:1], y[:1])
    np.testing.assert_allclose(one.predict(x[:1]), y[:1] / 1.5)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"solver": "svd"}, ValueError, "solver"),
        ({"alpha": -1.0}, ValueError, "alpha"),
        ({"alpha": "aic"}, ValueError, "alpha"),
        ({"alpha": [1.0, 2.0]}, ValueError, "alpha"),
        ({"alpha": "loo", "solver": "cg"}, ValueError, "alpha"),
        ({"kernel": "gauss"}, ValueError, "kernel"),
        ({"kernel": 3}, TypeError, "kernel"),
        ({"landmarks": 0}, ValueError, "landmarks"),
        ({"landmarks": "many"}, TypeError, "landmarks"),
        ({"landmarks": np.ones((4, 3))}, ValueError, "landmarks"),
        ({"landmarks": 5, "solver": "cg"}, ValueError, "landmarks"),
        ({"selection": "best", "solver": "falkon", "landmarks": 5}, ValueError, "method"),
        ({"tol": 0.0}, ValueError, "tol"),
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"standardize": "yes"}, TypeError, "standardize"),
        ({"kernel": "precomputed"}, ValueError, "X: expected a square"),
        ({"kernel": "precomputed", "solver": "falkon"}, ValueError, "solver"),
    ],
)
def test_bad_parameters(params, error, message):
    x, y, _ = _data()
    with pytest.raises(error, match=message):
        KernelRidge(**params).fit(x, y)


def test_bad_rows():
    x, y, _ = _data(50)
    with pytest.raises(ValueError, match="positive semi-definite"):
        KernelRidge("precomputed", alpha=0.1).fit(-np.eye(50), y)
    with pytest.raises(ValueError, match="sample_weight"):
        KernelRidge().fit(x, y, np.zeros(50))
    with pytest.raises(ValueError, match="y: the rows come without targets"):
        KernelRidge().fit(ArrayRows(x))
    with pytest.raises(ValueError, match="leave them None"):
        KernelRidge().fit(ArrayRows(x, y), y)
    x[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"X: expected finite numbers.* row 7"):
        KernelRidge(solver="falkon").fit(ArrayRows(x, y))


@pytest.mark.parametrize("solver", ["cholesky", "falkon"])
@pytest.mark.parametrize("alpha", [1e-3, "loo", "gcv"])
def test_float32_rows_of_a_smooth_kernel(solver, alpha):
    # Of few dimensions, so that the matrix of float32 is far from semi-definite.
    source = np.random.default_rng(0)
    x = source.uniform(-2, 2, size=(500, 1)).astype(np.float32)
    y = (np.sin(3 * x[:, 0]) + 0.1 * source.normal(size=500)).astype(np.float32)
    more = {"landmarks": x[:200]} if solver == "falkon" else {}
    coarse = KernelRidge(RBF(1.0), alpha, solver=solver, fit_intercept=True, **more).fit(x, y)
    found = coarse.predict(x)
    assert found.dtype == np.float32
    fine = KernelRidge(RBF(1.0), alpha, solver=solver, fit_intercept=True, **more)
    expected = fine.fit(x.astype(float), y.astype(float)).predict(x.astype(float))
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(expected - np.sin(3 * x[:, 0])).max() < 0.1


@pytest.mark.parametrize("alpha", [1e-6, 1e-3])
def test_float32_predictions_keep_digits_where_coefficients_cancel(alpha):
    x = np.linspace(-2, 2, 300, dtype=np.float32).reshape(-1, 1)
    model = KernelRidge(RBF(1.0), alpha).fit(x, np.sign(x[:, 0]))
    assert np.abs(model.dual_coef_).sum() > 100
    fine = KernelRidge(RBF(1.0), alpha).fit(x.astype(float), np.sign(x[:, 0]))
    np.testing.assert_allclose(model.predict(x), fine.predict(x.astype(float)), atol=1e-6)


def test_landmarks_of_a_smooth_kernel_do_not_choose_by_rounding():
    x = np.random.default_rng(0).uniform(-2, 2, size=(800, 2))
    y = np.sin(3 * x[:, 0]) + x[:, 1] ** 2 + 0.1 * np.random.default_rng(1).normal(size=800)
    for criterion in ("loo", "gcv"):
        exact = KernelRidge(RBF(1.0), criterion, solver="cholesky").fit(x, y)
        some = KernelRidge(RBF(1.0), criterion, landmarks=x[:300]).fit(x, y)
        assert some.choice_.score == pytest.approx(exact.choice_.score, rel=1e-3)
        assert some.alpha_ == pytest.approx(exact.alpha_, rel=0.5)
        assert some.n_iter_ < 5


def test_no_digits_are_lost_to_the_mean_of_the_targets():
    x, y, new = _data(120)
    for solver, alpha in itertools.product(("cholesky", "cg", "falkon"), (0.5, "loo", "gcv")):
        if solver == "cg" and alpha != 0.5:
            continue
        one = KernelRidge(RBF(3.0), alpha, solver=solver, fit_intercept=True, random_state=0)
        expected, chosen = one.fit(x, y).predict(new), one.alpha_
        found = one.fit(x, y + 1e8).predict(new) - 1e8
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=f"{solver} {alpha}")
        assert one.alpha_ == pytest.approx(chosen, rel=1e-2)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("solver", ["cholesky", "cg", "falkon"])
def test_weights_over_many_decades_and_several_targets(solver, intercept):
    x, y, new = _data(60)
    y = np.stack([y, np.cos(y)], 1)
    w = 10.0 ** np.random.default_rng(0).uniform(-6, 2, size=60)
    rows = torch.from_numpy(x)
    kernel = RBF(3.0).requires_grad_(False)
    border = np.zeros((61, 61))
    border[:60, :60] = kernel(rows) + torch.diag(0.7 / torch.from_numpy(w))
    border[60, :60] = border[:60, 60] = intercept
    border[60, 60] = not intercept
    a = np.linalg.solve(border, np.r_[y, np.zeros((1, 2))])
    expected = kernel(torch.from_numpy(new), rows).numpy() @ a[:60] + a[60]
    more = {"landmarks": x} if solver == "falkon" else {}
    one = KernelRidge(RBF(3.0), 0.7, solver=solver, fit_intercept=intercept, tol=1e-12, **more)
    found = one.fit(x, y, w).predict(new)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.intercept_, a[60], rtol=1e-5, atol=1e-7)


def test_leave_one_out_on_landmarks_with_weights_is_that_of_refits():
    x, y, _ = _data(40)
    w = np.random.default_rng(0).uniform(0.3, 3.0, 40)
    for intercept in (False, True):
        given = {"landmarks": x[:12], "fit_intercept": intercept, "tol": 1e-11}
        one = KernelRidge(RBF(2.0), "loo", **given).fit(x, y, w)
        errors = []
        for i in range(40):
            keep = np.arange(40) != i
            part = KernelRidge(RBF(2.0), one.alpha_, **given).fit(x[keep], y[keep], w[keep])
            errors.append(float(y[i] - part.predict(x[i : i + 1])[0]))
        expected = np.average(np.square(errors), weights=w)
        assert one.choice_.score == pytest.approx(expected, rel=1e-7)


def test_gcv_on_landmarks_is_its_definition():
    x, y, _ = _data(40)
    w = np.random.default_rng(0).uniform(0.3, 3.0, 40)
    for intercept in (False, True):
        given = {"landmarks": x[:12], "fit_intercept": intercept}
        one = KernelRidge(RBF(2.0), "gcv", **given).fit(x, y, w)
        fit = KernelRidge(RBF(2.0), one.alpha_, tol=1e-11, **given)
        hat = fit.fit(x, np.eye(40), w).predict(x)  # as the solution is linear in the targets
        rest = (w * (y - hat @ y) ** 2).sum()
        expected = 40**2 / w.sum() * rest / (40 - np.trace(hat)) ** 2
        assert one.choice_.score == pytest.approx(expected, rel=1e-6)


def test_rows_of_weight_are_found_among_many_without():
    source = np.random.default_rng(0)
    x = source.normal(size=(40_000, 2))
    weights = np.zeros(40_000)
    weights[source.permutation(40_000)[:30]] = 1.0
    one = KernelRidge("rbf", 0.1, solver="falkon", random_state=0, fit_intercept=True)
    found = one.set_params(standardize=True).fit(x, x[:, 0], weights).predict(x[:50])
    expected = one.fit(x[weights > 0], x[weights > 0, 0]).predict(x[:50])
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_several_penalties_of_a_source_and_landmarks_in_lists():
    x, y, new = _data(100)
    y = np.stack([y, np.cos(y)], 1)
    one = KernelRidge(RBF(3.0), [0.1, 2.0], solver="falkon", landmarks=x[:9].tolist())
    expected = one.fit(x, y).predict(new)
    np.testing.assert_array_equal(one.fit(ArrayRows(x, y)).predict(new), expected)
    with pytest.raises(ValueError, match=r"alpha: .* 2 target"):
        one.set_params(alpha=[1.0, 2.0, 3.0]).fit(ArrayRows(x, y))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precisions_are_taken_as_float64(dtype):
    x, y, new = (torch.from_numpy(v).to(dtype) for v in _data(60))
    weights = torch.ones(60, dtype=dtype)
    found = KernelRidge(RBF(3.0)).fit(x, y, weights).predict(new)
    expected = KernelRidge(RBF(3.0)).fit(x.double(), y.double()).predict(new.double())
    torch.testing.assert_close(found, expected)


def test_sums_out_of_range_end_in_an_error_and_not_in_a_loop():
    with pytest.raises(ValueError, match="kernel: expected sums within range"):
        shifted_factor(torch.full((2, 2), torch.nan).double(), 0.0)
    factor = shifted_factor(-torch.eye(2).double(), 0.0)  # rounding can leave that
    assert bool(factor.isfinite().all())


def test_the_preconditioner_follows_the_memory(monkeypatch):
    x, y, new = _data()
    exact = KernelRidge(RBF(3.0), 0.1, solver="cholesky").fit(x, y).predict(new)
    ranks, original = [], ridge_all_rows.pivoted_cholesky

    def noted(*args, **kwargs):
        ranks.append(kwargs["rank"])
        return original(*args, **kwargs)

    monkeypatch.setattr(ridge_all_rows, "pivoted_cholesky", noted)
    for room in (64, 0):  # pivots that fit
        monkeypatch.setattr(
            ridge_all_rows, "block_rows", lambda size, room=room, **_: room * 9600 // int(size)
        )
        found = KernelRidge(RBF(3.0), 0.1, solver="cg", tol=1e-12).fit(x, y).predict(new)
        np.testing.assert_allclose(found, exact, rtol=1e-8)
    assert ranks == [64]


def test_a_weight_below_zero_late_in_a_source_is_refused():
    x = np.random.default_rng(0).normal(size=(30_000, 2))
    weights = np.ones(30_000)
    weights[-1] = -1.0
    with pytest.raises(ValueError, match="sample_weight: expected numbers of at least 0"):
        KernelRidge(landmarks=5, random_state=0).fit(ArrayRows(x, x[:, 0], weights))
