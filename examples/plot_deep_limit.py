"""
Networks of infinite depth
==========================

Let an infinitely wide network become infinitely deep, and classify by its kernel. What it turns
into depends on two numbers of the activation: the majority of all labels, the nearest neighbour,
or a mean of labels weighted by a power of the distance. With the right power, which is the
dimension of the data, it is the best classifier there is, given enough of them.

(A. Radhakrishnan, M. Belkin, C. Uhler 2023, arXiv 2204.14126.)
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.neighbors import KNeighborsClassifier

from mercer.infinite import deep_limit, optimal_activation
from mercer.kernels import HermiteActivation
from mercer.machines import DeepLimitClassifier
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

# %%
# Three classes of activations
# ----------------------------
# `mercer.infinite.deep_limit` says which one it is. Activations with a mean, such as ReLU, end in
# a kernel that is the same for all pairs; those without a linear part, such as h₂, in one that is
# zero for all; between the two, off-diagonal entries shrink at one rate and keep their ratios.

for name in ("relu", "gelu", "tanh", "erf", HermiteActivation(2), optimal_activation(3)):
    found = deep_limit(name)
    print(f"{found.activation:>22}: {found.kind:9} exponent {found.exponent:.3f}")
figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.5), layout="constrained")
for activation, ax in zip(("relu", HermiteActivation(2), optimal_activation(2)), axes, strict=True):
    deep_limit(activation).plot(ax)
    ax.set_title(deep_limit(activation).kind.capitalize())

# %%
# Made for a dimension
# --------------------
# `optimal_activation` is a sum of Hermite polynomials whose exponent is the dimension. Two classes
# of points on a sphere, each a Dirichlet distribution, overlap; the best possible classifier is
# right on 95% of them.


def draw(count, seed):
    """Return points on the positive part of the sphere in three dimensions, with labels."""
    rng = np.random.default_rng(seed)
    y = (rng.random(count) < 0.4).astype(int)
    one, two = rng.dirichlet((0.5, 0.5, 2.5), count), rng.dirichlet((2.5, 0.1, 0.5), count)
    x = np.where(y[:, None] == 1, one, two)
    return x / np.linalg.norm(x, axis=1, keepdims=True), y


x_test, y_test = draw(2000, 99)
sizes = (100, 300, 1000)
models = {
    "optimal for d = 2": DeepLimitClassifier(),
    "Hilbert's estimate": DeepLimitClassifier("hilbert"),
    "erf": DeepLimitClassifier("erf"),
    "optimal, 60 layers": DeepLimitClassifier(depth=60, limit=False),
    "1 nearest neighbour": KNeighborsClassifier(1),
}
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for (name, model), style in zip(models.items(), ("o-", "s--", "^-", "x:", "d-"), strict=True):
    scores = []
    for size in sizes:
        draws = [draw(size, seed) for seed in range(4)]
        scores.append(np.mean([model.fit(x, y).score(x_test, y_test) for x, y in draws]))
    ax.plot(sizes, scores, style, label=name, mfc="white")
    print(f"{name:>20}: " + ", ".join(f"{s:.4f}" for s in scores))
majority = DeepLimitClassifier("relu").fit(*draw(1000, 0)).score(x_test, y_test)
print(f"{'majority (ReLU)':>20}: {majority:.4f}")
ax.axhline(0.952, color="0.5", lw=1, ls=":", label="best possible")
ax.set(xscale="log", xlabel="training points", ylabel="accuracy", title="Two Dirichlet classes")
ax.legend(frameon=False)

# %%
# Consistency is slow: with these numbers of points a smaller exponent, that of erf, which looks
# further, is about as good. The network of 60 layers takes a linear solve and gives the same.
#
# What the decision looks like
# ----------------------------
# Even activations see opposite points as alike (in the middle of the first figure). The classifier
# therefore keeps inputs within a right angle of each other: rows that do not lie on a sphere are
# projected to a part of one. It goes through all labels, and its decision is yet smooth away from
# them.

rng = np.random.default_rng(0)
angle, side = rng.uniform(0, np.pi, 200), rng.integers(0, 2, 200)
moons = np.stack([np.cos(angle) + side, np.sin(angle) * (1 - 2 * side) + 0.4 * side], 1)
moons += 0.25 * rng.normal(size=moons.shape)
grid = np.stack(np.meshgrid(np.linspace(-1.8, 2.8, 140), np.linspace(-1.5, 1.7, 100)), -1)
figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.3), layout="constrained", sharey=True)
panels = ((1, "exponent 1: looks far"), (2, "exponent 2: consistent"), (16, "exponent 16: nearest"))
for ax, (dimension, title) in zip(axes, panels, strict=True):
    model = DeepLimitClassifier(dimension).fit(moons, side)
    values = model.decision_function(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    image = ax.pcolormesh(grid[..., 0], grid[..., 1], values, cmap="viridis", vmin=-1, vmax=1)
    ax.contour(grid[..., 0], grid[..., 1], values, [0.0], colors="white", linewidths=1)
    for label, marker in ((0, "o"), (1, "^")):
        ax.scatter(*moons[side == label].T, c="white", ec="black", s=16, lw=0.6, marker=marker)
    ax.set(title=title, xlabel="first coordinate")
axes[0].set_ylabel("second coordinate")
figure.colorbar(image, ax=axes, label="mean of the labels −1 and 1")

# %%
# Deep kernels without underflow
# ------------------------------
# At depth 1,000 the entries of the kernel are below 1e-300. They are computed as logarithms.

sign, log = deep_limit(optimal_activation(2)).log_kernel(torch.tensor([1e-12, 1e-3, 0.5]), 1000)
print([f"{s * v / np.log(10):.1f}" for s, v in zip(sign.tolist(), log.tolist(), strict=True)])
plt.show()
