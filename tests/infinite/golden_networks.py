"""The networks of the golden values, written with torch modules."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from mercer.infinite import SelfAttention
from mercer.kernels import (
    ErfActivation,
    ExponentialActivation,
    GaussianActivation,
    PolynomialActivation,
    PowerActivation,
    SineActivation,
)


class Apply(nn.Module):
    """An elementwise callable as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Residual(nn.Module):
    """x + branch(x)."""

    def __init__(self, *branch: nn.Module) -> None:
        super().__init__()
        self.branch = nn.Sequential(*branch)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Pooled(nn.Module):
    """Layers, then the mean over the axes."""

    def __init__(self, axes: tuple[int, ...], *layers: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.layers, self.head, self.axes = nn.Sequential(*layers), head, axes

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(self.axes))


ACTIVATIONS: dict[str, Any] = {
    "relu": nn.ReLU(),
    "leaky_relu_0p1": nn.LeakyReLU(0.1),
    "abs": Apply(torch.abs),
    "erf": Apply(torch.erf),
    "gelu": nn.GELU(),
    "sin": Apply(torch.sin),
    "cos": Apply(torch.cos),
    "gaussian": Apply(GaussianActivation(1.0)),
    "rbf_1": Apply(SineActivation(math.sqrt(2), math.sqrt(2), math.pi / 4)),
    "exp": Apply(ExponentialActivation()),
    "sign": Apply(torch.sign),
    "sigmoid_like": Apply(ErfActivation(1 / 2.4020563531719796, 0.5, 0.5)),
    "monomial3": Apply(PolynomialActivation((0.0, 0.0, 0.0, 1.0))),
    "rectified_monomial2": Apply(PowerActivation(2)),
    "polynomial": Apply(PolynomialActivation((0.5, -1.0, 0.25))),
}


def dense(depth: int, activation: nn.Module, width: int = 16) -> nn.Module:
    """Make ``depth`` hidden layers."""
    layers: list[nn.Module] = []
    before = 5
    for _ in range(depth):
        layers += [nn.Linear(before, width), activation]
        before = width
    return nn.Sequential(*layers, nn.Linear(before, 1))


def _same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Padding as TensorFlow and JAX do for SAME."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def convolutional(padding: str, stride: int, flat: bool) -> nn.Module:
    """Conv 3x3 (stride), ReLU, Conv 2x2, ReLU, then flat or pooled, then a read-out."""
    layers: list[nn.Module] = []
    size, channels = 6, 3
    for kernel, step in ((3, stride), (2, 1)):
        if padding != "valid":
            low, high = _same(size, kernel, step)
            kind = nn.ZeroPad2d if padding == "same" else nn.CircularPad2d
            layers.append(kind((low, high, low, high)))
            size = -(-size // step)
        else:
            size = (size - kernel) // step + 1
        layers += [nn.Conv2d(channels, 8, kernel, step), nn.ReLU()]
        channels = 8
    if flat:
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * size * size, 1))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))


def _conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 8, 3, padding=1)


def networks() -> dict[str, nn.Module]:
    """Return the other networks by their keys, but for the dense ones."""
    found: dict[str, nn.Module] = {
        f"conv_{padding}_stride{stride}_{end}": convolutional(padding, stride, end == "flatten")
        for padding in ("same", "valid", "circular")
        for stride in (1, 2)
        for end in ("flatten", "gap")
    }
    found["conv_avgpool"] = nn.Sequential(
        _conv(3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        _conv(8),
        Apply(torch.erf),
        nn.Flatten(),
        nn.Linear(72, 1),
    )
    found["conv_residual2_gap"] = Pooled(
        (2, 3),
        _conv(3),
        Residual(nn.ReLU(), _conv(8)),
        Residual(nn.ReLU(), _conv(8)),
        head=nn.Linear(8, 1),
    )
    found["conv_layernorm_gap"] = Pooled(
        (2, 3),
        _conv(3),
        nn.ReLU(),
        ChannelNorm(),
        _conv(8),
        nn.ReLU(),
        head=nn.Linear(8, 1),
    )
    found["dense_layernorm"] = nn.Sequential(
        nn.Linear(5, 8),
        nn.LayerNorm(8, eps=0.0, elementwise_affine=False),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.LayerNorm(8, eps=0.0, elementwise_affine=False),
        Apply(torch.erf),
        nn.Linear(8, 1),
    )
    found["dense_residual2"] = nn.Sequential(
        nn.Linear(5, 8),
        Residual(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)),
        Residual(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)),
        nn.ReLU(),
        nn.Linear(8, 1),
    )
    found["attention_linear_gap"] = Pooled(
        (1,),
        SelfAttention(6),
        nn.ReLU(),
        head=nn.Linear(6, 1),
    )
    return found


class ChannelNorm(nn.Module):
    """Over the channels of images, without taking the mean away, as the reference has it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(8, eps=0.0, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
