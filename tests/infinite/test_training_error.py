"""Errors of an ensemble with noise on its targets, against matrices in full."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mercer.infinite import dynamics
from mercer.kernels import Precomputed

N, OUTPUTS, RATE, NOISE = 7, 2, 0.4, 0.3


def problem() -> tuple[Tensor, Tensor, Tensor]:
    """Make tangent and prior covariances that do not commute, and targets."""
    source = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    one, two = draw(N, N + 2), draw(N, N + 2)
    return one @ one.mT / N, two @ two.mT / N, draw(N, OUTPUTS)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
@pytest.mark.parametrize("discrete", [False, True])
def test_training_error_with_noisy_targets(discrete: bool, ridge: float):
    """f_t = f_0 + A_t (y + noise - f_0), so that the error is a trace."""
    tangent, covariance, y = problem()
    eye = torch.eye(N, dtype=torch.float64)
    damped = tangent + ridge * eye
    options: dict[str, Any] = {"reduction": "sum", "learning_rate": RATE, "ridge": ridge}
    points = torch.arange(N).double()
    trained = dynamics(
        Precomputed(tangent),
        points,
        y,
        prior=Precomputed(covariance),
        discrete=discrete,
        target_noise=NOISE,
        **options,
    )
    times = [0, 1, 2, 7, 40]
    for how in (trained.squared_error(times), trained.squared_error(times, points, y)):
        for i, t in enumerate(times):
            if discrete:
                rest = torch.linalg.matrix_power(eye - RATE * damped, t)
            else:
                rest = torch.linalg.matrix_exp(-RATE * t * damped)
            a = tangent @ torch.linalg.solve(damped, eye - rest)  # (n, n)
            ensemble = (y - a @ y).square().mean()
            spread = (eye - a) @ covariance @ (eye - a).mT + NOISE * a @ a.mT
            variance = spread.diagonal().mean()
            torch.testing.assert_close(how.ensemble[i], ensemble, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(how.variance[i], variance, rtol=1e-9, atol=1e-11)
            torch.testing.assert_close(trained.covariance(t), spread, rtol=1e-9, atol=1e-11)


def test_at_the_end_each_network_fits_its_own_noise():
    """Without a ridge the variance at the training points ends at that of the noise."""
    tangent, covariance, y = problem()
    points = torch.arange(N).double()
    trained = dynamics(
        Precomputed(tangent), points, y, prior=Precomputed(covariance), target_noise=NOISE
    )
    curve = trained.squared_error([0.0, float("inf")])
    assert float(curve.variance[0]) == pytest.approx(float(covariance.diagonal().mean()), rel=1e-12)
    assert float(curve.variance[1]) == pytest.approx(NOISE, rel=1e-10)
    assert float(curve.ensemble[1]) == pytest.approx(0.0, abs=1e-15)
