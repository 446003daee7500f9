"""
When to stop training, before training
======================================

A wide network learns the large principal components of its tangent kernel first, and noise on the
labels lives mostly in the small ones. So the error on new data falls, and rises again.
`mercer.infinite.dynamics` computes the whole course in closed form from the kernel of the module,
and with it the best number of steps. Here it is asked first; then networks are trained.
"""

import math

import matplotlib.pyplot as plt
import torch
from torch import nn

from mercer.datasets import digits
from mercer.infinite import NNGP, NTK, cross_entropy_dynamics, dynamics, posterior
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

# %%
# Handwritten threes against eights, with targets -1 and 1 to which noise is added. The network is
# an ordinary module with two hidden layers and He's initialisation.

WIDTH, NOISE = 256, 1.0  # the latter is a variance
source = torch.Generator().manual_seed(0)


def threes_and_eights(rows, count):
    chosen = ((rows.y == 3) | (rows.y == 8)).nonzero().squeeze(-1)[:count]
    return rows.x[chosen], (rows.y[chosen] == 8).float() * 2 - 1


data = digits()
x, clean = threes_and_eights(data.train, 150)
x_test, y_test = threes_and_eights(data.test, 90)
y = clean + math.sqrt(NOISE) * torch.randn(len(clean), generator=source)


def network():
    model = nn.Sequential(
        nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1)
    )
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=(2 / layer.in_features) ** 0.5)
        nn.init.normal_(layer.bias, std=0.1)
    return model


# %%
# The prediction
# --------------
# ``parametrization="standard"`` takes the weights as PyTorch's modules have them; their standard
# deviations are the defaults of `NTK`. The step of gradient descent is a share of the largest
# stable one, which is known too.

kernel = NTK(network(), parametrization="standard")
edge = dynamics(kernel, x, y, discrete=True).largest_learning_rate
rate = 0.5 * edge
steps = dynamics(kernel, x, y, discrete=True, learning_rate=rate)
stop = steps.early_stopping(x_test, y_test)
print(f"largest stable step {edge:.3g}; stop after {stop.time:.0f} steps")
print(f"predicted test error {stop.error:.3f} there, {stop.error_at_end:.3f} at the end")

# %%
# Without held-out data, the variance of the noise will do: the error at the training points, of
# the targets without noise, can be estimated without bias.

blind = steps.early_stopping(noise=NOISE)
print(f"by the noise alone: stop after {blind.time:.0f} steps")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
steps.learning_times().plot(left)
blind.plot(right)
right.set_title("When to stop, from the noise alone")

# %%
# What networks do
# ----------------
# Five networks, an ordinary loop with ``torch.optim.SGD``. The loss is half the mean square.

last = 1500
watched = torch.logspace(0, math.log10(last), 40).round().unique().int().tolist()


def train(seed):
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    errors = []
    for step in range(last + 1):
        if step in watched:
            with torch.no_grad():
                errors.append((model(x_test).squeeze(-1) - y_test).square().mean().item())
        loss = (model(x).squeeze(-1) - y).square().mean() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return errors


observed = torch.tensor([train(seed) for seed in range(5)])
best = watched[int(observed.mean(0).argmin())]
print(f"observed: the least error {observed.mean(0).min():.3f} after {best} steps")

figure, ax = plt.subplots(figsize=(7.2, 4), layout="constrained")
for i, errors in enumerate(observed):
    ax.plot(watched, errors, color="0.75", lw=1, label="networks, trained" if i == 0 else None)
curve = steps.squared_error(watched, x_test, y_test)
ax.plot(watched, curve.network, color="C0", lw=2, label="one network, predicted")
ax.plot(watched, curve.ensemble, "--", color="C2", lw=2, label="mean of many, predicted")
ax.axvline(stop.time, color="C1", ls=":", label=f"predicted best: step {stop.time:.0f}")
ax.set(xscale="log", yscale="log", xlabel="steps", ylabel="mean squared error")
ax.set_title("Error on test images")
ax.legend(frameon=False)

# %%
# Other losses, other ends
# ------------------------
# With cross-entropy the equation of the outputs is no longer linear and is integrated. A network
# whose last layer alone is trained ends at the posterior of a Gaussian process instead, that of
# the `NNGP` kernel; one that knows the noise needs no stopping. Bars are two standard deviations.

labels = (clean > 0).long()
path = cross_entropy_dynamics(kernel, x, labels, range(0, 41, 2), x_test, learning_rate=rate)
right_ones = ((path.test_outputs[-1].argmax(-1) > 0) == (y_test > 0)).double().mean()
print(f"cross-entropy: {right_ones:.1%} of the test images right")

gaussian = NNGP(network())
bayes = posterior(gaussian, x, y, x_test, noise=NOISE)
print(f"Gaussian process: test error {(bayes.mean - y_test).square().mean():.3f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
path.plot(left)
posterior(gaussian, x, y, x_test[:30], noise=NOISE).plot(right)
right.plot(y_test[:30], "_", color="C1", ms=9, mew=2, label="target")
right.set(title="Posterior of the Gaussian process", xlabel="test image", ylim=(-3, 4))
right.legend(frameon=False, ncols=2)
plt.show()
