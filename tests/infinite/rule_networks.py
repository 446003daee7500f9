"""One small network for every rule: from a width to a module, and the shape of an input."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import SelfAttention
from mercer.kernels import HermiteActivation, PolynomialActivation, PowerActivation

OUT = 3


class Apply(nn.Module):
    """A module that applies a function."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Net(nn.Module):
    """Named layers, and a forward that is given as a function of the module and its input."""

    def __init__(self, forward: Callable[[Any, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.call = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self, x)


@dataclass(frozen=True)
class Case:
    """A network with what it is tested with."""

    make: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    widths: tuple[int, int] = (24, 48)
    samples: int = 400
    options: dict[str, Any] = field(default_factory=dict)
    slow: bool = False


CASES: dict[str, Case] = {}


def case(*shape: int, **settings: Any) -> Callable[[Callable[[int], nn.Module]], Any]:
    """Register a network under the name of its function."""

    def register(make: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        CASES[make.__name__] = Case(make, shape, **settings)
        return make

    return register


def head(width: int) -> nn.Linear:
    return nn.Linear(width, OUT)


# -- dense networks and activations --------------------------------------------------------------


def dense(activation: Callable[[], nn.Module], depth: int = 2) -> Callable[[int], nn.Module]:
    def make(width: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(5, width), activation()]
        for _ in range(depth - 1):
            layers += [nn.Linear(width, width), activation()]
        return nn.Sequential(*layers, head(width))

    return make


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "erf": lambda: Apply(torch.erf),
    "sin": lambda: Apply(torch.sin),
    "abs": lambda: Apply(torch.abs),
    "silu": nn.SiLU,
    "hardtanh": nn.Hardtanh,
    "elu": nn.ELU,
    "product_with_sigmoid": lambda: Apply(lambda x: 0.5 * x * torch.sigmoid(2 * x) + 0.3),
}
for _name, _activation in _ACTIVATIONS.items():
    CASES[f"dense_{_name}"] = Case(
        dense(_activation), (5,), slow=_name in ("abs", "elu", "leaky_relu", "silu", "sin")
    )

# What the file of golden values leaves out: on the diagonal, and depth 3 of polynomials. Powers of
# powers have heavy tails: milder weights, more and wider networks.
_GOLDEN = {"w_std": 1.5, "b_std": 0.1}
for _k, _name, _samples in ((2, "square", 3000), (3, "cube", 4000)):
    CASES[f"dense_rectified_{_name}"] = Case(
        dense(lambda k=_k: Apply(PowerActivation(k)), 1), (5,), samples=_samples, options=_GOLDEN
    )
_POLYNOMIALS: dict[str, Any] = {
    "polynomial": (PolynomialActivation((0.5, -1.0, 0.25)), 0.8),
    "hermite": (HermiteActivation(2), 0.8),
    "monomial": (PolynomialActivation((0.0, 0.0, 0.0, 1.0)), 0.5),
    "rectified_square": (PowerActivation(2), 0.9),
}
for _name, (_function, _std) in _POLYNOMIALS.items():
    CASES[f"dense_{_name}_depth3"] = Case(
        dense(lambda f=_function: Apply(f), 3),
        (5,),
        widths=(64, 128),
        samples=3000,
        options={"w_std": _std, "b_std": 0.3},
        slow=True,
    )


@case(5)
def dense_without_some_biases(width):
    return nn.Sequential(
        nn.Linear(5, width, bias=False),
        nn.ReLU(),
        nn.Linear(width, width, bias=False),
        nn.ReLU(),
        head(width),
    )


@case(5)
def dense_frozen_below(width):
    net = dense(nn.ReLU)(width)
    net[0].requires_grad_(False)  # pyright: ignore
    net[2].bias.requires_grad_(False)  # pyright: ignore
    return net


@case(5, options={"parametrization": "standard"})
def dense_standard(width):
    return dense(nn.ReLU)(width)


@case(40, options={"parametrization": "torch"})
def dense_torch(width):
    return nn.Sequential(
        nn.Linear(40, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), head(width)
    )


@case(5, options={"w_std": {"0": 1.7, "2": 1.1, "4": 0.8}, "b_std": {"0": 0.0, "2": 0.5, "4": 0.2}})
def dense_scales_by_layer(width):
    return dense(nn.ReLU)(width)


# -- convolutions --------------------------------------------------------------------------------


def image(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(*layers)


@case(3, 7, widths=(16, 32))
def conv1d_stride_dilation(width):
    return image(
        nn.Conv1d(3, width, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv1d(width, width, 2, dilation=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        head(4 * width),
    )


@case(3, 6)
def conv1d_circular_groups(width):
    return image(
        nn.Conv1d(3, width, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.Conv1d(width, width, 3, padding=2, dilation=2, padding_mode="circular", groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        head(width),
    )


@case(2, 4, 5, widths=(16, 32))
def conv2d_zero_padding_flatten(width):
    return image(
        nn.Conv2d(2, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, (2, 3), stride=(2, 1), padding="valid"),
        nn.ReLU(),
        nn.Flatten(),
        head(6 * width),
    )


@case(2, 4, 4, widths=(16, 32))
def conv2d_same_global_pool(width):
    return image(
        nn.Conv2d(2, width, (1, 3), padding="same"),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding="same", groups=4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head(width),
    )


@case(2, 4, 4, widths=(16, 32))
def conv2d_other_paddings(width):
    return image(
        nn.Conv2d(2, width, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate", stride=2),
        nn.ReLU(),
        nn.Flatten(),
        head(4 * width),
    )


@case(2, 3, 3, 4, widths=(16, 32), samples=300)
def conv3d(width):
    return image(
        nn.Conv3d(2, width, 2, padding=(1, 0, 0), stride=(2, 1, 1)),
        nn.ReLU(),
        nn.Conv3d(width, width, (1, 2, 2), dilation=(1, 1, 2)),
        nn.ReLU(),
        nn.Flatten(),
        head(2 * width),
    )


@case(2, 4, 4, options={"parametrization": "standard", "w_std": 1.1, "b_std": 0.4})
def conv2d_standard(width):
    return image(
        nn.Conv2d(2, width, 3), nn.ReLU(), nn.Conv2d(width, width, 2), nn.ReLU(), nn.Flatten(),
        head(width),
    )  # fmt: skip


@case(4, 6, options={"parametrization": "standard", "w_std": 1.2, "b_std": 0.3})
def conv1d_standard_groups(width):
    return image(
        nn.Conv1d(4, width, 3),
        nn.ReLU(),
        nn.Conv1d(width, width, 2, groups=2, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        head(3 * width),
    )


@case(12, 6, options={"parametrization": "torch"})
def conv1d_torch(width):
    return image(
        nn.Conv1d(12, width, 3),
        nn.Tanh(),
        nn.Conv1d(width, width, 2, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        head(2 * width),
    )


@case(2, 3, 3, widths=(16, 32))
def paddings_by_hand(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.one(F.pad(2 * x - 0.5, (1, 0, 0, 1), mode="circular"))
        h = m.up(m.pad(F.relu(h)))
        return m.head(F.relu(m.two(h)).flatten(1))

    return Net(
        forward,
        one=nn.Conv2d(2, width, 2),
        pad=nn.ZeroPad2d((1, 0, 1, 0)),
        up=nn.Upsample(scale_factor=2),
        two=nn.Conv2d(width, width, 3, stride=3),
        head=head(4 * width),
    )


# -- pooling -------------------------------------------------------------------------------------


@case(2, 4, 5, widths=(16, 32))
def average_pool_then_conv(width):
    return image(
        nn.Conv2d(2, width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2, stride=(2, 1), padding=1),
        nn.Conv2d(width, width, 2),
        nn.ReLU(),
        nn.Flatten(),
        head(2 * 5 * width),
    )


@case(2, 5, 4)
def average_pool_counts_inside_only(width):
    return image(
        nn.Conv2d(2, width, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False, ceil_mode=True),
        nn.Conv2d(width, width, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((2, 1)),
        nn.Flatten(),
        head(2 * width),
    )


@case(2, 4, 3, widths=(16, 32))
def pool_of_linear_layers(width):
    """Pooled before an activation: still normal."""
    return Net(
        lambda m, x: m.head(F.relu(m.mix(F.avg_pool2d(m.conv(x), 2, 1))).mean((2, 3))),
        conv=nn.Conv2d(2, width, 1),
        mix=nn.Conv2d(width, width, 2, padding=1),
        head=head(width),
    )


@case(2, 4, 4, widths=(16, 32))
def mean_over_one_axis(width):
    return Net(
        lambda m, x: m.head(F.relu(m.second(F.relu(m.first(x)).mean(3))).sum(-1)),
        first=nn.Conv2d(2, width, 3, padding=1),
        second=nn.Conv1d(width, width, 2),
        head=head(width),
    )


# -- norms ---------------------------------------------------------------------------------------


@case(5)
def layer_norm_before_activation(width):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.LayerNorm(width, elementwise_affine=False),
        nn.Tanh(),
        head(width),
    )


@case(5)
def layer_norm_after_activation(width):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.ReLU(),
        nn.LayerNorm(width, elementwise_affine=False),
        nn.Linear(width, width),
        nn.GELU(),
        nn.LayerNorm(width),
        head(width),
    )


@case(5)
def layer_norm_without_bias(width):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.ReLU(),
        nn.LayerNorm(width, bias=False, eps=0.1),
        nn.Linear(width, width),
        nn.ReLU(),
        head(width),
    )


@case(2, 3, 4, widths=(16, 32))
def layer_norm_over_positions_too(width):
    return nn.Sequential(
        nn.Conv2d(2, width, 2),
        nn.ReLU(),
        nn.LayerNorm((width, 2, 3)),  # pyright: ignore
        nn.Conv2d(width, width, 2),
        nn.ReLU(),
        nn.Flatten(),
        head(2 * width),
    )


@case(2, 3, 4)
def group_norm(width):
    return nn.Sequential(
        nn.Conv2d(2, width, 2),
        nn.GroupNorm(2, width),
        nn.ReLU(),
        nn.Conv2d(width, width, 2, bias=False),
        nn.ReLU(),
        nn.GroupNorm(1, width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head(width),
    )


@case(4, 5)
def rms_norm_of_tokens(width):
    return Net(
        lambda m, x: m.head(m.last(F.silu(m.second(m.norm(F.relu(m.first(x))))).mean(1))),
        first=nn.Linear(5, width),
        norm=nn.RMSNorm(width),
        second=nn.Linear(width, width),
        last=nn.RMSNorm(width, eps=0.05, elementwise_affine=False),
        head=head(width),
    )


@case(5)
def trained_gains_before_activations(width):
    """The tangent of a gain is the channel itself, on which the activation's slope depends."""
    return nn.Sequential(
        nn.Linear(5, width),
        nn.LayerNorm(width),
        nn.GELU(),
        nn.Linear(width, width),
        nn.RMSNorm(width),
        nn.Tanh(),
        head(width),
    )


@case(5)
def gain_of_a_gain(width):
    return nn.Sequential(
        nn.Linear(5, width), nn.LayerNorm(width), nn.RMSNorm(width, eps=0.2), nn.ReLU(), head(width)
    )


@case(2, 3, 4)
def gains_through_linear_steps(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.norm(m.conv(x))
        h = F.silu(0.7 * F.avg_pool2d(h, 2, 1)).permute(0, 2, 3, 1)
        h = m.last(m.mix(h)).flatten(1, 2)[:, 1:]
        return m.head(F.relu(h).mean(1))

    return Net(
        forward,
        conv=nn.Conv2d(2, width, 2, padding=1),
        norm=nn.GroupNorm(2, width),
        mix=nn.Linear(width, width),
        last=nn.LayerNorm(width),
        head=head(width),
    )


@case(5)
def norm_of_dropped_channels(width):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.Softplus(),
        nn.Dropout(0.3),
        nn.LayerNorm(width),
        nn.Linear(width, width),
        nn.ReLU(),
        head(width),
    ).train()


# -- dropout -------------------------------------------------------------------------------------


@case(5)
def dropout_in_training(width):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Dropout(0.2),
        head(width),
    ).train()


@case(5)
def dropout_in_evaluation(width):
    return dropout_in_training(width).eval()


@case(2, 3, 3, widths=(16, 32))
def dropout_of_pixels(width):
    return nn.Sequential(
        nn.Conv2d(2, width, 2),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(width, width, 2, padding=1),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        head(width),
    ).train()


# -- sums, concatenations, products --------------------------------------------------------------


@case(5)
def residual_before_activation(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.inside(x)
        h = h + 0.7 * m.one(F.relu(h))
        h = m.two(F.gelu(h)) - 2 * h
        return m.head(F.relu(h))

    return Net(
        forward,
        inside=nn.Linear(5, width),
        one=nn.Linear(width, width),
        two=nn.Linear(width, width),
        head=head(width),
    )


@case(5)
def residual_with_branches_that_are_not_affine(width):
    """Branches with means that are not zero: their products stay."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = F.relu(m.one(x)) + 0.5 * F.softplus(m.two(x)) + m.three(x)
        return m.head(F.relu(m.four(h)))

    return Net(
        forward,
        one=nn.Linear(5, width),
        two=nn.Linear(5, width),
        three=nn.Linear(5, width),
        four=nn.Linear(width, width),
        head=head(width),
    )


@case(5)
def layer_norm_of_branches_that_are_not_affine(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.norm(F.relu(m.one(x)) + 0.5 * F.softplus(m.two(x)) + 1.0)
        return m.head(F.relu(m.four(h)))

    return Net(
        forward,
        one=nn.Linear(5, width),
        two=nn.Linear(5, width),
        norm=nn.LayerNorm(width),
        four=nn.Linear(width, width),
        head=head(width),
    )


@case(2, 4, 4, widths=(16, 32))
def residual_convolutions(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.stem(x)
        h = h + m.one(F.relu(h))
        h = m.short(h) + m.two(F.relu(m.norm(h.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)))
        return m.head(F.relu(h).mean((2, 3)))

    return Net(
        forward,
        stem=nn.Conv2d(2, width, 3, padding=1),
        one=nn.Conv2d(width, width, 3, padding=1),
        norm=nn.LayerNorm(width),
        short=nn.Conv2d(width, width, 1, stride=2, bias=False),
        two=nn.Conv2d(width, width, 3, stride=2, padding=1),
        head=head(width),
    )


@case(5)
def concatenation_of_channels(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = torch.cat([F.relu(m.one(x)), torch.tanh(m.two(x))], 1)
        return m.head(F.relu(m.three(h)))

    return Net(
        forward,
        one=nn.Linear(5, width),
        two=nn.Linear(5, 2 * width),
        three=nn.Linear(3 * width, width),
        head=head(width),
    )


@case(2, 3, 3, widths=(16, 32))
def dense_block_of_convolutions(width):
    """Channels beside their own functions, as in DenseNet: dependent parts."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.one(x)
        h = torch.cat([h, m.two(F.relu(h))], 1)
        h = torch.cat([h, m.three(F.relu(h))], 1)
        return m.head(F.relu(h).flatten(1))

    return Net(
        forward,
        one=nn.Conv2d(2, width, 2, padding=1),
        two=nn.Conv2d(width, width, 1),
        three=nn.Conv2d(2 * width, width, 1),
        head=head(3 * 16 * width),
    )


@case(5)
def product_of_branches(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = m.one(x) * torch.sigmoid(m.gate(x))
        return m.head(F.relu(m.two(h)) * m.scale(h))

    return Net(
        forward,
        one=nn.Linear(5, width),
        gate=nn.Linear(5, width),
        two=nn.Linear(width, width),
        scale=nn.Linear(width, width),
        head=head(width),
    )


@case(5)
def product_of_branches_with_means(width):
    return Net(
        lambda m, x: m.head(F.relu(m.one(x)) * torch.sigmoid(m.two(x)) + F.relu(m.three(x))),
        one=nn.Linear(5, width),
        two=nn.Linear(5, width),
        three=nn.Linear(5, width),
        head=head(width),
    )


@case(5)
def gated_linear_unit(width):
    return nn.Sequential(
        nn.Linear(5, 2 * width), nn.GLU(-1), nn.Linear(width, 2 * width), nn.GLU(-1), head(width)
    )


@case(5)
def chunks_of_one_layer(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        a, b = m.one(x).chunk(2, 1)
        return m.head(F.relu(m.two(F.silu(a) * b)))

    return Net(forward, one=nn.Linear(5, 2 * width), two=nn.Linear(width, width), head=head(width))


# -- sequences and shapes ------------------------------------------------------------------------


@case(4, 5)
def tokens_with_mean(width):
    return Net(
        lambda m, x: m.head(F.relu(m.two(F.relu(m.one(x)))).mean(1)),
        one=nn.Linear(5, width),
        two=nn.Linear(width, width),
        head=head(width),
    )


@case(4, 5)
def tokens_picked_and_rolled(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = F.relu(m.one(x))
        h = m.two(h) + m.three(h.roll(1, 1)).flip(1)
        return m.head(F.relu(h)[:, 1:].mean(1))

    return Net(
        forward,
        one=nn.Linear(5, width),
        two=nn.Linear(width, width),
        three=nn.Linear(width, width),
        head=head(width),
    )


@case(4, 5, widths=(16, 32))
def first_token(width):
    return Net(
        lambda m, x: m.head(F.relu(m.mix(F.relu(m.one(x)).transpose(1, 2)))[:, :, 0]),
        one=nn.Linear(5, width),
        mix=nn.Conv1d(width, width, 3, padding=1),
        head=head(width),
    )


@case(2, 4, 3)
def axes_that_move(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = F.relu(m.conv(x)).permute(0, 3, 2, 1)  # (n, 3, 4, width)
        h = F.relu(m.dense(h)).transpose(1, 2).reshape(x.shape[0], 12, -1)  # (n, 12, width)
        h = h.view(-1, 2, 6, h.shape[-1]).mean(2)  # (n, 2, width)
        return m.head(h.flatten(1))

    return Net(
        forward,
        conv=nn.Conv2d(2, width, 3, padding=1),
        dense=nn.Linear(width, width),
        head=head(2 * width),
    )


@case(2, 4, 4)
def patches_of_data(width):
    """A vision model's stem: patches as tokens."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = x.unflatten(2, (2, 2)).unflatten(4, (2, 2))  # (n, 2, 2, 2, 2, 2)
        h = h.permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 8)
        return m.head(F.relu(m.two(F.relu(m.one(h)))).mean(1))

    return Net(forward, one=nn.Linear(8, width), two=nn.Linear(width, width), head=head(width))


@case(4, 5)
def two_readings_beside_each_other(width):
    """Dependent signals, whose covariance a layer after their concatenation does not see."""

    def forward(m: Any, x: Tensor) -> Tensor:
        h = F.relu(m.one(x))
        h = torch.cat([h.mean(1), h[:, 0], m.two(h).sum(1)], 1)
        return m.head(F.relu(m.three(h)))

    return Net(
        forward,
        one=nn.Linear(5, width),
        two=nn.Linear(width, width),
        three=nn.Linear(3 * width, width),
        head=head(width),
    )


@case(3, 5)
def softmax_attention(width):
    return Net(
        lambda m, x: m.head(F.relu(m.mix(m.one(x))).mean(1)),
        one=nn.Linear(5, width),
        mix=SelfAttention(width),
        head=head(width),
    )


@case(3, 5, samples=1500, options={"parametrization": "standard"})
def attention_with_frozen_values(width):
    net = softmax_attention(width)
    net.mix.value.weight.requires_grad_(False)
    net.mix.out.bias.requires_grad_(False)
    return net


@case(3, 5, samples=1500, options={"parametrization": "torch"})
def attention_at_birth(width):
    return softmax_attention(width)


@case(3, 5, widths=(24, 48), samples=2000)
def identity_attention_of_activations(width):
    return Net(
        lambda m, x: m.head(F.relu(m.one(x) + m.mix(F.relu(m.two(x)))).flatten(1)),
        one=nn.Linear(5, width),
        two=nn.Linear(5, width),
        mix=SelfAttention(width, attention="identity", bias=False),
        head=head(3 * width),
    )


@case(2, 4, 4, widths=(16, 32))
def unfolded_windows(width):
    def forward(m: Any, x: Tensor) -> Tensor:
        h = F.relu(m.conv(x))
        h = F.unfold(h, 2, padding=1, stride=2)  # (n, 4 width, 9)
        return m.head(F.relu(m.dense(h.transpose(1, 2))).mean(1))

    return Net(
        forward,
        conv=nn.Conv2d(2, width, 3, padding=1),
        dense=nn.Linear(4 * width, width),
        head=head(width),
    )
