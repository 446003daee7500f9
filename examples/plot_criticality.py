"""
Order, chaos and the depth of a network
=======================================

A deep network at birth either forgets its inputs or tears them apart, unless the variances of its
weights and biases are critical. `mercer.infinite` finds them for any activation, says over how
many layers signals and gradients live elsewhere, and how far a finite width is from all of this.

(D. Roberts, S. Yaida, B. Hanin, "The Principles of Deep Learning Theory", 2022, arXiv 2106.10165;
S. Schoenholz, J. Gilmer, S. Ganguli, J. Sohl-Dickstein 2017, arXiv 1611.01232.)
"""

import itertools

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.infinite import (
    critical_init_,
    criticality,
    criticality_map,
    depth_scales,
    edge_of_chaos,
    finite_width_report,
    layerwise_learning_rates,
    optimal_depth,
    signal_propagation,
    susceptibilities,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

# %%
# Critical variances
# ------------------
# They make both susceptibilities one at a fixed point of the variance: χ∥, the factor on a change
# of an input's norm, and χ⊥, the factor on the gap of two inputs and on squared gradients. ReLU
# has the initialisation of He, tanh that of LeCun; GELU and SiLU need biases; a sigmoid has none.

for name in ("relu", "tanh", "gelu", "silu", "elu", "sigmoid"):
    found = criticality(name)
    print(f"{name:>8}: {found.kind:15}  σ_w² = {found.w_std**2:.6f}  σ_b² = {found.b_std**2:.6f}")
print(susceptibilities("gelu", 3.0, w_std=criticality("gelu").w_std))
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
criticality("gelu").plot(ax)

# %%
# The map
# -------
# Left of the edge of chaos inputs become equal and gradients vanish, right of it they part and
# explode. The variance settles everywhere on the line; only at the critical point does it do so
# without a scale of its own. For GELU the line ends there: below, the variance has two stable
# values, and jumps from one to the other.

figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
for name, ax in zip(("tanh", "gelu"), axes, strict=True):
    criticality_map(name).plot(ax)

# %%
# Correlations through the layers
# -------------------------------
# Two inputs of tanh networks with σ_b² = 0.05, for weights in the ordered phase, at the edge of
# chaos, and beyond it. The differences between correlations die with the scale that
# `depth_scales` computes; at the edge it is infinite.

BIAS = 0.05**0.5
edge = edge_of_chaos("tanh", b_std=BIAS)
start = torch.tensor([0.1, 0.5, 0.9])
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
for w_std, phase, ax in zip((1.0, edge, 1.8), ("order", "edge", "chaos"), axes, strict=True):
    scales = depth_scales("tanh", w_std, BIAS)
    found = signal_propagation(
        "tanh", 40, w_std=w_std, b_std=BIAS, variance=scales.variance, correlation=start
    )
    found.plot(ax, what="correlation")
    ax.axhline(scales.correlation, color="0.5", lw=1, ls=":")
    ax.set_title(f"{phase}: σ_w = {w_std:.2f}, {scales.correlation_scale:.1f} layers")
    print(f"{phase:>6}: χ∥ = {scales.parallel:.3f}, χ⊥ = {scales.perpendicular:.3f}")

# %%
# Finite width
# ------------
# At criticality the squared length of a layer fluctuates from network to network, by a relative
# variance that grows with depth over width: 5 / n a layer for ReLU, about 2 / (3 n) for tanh.
# Dots are 20,000 networks of width 100 each. A skip connection around each layer slows the growth.

WIDTH, LAYERS, NETWORKS = 100, 10, 20_000


def fluctuations(function, weight, residual=0.0):
    """Return the covariance of squares of two neurons, times the width, over random networks."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(NETWORKS, WIDTH, generator=generator)
    found = []
    for _ in range(LAYERS):
        square, fourth = z.square().sum(1).double(), z.pow(4).sum(1).double()
        pairs = (square.square() - fourth) / (WIDTH * (WIDTH - 1))
        found.append(WIDTH * (pairs.mean() / (square.mean() / WIDTH).square() - 1))
        # Given this layer, W f(z) of one input is exactly normal.
        spread = (weight * function(z).square().mean(1, keepdim=True)).sqrt()
        z = spread * torch.randn(NETWORKS, WIDTH, generator=generator) + residual * z
    return torch.stack(found)


layer = torch.arange(1, LAYERS + 1)
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for name, function, residual, color in (
    ("relu", torch.relu, 0.0, "C0"),
    ("relu", torch.relu, 0.9, "C1"),
    ("tanh", torch.tanh, 0.0, "C2"),
):
    found = criticality(name, residual)
    theory = signal_propagation(name, LAYERS, residual=residual).fluctuation
    label = name + (f", skip connection {residual:g}" if residual else "")
    ax.plot(layer, theory / WIDTH, color=color, label=label)
    simulated = fluctuations(function, found.w_std**2, residual)
    ax.plot(layer, simulated / WIDTH, "o", color=color, mfc="white", ms=5)
ax.set(
    xlabel="layer",
    ylabel="relative variance of the squared length",
    title=f"Width {WIDTH}: first order in depth / width (lines), simulated (dots)",
)
ax.legend(frameon=False)

# %%
# A network of your own
# ---------------------
# `finite_width_report` reads the widths of a module and its present variances; `critical_init_`
# draws it anew. PyTorch's default for linear layers lets a signal through eight layers of tanh
# shrink to nothing.

widths = [64, *[128] * 8, 10]
layers = [nn.Sequential(nn.Tanh(), nn.Linear(a, b)) for a, b in itertools.pairwise(widths)]
net = nn.Sequential(*layers)
report = finite_width_report(net)
print(report.warnings)
report = finite_width_report(critical_init_(net, generator=0))
print(f"critical now: {report.warnings}; fluctuations {report.fluctuation:.3f}")
print(f"most informative depth of this width: {optimal_depth('tanh', 128, 10):.1f} layers")
rates = layerwise_learning_rates("tanh", depth=9)
print("bias rates for equal contributions:", [round(r, 3) for r in rates.bias.tolist()])
optimizer = torch.optim.SGD(rates.groups(net, 0.1))  # one group for each weight and each bias
report.plot()
plt.show()
