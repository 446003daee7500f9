"""Power laws: exponents that are known, their errors, and what they say of learning."""

import math

import matplotlib as mpl
import pytest
import torch

from mercer.infinite import KernelRisk, PowerLaw, PowerLaws, fit_power_law, fit_power_laws

mpl.use("agg")
INDEX = torch.arange(1, 4001, dtype=torch.float64)


def test_exact_law():
    found = fit_power_law(5 * INDEX**-1.7, first=20, last=3000)
    assert isinstance(found, PowerLaw)
    assert found.exponent == pytest.approx(1.7, abs=1e-3)
    assert found.scale == pytest.approx(5, rel=0.01)
    assert found.error < 1e-3
    assert (found.first, found.last) == (20, 3000)


def test_standard_error_covers_the_scatter():
    """Coefficients squared scatter like chi squared; the error must be of their size."""
    exponents, errors = [], []
    for seed in range(100):
        source = torch.Generator().manual_seed(seed)
        v = torch.randn(4000, dtype=torch.float64, generator=source) * INDEX**-0.75
        found = fit_power_law(v.square())
        exponents.append(found.exponent)
        errors.append(found.error)
    spread = float(torch.tensor(exponents).std())
    assert float(torch.tensor(errors).mean()) == pytest.approx(spread, rel=0.35)
    assert float(torch.tensor(exponents).mean()) == pytest.approx(1.5, abs=0.1)


def test_task():
    risk = KernelRisk.from_spectrum(INDEX**-2, INDEX**-0.75)
    laws = fit_power_laws(risk)
    assert isinstance(laws, PowerLaws)
    assert laws.learning_rate == pytest.approx(0.5, abs=1e-2)
    curve = risk.predict([20.0, 40.0])
    slope = -math.log(float(curve.test[1] / curve.test[0])) / math.log(2)
    assert slope == pytest.approx(laws.learning_rate, abs=0.07)
    assert laws.optimal_fitting_ratio == pytest.approx(1 / 9, abs=5e-3)
    smooth = fit_power_laws(KernelRisk.from_spectrum(INDEX**-1.5, INDEX**-1))
    assert smooth.optimal_fitting_ratio == 0
    flat = fit_power_laws(KernelRisk.from_spectrum(INDEX**-0.5, INDEX**-1))
    assert math.isnan(flat.optimal_fitting_ratio)
    ax = laws.plot()
    assert len(ax.lines) == 4 and "exponent 2.00" in ax.lines[1].get_label()
    mpl.pyplot.close("all")


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: fit_power_law([1.0]), TypeError, "values: "),
        (lambda: fit_power_law(INDEX, first=0), ValueError, "first: "),
        (lambda: fit_power_law(INDEX, last=5000), ValueError, "last: expected at most the 4000"),
        (lambda: fit_power_law(INDEX, first=10, last=12), ValueError, "longer range"),
        (lambda: fit_power_law(INDEX, first=100, last=12), ValueError, "longer range"),
        (lambda: fit_power_law(-INDEX), ValueError, "values: expected positive"),
        (lambda: fit_power_laws(INDEX), TypeError, "risk: expected a KernelRisk"),
    ],
)
def test_bad_input(make, error, match):
    with pytest.raises(error, match=match):
        make()
