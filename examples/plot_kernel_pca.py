"""
Principal components of a kernel
================================

Linear methods find directions among the columns of a table. The same methods in the feature space
of a kernel find functions of the columns: `KernelPCA` those that vary most,
`KernelDiscriminantAnalysis` those that tell classes apart, `KernelCCA` those that two tables have
in common. All of them are an eigenproblem of a centred kernel matrix.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import make_circles

from mercer.datasets import digits
from mercer.kernels import (
    RBF,
    ArcCosine,
    PSDRepair,
    center_kernel,
    distance_kernel,
    nearest_psd,
    perplexity_bandwidths,
)
from mercer.linalg import TopEigenpairs, top_eigenpairs
from mercer.machines import KernelCCA, KernelDiscriminantAnalysis, KernelPCA, VectorKernelRidge
from mercer.report import PALETTE

colours = PALETTE["light"]
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=colours)  # colour-blind safe

# %%
# Circles
# -------
# No line parts two circles. With a Gaussian kernel the third component does: it is a function of
# the radius. Filled contours show each component over the plane.

X, y = make_circles(300, factor=0.4, noise=0.05, random_state=0)
model = KernelPCA(3, kernel=RBF(0.5)).fit(X)
side = np.linspace(-1.5, 1.5, 80)
grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
values = model.transform(grid).reshape(80, 80, 3)
figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.4), layout="constrained", sharey=True)
for i, ax in enumerate(axes):
    ax.contourf(side, side, values[..., i], levels=12, cmap="RdBu")
    for label, marker in ((0, "o"), (1, "^")):
        ax.scatter(
            *X[y == label].T,
            s=9,
            color="black" if label else "white",
            marker=marker,
            edgecolor="black",
            linewidth=0.4,
        )
    ax.set_title(f"component {i + 1}: {model.explained_variance_ratio_[i]:.0%}")
    ax.set_aspect("equal")

# %%
# Noise taken away
# ----------------
# A few components describe what is common to the rows. Going back from them to the plane, by the
# fixed point of Mika and others, draws each row towards the circle that it came from.

noisy = X + 0.08 * np.random.default_rng(1).normal(size=X.shape)
denoiser = KernelPCA(8, kernel=RBF(0.4), fit_inverse_transform=True, preimage="fixed_point")
clean = denoiser.fit(noisy).inverse_transform(denoiser.transform(noisy))
figure, axes = plt.subplots(
    1, 2, figsize=(7.2, 3.5), layout="constrained", sharex=True, sharey=True
)
for ax, rows, title in zip(
    axes, (noisy, clean), ("as they came", "from 8 components"), strict=True
):
    for label in (0, 1):
        ax.scatter(*rows[y == label].T, s=9, color=colours[label])
    ax.set_title(title)
    ax.set_aspect("equal")

# %%
# Digits, as a wide ReLU layer sees them
# --------------------------------------
# The arc-cosine kernel is that of an infinitely wide layer of ReLU neurons. Its components do not
# know the labels; discriminants do, and part all ten classes with nine functions. Of both the
# first two are drawn, for test digits.

data = digits()
x, labels = data.train.x.double(), data.train.y
kernel = ArcCosine(order=1)
components = KernelPCA(2, kernel=kernel, random_state=0).fit(x)
discriminants = KernelDiscriminantAnalysis(kernel=kernel, alpha=10.0).fit(x, labels)
figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.2), layout="constrained")
test, truth = data.test.x.double(), data.test.y
for ax, machine, title in (
    (axes[0], components, "KernelPCA"),
    (axes[1], discriminants, "KernelDiscriminantAnalysis"),
):
    scores = machine.transform(test)
    for digit in range(10):
        ax.scatter(*scores[truth == digit, :2].T, s=8, color=plt.colormaps["tab10"](digit))
        middle = scores[truth == digit, :2].median(0).values
        ax.text(
            *middle,
            str(digit),
            fontsize=15,
            weight="bold",
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.1", "color": "white", "alpha": 0.75},
        )
    ax.set_title(title)
accuracy = (discriminants.predict(test) == truth).double().mean()
print(components.eigen_solver_, f"{accuracy:.3f} of the test digits are told apart")

# %%
# Many rows
# ---------
# Nothing above needs the matrix of all pairs. Beyond 1,000 rows components come from products
# with it, in tiles where it does not fit, until residuals are small (`top_eigenpairs`); with
# ``"nystroem"`` from landmarks, at a cost that grows with n.

some = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
gram = RBF(2.0).requires_grad_(False).gram(some)
pairs = top_eigenpairs(lambda v: gram @ v, len(some), 4, generator=0)
assert isinstance(pairs, TopEigenpairs)
print(pairs.products, "products; residuals", pairs.residuals)
for solver in ("randomized", "nystroem"):
    found = KernelPCA(4, kernel=RBF(2.0), eigen_solver=solver, random_state=0).fit(some)
    print(solver, found.eigenvalues_)

# %%
# Distances in the place of columns
# ---------------------------------
# Where there are distances only, ``distance_kernel`` makes the centred kernel matrix of points at
# those distances, and its components are the points: classical multidimensional scaling. Distances
# that no points can have show as eigenvalues below zero; ``nearest_psd`` takes them out, and
# reports how much that changed.

taxi = torch.cdist(some[:200], some[:200], p=1.0)  # sums of differences, not Euclidean
repaired = nearest_psd(distance_kernel(taxi))
assert isinstance(repaired, PSDRepair)
print(f"{repaired.negative} negative eigenvalues, {repaired.share:.1%} of the sum of magnitudes")
scaled = KernelPCA(3, kernel="precomputed").fit_transform(repaired.matrix)
print("correlation of distances", np.corrcoef(torch.pdist(scaled), torch.pdist(some[:200], p=1.0)))
print(torch.allclose(center_kernel(repaired.matrix), repaired.matrix))  # it was centred already
widths = perplexity_bandwidths(taxi, 15.0)  # of a Gaussian about each point, with 15 neighbours
print(f"lengthscales from {widths.min():.2f} to {widths.max():.2f}")

# %%
# Two tables
# ----------
# Two instruments see the same event through different functions, beside a column of noise each.
# ``KernelCCA`` finds a function of each table that agree, although no column of one is correlated
# with a column of the other.

source = np.random.default_rng(0)
hidden = source.uniform(-1, 1, 500)
one = np.stack([np.cos(np.pi * hidden), source.normal(size=500)], 1)
two = np.stack([hidden, source.normal(size=500)], 1)
one, two = (table + 0.05 * source.normal(size=table.shape) for table in (one, two))
both = KernelCCA(1, alpha=0.1).fit(one[:350], two[:350])
u, v = both.transform(one[350:], two[350:])
figure, ax = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
ax.scatter(u, v, s=10)
ax.set_xlabel("function of the first table")
ax.set_ylabel("function of the second table")
ax.set_title(f"new rows, correlation {np.corrcoef(u[:, 0], v[:, 0])[0, 1]:.2f}")

# %%
# Several targets
# ---------------
# Entries of a target that go together learn from each other when a kernel between them says so.

inputs = source.uniform(0, 1, (60, 1))
signal = np.sin(6 * inputs)
targets = np.concatenate([signal] * 6, 1) + 0.8 * source.normal(size=(60, 6))
for name, between in (("alone", None), ("together", 0.1 * np.eye(6) + 0.9)):
    ridge = VectorKernelRidge(RBF(0.2), 1.0, output_kernel=between).fit(inputs, targets)
    print(f"{name:9}", f"mean square error {((ridge.predict(inputs) - signal) ** 2).mean():.3f}")

plt.show()
