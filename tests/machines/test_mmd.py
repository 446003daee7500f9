import importlib

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from mercer._core.random import draw_permutation, own_stream
from mercer.kernels import RBF, Laplacian, Linear
from mercer.machines import mmd, mmd_test


def _sample(n, d=3, seed=0, shift=0.0):
    source = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=source, dtype=torch.float64) + shift


def _loops(k, x, y, unbiased):
    """Evaluate the definition with loops over pairs."""

    def mean(a, b, skip):
        pairs = [
            k(p[None], q[None]).item()
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (skip and i == j)
        ]
        return sum(pairs) / len(pairs)

    return mean(x, x, unbiased) - 2 * mean(x, y, False) + mean(y, y, unbiased)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("kernel", [RBF(1.3), Laplacian(2.0)])
def test_is_the_definition(kernel, unbiased):
    x, y = _sample(12), _sample(9, seed=1, shift=0.3)
    expected = _loops(kernel, x, y, unbiased)
    assert float(mmd(x, y, kernel, unbiased=unbiased)) == pytest.approx(expected, abs=1e-13)
    found = mmd(x.numpy(), y.numpy(), kernel, unbiased=unbiased)
    assert isinstance(found, float) and found == pytest.approx(expected, abs=1e-13)


@pytest.mark.paper(
    "machines-introduction-to-ml",
    kind="exact",
    claim="MMD with a linear kernel is the squared distance of the means.",
)
def test_with_a_linear_kernel_it_is_the_distance_of_means(evidence):
    x, y = _sample(300), _sample(200, seed=1, shift=0.7)
    error = abs(float(mmd(x, y, Linear())) - float((x.mean(0) - y.mean(0)).square().sum()))
    evidence(required="<= 1e-8", measured=error)
    assert error <= 1e-12


def test_weights_are_repeated_rows():
    x, y = _sample(20), _sample(15, seed=1)
    w = torch.randint(0, 4, (20,), generator=torch.Generator().manual_seed(2))
    repeated = mmd(x.repeat_interleave(w, 0), y, RBF(1.0))
    assert float(mmd(x, y, RBF(1.0), x_weights=w)) == pytest.approx(float(repeated), abs=1e-14)
    one = mmd(x, y, RBF(1.0), x_weights=7.0 * w, y_weights=np.ones(15))  # only shares count
    assert float(one) == pytest.approx(float(repeated), abs=1e-14)


def test_the_unbiased_one_has_the_distance_of_distributions_as_its_mean():
    # N(0, 1) and N(1, 1), RBF of lengthscale s: means of k are Gaussian integrals.
    s2, shift = 0.8, 1.0

    def mean_of_k(gap):
        return (s2 / (s2 + 2)) ** 0.5 * np.exp(-(gap**2) / (2 * (s2 + 2)))

    expected = 2 * mean_of_k(0.0) - 2 * mean_of_k(shift)
    found = np.array(
        [
            float(
                mmd(
                    _sample(8, 1, 2 * i),
                    _sample(6, 1, 2 * i + 1, shift),
                    RBF(s2**0.5),
                    unbiased=True,
                )
            )
            for i in range(400)
        ]
    )
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - expected) <= 4 * error and error <= 0.02


def test_gradients_of_points_and_weights():
    x, y = _sample(6).requires_grad_(), _sample(5, seed=1).requires_grad_()
    w = torch.rand(6, generator=torch.Generator().manual_seed(3)).double().requires_grad_()
    for unbiased in (False, True):
        assert torch.autograd.gradcheck(
            lambda a, b, v, u=unbiased: mmd(a, b, RBF(1.1), unbiased=u, x_weights=v), (x, y, w)
        )


def test_the_kernel_by_name_has_the_median_of_all_points():
    x, y = _sample(30), _sample(20, seed=1)
    median = float(torch.pdist(torch.cat([x, y])).median())
    assert float(mmd(x, y)) == pytest.approx(float(mmd(x, y, RBF(median))), rel=1e-12)


# -- the test ----------------------------------------------------------------------------------


def _by_hand(k, x, y, seed, count):
    """Evaluate the statistic on permuted samples, one by one."""
    both, n = torch.cat([x, y]), len(x)
    source = own_stream(torch.Generator().manual_seed(seed))
    found = []
    for _ in range(count):
        order = draw_permutation(len(both), source)
        member = (torch.arange(len(both)) < n)[order]
        found.append(float(mmd(both[member], both[~member], k, unbiased=True)))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("tiny", [False, True])
def test_the_null_sample_is_the_statistic_of_permuted_samples(tiny, monkeypatch):
    x, y = _sample(14), _sample(10, seed=1, shift=0.4)
    if tiny:  # products in tiles, a few permutations at a time
        module = importlib.import_module("mercer.machines.mmd")
        monkeypatch.setattr(module, "dense_or_tiles", lambda gram: gram)
        monkeypatch.setattr(module, "block_rows", lambda nbytes, most: 7)
    found = mmd_test(x, y, RBF(1.2), permutations=40, generator=5)
    expected = _by_hand(RBF(1.2), x, y, 5, 40)
    torch.testing.assert_close(found.null, expected, rtol=0, atol=1e-13)
    statistic = float(mmd(x, y, RBF(1.2), unbiased=True))
    assert found.statistic == pytest.approx(statistic, abs=1e-13)
    assert found.p_value == (1 + int((expected >= statistic).sum())) / 41
    assert found.method == "permutation"


def _p_values(**options):
    found = []
    for i in range(300):
        x, y = _sample(12, 2, 2 * i), _sample(9, 2, 2 * i + 1)
        found.append(mmd_test(x, y, permutations=39, generator=i, **options).p_value)
    return torch.tensor(found)


@pytest.mark.parametrize("options", [{}, {"num_features": 16}], ids=["exact", "features"])
def test_p_values_are_uniform_where_the_hypothesis_holds(options):
    found = _p_values(**options)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):  # multiples of 1/40, where validity is exact
        share = float((found <= level + 1e-12).float().mean())
        assert abs(share - level) <= 3.5 * (level * (1 - level) / 300) ** 0.5


def test_equal_samples_and_few_points_never_reject():
    x = torch.zeros(5, 2)
    assert mmd_test(x, x, permutations=19, generator=0).p_value == 1.0
    assert mmd_test(_sample(40), _sample(40), permutations=19, generator=0).p_value > 0.05


def test_power_where_only_the_scale_differs():
    x, y = _sample(150, 2), 1.6 * _sample(150, 2, seed=1)
    assert mmd_test(x, y, permutations=199, generator=0).p_value == 0.005
    assert mmd_test(x, y, "linear", permutations=199, generator=0).p_value > 0.05
    many = mmd_test(x, y, permutations=199, num_features=200, generator=0)
    assert many.p_value == 0.005


def test_large_samples_by_features(global_state_unchanged):
    x, y = _sample(40_000, 2), _sample(30_000, 2, seed=1, shift=0.05)
    found = mmd_test(x, y, RBF(1.0), permutations=99, num_features=64, generator=0)
    assert found.p_value == 0.01


def test_plot():
    found = mmd_test(_sample(30), _sample(30, seed=1, shift=1.0), permutations=99, generator=0)
    ax = found.plot(level=0.05)
    lines = sorted(float(line.get_xdata()[0]) for line in ax.lines)
    assert lines[-1] == found.statistic
    assert lines[0] == pytest.approx(float(found.null.sort().values[94]))
    assert "p = 0.01" in " ".join(text.get_text() for text in ax.get_legend().get_texts())
    plt.close("all")


X = _sample(6)
HOLE = X.clone()
HOLE[0, 0] = torch.nan


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, r"x: expected shape \(n, d\)", {"x": X[None]}),
        (ValueError, "x: expected at least 2 points", {"x": X[:1]}),
        (ValueError, "x: 1 of 18 entries are NaN", {"x": HOLE}),
        (TypeError, "x: expected real numbers", {"x": X.cfloat()}),
        (TypeError, "x: expected real numbers, got dtype", {"x": ["a", "b"]}),
        (ValueError, "y: expected 3 columns", {"y": X[:, :2]}),
        (ValueError, "kernel: expected one of", {"kernel": "gauss"}),
        (ValueError, "kernel: expected a kernel of points", {"kernel": "precomputed"}),
        (TypeError, "kernel: expected a Kernel", {"kernel": 3}),
        (ValueError, r"x_weights: expected shape \(6,\)", {"x_weights": [1.0]}),
        (ValueError, "y_weights: expected numbers of at least 0", {"y_weights": -torch.ones(6)}),
        (
            ValueError,
            "two points of positive weight",
            {"x_weights": [1.0, 0, 0, 0, 0, 0], "unbiased": True},
        ),
    ],
)
def test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        mmd(**({"x": X, "y": X} | changes))


@pytest.mark.parametrize(
    ("error", "match", "changes"),
    [
        (ValueError, "permutations", {"permutations": 0}),
        (ValueError, "num_features", {"num_features": 0}),
        (TypeError, "generator", {"generator": "seed"}),
    ],
)
def test_the_test_refuses(error, match, changes):
    with pytest.raises(error, match=match):
        mmd_test(X, X, **changes)
