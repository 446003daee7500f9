"""Independent ways to the means that duals stand for: quadrature and Monte Carlo with NumPy."""

import numpy as np
import torch

PAIRS = [(1.3, 0.7, 0.45), (1.0, 1.0, -0.6), (0.5, 2.0, 0.99), (1.5, 1.5, 0.0)]


def values_and_slopes(function, x):
    """The function and its derivative by autograd at NumPy numbers."""
    z = torch.tensor(x, requires_grad=True)
    value = function(z)
    if not value.requires_grad:
        return value.numpy(), np.zeros_like(x)
    (slope,) = torch.autograd.grad(value.sum(), z)
    return value.detach().numpy(), slope.numpy()


def by_gauss_hermite(function, q11, q22, q12, nodes=180):
    """K and Kdot of a smooth activation on the product of two Gauss-Hermite rules."""
    z, w = np.polynomial.hermite_e.hermegauss(nodes)
    w = w / w.sum()
    keep = w > 1e-30
    z, w = z[keep], w[keep]
    rest = np.sqrt(max(q22 - q12**2 / q11, 0.0))
    u, du = values_and_slopes(function, np.sqrt(q11) * z)
    v, dv = values_and_slopes(function, q12 / np.sqrt(q11) * z[:, None] + rest * z)
    return (u * w) @ v @ w, (du * w) @ dv @ w


def by_pieces(function, q11, q22, q12, kinks, which=0):
    """K (which=0) or Kdot (which=1) by fine panels, the plane cut along the lines of the kinks."""
    s1, slope, rest = np.sqrt(q11), q12 / np.sqrt(q11), np.sqrt(max(q22 - q12**2 / q11, 0.0))
    x, w = np.polynomial.legendre.leggauss(20)

    def panels(edges):
        low, high = edges[..., :-1, None], edges[..., 1:, None]
        points = (low + high) / 2 + (high - low) / 2 * x
        weights = (high - low) / 2 * w * np.exp(-(points**2) / 2) / np.sqrt(2 * np.pi)
        return points.reshape(*edges.shape[:-1], -1), weights.reshape(*edges.shape[:-1], -1)

    z, outer = panels(np.sort([*np.linspace(-8.5, 8.5, 121), *[k / s1 for k in kinks]]))
    cuts = (np.array(kinks).reshape(1, -1) - slope * z[:, None]) / rest  # (outer, kinks)
    base = np.broadcast_to(np.linspace(-8.5, 8.5, 7), (len(z), 7))
    y, inner = panels(np.sort(np.concatenate([base, np.clip(cuts, -8.5, 8.5)], -1), -1))
    g = values_and_slopes(function, slope * z[:, None] + rest * y)[which]
    f = values_and_slopes(function, s1 * z)[which]
    return (f * outer * (g * inner).sum(-1)).sum()


def by_monte_carlo(function, q11, q22, q12, draws, seed=0):
    """Means of K and Kdot with their standard errors."""
    rng = np.random.default_rng(seed)
    sums, count = np.zeros(4), 0
    while count < draws:
        z = rng.standard_normal((2, 10**6))
        u, du = values_and_slopes(function, np.sqrt(q11) * z[0])
        v = q12 / np.sqrt(q11) * z[0] + np.sqrt(q22 - q12**2 / q11) * z[1]
        v, dv = values_and_slopes(function, v)
        k, d = u * v, du * dv
        sums += k.sum(), (k * k).sum(), d.sum(), (d * d).sum()
        count += z.shape[1]
    mean = sums / count
    errors = np.sqrt(np.maximum(mean[[1, 3]] - mean[[0, 2]] ** 2, 0) / count)
    return mean[0], errors[0], mean[2], errors[1]
