"""Propagation to a depth and the corrections of finite width, against simulated networks."""

import itertools
import math

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from mercer.infinite import (
    NTK,
    LayerwiseRates,
    critical_init_,
    finite_width_report,
    optimal_depth,
    signal_propagation,
)
from mercer.kernels import dual
from mercer.kernels.dual_mesh import panel_nodes
from tests.contracts.probe import ProbeContract

matplotlib.use("agg")
SHEET = "infinite-principles-dl-theory"


def simulated(activation, width, layers, weight, residual=0.0, networks=20_000, seed=0):
    """V / K^2 at layers 1 to ``layers`` of networks of a width, with its standard errors.

    Given the layer before, W f(z) of one input is exactly normal with variance weight mean f^2.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw():
        return torch.randn(networks, width, generator=generator, dtype=torch.float64)

    z, found, errors = draw(), [], []
    for _ in range(layers):
        square, fourth = z.square().sum(-1), z.pow(4).sum(-1)
        apart = (square.square() - fourth) / (width * (width - 1))  # of neurons i and j
        k = square.mean() / width
        found.append(width * float(apart.mean() / k**2 - 1))
        errors.append(width * float(apart.std() / k**2) / networks**0.5)
        mean = dual(activation).activation(z).square().mean(-1, keepdim=True)
        z = (weight * mean).sqrt() * draw() + residual * z
    return torch.tensor(found), torch.tensor(errors)


@pytest.mark.paper(SHEET, kind="exact", claim="l K of critical tanh networks from K = 1/2.")
def test_variance_of_tanh_falls_as_one_over_the_layer(evidence):
    found = signal_propagation("tanh", 2001, variance=0.5).variance
    for layer, expected in ((100, 0.5035), (1000, 0.5008), (2000, 0.5005)):
        measured = layer * float(found[layer])
        evidence(required=f"{expected} to 5e-5", measured=measured, what=f"layer {layer}")
        assert abs(measured - expected) <= 5e-5


@pytest.mark.paper(
    SHEET, kind="exact", claim="V / K^2 grows by 3 A_4 / A_2^2 - 1 a layer, as 2 l / 3 for tanh."
)
def test_growth_of_the_four_point_function(evidence):
    for name, per_layer in (("identity", 2.0), ("relu", 5.0), ("abs", 2.0)):
        found = signal_propagation(name, 30).fluctuation
        error = float((found - per_layer * torch.arange(30)).abs().max())
        evidence(required="<= 1e-10", measured=error, what=name)
        assert error <= 1e-10
    found = float(signal_propagation("tanh", 2000).fluctuation[-1]) / 2000
    evidence(required="2/3 to 1%", measured=found, what="tanh at layer 2000")
    assert found == pytest.approx(2 / 3, rel=0.01)


@pytest.mark.paper(
    SHEET, kind="behaviour", claim="Networks of width 60: V / K^2 is predicted while L / n < 0.05."
)
@pytest.mark.parametrize(("name", "weight"), [("identity", 1.0), ("relu", 2.0), ("tanh", 1.0)])
def test_simulated_networks(name, weight, evidence):
    theory = signal_propagation(name, 6).fluctuation
    found, errors = simulated(name, 60, 6, weight, networks=40_000)
    for layer in (2, 3):
        ratio = float(found[layer - 1] / theory[layer - 1])
        noise = float(errors[layer - 1] / theory[layer - 1])
        evidence(required="1 to 10%", measured=ratio, what=f"layer {layer}")
        assert abs(ratio - 1) <= 0.1 + 2 * noise


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weight"), [("identity", 1.0), ("relu", 2.0), ("tanh", 1.0)])
def test_what_is_left_of_wider_networks_is_noise(name, weight):
    theory = signal_propagation(name, 6).fluctuation
    wider, noise = simulated(name, 480, 6, weight, networks=30_000)
    assert bool(((wider - theory).abs() <= 0.03 * theory + 4 * noise).all())


@pytest.mark.slow
@pytest.mark.paper(
    SHEET, kind="behaviour", claim="Residual ReLU networks: the formula with T has the increments."
)
def test_residual_networks(evidence):
    theory = signal_propagation("relu", 4, w_std=1.02**0.5, residual=0.7).fluctuation
    assert theory.diff().tolist() == pytest.approx([2.30, 3.23, 3.88], abs=5e-3)
    found, errors = simulated("relu", 300, 4, 1.02, residual=0.7, networks=60_000)
    for layer in (2, 3, 4):
        ratio = float(found[layer - 1] / theory[layer - 1])
        noise = float(errors[layer - 1] / theory[layer - 1])
        evidence(required="1 to 3% and 3 standard errors", measured=ratio, what=f"layer {layer}")
        assert abs(ratio - 1) <= 0.03 + 3 * noise


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Squared norms through 50 ReLU layers of width 300 keep their size at C_W = 2 alone.",
)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight", "low", "high"), [(2.0, 0.4, 1.0), (1.6, 0.7e-5, 6e-5), (2.4, 2e3, 1.2e4)]
)
def test_deep_networks(weight, low, high, evidence):
    layers = [nn.Sequential(nn.Linear(300, 300, bias=False), nn.ReLU()) for _ in range(50)]
    net = nn.Sequential(*layers)
    x = torch.randn(1, 300, generator=torch.Generator().manual_seed(1))
    ratios = []
    for seed in range(20):
        critical_init_(net, generator=seed)
        with torch.no_grad():
            norms, z = [], x
            for layer in net:
                pre = layer[0](z) * (weight / 2) ** 0.5
                norms.append(float(pre.double().square().sum()))
                z = layer[1](pre)
        ratios.append(norms[-1] / norms[0])
    median = float(torch.tensor(ratios).median())
    evidence(required=f"{low:g} to {high:g}", measured=median, what=f"C_W = {weight:g}")
    assert low <= median <= high


@pytest.mark.paper(
    SHEET, kind="exact", claim="Information-optimal L / n for 10 outputs: 0.04, 0.016, 0.12."
)
def test_optimal_aspect_ratio(evidence):
    for name, expected in (("identity", 0.04), ("relu", 0.016), ("tanh", 0.12)):
        found = optimal_depth(name, 1, 10)
        evidence(required=f"{expected:g}", measured=found, what=name)
        assert found == pytest.approx(expected, rel=1e-12)
    # Residual links allow deeper networks.
    depths = [optimal_depth("relu", 100, 10, residual=gamma) for gamma in (0.8, 0.95, 0.99)]
    assert depths[0] < depths[1] < depths[2] and depths[2] > 10 * optimal_depth("relu", 100, 10)


def mutual_information(share, each):
    """Of two groups of normal numbers that share a log-normal scale, by numerical integration.

    ``share`` is the relative variance of the squared scale, ``each`` the size of a group.
    """
    g, w = (torch.from_numpy(t) for t in np.polynomial.hermite_e.hermegauss(24))
    variance, w = (math.log1p(share) ** 0.5 * g).exp(), w / w.sum()

    def log_density(square, size):  # of a vector by its squared length, but for constants
        terms = -square.unsqueeze(-1) / (2 * variance) - size / 2 * variance.log()
        return torch.logsumexp(terms + w.log(), -1)

    # Lengths of both groups given the scale: the mean over chi-square laws, by panels.
    edges = torch.linspace(0, 10, 9, dtype=torch.float64)
    r, dr = panel_nodes(edges)
    radial = (-r.square() / 2) + (each - 1) * r.log()
    density = radial.exp() * dr
    density = density / density.sum()
    total = torch.zeros((), dtype=torch.float64)
    for v, weight in zip(variance, w, strict=True):
        if weight < 1e-14:
            continue
        square = v * r.square()
        joint = log_density(square.unsqueeze(-1) + square, 2 * each)
        single = log_density(square, each)
        gain = joint - single.unsqueeze(-1) - single
        total = total + weight * (density.unsqueeze(-1) * density * gain).sum()
    return float(total)


@pytest.mark.paper(
    SHEET, kind="exact", claim="Information of two halves of the outputs: its cubic coefficient."
)
@pytest.mark.parametrize("each", [1, 2])
def test_information_is_largest_where_its_series_says(each, evidence):
    """That is (n_A n_B / 8) (s^2 - (20 + 3 n) / 6 s^3), with n = n_A + n_B outputs."""
    shares = torch.tensor([0.004, 0.008, 0.012], dtype=torch.float64)
    found = torch.tensor([mutual_information(float(s), each) for s in shares]).double()
    ratio = found / shares.square() * 8 / each**2  # 1 - c s + d s^2
    terms = torch.linalg.solve(torch.linalg.vander(shares, N=3), ratio)
    expected = (20 + 6 * each) / 6
    evidence(required=f"{expected:.4g} to 2%", measured=-terms[1], what=f"{2 * each} outputs")
    assert float(terms[0]) == pytest.approx(1.0, abs=1e-3)
    assert float(-terms[1]) == pytest.approx(expected, rel=0.02)


def test_rate_under_skip_connections_is_that_of_deep_propagation():
    from mercer.infinite import criticality

    for name, start, tolerance in (("relu", 1.0, 1e-9), ("tanh", 0.05, 0.02), ("selu", 1e-3, 0.08)):
        found = signal_propagation(name, 600, residual=0.6, variance=start)
        slope = float(found.fluctuation[-1] - found.fluctuation[-2])
        assert slope == pytest.approx(criticality(name, 0.6).fluctuation_rate, rel=tolerance)


def test_tangent_kernel_of_relu_is_known():
    found = signal_propagation(
        "relu", 7, correlation=torch.tensor([0.3, -0.9, 1.0], dtype=torch.float64), variance=2.5
    )
    layer = torch.arange(1, 8, dtype=torch.float64)
    torch.testing.assert_close(found.ntk, 2.5 * layer)
    # two inputs, by arc-cosines
    rho = theta = torch.tensor([0.3, -0.9], dtype=torch.float64)
    for row, kernel in zip(found.correlation, found.ntk_pair, strict=True):
        torch.testing.assert_close(row[:2], rho, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(kernel[:2], 2.5 * theta, rtol=1e-9, atol=1e-9)
        rest = math.pi - rho.acos()
        rho, slope = ((1 - rho**2).sqrt() + rest * rho) / math.pi, rest / math.pi
        theta = rho + slope * theta
    torch.testing.assert_close(found.ntk_pair[:, 2], found.ntk)


@pytest.mark.parametrize(("name", "module"), [("tanh", nn.Tanh()), ("gelu", nn.GELU())])
def test_kernels_of_modules_are_propagated_alike(name, module):
    w_std, b_std, depth = 1.3, 0.4, 4
    layers = [nn.Linear(2, 3)]
    for _ in range(depth - 1):
        layers += [module, nn.Linear(3, 3)]
    kernel = NTK(nn.Sequential(*layers), w_std=w_std, b_std=b_std)
    x = torch.tensor([[1.2, 0.5], [-0.5, 1.2]], dtype=torch.float64)  # of the same length
    k = w_std**2 * float(x[0].square().mean()) + b_std**2
    c = torch.tensor([b_std**2 / k], dtype=torch.float64)
    found = signal_propagation(
        name,
        depth,
        w_std=w_std,
        b_std=b_std,
        variance=k,
        correlation=c,
    )
    nngp, ntk = kernel.nngp(x)[0, 1], kernel(x)[0, 1]
    covariance = found.correlation[-1, 0] * found.variance[-1]
    torch.testing.assert_close(covariance, nngp.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.ntk_pair[-1, 0], ntk.detach(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.ntk[-1], kernel.diag(x)[0].detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        found.variance[-1], kernel.nngp.diag(x)[0].detach(), rtol=1e-10, atol=0
    )


def test_rates_enter_the_tangent_kernel():
    rates = LayerwiseRates(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.0, 0.25]))
    found = signal_propagation("relu", 3, w_std=2**0.5, b_std=0.0, variance=2.0, rates=rates)
    first = 0.5 + 1.0 * 2.0 / 2
    second = 2.0 * 1.0 + first
    torch.testing.assert_close(
        found.ntk, torch.tensor([first, second, 0.25 + 3.0 * 1.0 + second], dtype=torch.float64)
    )


class TestFiniteWidthReport(ProbeContract):
    random = False

    def model(self):
        widths = [20, 50, 40, 30, 3]
        pairs = itertools.pairwise(widths)
        return nn.Sequential(*[m for a, b in pairs for m in (nn.Linear(a, b), nn.Tanh())][:-1])

    def probe(self, model, generator):
        return finite_width_report(model)

    def test_numbers(self):
        net = critical_init_(self.model(), generator=0)
        found = finite_width_report(net)
        assert found.widths == (50, 40, 30, 3) and found.names == ("0", "2", "4", "6")
        assert found.aspect_ratio == pytest.approx(1 / 50 + 1 / 40 + 1 / 30)
        assert found.fluctuation == pytest.approx(2 / 3 * found.aspect_ratio)
        assert found.optimal_aspect_ratio == pytest.approx(4 / (29 * 2 / 3))
        expected = net[2].weight.double().square().mean() * 50
        assert found.w_std[1] == pytest.approx(expected.item() ** 0.5)
        assert found.warnings == ()

    def test_warnings(self):
        deep = [nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU()) for _ in range(5)]
        first, second, third = finite_width_report(nn.Sequential(*deep)).warnings
        assert first.startswith("fluctuations of 2.50 exceed the signal: 4 hidden layers")
        assert second.startswith("not critical: squared norms change by a factor of about")
        assert third == "LayerNorm changes the recursions: these numbers ignore it"

    def test_refusals(self):
        with pytest.raises(TypeError, match="module: expected"):
            finite_width_report("net")
        with pytest.raises(ValueError, match="activation: sigmoid has no critical point"):
            finite_width_report(self.model(), "sigmoid")
        with pytest.raises(ValueError, match="outputs: "):
            optimal_depth("relu", 10, 0)


def test_figures():
    import matplotlib.pyplot as plt

    found = signal_propagation("tanh", 5, correlation=torch.tensor([0.1, 0.5]))
    for what in ("variance", "correlation", "susceptibility", "ntk", "fluctuation"):
        ax = found.plot(what=what)
        assert ax.get_xlabel() == "layer" and ax.get_ylabel() and ax.get_title()
        assert len(ax.get_lines()) == (2 if what in ("correlation", "susceptibility") else 1)
    one = signal_propagation("tanh", 5, correlation=0.3)
    assert one.correlation.shape == (5,) and len(one.plot(what="correlation").get_lines()) == 1
    with pytest.raises(ValueError, match="what: no correlations"):
        signal_propagation("tanh", 5).plot(what="correlation")
    plt.close("all")


def test_bad_input():
    rates = LayerwiseRates(torch.ones(3), torch.ones(3))
    for arguments, error, text in (
        ({"depth": 0}, ValueError, "depth: "),
        ({"b_std": 0.1}, ValueError, "w_std: give it too"),
        ({"w_std": -1.0}, ValueError, "w_std: "),
        ({"variance": -1.0}, ValueError, "variance: expected positive"),
        ({"correlation": 1.5}, ValueError, "correlation: expected numbers in"),
        ({"correlation": "a"}, TypeError, "correlation: "),
        ({"rates": rates}, ValueError, "rates: expected 2 of them, got 3"),
        ({"residual": 1.0}, ValueError, "residual: "),
    ):
        with pytest.raises(error, match=text):
            signal_propagation("relu", **{"depth": 2, **arguments})
