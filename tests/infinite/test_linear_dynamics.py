"""Linear students against simulation, closed forms and SciPy."""

import math

import matplotlib as mpl
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_diabetes

from mercer.infinite import LinearDynamics, LinearErrors, MarchenkoPastur

mpl.use("agg")
SHEET = "infinite-generalization-dynamics"
RATIOS = (0.1, 0.5, 1.0, 2.0, 10.0)


@pytest.mark.paper(SHEET, kind="exact", claim="The Marchenko-Pastur law has mass 1 and mean alpha.")
@pytest.mark.parametrize("ratio", RATIOS)
def test_mass_and_mean(evidence, ratio):
    law = MarchenkoPastur(ratio)
    mass = abs(float(law.expect(torch.ones_like)) - 1)
    mean = abs(float(law.expect(lambda s: s)) - ratio)
    evidence(required="<= 1e-6", measured=mass, what="mass")
    evidence(required="<= 1e-6", measured=mean, what="mean")
    assert max(mass, mean) <= 1e-6


@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_density_and_nodes_agree(ratio):
    law = MarchenkoPastur(ratio)
    low, high = law.support
    density = lambda s: float(law.pdf(torch.tensor(s, dtype=torch.float64)))
    for power in (0, 1, -1):
        expected, _ = quad(lambda s, p=power: density(s) * s**p, low, high, limit=200)
        eigenvalues, weights = law.nodes()
        assert float(eigenvalues**power @ weights) == pytest.approx(expected, rel=1e-7)
    assert law.pdf(torch.tensor([low - 0.01, high + 0.01])).tolist() == [0, 0]


def test_eigenvalues_of_a_large_matrix():
    x = torch.randn(500, 250, dtype=torch.float64) / 500**0.5
    found = torch.linalg.eigvalsh(x @ x.mT)
    law = MarchenkoPastur(0.5)
    for function in (torch.square, lambda s: torch.exp(-3 * s), lambda s: 1 / (1 + s)):
        assert float(function(found).mean()) == pytest.approx(float(law.expect(function)), rel=0.02)


@pytest.mark.paper(
    SHEET, kind="exact", claim="One mode is best stopped at (tau/l) log(1 + l (SNR + INR))."
)
@pytest.mark.parametrize(("eigenvalue", "snr", "inr"), [(0.3, 4.0, 0.0), (2.0, 5.0, 1.0)])
def test_best_time_of_one_mode(evidence, eigenvalue, snr, inr):
    student = LinearDynamics(1.0, snr, inr, tau=2.0)

    def error(time):
        left = math.exp(-eigenvalue * time / 2.0)
        return (1 + inr / snr) * left**2 + (1 - left) ** 2 / (snr * eigenvalue)

    found = minimize_scalar(error, bounds=(1e-3, 10), method="bounded", options={"xatol": 1e-9})
    gap = abs(student._mode_time(eigenvalue) / found.x - 1)
    evidence(required="<= 1e-6", measured=gap)
    assert gap <= 1e-6


def simulate(ratio, snr, inr, times, draws=240, n=200):
    """Test and train error of the gradient flow itself, by the eigenvectors of each draw."""
    p, t = round(ratio * n), torch.tensor(times, dtype=torch.float64)
    test, train = torch.zeros(len(t)).double(), torch.zeros(len(t)).double()
    for _ in range(draws):
        x = torch.randn(n, p, dtype=torch.float64) / n**0.5
        teacher = torch.randn(n, dtype=torch.float64)
        y = x.mT @ teacher + torch.randn(p, dtype=torch.float64) / snr**0.5
        start = (inr / snr) ** 0.5 * torch.randn(n, dtype=torch.float64)
        values, vectors = torch.linalg.eigh(x @ x.mT)
        values = values.clamp(min=0)
        b = vectors.mT @ (x @ y)
        decay = torch.exp(-values * t[:, None])  # (times, n)
        moved = torch.where(values > 1e-10, (1 - decay) / values.clamp(min=1e-10), 0.0)
        w = (decay * (vectors.mT @ start) + moved * b) @ vectors.mT  # (times, n)
        test += (w - teacher).square().mean(-1) + 1 / snr
        train += (w @ x - y).square().mean(-1)
    return test / draws, train / draws


TIMES = (0.1, 1.0, 3.0, 10.0, 50.0)


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="Theory and simulation (N = 200, 240 draws) agree within 1.5 % at every time.",
)
@pytest.mark.parametrize(
    ("ratio", "sheet"),
    [
        (0.5, (1.393, 1.083, 1.033, 1.083, 1.125)),
        (1.0, (1.295, 0.797, 0.709, 0.812, 1.367)),
        (2.0, (1.124, 0.493, 0.445, 0.489, 0.500)),
    ],
)
def test_errors_in_time(evidence, ratio, sheet):
    found = LinearDynamics(ratio, snr=4.0, inr=1.0).errors(TIMES)
    assert isinstance(found, LinearErrors)
    torch.testing.assert_close(found.test, torch.tensor(sheet).double(), rtol=0, atol=6e-4)
    test, train = simulate(ratio, 4.0, 1.0, TIMES)
    gap = float((found.test / test - 1).abs().max())
    evidence(required="<= 0.015", measured=gap, what="test error")
    assert gap <= 0.015
    # Relative to the start: late in an over-parametrised fit nothing is left.
    left = float(((found.train - train) / found.train[0]).abs().max())
    evidence(required="<= 0.015 of the first", measured=left, what="train error")
    assert left <= 0.015


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Stopping at the best time costs at most 2 % more than the best ridge, 1 / SNR; not "
    "stopping is worst at one sample per parameter.",
)
@pytest.mark.parametrize(
    ("ratio", "stopped", "ridged", "late"),
    [(0.5, 0.895, 0.890, 1.00), (1.0, 0.650, 0.640, 5.36), (2.0, 0.432, 0.425, 0.50)],
)
def test_stopping_and_ridge(evidence, ratio, stopped, ridged, late):
    student = LinearDynamics(ratio, snr=4.0)
    time, error = student.optimal_stopping()
    best = student.ridge_error(student.optimal_ridge)
    found = minimize_scalar(
        lambda g: student.ridge_error(math.exp(g)), bounds=(-5, 2), method="bounded"
    )
    evidence(required="<= 1.02", measured=error / best, what="stopped / ridge")
    evidence(required="0.25", measured=math.exp(found.x), what="best ridge found")
    assert best <= error <= 1.02 * best
    assert math.exp(found.x) == pytest.approx(0.25, rel=1e-3)
    assert (error, best) == pytest.approx((stopped, ridged), abs=6e-4)
    curve = student.errors([0.9 * time, time, 1.1 * time, 1000.0])
    evidence(required=f"{late} +- 0.01", measured=curve.test[3], what="not stopped, t = 1000")
    assert float(curve.test[3]) == pytest.approx(late, abs=0.01)
    assert float(curve.test[1]) == pytest.approx(error, rel=1e-12)
    assert error < min(float(curve.test[0]), float(curve.test[2]))


@pytest.mark.parametrize("ratio", [0.3, 0.8, 1.3, 4.0])
def test_final_error_is_the_limit(ratio):
    student = LinearDynamics(ratio, snr=3.0, inr=0.5)
    found = student.errors([0.0, 1e4])
    assert float(found.test[1]) == pytest.approx(student.final_error, rel=1e-6)
    assert float(found.test[0]) == pytest.approx(1 + 0.5 / 3 + 1 / 3)
    # On the training samples least squares leaves a share of the noise.
    assert float(found.train[1]) == pytest.approx(max(0, 1 - 1 / ratio) / 3, abs=1e-12)
    assert student.frozen_fraction == pytest.approx(max(0, 1 - ratio))
    assert LinearDynamics(1.0, 3.0).final_error == math.inf


def test_time_constant_scales_time():
    fast, slow = LinearDynamics(0.7, 2.0, 0.1), LinearDynamics(0.7, 2.0, 0.1, tau=5.0)
    torch.testing.assert_close(fast.errors([1, 2]).test, slow.errors([5, 10]).test)
    assert slow.optimal_stopping()[0] == pytest.approx(5 * fast.optimal_stopping()[0])


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="On diabetes, the test error of random ReLU features peaks where their number meets "
    "that of the samples, and stopped at the predicted time it does not.",
)
def test_features_on_diabetes(evidence):
    x, y = load_diabetes(return_X_y=True)
    x, y = torch.tensor(x) * 442**0.5, torch.tensor(y)
    y = (y - y.mean()) / y.std()
    widths, samples = [20, 50, 90, 100, 110, 200, 800], 100
    late, stopped = [], []
    for width in widths:
        # The linear part explains half of the variance: SNR 1 of the labels.
        time, _ = LinearDynamics(samples / width, snr=1.0).optimal_stopping()
        errors = torch.zeros(2, dtype=torch.float64)
        for _ in range(20):
            order = torch.randperm(len(x))
            a, b = order[:samples], order[samples:]
            w = torch.randn(10, width, dtype=torch.float64) / 10**0.5
            features = (x @ w).relu()
            features = (features - features[a].mean(0)) / (features[a].std() * width**0.5)
            values, vectors = torch.linalg.eigh(features[a].mT @ features[a])
            known = values > 1e-10
            values, vectors = values[known], vectors[:, known]
            b_ = vectors.mT @ (features[a].mT @ (y[a] - y[a].mean()))
            for i, t in enumerate((1e12, time)):
                fit = features[b] @ (vectors @ (-torch.expm1(-values * t) / values * b_))
                errors[i] += (fit + y[a].mean() - y[b]).square().mean() / 20
        late.append(float(errors[0]))
        stopped.append(float(errors[1]))
    peak = widths[max(range(len(widths)), key=late.__getitem__)]
    evidence(required="90 .. 110", measured=peak, what="width of the worst error, not stopped")
    evidence(required=">= 5", measured=max(late) / late[-1], what="peak / widest, not stopped")
    evidence(required="<= 1.2", measured=max(stopped) / min(stopped), what="worst / best, stopped")
    assert 90 <= peak <= 110
    assert max(late) >= 5 * late[-1]
    assert max(stopped) <= 1.2 * min(stopped)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: MarchenkoPastur(0.0), ValueError, "ratio: .* > 0"),
        (lambda: MarchenkoPastur("1"), TypeError, "ratio: expected a number"),
        (lambda: LinearDynamics(1.0, 0.0), ValueError, "snr: .* > 0"),
        (lambda: LinearDynamics(1.0, 1.0, -1.0), ValueError, "inr: .* >= 0"),
        (lambda: LinearDynamics(1.0, 1.0, tau=0.0), ValueError, "tau: .* > 0"),
        (lambda: LinearDynamics(1.0, 1.0).errors([-1.0]), ValueError, "times: .* >= 0"),
        (lambda: LinearDynamics(1.0, 1.0).errors([]), ValueError, "times: "),
        (lambda: LinearDynamics(1.0, 1.0).errors([1.0, math.nan]), ValueError, "times: "),
        (lambda: LinearDynamics(1.0, 1.0).errors("soon"), TypeError, "times: expected numbers"),
        (lambda: LinearDynamics(1.0, 1.0).ridge_error(0.0), ValueError, "ridge: .* > 0"),
    ],
)
def test_bad_input(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_plots():
    ax = MarchenkoPastur(0.5).plot()
    assert ax.lines[1].get_label() == "mass 0.5 at zero"
    found = LinearDynamics(0.5, 4.0).errors(torch.logspace(-1, 2, 20))
    ax = found.plot()
    assert ax.lines[0].get_ydata() == pytest.approx(found.test.numpy())
    assert ax.lines[-1].get_xdata() == found.best_time
    assert LinearDynamics(1.0, 4.0).errors([0.0, 1.0]).plot(ax) is ax
    mpl.pyplot.close("all")
