"""
When a density estimate is a nearest-neighbour lookup
=====================================================

In many dimensions a kernel density estimate averages over many points only where its bandwidth is
large; below a sharp threshold a few nearest points carry everything, and the best bandwidth lies
there. `mercer.machines.kde_phase` tells where one's own is. The same holds for any smoother with
weights that fall off exponentially, softmax attention included.

(G. Biroli, M. Mézard, "Kernel density estimators in large dimensions", 2024, arXiv 2408.05807.)
"""

import matplotlib.pyplot as plt
import numpy as np
import torch

from mercer.machines import (
    KDEPhase,
    KernelDensity,
    effective_neighbors,
    kde_log_density_prediction,
    kde_phase,
    nearest_neighbor_bandwidth,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

# %%
# Three phases
# ------------
# For 3,000 points in 20 dimensions: only from h = 1.05 on is the estimate an average whose
# fluctuations are small, and there it is far from the truth; the best is a lookup.

n, d = 3000, 20
generator = torch.Generator().manual_seed(0)
x = torch.randn(n, d, generator=generator, dtype=torch.float64)
z = torch.randn(500, d, generator=generator, dtype=torch.float64)
phase: KDEPhase = kde_phase(n, d, bandwidth=1.3)
print(f"h = {phase.bandwidth}: {phase.regime}, index {phase.stability_index:.2f}")
print(f"thresholds: {phase.h_glass:.3f} and {phase.h_clt:.3f}, best {phase.h_opt:.3f}")
print(f"relative fluctuations at h = {phase.bandwidth}: {phase.relative_std:.2f}")
figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
phase.plot(ax)

# %%
# Held-out likelihood
# -------------------
# What the theory predicts for infinitely many dimensions, and what is measured. The rule of
# nearest neighbours is close to the best, and so is the likelihood of each row under all others.

bandwidths = torch.linspace(0.45, 2.4, 30, dtype=torch.float64)
predicted = kde_log_density_prediction(n, d, bandwidths)
kernel = KernelDensity(bandwidth="cv").fit(x)
measured, neighbours = [], []
for h in bandwidths.tolist():
    rests = effective_neighbors(z, x, h)
    neighbours.append(float(rests.median()))
    squared = torch.cdist(z, x).square()
    log_sum = torch.logsumexp(-squared / (2 * h * h), 1) - np.log(n)
    measured.append(float(log_sum.mean()) - d / 2 * np.log(2 * np.pi * h * h))
figure, (ax, below) = plt.subplots(2, 1, figsize=(7, 6), layout="constrained", sharex=True)
ax.plot(bandwidths, predicted / d, label="predicted")
ax.plot(bandwidths, np.array(measured) / d, "o", mfc="white", ms=4, label="held out")
for h, name, color in (
    (kernel.bandwidth_, "leave-one-out", "C2"),
    (nearest_neighbor_bandwidth(x), "nearest neighbours", "C3"),
    (n ** (-1 / (d + 4)), "Scott", "C4"),
):
    ax.axvline(h, color=color, ls="--", lw=1.2, label=f"{name}, {h:.2f}")
ax.set(ylabel="log-density / dimensions", title=f"{n:,} points in {d} dimensions")
ax.legend(frameon=False, fontsize="small")
below.semilogy(bandwidths, neighbours, color="C1")
below.axvspan(float(bandwidths[0]), phase.h_glass, color="C0", alpha=0.12, linewidth=0)
below.set(xlabel="bandwidth h", ylabel="effective neighbours", ylim=(0.9, n))
below.text(0.5, 1000, "a few nearest points", color="C0")
plt.show()
