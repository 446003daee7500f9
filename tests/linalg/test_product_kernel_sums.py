import itertools
import math
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import laplacian_kernel

from mercer.linalg import product_kernel_sums, product_kernel_sums_on_grid
from mercer.linalg.decaying_sums import decaying_sums
from mercer.linalg.dominance_sums import dominance_sums
from mercer.linalg.product_profiles import PROFILES
from mercer.linalg.window_sums import paired_sums

SHEET = "machines-fast-ecdf-kde"
MODULE = "mercer.linalg.product_kernel_sums"
KAPPA = {  # written out once more, in NumPy
    "laplacian": lambda t: np.exp(-t),
    "matern32": lambda t: (1 + 3**0.5 * t) * np.exp(-(3**0.5) * t),
    "matern52": lambda t: (1 + 5**0.5 * t + 5 * t**2 / 3) * np.exp(-(5**0.5) * t),
    "uniform": lambda t: 1.0 * (t <= 1),
    "triangular": lambda t: (1 - t) * (t <= 1),
    "epanechnikov": lambda t: (1 - t**2) * (t <= 1),
    "biweight": lambda t: (1 - t**2) ** 2 * (t <= 1),
    "triweight": lambda t: (1 - t**2) ** 3 * (t <= 1),
    "cosine": lambda t: np.cos(np.pi * t / 2) * (t <= 1),
}


def _points(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def direct(kernel, x, z, w, h):
    t = np.abs(z.numpy()[:, None] - x.numpy()) / np.broadcast_to(h, x.shape[1])
    return torch.as_tensor(KAPPA[kernel](t).prod(-1) @ w.numpy())


@pytest.fixture(params=["fast", "pairs"])
def way(request, monkeypatch):
    """Both ways of computing, whichever would be chosen."""
    fast = request.param == "fast"
    monkeypatch.setattr(sys.modules[MODULE], "_LEVEL", 0.0 if fast else 1e9)
    monkeypatch.setattr(sys.modules[MODULE], "_PASS", 0.0)
    return request.param


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel", KAPPA)
@pytest.mark.parametrize("bandwidth", [0.02, 0.4, 3.0])
def test_every_kernel_is_the_direct_sum(kernel, d, bandwidth, way):
    if d == 3 and len(PROFILES[kernel].coefficients) > 3:
        pytest.skip("as in two dimensions, and slow")
    x, z = _points(200, d), 1.5 * _points(60, d, 1)
    w = _points(200, 2, 2)
    h = [bandwidth * (1 + 0.3 * k) for k in range(d)]
    for targets in (None, z):
        found = product_kernel_sums(x, w, targets, kernel=kernel, bandwidth=h)
        expected = direct(kernel, x, x if targets is None else targets, w, h)
        scale = direct(kernel, x, x, w.abs(), h).max()
        assert float((found - expected).abs().max() / scale) <= 2e-11


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kernel", KAPPA)
@pytest.mark.parametrize("bandwidth", [0.02, 3.0])
def test_every_kernel_on_a_grid(kernel, d, bandwidth):
    x, w = _points(200, d), _points(200, 2, 2)
    h = torch.tensor([bandwidth * (1 + 0.3 * k) for k in range(d)])
    axes = [torch.linspace(-2.5, 2.2 + k, 6 + k, dtype=torch.float64) for k in range(d)]
    axes[0][2] = x[0, 0]
    axes[0] = axes[0].sort().values
    found = product_kernel_sums_on_grid(x, axes, w, kernel=kernel, bandwidth=h)
    assert found.shape == (*map(len, axes), 2)
    nodes = torch.cartesian_prod(*axes).view(-1, d)
    expected = direct(kernel, x, nodes, w, h.double().numpy()).view(found.shape)
    scale = direct(kernel, x, x, w.abs(), h.double().numpy()).max()
    assert float((found - expected).abs().max() / scale) <= 2e-11


@pytest.mark.parametrize("coefficients", [(1.0,), (1.0, 1.0), (1.0, 1.0, 1 / 3)])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("scale", [0.1, 20.0, 1e4])
def test_decaying_sums_keep_relative_accuracy(coefficients, d, scale):
    x = _points(300, d) * scale
    x[150:200] = x[:50].round()  # ties in every coordinate
    w = _points(300, 1, 1).abs().mT.contiguous()
    gap = (x[:, None] - x).abs()
    value = sum(c * gap**p for p, c in enumerate(coefficients)) * torch.exp(-gap)
    expected = w @ value.prod(-1)
    found = decaying_sums(x, w, coefficients)
    assert float((found / expected - 1).abs().max()) <= 1e-13


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="The Laplacian density on a grid is the direct sum, also at h = 0.002.",
)
@pytest.mark.parametrize("bandwidth", [0.3, 0.002])
def test_laplacian_grid_is_stable(bandwidth, evidence):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2000, 2, generator=g, dtype=torch.float64)
    axes = [torch.linspace(0, 1, 15, dtype=torch.float64)] * 2
    found = product_kernel_sums_on_grid(x, axes, bandwidth=bandwidth)
    nodes = torch.cartesian_prod(*axes)
    expected = direct("laplacian", x, nodes, torch.ones(2000).double(), bandwidth).view(15, 15)
    error = float((found / expected - 1).abs().max())
    evidence(required="<= 1e-14 relative", measured=error, what=f"h = {bandwidth}")
    assert error <= 1e-14


@pytest.mark.paper(
    SHEET, kind="exact", claim="It is scikit-learn's laplacian_kernel(gamma=1/h) times a vector."
)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_against_scikit_learn(d, evidence, monkeypatch):
    monkeypatch.setattr(sys.modules[MODULE], "_LEVEL", 0.0)
    monkeypatch.setattr(sys.modules[MODULE], "_PASS", 0.0)
    x, v = _points(500, d), _points(500, 3, 1)
    found = product_kernel_sums(x, v, bandwidth=0.7)
    expected = laplacian_kernel(x.numpy(), gamma=1 / 0.7) @ v.numpy()
    error = float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())
    evidence(required="<= 1e-13", measured=error, what=f"d = {d}")
    assert error <= 1e-13


@pytest.mark.paper(
    SHEET, kind="exact", claim="A Laplacian sum is 2^d distribution functions with weights e^{x/h}."
)
def test_decomposition_into_distribution_functions(evidence):
    x, w, h = _points(400, 2), _points(400, 1, 1)[:, 0].abs(), 0.5
    total = torch.zeros(400).double()
    for upper in itertools.product((False, True), repeat=2):
        sign = torch.tensor([-1.0 if up else 1.0 for up in upper]).double()
        exponent = (x * sign).sum(1) / h
        total += torch.exp(-exponent) * dominance_sums(x, w * torch.exp(exponent), upper=upper)
    found = product_kernel_sums(x, w, bandwidth=h)
    error = float((found / total - 1).abs().max())
    evidence(required="<= 1e-13", measured=error)
    assert error <= 1e-13


def test_windows_without_points_are_exactly_zero(way):
    x = _points(300, 1)
    far = torch.tensor([[7.0], [-8.0]]).double()
    for kernel in ("uniform", "epanechnikov", "cosine", "triangular", "triweight"):
        assert product_kernel_sums(x, targets=far, kernel=kernel).tolist() == [0.0, 0.0]


def test_edges_of_a_uniform_window_belong_to_it(way):
    x = torch.arange(8.0).double().unsqueeze(1)
    found = product_kernel_sums(x, kernel="uniform", bandwidth=2.0)
    assert found.tolist() == [3, 4, 5, 5, 5, 5, 4, 3]


def test_profiles_integrate_to_what_they_say():
    from scipy.integrate import quad

    for profile in PROFILES.values():
        end = 60.0 if profile.rate else 1.0
        integral, _ = quad(
            lambda t, p=profile: float(p(torch.tensor(t, dtype=torch.float64))), 0, end, limit=200
        )
        assert 2 * integral == pytest.approx(profile.integral, rel=1e-9), profile.name


def test_paired_sums_of_a_narrow_window_look_at_few_points():
    x, z = _points(5000, 2), _points(400, 2, 1)
    w = torch.ones(1, 5000).double()
    found = paired_sums(PROFILES["epanechnikov"], x / 0.05, z / 0.05, w)[0]
    assert torch.allclose(found, direct("epanechnikov", x, z, w[0], 0.05), rtol=1e-12, atol=1e-13)


def test_dtypes():
    x = _points(50, 2).float()
    assert product_kernel_sums(x).dtype == torch.float32
    assert product_kernel_sums(x, torch.ones(50, 1).double()).dtype == torch.float64
    assert product_kernel_sums(x, torch.ones(50, 1)).shape == (50, 1)


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"kernel": "gaussian"}, ValueError, "kernel.*approximations"),
        ({"kernel": "quartic"}, ValueError, "kernel"),
        ({"kernel": None}, TypeError, "kernel"),
        ({"bandwidth": 0.0}, ValueError, "bandwidth"),
        ({"bandwidth": [1.0]}, ValueError, "bandwidth"),
        ({"bandwidth": [1.0, -1.0]}, ValueError, "bandwidth"),
        ({"bandwidth": torch.ones(2, 2)}, ValueError, "bandwidth"),
        ({"bandwidth": "scott"}, TypeError, "bandwidth"),
        ({"bandwidth": math.nan}, ValueError, "bandwidth"),
        ({"points": X / 0}, ValueError, "points"),
        ({"weights": torch.ones(3)}, ValueError, "weights"),
        ({"targets": torch.zeros(2, 3)}, ValueError, "targets"),
    ],
)
def test_bad_input(arguments, error, name):
    with pytest.raises(error, match=name):
        product_kernel_sums(**{"points": X, **arguments})
    if "targets" not in arguments:
        with pytest.raises(error, match=name):
            product_kernel_sums_on_grid(**{"points": X, "axes": [torch.zeros(1)] * 2, **arguments})


def test_many_dimensions_go_by_pairs():
    x = _points(60, 20)
    found = product_kernel_sums(x, kernel="matern32", bandwidth=3.0)
    expected = direct("matern32", x, x, torch.ones(60).double(), 3.0)
    assert torch.allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", ["laplacian", "matern32", "matern52", "epanechnikov"])
def test_points_far_apart_see_themselves_only(kernel, way):
    far = _points(40, 2) * torch.tensor([1e250, 1.0], dtype=torch.float64)
    x = torch.cat((far, torch.zeros(4, 2, dtype=torch.float64)))
    found = product_kernel_sums(x, kernel=kernel)
    assert found.tolist() == [1.0] * 40 + [4.0] * 4
    axes = [torch.tensor([-1e250, 0.0, 1e250], dtype=torch.float64), torch.tensor([0.0]).double()]
    on_grid = product_kernel_sums_on_grid(x[40:], axes, kernel=kernel)
    assert on_grid.flatten().tolist() == [0.0, 4.0, 0.0]
    with pytest.raises(ValueError, match=r"bandwidth: .* too small"):
        product_kernel_sums(x, kernel=kernel, bandwidth=1e-100)
