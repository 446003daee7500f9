import pytest
import torch

from mercer._core.activation import resolve_activation
from mercer.features.waves import distinct, fixed_waves, gaussian_waves


def evaluate(waves, z):
    """Affine part plus the mean of Re a e^{i omega z}, written with complex numbers."""
    amplitude = torch.complex(*waves.amplitude)
    mean = (amplitude * torch.exp(1j * z.unsqueeze(-1) * waves.omega)).real.mean(-1)
    return waves.slope * z + waves.intercept + mean


@pytest.mark.parametrize(("name", "function"), [("sin", torch.sin), ("cos", torch.cos)])
def test_dirac_spectra_are_exact(name, function):
    z = torch.linspace(-20, 20, 101).double()
    waves = fixed_waves(resolve_activation(name), 6.0, 5, 2.0, 8)
    assert (evaluate(waves, z) - function(z)).abs().max() < 1e-12
    assert waves.largest_error == 0


def test_waves_of_a_fitted_activation_have_its_error(global_state_unchanged):
    activation, z = resolve_activation("softplus"), torch.linspace(-6, 6, 2001).double()
    waves = fixed_waves(activation, 6.0, 300, 0.5, 8)
    assert waves.omega.shape == (300,) and (waves.omega.diff() >= 0).all()
    error = (evaluate(waves, z) - activation(z)).abs().max()
    assert waves.largest_error == pytest.approx(float(error), rel=1e-3)


def test_a_name_and_a_callable_give_the_same_waves():
    named = fixed_waves(resolve_activation("gelu"), 6.0, 64, 0.5, 8)
    nameless = fixed_waves(
        resolve_activation(lambda z: torch.nn.functional.gelu(z)), 6.0, 64, 0.5, 8
    )
    assert torch.equal(named.omega, nameless.omega)
    assert torch.equal(named.amplitude, nameless.amplitude)


def test_gaussian_frequencies():
    waves = gaussian_waves(100_000, torch.Generator().manual_seed(0))
    assert (waves.omega > 0).all()
    assert float(waves.omega.square().mean()) == pytest.approx(1, abs=4 * (2 / 100_000) ** 0.5)
    z = torch.linspace(-3, 3, 7).double()
    assert (evaluate(waves, z) - torch.exp(-z.square() / 2)).abs().max() < 4 * (
        0.5 / 100_000
    ) ** 0.5


def test_distinct():
    found, first, counts = distinct(torch.tensor([3.0, 3.0, 1.0, 2.0, 1.0]))
    assert found.tolist() == [1, 2, 3] and first.tolist() == [2, 3, 0]
    assert counts.tolist() == [2, 1, 2]
