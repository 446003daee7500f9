"""Kernels to GPyTorch and back; `make peers` installs it."""

import pytest
import torch
from torch import nn

from mercer.infinite import NTK
from mercer.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Cosine,
    CosineSimilarity,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    Precomputed,
    RationalQuadratic,
    White,
    as_gpytorch,
    from_gpytorch,
)

pytestmark = pytest.mark.peer
gpytorch = pytest.importorskip("gpytorch")

NATIVE = {
    "RBFKernel": RBF([0.7, 1.3, 2.0]),
    "MaternKernel": Matern(1.4, nu=2.5),
    "RQKernel": RationalQuadratic([0.7, 1.3, 2.0], alpha=0.6),
    "PeriodicKernel": Periodic(0.8, period=2.5),
    "LinearKernel": Linear([0.7, 1.3, 2.0]),
    "ConstantKernel": Constant(0.4),
    "ScaleKernel": 2.5 * Matern([1.0, 2.0, 3.0], nu=1.5),
    "AdditiveKernel": 0.5 * RBF(2.0) + Matern(1.0, nu=0.5) + 0.1,
    "ProductKernel": RBF(2.0) * Linear(1.5),
}
BRIDGED = {
    "polynomial": Polynomial(2, offset=0.0),
    "laplacian": Laplacian(2.0),
    "arc-cosine": ArcCosine(1),
    "cosine": Cosine(3.0),
    "angle": CosineSimilarity() + Laplacian(1.0),
    "network": NTK(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))),
}


def _points():
    source = torch.Generator().manual_seed(0)
    return (torch.randn(n, 3, generator=source, dtype=torch.float64) for n in (12, 7))


def _check(ours, theirs):
    x, y = _points()
    with torch.no_grad():
        for a, b in ((x, x), (x, y)):
            gap = (theirs(a, b).to_dense() - ours(a, None if a is b else b)).abs().max()
            assert float(gap) <= 1e-7  # their distances are taken from sums of squares
        assert float((theirs(x, diag=True) - ours.diag(x)).abs().max()) <= 1e-9


@pytest.mark.parametrize("name", NATIVE)
def test_native_kernels_are_equal_there_and_back(name):
    theirs = as_gpytorch(NATIVE[name])
    assert type(theirs).__name__ == name
    _check(NATIVE[name], theirs)
    back = from_gpytorch(theirs)
    _check(back, theirs)
    for a, b in zip(NATIVE[name].parameters(), back.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BRIDGED)
def test_other_kernels_are_carried(name):
    theirs = as_gpytorch(BRIDGED[name])
    _check(BRIDGED[name], theirs)
    x, y = _points()
    with torch.no_grad():
        pairs = theirs(x[:7], y, diag=True)
        torch.testing.assert_close(pairs, BRIDGED[name](x[:7], y).diagonal())
    if name != "angle":
        assert repr(from_gpytorch(theirs)) == repr(BRIDGED[name])


def test_a_scaled_polynomial():
    kernel = Polynomial(3, offset=0.7, lengthscale=1.3)
    theirs = as_gpytorch(kernel)
    _check(kernel, theirs)
    _check(from_gpytorch(theirs), theirs)
    plain = as_gpytorch(RBF(2.0), native=False)
    assert plain.kernel.raw_lengthscale.requires_grad and type(plain).__name__ == "MercerKernel"


@pytest.mark.parametrize(
    ("kernel", "tolerance"),
    [
        (NTK(nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1)), b_std=0.4), 1e-9),
        (Matern(1.5, nu=2.5), 1e-6),  # their distances are taken from sums of squares
    ],
    ids=["network", "matern"],
)
def test_their_process_is_ours(kernel, tolerance):
    """Marginal likelihood, its gradient, and the posterior."""
    from mercer.machines import GaussianProcessRegressor

    x, new = _points()
    y = torch.sin(x.sum(1))
    theirs = as_gpytorch(kernel)
    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = torch.tensor(0.1, dtype=torch.float64)  # a float would be rounded

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            super().__init__(x, y, likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            self.covar_module = theirs

        def forward(self, z):
            return gpytorch.distributions.MultivariateNormal(
                self.mean_module(z), self.covar_module(z)
            )

    model = Model().double()
    model.train()
    value = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, model)(model(x), y)
    value.backward()
    ours = GaussianProcessRegressor(kernel, 0.1, optimizer=None, normalize_y=False).fit(x, y)
    expected, gradient = ours.log_marginal_likelihood(eval_gradient=True)
    assert abs(len(y) * value.item() - expected) <= tolerance * abs(expected)
    if type(theirs).__name__ == "MercerKernel":  # whose parameters are the same logarithms
        found = [len(y) * p.grad.item() for p in theirs.parameters()]
        assert max(abs(found - gradient)) <= tolerance * max(abs(gradient))
    model.eval()
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        posterior = model(new)
    mean, std = ours.predict(new, return_std=True)
    assert float((mean - posterior.mean).abs().max()) <= tolerance
    assert float((std.square() - posterior.variance).abs().max()) <= tolerance


def test_what_cannot_be_carried_is_refused():
    with pytest.raises(ValueError, match="likelihood"):
        as_gpytorch(RBF() + White(0.1))
    with pytest.raises(ValueError, match="vectors"):
        as_gpytorch(Precomputed(torch.eye(3)))
    with pytest.raises(TypeError, match="kernel"):
        as_gpytorch("rbf")
    with pytest.raises(TypeError, match="GPyTorch"):
        from_gpytorch(RBF())
    with pytest.raises(RuntimeError, match="left to the data"):
        as_gpytorch(RBF("median"))
    with pytest.raises(ValueError, match="active_dims"):
        from_gpytorch(gpytorch.kernels.RBFKernel(active_dims=(0, 1)))
    with pytest.raises(ValueError, match="batch_shape"):
        from_gpytorch(gpytorch.kernels.RBFKernel(batch_shape=torch.Size([2])))
    with pytest.raises(ValueError, match="CosineKernel"):
        from_gpytorch(gpytorch.kernels.CosineKernel())
    with pytest.raises(ValueError, match="whole vectors"):
        x = torch.ones(2, 3)
        as_gpytorch(Laplacian(1.0)).forward(x, x, last_dim_is_batch=True)
