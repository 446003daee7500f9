"""
What a kernel believes
======================

A kernel k(x, y) says how alike two points are, and with that which functions are likely: those of
the Gaussian prior whose covariance it is. Here are the kernels of `mercer.kernels` as curves, some
functions that they hold for likely, and what sums and products of them are good for.
"""

import math

import matplotlib.pyplot as plt
import torch

from mercer.kernels import (
    RBF,
    ArcCosine,
    Cosine,
    CosineSimilarity,
    DotProduct,
    Exponential,
    Kernel,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    Precomputed,
    Radial,
    RationalQuadratic,
    SpectralMixture,
    Stationary,
    White,
    resolve_kernel,
)
from mercer.linalg import solve_psd
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe


def column(*numbers):
    """Make points of one dimension."""
    return torch.tensor(numbers, dtype=torch.float64).reshape(-1, 1)


@torch.no_grad()
def evaluate(kernel, x, y=None):
    return kernel(x, y)


# %%
# Kernels of the distance
# -----------------------
# How fast likeness fades, and how smoothly it starts at zero, is how smooth the functions are. In
# one dimension `Laplacian` is ``Matern(nu=0.5)``; in more it adds up the absolute differences of
# the coordinates, so that it fades faster along a diagonal than along an axis.

r = torch.linspace(0, 3, 301, dtype=torch.float64).reshape(-1, 1)
mixture = SpectralMixture([0.7, 0.3], means=[[1.0], [2.5]], scales=[[0.15], [0.3]])
fading = {
    "RBF": RBF(),
    "Matern, nu = 5/2": Matern(nu=2.5),
    "Matern, nu = 3/2": Matern(nu=1.5),
    "Matern, nu = 1/2": Matern(nu=0.5),
    "RationalQuadratic, alpha = 1/2": RationalQuadratic(alpha=0.5),
}
waves = {
    "Periodic": Periodic(),
    "Cosine": Cosine(),
    "SpectralMixture of 2": mixture,
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharex=True)
for name, kernel in fading.items():
    left.plot(r, evaluate(kernel, r, column(0.0)), label=name)
diagonal = r * torch.ones(2, dtype=torch.float64) / math.sqrt(2)  # (301, 2)
left.plot(r, evaluate(Laplacian(), diagonal, torch.zeros_like(diagonal[:1])), "--", label="")
left.lines[-1].set_label("Laplacian, along a diagonal")
left.set(
    xlabel="distance, in lengthscales",
    ylabel="k(x, y)",
    title="Likeness that fades",
    ylim=(-0.05, 1.65),
)
left.legend(
    frameon=False, fontsize=8, loc="upper right", ncols=2, columnspacing=1, handlelength=1.6
)
for name, kernel in waves.items():
    right.plot(r, evaluate(kernel, r, column(0.0)), label=name)
right.axhline(0, color="0.6", lw=1, ls=":")
right.set(xlabel="distance, in periods", title="Likeness that comes back", ylim=(-1.1, 1.6))
right.legend(frameon=False, fontsize=8, loc="upper right", ncols=2)

# %%
# What they hold for likely
# -------------------------
# Three functions from each prior, by the Cholesky factor of the kernel matrix; the same random
# numbers in all panels.

t = torch.linspace(0, 6, 241, dtype=torch.float64).reshape(-1, 1)
source = torch.Generator().manual_seed(3)
normals = torch.randn(len(t), 3, generator=source, dtype=torch.float64)
shown = {
    "RBF": RBF(),
    "Matern, nu = 3/2": Matern(nu=1.5),
    "Matern, nu = 1/2": Matern(nu=0.5),
    "RationalQuadratic, alpha = 1/10": RationalQuadratic(alpha=0.1),
    "Periodic, period 2": Periodic(period=2.0),
    "SpectralMixture of 2": mixture,
}
figure, axes = plt.subplots(2, 3, figsize=(9, 4.4), layout="constrained", sharex=True, sharey=True)
for ax, (name, kernel) in zip(axes.flat, shown.items(), strict=True):
    matrix = evaluate(kernel, t)  # (241, 241)
    matrix.diagonal().add_(1e-8)
    ax.plot(t, torch.linalg.cholesky(matrix) @ normals, lw=1)
    ax.set_title(name, fontsize=9.5)
figure.supxlabel("x, in lengthscales", fontsize=10)
figure.supylabel("f(x)", fontsize=10)

# %%
# Kernels of the angle and the length
# -----------------------------------
# These multiply vectors instead of subtracting them. Left, the unit circle: there `Linear` and
# `CosineSimilarity` are the same. Right, what tells them apart: the length of one of the vectors.

angle = torch.linspace(0, math.pi, 181, dtype=torch.float64)
circle = torch.stack([angle.cos(), angle.sin()], -1)  # (181, 2)
length = torch.logspace(-1, 1, 61, dtype=torch.float64)
ray = length.unsqueeze(-1) * circle[60]  # (61, 2), at 60 degrees
products = {
    "Linear": Linear(),
    "Polynomial, degree 3": Polynomial(3),
    "Exponential": Exponential(),
    "ArcCosine, order 0": ArcCosine(0),
    "ArcCosine, order 1": ArcCosine(1),
    "ArcCosine, order 2": ArcCosine(2),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, kernel in products.items():
    at_one = evaluate(kernel, circle[:1])
    left.plot(angle.rad2deg(), evaluate(kernel, circle, circle[:1]) / at_one, label=name)
    right.loglog(length, evaluate(kernel, ray, circle[:1]) / at_one)
right.loglog(length, evaluate(CosineSimilarity(), ray, circle[:1]), "k--", lw=1)
left.plot([], [], "k--", lw=1, label="CosineSimilarity")
left.axhline(0, color="0.6", lw=1, ls=":")
left.set(xlabel="angle (degrees)", ylabel="k(x, y) / k(x, x)", title="Both of length 1")
left.set_xticks(range(0, 181, 45))
left.legend(frameon=False, fontsize=8.5)
right.set(
    xlabel="length of y, where x has length 1",
    ylabel="k(x, y) / k(x, x)",
    title="At an angle of 60°",
    ylim=(0.03, 30),
)

# %%
# Which family a kernel is of decides what can be done with it: a `Stationary` kernel has a
# spectrum, so random Fourier features; a `Radial` one a structured draw of them besides.

for kernel in (*fading.values(), Laplacian(), *waves.values(), *products.values()):
    family = next(c for c in (Radial, Stationary, DotProduct, Kernel) if isinstance(kernel, c))
    print(f"{family.__name__:<10}", repr(kernel)[:70])

# %%
# Sums and products
# -----------------
# Ten years of monthly numbers: a trend, a season that changes slowly, noise. The kernel is written
# as the sentence is. ``2.0 * k`` is a `Scaled` kernel, ``+`` a `Sum`, ``*`` a `Product`, a number
# added is a `Constant`; `White` is independent noise.

years = torch.arange(120, dtype=torch.float64).reshape(-1, 1) / 12
source = torch.Generator().manual_seed(0)
swing = (1 + 0.1 * years) * torch.sin(2 * math.pi * years)
jitter = 0.5 * torch.randn(120, 1, generator=source, dtype=torch.float64)
numbers = (0.15 * years**2 + swing + jitter).squeeze(-1)  # (120,)

trend = 30.0 * RBF(5.0) + 10.0
season = 2.0 * (Periodic(period=1.0) * RBF(10.0))
noise = White(1.0)
kernel = trend + season + noise
print(kernel)

# %%
# All positive numbers in it are parameters, and the marginal likelihood of the data tells which
# are likely.

optimizer = torch.optim.Adam(kernel.parameters(), lr=0.05)
for step in range(100):
    optimizer.zero_grad()
    factor = torch.linalg.cholesky(kernel(years))  # (120, 120)
    white = torch.linalg.solve_triangular(factor, numbers.unsqueeze(-1), upper=False)
    loss = white.square().sum() / 2 + factor.diagonal().log().sum()
    loss.backward()
    optimizer.step()
    if step % 33 == 0:
        print(f"step {step:3d}: negative log likelihood {loss.item():.1f}")
kernel.requires_grad_(False)
print(f"standard deviation of the noise: {noise.noise.sqrt():.2f}; the data's: 0.50")

# %%
# The answer splits as the kernel does, into a trend and a season without the noise, for months to
# come too. The mean of the season over a year could as well be part of the trend, and has drifted.

ahead = torch.arange(150, dtype=torch.float64).reshape(-1, 1) / 12
weights = solve_psd(kernel(years), numbers).solution  # (120,)
slow, cycle = trend(ahead, years) @ weights, season(ahead, years) @ weights
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharex=True)
left.plot(years, numbers, "o", ms=2.5, color="0.5", label="data")
left.plot(ahead, slow + cycle, "C0", label="trend + season")
left.plot(ahead, slow, "C1", label="trend")
left.set(xlabel="time (years)", ylabel="value", title="A sum of kernels, fitted")
right.plot(ahead, cycle, "C2", label="season, fitted")
right.plot(years, swing, "--", color="0.3", lw=1, label="season of the data")
right.set(xlabel="time (years)", title="The part of the season")
for ax in (left, right):
    ax.axvline(years[-1].item(), color="0.6", lw=1, ls=":")
    ax.legend(frameon=False, fontsize=8.5)

# %%
# A lengthscale from the data
# ---------------------------
# Without an idea of the scale, leave it to the median distance of the data; a name does so too.
# Lengthscales one a dimension (ARD) say which dimensions matter.

rows = torch.randn(500, 2, generator=source) * torch.tensor([1.0, 100.0])
print(RBF("median").fit(rows), resolve_kernel("matern52").fit(rows))
print(evaluate(RBF([1.0, 100.0]), rows[:3]))

# %%
# Points that are no vectors
# --------------------------
# `Precomputed` takes a matrix and speaks of numbered items. Here items are the cells of a room with
# a wall, and the matrix is that of heat which spreads from cell to cell for a while.

side, wall = 21, {(row, 10) for row in range(21) if row not in (1, 2, 3)}
cells = [(i, j) for i in range(side) for j in range(side) if (i, j) not in wall]
number = {cell: n for n, cell in enumerate(cells)}
laplacian = torch.zeros(len(cells), len(cells), dtype=torch.float64)
for (i, j), n in number.items():
    for neighbour in ((i + 1, j), (i, j + 1)):
        if neighbour in number:
            m = number[neighbour]
            laplacian[[n, m], [n, m]] += 1
            laplacian[[n, m], [m, n]] -= 1
heat = torch.matrix_exp(-30 * laplacian)
spread = heat.diagonal().rsqrt()
diffusion = Precomputed(spread.unsqueeze(-1) * heat * spread)
items = torch.arange(len(cells), dtype=torch.float64)
start = (8, 7)
picture = torch.full((side, side), math.nan)
picture[tuple(torch.tensor(cells).mT)] = diffusion(items, items[[number[start]]])[:, 0].float()
figure, ax = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
image = ax.imshow(picture.numpy(), cmap="cividis", origin="lower")
ax.plot(start[1], start[0], "o", mfc="none", mec="black", label="this cell")
ax.set(xlabel="column", ylabel="row", title="Likeness to one cell, around a wall")
ax.set_yticks(range(0, side, 5))
ax.legend(loc="upper left", fontsize=8.5)
figure.colorbar(image, ax=ax, label="k(x, y)")

# %%
# A kernel of your own
# --------------------
# Two methods make one, and the rest (sums, lazy matrices, features by landmarks, scikit-learn's
# ``clone``) comes by itself. This is the Tanimoto kernel, for counts of things.


class Tanimoto(Kernel):
    """x·y / (|x|² + |y|² − x·y)."""

    def __init__(self):
        super().__init__()

    def _evaluate(self, x, y):
        q = x @ y.mT
        sizes = x.square().sum(-1).unsqueeze(-1) + y.square().sum(-1).unsqueeze(-2)
        return q / (sizes - q)

    def _diagonal(self, x):
        return torch.ones_like(x[..., 0])


counts = torch.randint(5, (200, 8), generator=source).double() + 1
print((2.0 * Tanimoto()).gram(counts))
print(Tanimoto().features(50, like=counts, generator=0))
plt.show()
