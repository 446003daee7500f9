"""
How many features does a kernel need?
=====================================

An explicit map with k(x, y) ≈ φ(x)·φ(y) turns a kernel machine into a linear model. How close it
comes depends on the number of features, on the kernel, and on how the random directions are drawn.
"""

import matplotlib.pyplot as plt
import torch

from mercer.features import (
    Fastfood,
    FastfoodProjection,
    MonomialFeatures,
    Nystroem,
    PolynomialSketch,
    PositiveFeatures,
    QuadratureFeatures,
    RandomFourier,
    kernel_features,
    make_projection,
    register_feature_method,
)
from mercer.kernels import (
    RBF,
    ArcCosine,
    Cosine,
    Exponential,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

SEEDS = range(4)


def rms(phi, x, truth):
    """Return the root-mean-square error of the kernel matrix of x."""
    z = phi(x)
    return (z @ z.mT - truth).square().mean().sqrt().item()


def mean_rms(make, x, truth):
    """Return the same, over draws."""
    return torch.tensor([rms(make(seed), x, truth) for seed in SEEDS]).square().mean().sqrt().item()


def sample(rows, in_features, seed=0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(rows, in_features, generator=source, dtype=torch.float64)


double = {"dtype": torch.float64}

# %%
# Waves
# -----
# Random Fourier features of a Gaussian kernel in four dimensions. Independent directions have
# errors that fall like the inverse square root of their number (dotted). Orthogonal ones cover
# space more evenly; Sobol points do so for all numbers that are drawn, and pull away as features
# are added, as the deterministic points of `QuadratureFeatures` do. The Hadamard and `Fastfood`
# products are for many inputs, where a matrix of directions is the main cost.

kernel = RBF(2.0).requires_grad_(False)
x = sample(150, 4)
truth = kernel(x)
sizes = [32, 128, 512, 2048]
ways = {
    draw: lambda m, seed, draw=draw: RandomFourier(
        kernel, 4, m, draw=draw, generator=seed, **double
    )
    for draw in ("gaussian", "orthogonal", "sobol", "hadamard")
}
ways["fastfood"] = lambda m, seed: Fastfood(kernel, 4, m, generator=seed, **double)
errors = {
    name: [mean_rms(lambda seed, m=m, make=make: make(m, seed), x, truth) for m in sizes]
    for name, make in ways.items()
}
errors["quadrature"] = [
    rms(QuadratureFeatures(kernel, 4, m, like=x, **double), x, truth) for m in sizes
]

figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for i, (name, values) in enumerate(errors.items()):
    ax.loglog(sizes, values, "os^DvP"[i] + "-", ms=5, lw=1.2, label=name)
    print(f"{name:>10}", *(f"{value:.1e}" for value in values))
guide = [errors["gaussian"][0] * (sizes[0] / m) ** 0.5 * 1.5 for m in sizes]
ax.loglog(sizes, guide, ":", color="0.4", label="m$^{-1/2}$")
ax.set(
    xlabel="number m of features",
    ylabel="RMS error of k(x, y)",
    title="RBF of lengthscale 2, 4 normal inputs",
)
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.legend(frameon=False, ncols=2)

# %%
# What products save, for 2,048 directions of 512 inputs:

for kind in ("gaussian", "hadamard", "fastfood"):
    directions = make_projection(kind, 2048, 512, generator=0)
    print(f"{kind:>9}: {sum(b.numel() for b in directions.buffers()):,} numbers stored")
assert isinstance(directions, FastfoodProjection)

# %%
# Positive features and sketches
# ------------------------------
# The exponential kernel of attention needs features that are never negative. Their error grows
# with the norm of the inputs, and `PositiveFeatures` predicts it (lines, for the independent
# draws). Damping, pairs of opposite directions and orthogonal ones keep it lower. Without damping
# the estimates have so heavy a tail at norm 2 that the few draws here miss most of it.
#
# A polynomial kernel has exact features, `MonomialFeatures`: 286 for degree 3 in 10 dimensions.
# Where they are too many, `PolynomialSketch` takes as many as you like.

norms = [0.25, 0.5, 1.0, 1.5, 2.0]
pairs = torch.nn.functional.normalize(sample(400, 16), dim=-1)
maps = {
    "plain (FAVOR+)": {"draw": "gaussian", "damping": 0.0, "paired": False},
    "damped": {"draw": "gaussian", "paired": False},
    "damped, paired": {"draw": "gaussian"},
    "damped, paired, orthogonal": {"draw": "orthogonal"},
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
for i, (name, options) in enumerate(maps.items()):
    measured, predicted = [], []
    for norm in norms:
        u, v = norm * pairs[:200], norm * pairs[200:]
        exact = torch.exp((u * v).sum(-1))
        squares = []
        for seed in range(8):
            phi = PositiveFeatures(
                Exponential(), 16, 256, norms=(norm, norm), generator=seed, **options, **double
            )
            squares.append(((phi(u) * phi(v)).sum(-1) / exact - 1).square().mean())
        measured.append(torch.stack(squares).mean().sqrt().item())
        predicted.append(phi.relative_error(u, v).square().mean().sqrt().item())
    left.semilogy(norms, measured, "os^D"[i], color=f"C{i}", label=name)
    if options["draw"] == "gaussian":
        left.semilogy(norms, predicted, color=f"C{i}", lw=1)
left.set(
    xlabel="norm of the inputs, in lengthscales",
    ylabel="relative RMS error",
    title="Exponential kernel, 256 features",
)
left.legend(frameon=False)

cubic = Polynomial(3).requires_grad_(False)
x = sample(200, 10) / 10**0.5
truth = cubic(x)
monomials = MonomialFeatures(cubic, 10, **double)
sizes = [32, 128, 512, 2048]
sketched = [
    mean_rms(lambda seed, m=m: PolynomialSketch(cubic, 10, m, generator=seed, **double), x, truth)
    for m in sizes
]
landmarks = [
    mean_rms(lambda seed, m=m: Nystroem.from_data(cubic, x, m, generator=seed), x, truth)
    for m in (32, 64, 128)
]
right.loglog(sizes, sketched, "o-", label="PolynomialSketch")
right.loglog((32, 64, 128), landmarks, "s-", label="Nystroem, on the data themselves")
right.axvline(
    monomials.num_features, ymax=0.7, color="C2", ls="--", label="MonomialFeatures, exact"
)
right.set(
    xlabel="number of features",
    ylabel="RMS error of k(x, y)",
    title="Polynomial kernel of degree 3, 10 inputs",
    ylim=(0.015, 20),
)
right.set_xticks(sizes, sizes)
right.minorticks_off()
right.legend(frameon=False)
print(f"{monomials.num_features} monomials: error {rms(monomials, x, truth):.1e}")

# %%
# Let the library choose
# ----------------------
# ``kernel.features(m, like=x)`` (or `kernel_features`, which takes names too) looks at the kernel
# and at data. The class of the map says what was chosen.

print(f"{'kernel':<30} {'inputs':>6}  {'map':<20} {'features':>8}  {'rel. error':>10}")
for kernel, in_features in (
    (Linear(), 20),
    (Polynomial(2), 20),
    (Cosine([3.0] * 20), 20),
    (RBF(2.0), 2),
    (Periodic(period=4.0), 1),
    (RBF(2.0), 8),
    (Matern(4.0, nu=1.5), 20),
    (Laplacian(20.0), 20),
    (RBF(4.0) + 0.5 * Matern(4.0), 20),
    (ArcCosine(), 20),
    (Exponential(4.0), 20),
):
    kernel.requires_grad_(False)
    x = sample(400, in_features)
    phi = kernel.features(256, like=x[:300], generator=0)
    name = type(phi).__name__
    truth = kernel(x[300:])
    error = rms(phi, x[300:], truth) / truth.square().mean().sqrt()
    shown = repr(kernel)[:30]
    print(f"{shown:<30} {in_features:6d}  {name:<20} {phi.num_features:8d}  {error:10.1e}")

# %%
# The choice has a place for maps of your own.


@register_feature_method("first_rows")
def first_rows(kernel, num_features, like, generator):
    return Nystroem(kernel, like[:num_features])


print(kernel_features("rbf", 16, like=sample(100, 3), method="first_rows"))
plt.show()
