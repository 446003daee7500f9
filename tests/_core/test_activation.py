"""Activations: every one of torch.nn, by name, module or callable."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from mercer._core.activation import BY_NAME, Activation, resolve_activation

Z = torch.linspace(-4, 4, 41, dtype=torch.float64)
EXTRA = {"Softmax": {"dim": -1}, "LogSoftmax": {"dim": -1}, "Softmin": {"dim": -1}}
ARGUMENTS = {"Threshold": (0.3, -1.0), "MultiheadAttention": (4, 2)}
# Not a function of one number, or with parameters of their own.
REFUSED = {"GLU", "LogSoftmax", "MultiheadAttention", "PReLU", "Softmax", "Softmax2d", "Softmin"}
OF_TORCH = sorted(nn.modules.activation.__all__)


def make(name):
    return getattr(nn, name)(*ARGUMENTS.get(name, ()), **EXTRA.get(name, {}))


@pytest.mark.parametrize("name", sorted(set(OF_TORCH) - REFUSED))
def test_torch_module_is_kept_and_comes_back_from_its_spec(name):
    module = make(name).eval()
    found = resolve_activation(module)
    again = resolve_activation(found.to_spec())
    assert again.to_spec() == found.to_spec()
    assert torch.equal(found(Z), module(Z)) and torch.equal(again(Z), module(Z))


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_module_that_is_not_elementwise_is_refused(name):
    with pytest.raises(ValueError, match=r"activation: .*(elementwise|fails on a float64 vector)"):
        resolve_activation(make(name))


@pytest.mark.parametrize(
    "module",
    [
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Hardtanh(-2.0, 3.0, inplace=True),
        nn.SiLU(inplace=True),
        nn.Threshold(0.5, 20, inplace=True),
        nn.ELU(0.3, inplace=True),
    ],
    ids=repr,
)
def test_inplace_modules_leave_their_input_alone(module):
    found = resolve_activation(module)
    z = Z.clone()
    value = found(z)
    assert torch.equal(z, Z) and torch.equal(value, module(Z.clone()))
    assert "inplace=True" not in found.to_spec()


def test_inplace_callable_is_elementwise():
    assert torch.equal(resolve_activation(torch.Tensor.square_)(Z.clone()), Z.square())


@given(slope=st.floats(-3, 3), alpha=st.floats(0.01, 10))
def test_module_arguments_survive_the_spec(slope, alpha):
    for module in (nn.LeakyReLU(slope), nn.ELU(alpha), nn.CELU(alpha), nn.Softplus(alpha)):
        again = resolve_activation(resolve_activation(module).to_spec())
        assert torch.equal(again(Z), module(Z))


def test_random_module_is_deterministic_and_the_original_keeps_its_mode():
    module = nn.RReLU()
    found = resolve_activation(module)
    assert module.training
    assert torch.equal(found(Z), F.rrelu(Z, training=False))


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_names(name):
    found = resolve_activation(name)
    assert found.to_spec() == repr(found) == name
    assert resolve_activation(found) is found
    assert resolve_activation(found.function).to_spec() == name
    value = found(Z)
    assert value.dtype == Z.dtype and value.shape == Z.shape
    for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found)):
        assert twin.spec == name and torch.equal(twin(Z), value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gaussian", torch.exp(-(Z**2) / 2)),
        ("gelu", Z * (1 + torch.erf(Z / 2**0.5)) / 2),
        ("gelu_tanh", 0.5 * Z * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (Z + 0.044715 * Z**3)))),
        ("quick_gelu", Z / (1 + torch.exp(-1.702 * Z))),
        ("silu", Z / (1 + torch.exp(-Z))),
        ("softplus", torch.log1p(torch.exp(Z))),
        ("relu", Z.clamp(min=0)),
        ("square", Z * Z),
        ("identity", Z),
        ("sin", torch.sin(Z)),
    ],
)
def test_names_mean_what_they_say(name, expected):
    torch.testing.assert_close(resolve_activation(name)(Z), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize(
    ("function", "name"),
    [(torch.relu, "relu"), (F.gelu, "gelu"), (torch.tanh, "tanh"), (F.sigmoid, "sigmoid")],
)
def test_functions_of_torch_have_a_name(function, name):
    assert resolve_activation(function).to_spec() == name


def test_identity_module():
    assert resolve_activation(nn.Identity()).to_spec() == "identity"


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("GELUActivation", "gelu"),
        ("NewGELUActivation", "gelu_tanh"),
        ("FastGELUActivation", "gelu_tanh"),
        ("QuickGELUActivation", "quick_gelu"),
        ("SiLUActivation", "silu"),
        ("MishActivation", "mish"),
        ("LinearActivation", "identity"),
    ],
)
def test_activations_of_transformers(name, spec):
    activations = pytest.importorskip("transformers.activations")
    if not hasattr(activations, name):
        pytest.skip(f"this transformers has no {name}")
    module = getattr(activations, name)()
    found = resolve_activation(module)
    assert found.to_spec() == spec
    torch.testing.assert_close(found(Z), module(Z), rtol=1e-12, atol=1e-12)


def test_own_callable_works_but_cannot_be_saved():
    def bump(z):
        return torch.exp(-z.abs())

    found = resolve_activation(bump)
    assert torch.equal(found(Z), bump(Z)) and repr(found) == "bump"
    with pytest.raises(ValueError, match=r"activation: the callable bump has no name"):
        found.to_spec()


def test_module_of_several_has_no_spec_that_would_not_come_back():
    found = resolve_activation(nn.Sequential(nn.ReLU(), nn.Tanh()))
    assert found.spec is None
    assert torch.equal(found(Z), Z.relu().tanh())


@pytest.mark.parametrize(
    "function",
    [
        lambda z: z.cumsum(-1),
        lambda z: z.softmax(-1),
        lambda z: z.sum(),
        lambda z: z[..., :2],
        lambda z: 3.0,
        lambda z: z.flip(0),
    ],
)
def test_callable_that_is_not_elementwise_is_refused(function):
    with pytest.raises(ValueError, match="is not an elementwise function"):
        resolve_activation(function)


@pytest.mark.parametrize(
    "text",
    [
        "GELU",
        "gleu",
        "",
        "Linear(3, 4)",
        "ELU(alpha=__import__('os').getcwd())",
        "ELU(alpha=0.5); ReLU()",
        "ELU(alpha=0.5)(1)",
        "ELU(wrong=1)",
        "modules.activation.ReLU()",
    ],
)
def test_unknown_text_is_refused_and_never_run(text):
    with pytest.raises(ValueError, match="activation: unknown"):
        resolve_activation(text)


@pytest.mark.parametrize("value", [None, 3, 1.5, ["relu"]])
def test_what_is_no_activation_is_refused(value):
    with pytest.raises(TypeError, match="activation: expected a name, a module"):
        resolve_activation(value)


def test_activation_is_frozen():
    with pytest.raises(AttributeError):
        Activation("relu", F.relu).spec = "gelu"


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_named_activations_pickle(name):
    again = pickle.loads(pickle.dumps(resolve_activation(name)))
    z = torch.linspace(-2, 2, 9)
    assert torch.equal(again(z), resolve_activation(name)(z))
