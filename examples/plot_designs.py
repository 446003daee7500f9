"""
Where is it worth looking?
==========================

Rows that stream by cannot all be kept, and a costly function cannot be evaluated everywhere.
Leverage scores say which rows matter, determinantal point processes (DPPs) choose sets that do not
repeat themselves, and least squares on such a set is nearly as good as on everything.
"""

import matplotlib.pyplot as plt
import torch

from mercer.kernels import RBF
from mercer.linalg import (
    ChristoffelDensity,
    InkEstimate,
    LeastSquares,
    OptimalDesign,
    SequentialLeverage,
    Smoothing,
    effective_dimension,
    ink_estimate,
    optimal_design,
    pivoted_cholesky,
    rescaled_volume_sampling,
    ridge_leverage_scores,
    sample_dpp,
    smooth,
    volume_sampling,
    weighted_least_squares,
)
from mercer.machines import StreamingNystroem, WeightedLeastSquares
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

# %%
# Four ways to choose from clusters
# ---------------------------------
# Half of the rows lie in one tight cluster. A uniform choice spends half of its landmarks there;
# ridge leverage scores, the pivots of a Cholesky factor and a DPP see that one would do. A DPP of
# K / ridge takes as many rows as the effective dimension, on average.

source = torch.Generator().manual_seed(0)
x = torch.randn(600, 2, generator=source, dtype=torch.float64)
x[:300] *= 0.02
x = x[torch.randperm(600, generator=source)]
kernel, ridge = RBF(1.0).requires_grad_(False), 1.0
matrix = kernel(x)
scores = ridge_leverage_scores(matrix, ridge=ridge)
dimension = effective_dimension(matrix, ridge=ridge)
size = round(1.5 * dimension)
print(f"effective dimension {dimension:.1f}: {size} landmarks")
finer = 0.22  # the ridge at which a DPP has as many, on average
print(f"a DPP of K / {finer}: {effective_dimension(matrix, ridge=finer):.1f} rows")


def choose(method, seed):
    source = torch.Generator().manual_seed(seed)
    if method == "uniform":
        return torch.randperm(600, generator=source)[:size]
    if method == "leverage":
        return torch.multinomial(scores, size, generator=source)
    if method == "greedy":
        return pivoted_cholesky(matrix, rank=size).pivots
    return sample_dpp(matrix / finer, generator=source)


def error(index):
    columns, inner = matrix[:, index], matrix[index][:, index]
    inside = columns @ torch.linalg.lstsq(inner, columns.mT, driver="gelsd").solution
    return torch.linalg.matrix_norm(matrix - inside, 2).item()


methods = ("uniform", "leverage", "greedy", "DPP")
figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained", sharex=True, sharey=True)
for ax, method in zip(axes, methods, strict=True):
    chosen = x[choose(method, 0)]
    median = torch.tensor([error(choose(method, seed)) for seed in range(15)]).median()
    ax.plot(*x.mT, ".", ms=2, color="0.7", label="rows")
    ax.plot(*chosen.mT, "o", ms=5, color="C1", mec="white", mew=0.5, label="landmarks")
    ax.set(title=f"{method}: error {median:.2f}", xlabel="first input")
    ax.set_aspect("equal")
axes[0].set_ylabel("second input")
figure.suptitle("The chosen rows, and the median norm of what the Nystroem matrix leaves of K")
figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", frameon=False, ncols=2)

# %%
# A stream
# --------
# `SequentialLeverage` sees every row once. It keeps those that matter, each with the probability
# with which it came to be kept, and drops others as they are outdone. The dictionary grows with
# the effective dimension, not with the rows, and its own estimate of that dimension is close.

stream = torch.randn(6400, 2, generator=source, dtype=torch.float64)
state = SequentialLeverage(kernel, kernel.diag, ridge=ridge, oversampling=2.0, generator=0)
seen = [100, 200, 400, 800, 1600, 3200, 6400]
sizes, estimates, exact = [], [], []
for n in seen:
    state.update(stream[state.num_seen : n])
    sizes.append(len(state))
    estimates.append(state.effective_dimension)
    if n <= 1600:  # the whole matrix, to compare
        exact.append(effective_dimension(kernel(stream[:n]), ridge=ridge))

figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
ax.loglog(seen, seen, ":", color="0.5", lw=1, label="all rows")
ax.loglog(seen, sizes, "o-", ms=5, label="dictionary")
ax.loglog(seen, estimates, "s-", ms=5, label="effective dimension, estimated")
ax.loglog(seen[: len(exact)], exact, "D", ms=6, mfc="none", label="exact")
ax.set(xlabel="rows seen", ylabel="number", title="What is kept of a stream")
ax.set_xticks(seen, seen)
ax.minorticks_off()
ax.legend(frameon=False)

# %%
# `ink_estimate` has scores that are never too large where its columns suffice, and pays for that:
# it needs whole columns, and many more of them.

part = kernel(stream[:200])
kept = ink_estimate(
    lambda i, j: part[i][:, j], part.diagonal(), ridge=ridge, num_columns=3000, generator=0
)
assert isinstance(kept, InkEstimate)
exact = ridge_leverage_scores(part, ridge=ridge)[kept.index]
share = kept.scores / exact
print(
    f"{len(kept.index)} of 200 columns, scores {share.min():.2f} to {share.max():.2f} of exact ones"
)

# %%
# `StreamingNystroem` is the sequential dictionary as a transformer, with ``partial_fit``.

machine = StreamingNystroem(RBF(1.0), ridge=ridge, random_state=0)
for batch in stream.split(800):
    machine.partial_fit(batch)
features = machine.transform(stream[:5])
print(f"{machine.n_samples_seen_} rows seen, {features.shape[1]} features")

# %%
# Designs on an interval
# ----------------------
# The best polynomial of degree 9 for f(x) = 1 / (1 + 5 x²) is to be found from 20 evaluations.
# Each point should have the Christoffel density, which is high at the ends. Independent draws of
# it leave gaps; draws of a DPP do not, and two of them together are nearly as good as all points.

nodes = torch.linspace(-1, 1, 4001).double()
powers = lambda x: torch.stack([x**k for k in range(10)], 1)
runge = lambda x: 1 / (1 + 5 * x.square())
density = ChristoffelDensity(powers, nodes)
everything = weighted_least_squares(powers(nodes), runge(nodes))
assert isinstance(everything, LeastSquares)


def rms(fit):
    return (powers(nodes) @ fit.coefficients - runge(nodes)).square().mean().sqrt().item()


kinds = {"iid": "independent", "volume": "volume sampling", "repeated_dpp": "two DPPs"}
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for row, (kind, name) in enumerate(kinds.items()):
    design = optimal_design(density, 20, kind=kind, delta=None, generator=1)
    assert isinstance(design, OptimalDesign)
    left.plot(design.points, torch.full((20,), -float(row)), "o", ms=5, alpha=0.7)
    errors = []
    for seed in range(100):
        one = optimal_design(density, 20, kind=kind, delta=None, generator=seed)
        fit = weighted_least_squares(powers(one.points), runge(one.points), one.weights)
        errors.append(rms(fit))
    errors = torch.tensor(errors).sort().values
    right.semilogx(errors, torch.linspace(0, 1, 100), label=name)
    print(f"{name:>16}: median error {errors.median():.4f}, 95 % below {errors[95]:.4f}")
curve = density.leverage(nodes) / 10
left.plot(nodes, 0.4 + curve / curve.max(), "-", color="0.4", lw=1)
left.text(0, 0.75, "density of each point", ha="center", color="0.3")
left.set_yticks([0, -1, -2], kinds.values())
left.set(xlabel="x", title="20 points")
right.axvline(rms(everything), color="0.4", ls=":", label="all points")
right.set(xlabel="error of the fit", ylabel="share of designs below", title="100 designs each")
right.legend(frameon=False)

# %%
# `WeightedLeastSquares` does it in one call: it picks rows of the data, evaluates the function
# there, and fits.

cubics = lambda x: torch.stack([x[:, 0] ** i * x[:, 1] ** j for i in range(4) for j in range(4)], 1)
bump = lambda x: torch.exp(-(x - 0.3).square().sum(1))
square = 2 * torch.rand(5000, 2, generator=source, dtype=torch.float64) - 1
machine = WeightedLeastSquares(cubics, random_state=0).fit_function(bump, square, 32)
print(f"R² on 5,000 rows from 32 evaluations: {machine.score(square, bump(square)):.4f}")

# %%
# Subsets of rows for unbiased least squares: without repetition by `volume_sampling`, with
# repetition by `rescaled_volume_sampling`.

rows = cubics(square[:300])
without, repeated = (
    draw(rows, size=24, generator=0).unique().numel()
    for draw in (volume_sampling, rescaled_volume_sampling)
)
print(f"24 draws: {without} rows without repetition, {repeated} different ones with it")

# %%
# How many rows does an average rest on?
# --------------------------------------
# A kernel smoother averages values with weights that fall with distance. `smooth` takes their
# logarithms, in tiles, and says how many rows have a say at each place; where that is one or two
# the average is no average any more.

inputs = torch.randn(400, generator=source, dtype=torch.float64)
values = torch.sin(2 * inputs) + 0.2 * torch.randn(400, generator=source, dtype=torch.float64)
grid = torch.linspace(-5, 5, 301).double()
log_kernel = lambda i, j: -(grid[i, None] - inputs[j]).square() / (2 * 0.15**2)
found = smooth(log_kernel, values, shape=(301, 400))
assert isinstance(found, Smoothing) and found.means is not None and found.neighbours is not None
figure, (top, bottom) = plt.subplots(
    2, 1, figsize=(6.4, 4.4), layout="constrained", sharex=True, height_ratios=[2, 1]
)
top.plot(inputs, values, ".", ms=3, color="0.7", label="rows")
top.plot(grid, torch.sin(2 * grid), ":", color="0.4", label="truth")
top.plot(grid, found.means, label="smoothed")
top.legend(frameon=False, ncols=3, loc="lower left", fontsize=8.5)
top.set(ylabel="value", ylim=(-2.2, 1.9))
bottom.semilogy(grid, found.neighbours, color="C1")
bottom.axhline(2, color="0.4", ls=":")
bottom.set(xlabel="input", ylabel="effective rows")
plt.show()
