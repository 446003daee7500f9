import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from sklearn.manifold import ClassicalMDS
from sklearn.preprocessing import KernelCenterer

from mercer.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Cosine,
    CosineSimilarity,
    Exponential,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    RationalQuadratic,
    SpectralMixture,
    White,
    center_kernel,
    distance_kernel,
    nearest_psd,
    perplexity_bandwidths,
)


def _points(n=40, d=3, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_centring_is_scikit_learns():
    k = RBF(1.0)(_points()).detach()
    expected = KernelCenterer().fit_transform(k.numpy())
    np.testing.assert_allclose(center_kernel(k), expected, atol=1e-14)


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="Classical scaling, -HD²H/2, is the centred Gram; its eigenvectors give the distances.",
)
def test_distances_to_inner_products_and_back(evidence):
    x = _points()
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    k = distance_kernel(d)
    centred = x - x.mean(0)
    error = float((k - centred @ centred.mT).abs().max())
    evidence(required="<= 1e-8", measured=error, what="against the centred Gram")
    values, vectors = torch.linalg.eigh(k)
    z = (vectors * values.clamp(min=0).sqrt()).flip(1)[:, :3]
    back = float((torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist") - d).abs().max())
    evidence(required="<= 1e-8", measured=back, what="distances of the scaled points")
    assert error <= 1e-12 and back <= 1e-8
    theirs = ClassicalMDS(3, metric="precomputed").fit_transform(d.numpy())
    np.testing.assert_allclose(z.abs().numpy(), np.abs(theirs), atol=1e-8)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_powers_of_distances_are_distances(power):
    x = _points()
    d = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    k = distance_kernel(d**power)  # of negative type, for powers up to 1
    assert float(torch.linalg.eigvalsh(k)[0]) >= -1e-6


def test_repairs():
    a = torch.randn(30, 30, generator=torch.Generator().manual_seed(0)).double()
    a = a + a.mT
    values = torch.linalg.eigvalsh(a)
    below = values < 0
    for method in ("clip", "flip", "shift"):
        found = nearest_psd(a, method=method)
        assert float(torch.linalg.eigvalsh(found.matrix)[0]) >= -1e-12
        torch.testing.assert_close(found.eigenvalues, values)
        assert found.negative == int(below.sum())
        assert found.share == pytest.approx(float(values[below].abs().sum() / values.abs().sum()))
        change = float((found.matrix - a).norm() / a.norm())
        assert found.change == pytest.approx(change, rel=1e-10)
    shifted = nearest_psd(a, method="shift").matrix - a
    torch.testing.assert_close(shifted, -values[0] * torch.eye(30).double())
    squared = nearest_psd(a, method="flip").matrix
    torch.testing.assert_close(squared @ squared, a @ a, rtol=0, atol=1e-10)
    # The nearest one: no other matrix without negative eigenvalues is nearer.
    clip = nearest_psd(a).change
    assert clip == pytest.approx(float(values[below].norm() / values.norm()), rel=1e-10)
    kernel = RBF(1.0)(_points()).detach()
    same = nearest_psd(kernel)
    assert same.negative == 0 and same.share == 0 and same.change < 1e-14


def test_perplexity():
    x = _points(60)
    d = torch.cdist(x, x)
    lengthscales = perplexity_bandwidths(d, 12.0)
    for i in range(0, 60, 7):
        others = torch.cat([d[i, :i], d[i, i + 1 :]]).numpy()

        def gap(log, others=others):
            p = np.exp(-(others**2) / (2 * math.exp(2 * log)))
            p = p / p.sum()
            return -(p * np.log(np.maximum(p, 1e-300))).sum() - math.log(12.0)

        expected = math.exp(brentq(gap, math.log(0.05), math.log(50), xtol=1e-13))
        assert float(lengthscales[i]) == pytest.approx(expected, rel=1e-8)
    ties = torch.ones(20, 20).fill_diagonal_(0)  # all others are equally near
    assert bool(torch.isfinite(perplexity_bandwidths(ties, 5.0)).all())


CATALOGUE = [
    RBF(1.0),
    Matern(1.0, nu=0.5),
    Matern(1.0, nu=1.5),
    Matern(1.0, nu=2.5),
    Laplacian(1.0),
    RationalQuadratic(1.0),
    Periodic(),
    Cosine(),
    SpectralMixture([1.0, 0.5], [[0.3, 0.0, 0.1], [1.0, 0.2, 0.0]], [[0.1] * 3, [0.4] * 3]),
    Linear(),
    Polynomial(degree=3),
    Exponential(),
    ArcCosine(),
    CosineSimilarity(),
    Constant(),
    White(),
]


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="All kernels of the catalogue are positive semi-definite on 200 random points.",
)
@pytest.mark.parametrize("kernel", CATALOGUE, ids=lambda kernel: type(kernel).__name__)
def test_catalogue_is_positive_semi_definite(kernel, evidence):
    k = kernel(_points(200)).detach()
    least = float(torch.linalg.eigvalsh(k)[0])
    scale = max(1.0, float(k.diagonal().max()))
    evidence(required=">= -2e-7, times the largest diagonal entry where above 1", measured=least)
    assert least >= -1e-9 * 200 * scale


@pytest.mark.parametrize("function", [center_kernel, distance_kernel, nearest_psd])
@pytest.mark.parametrize(
    ("error", "match", "value"),
    [
        (ValueError, "expected a square matrix", torch.ones(3, 2)),
        (ValueError, "expected a symmetric matrix", torch.tensor([[0.0, 1.0], [2.0, 0.0]])),
        (ValueError, "NaN", torch.full((2, 2), torch.nan)),
        (TypeError, "expected a torch.Tensor", [[0.0]]),
        (TypeError, "floating-point", torch.zeros(2, 2, dtype=torch.long)),
    ],
)
def test_refuses(function, error, match, value):
    with pytest.raises(error, match=match):
        function(value)


def test_refuses_what_are_no_distances():
    with pytest.raises(ValueError, match="distances: expected numbers of at least 0"):
        distance_kernel(torch.eye(3))
    with pytest.raises(ValueError, match="distances: expected numbers of at least 0"):
        distance_kernel(torch.eye(3) - 1)
    with pytest.raises(ValueError, match="method"):
        nearest_psd(torch.eye(3), method="best")
    for value in (1.0, 2.0):
        with pytest.raises(ValueError, match="perplexity"):
            perplexity_bandwidths(1 - torch.eye(3), value)
