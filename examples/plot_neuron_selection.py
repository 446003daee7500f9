"""
Which neurons can stand for all?
================================

A layer of p neurons is to be replaced by m of them and a linear map. Which m? The second moments
of the activations on calibration data, weighted by what each neuron passes on, tell
(`mercer.nn.select_neurons`). Four ways to choose are compared on a trained layer.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.datasets import digits
from mercer.linalg import StreamingRidge
from mercer.nn import select_neurons
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

data = digits()

# %%
# A trained layer and its activations
# -----------------------------------

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for _ in range(60):
    for rows in torch.randperm(len(data.train)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.train.x[rows]), data.train.y[rows]).backward()
        optimizer.step()

with torch.no_grad():
    hidden, outputs = model[:2](data.train.x), model(data.train.x)  # (n, 256), (n, 10)
    held_hidden, held_outputs = model[:2](data.test.x), model(data.test.x)
covariance = hidden.mT.double() @ hidden.double() / len(hidden)
output_weight = model[2].weight.detach()

# %%
# How many dimensions do 256 neurons have?
# ----------------------------------------
# The spectrum falls fast: a few dozen directions carry almost all of the second moments.

eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)
shares = eigenvalues.cumsum(0) / eigenvalues.sum()
print(f"directions for 99% of the second moments: {int((shares < 0.99).sum()) + 1}")

# %%
# Choose, then predict the outputs from the chosen
# ------------------------------------------------
# Leverage scores rank the neurons one by one and so may take several that say the same; a DPP and
# the greedy choice look at the set. On a layer as small and as redundant as this one even a random
# choice does well, and for very few neurons better than the scores.


def r2(chosen):
    """Fit the outputs on the chosen neurons, and return R² on the test images."""
    ridge = StreamingRidge(len(chosen), 10).update(hidden[:, chosen], outputs)
    solution = ridge.solve()
    predicted = held_hidden[:, chosen].double() @ solution.weight.mT + solution.bias
    residual = (held_outputs - predicted).square().sum(0)
    total = (held_outputs - held_outputs.mean(0)).square().sum(0)
    return (1 - residual / total).mean().item()


def at_random(size):
    source = torch.Generator().manual_seed(size)
    return torch.randperm(256, generator=source)[:size].sort().values


def by(method):
    return lambda size: select_neurons(
        covariance, size, method=method, output_weight=output_weight, generator=0
    )


sizes = [8, 16, 32, 64, 128]
ways = {
    "leverage": by("leverage"),
    "dpp": by("dpp"),
    "greedy": by("greedy"),
    "random": at_random,
}
scores = {label: [r2(choose(size)) for size in sizes] for label, choose in ways.items()}
print("neurons " + "".join(f"{label:>10}" for label in ways))
for i, size in enumerate(sizes):
    print(f"{size:7} " + "".join(f"{scores[label][i]:10.3f}" for label in ways))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
left.semilogy(range(1, 257), eigenvalues.clamp(min=1e-9))
left.set(xlabel="direction", ylabel="second moment", title="Spectrum of the hidden layer")
for marker, (label, values) in zip("os^D", scores.items(), strict=True):
    right.semilogx(sizes, [1 - value for value in values], f"{marker}-", label=label)
right.set(
    xlabel="neurons kept, of 256",
    ylabel="1 − R² of the outputs",
    yscale="log",
    title="Ways to choose",
)
right.legend(frameon=False)
plt.show()
