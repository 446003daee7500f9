"""
Distributions, densities and local averages, exact and fast
===========================================================

How many rows lie below a point in every column is a question that takes a scan of all rows, and so
n² steps for n points. Divide and conquer answers it for all of them in n log n (two columns) or
n log² n (three), and Laplacian densities and regressions are a few such sums.

(N. Langrené, X. Warin, "Fast multivariate empirical cumulative distribution function with
connection to kernel density estimation", 2021, arXiv 2005.03246.)
"""

import time

import matplotlib.pyplot as plt
import numpy as np
import torch

from mercer.linalg import (
    dominance_sums,
    dominance_sums_on_grid,
    product_kernel_sums,
    product_kernel_sums_on_grid,
)
from mercer.machines import ECDF, KernelDensity, NadarayaWatson
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe
rng = np.random.default_rng(0)

# %%
# The distribution function
# -------------------------
# 20,000 points on two arcs. `ECDF` gives the share of rows below, or above, any point: at the
# points themselves by divide and conquer, on a grid by counting and summing along each axis.

angle = rng.uniform(0, np.pi, 20_000)
side = rng.integers(0, 2, 20_000)
X = np.stack([np.cos(angle) + side - 0.5, (1 - 2 * side) * np.sin(angle) + 0.25 * side], 1)
X += rng.normal(size=X.shape) * 0.12
ecdf = ECDF().fit(X)
axes = [np.linspace(-1.9, 1.9, 121), np.linspace(-1.2, 1.4, 101)]
figure, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for ax, values, title in (
    (panels[0], ecdf.evaluate_grid(axes), "share of rows below in both columns"),
    (panels[1], ecdf.survival_grid(axes), "share of rows above in both columns"),
):
    ax.plot(*X[::20].T, ".", color="0.8", markersize=2)
    lines = ax.contour(*axes, values.T, levels=[0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95])
    ax.clabel(lines, fontsize=8)
    ax.set_title(title)

# %%
# Time
# ----
# The functions beneath, `mercer.linalg.dominance_sums` and its companion on a grid, take tensors
# and any weights. Counts are whole numbers, and exact, ties included.

sizes = [2_000, 4_000, 8_000, 16_000, 32_000]
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for d in (2, 3, 4):
    taken = []
    for n in sizes:
        points = torch.from_numpy(rng.normal(size=(n, d)))
        start = time.perf_counter()
        counts = dominance_sums(points)
        taken.append(time.perf_counter() - start)
    ax.loglog(sizes, taken, "o-", label=f"{d} columns")
    law = np.array(sizes) * np.log(sizes) ** (d - 1)
    ax.loglog(sizes, taken[-1] * law / law[-1], "--", color="0.6", zorder=0)
ax.set(xlabel="points", ylabel="seconds", title="All counts; dashed: n log$^{d-1}$ n")
ax.legend(frameon=False)
some = points[:3]
print(torch.equal(counts[:3], (points <= some[:, None]).all(-1).sum(1)))
on_grid = dominance_sums_on_grid(points[:, :2], [torch.tensor([0.0]).double()] * 2)
print("below zero in two of the columns:", on_grid.item())

# %%
# Densities
# ---------
# `KernelDensity` has scikit-learn's kernels, and products of one-dimensional ones, whose sums are
# exact and fast. The bandwidth is chosen by the likelihood of each row under all others. On a grid
# 20,000 points cost no more than a histogram.

figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
few = X[:1200]
for ax, kernel in zip(panels, ("gaussian", "laplacian", "matern32"), strict=True):
    model = KernelDensity(kernel=kernel, bandwidth="cv").fit(few)
    density = model.density_on_grid(axes)
    ax.contourf(*axes, density.T, levels=12, cmap="Blues")
    ax.set_title(f"{kernel}, h = {model.bandwidth_:.2f}")
    print(f"{kernel:>10}: {model.score(X[2000:]) / 18_000:.4f} nats a row, held out")
draws = model.sample(300, random_state=0)
panels[2].plot(*draws.T, ".", color="C1", markersize=3)

# %%
# The engine is a product with the kernel's matrix, never built.

weights = torch.from_numpy(rng.normal(size=len(X)))
found = product_kernel_sums(torch.from_numpy(X), weights, bandwidth=0.1)
nodes = [torch.linspace(-1, 1, 5).double()] * 2
print(product_kernel_sums_on_grid(torch.from_numpy(X), nodes, weights, bandwidth=0.1).shape)

# %%
# Local averages and local lines
# ------------------------------
# `NadarayaWatson` predicts by averages of what is nearby. At the edge of the data an average leans
# inwards; a line, fitted around each query, does not. The shaded strip tells on how many points
# each prediction rests.

x = np.sort(rng.uniform(0, 1, 300)) ** 1.5
y = np.sin(7 * x) + 2 * x + 0.25 * rng.normal(size=300)
z = np.linspace(0, 1, 400)[:, None]
figure, ax = plt.subplots(figsize=(7.2, 4), layout="constrained")
ax.plot(x, y, ".", color="0.75", markersize=4)
ax.plot(z, np.sin(7 * z) + 2 * z, "--", color="0.4", label="truth")
for local in ("constant", "linear"):
    model = NadarayaWatson(local=local).fit(x[:, None], y)
    label = f"{local}, h = {model.bandwidth_:.3f}, left-out error {model.loo_error_:.4f}"
    ax.plot(z, model.predict(z), label=label)
strip = ax.twinx()
strip.fill_between(z[:, 0], model.effective_neighbors(z), color="C1", alpha=0.15, linewidth=0)
strip.set(ylim=(0, 150), ylabel="effective neighbours of the line")
ax.set(xlabel="x", ylabel="y", title="Regression by what is nearby")
ax.legend(frameon=False, loc="upper left")
plt.show()
