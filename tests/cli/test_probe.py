"""The probe and the interval, against scikit-learn and SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from mercer.cli.probe import cosines, paired_interval, probe


def test_probe_is_a_logistic_regression_on_standardised_columns():
    x, y = load_iris(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = order[:100], order[100:]
    labels = [f"kind {i}" for i in y]
    mean, scale = x[train].mean(0), x[train].std(0)
    search = GridSearchCV(
        LogisticRegression(max_iter=5000),
        {"C": [0.003, 0.03, 0.3, 3.0]},
        cv=StratifiedKFold(3, shuffle=True, random_state=0),
    ).fit((x[train] - mean) / scale, y[train])
    expected = search.predict((x[test] - mean) / scale) == y[test]
    got = probe(
        torch.tensor(x[train] * 1000),  # the scale of the embeddings does not matter
        [labels[i] for i in train],
        torch.tensor(x[test] * 1000),
        [labels[i] for i in test],
    )
    assert got == expected.astype(float).tolist()
    assert 0.9 < sum(got) / len(got) <= 1


def test_rare_labels_need_no_folds():
    x = torch.eye(6)
    assert probe(x, list("aaabbc"), x, list("aaabbc")) == [1.0] * 6


def test_cosines_by_row():
    x = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    y = torch.tensor([[0.0, 2.0], [3.0, 3.0]])
    assert cosines(x, y) == pytest.approx([0, 1])


def test_interval_is_the_percentile_bootstrap_of_the_difference():
    rng = np.random.default_rng(0)
    dense = (rng.random(500) < 0.8).astype(float)
    other = np.where(rng.random(500) < 0.1, 1 - dense, dense)
    expected = bootstrap(
        (other - dense,), np.mean, n_resamples=9999, method="percentile", rng=rng
    ).confidence_interval
    got = paired_interval(other.tolist(), dense.tolist(), seed=0)
    assert got == pytest.approx(tuple(expected), abs=3e-3)  # the resampling's own error
    assert got == paired_interval(other.tolist(), dense.tolist(), seed=0)
    assert paired_interval(dense.tolist(), dense.tolist(), seed=0) == (0, 0)
