"""
Networks of signs, trained with surrogate gradients
===================================================

A sign has no useful derivative, so networks of signs (binary networks, spiking ones) are trained
with another one in the backward pass, a *surrogate*. Made ever wider they too become kernel
regression, with a kernel that is finite and not symmetric: `mercer.infinite.SurrogateNTK`.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.infinite import NTK, SurrogateNTK, monte_carlo
from mercer.kernels import ErfActivation, SurrogateActivation
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe


class Steep(nn.Module):
    """The error function erf(m z), which becomes the sign as m grows."""

    def __init__(self, m):
        super().__init__()
        self.function = ErfActivation(slope=m)

    def forward(self, z):
        """Apply it."""
        return self.function(z)


def network(activation, width=8):
    """Two hidden layers for points of the plane."""
    return nn.Sequential(
        *(nn.Linear(2, width), activation),
        *(nn.Linear(width, width), activation),
        nn.Linear(width, 1),
    )


def circle(angle):
    """Points at angles."""
    return torch.stack((angle.cos(), angle.sin()), -1)


# %%
# The ordinary tangent kernel of erf(m z) between a point of the circle and those beside it. The
# steeper the activation, the more it is a spike: a network of signs would learn each point on its
# own. With the derivative of erf as a surrogate, in `SurrogateActivation`, the sign has a kernel
# that reaches further.

angle = torch.linspace(-math.pi, math.pi, 401, dtype=torch.float64)
points, origin = circle(angle), circle(torch.zeros(1, dtype=torch.float64))
scales = {"w_std": 1.0, "b_std": 0.1}

_, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
with torch.no_grad():
    for m in (1, 3, 10, 30):
        ax.plot(angle, NTK(network(Steep(m)), **scales)(points, origin), label=f"NTK of erf({m} z)")
    signs = SurrogateNTK(network(SurrogateActivation("sign", "erf")), **scales)
    ax.plot(angle, signs(points, origin), "k--", label="sign, surrogate erf'")
ax.set(xlabel="angle between the points", ylabel="kernel", ylim=(-5, 12))
ax.set_title("Steeper activations, and a sign with a surrogate")
ax.legend()

# %%
# Rows take the true derivative and columns the surrogate. On the circle, where all points have
# one norm, that makes no difference; elsewhere the kernel is not symmetric. Training converges if
# the eigenvalues of its matrix have positive real parts.

spread = circle(angle[:-1:40]) * torch.linspace(0.5, 2.0, 10, dtype=torch.float64).unsqueeze(1)
with torch.no_grad():
    matrix = signs(spread)
print(f"largest |I - I^T|: {(matrix - matrix.mT).abs().max():.3f}")
signs.spectrum(spread).plot()

# %%
# What the ensemble of infinitely wide networks has learnt from twelve points: its mean, and two
# standard deviations over networks. Four networks of width 200, trained by gradient descent with
# `SurrogateActivation`, in the parametrization of the kernel, lie in the band.


class Scaled(nn.Module):
    """A layer z = w_std / sqrt(n) W x + b_std b, with W and b standard normal."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        """Apply it."""
        return x @ self.weight / math.sqrt(len(self.weight)) + 0.1 * self.bias


def trained(x, y, steps=800, width=200):
    """Train one network."""
    act = SurrogateActivation("sign", "erf")
    net = nn.Sequential(Scaled(2, width), act, Scaled(width, width), act, Scaled(width, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        ((net(x).squeeze(1) - y).square().mean() / 2).backward()
        optimizer.step()
    return net.requires_grad_(False)


torch.manual_seed(0)
x = circle(torch.arange(12) * (2 * math.pi / 12) - math.pi)
y = 4 * x[:, 0] * x[:, 1] ** 2 - 0.8 * x[:, 0] ** 3 + 1.2 * x[:, 1] ** 2
test = circle(angle.float())
predicted = signs.predict(x, y, test)

ax = predicted.plot(position=angle)
for i in range(4):
    label = "networks of width 200" if i == 0 else None
    ax.plot(angle, trained(x, y)(test).squeeze(1), color="0.4", lw=0.7, label=label)
ax.plot(torch.atan2(x[:, 1], x[:, 0]), y, "o", color=PALETTE["light"][1], label="data")
ax.set(xlabel="angle", ylim=(-3.2, 3.2), title="Networks of signs, predicted and trained")
ax.legend(loc="lower center", ncols=3)

# %%
# How near is a finite network? `mercer.infinite.monte_carlo` makes many of them, of any module, and
# returns means of both kernels with their standard errors; here for the NTK of erf(z).

found = monte_carlo(lambda width: network(Steep(1), width), 64, 200, x, generator=0, **scales)
with torch.no_grad():
    exact = NTK(network(Steep(1)), **scales)(x)
found.plot(exact=exact)
plt.show()
