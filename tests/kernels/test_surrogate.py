"""Surrogate derivatives: modules that use them, and duals of mixed pairs."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, jacfwd, jacrev, vmap

from mercer.kernels.activations import ErfActivation, PowerActivation
from mercer.kernels.dual import dual
from mercer.kernels.surrogate import _BY_NAME, SurrogateActivation, surrogate_derivative

SHEET = "infinite-surrogate-gradient-ntk"
PAIR = (1.3, 0.7, 0.45)


def tensors(*numbers):
    return [torch.tensor(x, dtype=torch.float64) for x in numbers]


def given_jump(surrogate, q11, q22, q12, height):
    """Height times the density of u at zero times the mean of the surrogate given u = 0."""
    x, w = np.polynomial.legendre.leggauss(400)
    cuts = [-1.0, 0.0, 1.0]
    deviation = math.sqrt(q22 - q12**2 / q11)
    ends = [-9 * deviation, *[c for c in cuts if abs(c) < 9 * deviation], 9 * deviation]
    total = 0.0
    for a, b in itertools.pairwise(ends):
        v = (a + b) / 2 + (b - a) / 2 * x
        density = np.exp(-(v**2) / (2 * deviation**2)) / math.sqrt(2 * math.pi) / deviation
        total += (b - a) / 2 * (w * density * surrogate(torch.tensor(v)).numpy()).sum()
    return height * total / math.sqrt(2 * math.pi * q11)


@pytest.mark.paper(SHEET, kind="exact", claim="Means of a delta times a surrogate.")
def test_numbers_of_the_sheet(evidence):
    qs = tensors(*PAIR)
    measured = {
        "sign, erf": (dual("sign", surrogate="erf")(*qs)[1], 0.5464),
        "sign, identity": (dual("sign", surrogate="identity")(*qs)[1], 0.69979),
    }
    slopes = ErfActivation(3.0), ErfActivation(1.5)
    other = dual(slopes[0], surrogate=lambda z: 3 / math.sqrt(math.pi) * torch.exp(-2.25 * z * z))
    measured["erf of slopes 3 and 1.5"] = other(*qs)[1], 0.6220
    for what, (ours, theirs) in measured.items():
        error = abs(float(ours) - theirs)
        evidence(required="<= 5e-5", measured=error, what=what)
        assert error <= 5e-5


@pytest.mark.paper(SHEET, kind="exact", claim="The true derivative as surrogate gives the NTK.")
def test_true_derivative_gives_the_dual(evidence):
    qs = tensors([1.3, 1.0, 2.0], [0.7, 1.0, 2.0], [0.45, -0.9, 2.0])
    expected = dual("erf")(*qs)
    for what, surrogate in (("closed", "erf"), ("series", _BY_NAME["erf"])):
        value, slope = dual("erf", surrogate=surrogate)(*qs)
        assert torch.equal(value, expected[0])
        error = float((slope - expected[1]).abs().amax())
        evidence(required="<= 1e-12", measured=error, what=what)
        assert error <= 1e-12
    tanh = dual("tanh", surrogate=lambda z: 1 - torch.tanh(z) ** 2)
    torch.testing.assert_close(tanh(*qs), dual("tanh")(*qs), rtol=0, atol=1e-12)


@pytest.mark.paper(SHEET, kind="exact", claim="A steep error function has the limits of the sign.")
def test_steep_error_function_is_nearly_the_sign(evidence):
    qs = tensors([1.3, 1.0, 2.0], [0.7, 1.0, 2.0], [0.45, -0.9, 1.0])
    for surrogate in ("erf", "identity"):
        steep = dual(ErfActivation(1e4), surrogate=surrogate)(*qs)
        sign = dual("sign", surrogate=surrogate)(*qs)
        error = max(float((a - b).abs().amax()) for a, b in zip(steep, sign, strict=True))
        evidence(required="<= 1e-6", measured=error, what=surrogate)
        assert error <= 1e-6


@pytest.mark.paper(SHEET, kind="exact", claim="Smallest eigenvalue on 12 points of the circle.")
def test_smallest_eigenvalue_on_the_circle(evidence):
    angle = 2 * math.pi * torch.arange(12, dtype=torch.float64) / 12
    x = torch.stack([angle.cos(), angle.sin()], -1)
    w, b = 1.0, 0.01
    nngp = w * x @ x.T / 2 + b
    kernel, found = nngp, dual("sign", surrogate="erf")
    for _ in range(2):
        q = nngp.diagonal()
        value, slope = found(q[:, None], q[None], nngp)
        nngp = w * value + b
        nngp = nngp.diagonal_scatter(w * found.diagonal(q)[0] + b)
        kernel = nngp + w * slope * kernel
    least = float(torch.linalg.eigvals(kernel).real.min())
    evidence(required="0.72 (two digits)", measured=least)
    assert abs(least - 0.72) <= 0.005


@pytest.mark.parametrize("surrogate", ["sigmoid", "triangle", "clipped", "erf", "identity", "sine"])
@pytest.mark.parametrize(("activation", "height"), [("sign", 2.0), ("step", 1.0)])
def test_jump_with_any_surrogate(activation, height, surrogate):
    found = dual(activation, surrogate=surrogate)
    expected = given_jump(surrogate_derivative(surrogate), *PAIR, height)
    assert abs(float(found(*tensors(*PAIR))[1]) - expected) <= 1e-10
    assert found.method == ("closed form" if surrogate in ("erf", "identity") else "quadrature")
    qs = [q.requires_grad_() for q in tensors([1.3, 1.0], [0.7, 2.0], [0.45, -0.3])]
    assert torch.autograd.gradcheck(lambda *q: found(*q), qs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(vmap(found)(*qs), found(*qs))


def test_rows_take_the_derivative_and_columns_the_surrogate():
    q11, q22, q12 = tensors(1.3, 0.7, 0.45)
    row, column = (dual("sign", surrogate="erf")(*q, q12)[1] for q in ((q11, q22), (q22, q11)))
    gap = 1.3 * 0.7 - 0.45**2
    assert abs(row - 2 / math.pi * (gap + 1.3 / 2) ** -0.5) <= 1e-14
    assert abs(column - 2 / math.pi * (gap + 0.7 / 2) ** -0.5) <= 1e-14


@pytest.mark.parametrize("surrogate", ["sigmoid", "triangle", "clipped"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "hardshrink"])
def test_any_activation_with_any_surrogate(activation, surrogate):
    """Against draws for functions; for jumps, with what the deltas add."""
    from mercer._core.activation import resolve_activation
    from tests.kernels.dual_references import values_and_slopes

    _, slope = dual(activation, surrogate=surrogate)(*tensors(*PAIR))
    q11, q22, q12 = PAIR
    z = np.random.default_rng(0).standard_normal((2, 10**6))
    u = math.sqrt(q11) * z[0]
    v = q12 / math.sqrt(q11) * z[0] + math.sqrt(q22 - q12**2 / q11) * z[1]
    chi = surrogate_derivative(surrogate)
    draws = values_and_slopes(resolve_activation(activation), u)[1] * chi(torch.tensor(v)).numpy()
    extra = 0.0
    if activation == "hardshrink":
        for place in (-0.5, 0.5):  # each jumps up by one half
            density = math.exp(-(place**2) / (2 * q11)) / math.sqrt(2 * math.pi * q11)
            given = q12 / q11 * place + math.sqrt(q22 - q12**2 / q11) * z[1]
            extra += 0.5 * density * float(chi(torch.tensor(given)).mean())
    assert abs(float(slope) - draws.mean() - extra) <= 5 * draws.std() / 1e3 + 1e-3 * (extra > 0)
    # near the diagonal and on it, where panels take over
    q = torch.tensor(1.2, dtype=torch.float64)
    near = dual(activation, surrogate=surrogate)(q, q, q)[1]
    torch.testing.assert_close(near, dual(activation, surrogate=surrogate).diagonal(q)[1])


def test_diagonal():
    q = torch.tensor([0.5, 2.0], dtype=torch.float64)
    for surrogate in ("erf", "identity", "sigmoid"):
        found = dual("sign", surrogate=surrogate)
        torch.testing.assert_close(found.diagonal(q), found(q, q, q))
    value, slope = dual("sign", surrogate="erf").diagonal(q)
    assert torch.equal(value, torch.ones_like(q))
    torch.testing.assert_close(slope, 2 / math.pi * (q / 2) ** -0.5)


def test_zero_inputs_have_an_infinite_slope_and_finite_gradients():
    qs = [q.requires_grad_() for q in tensors([0.0], [1.0], [0.0])]
    value, slope = dual("sign", surrogate="identity")(*qs)
    assert value.item() == 0 and slope.item() == math.inf
    for gradient in torch.autograd.grad(value.sum(), qs):
        assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", sorted(_BY_NAME))
def test_module_keeps_values_and_replaces_the_derivative(name):
    module = SurrogateActivation("sign", name)
    z = torch.linspace(-2, 2, 9, dtype=torch.float64).requires_grad_()
    y = module(z)
    assert torch.equal(y, z.detach().sign())
    expected = surrogate_derivative(name)(z.detach())
    assert torch.equal(torch.autograd.grad(y.sum(), z)[0], expected)
    for jacobian in (jacfwd(module)(z.detach()), jacrev(module)(z.detach())):
        assert torch.equal(jacobian.diagonal(), expected)
    assert torch.equal(vmap(grad(module))(z.detach()), expected)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(z), y)
    assert repr(module) == f"SurrogateActivation(activation=sign, surrogate={name!r})"


def test_module_compiles_and_takes_functions():
    module = SurrogateActivation(PowerActivation(0), torch.cos)
    z = torch.linspace(-2, 2, 9, requires_grad=True)
    y = torch.compile(module, fullgraph=True, backend="aot_eager")(z)
    assert torch.equal(y, (z > 0).float())
    assert torch.equal(torch.autograd.grad(y.sum(), z)[0], torch.cos(z.detach()))


def test_module_trains_a_network_of_signs():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 64), SurrogateActivation("sign", "erf"), nn.Linear(64, 1))
    x = torch.randn(64, 2)
    y = x[:, :1] * x[:, 1:]
    before = nn.functional.mse_loss(net(x), y).item()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
    assert nn.functional.mse_loss(net(x), y).item() < 0.2 * before


def test_dual_reads_the_surrogate_of_a_module():
    found = dual(SurrogateActivation("sign", "erf"))
    assert repr(found) == "Dual(sign, surrogate='erf', method='closed form')"
    qs = tensors(*PAIR)
    assert found(*qs) == dual("sign", surrogate="erf")(*qs)


def test_bad_input():
    with pytest.raises(ValueError, match=r"surrogate: expected one of \['clipped', 'erf'"):
        SurrogateActivation("sign", "arctan")
    with pytest.raises(TypeError, match="surrogate: expected a name or a callable, got float"):
        dual("sign", surrogate=1.0)
    with pytest.raises(ValueError, match="activation: unknown"):
        SurrogateActivation("signum")
