import itertools
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import mercer
from mercer.linalg import dominance_sums, dominance_sums_on_grid
from mercer.linalg.dominance_sums import compared_sums, divided_sums

SHEET = "machines-fast-ecdf-kde"


def _points(n, d, seed=0, values=None):
    g = torch.Generator().manual_seed(seed)
    if values is None:
        return torch.rand(n, d, generator=g, dtype=torch.float64)
    return torch.randint(0, values, (n, d), generator=g).double()


def brute(x, z, upper, weights=None):
    """Compare in NumPy, target by target."""
    x, z = x.numpy(), z.numpy()
    weights = np.ones(len(x), dtype=np.int64) if weights is None else weights.numpy()
    found = []
    for target in z:
        inside = [x[:, k] > target[k] if up else x[:, k] <= target[k] for k, up in enumerate(upper)]
        found.append(weights[np.all(inside, 0)].sum(0))
    return torch.as_tensor(np.array(found))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 300),
    m=st.integers(0, 100),
    d=st.integers(1, 4),
    values=st.sampled_from([1, 2, 5, 10**6]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_counts_are_those_of_all_pairs_with_any_ties(n, m, d, values, seed, data):
    upper = data.draw(st.lists(st.booleans(), min_size=d, max_size=d))
    x, z = _points(n, d, seed, values), _points(m, d, seed + 1, values)
    sign = torch.tensor([-1.0 if up else 1.0 for up in upper]).double()
    ones = torch.ones(1, n, dtype=torch.float64)
    for targets in (None, z):
        expected = brute(x, x if targets is None else targets, upper)
        found = dominance_sums(x, targets=targets, upper=upper)
        assert found.dtype == torch.int64 and torch.equal(found, expected)
        # Either way of computing, whichever was chosen.
        mirrored = None if targets is None else targets * sign
        divided = divided_sums(x * sign, ones, mirrored, upper)[0]
        compared = compared_sums(x * sign, ones, x * sign if mirrored is None else mirrored, upper)
        assert torch.equal(divided.long(), expected) and torch.equal(compared[0].long(), expected)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 5])
def test_weights_of_any_sign_to_rounding(d):
    x = _points(700, d, values=40)
    w = torch.randn(700, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = divided_sums(x, w.mT.contiguous(), None, [False] * d).mT
    expected = brute(x, x, [False] * d, w)
    assert float((found - expected).abs().max()) <= 1e-12
    assert torch.allclose(dominance_sums(x, w), expected, rtol=0, atol=1e-12)
    single = dominance_sums(x, w[:, 0].float())
    assert single.dtype == torch.float32 and single.shape == (700,)
    assert torch.allclose(single.double(), expected[:, 0], rtol=1e-6, atol=1e-5)


@pytest.mark.paper(
    SHEET, kind="exact", claim="Divide and conquer counts as brute force does (n = 20,000, d = 3)."
)
def test_divide_and_conquer_against_brute_force(evidence):
    x = _points(20_000, 3, seed=2)
    some = torch.arange(0, 20_000, 40)
    found = divided_sums(x, torch.ones(1, len(x), dtype=torch.float64), None, [False] * 3)[0]
    difference = int((found[some].long() - brute(x, x[some], [False] * 3)).abs().max())
    evidence(required="0", measured=difference)
    assert difference == 0


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="On a grid as well, with a node exactly on a value (n = 3,000, 12 x 12 x 12 nodes).",
)
def test_grid_against_brute_force(evidence):
    x = _points(3000, 3, seed=3)
    axes = [torch.linspace(0.02, 0.97, 12, dtype=torch.float64) for _ in range(3)]
    axes[0][5] = x[(x[:, 0] - axes[0][5]).abs().argmin(), 0]
    nodes = torch.cartesian_prod(*axes)
    worst = 0
    for upper in itertools.product((False, True), repeat=3):
        found = dominance_sums_on_grid(x, axes, upper=upper)
        worst = max(worst, int((found.flatten() - brute(x, nodes, upper)).abs().max()))
    evidence(required="0", measured=worst, what="largest difference over all eight orthants")
    assert worst == 0


@pytest.mark.paper(
    SHEET, kind="exact", claim="The distribution functions of all 2^d orthants add up to one."
)
@pytest.mark.parametrize("d", [1, 2, 3, 4])
def test_orthants_add_up(d, evidence):
    x = _points(500, d, values=6)
    axes = [torch.tensor([-1.0, 0.0, 2.5, 3.0, 9.0]).double()] * d
    at_points, on_grid = torch.zeros(500), torch.zeros([5] * d)
    for upper in itertools.product((False, True), repeat=d):
        at_points = at_points + dominance_sums(x, upper=upper)
        on_grid = on_grid + dominance_sums_on_grid(x, axes, upper=upper)
    error = max(float((at_points / 500 - 1).abs().max()), float((on_grid / 500 - 1).abs().max()))
    evidence(required="0", measured=error)
    assert error == 0


@pytest.mark.slow
@pytest.mark.paper(
    SHEET, kind="behaviour", claim="Twice as many points take 2.0 to 2.6 times as long, not 4."
)
@pytest.mark.parametrize("d", [2, 3])
def test_time_grows_nearly_linearly(d, evidence):
    def seconds(n):
        x = _points(n, d)
        taken = []
        for _ in range(5):
            start = time.perf_counter()
            dominance_sums(x)
            taken.append(time.perf_counter() - start)
        return min(taken)

    factor = (seconds(160_000) / seconds(20_000)) ** (1 / 3)
    evidence(required="<= 2.6 for each doubling", measured=factor, what=f"d = {d}")
    assert factor <= 2.6


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="A million points on a grid of 40 x 40 x 40 nodes take a second, 20,000 among them too.",
)
def test_times_of_the_sheet(evidence):
    x = _points(1_000_000, 3)
    axes = [torch.linspace(0, 1, 40, dtype=torch.float64)] * 3
    start = time.perf_counter()
    dominance_sums_on_grid(x, axes)
    on_grid = time.perf_counter() - start
    start = time.perf_counter()
    dominance_sums(x[:20_000])
    at_points = time.perf_counter() - start
    evidence(required="<= 1.4 s, NumPy's time", measured=on_grid, what="grid")
    evidence(required="<= 8.5 s, NumPy's time", measured=at_points, what="at the points")
    assert on_grid <= 1.4 and at_points <= 8.5


@pytest.mark.slow
def test_memory_is_linear():
    code = (
        "import resource, torch; from mercer.linalg import dominance_sums;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20;"
        "x = torch.rand(10**6, 3, dtype=torch.float64); x.sort(0); before = peak();"
        "dominance_sums(x); print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) <= 0.45  # GiB; all pairs would be 930


def test_grid_weights_and_shapes():
    x = _points(300, 2, values=9)
    w = torch.randn(300, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    axes = [torch.arange(-1.0, 10, 2).double(), torch.tensor([4.0]).double()]
    found = dominance_sums_on_grid(x, axes, w, upper=[True, False])
    assert found.shape == (6, 1, 2)
    expected = brute(x, torch.cartesian_prod(*axes), [True, False], w).view(6, 1, 2)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)
    assert dominance_sums_on_grid(x, axes, w[:, 0].float()).dtype == torch.float32


def test_what_repeats_or_is_signed_zero_counts_once_for_each_row():
    x = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0]])
    assert dominance_sums(x).tolist() == [3, 3, 3]
    assert dominance_sums(x, upper=True).tolist() == [0, 0, 0]


def test_little_memory_takes_columns_in_turn():
    x, w = _points(3000, 2), _points(3000, 40, seed=5)
    expected = dominance_sums(x, w)
    from mercer._core.config import resident_memory

    with mercer.config.override(memory_budget=resident_memory() + 2**21):
        assert torch.allclose(dominance_sums(x, w), expected, rtol=1e-14)
    with (
        mercer.config.override(memory_budget=2**20),
        pytest.raises(MemoryError, match="fewer targets"),
    ):
        dominance_sums(x, w)


X = torch.zeros(4, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"points": X[0]}, ValueError, "points"),
        ({"points": X[:0]}, ValueError, "points"),
        ({"points": X.long()}, TypeError, "points"),
        ({"points": X.numpy()}, TypeError, "points"),
        ({"points": X / 0}, ValueError, "points"),
        ({"weights": torch.ones(3)}, ValueError, "weights"),
        ({"weights": torch.ones(4, 1, 1)}, ValueError, "weights"),
        ({"weights": torch.full((4,), math.nan)}, ValueError, "weights"),
        ({"targets": X[:, :1]}, ValueError, "targets"),
        ({"targets": X.double()}, ValueError, "targets"),
        ({"targets": X / 0}, ValueError, "targets"),
        ({"upper": [True]}, ValueError, "upper"),
        ({"upper": 1}, TypeError, "upper"),
        ({"upper": [0, 1]}, TypeError, "upper"),
    ],
)
def test_bad_input(arguments, error, name):
    with pytest.raises(error, match=name):
        dominance_sums(**{"points": X, **arguments})


@pytest.mark.parametrize(
    ("axes", "error"),
    [
        (torch.zeros(2, 3), TypeError),
        ([torch.zeros(1)], ValueError),
        ([torch.zeros(1), torch.zeros(2)], ValueError),
        ([torch.zeros(1), torch.tensor([1.0, 0.0])], ValueError),
        ([torch.zeros(1), torch.zeros(0)], ValueError),
        ([torch.zeros(1), torch.tensor([math.inf])], ValueError),
        ([torch.zeros(1), [1.0]], TypeError),
    ],
)
def test_bad_axes(axes, error):
    with pytest.raises(error, match="axes"):
        dominance_sums_on_grid(X, axes)
