import pytest
import torch

from mercer.linalg.psd import check_psd_matrix, psd_spectrum


def test_rounding_asymmetry_is_averaged_out():
    a = torch.randn(6, 4)
    k = a @ a.mT
    k[0, 1] += 1e-6
    clean = check_psd_matrix("k", k)
    assert clean.dtype == torch.float64
    assert torch.equal(clean, clean.mT)
    assert float((clean - k.double()).abs().max()) <= 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_spectrum_stops_at_the_numerical_rank(dtype):
    a = torch.randn(30, 4, dtype=dtype)
    for eigenvalues, vectors in (psd_spectrum(a @ a.mT, None, ""), psd_spectrum(None, a, "")):
        assert vectors.shape == (30, 4)
        assert vectors.dtype == torch.float64
        rebuilt = (vectors * eigenvalues) @ vectors.mT
        tolerance = 100 * torch.finfo(dtype).eps
        assert torch.allclose(rebuilt, (a @ a.mT).double(), atol=tolerance)
