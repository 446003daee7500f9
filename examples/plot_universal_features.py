"""
How far do random features reach?
=================================

A layer f(w·x + b) is a kernel between an input and a neuron.
`mercer.features.UniversalFeatures` writes it as a product of two maps, one of the input and one of
the neuron, from nothing but random directions. The map predicts its own variance, so that one can
see beforehand where it will work. Here both are compared with what happens.
"""

import matplotlib.pyplot as plt
import torch

from mercer.features import UniversalFeatures
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

SIZES = [64, 256, 1024, 4096]
MARKERS = "os^D"

# %%
# Inputs and neurons of a given norm, in 16 dimensions
# ----------------------------------------------------


def layer(norm, rows=30, neurons=30):
    """Draw inputs and neurons of one norm; the biases are standard normal."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 16, generator=source, dtype=torch.float64)
    weight = torch.randn(neurons, 16, generator=source, dtype=torch.float64)
    bias = torch.randn(neurons, generator=source, dtype=torch.float64)
    return (
        norm * x / x.norm(dim=1, keepdim=True),
        norm * weight / weight.norm(dim=1, keepdim=True),
        bias,
    )


def errors(activation, norm, size):
    """Return relative errors: about the expansion, the same as predicted, about the layer."""
    x, weight, bias = layer(norm)
    phi = UniversalFeatures(
        activation, 16, size, draw="gaussian", norms=(norm, norm), generator=1, dtype=torch.float64
    )
    z = x @ weight.mT + bias
    estimate, exact = phi.estimate(x, weight, bias), phi.activation(z)
    scale = exact.square().mean().sqrt()
    measured = (estimate - phi.expand(z)).square().mean().sqrt() / scale
    predicted = phi.variance(x, weight, bias).mean().sqrt() / scale
    total = (estimate - exact).square().mean().sqrt() / scale
    return measured.item(), predicted.item(), total.item()


# %%
# Error against the number of features
# ------------------------------------
# At norm 0.5 the error about the map's own expansion of the activation falls like the inverse
# square root of the number of features (dots), as predicted (lines).

activations = ["sin", "tanh", "gelu", "relu"]
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for i, name in enumerate(activations):
    measured, predicted, _ = zip(*(errors(name, 0.5, size) for size in SIZES), strict=True)
    ax.loglog(SIZES, measured, MARKERS[i], color=f"C{i}", label=name)
    ax.loglog(SIZES, predicted, "-", color=f"C{i}", lw=1)
    print(f"{name:>5}", *(f"{m:.3f}/{p:.3f}" for m, p in zip(measured, predicted, strict=True)))
ax.set(
    xlabel="number of features",
    ylabel="relative error",
    title="Error about the expansion, norms 0.5",
)
ax.legend(frameon=False)

# %%
# Error against the norm
# ----------------------
# Markers: the error about the layer itself. The variance grows exponentially with the norms, so at
# larger norms the map can afford fewer frequencies, and the markers leave the lines. Trained
# feed-forward layers live out there, with inputs of norm 10 and more. That is why
# `mercer.convert.bundle` chooses features among the layer's own neurons.

norms = [0.25, 0.5, 1.0, 2.0, 4.0]
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for i, name in enumerate(activations):
    _, predicted, total = zip(*(errors(name, norm, 1024) for norm in norms), strict=True)
    ax.semilogy(norms, total, MARKERS[i], color=f"C{i}", label=name)
    ax.semilogy(norms, predicted, "-", color=f"C{i}", lw=1)
ax.axhline(1, color="0.6", lw=1, ls=":")
ax.set(
    xlabel="norm of inputs and neurons",
    ylabel="relative error",
    title="Error about the layer, 1,024 features",
    ylim=(0.01, 1e3),
)
ax.legend(frameon=False)
plt.show()
