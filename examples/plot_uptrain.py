"""
Uptrain a bundled network
=========================

Very small shares cost accuracy when the blocks of a network are replaced in closed form.
`mercer.convert.uptrain` goes on from there: for a set number of steps, the dense network teaches
the smaller one what its blocks and its output should be, without a label. `mercer.convert.allocate`
says first which block can spare most.

The network is a small vision Transformer, trained on the handwritten digits of scikit-learn.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.convert import allocate, uptrain
from mercer.datasets import digits
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

data = digits()

# %%
# A vision Transformer
# --------------------
# An image of 8 × 8 pixels becomes sixteen patches of 2 × 2.


class Patches(nn.Module):
    """Cut images into patches, and say where each was."""

    def __init__(self, width):
        super().__init__()
        self.embed = nn.Linear(4, width)
        self.places = nn.Parameter(torch.randn(16, width) / 4)

    def forward(self, x):
        """Map images (n, 64) to tokens (n, 16, width)."""
        patches = x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        return self.embed(patches) + self.places


class Mean(nn.Module):
    """Average over the patches."""

    def forward(self, h):
        """Map tokens (n, t, width) to vectors (n, width)."""
        return h.mean(dim=1)


torch.manual_seed(0)
layer = nn.TransformerEncoderLayer(
    32, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
)
encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
model = nn.Sequential(Patches(32), encoder, Mean(), nn.LayerNorm(32), nn.Linear(32, 10))

epochs, size = 15, 64
steps = epochs * -(-len(data.train) // size)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
for _ in range(epochs):
    for rows in torch.randperm(len(data.train)).split(size):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.x[rows]), data.train.y[rows]).backward()
        optimizer.step()
        schedule.step()
model.eval()


@torch.no_grad()
def accuracy(network):
    return (network(data.test.x).argmax(1) == data.test.y).double().mean().item()


print(f"dense: {accuracy(model):.1%} of {len(data.test)} test images")

# %%
# Bundle, then uptrain
# --------------------
# What is held out here are training images on which nothing is fitted; the distance is the squared
# one between logits, divided by their variance. Without ``learning_rate`` a few short trials would
# find one.

images = data.train.x  # without their classes
uptrained = uptrain(model, images, keep=0.1, steps=200, learning_rate=1e-3)
report = uptrained.report
print(f"distance: {report.before.output:.3f} before, {report.after.output:.3f} after")
print(f"test accuracy: {accuracy(uptrained.model):.1%}")

# %%
# At several shares, before and after
# -----------------------------------

shares = [0.04, 0.06, 0.1, 0.2, 0.4]
before = [uptrain(model, images, keep=share, steps=0) for share in shares]
after = [uptrain(model, images, keep=share, steps=200, learning_rate=1e-3) for share in shares]
curves = {"closed form": before, "uptrained, 200 steps": after}
print("kept  " + "".join(f"{label:>22}" for label in curves))
for i, share in enumerate(shares):
    print(f"{share:4.0%}  " + "".join(f"{accuracy(c[i].model):22.1%}" for c in curves.values()))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
percent = [100 * share for share in shares]
for marker, (label, results) in zip("os", curves.items(), strict=True):
    distances = [result.report.after.output for result in results]
    left.loglog(percent, distances, f"{marker}-", label=label)
    accuracies = [100 * accuracy(result.model) for result in results]
    right.semilogx(percent, accuracies, f"{marker}-", label=label)
right.axhline(100 * accuracy(model), color="0.5", lw=1, ls=":", label="dense")
left.set(ylabel="squared distance / variance", title="Logits, held-out images")
right.set(ylabel="test accuracy [%]", title="Digits")
for ax in (left, right):
    ax.set(xlabel="numbers kept of the blocks [%]", xticks=percent)
    ax.set_xticklabels([f"{value:g}" for value in percent])
    ax.minorticks_off()
right.legend(frameon=False)
plt.show()

# %%
# Which block can spare most?
# ---------------------------
# `mercer.convert.allocate` measures what each block alone does to the output when it shrinks, and
# solves for the shares under one budget, here a twentieth of the numbers. It adds the errors of the
# blocks up; for shares as small as these the true one is larger, but the choice is the right one.
# Training afterwards evens much of the difference out.

allocation = allocate(model, images, keep=0.05)
print(allocation)
for label, keep in {"one share": 0.05, "allocated": allocation.keep}.items():
    closed = uptrain(model, images, keep=keep, steps=0)
    trained = uptrain(model, images, keep=keep, steps=200, learning_rate=1e-3)
    print(
        f"{label}: distance {closed.report.after.output:.3f} before, "
        f"{trained.report.after.output:.3f} after; accuracy {accuracy(closed.model):.1%} before, "
        f"{accuracy(trained.model):.1%} after"
    )

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
report.plot(left)
allocation.plot(right)
plt.show()
