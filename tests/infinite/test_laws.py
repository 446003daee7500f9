"""Kernels of wide networks obey the laws of kernels."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NNGP, NTK
from mercer.kernels import Kernel
from tests.contracts.kernel import KernelContract
from tests.infinite.rule_networks import Apply


def convolutional(*head: nn.Module) -> nn.Module:
    """Read vectors of 6 as 3 channels at 2 positions: with 2, many points are nearly collinear."""
    return nn.Sequential(
        nn.Unflatten(1, (3, 2)),
        nn.Conv1d(3, 8, 2, padding=1, bias=False),
        nn.ReLU(),
        *head,
    )


class Residual(nn.Module):
    """Erf, a residual branch and a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.branch, self.head = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.norm = nn.LayerNorm(8, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h = h + 0.7 * self.branch(torch.erf(h))
        return self.head(F.gelu(self.norm(h)))


class WideContract(KernelContract):
    """What the kernels of networks share."""

    repr_builds = False


class TestReluNTK(WideContract):
    smooth = False

    def make(self) -> Kernel:
        layers = (nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
        return NTK(nn.Sequential(*layers), w_std=1.3, b_std=0.4)


class TestReluNNGP(WideContract):
    smooth = False

    def make(self) -> Kernel:
        layers = (nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        return NNGP(nn.Sequential(*layers), w_std=[1.3, 1.1], b_std=[0.4, 0.2])


class TestResidualNTK(WideContract):
    def make(self) -> Kernel:
        return NTK(Residual(), w_std={"": 1.2, "branch": 0.9}, b_std=0.3)


class TestResidualNNGP(WideContract):
    def make(self) -> Kernel:
        return NNGP(Residual(), w_std=1.2, b_std=0.3, parametrization="standard")


@pytest.mark.slow
class TestConvolutionalNTK(WideContract):
    in_features = 6
    smooth = False

    def make(self) -> Kernel:
        net = convolutional(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 1))
        return NTK(net, w_std=1.3, b_std=0.3, example=torch.zeros(1, 6))


@pytest.mark.slow
class TestConvolutionalNNGP(WideContract):
    in_features = 6
    smooth = False

    def make(self) -> Kernel:
        net = convolutional(nn.Flatten(), nn.Linear(24, 1))
        return NNGP(net, w_std=1.3, b_std=0.3, example=torch.zeros(1, 6))


class TestNetAtBirth(WideContract):
    smooth = False

    def make(self) -> Any:
        net = nn.Sequential(nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU())
        return NTK(nn.Sequential(net, nn.Linear(20, 1)), parametrization="torch")


# -- what the contract does not say --------------------------------------------------------------


@pytest.mark.slow
# torch lowers its own diagonal by a function that it has deprecated itself.
@pytest.mark.filterwarnings("ignore:`torch._prims_common.check` is deprecated:FutureWarning")
@pytest.mark.paper(
    "infinite-neural-tangent-kernel", kind="exact", claim="compiled and eager kernels agree"
)
def test_compiled_by_inductor(evidence):
    torch.compiler.reset()
    worst = 0.0
    for make in (TestReluNTK().make, TestResidualNTK().make, TestConvolutionalNTK().make):
        k = make()
        width = 6 if k.event_ndim == 1 and "Window" in repr(k) else 3
        x = torch.randn(5, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        x.requires_grad_()
        found, plain = torch.compile(k, fullgraph=True)(x), k(x)
        pairs = [(found, plain)]
        inputs = [x, *k.parameters()]
        pairs += zip(
            torch.autograd.grad(found.square().sum(), inputs),
            torch.autograd.grad(plain.square().sum(), inputs),
            strict=True,
        )
        for a, b in pairs:
            worst = max(worst, float(((a - b).abs().max() / b.abs().max()).detach()))
    torch.compiler.reset()
    evidence(required=1e-10, measured=worst, what="relative to the largest")
    assert worst <= 1e-10


@pytest.mark.paper(
    "infinite-neural-tangent-kernel",
    kind="exact",
    claim="gradients with respect to inputs, w_std and b_std",
)
@pytest.mark.parametrize("kind", [NTK, NNGP])
def test_gradients_of_images(kind, evidence):
    net = nn.Sequential(
        nn.Conv2d(2, 8, 2),
        nn.LayerNorm((8, 1, 2), elementwise_affine=False),  # pyright: ignore
        Apply(torch.erf),
        nn.AvgPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(8, 1),
    )
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 2, 2, 2, 3, generator=source, dtype=torch.float64).requires_grad_()
    k = kind(net, example=x, w_std=1.3, b_std=[0.3, 0.2])
    names = [name for name, _ in k.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in k.parameters()]

    def run(x: Tensor, y: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(k, dict(zip(names, values, strict=True)), (x, y))

    assert len(values) == 2
    right = torch.autograd.gradcheck(run, (x, y, *values))
    evidence(required=True, measured=right, what="gradcheck with respect to x, y, w_std, b_std")
    assert right


def test_hyperparameters_by_layer():
    """The last layer multiplies the NNGP kernel alone: its scale comes out of it."""
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one = NNGP(net, w_std=[1.5, 1.0], b_std={"": 0.0, "0": 0.3})(x)
        two = NNGP(net, w_std={"0": 1.5, "2": 2.0}, b_std=[0.3, 0.0])(x)
    torch.testing.assert_close(two, 4 * one, rtol=1e-14, atol=0)
