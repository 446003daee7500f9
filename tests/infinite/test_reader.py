"""Reading modules: the same network in many ways, what is refused, and what stays untouched."""

import copy
import gc
import math
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.infinite import NTK, Network, NoRuleError, read, rule, supported
from tests.infinite.rule_networks import Apply, Net

SCALES: dict[str, Any] = {"w_std": 1.3, "b_std": 0.3}


def data(*shape: int, n: int = 3) -> Tensor:
    source = torch.Generator().manual_seed(0)
    return torch.randn(n, *shape, generator=source, dtype=torch.float64)


def kernels(module: nn.Module, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return NTK(module, example=x, **{**SCALES, **options}).both(x)


def same(one: nn.Module, two: nn.Module, x: Tensor, tolerance: float = 0.0) -> None:
    """Assert that two modules have the same kernels: to the last bit, or to a tolerance."""
    for a, b in zip(kernels(one, x), kernels(two, x), strict=True):
        assert float((a - b).abs().max()) <= tolerance * float(b.abs().max())


# -- the same network written in several ways ----------------------------------------------------


class AsSequential(nn.Module):
    """A sum of two branches, each a `Sequential`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.branch = nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, stride=1, padding=1))
        self.head = nn.Sequential(nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(32, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        return self.head(h + self.branch(h))


class AsLayers(nn.Module):
    """Named layers, and functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.c, self.d = nn.Conv2d(8, 8, 3, padding="same"), nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(torch.relu(self.a(x)))
        x = torch.add(x, self.c(x.relu()))
        x = F.avg_pool2d(F.relu(x), (2, 2), stride=2)
        return self.d(x.view(x.size(0), -1))


class AsCalls(nn.Module):
    """Parameters, and calls of `torch.nn.functional`."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"a": (8, 2, 3, 3), "b": (8, 8, 1, 1), "c": (8, 8, 3, 3), "d": (3, 32)}
        self.weights = nn.ParameterDict(
            {k: nn.Parameter(torch.empty(s)) for k, s in shapes.items()}
        )
        self.biases = nn.ParameterDict(
            {k: nn.Parameter(torch.empty(s[0])) for k, s in shapes.items()}
        )

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.weights, self.biases
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), w["a"], b["a"])
        x = F.conv2d(x.clamp(min=0), w["b"], bias=b["b"])
        x = x + F.conv2d(F.relu(x), w["c"], b["c"], 1, padding=1)
        x = F.adaptive_avg_pool2d(F.relu(x), 2)
        return F.linear(torch.flatten(x, 1), w["d"], b["d"])


class DenseAsLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.erf(self.a(x))
        return self.c(self.b(x).erf()).squeeze(-1)


class DenseAsCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.ParameterList([torch.empty(s) for s in ((8, 5), (8, 8), (1, 8))])
        self.b = nn.ParameterList([torch.empty(s) for s in (8, 8, 1)])

    def forward(self, x: Tensor) -> Tensor:
        for i in range(2):
            x = torch.special.erf(F.linear(x, self.w[i], self.b[i]))
        return F.linear(x, self.w[2], self.b[2])


@pytest.mark.paper(
    "infinite-neural-tangent-kernel",
    kind="exact",
    claim="The same network written in three ways has identical kernels.",
)
@pytest.mark.parametrize("parametrization", ["ntk", "standard"])
def test_three_ways_of_writing(parametrization, evidence):
    dense = nn.Sequential(
        nn.Linear(5, 8),
        Apply(torch.erf),
        nn.Linear(8, 8),
        Apply(torch.erf),
        nn.Linear(8, 1),
    )
    different = 0
    for x, ways in (
        (data(2, 4, 4), (AsSequential(), AsLayers(), AsCalls())),
        (data(5), (dense, DenseAsLayers(), DenseAsCalls())),
    ):
        first, *others = (kernels(way, x, parametrization=parametrization) for way in ways)
        assert float(first[1].diagonal().min()) > 0
        for other in others:
            different += sum(int((a != b).sum()) for a, b in zip(first, other, strict=True))
    evidence(required=0, measured=different, what="entries that differ")
    assert different == 0


def test_nested_modules_are_entered():
    plain = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    layers = nn.ModuleList([nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 8)])
    nested = Net(
        lambda m, x: m.head(m.tanh(m.layers[1](m.layers[0](x)))),
        layers=layers,
        tanh=nn.Tanh(),
        head=nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(8, 1))),
    )
    same(plain, nested, data(5))
    assert NTK(nested).network.layers == ("layers.0.0", "layers.1", "head.1.0")


# -- reshapes ------------------------------------------------------------------------------------


def convolutional(between: Any, head: int = 48) -> nn.Module:
    """A convolution, some steps, and a head."""
    return Net(
        lambda m, x: m.head(between(F.relu(m.conv(x)))),
        conv=nn.Conv2d(2, 8, 3, padding=1),
        head=nn.Linear(head, 1),
    )


FLAT: dict[str, Any] = {
    "flatten": lambda h: h.flatten(1),
    "view": lambda h: h.view(h.size(0), -1),
    "view of sizes": lambda h: h.view(h.shape[0], h.shape[1] * h.shape[2] * h.shape[3]),
    "reshape": lambda h: torch.reshape(h, (h.shape[0], -1)),
    "in two steps": lambda h: h.flatten(2).flatten(1),
    "channels last": lambda h: h.permute(0, 2, 3, 1).reshape(h.size(0), -1),
    "transposed": lambda h: h.transpose(2, 3).flatten(1),
    "twice transposed": lambda h: h.mT.transpose(-1, -2).contiguous().flatten(1),
    "through tokens": lambda h: h.flatten(2).transpose(1, 2).flatten(1),
    "unflattened": lambda h: h.flatten(2).unflatten(2, (3, 2)).flatten(1),
    "unsqueezed": lambda h: h.unsqueeze(2).squeeze(2).unsqueeze(-1).flatten(1),
    "none": lambda h: h[:, :, None].flatten(1),
    "moved": lambda h: h.movedim(1, -1).flatten(1),
    "halves": lambda h: torch.cat(h.chunk(2, 1), 1).flatten(1),
    "patches": lambda h: h.unflatten(2, (1, 2)).permute(0, 2, 3, 1, 4).flatten(3).flatten(1),
}


@pytest.mark.parametrize("name", FLAT)
def test_flattening_in_many_ways(name):
    x = data(2, 2, 3)
    if name == "halves":  # channels before the activation are independent
        two = Net(
            lambda m, x: m.head(F.relu(torch.cat(m.conv(x).chunk(2, 1), 1)).flatten(1)),
            conv=nn.Conv2d(2, 8, 3, padding=1),
            head=nn.Linear(48, 1),
        )
        same(convolutional(FLAT["flatten"]), two, x, 1e-14)
    else:
        same(convolutional(FLAT["flatten"]), convolutional(FLAT[name]), x, 1e-14)


POOLED: dict[str, Any] = {
    "mean": lambda h: h.mean((2, 3)),
    "mean of each axis": lambda h: torch.mean(h, 3).mean(dim=-1),
    "sum": lambda h: h.sum((-1, -2)) / (h.shape[2] * h.shape[3]),
    "tokens": lambda h: h.flatten(2).transpose(1, 2).mean(1),
    "keepdim": lambda h: h.mean((2, 3), keepdim=True).flatten(1),
    "pool": lambda h: F.adaptive_avg_pool2d(h, 1)[:, :, 0, 0],
    "rolled": lambda h: h.roll(1, 2).flip(3).mean((2, 3)),
}


@pytest.mark.parametrize("name", POOLED)
def test_pooling_in_many_ways(name):
    x = data(2, 2, 3)
    same(convolutional(POOLED["mean"], 8), convolutional(POOLED[name], 8), x, 1e-14)


def test_slices_are_smaller_inputs():
    """A window that sees three columns of the image alone, cut out before and after."""
    x = data(2, 4, 6)
    conv = {"conv": nn.Conv2d(2, 8, 3), "head": nn.Linear(8, 1)}
    whole = Net(lambda m, x: m.head(F.relu(m.conv(x))[:, :, :, 1:2].mean((2, 3))), **conv)
    part = Net(lambda m, x: m.head(F.relu(m.conv(x[..., 1:4])).mean((2, 3))), **conv)
    narrow = Net(lambda m, x: m.head(F.relu(m.conv(x.narrow(3, 1, 3))).mean((2, 3))), **conv)
    select = Net(lambda m, x: m.head(F.relu(m.conv(x)).select(3, 1).mean(2)), **conv)
    for other in (part, narrow, select):
        same(whole, other, x, 1e-14)


def test_padding_in_many_ways():
    x = data(2, 4, 3)
    for mode, module in {
        "zeros": nn.ZeroPad2d((1, 2, 0, 1)),
        "circular": nn.CircularPad2d((1, 2, 0, 1)),
        "reflect": nn.ReflectionPad2d((1, 2, 0, 1)),
        "replicate": nn.ReplicationPad2d((1, 2, 0, 1)),
    }.items():
        name = "constant" if mode == "zeros" else mode
        ways = [
            nn.Sequential(module, nn.Conv2d(2, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(160, 1)),
            Net(
                lambda m, x, name=name: m.head(
                    F.relu(m.conv(F.pad(x, (1, 2, 0, 1), mode=name))).flatten(1)
                ),
                conv=nn.Conv2d(2, 8, 2),
                head=nn.Linear(160, 1),
            ),
        ]
        padded = F.pad(x, (1, 2, 0, 1), mode=name)
        plain = nn.Sequential(nn.Conv2d(2, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(160, 1))
        expected = kernels(plain, padded)
        for way in ways:
            for a, b in zip(kernels(way, x), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


# -- elementwise functions -----------------------------------------------------------------------


def dense(activation: Any) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), Apply(activation), nn.Linear(8, 1))


WRITTEN: dict[str, tuple[Any, Any]] = {
    "gelu": (lambda z: 0.5 * z * (1 + torch.erf(z / math.sqrt(2))), F.gelu),
    "silu": (lambda z: z * torch.sigmoid(z), F.silu),
    "relu": (lambda z: torch.maximum(z, z * 0), F.relu),
    "relu by clamp": (lambda z: z.clamp(min=0), F.relu),
    "leaky": (lambda z: F.relu(z) - 0.1 * F.relu(-z), nn.LeakyReLU(0.1)),
    "tanh": (lambda z: 2 * torch.sigmoid(2 * z) - 1, torch.tanh),
    "softplus": (lambda z: torch.log1p(torch.exp(z)), F.softplus),
    "mish": (lambda z: z * torch.tanh(F.softplus(z)), F.mish),
    "gaussian": (lambda z: (-z.square() / 2).exp(), lambda z: torch.exp(-(z**2) / 2)),
    "square": (lambda z: z * z, lambda z: z**2),
    "hardtanh": (lambda z: z.clamp(-1, 1), nn.Hardtanh()),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_functions_written_by_hand(name):
    by_hand, known = WRITTEN[name]
    same(dense(by_hand), dense(known), data(5), 1e-10)


def test_gates():
    x = data(5)
    layers = {"a": nn.Linear(5, 16), "b": nn.Linear(8, 1)}

    def by_hand(m: Any, x: Tensor) -> Tensor:
        one, two = m.a(x).chunk(2, -1)
        return m.b(one * torch.sigmoid(two))

    for way in (
        Net(lambda m, x: m.b(F.glu(m.a(x))), **layers),
        nn.Sequential(layers["a"], nn.GLU(), layers["b"]),
        Net(lambda m, x: m.b(m.a(x)[:, :8] * m.a2(x).sigmoid()), a2=nn.Linear(5, 8), **layers),
    ):
        found = kernels(way, x)
        for a, b in zip(found, kernels(Net(by_hand, **layers), x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


# -- what is written over, used twice, or not alike ----------------------------------------------


class Block(nn.Module):
    """A residual block whose activation may work in place."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.d, self.act, self.call = nn.Linear(8, 8), nn.ReLU(inplace=True), call

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.call(self, self.a(x)))


def pre_activation(m: Any, h: Tensor) -> Tensor:
    y = F.relu(h, inplace=True)
    return h + m.b(y)


def by_method(m: Any, h: Tensor) -> Tensor:
    y = h.relu_()
    return m.b(y) + h


def kept(m: Any, h: Tensor) -> Tensor:
    keep = h
    h += m.b(F.relu(h))
    return F.relu(h) + m.d(keep)


def kept_plain(m: Any, h: Tensor) -> Tensor:
    h = h + m.b(F.relu(h))
    return F.relu(h) + m.d(h)


def test_what_is_written_over_is_gone():
    x = data(5)

    def plain(m: Any, h: Tensor) -> Tensor:
        return F.relu(h) + m.b(F.relu(h))

    same(Block(pre_activation), Block(plain), x)
    same(Block(by_method), Block(plain), x, 1e-14)
    same(Block(lambda m, h: (lambda y: h + m.b(y))(m.act(h))), Block(plain), x)
    same(Block(kept), Block(kept_plain), x)
    with pytest.raises(NoRuleError, match=r"relu_: works in place on a view"):
        kernels(Block(lambda m, h: (lambda v: h + m.b(v.relu_()[:, 0]))(h.unsqueeze(1))), x)


def test_data_that_are_used_twice():
    x = data(5)
    layers: dict[str, nn.Module] = {n: nn.Linear(5, 5) for n in "abc"}

    def net(call: Any) -> nn.Module:
        return Net(lambda m, x: m.c(call(m, x)), **layers)

    same(net(lambda m, x: (x + m.a(x)) + x), net(lambda m, x: 2 * x + m.a(x)), x, 1e-14)
    same(net(lambda m, x: x + (m.a(x) - x)), net(lambda m, x: m.a(x)), x, 1e-14)
    for call in (
        lambda m, x: x * (x * m.a(x)),
        lambda m, x: x * (m.a(x) + x),
        lambda m, x: x + x * torch.sigmoid(m.a(x)),
        lambda m, x: (x + m.a(x)) * (x + m.b(x)),
    ):
        with pytest.raises(NoRuleError, match=r"share the data|whose channels"):
            kernels(net(call), x)


def test_channels_that_are_not_alike():
    x = data(5)
    layers: dict[str, nn.Module] = {name: nn.Linear(5, 8) for name in "abcd"}

    def net(call: Any, width: int = 16) -> nn.Module:
        return Net(
            lambda m, x: m.head(call(m, x)),
            head=nn.Linear(width, 1),
            n=nn.GroupNorm(2, 16),
            **layers,
        )

    def two(m: Any, x: Tensor) -> Tensor:
        return torch.cat([m.a(x), 3 * F.relu(m.b(x))], 1)

    with pytest.raises(NoRuleError, match=r"normalises groups of channels that differ"):
        kernels(net(lambda m, x: m.n(two(m, x))), x)
    # Beside each other, sums and products are those of the parts.
    for by_parts, whole in (
        (
            lambda m, x: torch.cat([m.a(x) + m.c(x), 3 * F.relu(m.b(x)) + m.d(x)], 1),
            lambda m, x: two(m, x) + torch.cat([m.c(x), m.d(x)], 1),
        ),
        (
            lambda m, x: torch.cat([m.a(x) * m.c(x), 3 * F.relu(m.b(x)) * m.d(x)], 1),
            lambda m, x: two(m, x) * torch.cat([m.c(x), m.d(x)], 1),
        ),
    ):
        same(net(by_parts), net(whole), x, 1e-14)


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, noise: Any = None, twice: bool = True) -> Tensor:
        h = self.a(x)
        if noise is not None:
            h = 3 * h
        return self.b(2 * h if twice else h)


def test_optional_arguments_keep_their_defaults():
    plain = nn.Sequential(nn.Linear(5, 8), Apply(lambda z: 2 * z), nn.Linear(8, 1))
    same(Optional(), plain, data(5))


def test_names_that_only_torch_has():
    for one, two in (
        (torch.expm1, lambda z: torch.exp(z) - 1),
        (torch.atan, lambda z: 1.0 * torch.atan(z)),
        (lambda z: torch.clip(z, 0), F.relu),
        (lambda z: F.threshold(z, 0.0, 0.0), F.relu),
    ):
        same(dense(one), dense(two), data(5), 1e-9)


def hooked(kind: str) -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    if kind == "hook":
        net[1].register_forward_hook(lambda module, given, out: 2 * out)  # pyright: ignore
    elif kind == "root":
        net.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    else:
        net[1].forward = torch.tanh
    return net


@pytest.mark.parametrize("kind", ["hook", "root", "forward"])
def test_hooks_are_refused(kind):
    with pytest.raises(NoRuleError, match=r"has forward hooks or a forward of its own"):
        NTK(hooked(kind))


def test_modules_that_hide_their_layers():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    for wrapped in (torch.compile(net), nn.DataParallel(net)):
        with pytest.raises(NoRuleError, match=r"^module: \w+ hides the layers"):
            NTK(wrapped)  # pyright: ignore
    with pytest.raises(NoRuleError, match=r"^module: has lazy layers without shapes"):
        NTK(nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 1)), example=data(5))
    with pytest.raises(NoRuleError, match=r"^1 \(Dropout\): drops every channel"):
        NTK(nn.Sequential(nn.Linear(5, 8), nn.Dropout(1.0), nn.Linear(8, 1)))
    images = nn.Sequential(nn.Conv2d(2, 8, 2), nn.Dropout2d(0.1), nn.Flatten(), nn.Linear(8, 1))
    with pytest.raises(NoRuleError, match=r"^1 \(Dropout2d\): drops whole channels in training"):
        NTK(images, example=data(2, 2, 2))
    assert NTK(images.eval(), example=data(2, 2, 2)).network.event_shape == (2, 2, 2)


# -- rules of the user's own ---------------------------------------------------------------------


class Swap(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:  # nothing that can be traced
            return x.flip(1)
        return x.flip(1)


def test_a_rule_of_ones_own():
    @rule(Swap)
    def swap(module: nn.Module, x: Any) -> Any:
        return x.applied("neg", x)  # a channel is as good as another

    layers = [nn.Linear(5, 8), Swap(), nn.Tanh(), nn.Linear(8, 1)]
    plain = nn.Sequential(layers[0], *layers[2:])
    same(plain, nn.Sequential(*layers), data(5), 1e-13)
    assert "Swap" in supported()
    with pytest.raises(TypeError, match=r"^rule: expected classes of modules.*got 3"):
        rule(3)


class Doubled(nn.Linear):
    """A linear layer with a forward of its own: it is entered, not taken for its base."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * F.linear(input, self.weight, self.bias)


def test_a_subclass_with_its_own_forward_is_entered():
    net = nn.Sequential(Doubled(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))
    plain = nn.Sequential(nn.Linear(5, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False))
    x = data(5)
    for a, b in zip(kernels(net, x), kernels(plain, x), strict=True):
        torch.testing.assert_close(a, 4 * b, rtol=1e-13, atol=1e-13)


# -- what stays untouched ------------------------------------------------------------------------


def test_the_module_stays_as_it_is():
    net = nn.Sequential(
        nn.Linear(5, 8), nn.LayerNorm(8), nn.Dropout(0.1), nn.ReLU(), nn.Linear(8, 1)
    )
    net = nn.Sequential(net[0], net[1], net[4])
    net[1].eval()
    before = copy.deepcopy(net.state_dict())
    names, modes = list(vars(net)), [m.training for m in net.modules()]
    state = torch.get_rng_state()
    NTK(net)
    assert torch.equal(state, torch.get_rng_state())
    assert [m.training for m in net.modules()] == modes and list(vars(net)) == names
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_the_module_is_not_kept():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    parts = [weakref.ref(m) for m in net.modules() if not isinstance(m, nn.ReLU)]
    parts += [weakref.ref(p) for p in net.parameters()]
    k = NTK(net)
    del net
    gc.collect()
    assert [part() for part in parts] == [None] * len(parts)
    assert k(data(5)).shape == (3, 3)


def test_widths_do_not_matter():
    def make(width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 1))

    same(make(2), make(500), data(5))


def test_on_the_meta_device():
    with torch.device("meta"):
        net = nn.Sequential(nn.Conv2d(2, 10**4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(10**4, 1))
    small = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1))
    x = data(2, 3, 3)
    k = NTK(net, example=torch.empty(1, 2, 3, 3, device="meta"), **SCALES)
    torch.testing.assert_close(k(x), NTK(small, example=x, **SCALES)(x), rtol=0, atol=0)


def test_frozen_parameters_have_no_tangents():
    x = data(5)
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    nngp, whole = kernels(net, x)
    only = copy.deepcopy(net)
    only[0].requires_grad_(False)
    torch.testing.assert_close(kernels(only, x)[1], nngp)  # a trained read-out alone
    first = copy.deepcopy(net)
    first[2].requires_grad_(False)
    torch.testing.assert_close(kernels(first, x)[1] + nngp, whole)
    biases = copy.deepcopy(net)
    biases[0].weight.requires_grad_(False)
    biases[2].weight.requires_grad_(False)
    weights = copy.deepcopy(net)
    weights[0].bias.requires_grad_(False)
    weights[2].bias.requires_grad_(False)
    torch.testing.assert_close(kernels(biases, x)[1] + kernels(weights, x)[1], whole)
    none = kernels(copy.deepcopy(net).requires_grad_(False), x)[1]
    assert torch.equal(none, torch.zeros(3, 3, dtype=torch.float64))


def test_a_network_is_a_value():
    net = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    one, two = read(net), read(copy.deepcopy(net))
    assert one == two and hash(one) == hash(two)
    assert repr(one) == "Network(5: Affine, relu, Affine)"
    assert Network.from_config(one.to_config()) == one


def test_a_function_is_computed_once():
    """A signal that two branches take has one dual, whoever comes first."""
    net = Net(
        lambda m, x: m.c((lambda h: m.a(h) + m.b(h))(F.relu(m.one(x)))),
        one=nn.Linear(5, 8),
        a=nn.Linear(8, 8),
        b=nn.Linear(8, 8),
        c=nn.Linear(8, 1),
    )
    kinds = [type(op).__name__ for op in read(net).operations]
    assert kinds.count("Pointwise") == 1 and kinds.count("Input") == 1


# -- refusals ------------------------------------------------------------------------------------


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) if x.sum() > 0 else x


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5))
    net[2].weight = net[0].weight  # pyright: ignore
    return net


def normalised() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(5, 5)), nn.Linear(5, 1))


def twice() -> nn.Module:
    layer = nn.Linear(5, 5)
    return nn.Sequential(layer, nn.ReLU(), layer)


L = nn.Linear
IMAGE = (2, 4, 4)
REFUSED: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "batch norm": (
        lambda: nn.Sequential(L(5, 8), nn.BatchNorm1d(8), L(8, 1)),
        (5,),
        r"^1 \(BatchNorm1d\): batch normalisation ties the inputs",
    ),
    "max pooling": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.MaxPool2d(2), nn.Flatten(), L(8, 1)),
        IMAGE,
        r"^1 \(MaxPool2d\): the mean of a maximum over positions",
    ),
    "maximum": (
        lambda: Net(lambda m, x: m.b(m.a(x).max(1).values), a=L(5, 8), b=L(8, 1)),
        (3, 5),
        r"^max: the mean of a maximum",
    ),
    "softmax": (
        lambda: nn.Sequential(L(5, 8), nn.Softmax(1), L(8, 1)),
        (5,),
        r"^1 \(Softmax\): a softmax over channels",
    ),
    "attention": (
        lambda: nn.Sequential(L(5, 8), nn.TransformerEncoderLayer(8, 2, batch_first=True)),
        (3, 5),
        r"^1 \(TransformerEncoderLayer\): scores divided by the root.*SelfAttention",
    ),
    "recurrence": (
        lambda: nn.Sequential(L(5, 8), nn.LSTM(8, 8)),
        (3, 5),
        r"^1 \(LSTM\): a recurrence",
    ),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.InstanceNorm2d(8), nn.Flatten(), L(32, 1)),
        IMAGE,
        r"^1 \(InstanceNorm2d\): each channel is normalised",
    ),
    "norm of each channel": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(8, 8), nn.Flatten(), L(32, 1)),
        IMAGE,
        r"^1 \(GroupNorm\): normalises each channel on its own",
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(9, 8), L(8, 1)),
        (5,),
        r"^0 \(Embedding\): an embedding of words",
    ),
    "trained slope": (
        lambda: nn.Sequential(L(5, 8), nn.PReLU(), L(8, 1)),
        (5,),
        r"^1 \(PReLU\): a trained slope has no rule; use LeakyReLU",
    ),
    "no rule": (
        lambda: nn.Sequential(L(5, 8), nn.Bilinear(8, 8, 8), L(8, 1)),
        (5,),
        r"(?s)^1 \(Bilinear\): Bilinear has no rule.*supported\(\).*explain.*rule",
    ),
    "no rule of a function": (
        lambda: Net(lambda m, x: m.b(torch.cumsum(m.a(x), 1)), a=L(5, 8), b=L(8, 1)),
        (5,),
        r"^cumsum: cumsum has no rule",
    ),
    "alike": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ConstantPad2d(1, 2.0), nn.Flatten()),
        IMAGE,
        r"ConstantPad2d has no rule",
    ),
    "activation of what is pooled": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Tanh(), nn.Flatten(), L(8, 1)
        ),
        IMAGE,
        r"^3 \(Tanh\): .*of what is not normal; an activation needs a layer",
    ),
    "a layer used twice": (twice, (5,), r"^0 \(Linear\): .*used more than once"),
    "tied layers": (tied, (5,), r"^2 \(Linear\): shares a parameter with '0'"),
    "a parametrization": (normalised, (5,), r"^0 \(\w+Linear\): its parameters are computed"),
    "control flow": (
        lambda: nn.Sequential(L(5, 5), Branches()),
        (5,),
        r"^module: the forward of '1' cannot be traced by torch.fx \(TraceError",
    ),
    "two inputs": (
        lambda: nn.Bilinear(5, 5, 1),
        (5,),
        r"takes a second input 'input2'; a kernel takes one",
    ),
    "two outputs": (
        lambda: Net(lambda m, x: (m.a(x), m.b(x)), a=L(5, 8), b=L(5, 8)),  # pyright: ignore
        (5,),
        r"^module: its forward returns tuple, expected one tensor",
    ),
    "positions left": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU()),
        IMAGE,
        r"^module: its output \(n, 8, 2, 2\) has positions left; flatten or average them",
    ),
    "no weights": (lambda: nn.Flatten(), IMAGE, r"^module: has no layer with weights"),
    "mixing positions": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Linear(2, 2), nn.Flatten()),
        IMAGE,
        r"^2 \(Linear\): takes axis 3 of a tensor \(n, 8, 2, 2\) for channels, which lie along",
    ),
    "a residual branch without weights": (
        lambda: Net(
            lambda m, x: (lambda h: m.b(F.relu(h) + F.relu(h).sum(1, keepdim=True)))(m.a(x)),
            a=L(5, 8),
            b=L(8, 1),
        ),
        (5,),
        r"^sum: picks or averages along axis 1, the channel axis",
    ),
    "residual of an activation": (
        lambda: Net(
            lambda m, x: (lambda h: m.b(h.mean(1) + F.relu(h).mean(1)))(m.a(x)),
            a=L(5, 8),
            b=L(8, 1),
        ),
        (3, 5),
        r"^add: adds signals that share the random weights of 'a': a residual branch",
    ),
    "a gain in a sum": (
        lambda: Net(
            lambda m, x: m.c(F.relu(m.n(m.a(x)) + m.b(x))),
            a=L(5, 8),
            b=L(5, 8),
            n=nn.LayerNorm(8),
            c=L(8, 1),
        ),
        (5,),
        r"relu of a sum .* after a normalisation whose gain is trained; freeze the gain",
    ),
    "splitting channels": (
        lambda: Net(lambda m, x: m.b(m.a(x).view(-1, 2, 4).mean(1)), a=L(5, 8), b=L(4, 1)),
        (5,),
        r"^view: reshapes \(n, 8\) to .*splits the channels",
    ),
    "the batch": (
        lambda: Net(lambda m, x: m.b(m.a(x).view(1, -1)), a=L(5, 8), b=L(8, 1)),
        (5,),
        r"^view: .*the batch must stay the first axis",
    ),
    "mean over the batch": (
        lambda: Net(lambda m, x: m.b(m.a(x).mean(0)), a=L(5, 8), b=L(8, 1)),
        (5,),
        r"^mean: changes the batch axis",
    ),
    "wrong channels": (
        lambda: nn.Sequential(L(5, 8), L(7, 1)),
        (5,),
        r"^1 \(Linear\): expects 7 channels along axis -1, got \(n, 8\)",
    ),
    "a window too large": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 5), nn.Flatten(), L(8, 1)),
        IMAGE,
        r"^0 \(Conv2d\): a window of \(5, 5\) does not fit \(4, 4\)",
    ),
    "a parameter outside of layers": (
        lambda: Net(lambda m, x: m.a(x) * m.a.bias, a=L(5, 8)),
        (5,),
        r"^mul: uses the parameter 'a.bias' outside of a layer; register a rule",
    ),
    "concatenated positions": (
        lambda: Net(
            lambda m, x: m.b(torch.cat([m.a(x), m.c(x)], 1).mean(1)),
            a=L(5, 8),
            b=L(8, 1),
            c=L(5, 8),
        ),
        (3, 5),
        r"^cat: concatenates along positions, which has no rule",
    ),
    "dropout of data": (
        lambda: nn.Sequential(nn.Dropout(0.1), L(5, 1)),
        (5,),
        r"^0 \(Dropout\): drops entries of data",
    ),
    "norm of data": (
        lambda: nn.Sequential(nn.LayerNorm(5), L(5, 1)),
        (5,),
        r"^0 \(LayerNorm\): normalises data",
    ),
    "random slopes": (
        lambda: nn.Sequential(L(5, 8), nn.RReLU(), L(8, 1)),
        (5,),
        r"^1 \(RReLU\): random slopes have no rule in training; call eval",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_says_so(name):
    make, shape, message = REFUSED[name]
    with pytest.raises(NoRuleError, match=message) as found:
        NTK(make(), example=torch.zeros(1, *shape))
    assert len(str(found.value)) < 500


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match=r"^module: expected a torch module, got int"):
        read(3)  # pyright: ignore
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(32, 1))
    with pytest.raises(ValueError, match=r"^example: needed, as the first layer with weights"):
        read(net)
    with pytest.raises(ValueError, match=r"^example: expected a tensor of shape .*got \(5,\)"):
        read(net, torch.zeros(5))
    with pytest.raises(ValueError, match=r"^example: expected a tensor of shape .*got tuple"):
        read(net, (1, 2, 4, 4))  # pyright: ignore
