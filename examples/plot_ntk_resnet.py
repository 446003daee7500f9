"""
The tangent kernel of a residual network
========================================

Made ever wider, a network trained by gradient descent becomes kernel regression, with a kernel
that depends on its architecture alone: the neural tangent kernel (NTK). `mercer.infinite.NTK`
reads that kernel from an ordinary torch module. Here is a residual network, as one would write it
anyway.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.datasets import digits
from mercer.infinite import NTK
from mercer.kernels import RBF
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe


class Block(nn.Module):
    """x plus what two convolutions make of it."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        """Add the branch."""
        return x + self.second(torch.relu(self.first(torch.relu(x))))


# %%
# Five lines. The widths, 16 channels here, do not matter: the kernel is that of infinitely many.
# ``example`` says what an input looks like. `NTK.both` gives the NNGP kernel beside it, that of the
# network at birth, or of one whose last layer alone is trained.

model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), Block(16), nn.ReLU())
model.extend([nn.AvgPool2d(4), nn.Flatten(), nn.Linear(16 * 4, 10)])
kernel = NTK(model, w_std=2**0.5, b_std=0.1, example=torch.zeros(1, 1, 8, 8))

data = digits()
images, test = (rows.x.unflatten(1, (1, 8, 8)) for rows in (data.train, data.test))
images, labels = images[:120], data.train.y[:120]
test, answers = test[:200], data.test.y[:200]
with torch.no_grad():
    nngp, ntk = kernel.both(images)  # (120, 120) each
    nngp_test, ntk_test = kernel.both(test, images)  # (200, 120) each

# %%
# What was read from the module:

print(kernel.network)

# %%
# The kernel sees the classes. Images sorted by their digit; each entry is the cosine of two images
# in the space of the kernel, so that the diagonal is 1.

order = labels.argsort(stable=True)
ends = labels.bincount().cumsum(0)
middles = (ends - labels.bincount() / 2 - 0.5).tolist()


def cosines(matrix):
    root = matrix.diagonal().sqrt()
    return (matrix / (root * root[:, None]))[order][:, order]


figure, axes = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained", sharey=True)
for ax, (name, matrix) in zip(axes, {"NNGP": nngp, "NTK": ntk}.items(), strict=True):
    shown = ax.imshow(cosines(matrix).numpy(), interpolation="none")
    figure.colorbar(shown, ax=ax, label="cosine", shrink=0.8)
    ax.set(title=f"{name}, images by digit", xlabel="digit")
    ax.set_xticks(middles, range(10))
    ax.set_yticks(middles, range(10))
    ax.tick_params(length=0)
    for end in ends[:-1]:
        ax.axhline(end - 0.5, color="white", lw=0.5)
        ax.axvline(end - 0.5, color="white", lw=0.5)
axes[0].set_ylabel("digit")

# %%
# Kernel regression with it
# -------------------------
# One target for each class, on more and more images, the ridge a small share of the diagonal. An
# infinitely wide network trained to the end gives the same answers. Beside it the RBF kernel, with
# the lengthscale that is best on these very test images, which favours it.

counts = (20, 40, 80, 120)


def accuracy(within, across):
    """Share of test images that kernel regression gets right, for each count."""
    found = []
    for n in counts:
        matrix = within[:n, :n].double()
        targets = nn.functional.one_hot(labels[:n], 10).double() - 0.1
        ridge = 1e-3 * matrix.diagonal().mean()
        weight = torch.linalg.solve(matrix + ridge * torch.eye(n), targets)  # (n, 10)
        right = (across[:, :n].double() @ weight).argmax(1) == answers
        found.append(100 * right.double().mean().item())
    return found


def of_lengthscale(scale):
    rbf, x = RBF(scale).requires_grad_(False), images.flatten(1)
    return accuracy(rbf(x), rbf(test.flatten(1), x))


curves = {
    "NTK of the residual network": accuracy(ntk, ntk_test),
    "NNGP of the same": accuracy(nngp, nngp_test),
    "RBF, best lengthscale": max(map(of_lengthscale, (3.0, 4.0, 6.0, 8.0, 12.0)), key=sum),
}
figure, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
for (name, shares), style in zip(curves.items(), ("o-", "s--", "^:"), strict=True):
    ax.plot(counts, shares, style, label=name)
    print(f"{name:>28}: " + "  ".join(f"{share:.1f} %" for share in shares))
ax.set(xlabel="training images", ylabel="test images right (%)", title="Digits, 8 x 8 pixels")
ax.legend(frameon=False)
plt.show()
