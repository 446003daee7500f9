"""What layers and feature maps have in common: good manners among torch's modules."""

import abc
import copy
import io
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, vmap

from mercer._core.saving import Saveable

_RELOAD = """
import sys, torch
from safetensors.torch import load_file, save_file
torch.set_num_threads(int(sys.argv[2]))
import mercer.{room}
module = mercer.{room}.{name}.from_pretrained(sys.argv[1] + "/saved")
# A copy: what a file is mapped to may begin anywhere, and MKL rounds by alignment.
x = load_file(sys.argv[1] + "/x.safetensors")["x"].clone()
save_file({{"y": module(x)}}, sys.argv[1] + "/y.safetensors")
"""


def reload_in_new_process(module: Saveable, x: Tensor, folder: Any) -> Tensor:
    """Save a module, load it in a new process, and return what it computes there."""
    from safetensors.torch import load_file, save_file

    module.save_pretrained(folder / "saved")
    save_file({"x": x}, folder / "x.safetensors")
    room = type(module).__module__.split(".")[1]
    code = _RELOAD.format(room=room, name=type(module).__name__)
    threads = str(torch.get_num_threads())
    command = [sys.executable, "-W", "error", "-c", code, str(folder), threads]
    subprocess.run(command, check=True, timeout=120)
    return load_file(folder / "y.safetensors")["y"]


def assert_near(measured: Tensor, expected: Tensor, tolerance: float) -> None:
    """Compare at low precision: the largest difference relative to the largest entry."""
    assert torch.isfinite(measured).all()
    error = (measured.double() - expected.double()).abs().max() / expected.double().abs().max()
    assert error <= tolerance, f"relative error {error:.2e} > {tolerance:.0e}"


def loss(y: Tensor) -> Tensor:
    """Sum squares, with weights: some feature maps have outputs of one length."""
    return (y.square() * torch.linspace(0.5, 1.5, y.shape[-1], dtype=y.dtype)).sum()


class ModuleContract(abc.ABC):
    """Tests that every layer and every feature map passes.

    Attributes
    ----------
    in_features : int
        Length of the inputs of what `make` builds.
    scale : float
        Typical size of an input's entries.
    bfloat16_tolerance, float16_tolerance : float
        Largest relative error of half-precision modules and of autocast.
    random : bool
        Whether the module draws anything; otherwise a seed must make no difference.
    """

    in_features: int = 6
    scale: float = 1.0
    bfloat16_tolerance: float = 3e-2
    float16_tolerance: float = 4e-3
    random: bool = True

    @abc.abstractmethod
    def make(self, **factory: Any) -> Saveable:
        """Build the module; `factory` holds some of generator, device and dtype."""

    @abc.abstractmethod
    def out_size(self, module: Any) -> int:
        """Length of an output vector."""

    def build(self, **factory: Any) -> Saveable:
        return self.make(**{"generator": 0, **factory})

    def input(self, *lead: int, dtype: torch.dtype | None = None) -> Tensor:
        source = torch.Generator().manual_seed(1)
        x = torch.randn(*lead, self.in_features, generator=source, dtype=torch.float64)
        return (self.scale * x).to(dtype or torch.get_default_dtype())

    # -- shapes and inputs ---------------------------------------------------------------------

    @pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (2, 1, 3)])
    def test_any_number_of_leading_axes(self, lead):
        module, x = self.build(), self.input(*lead)
        y = module(x)
        assert y.shape == (*lead, self.out_size(module))
        flat = torch.stack([module(row) for row in x.reshape(-1, self.in_features)])
        torch.testing.assert_close(y.reshape(flat.shape), flat)

    @pytest.mark.parametrize("lead", [(0,), (2, 0)])
    def test_empty_batch(self, lead):
        module = self.build()
        x = self.input(*lead).requires_grad_()
        y = module(x)
        assert y.shape == (*lead, self.out_size(module))
        y.sum().backward()
        assert x.grad is not None and x.grad.shape == x.shape

    def test_non_contiguous_input(self):
        module, x = self.build(), self.input(3, 4)
        torch.testing.assert_close(module(x.mT.contiguous().mT), module(x))

    @pytest.mark.parametrize("shape", [(3, 7), (5,), ()])
    def test_wrong_last_axis_names_the_shapes(self, shape):
        with pytest.raises(ValueError) as caught:
            self.build()(torch.zeros(shape))
        assert str(tuple(shape)) in str(caught.value)
        assert f"(..., {self.in_features})" in str(caught.value)

    def test_integers_are_refused(self):
        with pytest.raises(TypeError, match=r"^x: expected a floating-point tensor"):
            self.build()(torch.ones(3, self.in_features, dtype=torch.long))

    def test_gradient_is_finite_at_zero(self):
        x = torch.zeros(2, self.in_features, requires_grad=True)
        self.build()(x).sum().backward()
        assert x.grad is not None and torch.isfinite(x.grad).all()

    # -- dtypes and devices --------------------------------------------------------------------

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_dtype_in_is_dtype_out(self, dtype):
        tolerance = {
            torch.float64: 1e-12,
            torch.float32: 1e-5,
            torch.bfloat16: self.bfloat16_tolerance,
            torch.float16: self.float16_tolerance,
        }[dtype]
        module, x = self.build(dtype=dtype), self.input(4, dtype=dtype)
        y = module(x)
        assert y.dtype == dtype
        # The reference has the same rounded numbers, so only arithmetic is compared.
        assert_near(y, copy.deepcopy(module).double()(x.double()), tolerance)

    def test_a_seed_means_the_same_numbers_for_every_dtype(self):
        x = self.input(4, dtype=torch.float64)
        single, double = self.build(dtype=torch.float32), self.build(dtype=torch.float64)
        assert_near(single(x.float()), double(x), 1e-4)

    def test_autocast(self):
        module, x = self.build(), self.input(4).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = module(x)
        assert_near(y, module(x), self.bfloat16_tolerance)
        y.float().sum().backward()
        assert x.grad is not None and torch.isfinite(x.grad).all()

    def test_meta_device(self):
        module, fresh = self.build(device="meta"), self.build()
        x = self.input(3)
        assert all(t.is_meta for t in module.state_dict().values())
        with pytest.raises(RuntimeError, match=r"meta device.*reset_parameters"):
            module(x)
        module.to_empty(device="cpu")
        module.reset_parameters(0)
        assert torch.equal(module(x), fresh(x))

    @pytest.mark.parametrize("assign", [False, True])
    def test_meta_device_then_load(self, assign):
        module, fresh = self.build(device="meta"), self.build()
        if not assign:
            module.to_empty(device="cpu")
        module.load_state_dict(fresh.state_dict(), assign=assign)
        assert torch.equal(module(self.input(3)), fresh(self.input(3)))

    # -- randomness ----------------------------------------------------------------------------

    def test_generator_leaves_the_global_state(self, global_state_unchanged):
        a, b = self.make(generator=5), self.make(generator=torch.Generator().manual_seed(5))
        other = self.make(generator=6)
        x = self.input(3)
        assert torch.equal(a(x), b(x))
        assert torch.equal(a(x), other(x)) != self.random

    def test_without_generator_draws_come_from_the_default_one(self):
        x = self.input(3)
        torch.manual_seed(7)
        a = self.make()(x)
        b = self.make()(x)
        torch.manual_seed(7)
        assert torch.equal(self.make()(x), a)
        assert torch.equal(a, b) != self.random

    def test_forward_never_draws(self, global_state_unchanged):
        module, x = self.make(generator=5), self.input(3)
        module.train()
        first, second = module(x), module(x)
        assert torch.equal(first, second)
        assert torch.equal(module.eval()(x), first)

    def test_reset_parameters_redraws(self, global_state_unchanged):
        module, x = self.make(generator=0), self.input(3)
        before = module(x)
        module.reset_parameters(3)
        assert torch.equal(module(x), before) != self.random
        assert torch.equal(module(x), self.make(generator=3)(x))
        module.reset_parameters(torch.Generator().manual_seed(0))
        assert torch.equal(module(x), before)

    # -- copies --------------------------------------------------------------------------------

    def test_deep_copy_and_pickle(self):
        module, x = self.build(), self.input(3)
        before = module(x)
        twin = copy.deepcopy(module)
        through = pickle.loads(pickle.dumps(module))
        assert torch.equal(twin(x), before)
        assert torch.equal(through(x), before)
        twin.reset_parameters(9)
        assert torch.equal(module(x), before)

    def test_state_dict_reloads(self):
        module, other = self.build(), self.build(generator=8)
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        other.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
        assert torch.equal(other(self.input(3)), module(self.input(3)))

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
    def test_save_pretrained(self, tmp_path, dtype, global_state_unchanged):
        module, x = self.build(dtype=dtype), self.input(3, dtype=dtype)
        module.save_pretrained(tmp_path / "saved")
        loaded = type(module).from_pretrained(tmp_path / "saved")
        assert type(loaded) is type(module)
        assert not any(part.training for part in loaded.modules())
        assert repr(loaded) == repr(module)
        assert torch.equal(loaded(x), module(x))
        names = {name: t.dtype for name, t in module.state_dict().items()}
        assert {name: t.dtype for name, t in loaded.state_dict().items()} == names

    @pytest.mark.slow
    def test_save_pretrained_in_a_new_process(self, tmp_path):
        module, x = self.build(), self.input(3)
        assert torch.equal(reload_in_new_process(module, x, tmp_path), module(x))

    # -- transformations -----------------------------------------------------------------------

    def check_compiled(self, backend: str) -> None:
        torch.compiler.reset()
        module = self.build()
        compiled = torch.compile(module, fullgraph=True, backend=backend)
        for lead in [(3,), (5,), (2, 3)]:
            x, z = self.input(*lead).requires_grad_(), self.input(*lead).requires_grad_()
            inputs = [x, *module.parameters()]
            expected = module(x)
            torch.testing.assert_close(compiled(x), expected)
            gradients = torch.autograd.grad(loss(compiled(x)), inputs)
            inputs = [z, *module.parameters()]
            plain = torch.autograd.grad(loss(module(z)), inputs)
            for found, reference in zip(gradients, plain, strict=True):
                # Where terms cancel, rounding is relative to the largest entries.
                scale = float(reference.abs().max())
                torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-6 * scale)
        torch.compiler.reset()

    def test_compile(self):
        self.check_compiled("aot_eager")

    @pytest.mark.slow
    def test_compile_inductor(self):
        self.check_compiled("inductor")

    def test_export_with_a_dynamic_batch(self):
        module = self.build().eval()
        batch = torch.export.Dim("batch")
        exported = torch.export.export(module, (self.input(4),), dynamic_shapes=({0: batch},))
        for n in (1, 2, 7):
            torch.testing.assert_close(exported.module()(self.input(n)), module(self.input(n)))

    def test_per_sample_gradients(self):
        module, x = self.build(dtype=torch.float64), self.input(4, dtype=torch.float64)
        names = dict(module.named_parameters())

        def row_loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
            return loss(functional_call(module, parameters, (row,)))

        detached = {name: p.detach() for name, p in names.items()}
        found, found_x = vmap(grad(row_loss, argnums=(0, 1)), in_dims=(None, 0))(detached, x)
        for i, row in enumerate(x):
            row = row.clone().requires_grad_()
            plain = torch.autograd.grad(loss(module(row)), [row, *names.values()])
            torch.testing.assert_close(found_x[i], plain[0])
            for name, expected in zip(names, plain[1:], strict=True):
                torch.testing.assert_close(found[name][i], expected)

    def test_forward_mode_equals_reverse_mode(self):
        module, x = self.build(dtype=torch.float64), self.input(dtype=torch.float64)
        expected = torch.autograd.functional.jacobian(module, x)
        torch.testing.assert_close(jacfwd(module)(x), expected)

    def test_gradcheck(self):
        module = self.build(dtype=torch.float64)
        names = [name for name, _ in module.named_parameters()]

        def run(x: Tensor, *parameters: Tensor) -> Tensor:
            return functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

        x = self.input(2, dtype=torch.float64).requires_grad_()
        parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
        assert torch.autograd.gradcheck(run, (x, *parameters))

    # -- what a reader sees --------------------------------------------------------------------

    def test_repr_says_what_it_is(self):
        module = self.build()
        assert isinstance(module, nn.Module) and isinstance(module, Saveable)
        assert f"in_features={self.in_features}" in module.extra_repr()
        assert type(module).__name__ in repr(module)
