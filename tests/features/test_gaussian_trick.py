import math

import pytest
import scipy.integrate
import scipy.optimize
import torch

from mercer.features.gaussian_trick import (
    best_damping,
    gaussian_variance,
    log_excess,
    log_modulus_moment,
    mean_variance,
    wave_variance,
)

SHEET = "core-scalable-neural-network-kernels"


def vectors(*lengths: float, d: int = 8) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(10**9)  # unlike those of the draws
    drawn = torch.randn(len(lengths), d, generator=source, dtype=torch.float64)
    return [length * v / v.norm() for length, v in zip(lengths, drawn, strict=True)]


def products(omega, damping, x, w, count, seed=0):
    """Draws of Z = Lambda_g(c x) Lambda_g(c w) as the sheet writes it, in complex arithmetic."""
    g = torch.randn(count, len(x), generator=torch.Generator().manual_seed(seed)).double()
    c = complex(0, omega) ** 0.5

    def factor(z: torch.Tensor) -> torch.Tensor:
        z = c * z.to(torch.complex128)
        exponent = math.sqrt(1 + 4 * damping) * (g.to(z.dtype) @ z) - (z * z).sum() / 2
        exponent = exponent - damping * g.square().sum(-1)
        return (1 + 4 * damping) ** (len(x) / 4) * torch.exp(exponent)

    return factor(x) * factor(w)


def deviation(sample: torch.Tensor, mean: float) -> float:
    """Distance of a sample's mean from a number, in standard errors."""
    return float((sample.mean() - mean).abs() / (sample.std() / math.sqrt(len(sample))))


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="The Gaussian trick is unbiased and E|Z|^2 and E[Z^2] are as derived, by simulation.",
)
@pytest.mark.parametrize("damping", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("omega", [0.5, 2.0])
def test_moments_against_simulation(damping, omega, evidence):
    x, w = vectors(0.6, 0.5)
    z = products(omega, damping, x, w, 400_000)
    product, square = float(x @ w), float((x + w) @ (x + w))
    m = torch.tensor(damping, dtype=torch.float64)
    modulus = float(log_modulus_moment(m, omega * square, 8).exp())
    growth = float(log_modulus_moment(m, 0.0, 8).exp())
    p = 1 + 4 * damping
    angle = omega * (2 * p / (2 * p - 1) * square - float(x @ x + w @ w))
    measured = {
        "Re E Z": deviation(z.real, math.cos(omega * product)),
        "Im E Z": deviation(z.imag, math.sin(omega * product)),
        "E|Z|^2": deviation(z.abs().square(), modulus),
        "Re E Z^2": deviation((z * z).real, growth * math.cos(angle)),
        "Im E Z^2": deviation((z * z).imag, growth * math.sin(angle)),
    }
    worst = max(measured.values())
    evidence(
        required="<= 4 standard errors",
        measured=worst,
        what=f"M = {damping}, omega = {omega}: worst of five moments, 400,000 draws",
    )
    assert worst <= 4, measured


@pytest.mark.paper(
    SHEET, kind="exact", claim="The variance of one real feature product agrees with simulation."
)
@pytest.mark.parametrize("damping", [0.0, 0.05, 0.2])
def test_wave_variance_against_simulation(damping, evidence):
    x, w = vectors(0.6, 0.5)
    # Four million draws: the products have heavy tails, and one million left 3.9 of the 4
    # standard errors allowed at M = 0.2, where twelve million came to 0.7.
    z = torch.cat([products(1.3, damping, x, w, 500_000, seed) for seed in range(8)])
    phase = 0.8
    sample = (z * complex(math.cos(phase), math.sin(phase))).real
    number = lambda value: torch.tensor(float(value), dtype=torch.float64)
    predicted = wave_variance(
        number(1.3), number(damping), number(x @ x), number(w @ w), number(x @ w), number(phase), 8
    )
    spread = (sample - sample.mean()).square()
    standard_errors = deviation(spread, float(predicted))
    evidence(
        required="<= 4 standard errors",
        measured=standard_errors,
        what=f"M = {damping}: predicted {float(predicted):.4f}, simulated {spread.mean():.4f}",
    )
    assert standard_errors <= 4


@pytest.mark.parametrize("d", [1, 8, 100])
@pytest.mark.parametrize("square", [0.01, 1.0, 30.0])
def test_best_damping_is_the_minimum(d, square):
    value = lambda m: float(log_modulus_moment(torch.tensor(m, dtype=torch.float64), square, d))
    found = scipy.optimize.minimize_scalar(
        value, bounds=(0, 100), method="bounded", options={"xatol": 1e-11}
    )
    best = float(best_damping(torch.tensor(square, dtype=torch.float64), d))
    assert best >= 0
    assert value(best) <= found.fun + 1e-13
    # A flat minimum is found to the root of machine precision only.
    assert best == pytest.approx(found.x, rel=1e-4, abs=1e-6)
    assert float(best_damping(torch.tensor(0.0), d)) == 0


def test_excess_keeps_its_digits():
    # Without damping E|Z|^2 = e^S, so the excess is expm1(S).
    squares = torch.tensor([1e-12, 1e-3, 1.0, 50.0], dtype=torch.float64)
    found = log_excess(torch.zeros_like(squares), squares, 8)
    expected = [math.log(math.expm1(s)) for s in squares.tolist()]
    assert found.tolist() == pytest.approx(expected, rel=1e-13)
    huge = torch.tensor([1e3, 1e12], dtype=torch.float64)
    assert log_excess(torch.zeros_like(huge), huge, 8).tolist() == [600, 600]


@pytest.mark.parametrize("omega", [0.3, 2.0])
def test_wave_variance_is_never_negative_and_vanishes_at_zero(omega):
    omega = torch.tensor(omega, dtype=torch.float64)
    zero = torch.zeros((), dtype=torch.float64)
    assert wave_variance(omega, zero, zero, zero, zero, zero + 0.7, 8) == 0
    # For tiny vectors: half of omega |x + w|^2 (1 - sin(2 phase)), to first order.
    tiny, phase = zero + 1e-10, zero + 0.7
    found = wave_variance(omega, zero, tiny, tiny, zero, phase, 8)
    expected = float(omega) * 1e-10 * (1 - math.sin(1.4))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_mean_variance_weighs_by_counts():
    number = lambda value: torch.tensor(value, dtype=torch.float64)
    pair = (number(0.4), number(0.3), number(0.1))
    omega, damping = number([0.5, 1.5]), number([0.0, 0.1])
    amplitude, counts = number([[1.0, 0.3], [0.0, -2.0]]), torch.tensor([3, 1])
    one = wave_variance(omega[0], damping[0], *pair, omega[0] * 0.2, 8)
    other = wave_variance(omega[1], damping[1], *pair, omega[1] * 0.2 + math.atan2(-2.0, 0.3), 8)
    expected = (3 * one + (0.09 + 4) * other) / 4
    found = mean_variance(omega, amplitude, damping, counts, *pair, number(0.2), 8)
    assert float(found) == pytest.approx(float(expected), rel=1e-14)


@pytest.mark.parametrize("norm", [0.3, 1.0, 2.0])
def test_gaussian_variance_against_quadrature(norm):
    x, w = vectors(norm, norm)
    number = lambda value: torch.tensor(float(value), dtype=torch.float64)
    xx, ww, xw, bias, d = float(x @ x), float(w @ w), float(x @ w), 0.4, 8
    damping = lambda omega: best_damping(2 * norm**2 * omega, d)

    def second_moment(omega: float) -> float:
        m = damping(number(omega))
        variance = wave_variance(
            number(omega), m, number(xx), number(ww), number(xw), number(omega * bias), d
        )
        density = math.sqrt(2 / math.pi) * math.exp(-(omega**2) / 2)
        return density * (float(variance) + math.cos(omega * (xw + bias)) ** 2)

    second = scipy.integrate.quad(second_moment, 0, 40, epsabs=1e-13, limit=500)[0]
    expected = second - math.exp(-((xw + bias) ** 2))
    found = gaussian_variance(damping, number(xx), number(ww), number(xw), number(bias), d)
    assert float(found) == pytest.approx(expected, rel=1e-9)
    assert gaussian_variance(damping, *torch.zeros(4, 0, 3).double(), d).shape == (0, 3)
