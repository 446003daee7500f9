"""Kernels of wide networks obey the laws of kernels."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NNGP, NTK
from mercer.kernels import Kernel
from tests.contracts.kernel import KernelContract


def convolutional() -> nn.Module:
    """Read vectors of 12 as images of 3 x 2 x 2."""
    return nn.Sequential(
        nn.Unflatten(1, (3, 2, 2)),
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.Conv2d(8, 8, 2, padding=1, bias=False),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 1),
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


class TestConvolutionalNTK(WideContract):
    in_features = 12
    smooth = False

    def make(self) -> Kernel:
        return NTK(convolutional(), w_std=1.3, b_std=0.3, example=torch.zeros(1, 12))


class TestConvolutionalNNGP(WideContract):
    in_features = 12
    smooth = False

    def make(self) -> Kernel:
        return NNGP(convolutional(), w_std=1.3, b_std=0.3, example=torch.zeros(1, 12))


class TestNetAtBirth(WideContract):
    smooth = False

    def make(self) -> Any:
        net = nn.Sequential(nn.Linear(3, 50), nn.ReLU(), nn.Linear(50, 20), nn.ReLU())
        return NTK(nn.Sequential(net, nn.Linear(20, 1)), parametrization="torch")
