import importlib
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import mercer
from mercer._core.random import draw_permutation, own_stream
from mercer.kernels import RBF, Laplacian, Linear, Matern
from mercer.machines import hsic, hsic_test, mmd
from mercer.machines.permutation_moments import CenteredMoments, permutation_moments
from mercer.machines.significance import gamma_test

K, L = RBF(1.1), Laplacian(0.9)
METHODS = ("permutation", "gamma")


def _sample(n, d=2, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _pair(n, strength=0.0, seed=0):
    x, noise = _sample(n, 2, 2 * seed), _sample(n, 1, 2 * seed + 1)
    return x, noise + strength * x[:, :1].square()


def _centred(k):
    h = torch.eye(len(k), dtype=torch.float64) - 1 / len(k)
    return h @ k.detach() @ h


def test_is_the_definition():
    x, y = _pair(30, 0.5)
    n = len(x)
    h = torch.eye(n, dtype=torch.float64) - 1 / n
    expected = float(torch.trace(K(x).detach() @ h @ L(y).detach() @ h)) / n**2
    assert float(hsic(x, y, K, L)) == pytest.approx(expected, rel=1e-12)
    found = hsic(x.numpy(), y.numpy(), K, L)
    assert isinstance(found, float) and found == pytest.approx(expected, rel=1e-12)
    matrices = hsic(K(x).detach(), L(y).detach(), "precomputed", "precomputed")
    assert float(matrices) == pytest.approx(expected, rel=1e-12)


def test_the_unbiased_one_is_the_mean_over_four_different_points():
    x, y = _pair(7, 0.5)
    k, m = K(x).detach(), L(y).detach()
    # With four indices without repetition each product of means is unbiased.
    total, count = 0.0, 0
    for i, j, q, r in itertools.permutations(range(7), 4):
        total += float(k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]))
        count += 1
    assert float(hsic(x, y, K, L, unbiased=True)) == pytest.approx(total / count, rel=1e-11)


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="HSIC is the squared norm of the cross-covariance, tr(KHLH)/n², here with features.",
)
def test_with_linear_kernels_it_is_the_cross_covariance(evidence):
    x, y = _sample(400, 3), _sample(400, 2, 1)
    y[:, 0] += x[:, 1]
    covariance = (x - x.mean(0)).mT @ (y - y.mean(0)) / 400
    error = abs(float(hsic(x, y, Linear(), Linear()) - covariance.square().sum()))
    evidence(required="<= 1e-8", measured=error)
    assert error <= 1e-12


def test_of_labels_it_is_the_mmd():
    x, y = _sample(20), _sample(12, seed=1)
    both, n, m = torch.cat([x, y]), 20, 12
    label = (torch.arange(n + m) < n).double()
    expected = float(mmd(x, y, K)) * (n * m / (n + m) ** 2) ** 2
    assert float(hsic(both, label, K, Linear())) == pytest.approx(expected, rel=1e-11)


def test_weights_are_repeated_rows():
    x, y = _pair(25, 0.5)
    w = torch.randint(0, 4, (25,), generator=torch.Generator().manual_seed(2))
    repeated = hsic(x.repeat_interleave(w, 0), y.repeat_interleave(w, 0), K, L)
    assert float(hsic(x, y, K, L, weights=w)) == pytest.approx(float(repeated), rel=1e-12)


@pytest.mark.parametrize("unbiased", [False, True])
def test_gradients(unbiased):
    x, y = (points.requires_grad_() for points in _pair(6, 0.5))
    assert torch.autograd.gradcheck(
        lambda a, b: hsic(a, b, RBF(1.1), Matern(0.9), unbiased=unbiased), (x, y)
    )


def test_blocks_are_the_whole(monkeypatch):
    x, y = _pair(90, 0.5)
    whole = [float(hsic(x, y, K, L, unbiased=u)) for u in (False, True)]
    tests = [hsic_test(x, y, K, L, method=m, permutations=9, generator=0) for m in METHODS]
    module = importlib.import_module("mercer.machines.hsic")
    monkeypatch.setattr(module, "block_rows", lambda nbytes, most: 13)
    cut = [float(hsic(x, y, K, L, unbiased=u)) for u in (False, True)]
    np.testing.assert_allclose(cut, whole, rtol=1e-12)
    for one, method in zip(tests, METHODS, strict=True):
        two = hsic_test(x, y, K, L, method=method, permutations=9, generator=0)
        torch.testing.assert_close(two.null, one.null, rtol=1e-11, atol=0)
        assert two.p_value == pytest.approx(one.p_value, rel=1e-10)


@pytest.mark.parametrize("n", [4, 5, 6, 7])
def test_moments_are_those_over_all_orders(n):
    a, b = (_centred(K(_sample(n, 2, seed))) for seed in (0, 1))
    moments = [
        CenteredMoments(
            m.trace().item(), m.square().sum().item(), m.diagonal().square().sum().item()
        )
        for m in (a, b)
    ]
    orders = itertools.permutations(range(n))
    values = torch.stack([(a * b[list(p)][:, list(p)]).sum() for p in orders])
    mean, variance = permutation_moments(n, *moments)
    assert mean == pytest.approx(float(values.mean()), rel=1e-12)
    assert variance == pytest.approx(float(values.var(unbiased=False)), rel=1e-10)


def test_the_null_sample_is_the_statistic_of_shuffled_pairs():
    x, y = _pair(20, 0.4)
    found = hsic_test(x, y, K, L, permutations=30, generator=5)
    source = own_stream(torch.Generator().manual_seed(5))
    expected = [float(hsic(x, y[draw_permutation(20, source)], K, L)) for _ in range(30)]
    np.testing.assert_allclose(found.null.numpy(), expected, rtol=1e-10)
    statistic = float(hsic(x, y, K, L))
    assert found.statistic == pytest.approx(statistic, rel=1e-12)
    assert found.p_value == (1 + sum(value >= statistic for value in expected)) / 31


@pytest.mark.parametrize("num_features", [None, 12])
def test_p_values_are_uniform_where_the_hypothesis_holds(num_features):
    runs = 250
    found = torch.tensor(
        [
            hsic_test(
                *_pair(12, seed=i), permutations=39, num_features=num_features, generator=i
            ).p_value
            for i in range(runs)
        ]
    )
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):  # multiples of 1/40, where validity is exact
        share = float((found <= level + 1e-12).float().mean())
        assert abs(share - level) <= 3.5 * (level * (1 - level) / runs) ** 0.5


def test_gamma_is_near_the_permutations():
    for seed, strength in ((0, 0.0), (1, 0.05), (2, 0.1)):
        x, y = _pair(200, strength, seed)
        exact = hsic_test(x, y, permutations=1999, generator=0)
        gamma = hsic_test(x, y, method="gamma")
        critical = exact.null.sort().values[1899]  # what one order in twenty exceeds
        tail = gamma_test("HSIC", float(critical), gamma.mean, gamma.std**2).p_value
        assert abs(tail - 0.05) <= 0.015
        assert abs(gamma.p_value - exact.p_value) <= 0.05
        assert gamma.mean == pytest.approx(exact.mean, rel=0.02)
        assert gamma.std == pytest.approx(exact.std, rel=0.1)


def test_power_where_nothing_is_correlated():
    x, y = _pair(200, 0.5)
    assert abs(float(torch.corrcoef(torch.cat([x[:, :1], y], 1).mT)[0, 1])) < 0.2
    for options in ({}, {"num_features": 100}):
        assert hsic_test(x, y, permutations=199, generator=0, **options).p_value == 0.005
    assert hsic_test(x, y, method="gamma").p_value < 1e-3
    assert hsic_test(x, y, method="gamma", num_features=100).p_value < 1e-3


def test_features_of_a_linear_kernel_are_the_test_itself():
    x, y = _pair(40, 0.5)
    y = y + 0.3 * x[:, :1]
    for method in METHODS:
        options = {"method": method, "permutations": 19, "generator": 3}
        by_features = hsic_test(x, y, "linear", "linear", num_features=8, **options)
        exact = hsic_test(x, y, "linear", "linear", **options)
        assert by_features.statistic == pytest.approx(exact.statistic, rel=1e-11)
        assert by_features.mean == pytest.approx(exact.mean, rel=0.5)
    assert by_features.p_value == pytest.approx(exact.p_value, rel=1e-9)
    assert by_features.std == pytest.approx(exact.std, rel=1e-10)


def test_constant_variables_never_reject():
    x = torch.zeros(10, 1)
    assert hsic_test(x, _sample(10), permutations=19, generator=0).p_value == 1.0
    assert hsic_test(x, _sample(10), method="gamma").p_value == 1.0


def test_plots():
    x, y = _pair(60, 0.3)
    for method in METHODS:
        found = hsic_test(x, y, method=method, permutations=99, generator=0)
        ax = found.plot()
        assert found.statistic in [line.get_xdata()[0] for line in ax.lines]
        assert ax.get_xlabel() == "HSIC"
        plt.close("all")


def test_what_does_not_fit_names_a_way_out():
    x = torch.zeros(3000, 1)
    budget = mercer._core.config.resident_memory() + 2**26
    with (
        mercer.config.override(memory_budget=budget),
        pytest.raises(MemoryError, match=r"kernel matrix of 3000 points.*num_features="),
    ):
        hsic_test(x, x, K, L)


X = _sample(8)


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "x: expected at least", {"x": X[:1], "y": X[:1]}),
        (ValueError, "y: expected 8 rows", {"y": X[:4]}),
        (ValueError, "x_kernel: expected a square kernel matrix", {"x_kernel": "precomputed"}),
        (
            ValueError,
            "expected a symmetric matrix",
            {"x": torch.rand(8, 8), "x_kernel": "precomputed"},
        ),
        (ValueError, "kernel: expected one of", {"y_kernel": "gauss"}),
        (
            ValueError,
            "weights: the unbiased criterion has none",
            {"weights": torch.ones(8), "unbiased": True},
        ),
        (ValueError, r"weights: expected shape \(8,\)", {"weights": torch.ones(7)}),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        hsic(**({"x": X, "y": X} | changes))


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "method: expected one of", {"method": "bootstrap"}),
        (ValueError, "permutations", {"permutations": 0}),
        (ValueError, "num_features", {"num_features": 0}),
        (ValueError, "x: expected at least 6", {"x": X[:5], "y": X[:5]}),
        (ValueError, "kernel of points", {"x_kernel": "precomputed", "num_features": 4}),
    ],
)
def test_the_test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        hsic_test(**({"x": X, "y": X} | changes))
