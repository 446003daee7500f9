"""
What a wide layer does to angles
================================

Let u and v be jointly normal: the values of two inputs at a neuron with random weights. A wide
layer turns their covariance into E[φ(u)φ(v)], the *dual* of the activation φ. `mercer.kernels.dual`
computes it, and E[φ'(u)φ'(v)] with it.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.kernels import (
    ArcCosine,
    Dual,
    ErfActivation,
    ExponentialActivation,
    GaborActivation,
    GaussianActivation,
    HermiteActivation,
    PolynomialActivation,
    PowerActivation,
    SineActivation,
    SurrogateActivation,
    dual,
    surrogate_derivative,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

one = torch.tensor(1.0, dtype=torch.float64)
rho = torch.linspace(-1, 1, 101, dtype=torch.float64)


def correlation(activation):
    """Return K(1, 1, rho) / K(1, 1, 1)."""
    value, _ = dual(activation)(one, one, rho)
    return value / dual(activation).diagonal(one)[0]


# %%
# From correlation to correlation
# -------------------------------
# Inputs of unit variance and correlation rho. Many duals have closed forms; the others come from a
# Hermite series whose error is bounded, or from quadrature where the bound is too large. The
# result says which. Twice the dual of ReLU is the arc-cosine kernel of order 1.

groups = {
    "closed form": ["relu", "gelu", "erf", "sin"],
    "series": ["tanh", "silu", "elu"],
}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for ax, (method, names) in zip(axes, groups.items(), strict=True):
    for name, style in zip(names, ("-", "--", "-.", ":"), strict=False):
        assert isinstance(dual(name), Dual) and dual(name).method == method
        ax.plot(rho, correlation(name), style, label=name)
    ax.plot(rho, rho, color="0.6", lw=1, label="unchanged")
    ax.set(xlabel="correlation ρ of the inputs", title=method.capitalize())
    ax.legend(frameon=False)
axes[0].set_ylabel("K(1, 1, ρ) / K(1, 1, 1)")
print(dual("gelu"), dual("silu"), dual(nn.ELU(0.5)))
angle = torch.tensor([[1.0, 0.0], [0.6, 0.8]]).double()
print(ArcCosine(1)(angle)[0, 1], 2 * dual("relu")(one, one, 0.6 * one)[0])

# %%
# Layer upon layer
# ----------------
# In a network of tanh layers with weights of variance σ² / width and biases of variance 0.05, the
# variance q soon reaches its fixed point. Two inputs then go one of two ways. For small weights
# they become the same (order); for large ones even close inputs part (chaos). The slope at equal
# inputs, χ = σ² E[φ'(u)²], tells: below 1 differences shrink, above 1 they grow.

BIAS, DEPTH = 0.05, 25
tanh = dual("tanh")


def fixed_point(weight):
    q = one
    for _ in range(40):
        q = weight * tanh.diagonal(q)[0] + BIAS
    return q


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for weight, style, color in zip(
    (1.0, 1.76, 4.0), ("-", "--", "-."), ("C0", "C1", "C2"), strict=True
):
    q = fixed_point(weight)
    c = torch.tensor([0.2, 0.95], dtype=torch.float64)  # two pairs of inputs
    path = [c]
    for _ in range(DEPTH):
        c = (weight * tanh(q, q, c * q)[0] + BIAS) / q
        path.append(c)
    lines = left.plot(torch.stack(path), style, color=color)
    lines[0].set_label(f"σ² = {weight}")
left.set(xlabel="layer", ylabel="correlation of two inputs", title="Order and chaos, tanh")
left.legend(frameon=False)

weights = torch.linspace(0.5, 4, 8).tolist()
slopes = []
for weight in weights:
    slopes.append((weight * tanh.diagonal(fixed_point(weight))[1]).item())
right.plot(weights, slopes, "o-", ms=4)
right.axhline(1, color="0.5", lw=1, ls=":")
right.annotate("chaos", (0.6, 1.08))
right.annotate("order", (3.5, 0.85))
right.set(xlabel="variance σ² of the weights", ylabel="slope χ", title="Where it turns")

# %%
# Activations with parameters
# ---------------------------
# These have closed forms whatever their parameters. A steep error function comes near the sign; a
# sine with the phase π/4 has a Gaussian kernel; a Hermite polynomial of degree k takes ρ to its
# k-th power.

families = {
    "PowerActivation": {
        "order 0": PowerActivation(0),
        "order 1": PowerActivation(1),
        "order 2": PowerActivation(2),
    },
    "PolynomialActivation": {
        "x + x²": PolynomialActivation((0.0, 1.0, 1.0)),
        "x³": PolynomialActivation((0.0, 0.0, 0.0, 1.0)),
    },
    "HermiteActivation": {f"degree {k}": HermiteActivation(k) for k in (1, 2, 3)},
    "ErfActivation": {f"slope {m}": ErfActivation(m) for m in (0.5, 2.0, 50.0)},
    "SineActivation": {
        "phase 0": SineActivation(2.0),
        "phase π/4": SineActivation(2.0, phase=math.pi / 4),
        "phase π/2": SineActivation(2.0, phase=math.pi / 2),
    },
    "ExponentialActivation": {f"rate {b}": ExponentialActivation(b) for b in (0.5, 1.0, 2.0)},
    "GaussianActivation": {f"rate {b}": GaussianActivation(b) for b in (0.5, 5.0, 50.0)},
    "GaborActivation": {"exp(−x²) sin x": GaborActivation()},
}
figure, axes = plt.subplots(2, 4, figsize=(11, 5), layout="constrained", sharex=True, sharey=True)
for ax, (family, members) in zip(axes.flat, families.items(), strict=True):
    for (name, activation), style in zip(members.items(), ("-", "--", "-."), strict=False):
        assert dual(activation).method == "closed form"
        ax.plot(rho, correlation(activation), style, label=name)
    ax.set_title(family, fontsize=9.5)
    ax.legend(frameon=False, fontsize=8.5, loc="lower right", handlelength=1.4)
figure.supxlabel("correlation ρ of the inputs", fontsize=10)
figure.supylabel("K(1, 1, ρ) / K(1, 1, 1)", fontsize=10)

# %%
# Steps that can be trained through
# ---------------------------------
# The sign has no useful derivative. `SurrogateActivation` computes the sign and differentiates
# something else, one of the names of `surrogate_derivative`. Below, 16 sign neurons learn to
# tell the first and third quadrant from the others; without a surrogate only the last layer learns.

z = torch.linspace(-2.5, 2.5, 401)
names = ("erf", "triangle", "clipped", "sigmoid")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for name, style in zip(names, ("-", "--", "-.", ":"), strict=True):
    left.plot(z, surrogate_derivative(name)(z), style, label=name)
left.set(xlabel="z", ylabel="in place of the derivative", title="Surrogate derivatives")
left.legend(frameon=False)

source = torch.Generator().manual_seed(0)
points = 2 * torch.rand(500, 2, generator=source) - 1
labels = torch.sign(points[:, :1] * points[:, 1:])


def train(activation, steps=300):
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(2, 16), activation, nn.Linear(16, 1))
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.soft_margin_loss(network(points), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    right_ones = (network(points).sign() == labels).float().mean().item()
    return losses, right_ones


for name, style in zip(names, ("-", "--", "-.", ":"), strict=True):
    losses, right_ones = train(SurrogateActivation("sign", name))
    right.plot(losses, style, label=name)
    print(f"{name:>8}: {right_ones:.1%} of the points right")


losses, right_ones = train(SurrogateActivation("sign", torch.zeros_like))  # the true derivative
right.plot(losses, color="0.4", label="none")
print(f"{'none':>8}: {right_ones:.1%} of the points right")
right.set(xlabel="step of Adam", ylabel="loss", title="16 sign neurons, four quadrants")
right.legend(frameon=False)

# %%
# The same surrogate in the dual makes Kdot finite at equal inputs, which the neural tangent kernel
# of such a network needs.

for surrogate in (None, "erf"):
    found = dual("sign", surrogate=surrogate)
    print(found, [f"{v:.3f}" for v in found(one, one, one)])
plt.show()
