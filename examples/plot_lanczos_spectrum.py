"""
The spectrum of a kernel matrix, from products
==============================================

How fast a kernel method converges, how many features it needs and what a Gaussian process' marginal
likelihood is are questions about eigenvalues. Lanczos' iteration from a few random vectors answers
them without a decomposition, and says how sure it is.
"""

import matplotlib.pyplot as plt
import torch

from mercer.kernels import RBF, Matern
from mercer.linalg import (
    IncrementalCholesky,
    LowRankPreconditioner,
    ResidualKernel,
    chebyshev_iteration,
    conjugate_gradient,
    eigenpro,
    lanczos,
    largest_eigenvalue,
    nystrom_preconditioner,
    pivoted_cholesky,
    solve_refined,
    spectral_density,
    stochastic_logdet,
    stochastic_trace,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

source = torch.Generator().manual_seed(0)
RIDGE, N = 1e-2, 1200
x = torch.rand(N, 3, generator=source, dtype=torch.float64)
kernel = RBF(0.3).requires_grad_(False)
gram = kernel.gram(x)
matrix = gram.to_dense()
system = matrix + RIDGE * torch.eye(N, dtype=torch.float64)

# %%
# The density of the eigenvalues
# ------------------------------
# Each random vector gives a quadrature whose nodes are Ritz values. The band is two standard
# errors wide on either side. A rough kernel has a spectrum worth looking at:

rough = Matern(0.5, nu=0.5).requires_grad_(False).gram(x).to_dense()
values = torch.linalg.eigvalsh(rough)  # what we want to do without
density = spectral_density(lambda v: rough @ v, N, log=True, num_probes=12, steps=80, generator=0)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
density.plot(left)
edges = 10 ** torch.linspace(-2.4, 3.0, 37, dtype=torch.float64)
share = torch.full((N,), 1 / (N * 0.15)).numpy()
left.hist(values, edges.tolist(), weights=share, color="0.8", zorder=0, label="all eigenvalues")
left.set_ylim(top=1.5)
left.legend(frameon=False)

ranks = torch.arange(1, N + 1)
right.loglog(ranks, values.flip(0), color="0.6", lw=4, label="eigenvalues")
found = lanczos(lambda v: rough @ v, torch.ones(N).double(), 40)
ritz = torch.linalg.eigvalsh(found.tridiagonal())
right.loglog(ranks[:40], ritz.flip(0), "o", ms=4, label="Ritz values, 40 steps")
right.set(xlabel="rank", ylabel="eigenvalue", title="One start finds the ends first")
right.legend(frameon=False)

above = density.count(1.0, float("inf"))
print(
    f"eigenvalues above 1: {above.value:.1f} +- {above.standard_error:.1f}, "
    f"exactly {int((values > 1).sum())}"
)

# %%
# Log-determinants and traces, with error bars
# --------------------------------------------
# The log-determinant of a Gaussian process' marginal likelihood. A preconditioner whose own
# determinant is known leaves less to estimate: the error bars shrink, and so does the bias of a
# small number of steps.

exact = torch.linalg.eigvalsh(system)
true = exact.log().sum().item()
inverses = {"none": None}
for rank in (50, 150, 300):
    factor = pivoted_cholesky(gram.columns, gram.diagonal(), rank=rank).factor
    inverses[f"{rank} pivots"] = LowRankPreconditioner(factor, ridge=RIDGE)
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for place, (name, inverse) in enumerate(inverses.items()):
    for shift, steps in ((-0.12, 20), (0.12, 60)):
        found = stochastic_logdet(
            lambda v: system @ v, N, preconditioner=inverse, steps=steps, generator=1
        )
        print(f"{name:10s} {steps} steps: {found.value:9.2f} +- {found.standard_error:6.2f}")
        ax.errorbar(
            place + shift,
            found.value,
            yerr=2 * found.standard_error,
            fmt="o" if steps == 60 else "s",
            color=f"C{steps == 60:d}",
            capsize=4,
            label=f"{steps} steps" if place == 0 else None,
        )
ax.axhline(true, color="0.5", lw=1, label="exact")
ax.set_xticks(range(len(inverses)), list(inverses))
ax.set(xlabel="preconditioner", ylabel="log-determinant", title="16 probes, two standard errors")
ax.legend(frameon=False)

dimension = stochastic_trace(
    lambda v: matrix @ v, N, lambda value: value / (value + RIDGE), steps=60, generator=2
)
print(
    f"effective dimension: {dimension.value:.1f} +- {dimension.standard_error:.1f}, exactly "
    f"{(1 - RIDGE / exact).sum().item():.1f}"
)

# %%
# Solving: what a preconditioner saves
# ------------------------------------
# Conjugate gradients with a pivoted Cholesky factor, which reads columns, and with a randomised
# Nyström approximation, which takes products and chooses its own rank. Chebyshev's iteration needs
# the ends of the spectrum and no inner products; it takes as many steps as its bound says.

y = torch.sin(6 * x[:, 0]) + x[:, 1] + 0.1 * torch.randn(N, generator=source, dtype=torch.float64)


def residuals(inverse):
    """Return the relative residual before each step."""
    history = []

    def record(residual):
        history.append((residual.norm() / y.norm()).item())
        return residual if inverse is None else inverse(residual)

    conjugate_gradient(lambda v: system @ v, y, preconditioner=record, tolerance=1e-10)
    return history


sketch = nystrom_preconditioner(lambda v: matrix @ v, N, ridge=RIDGE, generator=3)
print(sketch)
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
ax.semilogy(residuals(None), label="no preconditioner")
ax.semilogy(residuals(inverses["50 pivots"]), "--", label="50 pivots")
ax.semilogy(residuals(inverses["300 pivots"]), "-.", label="300 pivots")
ax.semilogy(residuals(sketch), ":", label=f"Nyström, rank {len(sketch.eigenvalues)}")
ax.set(
    xlabel="step", ylabel="residual, relative to y", title="Conjugate gradients", ylim=(1e-10, 2)
)
ax.legend(frameon=False)

top = largest_eigenvalue(lambda v: system @ v, N, generator=4)
found = chebyshev_iteration(lambda v: system @ v, y, smallest=RIDGE, largest=top, tolerance=1e-6)
print(f"largest eigenvalue {exact[-1]:.3f}, bound {top:.3f}")
print(f"Chebyshev: {found.iterations} steps, residual {found.residual:.1e}")

# %%
# Exactly, where the matrix fits
# ------------------------------
# A factorisation in float32 with refinement costs half as much as one in float64, and its residual
# is smaller. EigenPro takes a few rows at a time, and is for large ridges or early stopping.

direct = solve_refined(matrix, y, ridge=RIDGE)
print(f"{direct.method} factor, {direct.iterations} steps, residual {direct.residual:.1e}")
early = eigenpro(gram.columns, y, gram.diagonal(), ridge=1.0, tolerance=1e-3, generator=5)
print(
    f"EigenPro at ridge 1: {early.iterations} epochs of batches of {early.batch_size}, "
    f"{early.rank} eigenvalues cut, residual {early.residual:.1e}"
)

# %%
# Points that come and go
# -----------------------
# The variance that observed points leave, kept up to date as they join and leave: here, always
# observe where it is largest. An `IncrementalCholesky` underneath makes each step cost O(s²).

line = torch.linspace(0, 1, 300, dtype=torch.float64).unsqueeze(-1)
short = RBF(0.08).requires_grad_(False)
seen = ResidualKernel(lambda a, b: short(a, b), short.diag, ridge=1e-4)
figure, ax = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
for count, style in ((3, "-"), (6, "--"), (9, "-.")):
    while len(seen) < count:
        worst = seen.variance(line).argmax()
        seen.append(line[worst : worst + 1])
    ax.plot(line, seen.variance(line), style, label=f"{count} points")
seen.remove(0)
ax.plot(line, seen.variance(line), ":", label="first one removed")
assert isinstance(seen.factor, IncrementalCholesky)
ax.set(xlabel="x", ylabel="variance left", title="Greedy design", ylim=(0, 1.4))
ax.legend(frameon=False, ncols=4, loc="upper center")
plt.show()
