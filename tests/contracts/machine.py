"""What every machine must do: behave as scikit-learn's estimators, on arrays and on tensors."""

import abc
import copy
import gc
import json
import pickle
import subprocess
import sys
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

import mercer
from mercer.kernels import RBF, Kernel, Matern

_RELOAD = """
import sys, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(int(sys.argv[2]))
import mercer.machines
machine = mercer.machines.{name}.from_pretrained(sys.argv[1] + "/saved")
x = load_file(sys.argv[1] + "/x.safetensors")["x"].clone()  # aligned
found = {{name: torch.as_tensor(getattr(machine, name)(x)) for name in {methods}}}
save_file(found, sys.argv[1] + "/y.safetensors")
"""


def _any_score(machine: Any, X: Any, y: Any = None) -> float:
    """Score what has no score of its own, so that a search can run."""
    return float(len(X))


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare what two machines say, bit by bit."""
    assert found and found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(expected[name]), err_msg=name)
        assert np.asarray(value).dtype == np.asarray(expected[name]).dtype, name


def assert_near(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    """Compare what two machines say: differences against the largest entry, labels exactly."""
    assert found and found.keys() == expected.keys()
    for name, value in found.items():
        a, b = np.asarray(value), np.asarray(expected[name])
        if b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=name)
            continue
        assert a.shape == b.shape and np.isfinite(a).all(), name
        assert np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1.0), name


class MachineContract(abc.ABC):
    """Tests that every machine passes; `make` builds one, with parameters changed by name.

    Attributes
    ----------
    methods : tuple of str
        Methods that map rows to numbers; those that the machine has are compared. Attributes of
        the training rows can stand here too, such as ``"labels_"``.
    float32_tolerance : float
        How far a machine fitted to float32 may be from one fitted to float64.
    precomputed_tolerance : float
        The same for a kernel and its matrix.
    saves : bool
        Whether the machine has ``save_pretrained``.
    """

    methods: tuple[str, ...] = (
        "predict",
        "predict_proba",
        "predict_log_proba",
        "decision_function",
        "transform",
        "score_samples",
        "labels_",
    )
    float32_tolerance: float = 1e-3
    precomputed_tolerance: float = 1e-9
    saves: bool = True

    # -- what a subclass says ----------------------------------------------------------------------

    @abc.abstractmethod
    def make(self, **params: Any) -> Any:
        """Build the machine: cheap to fit to 60 rows, with a number as ``random_state``."""

    def estimators(self) -> list[Any]:
        """Build all the machines that scikit-learn's checks run on."""
        return [self.make()]

    def rows(self) -> Tensor:
        """Draw rows (60, 3) to fit to."""
        return torch.randn(60, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def queries(self) -> Tensor:
        """Draw rows (25, 3) to be asked about."""
        return torch.randn(25, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def targets(self, x: Tensor) -> Tensor | None:
        """Make what the rows are fitted to: numbers, three classes, or nothing."""
        machine = self.make()
        values = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1]
        if is_regressor(machine):
            return values
        if is_classifier(machine):
            return torch.bucketize(values, torch.tensor([-0.5, 0.5]).to(values))
        return None

    def blockwise(self) -> tuple[Any, Tensor] | None:
        """Build a machine that promises never to hold n x n numbers, and rows that are too many."""
        return None

    # -- shared ------------------------------------------------------------------------------------

    def params(self) -> dict[str, Any]:
        return self.make().get_params(deep=False)

    def fitted(self, x: Any = None, y: Any = None, **params: Any) -> Any:
        x = self.rows() if x is None else x
        y = self.targets(self.rows()) if y is None else y
        return self.make(**params).fit(x) if y is None else self.make(**params).fit(x, y)

    def outputs(self, machine: Any, x: Any) -> dict[str, Any]:
        found = {}
        for name in self.methods:
            value = getattr(machine, name, None)
            if value is not None:
                found[name] = value(x) if callable(value) else value
        assert found, f"none of {self.methods}"
        return found

    # -- scikit-learn ------------------------------------------------------------------------------

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if metafunc.function.__name__ == "test_scikit_learns_checks":
            mark = parametrize_with_checks(self.estimators())
            metafunc.parametrize(*mark.args, **mark.kwargs)

    def test_scikit_learns_checks(self, estimator, check):
        check(estimator)

    def test_clone_is_the_specification(self):
        machine = self.fitted()
        twin = clone(machine)
        assert repr(twin) == repr(machine)
        with pytest.raises(NotFittedError):
            self.outputs(twin, self.queries())
        y = self.targets(self.rows())
        twin = twin.fit(self.rows()) if y is None else twin.fit(self.rows(), y)
        assert_same(self.outputs(twin, self.queries()), self.outputs(machine, self.queries()))

    def _search(self, n_jobs: int | None) -> None:
        if "kernel" not in self.params():
            return
        machine, prefix = self.make(kernel=RBF()), ""
        y, scoring = self.targets(self.rows()), None
        if get_tags(machine).transformer_tags is not None and not is_classifier(machine):
            machine = make_pipeline(machine, Ridge())
            prefix = f"{machine.steps[0][0]}__"
            y = self.rows()[:, 0].numpy()
        elif not hasattr(machine, "score"):
            scoring = _any_score
        kernels, lengthscales = [RBF(), Matern(nu=1.5)], [0.5, 2.0]
        grid = {f"{prefix}kernel": kernels, f"{prefix}kernel__lengthscale": lengthscales}
        search = GridSearchCV(machine, grid, cv=2, n_jobs=n_jobs, scoring=scoring)
        search.fit(self.rows().numpy(), None if y is None else np.asarray(y))
        scores = search.cv_results_["mean_test_score"]
        assert scores.shape == (4,) and np.isfinite(scores).all()
        if scoring is None:
            assert len(set(scores.tolist())) > 1  # the parameters reached the kernel
        assert [k.lengthscale.item() for k in kernels] == [1.0, 1.0]

    def test_grid_search_over_kernels_and_their_parameters(self):
        self._search(None)

    @pytest.mark.slow
    def test_grid_search_in_two_processes(self):
        self._search(2)

    def test_columns_have_names(self):
        pa = pytest.importorskip("pyarrow")
        if get_tags(self.make()).input_tags.pairwise:
            return
        x = self.rows().numpy()
        names = ["height", "width", "depth"]

        def table(order: list[int]) -> Any:  # pandas is not needed: any __dataframe__ will do
            return pa.table({names[i]: x[:, i] for i in order})

        machine = self.fitted(table([0, 1, 2]))
        assert machine.feature_names_in_.tolist() == names
        assert_same(self.outputs(machine, table([0, 1, 2])), self.outputs(self.fitted(x), x))
        for name in self.methods:
            if callable(getattr(machine, name, None)):
                with pytest.raises(ValueError, match="feature names should match"):
                    getattr(machine, name)(table([1, 0, 2]))

    def test_names_of_features_out(self):
        machine = self.fitted()
        if get_tags(machine).transformer_tags is None:
            return
        width = machine.transform(self.queries()).shape[1]
        names = machine.get_feature_names_out()
        assert len(names) == width == len(set(names))
        as_before = machine.set_output(transform="default").transform(self.queries().numpy())
        assert isinstance(as_before, np.ndarray)

    # -- arrays and tensors ------------------------------------------------------------------------

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
    def test_arrays_and_tensors_give_the_same_numbers(self, dtype):
        x, q = self.rows().to(dtype), self.queries().to(dtype)
        y = self.targets(self.rows())
        if y is not None and y.is_floating_point():
            y = y.to(dtype)
        of_tensor = self.fitted(x, y)
        of_array = self.fitted(x.numpy(), None if y is None else y.numpy())
        arrays, tensors = self.outputs(of_array, q.numpy()), self.outputs(of_tensor, q)
        crossed = self.outputs(of_array, q)
        for name in self.methods:
            if callable(getattr(of_tensor, name, None)):
                assert isinstance(tensors[name], Tensor) and isinstance(crossed[name], Tensor), name
                assert isinstance(arrays[name], np.ndarray), name
                if tensors[name].is_floating_point():
                    assert tensors[name].dtype == dtype, f"{name}: {dtype} in, another out"
        assert_same(tensors, arrays)
        assert_same(crossed, arrays)

    def test_float32_is_near_float64(self):
        fine = self.outputs(self.fitted(), self.queries())
        y = self.targets(self.rows())
        coarse = self.fitted(self.rows().float(), y)
        found = self.outputs(coarse, self.queries().float())
        assert_near(found, fine, self.float32_tolerance)

    def test_integers_are_taken_as_float64(self):
        x = (4 * self.rows()).round().long()
        machine, same = self.fitted(x), self.fitted(x.double())
        assert_same(self.outputs(machine, x[:9]), self.outputs(same, x[:9].double()))
        assert_same(self.outputs(machine, x[:9].numpy()), self.outputs(same, x[:9].double()))

    def test_views_of_arrays(self):
        machine, q = self.fitted(), self.queries().numpy()
        expected = self.outputs(machine, q[::-1].copy())
        assert_same(self.outputs(machine, q[::-1]), expected)
        locked = q[::-1].copy()
        locked.flags.writeable = False
        assert_same(self.outputs(machine, locked), expected)

    def test_no_gradient_flows(self):
        x = self.rows().requires_grad_()
        machine = self.fitted(x)
        q = self.queries().requires_grad_()
        for name, value in self.outputs(machine, q).items():
            assert not (isinstance(value, Tensor) and value.requires_grad), name

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    def test_on_a_gpu(self):
        x, y, q = self.rows().cuda(), self.targets(self.rows()), self.queries()
        machine = self.fitted(x, None if y is None else y.cuda())
        found = self.outputs(machine, q.cuda())
        for name, value in found.items():
            if callable(getattr(machine, name)):
                assert isinstance(value, Tensor) and value.is_cuda, name
        near = {name: value.cpu() for name, value in found.items() if isinstance(value, Tensor)}
        plain = self.outputs(self.fitted(), q)
        assert_near(near, {name: plain[name] for name in near}, 1e-6)

    # -- a kernel as a parameter -------------------------------------------------------------------

    @pytest.mark.parametrize("lengthscale", ["median", 1.3])
    def test_the_kernel_is_never_changed(self, lengthscale):
        if "kernel" not in self.params():
            return
        kernel = RBF(lengthscale) + 0.01 * Matern(2.0, nu=1.5)
        params, text = kernel.get_params(), repr(kernel)
        state = {name: value.clone() for name, value in kernel.state_dict().items()}
        machine = self.fitted(kernel=kernel)
        self.outputs(machine, self.queries())
        assert machine.kernel is kernel and machine.get_params()["kernel"] is kernel
        assert repr(kernel) == text and kernel.get_params() == params
        now = kernel.state_dict()
        assert_same(now, state)
        assert kernel.training and all(p.requires_grad for p in kernel.parameters())
        assert all(p.grad is None for p in kernel.parameters())
        fitted = getattr(machine, "kernel_", None)
        if isinstance(fitted, Kernel):
            assert fitted is not kernel
            assert not any(p.requires_grad for p in fitted.parameters())

    def test_precomputed_matrices(self):
        if "kernel" not in self.params():
            return
        if not get_tags(self.make(kernel="precomputed")).input_tags.pairwise:
            return
        kernel = RBF(1.3).requires_grad_(False)
        x, q = self.rows(), self.queries()
        y = self.targets(x)
        by_rows = self.outputs(self.fitted(kernel=kernel), q)
        machine = self.fitted(kernel(x), y, kernel="precomputed")
        assert_near(self.outputs(machine, kernel(q, x)), by_rows, self.precomputed_tolerance)
        array = self.fitted(kernel(x).numpy(), y, kernel="precomputed")
        found = self.outputs(array, kernel(q, x).numpy())
        assert_near(found, by_rows, self.precomputed_tolerance)
        crooked = kernel(x)
        crooked[0, 1] += 0.1
        for matrix, text in ((kernel(x, q), "square"), (crooked, "symmetric")):
            for kind in (matrix, matrix.numpy()):
                with pytest.raises(ValueError, match=rf"(?i)(X|kernel|matrix).*{text}"):
                    self.fitted(kind, y, kernel="precomputed")

    # -- randomness --------------------------------------------------------------------------------

    def test_the_global_random_state_is_left_alone(self, global_state_unchanged):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        machine = self.fitted()
        self.outputs(machine, self.queries())
        assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002

    def test_a_random_state_repeats_the_numbers(self):
        if "random_state" in self.params():
            assert isinstance(self.make().random_state, int), "make() must give a number"
        found = []
        for _ in range(2):
            torch.rand(3)
            np.random.rand(3)  # noqa: NPY002
            found.append(self.outputs(self.fitted(), self.queries()))
        assert_same(*found)

    def test_a_second_fit_forgets_the_first(self):
        expected = self.outputs(self.fitted(), self.queries())
        x, y = 3 * self.rows() + 1, self.targets(self.rows())
        machine = self.fitted(x)
        machine = machine.fit(self.rows()) if y is None else machine.fit(self.rows(), y)
        assert_same(self.outputs(machine, self.queries()), expected)

    # -- copies and files --------------------------------------------------------------------------

    def test_copies(self, tmp_path):
        machine = self.fitted()
        expected = self.outputs(machine, self.queries())
        joblib.dump(machine, tmp_path / "machine.joblib")
        twins = (
            copy.deepcopy(machine),
            pickle.loads(pickle.dumps(machine)),
            joblib.load(tmp_path / "machine.joblib"),
        )
        for twin in twins:
            assert_same(self.outputs(twin, self.queries()), expected)
            assert repr(twin) == repr(machine)

    def test_save_pretrained(self, tmp_path):
        if not self.saves:
            return
        machine = self.fitted()
        expected = self.outputs(machine, self.queries())
        machine.save_pretrained(tmp_path / "machine")
        files = {path.name for path in (tmp_path / "machine").iterdir()}
        assert files == {"config.json", "model.safetensors"}
        json.loads((tmp_path / "machine" / "config.json").read_text())
        load_file(tmp_path / "machine" / "model.safetensors")
        twin = type(machine).from_pretrained(tmp_path / "machine")
        assert type(twin) is type(machine) and repr(twin) == repr(machine)
        assert vars(twin).keys() == vars(machine).keys()
        assert_same(self.outputs(twin, self.queries()), expected)
        assert_same(self.outputs(twin, self.queries().numpy()), expected)
        twin.save_pretrained(tmp_path / "again")  # and what was loaded can be saved
        again = type(machine).from_pretrained(tmp_path / "again")
        assert_same(self.outputs(again, self.queries()), expected)
        y = self.targets(self.rows())
        refitted = twin.fit(self.rows()) if y is None else twin.fit(self.rows(), y)
        assert_same(self.outputs(refitted, self.queries()), expected)

    def test_save_pretrained_before_a_fit(self, tmp_path):
        if not self.saves:
            return
        machine = self.make()
        machine.save_pretrained(tmp_path / "machine")
        twin = type(machine).from_pretrained(tmp_path / "machine")
        assert repr(twin) == repr(machine)
        with pytest.raises(NotFittedError):
            self.outputs(twin, self.queries())

    @pytest.mark.slow
    def test_save_pretrained_in_a_new_process(self, tmp_path):
        if not self.saves:
            return
        machine = self.fitted()
        machine.save_pretrained(tmp_path / "saved")
        x = self.queries()
        save_file({"x": x.numpy()}, tmp_path / "x.safetensors")
        methods = [name for name in self.methods if callable(getattr(machine, name, None))]
        code = _RELOAD.format(name=type(machine).__name__, methods=methods)
        threads = str(torch.get_num_threads())
        command = [sys.executable, "-W", "error", "-c", code, str(tmp_path), threads]
        subprocess.run(command, check=True, timeout=120)
        expected = self.outputs(machine, x)
        found = load_file(tmp_path / "y.safetensors")
        assert_same(found, {name: expected[name] for name in methods})

    # -- memory ------------------------------------------------------------------------------------

    def test_blocks(self, monkeypatch):
        """No piece of the kernel matrix may have more than a quarter of its entries."""
        promised = self.blockwise()
        if promised is None:
            return
        machine, x = promised
        sizes, forward = [0], Kernel.forward

        def seen(kernel: Kernel, a: Tensor, b: Tensor | None = None) -> Tensor:
            sizes.append(len(a) * len(a if b is None else b))
            return forward(kernel, a, b)

        y = self.targets(x)
        # What is loaded on first use counts as resident, but is none of the machine's blocks.
        few = clone(machine)
        few = few.fit(x[:300]) if y is None else few.fit(x[:300], y[:300])
        self.outputs(few, x[:300])
        gc.collect()
        monkeypatch.setattr(Kernel, "forward", seen)
        # Some room for what the allocator keeps.
        budget = mercer._core.config.resident_memory() + len(x) ** 2 * 8 + 2**26
        with mercer.config.override(memory_budget=budget):
            machine = machine.fit(x) if y is None else machine.fit(x, y)
            self.outputs(machine, x)
        assert max(sizes) <= len(x) ** 2 / 4

    # -- bad input ---------------------------------------------------------------------------------

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_numbers_that_are_none_are_refused(self, value):
        machine, bad = self.fitted(), self.rows()
        bad[3, 1] = value
        for rows in (bad, bad.numpy()):
            with pytest.raises(ValueError, match="X"):
                self.fitted(rows)
            for name in self.methods:
                if callable(getattr(machine, name, None)):
                    with pytest.raises(ValueError, match="X"):
                        getattr(machine, name)(rows)
        y = self.targets(self.rows())
        if y is not None and y.is_floating_point():
            y[2] = value
            for kind in (y, y.numpy()):
                with pytest.raises(ValueError, match="y"):
                    self.fitted(y=kind)

    def test_tensors_of_other_shapes_are_refused(self):
        machine, x = self.fitted(), self.rows()
        for name in self.methods:
            method = getattr(machine, name, None)
            if not callable(method):
                continue
            with pytest.raises(ValueError, match=r"X has 2 features, but .* is expecting 3"):
                method(x[:, :2])
            with pytest.raises(ValueError, match=r"X: expected 2 axes"):
                method(x[:, 0])
            with pytest.raises(NotFittedError):
                getattr(self.make(), name)(x)
        with pytest.raises(ValueError, match="X: expected at least"):
            self.fitted(x[:0], None if self.targets(x) is None else self.targets(x)[:0])
        with pytest.raises(TypeError, match="X: expected real numbers"):
            self.fitted(x.cfloat())
        if (y := self.targets(x)) is not None:
            with pytest.raises(ValueError):
                self.fitted(x, y[:7])
