import math

import matplotlib as mpl
import pytest
import torch

from mercer.linalg import spectral_density

N = 300
X = torch.rand(N, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
K = torch.exp(-torch.cdist(X, X).square() / (2 * 0.2**2))
A = K + 1e-2 * torch.eye(N, dtype=torch.float64)
EXACT = torch.linalg.eigvalsh(A)


def _times(v):
    return A @ v


@pytest.mark.parametrize("log", [False, True])
def test_the_density_is_that_of_the_smoothed_eigenvalues(log):
    found = spectral_density(_times, N, log=log, num_probes=30, steps=100, generator=0)
    places = EXACT.log10() if log else EXACT
    grid = found.grid.log10() if log else found.grid
    width = 0.15 if log else float(found.nodes.max() - found.nodes.min()) / 30
    gaps = (grid.unsqueeze(-1) - places) / width
    exact = torch.exp(-gaps.square() / 2).mean(-1) / (width * math.sqrt(2 * math.pi))
    error = (found.density - exact).abs()
    assert bool((error <= 5 * found.standard_error + 1e-3 * exact.max()).all())
    assert float(torch.trapezoid(found.density, grid)) == pytest.approx(1.0, abs=5e-3)


def test_counts_eigenvalues_that_stand_apart():
    values = torch.cat([torch.linspace(0, 1, 93), torch.full((7,), 5.0)]).double()
    q = torch.linalg.qr(torch.randn(100, 100, dtype=torch.float64)).Q
    a = (q * values) @ q.mT
    found = spectral_density(lambda v: a @ v, 100, num_probes=40, generator=0)
    count = found.count(4.0, math.inf)
    assert abs(count.value - 7) <= 4 * count.standard_error <= 4
    assert found.count(-math.inf, math.inf).value == pytest.approx(100)


@pytest.mark.parametrize("log", [False, True])
def test_plot(log):
    mpl.use("agg")
    found = spectral_density(_times, N, log=log, generator=0)
    ax = found.plot()
    assert ax.get_xscale() == ("log" if log else "linear")
    assert ax.lines[0].get_ydata() == pytest.approx(found.density.numpy())
    assert found.plot(ax) is ax
    mpl.pyplot.close(ax.figure)


@pytest.mark.parametrize(
    ("error", "match", "call"),
    [
        (ValueError, "width", lambda: spectral_density(torch.clone, N)),
        (ValueError, "width", lambda: spectral_density(_times, N, width=0.0)),
        (ValueError, "log", lambda: spectral_density(torch.neg, N, log=True)),
        (ValueError, "num_points", lambda: spectral_density(_times, N, num_points=1)),
        (TypeError, "generator", lambda: spectral_density(_times, N, generator="0")),
    ],
)
def test_errors(error, match, call):
    with pytest.raises(error, match=match):
        call()
