"""Critical points, susceptibilities and their scales, against closed forms and simulations."""

import math

import matplotlib
import pytest
import torch
from torch import nn

from mercer.infinite import (
    critical_init_,
    criticality,
    criticality_map,
    depth_scales,
    edge_of_chaos,
    layerwise_learning_rates,
    signal_propagation,
    susceptibilities,
)
from mercer.infinite.gaussian_moments import gaussian_moments
from mercer.kernels import ErfActivation, PolynomialActivation, dual

matplotlib.use("agg")
SHEET = "infinite-principles-dl-theory"


@pytest.mark.paper(
    SHEET, kind="exact", claim="Critical variances and fixed points of GELU and SiLU to 8 digits."
)
@pytest.mark.parametrize(
    ("name", "bias", "weight", "variance"),
    [
        ("gelu", 0.17292239, 1.98305826, (3 + 17**0.5) / 2),
        ("silu", 0.55514317, 1.98800468, 14.32017360),
    ],
)
def test_half_stable_constants(name, bias, weight, variance, evidence):
    found = criticality(name)
    assert found.kind == "half-stable"
    error = max(
        abs(found.b_std**2 - bias),
        abs(found.w_std**2 - weight),
        abs(found.variance - variance) / variance,
    )
    evidence(required="<= 6e-9, half of the last digit", measured=error)
    assert error <= 6e-9
    chi = susceptibilities(name, found.variance, w_std=found.w_std)
    assert abs(chi.parallel - 1) <= 1e-12 and abs(chi.perpendicular - 1) <= 1e-12


@pytest.mark.paper(
    SHEET, kind="exact", claim="The parallel susceptibility is the derivative of C_W g(K)."
)
@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "silu", "elu", "hardtanh", "sin"])
def test_parallel_susceptibility_is_a_derivative(name, evidence):
    k, step = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64), 1e-4
    g = dual(name).diagonal
    c_w = 1.7
    numerical = (
        8 * (g(k + step)[0] - g(k - step)[0]) - g(k + 2 * step)[0] + g(k - 2 * step)[0]
    ) * (c_w / (12 * step))
    found = susceptibilities(name, k, w_std=c_w**0.5)
    error = float((found.parallel - numerical).abs().max())
    # and the sheet's form, C_W / 2K^2 E[f^2 (z^2 - K)]
    m = gaussian_moments(name, k)
    by_parts = c_w / (2 * k * k) * (m.squared - k * m.second)
    error = max(error, float((found.parallel - by_parts).abs().max()))
    evidence(required="<= 1e-10", measured=error)
    assert error <= 1e-10
    torch.testing.assert_close(found.perpendicular, c_w * g(k)[1], rtol=1e-12, atol=0)


def test_moments_of_polynomials_are_exact():
    k = torch.tensor([0.5, 2.0], dtype=torch.float64)
    m = gaussian_moments(PolynomialActivation((0.0, 1.0, 1.0)), k)  # z + z^2
    expected = {
        "first": k,
        "second": k + 3 * k**2,
        "fourth": 3 * k**2 + 6 * 15 * k**3 + 105 * k**4,
        "gain": torch.ones(2).double(),
        "slope": 1 + 4 * k,
        "cross": 2 * 3 * k**2,
        "squared": 3 * k**2 + 15 * k**3,
        "growth": 1 + 6 * k,
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(m, name), value, rtol=1e-13, atol=0)


@pytest.mark.paper(SHEET, kind="exact", claim="Critical (C_b, C_W): ReLU (0, 2), tanh (0, 1).")
def test_closed_form_points(evidence):
    for name, kind, weight, rate in (
        ("relu", "scale-invariant", 2.0, 5.0),
        ("identity", "scale-invariant", 1.0, 2.0),
        ("tanh", "zero", 1.0, 2 / 3),
        ("sin", "zero", 1.0, 2 / 3),
        ("erf", "zero", math.pi / 4, 2 / 3),
    ):
        found = criticality(name)
        assert (found.kind, found.b_std) == (kind, 0.0)
        evidence(required=f"{weight:.6g}", measured=found.w_std**2, what=f"C_W of {name}")
        evidence(required=f"{rate:.6g}", measured=found.fluctuation_rate, what=f"rate of {name}")
        assert found.w_std**2 == pytest.approx(weight, rel=1e-14)
        assert found.fluctuation_rate == pytest.approx(rate, rel=1e-14)
    # PReLU-like slopes, from A_2 and A_4
    found = criticality(nn.LeakyReLU(0.3))
    a2, a4 = (1 + 0.09) / 2, (1 + 0.0081) / 2
    assert found.w_std**2 == pytest.approx(1 / a2, rel=1e-14)
    assert found.fluctuation_rate == pytest.approx(3 * a4 / a2**2 - 1, rel=1e-13)


def shifted(z):
    return torch.tanh(z + 0.3) - math.tanh(0.3)


@pytest.mark.parametrize("activation", ["tanh", "sin", "erf", ErfActivation(0.5, 2.0), shifted])
def test_power_of_the_zero_class_is_that_of_the_derivatives(activation):
    z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value, slopes = dual(activation).activation(z), []
    for _ in range(3):
        (value,) = torch.autograd.grad(value, z, create_graph=True)
        slopes.append(value.item())
    one, two, three = slopes
    a, b = three / one + 0.75 * (two / one) ** 2, three / one + (two / one) ** 2
    found = criticality(activation)
    assert a < 0 and found.kind == "zero"
    assert found.w_std == pytest.approx(1 / abs(one), rel=1e-12)
    assert found.perpendicular_power == pytest.approx(b / a, abs=1e-7)


def test_power_of_a_function_with_a_kink_is_that_of_its_propagation():
    found = signal_propagation("elu", 2000)
    assert 2000 * (1 - float(found.perpendicular[-1])) == pytest.approx(2.0, abs=0.02)
    assert criticality("elu").perpendicular_power == pytest.approx(2.0, abs=1e-8)


@pytest.mark.parametrize(
    "name", ["sigmoid", "softplus", "sign", "step", "square", "cos", "exp", "hardshrink"]
)
def test_no_critical_point(name):
    found = criticality(name)
    assert found.kind == "none" and found.reason
    assert math.isnan(found.w_std) and math.isnan(found.b_std)
    with pytest.raises(ValueError, match=r"activation: .* has no critical point"):
        found.plot()
    with pytest.raises(ValueError, match=f"w_std: {name} has no critical point"):
        signal_propagation(name, 3)


@pytest.mark.parametrize("name", ["relu", "tanh", "gelu", "elu"])
def test_skip_connections_scale_both_variances(name):
    plain, found = criticality(name), criticality(name, 0.8)
    assert found.kind == plain.kind
    assert found.w_std**2 == pytest.approx(0.36 * plain.w_std**2, rel=1e-12)
    assert found.b_std**2 == pytest.approx(0.36 * plain.b_std**2, rel=1e-12)
    if plain.kind == "half-stable":
        k = found.variance
        chi = susceptibilities(name, k, w_std=found.w_std, residual=0.8)
        assert abs(chi.parallel - 1) <= 1e-12 and abs(chi.perpendicular - 1) <= 1e-12
        after = signal_propagation(name, 3, variance=k, residual=0.8).variance
        assert after[-1] == pytest.approx(k, rel=1e-12)


def test_edge_of_chaos_of_the_literature():
    assert edge_of_chaos("tanh", 0.05**0.5) ** 2 == pytest.approx(1.76, abs=2e-3)
    assert edge_of_chaos("relu", 0.7) == pytest.approx(2**0.5)
    for name, bias in (("tanh", 0.3), ("erf", 1.0), ("elu", 0.2), ("sigmoid", 0.5), ("gelu", 1.0)):
        w = edge_of_chaos(name, bias)
        found = depth_scales(name, w, bias)
        assert found.perpendicular == pytest.approx(1.0, abs=1e-9)
        assert found.parallel <= 1 and found.correlation_scale > 1e6
    half = edge_of_chaos("tanh", 0.3, residual=0.6)
    chi = depth_scales("tanh", half, 0.3, 0.6)
    assert chi.perpendicular == pytest.approx(1.0, abs=1e-9)
    with pytest.raises(ValueError, match="b_std: for gelu there is no fixed point"):
        edge_of_chaos("gelu", 0.1)


@pytest.mark.parametrize(("w", "b"), [(1.2, 0.2), (2.0, 0.3)])
def test_depth_scales_are_those_of_the_propagation(w, b):
    scales = depth_scales("tanh", w, b)
    start = scales.correlation - 1e-4
    found = signal_propagation(
        "tanh", 12, w_std=w, b_std=b, variance=scales.variance, correlation=start
    )
    gap = scales.correlation - found.correlation
    assert scales.correlation_scale == pytest.approx(float(-1 / (gap[6] / gap[5]).log()), rel=1e-2)
    moved = signal_propagation("tanh", 12, w_std=w, b_std=b, variance=1.01 * scales.variance)
    gap = moved.variance - scales.variance
    assert scales.norm_scale == pytest.approx(float(-1 / (gap[6] / gap[5]).log()), rel=1e-2)
    assert scales.gradient_scale == pytest.approx(1 / abs(math.log(scales.perpendicular)))


def test_depth_scales_where_the_variance_has_no_limit():
    assert depth_scales("relu", 1.6, 0.3).variance == math.inf
    assert depth_scales("relu", 1.2).variance == 0.0
    vanishing = depth_scales("tanh", 0.9)
    assert vanishing.variance == 0.0 and vanishing.perpendicular == pytest.approx(0.81)
    critical = criticality("gelu")
    # Half-stable: reached from above; from below there is a stable point just before it.
    found = depth_scales("gelu", critical.w_std, critical.b_std, variance=6.0)
    assert found.variance == pytest.approx(critical.variance, rel=1e-2)
    assert found.gradient_scale > 3e3
    found = depth_scales("gelu", critical.w_std, critical.b_std, variance=2.0)
    deep = signal_propagation("gelu", 2, variance=found.variance)
    assert 3.0 < found.variance < 3.1 and abs(float(deep.variance.diff())) < 1e-12
    assert found.parallel < 1


def test_learning_rates_make_layers_contribute_alike():
    depth = 400
    for name, start in (("relu", 4.0), ("tanh", 4.0), ("gelu", criticality("gelu").variance)):
        rates = layerwise_learning_rates(name, depth)
        found = signal_propagation(name, depth, rates=rates, variance=start)
        # What layer l adds to the kernel of the output: its rate times all later slopes.
        later = found.perpendicular.flip(0).cumprod(0).flip(0)[1:]
        seen = gaussian_moments(name, found.variance).second
        shares = rates.bias[1:] + rates.weight[1:] * seen[:-1]
        shares[:-1] *= later[:-1]
        ratio = shares[depth // 4 : -1].amax() / shares[depth // 4 : -1].amin()
        assert float(ratio) < 1.03, name
        assert rates.weight[-1] == pytest.approx(1 / depth if name != "tanh" else 1.0, rel=1e-6)
    assert float(layerwise_learning_rates("tanh", 8).weight.amax()) == pytest.approx(1.0, abs=1e-6)


def test_learning_rates_of_an_optimiser_make_the_predicted_kernel():
    """The weighted square of the gradient, over random networks, is the kernel of these rates."""
    depth, width = 4, 200
    rates = layerwise_learning_rates("tanh", depth)
    net = nn.Sequential(
        *[m for _ in range(depth) for m in (nn.Linear(width, width), nn.Tanh())][:-1]
    ).double()
    x = torch.randn(width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x *= (2.0 / x.square().mean()).sqrt()
    found = []
    for seed in range(60):
        critical_init_(net, generator=seed)
        net.zero_grad()
        net(x)[0].backward()
        groups = rates.groups(net, 0.5)
        found.append(sum(g["lr"] * g["params"][0].grad.square().sum() for g in groups))
    found = torch.stack(found) / 0.5
    expected = signal_propagation("tanh", depth, variance=2.0, rates=rates).ntk[-1]
    error = found.std() / 60**0.5
    assert abs(found.mean() - expected) <= 4 * error + 2 / width * expected
    assert error < 0.02 * expected
    torch.optim.SGD(groups, lr=1.0).step()
    with pytest.raises(ValueError, match="module: expected 4 layers with weights, found 1"):
        rates.groups(nn.Linear(2, 2), 0.1)
    with pytest.raises(ValueError, match="learning_rate: "):
        rates.groups(net, 0.0)


class TestCriticalInit:
    def net(self):
        return nn.Sequential(
            nn.Conv2d(4, 32, 3, groups=2), nn.GELU(), nn.Flatten(), nn.Linear(32 * 36, 200)
        )

    def test_variances(self):
        net = critical_init_(self.net(), generator=1)
        found = criticality("gelu")
        for layer, fan_in in ((net[0], 2 * 9), (net[3], 32 * 36)):
            weight = layer.weight.double().flatten() * fan_in**0.5 / found.w_std
            assert abs(weight.square().mean() - 1) < 5 * (2 / weight.numel()) ** 0.5
        bias = torch.cat([net[0].bias, net[3].bias]).double() / found.b_std
        assert abs(bias.square().mean() - 1) < 5 * (2 / len(bias)) ** 0.5

    def test_generator(self):
        state = torch.get_rng_state()
        one = critical_init_(self.net(), "relu", generator=3)
        torch.set_rng_state(state)
        before = torch.get_rng_state()
        two = self.net()
        after = torch.get_rng_state()
        critical_init_(two, "relu", generator=torch.Generator().manual_seed(3))
        assert torch.equal(torch.get_rng_state(), after) and not torch.equal(before, after)
        for a, b in zip(one.parameters(), two.parameters(), strict=True):
            assert torch.equal(a, b)
        assert not any(bool(layer.bias.any()) for layer in (one[0], one[3]))

    def test_refusals(self):
        with pytest.raises(TypeError, match="module: expected"):
            critical_init_("net")
        with pytest.raises(ValueError, match="module: ReLU holds none of"):
            critical_init_(nn.ReLU())
        with pytest.raises(ValueError, match="activation: expected one kind"):
            critical_init_(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh()))
        with pytest.raises(ValueError, match="w_std: sigmoid has no critical point"):
            critical_init_(self.net(), "sigmoid")
        with pytest.raises(ValueError, match=r"module: .* on the meta device"):
            critical_init_(nn.Sequential(nn.Linear(2, 2, device="meta")), "relu")


@pytest.mark.parametrize("name", ["tanh", "relu", "gelu", "elu"])
def test_map_is_that_of_single_points(name):
    w = torch.tensor([0.9, 1.3, 1.8], dtype=torch.float64)
    b = torch.tensor([0.2, 0.6], dtype=torch.float64)
    found = criticality_map(name, w, b)
    assert found.perpendicular.shape == (2, 3)
    for i, bias in enumerate(b.tolist()):
        for j, weight in enumerate(w.tolist()):
            one = depth_scales(name, weight, bias)
            if math.isinf(one.variance):
                assert math.isinf(found.variance[i, j])
                continue
            assert float(found.variance[i, j]) == pytest.approx(one.variance, rel=1e-6)
            assert float(found.parallel[i, j]) == pytest.approx(one.parallel, rel=1e-5)
            assert float(found.perpendicular[i, j]) == pytest.approx(one.perpendicular, rel=1e-5)
    edge = found.edge[found.edge.isfinite().all(-1)]
    at = edge[len(edge) // 2].tolist()
    assert edge_of_chaos(name, at[1]) == pytest.approx(at[0], rel=1e-6)


def test_figures():
    import matplotlib.pyplot as plt

    found = criticality_map("gelu", torch.linspace(1, 2, 5), torch.linspace(0, 1, 4))
    for what in ("perpendicular", "parallel"):
        ax = found.plot(what=what)
        assert ax.get_title() == "Order and chaos: gelu" and ax.get_xlabel() and ax.get_ylabel()
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert labels == ["edge of chaos, χ⊥ = 1", "critical point, χ∥ = χ⊥ = 1"]
    _, ax = plt.subplots()
    assert criticality("gelu").plot(ax) is ax
    top = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert max(top["χ∥, norm of one input"]) < 1.01  # touches one at the critical point
    assert criticality("relu").plot().get_xlabel()
    plt.close("all")


def test_bad_input():
    for call, error, text in (
        (lambda: criticality("rellu"), ValueError, "activation: unknown"),
        (lambda: criticality("relu", 1.0), ValueError, "residual: expected a number below 1"),
        (lambda: criticality("relu", -0.1), ValueError, "residual: "),
        (lambda: susceptibilities("relu", 0.0), ValueError, "variance: expected positive"),
        (lambda: susceptibilities("relu", "1"), TypeError, "variance: expected a number"),
        (lambda: susceptibilities("relu", math.nan), ValueError, "variance: 1 of 1"),
        (lambda: susceptibilities("exp", 1e4), ValueError, "activation: "),
        (lambda: edge_of_chaos("tanh", -1.0), ValueError, "b_std: "),
        (lambda: depth_scales("tanh", 0.0), ValueError, "w_std: "),
        (lambda: layerwise_learning_rates("sigmoid", 3), ValueError, "activation: sigmoid has no"),
        (lambda: layerwise_learning_rates("tanh", 0), ValueError, "depth: "),
        (lambda: criticality_map("sign"), ValueError, "activation: gradients of sign have no"),
        (lambda: criticality_map("tanh", torch.ones(2, 2)), ValueError, "w_std: expected 1 axes"),
        (lambda: criticality_map("tanh", -torch.ones(2)), ValueError, "w_std: expected numbers"),
        (lambda: criticality_map("tanh").plot(what="k"), ValueError, "what: "),
    ):
        with pytest.raises(error, match=text):
            call()
