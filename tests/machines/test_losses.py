"""Losses and their derivatives against autograd, and the minimiser against SciPy's."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mercer.kernels import RBF
from mercer.machines.kernel_input import KernelInput
from mercer.machines.landmark_basis import exact_basis, landmark_basis
from mercer.machines.losses import LogisticLoss, MultinomialLoss, SmoothHinge, SmoothInsensitive
from mercer.machines.newton_cg import newton_cg
from mercer.machines.svm_rows import merge_rows


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


N = 40
SIGNS, WEIGHTS = draw(N, 1).sign(), draw(N, 1, seed=1).abs()
LOSSES = {
    "logistic": (LogisticLoss(SIGNS, WEIGHTS), 1),
    "multinomial": (
        MultinomialLoss(torch.nn.functional.one_hot(torch.arange(N) % 3).double(), WEIGHTS),
        3,
    ),
    "hinge": (SmoothHinge(SIGNS, WEIGHTS, 0.5), 1),
    "one class": (SmoothHinge(torch.ones(N, 1).double(), WEIGHTS, 0.3, level=0.0), 1),
    "insensitive": (SmoothInsensitive(draw(N, 1, seed=2), WEIGHTS, 0.2, 0.4), 1),
}


def plain(name, f):
    """The losses in a form that autograd follows."""
    if name == "logistic":
        return (WEIGHTS * torch.log1p(torch.exp(-SIGNS * f))).sum()
    if name == "multinomial":
        own = f[torch.arange(N), torch.arange(N) % 3]
        return (WEIGHTS[:, 0] * (f.logsumexp(-1) - own)).sum()
    loss, _ = LOSSES[name]
    if name == "insensitive":
        gap, width = (f - loss.targets).abs() - loss.epsilon, loss.width
    else:
        gap, width = loss.level - loss.signs * f, loss.width
    bent = torch.where(gap < width, gap.square() / (2 * width), gap - width / 2)
    return (WEIGHTS * torch.where(gap > 0, bent, 0.0)).sum()


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives(name):
    loss, q = LOSSES[name]
    f = draw(N, q, seed=3).requires_grad_()
    value = plain(name, f)
    assert loss.value(f.detach()) == pytest.approx(value.item(), rel=1e-12)
    (slope,) = torch.autograd.grad(value, f)
    torch.testing.assert_close(loss.gradient(f.detach()), slope)
    v = draw(N, q, seed=4)
    _, image = torch.autograd.functional.hvp(lambda g: plain(name, g), f, v)
    state = loss.state(f.detach())
    torch.testing.assert_close(loss.multiply(state, v), image)
    unit = torch.zeros(N, q).double()
    unit[:, 0] = 1.0
    _, column = torch.autograd.functional.hvp(lambda g: plain(name, g), f, unit)
    torch.testing.assert_close(loss.diagonal(state)[:, 0], column[:, 0])


@pytest.mark.parametrize("size", [30.0, 700.0, 1e6])
def test_large_predictions_do_not_overflow(size):
    for loss, q in LOSSES.values():
        for f in (size * torch.ones(N, q).double(), -size * torch.eye(N, q).double()):
            assert np.isfinite(loss.value(f))
            assert torch.isfinite(loss.gradient(f)).all()
            assert torch.isfinite(loss.diagonal(loss.state(f))).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("intercept", [True, False])
def test_newtons_method_finds_scipys_minimum(name, intercept):
    loss, q = LOSSES[name]
    kernel, x = RBF(1.0), draw(N, 2, seed=5)
    source, index = KernelInput.fit(kernel, x), torch.arange(N)
    matrix = source.kernel(source.points)
    basis = exact_basis(source, index, matrix, center=intercept)
    tilt = 0.1 if name == "one class" and intercept else 0.0
    tilt *= float(WEIGHTS.sum())
    found = newton_cg(
        basis, loss, 0.3, outputs=q, intercept=intercept, tilt=tilt, tol=1e-15, max_iter=300
    )
    values, vectors = torch.linalg.eigh(matrix)
    phi = (vectors * values.clamp_min(0).sqrt()).numpy()  # not centred: b is the plain intercept

    def objective(z):
        w, b = z.reshape(N + 1, q)[:-1], z.reshape(N + 1, q)[-1] * intercept
        f = torch.from_numpy(phi @ w + b)
        slope = loss.gradient(f).numpy()
        value = loss.value(f) + 0.15 * (w**2).sum() + tilt * b.sum()
        return value, np.vstack(
            [phi.T @ slope + 0.3 * w, intercept * (slope.sum(0) + tilt)]
        ).ravel()

    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-16, "gtol": 1e-10, "maxcor": 50}
    peer = minimize(objective, np.zeros((N + 1) * q), jac=True, method="L-BFGS-B", options=options)
    f = basis @ found.coefficients + found.intercept
    w, b = peer.x.reshape(N + 1, q)[:-1], peer.x.reshape(N + 1, q)[-1] * intercept
    norm = found.coefficients.square().sum()
    b_here = found.intercept - basis.shift @ found.coefficients
    value = loss.value(f) + 0.15 * float(norm) + tilt * float(b_here.sum())
    assert value <= peer.fun + 1e-9 * abs(peer.fun)
    assert value == pytest.approx(peer.fun, rel=1e-7, abs=1e-9)
    difference = f.numpy() - phi @ w - b
    if name == "multinomial":  # the same constant for all classes changes nothing
        difference -= difference.mean()
    assert np.abs(difference).max() <= 2e-4


def test_landmark_features_have_the_kernels_products():
    source, index = KernelInput.fit(RBF(1.0), draw(60, 2)), torch.arange(60)
    for center in (True, False):
        basis = landmark_basis(
            source,
            index,
            60,
            method="uniform",
            center=center,
            generator=torch.Generator().manual_seed(0),
        )
        phi = basis @ torch.eye(len(basis.moments)).double()
        matrix = source.kernel(source.points)
        if center:
            mean = torch.eye(60).double() - 1 / 60
            matrix = mean @ matrix @ mean
        torch.testing.assert_close(phi @ phi.mT, matrix, rtol=0, atol=1e-9)
        u = draw(60, 3, seed=1)
        torch.testing.assert_close(basis.transposed(u), phi.mT @ u)
        torch.testing.assert_close(phi.square().mean(0), basis.moments, rtol=0, atol=1e-12)
        part = basis.on_rows(torch.tensor([4, 2]))
        torch.testing.assert_close(
            part @ basis.root.new_ones(len(basis.moments), 1), phi[[4, 2]].sum(-1, keepdim=True)
        )
    kernel = source.kernel
    w = draw(len(basis.moments), 2, seed=2)
    direct = kernel(source.points, basis.input.points) @ basis.coefficients(w)
    torch.testing.assert_close(basis @ w, direct, rtol=0, atol=1e-8)


def test_merging_rows():
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).double()
    source = KernelInput.fit(RBF(1.0), x)
    y = torch.tensor([1, 1, 1, 2, 1])
    index, weights = merge_rows(source, y, torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0]).double())
    found = {(*x[i].tolist(), int(y[i])): float(w) for i, w in zip(index, weights, strict=True)}
    assert found == {(1.0, 0.0, 1): 4.0, (0.0, 0.0, 1): 2.0, (1.0, 0.0, 2): 4.0}
    assert sorted(index.tolist()) == [0, 1, 3]
