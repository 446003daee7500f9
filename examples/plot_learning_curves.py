"""
Learning curves before training
===============================

How much better would a model be with twice the data, or twice the width? A kernel answers from one
matrix: its eigenvalues, and the target on its eigenvectors, decide the test error of ridge
regression on any number of samples, with any number of random features and any ridge.
"""

import math

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from mercer.infinite import (
    NNGP,
    NTK,
    KernelRisk,
    LearningCurve,
    LinearDynamics,
    LinearErrors,
    MarchenkoPastur,
    PowerLaw,
    PowerLaws,
    SectorExponents,
    TeacherStudentCurve,
    fit_power_law,
    fit_power_laws,
    hierarchical_kernel,
    hierarchical_network,
    learning_curve,
    normalize_patches,
    predicted_rate,
    sample_gaussian_field,
    sector_exponents,
    teacher_student_curve,
)
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe

pixels, classes = load_digits(return_X_y=True)
x = 8 * nn.functional.normalize(torch.tensor(pixels))  # (1797, 64), mean square of a pixel 1
y = torch.where(torch.tensor(classes) < 5, 1.0, -1.0).double()  # digits below five, or not

# %%
# Predicted and measured
# ----------------------
# The NTK of a network with one hidden layer, on all 1,797 digits. The prediction is what happens
# where n of them are drawn and the others are the test points. The dotted line takes their
# eigenvalues for those of a distribution, as is often done: it meets its training points again
# among the test points, and is too low. Points are means of ten draws. Without a ridge the last,
# a third of all digits, is beyond what the prediction is good for: it should have five times as
# many points as it is asked about.

network = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 1))
kernel = NTK(network, b_std=0.0).requires_grad_(False)
gram = kernel(x)
risk = KernelRisk.from_gram(gram, y)
as_distribution = KernelRisk(risk.eigenvalues, risk.power, risk.noise_variance, math.inf)
source = torch.Generator().manual_seed(0)


def measure(gram, n, ridge, draws=10):
    errors = []
    for _ in range(draws):
        order = torch.randperm(len(y), generator=source)
        a, b = order[:n], order[n:]
        inside = gram[a][:, a] + ridge * torch.eye(n, dtype=torch.float64)
        fit = gram[b][:, a] @ torch.linalg.solve(inside, y[a])
        errors.append((fit - y[b]).square().mean())
    return torch.stack(errors).mean().item()


sizes = [30, 50, 100, 200, 300, 600]
grid = torch.logspace(math.log10(25), math.log10(900), 40)
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for i, ridge in enumerate((0.0, 5.0)):
    predicted = risk.predict(grid, ridge=ridge)
    assert isinstance(predicted, LearningCurve)
    biased = as_distribution.predict(grid, ridge=ridge)
    measured = [measure(gram, n, ridge) for n in sizes]
    ax.loglog(grid, predicted.test, color=f"C{i}", label=f"predicted, ridge {ridge:g}")
    ax.loglog(grid, biased.test, ":", color=f"C{i}", label="as a distribution")
    ax.loglog(sizes, measured, "os"[i], ms=5, color=f"C{i}", label="measured")
    ratios = risk.predict(sizes, ridge=ridge).test / torch.tensor(measured)
    print(f"ridge {ridge:g}: predicted / measured", *(f"{ratio:.2f}" for ratio in ratios))
ax.set(xlabel="training samples", ylabel="mean squared error", title="Digits, NTK of a ReLU layer")
ax.legend(frameon=False, ncols=2, fontsize=8.5)

# %%
# One call does it for a kernel and data; the result draws itself.

curve = learning_curve(kernel, x[:600], y[:600], grid[grid < 200], ridge=torch.tensor([[0.1], [5]]))
curve.plot()

# %%
# Samples against width
# ---------------------
# Random features are the hidden neurons of a network whose last layer alone is trained. Without a
# ridge the error peaks where there are as many as samples, which is the double descent; with the
# best ridge it falls with either number, so that more of both is always better. Points train the
# last layer of networks with random ReLU neurons.

neurons = NNGP(network, b_std=0.0).requires_grad_(False)
random = KernelRisk.from_gram(neurons(x), y)
widths = torch.logspace(1, 3.3, 80)
n = 150


def train_last_layer(width, ridge, draws=10):
    weight = torch.randn(64, width, dtype=torch.float64, generator=source)
    features = 2**0.5 * (2**0.5 * x @ weight / 64**0.5).relu() / width**0.5
    return measure(features @ features.mT, n, ridge, draws)


figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
tried = [15, 40, 80, 120, 200, 400, 1200]
for i, ridge in enumerate((1e-4, 0.3)):
    predicted = random.predict(n, features=widths, ridge=ridge)
    left.loglog(widths, predicted.test, color=f"C{i}", label=f"ridge {ridge:g}")
    measured = [train_last_layer(k, ridge) for k in tried]
    left.loglog(tried, measured, "os"[i], ms=5, color=f"C{i}")
left.loglog(widths, random.predict(n, features=widths, ridge="optimal").test, "C2--", label="best")
left.axvline(n, color="0.6", lw=1, ls=":")
left.set(xlabel="width", ylabel="mean squared error", title=f"{n} samples; points are measured")
left.set_ylim(0.15, 20)
left.legend(frameon=False)

samples = torch.logspace(1.3, 2.7, 30)
for i, width in enumerate((30, 100, 300, math.inf)):
    best = random.predict(samples, features=width, ridge="optimal")
    name = "infinite width" if width == math.inf else f"width {width}"
    right.loglog(samples, best.test, color=f"C{i}", label=name)
right.set(xlabel="training samples", ylabel="mean squared error", title="The best ridge for each")
right.set_xticks([20, 50, 100, 200, 500], [20, 50, 100, 200, 500])
right.set_xticks([], minor=True)
right.legend(frameon=False)

# %%
# The whole path of ridges costs one sweep, as each effective ridge gives its ridge directly.

path = random.path(n, features=200)
path.plot()
print(f"best ridge: {random.predict(n, features=200, ridge='optimal').ridge:.2g}")

# %%
# Power laws
# ----------
# Where eigenvalues fall as i^(-a) and the target's power as i^(-b), the error falls as n^(1 - b)
# (for smooth targets at most as n^(-2a)), and where b >= a a perfect fit of the training data is
# best.

laws = fit_power_laws(risk)
assert isinstance(laws, PowerLaws) and isinstance(laws.spectrum, PowerLaw)
laws.plot()
assert fit_power_law(risk.eigenvalues).exponent == laws.spectrum.exponent
print(
    f"a = {laws.spectrum.exponent:.2f} ± {laws.spectrum.error:.2f}, "
    f"b = {laws.target.exponent:.2f} ± {laws.target.error:.2f}; "
    f"train / test at the best ridge: {laws.optimal_fitting_ratio:.3f}"
)

# %%
# What a convolution is good for
# ------------------------------
# A network on patches that do not overlap learns functions of one patch faster than functions of
# all: its eigenvalues fall by sectors, one for each level, each with the dimension of its patch.
# Teachers are Gaussian fields, here of a patch of two inputs or of four; the student's levels go up
# to four.

for sizes in ((2,), (2, 2)):
    for level, sector in enumerate(sector_exponents(sizes), 1):
        assert isinstance(sector, SectorExponents)
        print(f"filters {sizes}, level {level}: {sector}")
print(hierarchical_network((2, 2), 8, channels=16))
points = normalize_patches(torch.randn(900, 8, dtype=torch.float64, generator=source), 2)
student = hierarchical_kernel((2, 2), 8)
print(sample_gaussian_field(student, points[:3], num_fields=2, generator=0).shape)
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for teacher in ((2,), (2, 2)):
    found = teacher_student_curve(
        hierarchical_kernel(teacher, 8), student, points, [30, 60, 120, 240], draws=8, generator=0
    )
    assert isinstance(found, TeacherStudentCurve)
    found.plot(ax, label=f"teacher of {math.prod(teacher)} inputs")
    print(f"teacher {teacher}: for many samples n^-{predicted_rate(teacher, (2, 2)):g}")

# %%
# A linear student in time
# ------------------------
# The simplest wide model: N parameters, P samples, both many. Its error in time follows from the
# Marchenko-Pastur law. Trained to the end it is worst at P = N; stopped at the best time it is
# almost as good as with the best ridge.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ratio in (0.25, 0.5, 2.0):
    MarchenkoPastur(ratio).plot(left)
times = torch.logspace(-2, 3, 100)
errors = LinearDynamics(ratio=0.9, snr=4.0).errors(times)
assert isinstance(errors, LinearErrors)
errors.plot(right)

ratios = torch.logspace(-1, 1, 61).tolist()
students = [LinearDynamics(ratio, snr=4.0) for ratio in ratios]
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
ax.semilogx(ratios, [s.final_error for s in students], "-", label="trained to the end")
ax.semilogx(ratios, [s.optimal_stopping()[1] for s in students], "--", label="stopped in time")
best = [s.ridge_error(s.optimal_ridge) for s in students]
ax.semilogx(ratios, best, ":", lw=2.5, label="best ridge")
ax.set(xlabel="samples per parameter", ylabel="test error", title="Double descent", ylim=(0, 3))
ax.legend(frameon=False)
plt.show()
