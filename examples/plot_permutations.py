"""
Permuting words exactly, from single bits
=========================================

Networks with one hidden ReLU layer see k words of k bits, those with a single one, and learn to
permute their bits. At any other word a wide network is a draw from a normal law that
`mercer.infinite.permutation_law` knows: its mean has the right sign at every bit, so the mean of
enough networks permutes all 2^k − 1 words. How many are enough?

(J. Giapitzakis, A. Back de Luca, K. Fountoulakis 2025, arXiv 2502.16763.)
"""

import itertools
import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.infinite import NTK, dynamics, permutation_law
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe


def words(bits):
    """Return all words with two ones, divided by their length."""
    pairs = torch.tensor(list(itertools.combinations(range(bits), 2)))
    return torch.zeros(len(pairs), bits).double().scatter_(1, pairs, 0.5**0.5)


# %%
# The law of a network
# --------------------
# It is that of an ensemble of infinitely wide networks at the end of training, which
# `mercer.infinite.dynamics` computes for any module. The closed form is the same. Where the word
# has a zero the mean is just below zero, and smaller the longer the words are.

bits = 10
module = nn.Sequential(nn.Linear(bits, 1, bias=False), nn.ReLU(), nn.Linear(1, bits, bias=False))
single = torch.eye(bits).double()
flow = dynamics(NTK(module, w_std=1.0, b_std=0.0), single, single)
found = flow.predict(math.inf, words(bits)[:1])
law = permutation_law(bits, ones=2)
print(f"of the module: on {found.mean[0, 0]:.5f}, off {found.mean[0, 2]:.5f}")
print(f"closed form:   on {law.mean_on:.5f}, off {law.mean_off:.5f}")

# %%
# Networks that were trained
# --------------------------
# 500 networks of width 512 for k = 6, trained by gradient descent in the two usual ways. In the
# NTK parametrisation all layers learn, and the mean over N networks is exact as often as the law
# of the neural tangent kernel says. In the standard one, with one rate for all, the last layer
# moves by far the most: these networks follow the law of the NNGP kernel, and far fewer of them
# are needed.

BITS, WIDTH, NETWORKS = 6, 512, 500


def train(standard, rate, steps=250):
    """Train on single bits, with the gradient of the squared error written out."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(NETWORKS, WIDTH, BITS, generator=generator)
    second = torch.randn(NETWORKS, BITS, WIDTH, generator=generator)
    inner, outer = BITS**-0.5, WIDTH**-0.5
    if standard:
        first, second, inner, outer = first * inner, second * outer, 1.0, 1.0
    target = torch.eye(BITS).roll(1, 0)  # the permutation
    for _ in range(steps):
        hidden = (inner * first).relu()
        error = outer * (second @ hidden) - target
        back = inner * outer * (second.mT @ error) * (first > 0)
        second -= rate * outer * (error @ hidden.mT)
        first -= rate * back
    assert error.abs().max() < 1e-3
    x = words(BITS).float()
    outputs = outer * (second @ (inner * (first @ x.T)).relu())  # (networks, bits, words)
    return outputs, target @ x.T > 0


def exactness(outputs, wanted, models):
    """Return how often the mean over a random part of the networks is right at all bits."""
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randperm(NETWORKS, generator=generator)[:models] for _ in range(100)]
    right = [((outputs[part].mean(0) > 0) == wanted).all(0).float().mean() for part in parts]
    return torch.stack(right).mean().item()


models = torch.arange(1, 301)
counts = (5, 10, 20, 40, 80, 160)  # far fewer than there are, so that parts differ
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for standard, rate, kernel, name, color, marker in (
    (False, 1.0, "ntk", "NTK parametrisation", "C0", "o"),
    (True, 4e-3, "nngp", "standard parametrisation", "C1", "s"),
):
    outputs, wanted = train(standard, rate)
    measured = [exactness(outputs, wanted, n) for n in counts]
    law = permutation_law(BITS, 2, kernel)
    ax.plot(models, law.success(models), color=color, label=f"law of the {kernel.upper()}")
    ax.plot(counts, measured, marker, color=color, mfc="white", label=f"trained, {name}")
    print(f"{name}: {law.required_models(0.1)} networks for 90% by the law")
ax.set(
    xlabel="networks in the mean",
    ylabel="share of words permuted exactly",
    title=f"Words of {BITS} bits with two ones",
    ylim=(0, 1.03),
)
ax.legend(frameon=False)

# %%
# Longer words
# ------------
# Below, ensembles are simulated by drawing networks from the joint law over words, one after the
# other, until 90% of the words are exact. Their sizes follow the predicted ones. The authors
# trained networks of width 50,000 in the standard parametrisation (with biases, which the theory
# leaves out): their counts are those of the NNGP kernel, not of the NTK.


def simulated(bits, kernel, most, repeats=10):
    """Return the ensemble size at which networks drawn from the law are 90% exact."""
    module = nn.Sequential(
        nn.Linear(bits, 1, bias=False), nn.ReLU(), nn.Linear(1, bits, bias=False)
    )
    ntk, single = NTK(module, w_std=1.0, b_std=0.0), torch.eye(bits).double()
    generator = torch.Generator().manual_seed(bits)
    every = words(bits)
    x = every[torch.randperm(len(every), generator=generator)[:30]]
    flow = dynamics(ntk if kernel == "ntk" else ntk.nngp, single, single)
    found = flow.predict(math.inf, x)
    eigenvalues, vectors = torch.linalg.eigh(found.covariance)
    root = (vectors * eigenvalues.clamp(min=0).sqrt()).float()  # (words, words)
    wanted, rate = found.mean > 0, torch.zeros(most)
    for _ in range(repeats):
        draws = torch.randn(most, bits, len(x), generator=generator)
        sums = (draws @ root.T).cumsum(0)  # networks added one after the other
        count = torch.arange(1, most + 1).view(-1, 1, 1)
        right = (sums / count + found.mean.T.float() > 0) == wanted.T
        rate += right.all(1).float().mean(-1) / repeats
    return int((rate >= 0.9).nonzero()[0]) + 1


bits = torch.arange(5, 31)
authors = {10: 69, 20: 117, 30: 175}  # models, from the result files of their repository
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for kernel, color, marker in (("ntk", "C0", "o"), ("nngp", "C1", "s")):
    predicted = {k: permutation_law(k, 2, kernel).required_models(0.1) for k in bits.tolist()}
    sizes = {k: simulated(k, kernel, 2 * predicted[k]) for k in (5, 10, 20, 30)}
    ax.plot(predicted.keys(), predicted.values(), color=color, label=f"{kernel.upper()}, predicted")
    ax.plot(sizes.keys(), sizes.values(), marker, color=color, mfc="white", label="simulated")
    for k, size in sizes.items():
        print(f"{kernel.upper()}, k = {k}: predicted {predicted[k]}, simulated {size}")
ax.plot(authors.keys(), authors.values(), "^", color="C2", label="the authors' trained networks")
ax.set(
    xlabel="bits k",
    ylabel="networks for 90% of words",
    title="Size of the ensemble, words with two ones",
    ylim=(0, None),
)
ax.legend(frameon=False)

# %%
# All words at once
# -----------------
# A union bound over all 2^k − 1 inputs makes the number a multiple of k² for long words, for
# training sets of k words only.

for k in (10, 20, 40, 80):
    needed = max(permutation_law(k, m).required_models(0.1, 2**k - 1) for m in range(2, k))
    print(f"k = {k}: {needed} networks, {needed / k**2:.1f} k²")
permutation_law(20, 2).plot()
plt.show()
