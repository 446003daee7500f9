"""
Kernel ridge regression, from a curve to many rows
==================================================

`KernelRidge` fits a function of small norm to noisy values. One eigendecomposition gives the
leave-one-out error of every penalty, so that the penalty need not be searched for. Where there
are too many rows for their kernel matrix, the function is sought on landmarks, in blocks of rows
that may lie in files, and the estimator says what it did and why.
"""

# %%
# The penalty chooses itself
# --------------------------
# Sixty noisy values of a curve, with a kernel by name: its lengthscale is the median distance.

import matplotlib.pyplot as plt
import numpy as np

from mercer.kernels import RBF, Matern
from mercer.machines import KernelRidge

blue, orange, green, grey = "#0072B2", "#D55E00", "#009E73", "#777777"
source = np.random.default_rng(0)
x = np.sort(source.uniform(-3, 3, 60))[:, None]
y = np.sin(2 * x[:, 0]) + 0.3 * x[:, 0] + 0.25 * source.normal(size=60)
grid = np.linspace(-3.3, 3.3, 400)[:, None]

chosen = KernelRidge(RBF(0.8), alpha="loo", fit_intercept=True).fit(x, y)
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
chosen.choice_.plot(left)
left.set_ylim(top=3)
for alpha, color, style in ((1e-6, orange, ":"), (30.0, green, "--"), (chosen.alpha_, blue, "-")):
    model = KernelRidge(RBF(0.8), alpha, fit_intercept=True).fit(x, y)
    right.plot(grid, model.predict(grid), style, color=color, label=f"ridge {alpha:.2g}")
right.plot(x, y, ".", color=grey, label="values")
right.set(xlabel="x", ylabel="y", title="Three penalties", ylim=(-2.5, 2.8))
right.legend(ncols=2)
print(chosen.solver_, "-", chosen.solver_reason_)

# %%
# Landmarks
# ---------
# Twenty thousand rows of four inputs: the best function on m landmarks comes close to the one on
# all rows with few of them, and it matters little how they are chosen where the rows are spread
# evenly; here half of them lie in a small cluster.


def target(rows: np.ndarray) -> np.ndarray:
    """Evaluate what is to be learnt."""
    return np.sin(2 * rows[:, 0]) + rows[:, 1] * np.cos(rows[:, 2]) + 0.3 * rows[:, 3] ** 2


rows = source.normal(size=(20_000, 4))
rows[::2] = 2.0 + 0.05 * rows[::2]
values = target(rows) + 0.2 * source.normal(size=len(rows))
test = source.normal(size=(2000, 4))

sizes = [20, 40, 80, 160, 320]
fig, ax = plt.subplots(figsize=(6, 4), layout="constrained")
for selection, color, marker in (
    ("uniform", orange, "o"),
    ("kmeans", blue, "s"),
    ("greedy", green, "^"),
):
    errors = []
    for m in sizes:
        model = KernelRidge(
            Matern(2.0, nu=2.5), 1e-2, landmarks=m, selection=selection, random_state=0
        )
        rest = model.fit(rows, values).predict(test) - target(test)
        errors.append(np.sqrt(np.mean(rest**2)))
    ax.loglog(sizes, errors, marker=marker, color=color, label=selection)
ax.set(
    xlabel="landmarks m", ylabel="root mean squared error", title="20,000 rows, half in a cluster"
)
ax.set_xticks(sizes, [str(m) for m in sizes])
ax.set_yticks([0.1, 0.2, 0.4], ["0.1", "0.2", "0.4"])
ax.minorticks_off()
ax.legend()

# %%
# Rows in blocks
# --------------
# A source of rows is read block by block, as often as the solver asks, and the coefficients do
# not depend on where the rows lie: arrays, memory-mapped files, Parquet files, or batches.

from mercer.datasets import BatchRows

batches = BatchRows(lambda: zip(np.split(rows, 50), np.split(values, 50), strict=True))
model = KernelRidge(Matern(2.0, nu=2.5), "gcv", landmarks=200, random_state=0).fit(batches)
again = KernelRidge(Matern(2.0, nu=2.5), "gcv", landmarks=200, random_state=0).fit(rows, values)
print(model.solver_reason_)
print("same coefficients:", np.array_equal(model.dual_coef_, again.dual_coef_))
print(f"chosen penalty {model.alpha_:.3g}, R^2 {model.score(test, target(test)):.3f}")
