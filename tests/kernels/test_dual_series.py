"""Duals of activations without a closed form: series and panels against other quadratures."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mercer._core.activation import resolve_activation
from mercer.kernels.activations import PowerActivation
from mercer.kernels.dual import dual
from mercer.kernels.dual_mesh import Profile, gauss_legendre, make_mesh
from mercer.kernels.dual_quadrature import pair_mean
from mercer.kernels.dual_series import Side, series_dual
from tests.kernels.dual_references import PAIRS, by_gauss_hermite, by_monte_carlo, by_pieces

ISSUE = "infinite-neural-tangent-kernel"
SMOOTH = ["tanh", "silu", "softplus", "sigmoid", "mish", "gelu_tanh", "quick_gelu", "logsigmoid"]
KINKS = {
    "elu": ("elu", [0.0]),
    "elu_half": (nn.ELU(0.5), [0.0]),
    "selu": ("selu", [0.0]),
    "celu": (nn.CELU(2.0), [0.0]),
    "softsign": ("softsign", [0.0]),
    "hardtanh": (nn.Hardtanh(-0.37, 1.2), [-0.37, 1.2]),
    "hardswish": ("hardswish", [-3.0, 3.0]),
    "hardsigmoid": ("hardsigmoid", [-3.0, 3.0]),
    "relu6": ("relu6", [0.0, 6.0]),
    "softshrink": ("softshrink", [-0.5, 0.5]),
    "tanhshrink": ("tanhshrink", []),
}
# Variances up to four and every kind of correlation, the ends too.
HARD = [(4.0, 4.0, 3.996), (4.0, 1.0, -1.99), (1.0, 1.0, 0.999999), (0.01, 4.0, 0.1)]


def exact(name):
    """The activation itself, but for one whose backward in torch has a sixth in float32."""
    if name == "hardsigmoid":
        return lambda z: (z + 3).clamp(0, 6) / 6
    return resolve_activation(KINKS.get(name, (name,))[0])


def tensors(*numbers):
    return [torch.tensor(x, dtype=torch.float64) for x in numbers]


@pytest.mark.paper(ISSUE, kind="exact", claim="tanh, SiLU, softplus and more by series to 1e-9.")
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_series_against_gauss_hermite(name, evidence):
    found = dual(name)
    assert found.method == "series"
    activation = resolve_activation(name)
    worst = 0.0
    for pair in [*PAIRS, (1.0, 1.0, 1.0), (1.0, 1.0, -1.0)]:
        value, slope = found(*tensors(*pair))
        expected = by_gauss_hermite(activation, *pair, nodes=250)
        worst = max(worst, abs(value - expected[0]), abs(slope - expected[1]))
    evidence(required="<= 1e-9", measured=float(worst))
    assert worst <= 1e-9


@pytest.mark.paper(ISSUE, kind="exact", claim="ELU and other kinked activations to 1e-9.")
@pytest.mark.parametrize("name", ["tanh", "silu", "softplus", *KINKS])
def test_series_against_panels(name, evidence):
    activation, kinks = KINKS.get(name, (name, []))
    found, activation = dual(activation), exact(name)
    worst = 0.0
    for pair in [PAIRS[2], *HARD[:2]]:
        for which, ours in enumerate(found(*tensors(*pair))):
            worst = max(worst, abs(float(ours) - by_pieces(activation, *pair, kinks, which)))
    evidence(required="<= 1e-9", measured=worst)
    assert worst <= 1e-9


@pytest.mark.slow
@pytest.mark.paper(ISSUE, kind="exact", claim="Kinked activations against Monte Carlo draws.")
@pytest.mark.parametrize("name", KINKS)
def test_series_against_monte_carlo(name, evidence):
    activation = resolve_activation(KINKS[name][0])
    for pair in (PAIRS[0], HARD[0]):
        value, slope = dual(activation)(*tensors(*pair))
        mean, error, slope_mean, slope_error = by_monte_carlo(activation, *pair, draws=10**7)
        for what, ours, theirs, one in (
            ("K", value, mean, error),
            ("Kdot", slope, slope_mean, slope_error),
        ):
            distance = abs(float(ours) - theirs) / one
            evidence(
                required="<= 4", measured=distance, what=f"{what} in standard errors at {pair}"
            )
            assert distance <= 4


@pytest.mark.parametrize(
    "name", ["relu", "leaky_relu", "abs", "gelu", "erf", "sin", "cos", "gaussian", "square"]
)
def test_series_agrees_with_closed_forms(name):
    qs = tensors(*zip(*PAIRS, *HARD, (4, 4, 4), (2, 2, -2), (100, 100, 80), strict=True))
    side = Side(Profile(resolve_activation(name).function))
    expected = dual(name)(*qs)
    for ours, closed in zip(series_dual(side, side, *qs), expected, strict=True):
        scale = closed.abs().clamp(min=1.0)
        assert ((ours - closed).abs() / scale).amax() <= 1e-12


@pytest.mark.parametrize("order", [0, 1])
def test_formal_slope_of_a_jump(order):
    """The derivative of K, as the closed form has it, through deltas in two ways."""
    qs = tensors(*zip(*PAIRS, (1.0, 1.0, 0.999), (2.0, 0.5, -0.99), strict=True))
    side = Side(Profile(resolve_activation("sign" if order else "step").function))
    value, slope = series_dual(side, side, *qs)
    expected = dual("sign" if order else "step")(*qs)
    torch.testing.assert_close(value, expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(slope, expected[1], rtol=1e-8, atol=1e-9)


def test_hardshrink_is_the_integral_of_its_formal_slope():
    """Two kinds of jumps: K between two covariances from Kdot by Gauss-Legendre."""
    found = dual("hardshrink")
    q11, q22 = tensors(1.3, 0.8)
    low, high = tensors(0.2, 0.9)
    x, w = gauss_legendre(24)
    middle, half = (low + high) / 2, (high - low) / 2
    integral = (found(q11, q22, middle + half * x)[1] * w).sum() * half
    difference = found(q11, q22, high)[0] - found(q11, q22, low)[0]
    assert abs(integral - difference) <= 1e-10
    assert bool(found(q11, q11, q11)[0].isfinite()) and found.diagonal(q11)[1] == math.inf


@pytest.mark.parametrize("name", ["tanh", "softplus", *KINKS])
def test_derivatives(name):
    found = dual(KINKS.get(name, (name,))[0])
    qs = [q.requires_grad_() for q in tensors([0.3], [2.0], [0.7])]
    assert torch.autograd.gradcheck(lambda *q: found(*q), qs, atol=1e-6, rtol=1e-5)
    value, slope = found(*qs)
    (by_price,) = torch.autograd.grad(value.sum(), qs[2], create_graph=True)
    torch.testing.assert_close(by_price, slope, rtol=1e-13, atol=1e-13)
    for second in torch.autograd.grad(by_price.sum(), qs):
        assert bool(second.isfinite().all())


@pytest.mark.parametrize("name", ["tanh", "silu", *KINKS])
def test_diagonal_and_degenerate_inputs(name):
    found = dual(KINKS.get(name, (name,))[0])
    q = torch.tensor([0.0, 1e-12, 0.3, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    exact, pair = found.diagonal(q), found(q, q, q)
    for a, b in zip(exact, pair, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-25)
    (expected,) = torch.autograd.grad(exact[0][2:].sum(), q)
    (along,) = torch.autograd.grad(pair[0][2:].sum(), q)
    torch.testing.assert_close(along, expected, rtol=1e-10, atol=1e-11)
    qs = tensors([1, 1, 4, 0, 0], [1, 1, 1, 1, 0], [1, -1, 2, 0, 0])
    qs = [q.double().requires_grad_() for q in qs]
    value, slope = found(*qs)
    assert bool(value.isfinite().all()) and bool(slope.isfinite().all())
    for term in (value.sum(), slope.sum()):
        for gradient in torch.autograd.grad(term, qs, retain_graph=True):
            assert bool(gradient.isfinite().all())


@settings(max_examples=15, deadline=None)
@given(s=st.floats(0.1, 3), t=st.floats(0.1, 3), rho=st.floats(-1, 1))
def test_panels_agree_with_series_anywhere(s, t, rho):
    """The twin: every entry by panels, for an activation that the series finds easy."""
    profile = Profile(resolve_activation("sigmoid").function)
    edges = make_mesh(profile, 64.0).edges
    s1, s2, r = (torch.tensor([x], dtype=torch.float64) for x in (s, t, rho))
    by_panels = pair_mean(profile, profile, (edges, edges), (), s1, s2, r)
    value, _ = dual("sigmoid")(s1**2, s2**2, s1 * s2 * r)
    torch.testing.assert_close(value, by_panels, rtol=0, atol=1e-12)


def rough(z):
    return (z - 0.3).abs() * torch.cos(z)


def test_kinks_of_a_function_are_found():
    mesh = make_mesh(Profile(rough), 16.0)
    assert mesh.kinks == (0.3,) and mesh.jumps == ()
    jumping = make_mesh(Profile(nn.Threshold(0.7, -1.0)), 16.0)
    assert [place for place, _ in jumping.jumps] == [0.7]
    assert abs(jumping.jumps[0][1] - 1.7) <= 1e-8
    many = make_mesh(Profile(lambda z: torch.sin(3 * z).abs()), 16.0)
    assert len(many.kinks) == 31
    expected = torch.arange(-15, 16, dtype=torch.float64) * math.pi / 3
    torch.testing.assert_close(
        torch.tensor(many.kinks, dtype=torch.float64), expected, rtol=0, atol=1e-12
    )


def test_functions_of_the_user():
    for pair in PAIRS[:2]:
        for which, ours in enumerate(dual(rough)(*tensors(*pair))):
            assert abs(float(ours) - by_pieces(rough, *pair, [0.3], which)) <= 1e-9


class NoGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z.clamp(min=0)


def test_derivative_of_the_user():
    found = dual(NoGradient.apply, derivative=lambda z: (z > 0).to(z.dtype))
    expected = dual("relu")(*tensors(*PAIRS[0]))
    torch.testing.assert_close(found(*tensors(*PAIRS[0])), expected, rtol=0, atol=1e-12)


def test_matrix_in_blocks_equals_its_entries():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(90, 4, generator=generator, dtype=torch.float64)
    q, s = x.square().sum(-1), x @ x.T
    value, slope = dual("tanh")(q[:, None], q[None], s)
    pick = torch.randint(0, 90, (2, 40), generator=generator)
    i, j = pick
    one, two = dual("tanh")(q[i], q[j], s[i, j])
    torch.testing.assert_close(value[i, j], one, rtol=0, atol=1e-12)
    torch.testing.assert_close(slope[i, j], two, rtol=0, atol=1e-12)
    single, _ = dual("tanh")(q[i].float(), q[j].float(), s[i, j].float())
    torch.testing.assert_close(single.double(), one, rtol=0, atol=1e-6)


def test_positive_on_any_points():
    """Kernels of one activation are positive semi-definite, zero inputs and repeated ones too."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(12, 3, generator=generator, dtype=torch.float64)
    x = torch.cat([x, torch.zeros(2, 3), x[:2], -x[:2]])
    q, s = x.square().sum(-1), x @ x.T
    for name in ("sign", "relu", "elu", "hardtanh", "gelu", PowerActivation(2)):
        value, slope = dual(name)(q[:, None], q[None], s)
        for matrix in (value,) if name == "sign" else (value, slope):
            assert torch.linalg.eigvalsh((matrix + matrix.T) / 2)[0] >= -1e-7


def test_what_cannot_be_resolved_raises():
    one = torch.ones(1, dtype=torch.float64)
    with pytest.raises(ValueError, match="activation: not resolved by"):
        dual(lambda z: torch.sin(1e5 * z))(one, one, one / 2)
    with pytest.raises(ValueError, match="activation: grows too fast"):
        dual(lambda z: torch.exp(z * z / 4))(one, one, one / 2)
    with pytest.raises(ValueError, match="q11, q22, q12: NaN or infinity"):
        dual("tanh")(one, one * math.nan, one / 2)
    with pytest.raises(ValueError, match="activation: NaN or infinity"):
        dual(lambda z: torch.log(z.clamp(min=-1)))(one, one, one / 2)


@pytest.mark.parametrize("activation", ["tanh", nn.ELU(0.5), nn.Hardtanh(-1, 2)], ids=repr)
def test_copies(activation):
    found = dual(activation)
    qs = tensors(*PAIRS[0])
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert twin(*qs) == found(*qs)


def test_huge_variances_are_refused():
    q = torch.tensor(1e60, dtype=torch.float64)
    with pytest.raises(ValueError, match="q11, q22: expected deviations of at most 1e12"):
        dual("tanh")(q, q, q / 2)
    q = torch.tensor(1e20, dtype=torch.float64)
    value, _ = dual("tanh")(q, q, q / 2)
    assert abs(float(value) - 1 / 3) <= 1e-9  # of signs: 2 asin(1 / 2) / pi
