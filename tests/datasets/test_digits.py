"""The digits against scikit-learn's own copy."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mercer.datasets import digits


def test_the_three_parts_are_the_whole_set_and_share_no_row():
    pixels, classes = load_digits(return_X_y=True)
    split = digits(dtype=torch.float64)
    parts = (split.train, split.calibration, split.test)
    assert [len(part) for part in parts] == [1100, 247, 450]
    x = torch.cat([part.x for part in parts])
    # Standardising is affine, so the pixels come back from their extremes, 0 and 16.
    back = (x - x.min()) / (x.max() - x.min()) * 16
    rows = {(*row, label) for row, label in zip(pixels.astype(int).tolist(), classes, strict=True)}
    got = torch.cat([part.y for part in parts])
    found = {(*row, int(y)) for row, y in zip(back.round().int().tolist(), got, strict=True)}
    assert len(rows) == 1797  # no image stands twice, so equal sets mean disjoint parts
    assert rows == {tuple(int(v) for v in row) for row in found}
    assert float((back - back.round()).abs().max()) < 1e-10


def test_the_training_part_is_standardised_and_classes_keep_their_proportions():
    split = digits(dtype=torch.float64)
    assert float(split.train.x.mean()) == pytest.approx(0, abs=1e-12)
    assert float(split.train.x.std(unbiased=False)) == pytest.approx(1, abs=1e-12)
    shares = [np.bincount(part.y, minlength=10) / len(part) for part in (split.train, split.test)]
    assert np.abs(shares[0] - shares[1]).max() < 0.005


def test_the_split_follows_its_seed(global_state_unchanged):
    assert torch.equal(digits().test.x, digits().test.x)
    assert not torch.equal(digits().test.x, digits(random_state=1).test.x)
    assert digits().train.x.dtype == torch.float32
    assert digits().train.y.dtype == torch.int64
