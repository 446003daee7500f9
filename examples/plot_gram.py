"""
A kernel matrix that is never built
===================================

Ten thousand rows have a kernel matrix of a hundred million numbers. ``kernel.gram(x)`` multiplies
with it in tiles that come and go, and that is enough to solve with it and to learn a lengthscale.
"""

import matplotlib.pyplot as plt
import torch

from mercer.kernels import RBF, Gram
from mercer.linalg import (
    LowRankPreconditioner,
    conjugate_gradient,
    pivoted_cholesky,
    solve_psd,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

source = torch.Generator().manual_seed(0)
NOISE = 0.3


def surface(x):
    """Evaluate a function of two inputs that changes faster on the right than on the left."""
    return torch.sin(4 * x[:, 0] ** 2) + torch.cos(5 * x[:, 1] + 2 * x[:, 0])


x = 2 * torch.rand(10_000, 2, generator=source, dtype=torch.float64)
y = surface(x) + NOISE * torch.randn(len(x), generator=source, dtype=torch.float64)

# %%
# A lazy matrix
# -------------
# It has products, rows, columns and a diagonal; only ``to_dense`` builds it.

gram = RBF(0.3).requires_grad_(False).gram(x)
assert isinstance(gram, Gram)
print(gram)
print(gram @ y)
print(gram.rows(slice(0, 2)).shape, gram.columns(torch.tensor([7])).shape, gram.diagonal()[:3])
between = gram.kernel.gram(x[:5], x)  # of two sets of points
print(between, (between @ y).shape, (between.mT @ torch.ones(5).double()).shape)

# %%
# Solving with products
# ---------------------
# Kernel ridge regression solves (K + λ I) a = y, with the variance of the noise as λ. Conjugate
# gradients need one product a step; how many steps depends on the eigenvalues of the matrix. A
# pivoted Cholesky factor of few columns takes care of the large ones. The residuals below are
# recorded by the preconditioner, which is shown each of them. To keep this page quick they are
# those of 2,000 rows.

ridge = NOISE**2
some = gram.kernel.gram(x[:2000])
matrix, targets = some.to_dense(), y[:2000]


def residuals(rank):
    """Return the relative residual before each step, by the rank of the preconditioner."""
    history = []
    inverse = None
    if rank:
        found = pivoted_cholesky(some.columns, some.diagonal(), rank=rank)
        inverse = LowRankPreconditioner(found.factor, ridge=ridge)

    def record(residual):
        history.append((residual.norm() / targets.norm()).item())
        return residual if inverse is None else inverse(residual)

    found = conjugate_gradient(
        lambda v: matrix @ v + ridge * v, targets, preconditioner=record, max_iterations=150
    )
    return history, found


exact = solve_psd(matrix, targets, ridge=ridge)
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for rank, style in zip((0, 25, 50, 75, 100), ("-", "--", "-.", ":", "-"), strict=True):
    history, found = residuals(rank)
    ax.semilogy(history, style, label=f"rank {rank}" if rank else "no preconditioner")
    away = (found.solution - exact.solution).norm() / exact.solution.norm()
    print(
        f"rank {rank:3d}: {found.iterations:3d} steps, residual {found.residual:.1e}, "
        f"from solve_psd's {away:.1e}, converged: {found.converged}"
    )
ax.set(
    xlabel="step",
    ylabel="residual, relative to y",
    title="Conjugate gradients, 2,000 rows",
    xlim=(0, 150),
)
ax.legend(frameon=False)

# %%
# `solve_psd` factorises the matrix instead: nothing to tune, O(n³) work, all of the matrix in
# memory. ``gram.solve`` takes either way, and its `LinearSolution` says how well it went. Here,
# 10,000 rows by products:

found = gram.solve(y, ridge=ridge, method="cg", preconditioner_rank=100, tolerance=1e-6)
print(f"{found.iterations} steps, residual {found.residual:.1e}, converged: {found.converged}")

ticks = torch.linspace(0, 2, 60, dtype=torch.float64)
grid = torch.cartesian_prod(ticks, ticks)  # (3600, 2)
fit = gram.kernel.gram(grid, x) @ found.solution
error = (fit - surface(grid)).square().mean().sqrt()
print(f"root mean squared error on the grid: {error:.3f}, of the data: {NOISE}")

figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), layout="constrained", sharey=True)
pictures = {
    "The function": surface(grid),
    "Fit to 10,000 noisy rows": fit,
    "Fit less function": fit - surface(grid),
}
for ax, (name, values) in zip(axes, pictures.items(), strict=True):
    most = 2.0 if values is not pictures["Fit less function"] else 0.3
    table = values.reshape(60, 60).mT.numpy()
    image = ax.pcolormesh(
        ticks.numpy(), ticks.numpy(), table, cmap="cividis", vmin=-most, vmax=most
    )
    ax.set(xlabel="first input", title=name)
    figure.colorbar(image, ax=ax, label="value")
axes[0].set_ylabel("second input")

# %%
# The stripes on the right are where the function changes faster than the lengthscale allows.
#
# Learning the lengthscale
# ------------------------
# Products are differentiable: the backward pass evaluates the tiles again. The gradient of the
# negative log marginal likelihood is that of
#
# .. math:: \tfrac12\, E\, w^\top K z - \tfrac12\, a^\top K a, \qquad
#     a = (K + \lambda I)^{-1} y, \quad w = (K + \lambda I)^{-1} z,
#
# with z random signs and a and w held fixed: one block of systems and one block of products a step.

kernel = RBF(1.0)
points, targets = x[:1000], y[:1000]
optimizer = torch.optim.Adam(kernel.parameters(), lr=0.15, betas=(0.5, 0.9))
path = [kernel.lengthscale.item()]
for _ in range(25):
    learnt = kernel.gram(points)
    z = torch.randint(2, (1000, 8), generator=source).double() * 2 - 1
    solved = learnt.solve(torch.cat([targets.unsqueeze(-1), z], -1), ridge=ridge).solution
    a, w = solved[:, :1], solved[:, 1:]  # (1000, 1), (1000, 8)
    products = learnt @ torch.cat([a, z], -1)  # (1000, 9)
    loss = (w * products[:, 1:]).sum() / (2 * 8) - (a * products[:, :1]).sum() / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    path.append(kernel.lengthscale.item())

# %%
# The same likelihood by Cholesky factors, for comparison:


@torch.no_grad()
def likelihood(lengthscale):
    system = RBF(lengthscale)(points) + ridge * torch.eye(len(points), dtype=torch.float64)
    factor = torch.linalg.cholesky(system)
    white = torch.linalg.solve_triangular(factor, targets.unsqueeze(-1), upper=False)
    return (white.square().sum() / 2 + factor.diagonal().log().sum()).item()


scales = torch.logspace(-0.9, 0, 7).tolist()
values = [likelihood(scale) for scale in scales]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(path, "o-", ms=3)
left.set(xlabel="step of Adam", ylabel="lengthscale, in units of x", title="Learnt by products")
right.semilogx(scales, values, "o-", ms=3)
right.axvline(path[-1], color="C1", ls="--", label="learnt")
right.set(
    xlabel="lengthscale, in units of x",
    ylabel="negative log likelihood",
    title="The likelihood by factorisation",
)
right.set_xticks([0.125, 0.25, 0.5, 1.0], ["0.125", "0.25", "0.5", "1"])
right.minorticks_off()
right.legend(frameon=False)
print(f"learnt: {path[-1]:.3f}, best of the {len(scales)}: {scales[values.index(min(values))]:.3f}")
plt.show()
