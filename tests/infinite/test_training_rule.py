"""Rules of training in one eigenmode against their recursions in exact arithmetic."""

import math
from fractions import Fraction
from functools import partial

import pytest
import torch

from mercer.infinite.spectral_filter import Spectrum
from mercer.infinite.training_rule import Descent, Flow

exactly = partial(torch.tensor, dtype=torch.float64)
MU = [0.0, 2.0**-50, 2.0**-20, 0.125, 0.5, 1.0, 1.5, 1.875]


def exact(mu, momentum, steps):
    """Residual and gain of the heavy ball, in rational numbers."""
    mu, momentum = Fraction(mu), Fraction(momentum)
    a, speed = Fraction(0), Fraction(0)  # the coefficient of a target of 1
    for _ in range(steps):
        speed = momentum * speed + (1 - mu * a)
        a += speed
    return float(1 - mu * a), float(a)


@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.5, 0.875])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 17, 120])
def test_descent_is_its_recursion(momentum, steps):
    rule = Descent(1.0, 1.0, momentum)
    mu = exactly(MU)
    times = exactly([float(steps)])
    wanted = exactly([exact(value, momentum, steps) for value in MU])
    torch.testing.assert_close(rule.residual(mu, times)[0], wanted[:, 0], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(rule.gain(mu, times)[0], wanted[:, 1], rtol=1e-12, atol=1e-13)


def test_many_steps_of_slow_modes():
    """A million steps of modes that take as many: the closed form of gradient descent, by log1p."""
    mu = exactly([1e-8, 1e-6, 1e-5])
    times = exactly([1e6])
    wanted = torch.exp(1e6 * torch.log1p(-mu))
    for momentum, tolerance in ((0.0, 1e-9), (0.5, 1e-4)):
        # The heavy ball is 1 / (1 - momentum) times as fast, up to the order of the step.
        rule = Descent(1.0 - momentum, 1.0, momentum)
        torch.testing.assert_close(rule.residual(mu, times)[0], wanted, rtol=tolerance, atol=1e-12)
        grown = (1 - wanted) / mu
        torch.testing.assert_close(rule.gain(mu, times)[0], grown, rtol=tolerance, atol=0)


def test_flow_and_its_limits():
    rule = Flow(3.0, 6.0)
    mu = exactly([0.0, 1e-300, 1e-12, 1.0, 1e6])
    times = exactly([0.0, 2.0, math.inf])
    gain, residual = rule.gain(mu, times), rule.residual(mu, times)
    wanted = exactly([1.0, 1.0, 1.0 - 5e-13, 1 - math.exp(-1), 1e-6])
    torch.testing.assert_close(gain[1], wanted, rtol=1e-15, atol=0)
    assert gain[0].tolist() == [0.0] * 5 and residual[0].tolist() == [1.0] * 5
    torch.testing.assert_close(gain[2, 1:], 1 / mu[1:])
    assert gain[2, 0] == 0.0 and residual[2].tolist() == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert rule.decay_times(mu)[3] == 2.0 and rule.decay_times(mu)[0] == math.inf


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.9])
def test_decay_times_are_the_largest_root(momentum):
    mu = torch.linspace(0.001, 2 * (1 + momentum) - 0.001, 60, dtype=torch.float64)
    found = Descent(1.0, 1.0, momentum).decay_times(mu)
    for value, time in zip(mu.tolist(), found.tolist(), strict=True):
        step = exactly([[1 + momentum - value, -momentum], [1.0, 0.0]])
        radius = float(torch.linalg.eigvals(step).abs().max())
        # The two roots nearly meet where it turns into oscillation; eigvals is coarser there.
        assert -1 / math.log(radius) == pytest.approx(time, rel=1e-5, abs=1e-12)
    past = exactly([2 * (1 + momentum) + 0.01])
    assert Descent(1.0, 1.0, momentum).decay_times(past).item() == math.inf
    tiny = Descent(1.0, 1.0, momentum).decay_times(exactly([1e-14])).item()
    assert tiny == pytest.approx((1 - momentum) * 1e14, rel=1e-9)


def test_spectrum_knows_what_is_rounding():
    source = torch.Generator().manual_seed(0)
    factor = torch.randn(9, 4, generator=source).double()
    found = Spectrum.of("kernel", factor @ factor.mT)
    assert found.rank == 4 and bool((found.eigenvalues[4:] == 0).all())
    rebuilt = (found.vectors * found.eigenvalues) @ found.vectors.mT
    torch.testing.assert_close(rebuilt, factor @ factor.mT)
    # A matrix that was rounded to single precision shows it by negative eigenvalues.
    rounded = (factor @ factor.mT).float().double()
    assert Spectrum.of("kernel", rounded).rank == 4
    with pytest.raises(ValueError, match=r"kernel: .*semi-definite"):
        Spectrum.of("kernel", -rounded)
    with pytest.raises(ValueError, match=r"kernel: .*not zero"):
        Spectrum.of("kernel", torch.zeros(3, 3).double())


def test_factors_that_blow_up_rounding_are_left_out():
    spectrum = Spectrum.of("kernel", torch.diag(exactly([1.0, 0.5, 0.0])))
    gain = exactly([[1.0, 2.0, 1e6], [1.0, 2.0, 1e12]])
    assert spectrum.tame(gain, 0.0).tolist() == [[1.0, 2.0, 1e6], [1.0, 2.0, 0.0]]
    assert torch.equal(spectrum.tame(gain, 1e-3), gain)
