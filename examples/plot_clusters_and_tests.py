"""
Clusters, and tests of samples, by kernels
==========================================

A kernel says how alike two rows are. That is enough to cluster them, and to ask whether two
samples come from one distribution (`mmd_test`) or two variables have to do with each other
(`hsic_test`).
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score

from mercer.kernels import RBF
from mercer.machines import (
    KernelKMeans,
    SampleTest,
    SpectralClustering,
    hsic,
    hsic_test,
    mmd,
    mmd_test,
)
from mercer.report import PALETTE

colours = PALETTE["light"]
plt.rcParams["axes.prop_cycle"] = plt.cycler(color=colours)  # colour-blind safe

# %%
# Two moons
# ---------
# k-means cuts space by straight lines. Kernel k-means cuts feature space, with the right
# lengthscale nearly along the moons; it needs restarts, of which few come to the best clusters.
# Spectral clustering follows a random walk, which hardly ever jumps from moon to moon.

X, y = make_moons(300, noise=0.05, random_state=0)
models = {
    "k-means": KMeans(2, n_init=10, random_state=0),
    "KernelKMeans": KernelKMeans(2, RBF(0.3), init="random", n_init=200, random_state=0),
    "SpectralClustering": SpectralClustering(2, RBF(0.13), random_state=0),
}
figure, axes = plt.subplots(1, 3, figsize=(9.6, 2.9), layout="constrained", sharey=True)
for ax, (name, model) in zip(axes, models.items(), strict=True):
    labels = model.fit_predict(X)
    for label in (0, 1):
        ax.scatter(*X[labels == label].T, s=9, color=colours[label])
    ax.set_title(f"{name}: ARI {adjusted_rand_score(y, labels):.2f}")
    ax.set_aspect("equal")

# %%
# The lengthscale decides
# -----------------------
# Too wide, and the feature space is the plane again; too narrow, and each row is its own cluster.

lengthscales = np.geomspace(0.04, 3, 16)
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for name, make in (
    ("KernelKMeans", lambda k: KernelKMeans(2, k, init="random", n_init=200, random_state=0)),
    ("SpectralClustering", lambda k: SpectralClustering(2, k, random_state=0)),
):
    scores = [adjusted_rand_score(y, make(RBF(w)).fit_predict(X)) for w in lengthscales]
    ax.semilogx(lengthscales, scores, marker="o", markersize=4, label=name)
ax.set_xlabel("lengthscale")
ax.set_ylabel("adjusted Rand index")
ax.legend()

# %%
# New rows
# --------
# Both say where a new row belongs: by the nearest mean in feature space, and by a step of the walk.

new, truth = make_moons(1000, noise=0.05, random_state=1)
for name in ("KernelKMeans", "SpectralClustering"):
    print(f"{name:18}", f"ARI {adjusted_rand_score(truth, models[name].predict(new)):.2f}")

# %%
# One distribution or two?
# ------------------------
# The two samples have the same means and variances. The maximum mean discrepancy is the distance
# of their means in feature space; under the hypothesis that they are one sample every way to share
# out the rows is alike, so the statistic of random ways says what to expect. A linear kernel sees
# the means alone.

source = torch.Generator().manual_seed(0)
normal = torch.randn(150, 2, generator=source, dtype=torch.float64)
corners = torch.randn(150, 2, generator=source, dtype=torch.float64).sign()
noise = torch.randn(150, 2, generator=source, dtype=torch.float64)
corners = 0.9 * corners + (1 - 0.9**2) ** 0.5 * noise
found = mmd_test(normal, corners, RBF(0.5), generator=0)
assert isinstance(found, SampleTest)
print("p-value", found.p_value, "and with a linear kernel", end=" ")
print(mmd_test(normal, corners, "linear", generator=0).p_value)
print("the discrepancy itself", mmd(normal, corners, RBF(0.5)), end=", without bias ")
print(mmd(normal, corners, RBF(0.5), unbiased=True))

# %%
# Independent or not?
# -------------------
# The second variable depends on the first by its square: no correlation, but dependence. HSIC is
# the squared norm of the cross-covariance of features. Its distribution under independence comes
# from shuffled pairs, or from a gamma distribution with the exact mean and variance of those.

x = torch.randn(200, generator=source, dtype=torch.float64)
z = 0.3 * x.square() + torch.randn(200, generator=source, dtype=torch.float64)
print("correlation", torch.corrcoef(torch.stack([x, z]))[0, 1])
shuffled, gamma = hsic_test(x, z, generator=0), hsic_test(x, z, method="gamma")
print("p-values", shuffled.p_value, gamma.p_value, "HSIC", hsic(x, z))
figure, axes = plt.subplots(1, 3, figsize=(11, 3.3), layout="constrained")
for ax, test, title in zip(
    axes,
    (found, shuffled, gamma),
    ("two samples", "dependence, shuffled pairs", "dependence, gamma"),
    strict=True,
):
    test.plot(ax)
    ax.set_title(title)
    ax.legend(fontsize=7)

# %%
# Valid p-values
# --------------
# Where the hypothesis holds p-values are uniform: their distribution is the diagonal, at any
# sample size. Here with 12 points against 9.

values = []
for i in range(200):
    one, two = (torch.randn(n, 2, generator=source, dtype=torch.float64) for n in (12, 9))
    values.append(mmd_test(one, two, permutations=99, generator=i).p_value)
figure, ax = plt.subplots(figsize=(4.2, 3.8), layout="constrained")
ax.plot(sorted(values), np.arange(1, 201) / 200, drawstyle="steps-post", label="200 tests")
ax.plot([0, 1], [0, 1], color="grey", linestyle=":", label="uniform")
ax.set_xlabel("p-value")
ax.set_ylabel("share of tests at or below")
ax.legend()

# %%
# Many rows
# ---------
# With explicit features of the kernel the tests cost as much as their rows, and remain valid.

many, others = torch.randn(50_000, 2, generator=source), torch.randn(50_000, 2, generator=source)
print(
    mmd_test(many, 1.01 * others, RBF(1.0), num_features=64, permutations=99, generator=0).p_value
)

plt.show()
