"""Deep limits: exponents, kernels of any depth and Koenigs' function, against plain iteration."""

import copy
import math
import pickle

import matplotlib
import pytest
import torch

from mercer.infinite import deep_limit, optimal_activation
from mercer.infinite.gaussian_moments import gaussian_moments
from mercer.infinite.weight_table import WeightTable
from mercer.kernels import HermiteActivation, PolynomialActivation, SineActivation, dual

matplotlib.use("agg")
SHEET = "infinite-wide-deep-classification"
# The numbers a of the sheet stand in sinh(a z) / sinh(a), whose activation is sin(a^(1/2) x).
SINES = {1.0: 1.1856, 2.676: 2.0, 6.13539: 4.0, 13.8258: 8.0}


def normalised(activation, z):
    one = torch.ones((), dtype=torch.float64)
    return dual(activation)(one, one, z)[0] / dual(activation).diagonal(one)[0]


@pytest.mark.paper(SHEET, kind="exact", claim="The exponents of all built-in activations.")
def test_exponents(evidence):
    for d in (1, 2, 4, 8):
        found = deep_limit(optimal_activation(d))
        evidence(required=f"{d} to 1e-9", measured=found.exponent, what=f"optimal for d = {d}")
        assert found.kind == "singular" and abs(found.exponent - d) <= 1e-9
    for a, expected in SINES.items():
        found = deep_limit(SineActivation(a**0.5))
        evidence(required=f"{expected:g} to 1e-4", measured=found.exponent, what=f"sine, a = {a:g}")
        assert abs(found.exponent - expected) <= 1e-4
        assert found.slope_at_zero == pytest.approx(a / math.sinh(a), rel=1e-12)
        assert found.slope_at_one == pytest.approx(a / math.tanh(a), rel=1e-12)
    found = deep_limit("erf").exponent
    evidence(required="0.8882 to 5e-5", measured=found, what="erf")
    assert abs(found - 0.8882) <= 5e-5


@pytest.mark.paper(
    SHEET, kind="exact", claim="Optimal activations have the duals that they are made for."
)
@pytest.mark.parametrize("d", [1, 2, 3, 4, 8, 20])
def test_duals_of_optimal_activations(d, evidence):
    activation = optimal_activation(d)
    z = torch.linspace(-1, 1, 41, dtype=torch.float64)
    c = 2.0 ** (-d / 2)
    expected = {1: (z + z**7) / 2, 2: (z + z**3) / 2}.get(d, c * (z**3 + z) + (1 - 2 * c) * z**2)
    error = float((normalised(activation, z) - expected).abs().max())
    m = gaussian_moments(activation, 1.0)
    error = max(error, abs(float(m.first)), abs(float(m.second) - 1))
    evidence(required="<= 1e-10", measured=error)
    assert error <= 1e-10


@pytest.mark.paper(
    SHEET, kind="exact", claim="At depth 40 the kernel for d = 2 has the slope -1 in the gap."
)
def test_slope_of_a_deep_kernel(evidence):
    gap = torch.logspace(-6, -2, 200, dtype=torch.float64)
    _, log = deep_limit(optimal_activation(2)).log_kernel(gap, 40)
    x = gap.log()
    slope = float(((x - x.mean()) * log).sum() / (x - x.mean()).square().sum())
    evidence(required="-1.0006 to 5e-4", measured=slope)
    assert abs(slope + 1.0006) <= 5e-4


def test_taxonomy():
    for activation, kind in (
        ("relu", "majority"),
        ("gelu", "majority"),
        ("cos", "majority"),
        (HermiteActivation(2), "nearest"),
        (HermiteActivation(3), "nearest"),
        (PolynomialActivation((-1.0, -3.0, 1.0, 1.0)), "nearest"),  # h_2 and h_3
        ("tanh", "singular"),
        ("sign", "singular"),
    ):
        found = deep_limit(activation)
        assert found.kind == kind
        assert (found.exponent == 0) == (kind == "majority" or activation == "sign")
        assert math.isinf(found.exponent) == (kind == "nearest")
    assert deep_limit("relu").value_at_zero == pytest.approx(1 / math.pi, rel=1e-13)
    assert deep_limit("sign").slope_at_zero == pytest.approx(2 / math.pi, rel=1e-13)


ACTIVATIONS = {
    "optimal 1": optimal_activation(1),
    "optimal 2": optimal_activation(2),
    "optimal 5": optimal_activation(5),
    "tanh": "tanh",
    "hardtanh": "hardtanh",
    "sign": "sign",
    "relu": "relu",
    "silu": "silu",
    "square": HermiteActivation(2),
    "cube": HermiteActivation(3),
    "square and cube": PolynomialActivation((-1.0, -3.0, 1.0, 1.0)),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_kernels_are_those_of_plain_iteration(name):
    activation = ACTIVATIONS[name]
    found = deep_limit(activation)
    gap = torch.tensor([0.0, 1e-9, 1e-4, 0.03, 0.4, 0.9, 1.0, 1.1, 1.7, 1.999, 2.0]).double()
    for depth in (0, 1, 3, 6):
        z = 1 - gap
        for _ in range(depth):
            z = normalised(activation, z).clamp(-1, 1)
        sign, log = found.log_kernel(gap, depth)
        torch.testing.assert_close(sign * log.exp(), z, rtol=1e-7, atol=3e-8)
        assert float(log[0]) == 0.0  # identical points


@pytest.mark.parametrize("name", ["optimal 2", "optimal 5", "tanh", "sign"])
def test_weights_solve_koenigs_equation(name):
    found = deep_limit(ACTIVATIONS[name])
    gap = torch.tensor([1e-3, 0.1, 0.5, 0.8, 0.97, 1.2, 1.6]).double()
    after = 1 - normalised(ACTIVATIONS[name], 1 - gap)
    sign, log = found.log_weight(gap)
    next_sign, next_log = found.log_weight(after)
    assert torch.equal(sign, next_sign)
    expected = log + math.log(found.slope_at_zero)
    torch.testing.assert_close(next_log, expected, rtol=0, atol=1e-6)
    # and are the limit of deep kernels, and the inner product itself near zero
    far_sign, far = found.log_kernel(gap, 3000)
    assert torch.equal(sign, far_sign)
    torch.testing.assert_close(far - 3000 * math.log(found.slope_at_zero), log, rtol=0, atol=1e-7)
    _, near = found.log_weight(1 - torch.tensor([1e-5, -1e-5]).double())
    torch.testing.assert_close(near, torch.full((2,), math.log(1e-5)).double(), rtol=0, atol=1e-3)


def test_weights_of_close_points_keep_their_power():
    for d in (2, 3, 7):
        found = deep_limit(optimal_activation(d))
        gap = torch.tensor([1e-28, 1e-20, 1e-12, 1e-9]).double()
        _, log = found.log_weight(gap)
        slopes = log.diff() / gap.log().diff()
        torch.testing.assert_close(slopes, torch.full((3,), -d / 2).double(), rtol=2e-3, atol=0)
    assert torch.isinf(found.log_weight(torch.zeros(1))[1])
    # Too small and too large for float64, were they not logarithms.
    sign, log = deep_limit(optimal_activation(64)).log_weight(torch.tensor([1e-25, 0.999]).double())
    assert float(log[0]) > 1000 and bool(log.isfinite().all()) and bool((sign == 1).all())
    _, log = deep_limit("erf").log_kernel(torch.tensor([0.5]).double(), 10**5)
    assert -10_000 < float(log) < -8_000


@pytest.mark.parametrize("depth", [None, 30])
@pytest.mark.parametrize("name", ["optimal 1", "optimal 2", "optimal 5", "tanh", "hardtanh"])
def test_table(name, depth):
    found = deep_limit(ACTIVATIONS[name])
    spread = torch.linspace(0.01, 1.99, 499, dtype=torch.float64)
    gap = torch.cat([torch.logspace(-25, -2, 99, dtype=torch.float64), spread])
    sign, log = found.log_weight(gap) if depth is None else found.log_kernel(gap, depth)
    ours_sign, ours = WeightTable(found, depth)(gap)
    apart = found.log_weight(gap)[1] > math.log(0.1)  # not where weights pass through zero
    assert torch.equal(sign[apart], ours_sign[apart])
    assert float((log - ours)[apart].abs().max()) < 2e-4
    assert float((sign * log.exp() - ours_sign * ours.exp())[~apart].abs().max()) < 1e-4


def test_copies_and_figures():
    import matplotlib.pyplot as plt

    for activation in ("tanh", optimal_activation(3), "relu", HermiteActivation(2)):
        found = deep_limit(activation)
        gap = torch.tensor([0.3]).double()
        for twin in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
            assert twin.log_kernel(gap, 9)[1] == found.log_kernel(gap, 9)[1]
        _, ax = plt.subplots()
        assert found.plot(ax) is ax and ax.get_xlabel() and ax.get_ylabel()
        assert ax.get_title().endswith(found.kind)
    assert deep_limit("erf").plot().get_yscale() == "log"
    plt.close("all")


def test_bad_input():
    for call, error, text in (
        (lambda: deep_limit("rellu"), ValueError, "activation: unknown"),
        (lambda: deep_limit("identity"), ValueError, "activation: identity is linear"),
        (lambda: deep_limit(lambda z: 0 * z), ValueError, "activation: .* is zero everywhere"),
        (lambda: optimal_activation(0), ValueError, "dimension: "),
        (lambda: optimal_activation(2.0), TypeError, "dimension: "),
        (lambda: deep_limit("relu").log_weight(torch.ones(1)), ValueError, "activation: the deep"),
        (lambda: deep_limit("erf").log_weight(0.5), TypeError, "gap: "),
        (lambda: deep_limit("erf").log_kernel(torch.ones(1), -1), ValueError, "depth: "),
    ):
        with pytest.raises(error, match=text):
            call()
