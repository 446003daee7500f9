from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.exceptions import NotFittedError

from mercer.machines import ECDF
from tests.contracts.machine import MachineContract


class TestECDF(MachineContract):
    methods = ("evaluate", "survival")
    float32_tolerance = 1e-6

    def make(self, **params):
        return ECDF(**params)


def _brute(x, z, w):
    return np.array([(w * (x <= row).all(1)).sum() for row in z]) / w.sum()


def test_one_column_is_scipys():
    x = np.random.default_rng(0).integers(0, 20, 200) / 4
    z = np.linspace(-1, 6, 57)
    expected = stats.ecdf(x)
    model = ECDF().fit(x[:, None])
    np.testing.assert_allclose(model.evaluate(z[:, None]), expected.cdf.evaluate(z), rtol=1e-15)
    np.testing.assert_allclose(model.survival(z[:, None]), expected.sf.evaluate(z), atol=1e-15)
    np.testing.assert_allclose(model.evaluate_grid([z]), expected.cdf.evaluate(z), rtol=1e-15)
    np.testing.assert_allclose(model.survival_grid([z]), expected.sf.evaluate(z), atol=1e-15)


def test_weights_are_repeated_rows():
    rng = np.random.default_rng(1)
    x, w = rng.normal(size=(80, 3)).round(1), rng.integers(0, 4, 80)
    z = rng.normal(size=(30, 3)).round(1)
    weighted, repeated = ECDF().fit(x, sample_weight=w), ECDF().fit(x.repeat(w, 0))
    assert weighted.total_ == repeated.total_ == w.sum()
    np.testing.assert_allclose(weighted.evaluate(z), repeated.evaluate(z), rtol=1e-15)
    np.testing.assert_allclose(weighted.evaluate(z), _brute(x, z, w), rtol=1e-15)
    assert weighted.evaluate().max() <= 1


def test_at_the_sample_and_in_any_orthant():
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    model = ECDF().fit(x)
    assert torch.equal(model.evaluate(), model.evaluate(x))
    parts = [model.evaluate(x, upper=[a, b]) for a in (False, True) for b in (False, True)]
    assert torch.allclose(torch.stack(parts).sum(0), torch.ones(50), rtol=1e-6)
    assert isinstance(ECDF().fit(x.numpy()).evaluate(), np.ndarray)


def test_queries_of_another_precision_are_compared_as_they_are():
    x = np.array([[0.1], [0.2]], dtype=np.float32)
    model = ECDF().fit(x)
    assert model.evaluate(np.array([[0.1], [0.2]])).tolist() == [0.0, 0.5]  # 0.1f > 0.1
    assert model.evaluate(x).tolist() == [0.5, 1.0]


def test_bad_input():
    model, one_array = ECDF(), cast(Any, np.zeros((2, 3)))
    with pytest.raises(NotFittedError):
        model.evaluate_grid([[0.0]])
    model.fit(np.zeros((3, 2)))
    with pytest.raises(TypeError, match="axes"):
        model.evaluate_grid(one_array)
    with pytest.raises(ValueError, match="axes"):
        model.evaluate_grid([[0.0]])
    with pytest.raises(ValueError, match=r"axes\[1\]"):
        model.evaluate_grid([[0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="upper"):
        model.evaluate(np.zeros((1, 2)), upper=[True])
    with pytest.raises(ValueError, match="sample_weight"):
        model.fit(np.zeros((3, 2)), sample_weight=[1.0, -1.0, 1.0])
