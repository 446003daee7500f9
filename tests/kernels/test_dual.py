"""Every row of the table of duals, against means computed in other ways."""

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mercer._core.activation import BY_NAME, resolve_activation
from mercer.kernels.activations import (
    ErfActivation,
    ExponentialActivation,
    GaborActivation,
    GaussianActivation,
    HermiteActivation,
    PolynomialActivation,
    PowerActivation,
    SineActivation,
)
from mercer.kernels.dual import dual
from mercer.kernels.dual_power import power_pair
from tests.kernels.dual_references import PAIRS, by_gauss_hermite, by_monte_carlo, by_pieces

SHEET = "infinite-neural-tangent-kernel"
SMOOTH = {
    "identity": "identity",
    "erf": "erf",
    "erf_m": ErfActivation(1.2, 0.7, 0.2),
    "sigmoid_like": ErfActivation(1 / 2.4020563531719796, 0.5, 0.5),
    "sin": "sin",
    "cos": "cos",
    "sine": SineActivation(1.3, 0.8, 0.4),
    "rbf": SineActivation(math.sqrt(2 * 0.7), math.sqrt(2), math.pi / 4),
    "exp": "exp",
    "exponential": ExponentialActivation(-0.6, 1.4),
    "gaussian": "gaussian",
    "gaussian_b": GaussianActivation(1.0, 1.5),
    "gabor": GaborActivation(),
    "gelu": "gelu",
    "square": "square",
    "cube": PolynomialActivation((0.0, 0.0, 0.0, 1.0)),
    "fourth": PowerActivation(4, negative=1.0),
    "odd_power": PowerActivation(3, negative=-1.0),
    "hermite": HermiteActivation(4),
    "polynomial": PolynomialActivation((0.5, -1.0, 0.25)),
}
KINKED = {
    "relu": "relu",
    "leaky_relu": nn.LeakyReLU(0.1),
    "abs": "abs",
    "min_max": PowerActivation(1, negative=0.7, positive=1.3),
    "relu2": PowerActivation(2),
    "relu3": PowerActivation(3, negative=-0.5),
}
JUMPS = {"sign": "sign", "step": "step"}
GOLDEN = {
    "relu": "relu",
    "leaky_relu_0p1": nn.LeakyReLU(0.1),
    "abs": "abs",
    "erf": "erf",
    "gelu": "gelu",
    "sin": "sin",
    "cos": "cos",
    "gaussian": GaussianActivation(),
    "rbf_1": SineActivation(math.sqrt(2), math.sqrt(2), math.pi / 4),
    "exp": "exp",
    "sign": "sign",
    "sigmoid_like": ErfActivation(1 / 2.4020563531719796, 0.5, 0.5),
    "monomial3": PolynomialActivation((0, 0, 0, 1)),
    "rectified_monomial2": PowerActivation(2),
    "polynomial": PolynomialActivation((0.5, -1.0, 0.25)),
}


def tensors(*numbers, dtype=torch.float64):
    return [torch.tensor(x, dtype=dtype) for x in numbers]


@pytest.mark.paper(SHEET, kind="exact", claim="Smooth rows of the table of duals.")
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_row_against_quadrature(name, evidence):
    activation = SMOOTH[name]
    found = dual(activation)
    assert found.method == "closed form"
    worst = 0.0
    for pair in PAIRS:
        value, slope = found(*tensors(*pair))
        expected = by_gauss_hermite(resolve_activation(activation), *pair)
        scale = max(1.0, abs(expected[0]), abs(expected[1]))
        worst = max(worst, abs(value - expected[0]) / scale, abs(slope - expected[1]) / scale)
    evidence(required="<= 1e-10", measured=float(worst))
    assert worst <= 1e-10


@pytest.mark.parametrize("name", KINKED)
def test_kinked_row_against_panels(name):
    activation = resolve_activation(KINKED[name])
    for pair in PAIRS[:3]:
        value, slope = dual(activation)(*tensors(*pair))
        assert abs(value - by_pieces(activation, *pair, [0.0])) <= 1e-9
        assert abs(slope - by_pieces(activation, *pair, [0.0], which=1)) <= 1e-9


@pytest.mark.slow
@pytest.mark.paper(SHEET, kind="exact", claim="Rows of the table of duals with kinks or jumps.")
@pytest.mark.parametrize("name", {**KINKED, **JUMPS})
def test_kinked_row_against_monte_carlo(name, evidence):
    activation = resolve_activation({**KINKED, **JUMPS}[name])
    for pair in PAIRS[:3]:
        value, slope = dual(activation)(*tensors(*pair))
        mean, error, slope_mean, slope_error = by_monte_carlo(activation, *pair, draws=10**7)
        distance = abs(float(value) - mean) / error
        evidence(required="<= 4", measured=distance, what=f"K in standard errors at {pair}")
        assert distance <= 4
        if name in KINKED:  # the derivative of a jump is not seen by draws
            distance = abs(float(slope) - slope_mean) / slope_error
            evidence(required="<= 4", measured=distance, what=f"Kdot at {pair}")
            assert distance <= 4


@pytest.mark.parametrize("order", [1, 2])
def test_sheet_formulas_of_rectified_powers(order):
    q11, q22, q12 = tensors([1.3, 0.7, 2.0], [0.7, 1.3, 2.0], [0.45, -0.9, 1.2])
    p = (q11 * q22).sqrt()
    theta = torch.acos(q12 / p)
    if order == 1:
        expected = p * (theta.sin() + (math.pi - theta) * theta.cos()) / (2 * math.pi)
    else:
        angular = 3 * theta.sin() * theta.cos() + (math.pi - theta) * (1 + 2 * theta.cos() ** 2)
        expected = p**2 * angular / (2 * math.pi)
    value, _ = dual(PowerActivation(order))(q11, q22, q12)
    torch.testing.assert_close(value, expected, rtol=1e-13, atol=1e-14)


def test_sign_and_step_are_affine_in_the_angle():
    q11, q22, q12 = tensors([1.0, 2.0, 1.0], [1.0, 0.5, 1.0], [0.3, -0.8, 1.0])
    theta = torch.acos(q12 / (q11 * q22).sqrt())
    sign, slope = dual("sign")(q11, q22, q12)
    torch.testing.assert_close(sign, 1 - 2 * theta / math.pi, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(dual("step")(q11, q22, q12)[0], (1 + sign) / 4)
    gap = (q11 * q22 - q12**2).sqrt()
    torch.testing.assert_close(slope[:2], 2 / (math.pi * gap[:2]))
    assert slope[2] == math.inf


def test_hermite_polynomials_are_orthonormal():
    one, rho = tensors(1.0, 0.37)
    for degree in range(6):
        value, slope = dual(HermiteActivation(degree))(one, one, rho)
        assert abs(value - rho**degree) <= 1e-12
        assert abs(slope - degree * rho ** max(degree - 1, 0)) <= 1e-11


@given(order=st.integers(1, 5), a=st.floats(-2, 2), b=st.floats(-2, 2), rho=st.floats(-1, 1))
def test_power_of_order_k_integrates_the_one_below(order, a, b, rho):
    """Price's theorem, K at q12 = 0 and the diagonal fix K; here by finite steps of q12."""
    form = PowerActivation(order, a, b)
    q11, q22 = tensors(1.2, 0.8)
    q12 = torch.tensor(rho * 0.95 * math.sqrt(0.96), dtype=torch.float64)
    x, w = np.polynomial.legendre.leggauss(60)
    steps = torch.tensor((x + 1) / 2) * q12
    integral = (dual(form)(q11, q22, steps)[1] * torch.tensor(w / 2)).sum() * q12
    start, _ = dual(form)(q11, q22, torch.zeros_like(q12))
    value, _ = dual(form)(q11, q22, q12)
    assert abs(value - start - integral) <= 1e-6 * max(1.0, float(value.abs()))


EVERY = {**SMOOTH, **KINKED}


@pytest.mark.parametrize("name", EVERY)
def test_derivatives(name):
    """Of K by hand or autograd, and Price's theorem, against finite differences."""
    qs = [q.requires_grad_() for q in tensors([1.3, 0.5, 1.0], [0.7, 2.0, 1.0], [0.45, 0.99, -0.5])]
    found = dual(EVERY[name])
    assert torch.autograd.gradcheck(lambda *q: found(*q), qs, atol=1e-6, rtol=1e-5)
    assert torch.autograd.gradgradcheck(lambda *q: found(*q)[0], qs, atol=1e-5, rtol=1e-4)
    value, slope = found(*qs)
    (by_price,) = torch.autograd.grad(value.sum(), qs[2])
    torch.testing.assert_close(by_price, slope.detach(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", KINKED)
def test_derivatives_by_hand_are_those_of_the_plain_formula(name):
    form = {"relu": PowerActivation(1), "leaky_relu": PowerActivation(1, -0.1)}.get(name)
    form = form or (PowerActivation(1, 1.0) if name == "abs" else KINKED[name])
    qs = [q.requires_grad_() for q in tensors([1.3, 0.5], [0.7, 2.0], [0.45, -0.9])]
    for k in range(2):
        ours = torch.autograd.grad(dual(form)(*qs)[k].sum(), qs)
        plain = torch.autograd.grad(power_pair(form, *qs)[k].sum(), qs)
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", {**EVERY, **JUMPS})
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_diagonal_is_exact_and_degenerate_inputs_are_finite(name, dtype):
    found = dual({**EVERY, **JUMPS}[name])
    q = torch.tensor([1e-12, 0.3, 1.0, 4.0], dtype=dtype)
    eps = torch.finfo(dtype).eps
    exact, pair = found.diagonal(q), found(q, q, q)
    for a, b in zip(exact, pair, strict=True):
        torch.testing.assert_close(a, b, rtol=20 * eps, atol=0)
    # identical, opposite, collinear, one zero, both zero
    q11, q22, q12 = tensors([1, 1, 4, 0, 0], [1, 1, 1, 1, 0], [1, -1, 2, 0, 0], dtype=dtype)
    qs = [q.requires_grad_() for q in (q11, q22, q12)]
    value, slope = found(*qs)
    assert bool(value.isfinite().all())
    terms = [value.sum()] if name in JUMPS else [value.sum(), slope.sum()]
    for term in terms:
        for gradient in torch.autograd.grad(term, qs, retain_graph=True):
            assert bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", EVERY)
def test_derivative_along_the_diagonal(name):
    """What trains the variances of a network: q11 = q22 = q12 = q moving together."""
    found = dual(EVERY[name])
    q = torch.tensor([0.4, 1.0, 2.5], dtype=torch.float64, requires_grad=True)
    exact, _ = found.diagonal(q)
    (expected,) = torch.autograd.grad(exact.sum(), q)
    value, _ = found(q, q, q)
    (along,) = torch.autograd.grad(value.sum(), q)
    torch.testing.assert_close(along, expected, rtol=1e-12, atol=1e-13)
    step = 1e-5
    moved = (found.diagonal(q.detach() + step)[0] - found.diagonal(q.detach() - step)[0]) / 2 / step
    torch.testing.assert_close(along, moved, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", {**EVERY, **JUMPS})
def test_single_precision_near_the_diagonal(name):
    if name == "fourth":
        pytest.skip("its value is a polynomial without an angle")
    generator = torch.Generator().manual_seed(0)
    q11 = 0.5 + torch.rand(400, generator=generator)
    q22 = q11 * (1 + 1e-3 * torch.randn(400, generator=generator))
    near = 1 - 10 ** (-7 * torch.rand(400, generator=generator))
    q12 = torch.minimum((q11 * q22).sqrt() * near, (q11 * q22).sqrt() * (1 - 2e-7))
    found = dual({**EVERY, **JUMPS}[name])
    for k, (ours, double) in enumerate(
        zip(found(q11, q22, q12), found(q11.double(), q22.double(), q12.double()), strict=True)
    ):
        assert ours.dtype == torch.float32
        if name in JUMPS and k:
            continue  # 1 / D, of any size
        error = ((ours - double).abs() / double.abs().amax()).amax()
        assert error <= 1e-5


@pytest.mark.parametrize("activation", ["relu", "gelu", "erf", "tanh"])
def test_broadcasting_half_precision_and_inputs_kept(activation):
    found = dual(activation)
    q = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    q12 = 0.3 * torch.ones(3, 3, dtype=torch.float64)
    before = q12.clone()
    value, slope = found(q[:, None], q[None], q12)
    assert value.shape == slope.shape == (3, 3)
    assert torch.equal(q12, before)
    one, _ = found(q[2], q[0], q12[2, 0])
    torch.testing.assert_close(value[2, 0], one, rtol=1e-13, atol=1e-13)
    half, _ = found(q[:, None].bfloat16(), q[None].bfloat16(), q12.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), value, rtol=1e-2, atol=1e-2)
    empty, _ = found(q[:0, None], q[None], torch.zeros(0, 3, dtype=torch.float64))
    assert empty.shape == (0, 3)


@pytest.mark.parametrize("activation", ["relu", "erf", "gelu", "tanh", "elu"])
def test_tiny_and_huge_variances(activation):
    found = dual(activation)
    q11, q22, q12 = tensors([1e-12, 1e6], [2e-12, 2e6], [0.5e-12, 0.9e6])
    value, slope = found(q11, q22, q12)
    assert bool(value.isfinite().all()) and bool(slope.isfinite().all())
    point = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (gain,) = torch.autograd.grad(resolve_activation(activation)(point).sum(), point)
    if activation != "relu":  # linear near zero
        assert abs(value[0] / (gain**2 * q12[0]) - 1) <= 1e-5
    else:
        scaled, _ = found(q11[:1] * 1e12, q22[:1] * 1e12, q12[:1] * 1e12)
        assert abs(value[0] * 1e12 / scaled[0] - 1) <= 1e-14


@pytest.mark.parametrize("activation", [*SMOOTH.values(), *KINKED.values(), "tanh"], ids=repr)
def test_copies(activation):
    found = dual(activation)
    qs = tensors(*PAIRS[0])
    for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert twin(*qs) == found(*qs)
    assert repr(found) == f"Dual({found.activation!r}, method={found.method!r})"


@pytest.mark.parametrize("activation", ["relu", "gelu", "tanh", "sign"])
def test_transforms_of_torch(activation):
    from torch.func import grad, jacfwd, jacrev, vmap

    found = dual(activation)
    q11, q22, q12 = tensors([1.0, 2.0, 0.5], [1.5, 0.7, 0.8], [0.3, -0.2, 0.1])
    expected = found(q11, q22, q12)
    torch.testing.assert_close(vmap(found)(q11, q22, q12), expected)
    torch.testing.assert_close(vmap(lambda x: found(x, q22, q12))(q11)[0][1, 1], expected[0][1])
    forward = jacfwd(lambda x: found(q11, x, q12)[0])(q22)
    torch.testing.assert_close(forward, jacrev(lambda x: found(q11, x, q12)[0])(q22))
    by_price = vmap(grad(lambda x, y, z: found(x, y, z)[0], argnums=2))(q11, q22, q12)
    torch.testing.assert_close(by_price, expected[1])


@pytest.mark.parametrize("activation", ["relu", "gelu", "erf"])
def test_compiles_whole(activation):
    found = dual(activation)
    qs = [q.requires_grad_() for q in tensors([1.0, 2.0], [1.5, 0.7], [0.3, -0.2])]
    value, slope = torch.compile(lambda *q: found(*q), fullgraph=True, backend="aot_eager")(*qs)
    torch.testing.assert_close((value, slope), found(*qs))
    (by_price,) = torch.autograd.grad(value.sum(), qs[2])
    torch.testing.assert_close(by_price, slope.detach())


def golden(shared_data: Path):
    path = shared_data.parent / "golden" / "ntk.npz"
    if not path.is_file():
        pytest.skip(f"no golden values {path}")
    with np.load(path) as values:
        return dict(values)


# The file has no deep networks of these.
SHALLOW = {"exp", "monomial3", "rectified_monomial2", "polynomial"}


@pytest.mark.paper(SHEET, kind="exact", claim="Kernels of deep networks of neural-tangents 0.6.5.")
@pytest.mark.parametrize(
    ("name", "depth"), [(n, d) for n in GOLDEN for d in (1, 3) if d == 1 or n not in SHALLOW]
)
def test_networks_of_neural_tangents(name, depth, shared_data, evidence):
    values = golden(shared_data)
    x, y = torch.tensor(values["X1"]), torch.tensor(values["X2"])
    found, (w, b) = dual(GOLDEN[name]), (1.5**2, 0.1**2)
    tested = False
    for block, other in (("12", y), ("11", x)):
        q11, q22 = (w * z.square().mean(-1) + b for z in (x, other))
        s = w * x @ other.T / x.shape[1] + b
        t = s
        if block == "11":
            s = t = s.diagonal_scatter(q11)
        for _ in range(depth):
            value, slope = found(q11[:, None], q22[None], s)
            q11, q22 = (w * found.diagonal(q)[0] + b for q in (q11, q22))
            if block == "11":
                value = value.diagonal_scatter((q11 - b) / w)
            s = w * value + b
            t = s + w * slope * t
        for kind, ours in (("nngp", s), ("ntk", t)):
            key = f"dense{depth}_{name}/{kind}/{block}"
            if key not in values or (name == "sign" and kind == "ntk"):
                continue
            tested = True
            expected = torch.tensor(values[key])
            error = float((ours - expected).abs().amax() / expected.abs().amax())
            evidence(required="<= 1e-12", measured=error, what=f"{kind}, block {block}")
            assert error <= 1e-12
    assert tested


def test_bad_input():
    one = torch.ones(2)
    with pytest.raises(TypeError, match=r"q22: expected a torch\.Tensor, got float"):
        dual("relu")(one, 1.0, one)
    with pytest.raises(TypeError, match="q12: expected a floating-point tensor"):
        dual("relu")(one, one, torch.ones(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"q11, q22, q12: shapes do not broadcast, got q11 \(2,\)"):
        dual("relu")(one, torch.ones(3), one)
    with pytest.raises(TypeError, match=r"q: expected a torch\.Tensor"):
        dual("relu").diagonal(1.0)
    with pytest.raises(TypeError, match="derivative: expected a callable"):
        dual("relu", 3)
    with pytest.raises(ValueError, match="activation: unknown"):
        dual("rellu")
    for make, text in (
        (lambda: PowerActivation(-1), "order: expected an integer >= 0"),
        (lambda: PowerActivation(65), "order: expected at most 64"),
        (lambda: PolynomialActivation(()), "coefficients: expected at least one"),
        (lambda: HermiteActivation(65), "degree: expected at most 64"),
        (lambda: GaussianActivation(0.0), "rate: expected a number"),
        (lambda: ErfActivation(math.inf), "slope: expected a number"),
    ):
        with pytest.raises(ValueError, match=text):
            make()


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_name_has_a_dual(name):
    value, slope = dual(name)(*tensors(*PAIRS[0]))
    assert bool(value.isfinite()) and bool(slope.isfinite())
