"""The exact permutation learner: brute force, simulated counts and trained networks."""

import itertools
import math

import matplotlib
import pytest
import torch
from torch import nn

from mercer.infinite import NTK, dynamics, permutation_law

matplotlib.use("agg")
SHEET = "infinite-permutation-learning"


def word(bits, ones):
    x = torch.zeros(bits, dtype=torch.float64)
    x[:ones] = ones**-0.5
    return x


def kernels(x, y):
    """NNGP and NTK of W_2 relu(W_1 x / sqrt k) / sqrt n for rows of length one."""
    u = (x @ y.T).clamp(-1, 1)
    zero = (math.pi - u.acos()) / math.pi
    one = ((1 - u * u).sqrt() + u * (math.pi - u.acos())) / math.pi
    return one / (2 * x.shape[1]), (one + u * zero) / (2 * x.shape[1])


def brute_force(bits, ones, kernel):
    train, x = torch.eye(bits, dtype=torch.float64), word(bits, ones).unsqueeze(0)
    which = ("nngp", "ntk").index(kernel)
    theta = kernels(train, train)[which]
    a = torch.linalg.solve(theta, kernels(train, x)[which]).T  # (1, bits)
    cross = kernels(x, train)[0]
    spread = kernels(x, x)[0] + a @ kernels(train, train)[0] @ a.T - 2 * a @ cross.T
    return a[0], float(spread)


@pytest.mark.paper(
    SHEET, kind="exact", claim="Means and variance are those of brute force, for all m."
)
@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
@pytest.mark.parametrize("bits", [5, 10, 30, 100])
def test_law_is_brute_force(bits, kernel, evidence):
    worst = 0.0
    for ones in range(1, bits + 1):
        mean, variance = brute_force(bits, ones, kernel)
        law = permutation_law(bits, ones, kernel)
        worst = max(worst, float((mean[:ones] - law.mean_on).abs().max()))
        if ones < bits:
            worst = max(worst, float((mean[ones:] - law.mean_off).abs().max()))
        worst = max(worst, abs(variance - law.variance))
        if ones > 1:
            assert law.mean_off < 0 < law.mean_on
    evidence(required="<= 2e-14", measured=worst)
    assert worst <= 2e-14


@pytest.mark.paper(SHEET, kind="exact", claim="Sample values at k = 10 and 100.")
def test_sample_values(evidence):
    for bits, ones, on, off in ((10, 2, 0.56542, -0.00985), (100, 2, 0.57384, -0.00143)):
        law = permutation_law(bits, ones)
        error = max(abs(law.mean_on - on), abs(law.mean_off - off))
        evidence(required="<= 5e-6", measured=error, what=f"k = {bits}")
        assert error <= 5e-6
    law = permutation_law(10, 9)
    assert abs(law.mean_on - 0.1601) <= 5e-5 and abs(law.mean_off + 0.0702) <= 5e-5
    assert 30 * permutation_law(30, 2).variance == pytest.approx(0.0642, abs=5e-5)


@pytest.mark.paper(SHEET, kind="exact", claim="m = 1 is a training point: (1, 0), variance 0.")
def test_training_points(evidence):
    law = permutation_law(12, 1)
    found = (law.mean_on, law.mean_off, law.variance)
    evidence(required="(1, 0, 0)", measured=str(found))
    assert found == (1.0, 0.0, 0.0)
    assert law.required_models(1e-9) == 1 and float(law.success(1)) == 1.0


def test_kernels_of_a_module_give_the_law():
    bits = 9
    module = nn.Sequential(
        nn.Linear(bits, 4, bias=False), nn.ReLU(), nn.Linear(4, bits, bias=False)
    )
    eye = torch.eye(bits, dtype=torch.float64)
    for kernel in ("ntk", "nngp"):
        ntk = NTK(module, w_std=1.0, b_std=0.0)
        flow = dynamics(ntk if kernel == "ntk" else ntk.nngp, eye, eye)
        law, found = permutation_law(bits, 4, kernel), flow.predict(math.inf, word(bits, 4)[None])
        expected = torch.full((bits,), law.mean_off, dtype=torch.float64)
        expected[:4] = law.mean_on
        torch.testing.assert_close(found.mean[0], expected, rtol=1e-10, atol=1e-12)
        assert float(found.variance) == pytest.approx(law.variance, rel=1e-9)


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Models for 90 % exact words at m = 2 and k = 10, 20, 30: 333, 579, 840 with the NTK; "
    "58, 121, 190 with the NNGP kernel, and 156, 284, 419 for 99.9 %, near the authors' counts.",
)
def test_counts(evidence):
    expected = {
        ("ntk", 0.1): (333, 579, 840),
        ("nngp", 0.1): (58, 121, 190),
        ("nngp", 0.001): (156, 284, 419),
    }
    authors = {0.1: (69, 117, 175), 0.001: (129, 254, 318)}
    for (kernel, failure), counts in expected.items():
        found = [permutation_law(k, 2, kernel).required_models(failure) for k in (10, 20, 30)]
        evidence(required=str(counts), measured=str(tuple(found)), what=f"{kernel}, {failure:g}")
        assert tuple(found) == counts
        if kernel == "nngp":
            near = [a / b for a, b in zip(found, authors[failure], strict=True)]
            assert all(0.8 < ratio < 1.35 for ratio in near)
    # a + b k log k through the ends meets the middle
    x = [k * math.log(k) for k in (10, 20, 30)]
    low, middle, high = expected["ntk", 0.1]
    fitted = low + (high - low) * (x[1] - x[0]) / (x[2] - x[0])
    evidence(required="1 to 15%", measured=fitted / middle, what="fit of k log k, k = 20")
    assert abs(fitted / middle - 1) <= 0.15
    found = [permutation_law(k, 2).required_models(0.1) / (k * math.log(k)) for k in (100, 400)]
    assert max(found) / min(found) < 1.15


def test_success_is_that_of_simulated_ensembles():
    law = permutation_law(10, 2)
    generator = torch.Generator().manual_seed(0)
    mean = torch.full((10,), law.mean_off, dtype=torch.float64)
    mean[:2] = law.mean_on
    for models in (50, 333, 900):
        noise = torch.randn(20_000, 10, generator=generator, dtype=torch.float64)
        signs = mean + (law.variance / models) ** 0.5 * noise > 0
        measured = float((signs == (mean > 0)).all(-1).double().mean())
        assert measured == pytest.approx(float(law.success(models)), abs=0.011)
    # the least number for a failure, and a union bound over words beyond float64
    assert law.success(333) >= 0.9 > law.success(332)
    assert law.required_models(0.1, 2**10 - 1) == law.required_models(0.1 / (2**10 - 1))
    counts = [permutation_law(k, 2).required_models(0.1, 2**k - 1) for k in (100, 200, 400, 800)]
    ratios = [b / a for a, b in itertools.pairwise(counts)]
    assert all(3.5 < ratio < 4.5 for ratio in ratios)  # quadratic in k


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="The mean of 30 trained networks of width 4096 is within 3 standard errors at k = 8.",
)
def test_trained_networks(evidence):
    bits, width, networks = 8, 4096, 30
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(networks, width, bits, generator=generator)
    second = torch.randn(networks, bits, width, generator=generator)
    target = torch.eye(bits).roll(1, 0)  # a permutation
    for _ in range(400):  # with the gradient of the squared error written out
        hidden = (first / bits**0.5).relu()  # (networks, width, bits): single bits
        error = second @ hidden / width**0.5 - target
        back = second.mT @ error / width**0.5 * (first > 0) / bits**0.5
        second = second - error @ hidden.mT / width**0.5
        first = first - back
    assert float(error.abs().max()) < 1e-5
    worst = 0.0
    for ones in (2, 5):
        x = word(bits, ones).float()
        out = (second @ (first @ x / bits**0.5).relu().unsqueeze(-1))[..., 0] / width**0.5
        law = permutation_law(bits, ones)
        mean = torch.where(target @ x > 0, law.mean_on, law.mean_off)
        off = (out.mean(0) - mean).abs() / (law.variance / networks) ** 0.5
        worst = max(worst, float(off.max()))
        ratio = float(out.var(0).mean() / law.variance)
        evidence(required="1 to 0.3", measured=ratio, what=f"variance over the law's, m = {ones}")
        assert abs(ratio - 1) < 0.3
    evidence(required="<= 3", measured=worst, what="largest deviation in standard errors")
    assert worst <= 3


def test_figure_and_bad_input():
    import matplotlib.pyplot as plt

    for law in (permutation_law(6, 2), permutation_law(6, 1)):
        _, ax = plt.subplots()
        assert law.plot(ax) is ax and ax.get_xlabel() and ax.get_ylabel() and ax.get_title()
    plt.close("all")
    for call, error, text in (
        (lambda: permutation_law(1, 1), ValueError, "bits: "),
        (lambda: permutation_law(4, 0), ValueError, "ones: "),
        (lambda: permutation_law(4, 5), ValueError, "ones: expected at most 4"),
        (lambda: permutation_law(4, 2, "nnkg"), ValueError, "kernel: "),
        (lambda: permutation_law(4, 2).required_models(1.0), ValueError, "failure: "),
        (lambda: permutation_law(4, 2).required_models(0.0), ValueError, "failure: "),
        (lambda: permutation_law(4, 2).required_models(0.1, 0), ValueError, "inputs: "),
    ):
        with pytest.raises(error, match=text):
            call()
