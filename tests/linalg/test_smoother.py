import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import entropy

import mercer
from mercer._core.config import resident_memory
from mercer.linalg import smooth
from mercer.linalg import smoother as module


def _log_weights(m, n, scale=3.0, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(m, n, generator=g, dtype=torch.float64)).to(dtype)


def _values(n, *shape, seed=1):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed)).double()


def _check(found, logs, values, atol=1e-12):
    weights = torch.softmax(logs, 1)
    np.testing.assert_allclose(found.log_total, logsumexp(logs.numpy(), 1), atol=atol)
    np.testing.assert_allclose(found.means, weights @ values, atol=atol)
    np.testing.assert_allclose(found.neighbours, 1 / weights.square().sum(1), rtol=atol)
    np.testing.assert_allclose(found.entropy, entropy(weights.numpy(), axis=1), atol=10 * atol)
    np.testing.assert_allclose(found.largest, weights.amax(1), rtol=atol)


@pytest.mark.parametrize("tiles", [(512, 4096), (7, 11), (1, 1), (30, 40)])
def test_equals_softmax_whatever_the_tiles(tiles, monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", tiles[0])
    monkeypatch.setattr(module, "_TILE_COLUMNS", tiles[1])
    logs, values = _log_weights(30, 40), _values(40, 3)
    _check(smooth(logs, values), logs, values)
    by_slices = smooth(lambda i, j: logs[i, j], values, shape=(30, 40))
    _check(by_slices, logs, values)


def test_leave_one_out_and_weights(monkeypatch):
    monkeypatch.setattr(module, "_TILE_ROWS", 7)
    monkeypatch.setattr(module, "_TILE_COLUMNS", 5)
    logs, values = _log_weights(24, 24), _values(24)
    weights = torch.arange(24).double() % 5
    found = smooth(logs, values, weights=weights, leave_one_out=True)
    assert found.means.shape == (24,)
    for i in range(24):
        rest = torch.arange(24) != i
        w = weights[rest] * logs[i, rest].exp()
        assert float(found.means[i]) == pytest.approx(float(w @ values[rest] / w.sum()))
        assert float(found.log_total[i]) == pytest.approx(math.log(float(w.sum())))
        assert float(found.neighbours[i]) == pytest.approx(float(w.sum() ** 2 / w.square().sum()))


def test_integer_weights_are_repetitions():
    logs, values = _log_weights(5, 6), _values(6, 2)
    times = torch.tensor([3, 0, 1, 2, 1, 4])
    found = smooth(logs, values, weights=times.double(), diagnostics=False)
    repeated = smooth(
        logs.repeat_interleave(times, 1), values.repeat_interleave(times, 0), diagnostics=False
    )
    assert found.neighbours is None and found.entropy is None
    torch.testing.assert_close(found.means, repeated.means)
    torch.testing.assert_close(found.log_total, repeated.log_total)


def test_far_queries_keep_their_neighbours():
    # exp(-1e6) underflows; the ratio of the two weights does not.
    pairs = [[-1e6, -1e6 - math.log(3.0)], [1e6, 1e6 - math.log(3.0)]]
    logs = torch.tensor(pairs, dtype=torch.float64)
    found = smooth(logs, torch.tensor([0.0, 4.0]).double())
    torch.testing.assert_close(found.means, torch.ones(2).double(), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.neighbours, 1.6 * torch.ones(2).double(), rtol=1e-9, atol=0)
    expected = torch.tensor([-1e6, 1e6]).double() + math.log(4 / 3)
    torch.testing.assert_close(found.log_total, expected, rtol=1e-15, atol=1e-9)


def test_no_weight_at_all(monkeypatch):
    monkeypatch.setattr(module, "_TILE_COLUMNS", 2)
    logs = torch.full((2, 5), -torch.inf).double()
    logs[1, 4] = -700.0
    found = smooth(logs, torch.arange(5).double())
    assert found.log_total.tolist() == [-math.inf, -700.0]
    assert found.means.isnan().tolist() == [True, False] and float(found.means[1]) == 4.0
    assert found.neighbours.tolist() == [0.0, 1.0] and found.largest.tolist() == [0.0, 1.0]
    assert found.entropy.isnan().tolist() == [True, False] and float(found.entropy[1]) == 0.0


def test_limits_of_the_diagnostics():
    found = smooth(torch.zeros(1, 1000).double(), None)
    assert found.means is None
    assert float(found.neighbours) == pytest.approx(1000)
    assert float(found.entropy) == pytest.approx(math.log(1000))
    assert float(found.largest) == pytest.approx(1e-3)


def test_float32_is_kept_and_close(monkeypatch):
    monkeypatch.setattr(module, "_TILE_COLUMNS", 64)
    logs, values = _log_weights(20, 1000, dtype=torch.float32), _values(1000, 2)
    found = smooth(logs, values)
    assert found.means.dtype == found.log_total.dtype == found.entropy.dtype == torch.float32
    _check(found, logs.double(), values, atol=2e-5)


def test_stays_within_the_budget():
    n, most = 20_000, 0

    def log_weights(i, j):
        nonlocal most
        rows, columns = i.stop - i.start, j.stop - j.start
        most = max(most, rows * columns)
        return torch.zeros(rows, columns, dtype=torch.float64)

    with mercer.config.override(memory_budget=resident_memory() + 20 * 2**20):
        found = smooth(log_weights, torch.ones(n).double(), shape=(500, n))
    assert 8 * 5 * most <= 20 * 2**20
    assert float(found.means.min()) == 1.0
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**10),
        pytest.raises(MemoryError, match="fewer queries"),
    ):
        smooth(log_weights, torch.ones(n).double(), shape=(500, n))


@pytest.mark.parametrize(
    ("error", "match", "kwargs"),
    [
        (TypeError, "log_weights", {"log_weights": [[0.0]]}),
        (TypeError, "shape", {"log_weights": lambda i, j: torch.zeros(1, 1)}),
        (TypeError, "shape", {"log_weights": lambda i, j: None, "shape": 3}),
        (ValueError, "shape", {"log_weights": lambda i, j: None, "shape": (0, 3)}),
        (ValueError, "shape", {"shape": (3, 5)}),
        (
            ValueError,
            "log_weights",
            {"log_weights": lambda i, j: torch.ones(2, 2), "shape": (3, 4)},
        ),
        (TypeError, "log_weights", {"log_weights": torch.zeros(3, 4).long()}),
        (ValueError, "log_weights", {"log_weights": torch.full((3, 4), torch.nan)}),
        (ValueError, "log_weights", {"log_weights": torch.full((3, 4), torch.inf)}),
        (ValueError, "values", {"values": torch.zeros(3)}),
        (ValueError, "values", {"values": torch.full((4,), torch.nan)}),
        (TypeError, "values", {"values": [1.0]}),
        (ValueError, "weights", {"weights": torch.ones(3)}),
        (ValueError, "weights", {"weights": -torch.ones(4)}),
        (ValueError, "weights", {"weights": torch.full((4,), torch.inf)}),
        (ValueError, "leave_one_out", {"leave_one_out": True}),
        (TypeError, "leave_one_out", {"leave_one_out": 1}),
        (TypeError, "diagnostics", {"diagnostics": None}),
    ],
)
def test_errors(error, match, kwargs):
    with pytest.raises(error, match=match):
        smooth(**{"log_weights": torch.zeros(3, 4), **kwargs})
