"""
Classifiers with any kernel
===========================

Least squares on labels, logistic regression and support vectors are one function of a kernel with
three losses. Each takes any kernel by the same parameter, that of an infinitely wide network too,
is exact where rows are few, and works on landmarks where they are many.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import log_loss
from torch import nn

from mercer.infinite import NTK
from mercer.kernels import RBF, Matern
from mercer.machines import (
    SVC,
    SVR,
    KernelLogisticRegression,
    KernelRidgeClassifier,
    OneClassSVM,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe
BLUE, ORANGE = "#0072B2", "#D55E00"

# %%
# Three losses, three kernels
# ---------------------------
# The kernel is a parameter: a Gaussian, a rough Matérn, or the neural tangent kernel of a network
# with two hidden layers, read from a torch module. Lines are where the decision is zero; the
# support vector machine marks the points that it keeps.

x, y = make_moons(150, noise=0.25, random_state=0)
network = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
kernels = {
    "Gaussian": RBF(0.6),
    "Matérn 1/2": Matern(1.0, nu=0.5),
    "tangent kernel of a network": NTK(network, w_std=1.4, b_std=0.5),
}
models = {
    "least squares": lambda kernel: KernelRidgeClassifier(kernel, "loo"),
    "logistic": lambda kernel: KernelLogisticRegression(kernel, C=5.0),
    "support vectors": lambda kernel: SVC(kernel, C=5.0),
}
side = np.linspace(-1.8, 2.8, 90), np.linspace(-1.4, 1.8, 80)
grid = np.stack([part.ravel() for part in np.meshgrid(*side)], -1)
figure, axes = plt.subplots(3, 3, figsize=(10, 7.6), layout="constrained", sharex=True, sharey=True)
for (name, make), row in zip(models.items(), axes, strict=True):
    for (title, kernel), ax in zip(kernels.items(), row, strict=True):
        model = make(kernel).fit(x, y)
        values = model.decision_function(grid).reshape(80, 90)
        limit = np.abs(values).max()
        ax.contourf(*side, values, levels=np.linspace(-limit, limit, 21), cmap="PuOr", alpha=0.7)
        ax.contour(*side, values, levels=[0.0], colors="k", linewidths=1.2)
        for label, color in ((0, ORANGE), (1, BLUE)):
            ax.scatter(*x[y == label].T, s=9, color=color)
        if name == "support vectors":
            ax.scatter(
                *x[model.support_].T, s=34, facecolors="none", edgecolors="k", linewidths=0.6
            )
        ax.set_title(f"{name}, {title}", fontsize=9)
        print(
            f"{name:>16}, {title:>28}: {model.solver_}, training accuracy {model.score(x, y):.3f}"
        )

# %%
# Probabilities
# -------------
# Only the log loss is made for probabilities. On 20,000 new points those of
# `KernelLogisticRegression` come true nearly as often as they say; the decisions of the other two,
# put through a sigmoid, do not. A strong penalty (``C=1`` here) makes all of them too cautious. The
# circles overlap, so no method can be sure.

x, y = make_circles(600, noise=0.25, factor=0.5, random_state=1)
q, truth = make_circles(20_000, noise=0.25, factor=0.5, random_state=2)
figure, ax = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
ax.plot([0, 1], [0, 1], ":", color="0.5", label="as promised")
logistic = KernelLogisticRegression(RBF(1.0), C=10.0).fit(x, y)
cautious = KernelLogisticRegression(RBF(1.0), C=1.0).fit(x, y)
promised = {
    "logistic, C = 10": logistic.predict_proba(q)[:, 1],
    "logistic, C = 1": cautious.predict_proba(q)[:, 1],
}
for name, model in {
    "least squares": KernelRidgeClassifier(RBF(1.0), "loo"),
    "support vectors, C = 10": SVC(RBF(1.0), C=10.0),
}.items():
    promised[name] = 1 / (1 + np.exp(-model.fit(x, y).decision_function(q)))
for (name, values), style in zip(promised.items(), ("o-", "d:", "s--", "^-."), strict=True):
    share, mean = calibration_curve(truth, values, n_bins=10)
    ax.plot(
        mean, share, style, mfc="white", label=f"{name}: log loss {log_loss(truth, values):.3f}"
    )
ax.set(xlabel="probability that was promised", ylabel="share that came true", title="Calibration")
ax.legend(frameon=False, loc="lower right", fontsize=8)

# %%
# Few rows and many
# -----------------
# ``solver="auto"`` is exact up to some thousand rows; beyond, the function lives on landmarks, and
# the attribute says so. On the same rows the two agree as closely as the landmarks allow.

for count in (600, 20_000):
    rows, labels = (x, y) if count == 600 else (q, truth)
    model = KernelLogisticRegression(RBF(1.0), landmarks=100, random_state=0).fit(rows, labels)
    print(f"{count:>6} rows: {model.solver_}, as {model.solver_reason_}")
exact = logistic.predict_proba(q)
for landmarks in (5, 10, 20, 40):
    near = KernelLogisticRegression(
        RBF(1.0), 10.0, solver="nystroem", landmarks=landmarks, random_state=0
    ).fit(x, y)
    print(
        f"{landmarks:>4} landmarks: {np.abs(near.predict_proba(q) - exact).max():.1e} off at most"
    )

# %%
# A tube, and an edge
# -------------------
# The same machine fits numbers with a tube of width epsilon, whose inside costs nothing, and
# finds the edge of a cloud of points without labels.

rng = np.random.default_rng(0)
t = np.sort(rng.uniform(0, 6, 90))[:, None]
values = np.sin(t[:, 0]) + 0.15 * rng.standard_t(2, 90)  # with outliers
tube = SVR(RBF(1.0), C=3.0, epsilon=0.2).fit(t, values)
cloud, _ = make_moons(300, noise=0.1, random_state=3)
edge = OneClassSVM(RBF(0.4), nu=0.1).fit(cloud)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
line = np.linspace(0, 6, 200)[:, None]
found = tube.predict(line)
axes[0].fill_between(line[:, 0], found - 0.2, found + 0.2, color=BLUE, alpha=0.2, label="the tube")
axes[0].plot(line, found, color=BLUE, label="SVR")
axes[0].plot(t, values, ".", color="0.5", label="data")
outside = tube.support_
axes[0].plot(t[outside], values[outside], "o", mfc="none", color=ORANGE, label="support vectors")
axes[0].set(xlabel="t", ylabel="y", title="Regression in a tube", ylim=(-2.2, 2.2))
axes[0].legend(frameon=False, fontsize=8)
scores = edge.decision_function(grid).reshape(80, 90)
axes[1].contourf(*side, scores, levels=20, cmap="Blues", alpha=0.8)
axes[1].contour(*side, scores, levels=[0.0], colors="k")
inside = edge.predict(cloud) == 1
axes[1].plot(*cloud[inside].T, ".", color=BLUE, label="inside")
axes[1].plot(*cloud[~inside].T, "x", color=ORANGE, label=f"outside: {(~inside).mean():.0%}")
axes[1].set(title="The edge of a cloud, nu = 0.1")
axes[1].legend(frameon=False, fontsize=8)
