"""
Error bars: Gaussian and Student-t processes
============================================

A Gaussian process predicts a mean and how far off it may be. `mercer.machines` fits its kernel and
its noise by the marginal likelihood; classifies with one; and, where not even the size of the
targets is known, makes their variance random: a Student-t process. Matrices that are too large to
factorise are multiplied with, and the likelihood is estimated.
"""

import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons
from torch import nn

from mercer.infinite import NNGP
from mercer.kernels import RBF
from mercer.machines import (
    GaussianProcessClassifier,
    GaussianProcessRegressor,
    InverseGamma,
    ScaleMixtureProcess,
    SparseStudentTClassifier,
    StudentTProcessRegressor,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe
rng = np.random.default_rng(0)

# %%
# Mean and bands
# --------------
# By name, a kernel starts with the median distance of the data and a variance; both are fitted, and
# so is the noise. The kernel of a wide network is a kernel like any other, with its standard
# deviations as hyperparameters. Both know where there were no data.

X = np.concatenate([rng.uniform(-4, -0.5, 25), rng.uniform(1.5, 4, 20)])[:, None]
y = np.sin(2 * X[:, 0]) + 0.5 * X[:, 0] + 0.2 * rng.normal(size=len(X))
grid = np.linspace(-6, 6, 300)[:, None]
network = NNGP(
    nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)),
    b_std=[1.0, 0.3, 0.0],
)


def band(ax, mean, std, label):
    (line,) = ax.plot(grid[:, 0], mean, label=label)
    ax.fill_between(
        grid[:, 0], mean - 2 * std, mean + 2 * std, alpha=0.25, color=line.get_color(), lw=0
    )


fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
for ax, kernel, title in zip(axes, ("rbf", network), ("RBF", "ReLU network, NNGP"), strict=True):
    model = GaussianProcessRegressor(kernel, n_restarts_optimizer=1, random_state=0).fit(X, y)
    mean, std = model.predict(grid, return_std=True)
    band(ax, mean, std, "mean, two standard deviations")
    ax.plot(grid[:, 0], model.sample_y(grid, 2, random_state=1), lw=0.8, color="0.5")
    ax.plot(X[:, 0], y, "k.", ms=4)
    ax.set_title(f"{title}: log-likelihood {model.log_marginal_likelihood_value_:.1f}")
    ax.set_xlabel("x")
    print(dict(zip(model.theta_names_, np.exp(model.theta_).round(3).tolist(), strict=True)))
axes[0].legend(loc="lower right")
axes[0].set_ylim(-5, 5)
plt.show()

# %%
# Targets of another size than the kernel thinks
# ----------------------------------------------
# With a kernel that is given and not fitted, a Gaussian process has the same bands whatever the
# targets are. The Student-t process has the same mean, but its posterior of the variance moves with
# them; a mixture over any other prior of the variance weighs draws of it.

few = np.sort(rng.uniform(-5, 5, 12))[:, None]
fig, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharey=True, layout="constrained")
settings = {"optimizer": None, "normalize_y": False}
models = {
    "Gaussian process": GaussianProcessRegressor(RBF(), 1e-2, **settings),
    "Student-t process": StudentTProcessRegressor(RBF(), 2.0, 2.0, 1e-2, **settings),
    "mixture over variances": ScaleMixtureProcess(
        RBF(), InverseGamma(2.0, 2.0), 1e-2, num_samples=5000, normalize_y=False, random_state=0
    ),
}
large = 5 * np.sin(few[:, 0])
for ax, (title, model) in zip(axes, models.items(), strict=True):
    mean, std = model.fit(few, large).predict(grid, return_std=True)
    band(ax, mean, std, "two standard deviations")
    ax.plot(grid[:, 0], 5 * np.sin(grid[:, 0]), "--", color="0.4", lw=1, label="truth")
    ax.plot(few[:, 0], large, "k.")
    ax.set_title(title)
    ax.set_xlabel("x")
axes[0].set_ylim(-8, 11)
axes[0].legend(loc="upper left")
plt.show()
print(
    "variance, prior and posterior mean:", models["Student-t process"].prior_scale_.mean, end=", "
)
print(round(models["Student-t process"].posterior_scale_.mean, 1))

# %%
# Labels
# ------
# Probabilities go back to one half away from the data. The classifier by Student-t processes knows
# the functions at landmarks only, and learns from batches of rows: it is for many of them.

points, labels = make_moons(120, noise=0.2, random_state=0)
classifiers = {
    "Gaussian process": GaussianProcessClassifier(),
    "sparse Student-t process": SparseStudentTClassifier(num_landmarks=40, random_state=0),
}
u, v = np.meshgrid(np.linspace(-3, 4, 60), np.linspace(-3, 3.5, 60))
fig, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained")
for ax, (title, classifier) in zip(axes, classifiers.items(), strict=True):
    chance = classifier.fit(points, labels).predict_proba(np.stack([u.ravel(), v.ravel()], 1))
    shades = ax.contourf(u, v, chance[:, 1].reshape(u.shape), np.linspace(0, 1, 11), cmap="RdBu_r")
    ax.scatter(*points.T, c=labels, cmap="RdBu_r", edgecolor="k", s=18)
    ax.set_title(title)
    ax.set_aspect("equal")
fig.colorbar(shades, ax=axes, label="probability of class 1")
plt.show()

# %%
# A matrix that is never built
# ----------------------------
# The iterative method multiplies by the kernel matrix only. Its log-likelihood is an estimate, with
# the same random probes for all hyperparameters, so that it is smooth in them; the bound of
# inducing points is below the likelihood.

X = rng.normal(size=(300, 2))
y = np.sin(X @ [2.0, 1.0]) + 0.2 * rng.normal(size=len(X))
scales = np.linspace(-1.2, 0.9, 7)
fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for method, style in (("exact", "-"), ("iterative", "o"), ("inducing", "--")):
    model = GaussianProcessRegressor(
        RBF(), 0.1, optimizer=None, method=method, num_landmarks=40, random_state=0
    ).fit(X, y)
    start = time.perf_counter()
    values = [model.log_marginal_likelihood([scale]) for scale in scales]
    print(f"{method}: {time.perf_counter() - start:.1f} s")
    ax.plot(np.exp(scales), values, style, label=method)
ax.set_xlabel("lengthscale")
ax.set_ylabel("log marginal likelihood")
ax.legend()
plt.show()

# %%
# Other libraries
# ---------------
# ``mercer.kernels.as_gpytorch(kernel)`` makes a kernel for GPyTorch's models, its own where it has
# the same and a bridge for the others, such as that of the network above; ``from_gpytorch`` goes
# back.
