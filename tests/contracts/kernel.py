"""The laws that every kernel obeys."""

import abc
import copy
import io
import pickle
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import Tensor
from torch.func import functional_call, jacfwd, jacrev, vmap

import mercer
from mercer.kernels import Constant, Kernel, White
from tests.contracts.module import assert_near, reload_in_new_process

# The same law for several kernels, each with examples of its own, is what is meant here.
FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
)
SEEDS = st.integers(0, 2**32)
EPS = torch.finfo(torch.float64).eps


class KernelContract(abc.ABC):
    """Tests that every kernel passes.

    Attributes
    ----------
    in_features : int
        Length of the vectors that what `make` builds takes.
    stationary : bool
        Whether it depends on x - y alone.
    smooth : bool
        Whether it has two derivatives at coincident points too.
    uses_points : bool
        Whether it depends on the points at all.
    repr_builds : bool
        Whether its repr is code that builds it, not a summary.
    """

    in_features: int = 3
    stationary: bool = False
    smooth: bool = True
    uses_points: bool = True
    repr_builds: bool = True

    @abc.abstractmethod
    def make(self) -> Kernel:
        """Build the kernel, with hyperparameters that are not the default ones."""

    def points(self, *lead: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        source = torch.Generator().manual_seed(seed)
        x = torch.randn(*lead, self.in_features, generator=source, dtype=torch.float64)
        return x.to(dtype)

    def plain(self) -> Kernel:
        return self.make().requires_grad_(False)

    # -- laws --------------------------------------------------------------------------------------

    @FEW
    @given(SEEDS, st.integers(1, 7), st.integers(1, 7))
    def test_symmetric(self, seed, n, m):
        k, x, y = self.plain(), self.points(n, seed=seed), self.points(m, seed=seed + 1)
        torch.testing.assert_close(k(x, y), k(y, x).mT, rtol=1e-13, atol=1e-13)

    @FEW
    @given(SEEDS, st.integers(1, 30), st.sampled_from([1e-3, 1.0, 10.0]))
    def test_positive_semidefinite(self, seed, n, scale):
        x = scale * self.points(n, seed=seed)
        x = torch.cat([x, x[:3]])  # some points twice
        k = self.plain()(x)
        values = torch.linalg.eigvalsh((k + k.mT) / 2)
        assert float(values.min()) >= -4 * len(x) * EPS * max(float(values.max()), 1e-300)

    @FEW
    @given(SEEDS, st.integers(1, 9), st.sampled_from([torch.float64, torch.float32]))
    def test_diagonal_is_exact(self, seed, n, dtype):
        k, x = self.plain(), self.points(n, seed=seed, dtype=dtype)
        assert torch.equal(k(x).diagonal(), k.diag(x))
        assert torch.equal(k(x, x), k(x))
        pairs = k(x.unsqueeze(1), x.clone().unsqueeze(1)).reshape(n)
        if not any(isinstance(part, White) for part in k.modules()):
            torch.testing.assert_close(pairs, k.diag(x), rtol=2e-6, atol=1e-6)

    @FEW
    @given(SEEDS)
    def test_sums_products_and_multiples(self, seed):
        k, x, y = self.plain(), self.points(4, seed=seed), self.points(5, seed=seed + 1)
        other = Constant(0.7).requires_grad_(False)
        tolerance: dict[str, float] = {"rtol": 1e-13, "atol": 1e-13}
        torch.testing.assert_close((k + other)(x, y), k(x, y) + other(x, y), **tolerance)
        torch.testing.assert_close((k * k)(x, y), k(x, y).square(), **tolerance)
        torch.testing.assert_close((2.5 * k)(x, y), 2.5 * k(x, y), **tolerance)
        torch.testing.assert_close((k + 0.5)(x), k(x) + 0.5, **tolerance)
        torch.testing.assert_close((0.5 + k).diag(x), k.diag(x) + 0.5, **tolerance)
        assert torch.equal((k * 3)(x), (3 * k)(x))

    @FEW
    @given(SEEDS, st.floats(-1e4, 1e4))
    def test_offset_of_stationary_kernels(self, seed, offset):
        if not self.stationary:
            return
        x, y = self.points(4, seed=seed), self.points(5, seed=seed + 1)
        moved_x, moved_y = x + offset, y + offset
        # What the sum has rounded away is not the kernel's doing.
        x, y = moved_x - offset, moved_y - offset
        k = self.plain()
        torch.testing.assert_close(k(moved_x, moved_y), k(x, y), rtol=0, atol=1e-9)
        torch.testing.assert_close(k(moved_x), k(x), rtol=0, atol=1e-9)

    # -- shapes ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("a", "b"), [((), ()), ((2,), (2,)), ((2, 1), (3,)), ((), (4,)), ((1, 2), (3, 1))]
    )
    def test_leading_axes_broadcast(self, a, b):
        k = self.plain()
        x, y = self.points(*a, 3), self.points(*b, 5, seed=1)
        found = k(x, y)
        lead = torch.broadcast_shapes(a, b)
        assert found.shape == (*lead, 3, 5)
        xs = x.expand(*lead, 3, -1).reshape(-1, 3, self.in_features)
        ys = y.expand(*lead, 5, -1).reshape(-1, 5, self.in_features)
        one_by_one = torch.stack([k(p, q) for p, q in zip(xs, ys, strict=True)])
        torch.testing.assert_close(found.reshape(one_by_one.shape), one_by_one)
        assert k(x).shape == (*a, 3, 3) and k.diag(x).shape == (*a, 3)

    @pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
    def test_no_points(self, n, m):
        k = self.make()
        x = self.points(n).requires_grad_()
        found = k(x, self.points(m))
        assert found.shape == (n, m) and k(x).shape == (n, n) and k.diag(x).shape == (n,)

    def test_blocks_are_the_whole(self):
        k, x, y = self.plain(), self.points(1100), self.points(600, seed=1)
        whole, square = k(x, y), k(x)  # by tiles
        assert torch.equal(square, square.mT)
        scale = float(square.abs().max())
        close = {"rtol": 0, "atol": 1e-12 * scale}
        torch.testing.assert_close(whole, k._naive(x, y), **close)
        torch.testing.assert_close(square, k._naive(x, None), **close)
        torch.testing.assert_close(whole[500:700, 7:600], k(x[500:700], y[7:]), **close)
        with mercer.config.override(memory_budget=2**60):
            v = self.points(1100)
            torch.testing.assert_close(
                k.gram(x) @ v, square @ v, rtol=1e-12, atol=1e-9 * scale, msg="product"
            )

    # -- gradients ---------------------------------------------------------------------------------

    def test_first_and_second_derivatives(self):
        k = self.make()
        names = [name for name, _ in k.named_parameters()]

        def run(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
            return functional_call(k, dict(zip(names, values, strict=True)), (x, y))

        if not self.uses_points:
            return
        values = [p.detach().clone().requires_grad_() for p in k.parameters()]
        x, y = self.points(3).requires_grad_(), self.points(4, seed=1).requires_grad_()
        assert torch.autograd.gradcheck(run, (x, y, *values))
        assert torch.autograd.gradgradcheck(run, (x, y, *values))

    def test_derivatives_of_a_large_matrix(self):
        k, x, y = self.make(), self.points(150), self.points(130, seed=1)
        g = torch.randn(150, 130, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        inputs = [x.requires_grad_(), y.requires_grad_(), *k.parameters()]
        if not self.uses_points:
            return
        for second in (y, None):
            weight = g if second is not None else g[:, :1] * g[:, :1].mT
            found = torch.autograd.grad((k(x, second) * weight).sum(), inputs, allow_unused=True)
            plain = torch.autograd.grad(
                (k._naive(x, second) * weight).sum(), inputs, allow_unused=True
            )
            for a, b in zip(found, plain, strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))

    def test_derivatives_at_coincident_points(self):
        k, x = self.make(), self.points(4)
        x = torch.cat([x, x[:2]]).requires_grad_()
        if not self.uses_points:
            return
        (first,) = torch.autograd.grad(k(x).sum(), x, create_graph=True)
        assert torch.isfinite(first).all()
        if first.requires_grad:
            (second,) = torch.autograd.grad(first.square().sum(), x, allow_unused=True)
            assert second is None or torch.isfinite(second).all()

    def test_curvature_at_coincident_points(self):
        """The mixed second derivative at x = y against central differences."""
        if not self.smooth:
            return
        k, x = self.plain(), self.points(1)

        def value(a: Tensor, b: Tensor) -> Tensor:
            return k(a.unsqueeze(0), b.unsqueeze(0)).squeeze()

        mixed = jacfwd(jacrev(value, argnums=0), argnums=1)(x[0], x[0].clone())  # (d, d)
        h = 1e-4
        eye = h * torch.eye(self.in_features, dtype=torch.float64)
        for i in range(self.in_features):
            for j in range(self.in_features):
                a, b = eye[i], eye[j]
                z = x[0]
                difference = (
                    value(z + a, z + b) - value(z + a, z - b) - value(z - a, z + b)
                ) + value(z - a, z - b)
                assert abs(float(difference / (4 * h * h) - mixed[i, j])) <= 2e-3 * (
                    1 + float(mixed.abs().max())
                )

    def test_transforms(self):
        k, x, y = self.plain(), self.points(2, 3), self.points(4, seed=1)
        torch.testing.assert_close(vmap(lambda a: k(a, y))(x), k(x, y))
        torch.testing.assert_close(vmap(k)(x), k(x))
        forward, reverse = (jac(lambda a: k(a, y))(x[0]) for jac in (jacfwd, jacrev))
        torch.testing.assert_close(forward, reverse)

    def test_compile(self):
        torch.compiler.reset()
        k = self.make()
        compiled = torch.compile(k, fullgraph=True, backend="aot_eager")
        for n in (3, 5):
            x = self.points(n).requires_grad_()
            torch.testing.assert_close(compiled(x), k(x))
            (found,) = torch.autograd.grad(compiled(x).square().sum(), x, allow_unused=True)
            (plain,) = torch.autograd.grad(k(x).square().sum(), x, allow_unused=True)
            assert (found is None) == (plain is None)
            if plain is not None:
                torch.testing.assert_close(found, plain)
        torch.compiler.reset()

    # -- dtypes ------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("dtype", "tolerance"),
        [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)],
    )
    @pytest.mark.parametrize("n", [5, 140])
    def test_dtype_in_is_dtype_out(self, dtype, tolerance, n):
        k, x, y = self.plain(), self.points(n, dtype=dtype), self.points(n, seed=1, dtype=dtype)
        for found, exact in [
            (k(x), k(x.double())),
            (k(x, y), k(x.double(), y.double())),
            (k.diag(x), k.diag(x.double())),
        ]:
            assert found.dtype == dtype
            if float(exact.abs().max()):
                assert_near(found, exact, tolerance)

    def test_autocast_is_off_inside(self):
        k, x = self.plain(), self.points(5, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = k(x)
        assert torch.equal(found, k(x))

    # -- what a scikit-learn estimator does with it ------------------------------------------------

    def test_clone_is_the_specification(self):
        k = self.make()
        twin = clone(k)
        assert twin is not k and repr(twin) == repr(k)
        assert twin.get_params().keys() == k.get_params().keys()
        for p in k.parameters():
            p.data += 0.1
        x = self.points(3)
        assert torch.equal(clone(k)(x), self.make()(x))  # not what it has learnt since
        learnt = k.to_spec()
        torch.testing.assert_close(learnt(x), k(x))
        torch.testing.assert_close(clone(learnt)(x), k(x))

    def test_set_params_rebuilds(self):
        k = self.make()
        before = {k: v for k, v in k.get_params(deep=False).items() if k not in ("device", "dtype")}
        x = self.points(3)
        expected = k(x)
        assert k.set_params(**before) is k
        assert torch.equal(k(x), expected)
        with pytest.raises(ValueError, match=r"Invalid parameter 'nonsense'"):
            k.set_params(nonsense=1)

    def test_copies(self):
        k, x = self.make(), self.points(3)
        for twin in (copy.deepcopy(k), pickle.loads(pickle.dumps(k))):
            assert torch.equal(twin(x), k(x)) and repr(twin) == repr(k)
            for p in twin.parameters():
                p.data += 0.1
        assert torch.equal(k(x), self.make()(x))
        assert repr(clone(copy.deepcopy(k))) == repr(k)

    def test_equal_kernels_have_one_hash(self):
        """scikit-learn compares parameters by it, and caches pipelines by it."""
        k = self.make()
        twins = copy.deepcopy(k), pickle.loads(pickle.dumps(k)), self.make()
        assert {joblib.hash(twin) for twin in twins} == {joblib.hash(k)}
        back = pickle.loads(pickle.dumps(k, protocol=3))  # the one that is hashed
        x = self.points(3)
        assert torch.equal(back(x), k(x)) and repr(back) == repr(k)
        trains = [p.requires_grad for p in k.parameters()]
        assert [p.requires_grad for p in back.parameters()] == trains
        for p in k.parameters():
            p.data += 0.1
            assert joblib.hash(k) != joblib.hash(back)

    def test_repr_builds_it(self):
        if not self.repr_builds:
            return
        k = self.make()
        names = {**vars(mercer.kernels), "np": np}
        x = self.points(3)
        torch.testing.assert_close(eval(repr(k), names)(x), k(x), rtol=1e-5, atol=1e-5)

    # -- saving ------------------------------------------------------------------------------------

    def test_save_pretrained(self, tmp_path):
        k, x = self.make(), self.points(3)
        for p in k.parameters():
            p.data += 0.05
        k.save_pretrained(tmp_path / "kernel")
        loaded = Kernel.from_pretrained(tmp_path / "kernel")
        assert type(loaded) is type(k)
        assert torch.equal(loaded(x), k(x)) and repr(loaded) == repr(k)

    @pytest.mark.slow
    def test_save_pretrained_in_a_new_process(self, tmp_path):
        k, x = self.plain(), self.points(3)
        assert torch.equal(reload_in_new_process(k, x, tmp_path), k(x))

    def test_state_dict_reloads(self):
        k, other = self.make(), self.make()
        for p in k.parameters():
            p.data += 0.1
        buffer = io.BytesIO()
        torch.save(k.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True))
        assert torch.equal(other(self.points(3)), k(self.points(3)))

    # -- bad input ---------------------------------------------------------------------------------

    def test_errors_name_the_shapes(self):
        k: Any = self.make()
        with pytest.raises(TypeError, match=r"^x: expected a floating-point tensor"):
            k(torch.ones(3, self.in_features, dtype=torch.long))
        with pytest.raises(TypeError, match=r"^x: expected a torch.Tensor, got ndarray"):
            k(np.ones((3, self.in_features)))
        with pytest.raises(ValueError, match=r"^x: expected shape .*got \(3,\)"):
            k(torch.ones(3))
        with pytest.raises(ValueError, match=r"^y: expected shape .*got \(2, 9\)"):
            k(self.points(3), torch.ones(2, 9, dtype=torch.float64))
        with pytest.raises(ValueError, match=r"^y: expected torch.float64"):
            k(self.points(3), self.points(3, dtype=torch.float32))
