"""
Which rows can stand for all?
=============================

The Nystroem map writes a kernel by its values at a few landmarks, exact there and never too large
elsewhere. Which rows to take matters most where some kinds of rows are rare.
"""

import matplotlib.pyplot as plt
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from mercer.datasets import digits
from mercer.features import Nystroem, choose_landmarks
from mercer.kernels import RBF, Matern
from mercer.linalg import (
    LeverageEstimate,
    PivotedCholesky,
    approximate_leverage_scores,
    pivoted_cholesky,
    ridge_leverage_scores,
)
from mercer.machines import FeatureTransformer
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

# %%
# Five ways to choose
# -------------------
# One large cluster, one of a fifth its size, and a few dozen rows on a ring. A uniform choice
# spends most landmarks where most rows are. K-means centres need not be rows; leverage scores, a
# determinantal point process (k-DPP) and the greedy pivots of a Cholesky factor look at the kernel.

source = torch.Generator().manual_seed(0)
turn = 2 * torch.pi * torch.rand(40, 1, generator=source, dtype=torch.float64)
x = torch.cat(
    [
        0.5 * torch.randn(400, 2, generator=source, dtype=torch.float64),
        0.3 * torch.randn(80, 2, generator=source, dtype=torch.float64) + 2.5,
        4.0 * torch.cat([turn.cos(), turn.sin()], -1),
    ]
)
kernel = RBF(0.7).requires_grad_(False)
methods = ("uniform", "kmeans", "leverage", "kdpp", "greedy")

figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained", sharex=True, sharey=True)
for ax, method in zip(axes, methods, strict=True):
    chosen = choose_landmarks(kernel, x, 24, method=method, generator=0)
    ax.plot(*x.mT, ".", ms=2, color="0.7", label="rows")
    ax.plot(*chosen.mT, "o", ms=5, color="C1", mec="white", mew=0.5, label="landmarks")
    ax.set(title=method, xlabel="first input")
    ax.set_aspect("equal")
axes[0].set_ylabel("second input")
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2)

# %%
# Error against their number
# --------------------------
# The mean over the rows of k(x, x) − φ(x)·φ(x), which is never negative; medians of five draws.

sizes = [10, 20, 40, 80]


def left_over(method, size, seed):
    phi = Nystroem.from_data(kernel, x, size, landmarks=method, generator=seed)
    return (kernel.diag(x) - phi(x).square().sum(-1)).mean()


figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for marker, method in zip("osDv^", methods, strict=True):
    draws = 1 if method == "greedy" else 5  # the pivots are not random
    errors = [
        torch.stack([left_over(method, size, seed) for seed in range(draws)]).median().item()
        for size in sizes
    ]
    ax.loglog(sizes, errors, marker + "-", ms=5, label=method)
    print(f"{method:>8}", *(f"{error:.1e}" for error in errors))
ax.set(
    xlabel="landmarks, of 520 rows",
    ylabel="variance left over, of 1",
    title="Nystroem features of an RBF kernel",
)
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
ax.legend(frameon=False)

# %%
# The greedy choice keeps account of that error as it goes: its residual is the same number.

found = pivoted_cholesky(lambda index: kernel(x, x[index]), kernel.diag(x), rank=40)
assert isinstance(found, PivotedCholesky)
print(f"{found.trace_error / len(x):.2e} with {len(found.pivots)} pivots")

# %%
# Scores without the matrix
# -------------------------
# Exact ridge leverage scores decompose the whole matrix. Estimates from a hundred landmarks, found
# by halving the rows again and again, are close enough to draw by.

ridge = 3.0
scores = ridge_leverage_scores(kernel(x), ridge=ridge)
estimate = approximate_leverage_scores(
    lambda i, j: kernel(x[i], x[j]), kernel.diag(x), num_landmarks=100, ridge=ridge, generator=0
)
assert isinstance(estimate, LeverageEstimate)
figure, ax = plt.subplots(figsize=(4.6, 3.8), layout="constrained")
parts = {"large cluster": slice(0, 400), "small cluster": slice(400, 480), "ring": slice(480, 520)}
for marker, (name, part) in zip("o^s", parts.items(), strict=True):
    ax.loglog(scores[part], estimate.scores[part], marker, ms=3, label=name)
ends = [scores.min().item(), scores.max().item()]
ax.loglog(ends, ends, "-", color="0.4", lw=1, label="equal")
ax.set(xlabel="exact score", ylabel="estimate", title="Leverage of each row")
ax.legend(frameon=False, fontsize=8.5)
print(f"effective dimension: {scores.sum():.1f}, estimated: {estimate.scores.sum():.1f}")

# %%
# In a scikit-learn pipeline
# --------------------------
# `FeatureTransformer` is any of these maps as a transformer. The linear model after it becomes a
# kernel machine, and a grid search reaches the parameters of the kernel by name.

data = digits()
X, y = data.train.x.numpy(), data.train.y.numpy()
model = make_pipeline(
    FeatureTransformer(Matern(1.0), 300, method="nystroem", random_state=0), RidgeClassifier()
)
grid = {
    "featuretransformer__kernel__lengthscale": [2.0, 4.0, 8.0, 16.0, 32.0],
    "featuretransformer__kernel__nu": [0.5, 2.5],
    "featuretransformer__options": [{"landmarks": "uniform"}],
}
search = GridSearchCV(model, grid, cv=3).fit(X, y)
test = data.test.x.numpy(), data.test.y.numpy()
print(search.best_estimator_[0])
print(f"test accuracy: {search.score(*test):.1%}")
print(f"the same classifier on the pixels: {RidgeClassifier().fit(X, y).score(*test):.1%}")

figure, ax = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
table = search.cv_results_
for marker, nu in zip("os", grid["featuretransformer__kernel__nu"], strict=True):
    rows = table["param_featuretransformer__kernel__nu"] == nu
    ax.semilogx(
        grid["featuretransformer__kernel__lengthscale"],
        table["mean_test_score"][rows],
        marker + "-",
        label=f"Matern, nu = {nu}",
    )
ax.set(
    xlabel="lengthscale, in standardised pixels",
    ylabel="accuracy, 3-fold",
    title="Digits, 300 landmarks",
)
ax.set_xticks([2, 4, 8, 16, 32], [2, 4, 8, 16, 32])
ax.minorticks_off()
ax.legend(frameon=False)
plt.show()
