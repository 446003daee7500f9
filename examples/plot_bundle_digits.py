"""
Bundle a trained network
========================

A multilayer perceptron is trained on the handwritten digits of scikit-learn. Then
`mercer.convert.bundle` replaces its block Linear → activation → Linear by features and one matrix,
in closed form. How small can it get before the accuracy falls?
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.convert import bundle
from mercer.datasets import digits
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

data = digits()

# %%
# Train
# -----

torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, 10)
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(60):
    for rows in torch.randperm(len(data.train)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.x[rows]), data.train.y[rows]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(network):
    return (network(data.test.x).argmax(1) == data.test.y).double().mean().item()


print(f"dense: {accuracy(model):.1%} of {len(data.test)} test images")

# %%
# Bundle
# ------
# The calibration images need no labels. The original model stays as it was; the bundled one is an
# ordinary module. A block keeps the neurons from which its outputs are best predicted.

bundled = bundle(model, data.calibration.x, keep=0.5)
print(bundled.report)
print(f"bundled: {accuracy(bundled.model):.1%}")

# %%
# Other sizes, other features
# ---------------------------
# The same with random neurons of the same number, which is how the paper draws its features. They
# see the data only through the ridge regression.

shares = [0.05, 0.1, 0.2, 0.3, 0.5, 0.7]
curves = {"chosen neurons": "leverage", "random neurons": "orthogonal"}
found = {
    label: [
        bundle(model, data.calibration.x, keep=keep, projection=projection, generator=0)
        for keep in shares
    ]
    for label, projection in curves.items()
}

# %%
print("keep  " + "".join(f"{label:>18}" for label in curves))
for i, keep in enumerate(shares):
    print(f"{keep:4.0%}  " + "".join(f"{accuracy(found[c][i].model):18.1%}" for c in curves))

figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for marker, (label, results) in zip("os", found.items(), strict=True):
    stored = [result.report.model_after / 1000 for result in results]
    ax.plot(stored, [accuracy(result.model) for result in results], f"{marker}-", label=label)
ax.axhline(accuracy(model), color="0.5", lw=1, ls=":", label="dense")
ax.set(
    xlabel="thousand numbers stored by the model",
    ylabel="test accuracy",
    title=f"Digits: bundled from {bundled.report.model_before / 1000:.0f} thousand numbers",
)
ax.legend(frameon=False)
plt.show()
