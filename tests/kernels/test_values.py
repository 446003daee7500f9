"""Values against scikit-learn, closed forms, and arithmetic in more digits."""

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import kernels as gaussian_process
from sklearn.metrics import pairwise

from mercer.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Cosine,
    CosineSimilarity,
    Exponential,
    Kernel,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    RationalQuadratic,
    Scaled,
    SpectralMixture,
    White,
)

ISSUE = "core-scalable-neural-network-kernels"


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TWINS = {
    "rbf": (RBF(1.7), lambda x, y: pairwise.rbf_kernel(x, y, gamma=0.5 / 1.7**2)),
    "rbf, one lengthscale a dimension": (
        RBF([0.5, 1.0, 2.0, 3.0, 4.0]),
        gaussian_process.RBF([0.5, 1.0, 2.0, 3.0, 4.0]),
    ),
    "matern 1/2": (Matern(0.7, nu=0.5), gaussian_process.Matern(0.7, nu=0.5)),
    "matern 3/2": (Matern(0.7, nu=1.5), gaussian_process.Matern(0.7, nu=1.5)),
    "matern 5/2": (Matern(0.7, nu=2.5), gaussian_process.Matern(0.7, nu=2.5)),
    "rational quadratic": (
        RationalQuadratic(0.7, alpha=1.3),
        gaussian_process.RationalQuadratic(0.7, 1.3),
    ),
    "laplacian": (Laplacian(2.3), lambda x, y: pairwise.laplacian_kernel(x, y, gamma=1 / 2.3)),
    "linear": (Linear(), pairwise.linear_kernel),
    "dot product": (1.0 * Linear() + 0.49, gaussian_process.DotProduct(0.7)),
    "polynomial": (
        Polynomial(3, offset=0.5, lengthscale=2.0),
        lambda x, y: pairwise.polynomial_kernel(x, y, degree=3, gamma=0.25, coef0=0.5),
    ),
    "cosine similarity": (CosineSimilarity(), pairwise.cosine_similarity),
    "constant": (Constant(0.3), gaussian_process.ConstantKernel(0.3)),
    "sum and product": (
        2.0 * RBF(1.5) * Matern(2.0, nu=2.5) + White(0.1),
        gaussian_process.ConstantKernel(2.0)
        * gaussian_process.RBF(1.5)
        * gaussian_process.Matern(2.0, nu=2.5)
        + gaussian_process.WhiteKernel(0.1),
    ),
}


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("size", [(9, 7), (700, 300)])  # in one piece, and by tiles
def test_values_are_those_of_scikit_learn(name, size):
    kernel, twin = TWINS[name]
    x, y = points(size[0], 5), points(size[1], 5, seed=1)
    with torch.no_grad():
        between, within = kernel(x, y).numpy(), kernel(x).numpy()
    assert abs(between - twin(x.numpy(), y.numpy())).max() <= 1e-12
    square = twin(x.numpy()) if isinstance(twin, gaussian_process.Kernel) else twin(x, x)
    assert abs(within - square).max() <= 1e-12


def test_periodic_is_that_of_scikit_learn_in_one_dimension():
    x = points(50, 1)
    found = Periodic(0.9, period=1.7).requires_grad_(False)(x).numpy()
    assert abs(found - gaussian_process.ExpSineSquared(0.9, 1.7)(x.numpy())).max() <= 1e-12


def test_formulas_in_several_dimensions():
    x, y = points(4, 3), points(5, 3, seed=1)
    period, lengthscale = [1.1, 2.0, 3.0], [0.7, 1.0, 1.4]
    found = {
        "periodic": Periodic(lengthscale, period=period)(x, y),
        "cosine": Cosine(period)(x, y),
        "exponential": Exponential(lengthscale)(x, y),
        "mixture": SpectralMixture(
            [0.5, 2.0], means=[lengthscale, period], scales=[period, lengthscale]
        )(0.1 * x, 0.1 * y),
    }
    p, l = np.array(period), np.array(lengthscale)  # noqa: E741
    for i in range(4):
        for j in range(5):
            t = (x[i] - y[j]).numpy()
            expected = {
                "periodic": math.exp(-2 * (np.sin(np.pi * t / p) ** 2 / l**2).sum()),
                "cosine": math.cos(2 * math.pi * (t / p).sum()),
                "exponential": math.exp(float((x[i] * y[j]).numpy() @ (1 / l**2))),
                "mixture": sum(
                    w
                    * math.cos(2 * math.pi * 0.1 * float(t @ mean))
                    * math.exp(-2 * math.pi**2 * float((0.1 * t) ** 2 @ scale**2))
                    for w, mean, scale in [(0.5, l, p), (2.0, p, l)]
                ),
            }
            for name, value in expected.items():
                assert abs(found[name][i, j].item() - value) <= 1e-13, name


def test_scaled_and_white():
    x = points(4, 2)
    assert torch.equal(White(0.25)(x).detach(), 0.25 * torch.eye(4, dtype=torch.float64))
    assert torch.equal(White(0.25)(x, x.clone()).detach(), torch.zeros(4, 4).double())
    assert torch.equal(White()(x, x).detach(), torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(Scaled(RBF(), 3.0)(x), 3.0 * RBF()(x))


@pytest.mark.parametrize("order", [0, 1, 2])
def test_arc_cosine_is_the_formula_of_cho_and_saul(order):
    x, y = points(200, 4), points(150, 4, seed=1)
    x[3], y[7], y[8], y[9] = 0.0, 0.0, 3.0 * x[5], -2.0 * x[6]
    norms = x.norm(dim=-1)[:, None] * y.norm(dim=-1)
    cos = (x @ y.mT / norms.clamp_min(1e-300)).clamp(-1, 1)
    theta = torch.where(norms == 0, torch.pi / 2, cos.acos())
    j = {
        0: torch.pi - theta,
        1: theta.sin() + (torch.pi - theta) * theta.cos(),
        2: 3 * theta.sin() * theta.cos() + (torch.pi - theta) * (1 + 2 * theta.cos() ** 2),
    }[order]
    expected = norms**order * j / torch.pi
    expected[3, 7] = float(order == 0)  # two zeros coincide
    kernel = ArcCosine(order)
    for found in (kernel(x, y), kernel._naive(x, y)):
        # acos itself has lost half of the digits where rows are collinear, which costs order 0.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 if order else 3e-8)
    if order == 0:
        assert float((kernel(x, y)[5, 8] - 1).abs()) <= 1e-15


@pytest.mark.peer
def test_values_are_those_of_gpytorch():
    gpytorch = pytest.importorskip("gpytorch")
    x, y = points(40, 3), points(30, 3, seed=1)

    def twin(kind: str, **values: float) -> torch.Tensor:
        kernel = getattr(gpytorch.kernels, kind)(
            **({"nu": values.pop("nu")} if "nu" in values else {})
        ).double()
        kernel.initialize(**{k: torch.tensor(v, dtype=torch.float64) for k, v in values.items()})
        return kernel(x, y).to_dense()

    pairs: list[tuple[Kernel, torch.Tensor]] = [
        (RBF(0.8), twin("RBFKernel", lengthscale=0.8)),
        (Matern(0.8, nu=0.5), twin("MaternKernel", nu=0.5, lengthscale=0.8)),
        (Matern(0.8, nu=1.5), twin("MaternKernel", nu=1.5, lengthscale=0.8)),
        (Matern(0.8, nu=2.5), twin("MaternKernel", nu=2.5, lengthscale=0.8)),
        (RationalQuadratic(0.8, alpha=1.4), twin("RQKernel", lengthscale=0.8, alpha=1.4)),
        # Theirs divides by the lengthscale itself, ours by its square, as MacKay does.
        (
            Periodic(0.8**0.5, period=1.3),
            twin("PeriodicKernel", lengthscale=0.8, period_length=1.3),
        ),
        (Linear(2.0), twin("LinearKernel", variance=0.25)),
    ]
    for kernel, value in pairs:
        torch.testing.assert_close(kernel(x, y), value, rtol=0, atol=1e-12, msg=repr(kernel))


@pytest.mark.paper(ISSUE, "exact", "values agree with scikit-learn's on centred data, in float64")
def test_evidence_of_the_values(evidence):
    x, y = points(700, 5), points(300, 5, seed=1)
    worst = 0.0
    for kernel, twin in TWINS.values():
        with torch.no_grad():
            worst = max(worst, abs(kernel(x, y).numpy() - twin(x.numpy(), y.numpy())).max())
    evidence(required="<= 1e-12", measured=worst, what="thirteen kernels")
    assert worst <= 1e-12


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize(
    "kernel", [RBF(0.9), Matern(0.9, nu=0.5), Matern(0.9), RationalQuadratic()], ids=repr
)
@pytest.mark.paper(ISSUE, "exact", "data with an offset of 1e4 stay accurate to 1e-9")
def test_offset_data(kernel, offset, evidence):
    x = points(400, 5) + offset
    with torch.no_grad():
        found, formula = kernel(x), kernel._naive(x, None)
    s = ((x[:, None] - x[None]) / kernel.lengthscale.detach()).square().sum(-1)
    exact = kernel.profile(s).detach()
    error = float((found - exact).abs().max())
    assert float((formula - exact).abs().max()) <= 1e-9
    evidence(required="<= 1e-9", measured=error, what=f"{kernel!r}, offset {offset:g}")
    assert error <= 1e-9


def test_scikit_learn_loses_the_digits_that_we_keep():
    x = points(200, 5) + 1e4
    near = x[0] + 1e-3 * points(1, 5, seed=3)
    exact = math.exp(-50.0 * float((near[0] - x[0]).square().sum()))
    theirs = pairwise.rbf_kernel(x[:1].numpy(), near.numpy(), gamma=50.0)[0, 0]
    ours = RBF(0.1)(x[:1], near).item()
    assert abs(ours - exact) <= 1e-9 < abs(theirs - exact)


def test_far_clusters_keep_their_digits():
    """Two clusters 1e4 apart: no common offset helps within them."""
    for d in (1, 2, 8):
        x = torch.cat([points(300, d), points(300, d, seed=1) + 1e4])
        for kernel in (RBF(0.9), Matern(0.9, nu=0.5)):
            s = ((x[:, None] - x[None]) / 0.9).square().sum(-1)
            with torch.no_grad():
                assert float((kernel(x) - kernel.profile(s)).abs().max()) <= 1e-11


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 3, 40])
def test_identical_rows_are_at_distance_zero(dtype, d):
    x = points(300, d).to(dtype) + 30.0
    twice = x.clone()[torch.randperm(300, generator=torch.Generator().manual_seed(4))]
    kernel = Matern(0.5, nu=0.5).requires_grad_(False)
    for found in (kernel(x, twice), kernel._naive(x, twice)):
        assert int((found == 1).sum()) >= 300
        assert torch.equal((found == 1).sum(1), torch.ones(300, dtype=torch.long))


@pytest.mark.parametrize("nu", [1.5, 2.5])
def test_second_derivative_of_matern_at_coincident_points(nu):
    """d^2 k / dx dy = nu / (nu - 1) / l^2 at x = y, from the spectral density."""
    kernel = Matern(0.8, nu=nu)
    x = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    y = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(kernel(x, y).sum(), x, create_graph=True)
    (mixed,) = torch.autograd.grad(first.sum(), y)
    assert abs(float(mixed) - nu / (nu - 1) / 0.64) <= 1e-12


def test_second_derivative_of_rbf_at_coincident_points():
    x = torch.full((1, 1), 3.0, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    (first,) = torch.autograd.grad(RBF(0.8)(x, y).sum(), x, create_graph=True)
    (mixed,) = torch.autograd.grad(first.sum(), y)
    assert abs(float(mixed) - 1 / 0.64) <= 1e-12


@pytest.mark.parametrize("kernel", [RBF(0.5), Matern(0.5, nu=0.5), Laplacian(0.5)], ids=repr)
def test_nothing_is_lost_far_away(kernel):
    x = torch.tensor([[0.0], [1e-300], [1e300], [1e4]], dtype=torch.float64)
    found = kernel(x)
    assert torch.isfinite(found).all() and float(found[0, 2].detach()) == 0.0


def test_nan_stays_nan():
    x = points(600, 3)
    x[5, 1] = math.nan
    with torch.no_grad():
        for kernel in (RBF(), Matern(), Laplacian(), Polynomial()):
            for found in (kernel(x), kernel(x[:9])):
                assert torch.isnan(found[5]).sum() >= len(found) - 1
                assert torch.isfinite(found[:5, :5]).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e200])
@pytest.mark.parametrize("kernel", [RBF(), Matern(nu=0.5), RationalQuadratic()], ids=repr)
@torch.no_grad()
def test_a_bad_row_does_not_cost_the_others_their_digits(kernel, bad):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(10, 3, generator=g, dtype=torch.float64).repeat(20, 1) + 1e6  # each 20 times
    x[100:] += 1e3
    clean = kernel(x)
    x[7, 0] = bad
    found, rest = kernel(x), torch.arange(len(x)) != 7
    assert torch.equal(found[rest][:, rest], clean[rest][:, rest])
    if not math.isnan(bad):
        assert float(found[7, rest].max()) < 1e-90  # infinitely far away
    else:
        assert bool(found[7, rest].isnan().all())


@pytest.mark.parametrize("kernel", [RBF(), Matern(), Periodic(), ArcCosine(0)], ids=repr)
@pytest.mark.parametrize("n", [5, 200])
def test_points_without_coordinates(kernel, n):
    x, ones = torch.zeros(n, 0), torch.ones(n)
    matrix = kernel(x)
    assert torch.equal(matrix, kernel._naive(x, None))
    assert torch.allclose(kernel.gram(x) @ ones, matrix @ ones)


def test_third_derivatives_of_the_laplacian():
    x = points(12, 2).requires_grad_()

    def third(kernel):
        (g,) = torch.autograd.grad(kernel(x).sin().sum(), x, create_graph=True)
        (h,) = torch.autograd.grad(g.square().sum(), x, create_graph=True)
        return torch.autograd.grad(h.square().sum(), x)[0]

    def naive(z):
        return torch.exp(-(z.unsqueeze(1) - z).abs().sum(-1))

    expected = third(naive)
    assert (third(Laplacian()) - expected).abs().max() < 1e-12 * expected.abs().max()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_a_traced_matrix_is_not_a_constant():
    kernel, x = RBF().requires_grad_(False), points(200, 3)
    traced = torch.jit.trace(lambda z: kernel(z), x, check_trace=False)
    assert (traced(2 * x) - kernel(2 * x)).abs().max() < 1e-12
