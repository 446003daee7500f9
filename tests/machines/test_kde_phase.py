import math
from typing import Any

import numpy as np
import pytest
import torch

from mercer.machines import (
    KDEPhase,
    KernelDensity,
    effective_neighbors,
    kde_log_density_prediction,
    kde_phase,
    nearest_neighbor_bandwidth,
)
from mercer.machines.kde_phase import annealed, entropy

SHEET = "machines-kde-large-dimensions"
TABLE = [
    (0.05, 0.333, 1.733, 2.451, 1.146),
    (0.1, 0.532, 1.371, 1.939, 1.039),
    (0.2, 0.915, 1.046, 1.479, 0.892),
    (0.4, 1.800, 0.745, 1.054, 0.696),
    (0.7, 3.784, 0.514, 0.727, 0.503),
    (1.0, 7.222, 0.372, 0.526, 0.369),
]


@pytest.mark.paper(SHEET, kind="exact", claim="The table of thresholds for whitened data.")
@pytest.mark.parametrize(("alpha", "t_c", "h_glass", "h_clt", "h_opt"), TABLE)
def test_table(alpha, t_c, h_glass, h_clt, h_opt, evidence):
    d = 8 if alpha > 0.5 else 100  # n a whole number near enough to exp(alpha d)
    found = kde_phase(round(math.exp(alpha * d)), d, 1.0)
    numbers = (found.t_c / t_c, found.h_glass / h_glass, found.h_clt / h_clt, found.h_opt / h_opt)
    error = max(abs(number - 1) for number in numbers)
    evidence(required="the three digits printed", measured=error, what=f"alpha = {alpha}")
    assert error <= 2e-3


@pytest.mark.paper(
    SHEET, kind="exact", claim="The mean of exp(-t |x - y|^2 / 2) over y, against Monte Carlo."
)
@pytest.mark.parametrize("t", [0.5, 2.0])
def test_annealed_mean_against_monte_carlo(t, evidence):
    s = torch.tensor([0.5, 1.0, 2.0]).double()
    x = s.sqrt()  # the typical x, whose squares are the eigenvalues
    y = np.random.default_rng(0).normal(size=(2_000_000, 3)) * s.sqrt().numpy()
    simulated = np.exp(-t / 2 * ((x.numpy() - y) ** 2).sum(1)).mean()
    error = float(abs(math.exp(3 * float(annealed(t, s))) / simulated - 1))
    evidence(required="<= 1e-3", measured=error, what=f"t = {t}")
    assert error <= 1e-3


@pytest.mark.paper(SHEET, kind="exact", claim="For whitened data the entropy is the isotropic one.")
def test_isotropic_entropy(evidence):
    t = torch.logspace(-3, 3, 40, dtype=torch.float64)
    general = entropy(t, torch.ones(17).double(), 0.3)
    isotropic = 0.3 - torch.log1p(t) / 2 + t / (2 * (1 + t).square())
    error = float((general - isotropic).abs().max())
    evidence(required="<= 1e-12", measured=error)
    assert error <= 1e-12


@pytest.mark.paper(
    SHEET, kind="exact", claim="The best bandwidth is the slope of the exponent, by autograd."
)
def test_slope_by_autograd(evidence):
    s = torch.tensor([0.2, 1.0, 3.0, 0.7]).double()
    found = kde_phase(50, s, 1.0)
    t = torch.tensor(found.t_c, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(annealed(t, s), t)
    error = abs(found.h_opt**2 + 2 * float(slope))
    # And the entropy is what Legendre's transform makes of it, zero at t_c.
    legendre = found.alpha + float(annealed(t, s).detach()) - found.t_c * float(slope)
    evidence(required="<= 1e-10", measured=max(error, abs(legendre)))
    assert max(error, abs(legendre)) <= 1e-10


@pytest.mark.paper(SHEET, kind="exact", claim="Both branches meet at the glass bandwidth.")
def test_branches_meet(evidence):
    s = torch.tensor([0.2, 1.0, 3.0, 0.7]).double()
    h = kde_phase(50, s, 1.0).h_glass
    below, above = (kde_log_density_prediction(50, s, h * f) for f in (1 - 1e-13, 1 + 1e-13))
    error = abs(float(below - above)) / 4
    evidence(required="<= 1e-12", measured=error)
    assert error <= 1e-12


def test_the_best_bandwidth_minimises_the_divergence():
    s = torch.linspace(0.3, 2, 12).double()
    found = kde_phase(200, s, 1.0)
    h = torch.linspace(0.5, 2, 20_001).double() * found.h_opt
    predicted = kde_log_density_prediction(200, s, h)
    assert float(h[predicted.argmax()]) == pytest.approx(found.h_opt, rel=2e-4)
    assert found.h_opt < found.h_glass
    assert float(found._divergence(h).min()) > 0


def test_regimes_and_scale():
    s = torch.linspace(0.3, 2, 12).double()
    base = kde_phase(200, s, 1.0)
    for factor, regime in ((0.9, "condensed"), (1.2, "stable"), (1.5, "clt")):
        found = kde_phase(200, s, factor * base.h_glass)
        assert found.regime == regime
        assert found.stability_index == pytest.approx(factor**2, rel=1e-10)
        assert math.isnan(found.relative_std) == (regime != "clt")
    scaled = kde_phase(200, 25 * s, 5.0)
    assert scaled.h_glass == pytest.approx(5 * base.h_glass, rel=1e-10)
    assert scaled.h_opt == pytest.approx(5 * base.h_opt, rel=1e-10)
    assert scaled.regime == base.regime


@pytest.fixture(scope="module")
def points():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(50_000, 30, generator=g, dtype=torch.float64)
    z = torch.randn(60, 30, generator=g, dtype=torch.float64)
    return x, z * (30**0.5 / z.norm(dim=1, keepdim=True))  # at the typical length


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Mean log-densities of 50,000 points in 30 dimensions are those predicted.",
)
@pytest.mark.parametrize("factor", [0.5, 0.8, 1.2, 1.41, 2.0, 3.0])
@pytest.mark.filterwarnings("ignore:bandwidth")
def test_log_densities(factor, points, evidence):
    x, z = points
    h = factor * kde_phase(50_000, 30, 1.0).h_glass
    measured = float(KernelDensity(bandwidth=h).fit(x).score_samples(z).mean())
    norm = -15 * math.log(2 * math.pi * h * h)
    predicted = float(kde_log_density_prediction(50_000, 30, h)) - norm
    error = abs(predicted / (measured - norm) - 1)
    tolerance = 0.01 if factor > 1 else 0.12  # finite dimensions
    evidence(required=f"<= {tolerance}", measured=error, what=f"h = {factor} h_glass")
    assert error <= tolerance


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Above h_CLT the estimate fluctuates as predicted, at h_G as much as it is large.",
)
def test_fluctuations(evidence):
    g = torch.Generator().manual_seed(1)
    x = torch.ones(1, 30).double()
    glass = kde_phase(50_000, 30, 1.0).h_glass
    sums: dict[float, list[float]] = {1.0: [], 2.0: [], 3.0: []}
    for _ in range(300):
        y = torch.randn(50_000, 30, generator=g, dtype=torch.float64)
        squared = (y - x).square().sum(1)
        for factor, found in sums.items():
            found.append(float(torch.exp(-squared / (2 * (factor * glass) ** 2)).mean()))
    for factor in (2.0, 3.0):
        values = np.array(sums[factor])
        measured = values.std() / values.mean()
        predicted = kde_phase(50_000, 30, factor * glass).relative_std
        evidence(
            required="within 20 %", measured=predicted / measured - 1, what=f"{factor} h_glass"
        )
        assert predicted == pytest.approx(measured, rel=0.2)
    at_glass = np.array(sums[1.0])
    spread = float(at_glass.std() / at_glass.mean())
    evidence(required=">= 0.5", measured=spread, what="relative deviation at h_glass")
    assert spread >= 0.5


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="In 40 dimensions the nearest-neighbour rule is within 8 % of the best, the law in 20 %.",
)
@pytest.mark.parametrize(("n", "best"), [(3000, 0.975), (20_000, 0.925)])
@pytest.mark.filterwarnings("ignore:bandwidth")
def test_best_bandwidths(n, best, evidence):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 40, generator=g, dtype=torch.float64)
    z = torch.randn(1000, 40, generator=g, dtype=torch.float64)
    grid = np.arange(best - 0.1, best + 0.11, 0.025)
    scores = [KernelDensity(bandwidth=h).fit(x).score(z) for h in grid]
    held_out = float(grid[int(np.argmax(scores))])
    rule = nearest_neighbor_bandwidth(x)
    law = kde_phase(n, 40, held_out).h_opt
    neighbours = float(effective_neighbors(z, x, held_out).mean())
    evidence(required=f"{best} +- 0.025", measured=held_out, what="held-out likelihood")
    evidence(required="within 8 %", measured=rule / held_out - 1, what="nearest neighbours")
    evidence(required="within 20 %", measured=law / held_out - 1, what="asymptotic law")
    evidence(required="1 to 10", measured=neighbours, what="effective neighbours there")
    assert held_out == pytest.approx(best, abs=0.0251)
    assert rule == pytest.approx(held_out, rel=0.08)
    assert law == pytest.approx(held_out, rel=0.2)
    assert 1 <= neighbours <= 10


def test_plot(tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    found = kde_phase(3000, 20, 0.9)
    figure, ax = plt.subplots()
    assert found.plot(ax) is ax
    assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel()
    curve = ax.get_lines()[0]
    lowest = np.asarray(curve.get_xdata())[int(np.argmin(curve.get_ydata()))]
    assert float(lowest) == pytest.approx(found.h_opt, rel=0.02)
    figure.savefig(tmp_path / "phase.png")
    assert found.plot() is not ax
    plt.close("all")
    assert isinstance(found, KDEPhase)


S = torch.ones(3)
WRONG: Any = [1.0, 2.0]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"n": 1}, ValueError, "n"),
        ({"n": 2.5}, TypeError, "n"),
        ({"n": 10**9, "spectrum": 1}, ValueError, "n: .*no threshold"),
        ({"spectrum": 0}, ValueError, "spectrum"),
        ({"spectrum": WRONG}, TypeError, "spectrum"),
        ({"spectrum": torch.tensor([1.0, 0.0])}, ValueError, "spectrum"),
        ({"spectrum": torch.tensor([1.0, math.nan])}, ValueError, "spectrum"),
        ({"spectrum": torch.ones(2, 2)}, ValueError, "spectrum"),
        ({"bandwidth": 0.0}, ValueError, "bandwidth"),
        ({"bandwidth": "nn"}, TypeError, "bandwidth"),
    ],
)
def test_bad_input(arguments, error, name):
    good: dict[str, Any] = {"n": 100, "spectrum": S, "bandwidth": 1.0}
    for function in (kde_phase, kde_log_density_prediction):
        with pytest.raises(error, match=name):
            function(**{**good, **arguments})
    with pytest.raises(ValueError, match="bandwidth"):
        kde_log_density_prediction(100, S, torch.tensor([1.0, -1.0]))
