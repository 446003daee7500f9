"""
A network without a gradient step
=================================

Taken to the end, bundling leaves one matrix behind known features, and for squared error its
optimum is a ridge regression. `mercer.convert.solve` finds it in one pass over the data. On the
digits it is compared with the same network trained by Adam.
"""

import time

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.convert import solve
from mercer.datasets import digits
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

data = digits()


def network(width):
    return nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )


@torch.no_grad()
def accuracy(model):
    return (model(data.test.x).argmax(1) == data.test.y).double().mean().item()


def train(model, epochs=40):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.train)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.train.x[rows]), data.train.y[rows]).backward()
            optimizer.step()
    return model


# %%
# Train one, solve the other
# --------------------------
# `solve` reads depth, width and activations from the untrained network. The ridge is chosen by
# generalised cross-validation, from the same pass.

torch.manual_seed(0)
model = network(128)
start = time.perf_counter()
solved = solve(model, data.train.x, data.train.y, generator=0)
between = time.perf_counter()
train(model)
end = time.perf_counter()
print(f"solved:  {accuracy(solved.model):.1%} in {between - start:.2f} s, ridge {solved.ridge:.2g}")
print(f"trained: {accuracy(model):.1%} in {end - between:.2f} s")
print(f"of {solved.num_stored:,} stored numbers {solved.num_solved:,} were solved for")

# %%
# The ridge
# ---------
# Below, the accuracy for ridges far to either side of the one that was chosen.

ridges = [solved.ridge * 10.0**k for k in range(-4, 5)]
by_ridge = [
    accuracy(solve(model, data.train.x, data.train.y, ridge=ridge, generator=0).model)
    for ridge in ridges
]

# %%
# Width
# -----
# Trained and solved networks of growing width, with as many random features as the trained network
# has neurons: features that cannot learn need to be more.

widths = [16, 32, 64, 128, 256]
trained = [accuracy(train(network(width), epochs=20)) for width in widths]
closed = [
    accuracy(
        solve(network(width), data.train.x, data.train.y, num_features=width, generator=0).model
    )
    for width in widths
]

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
left.plot(widths, trained, "o-", label="trained by Adam, 20 epochs")
left.plot(widths, closed, "o-", label="solved, as many features")
left.set_xscale("log", base=2)
left.set(xlabel="width of a hidden layer", ylabel="test accuracy", title="Trained and solved")
left.legend(frameon=False)
right.semilogx(ridges, by_ridge, "o-")
right.axvline(solved.ridge, color="0.5", lw=1, ls=":")
right.set(xlabel="ridge (dotted: chosen by GCV)", title="Accuracy against the ridge")
plt.show()
