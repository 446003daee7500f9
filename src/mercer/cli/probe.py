"""How well a linear classifier reads the labels off embeddings."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

_FOLDS = 3
_STRENGTHS = (0.003, 0.03, 0.3, 3.0)  # inverse, as scikit-learn has it


def probe(
    train_x: Tensor, train_y: Sequence[str], test_x: Tensor, test_y: Sequence[str]
) -> list[float]:
    """Fit a logistic regression and return, for each test row, 1.0 where it is right.

    The strength of its ridge is chosen by cross-validation on the training rows.

    Parameters
    ----------
    train_x, test_x : Tensor of shape (n, d)
        Embeddings.
    train_y, test_y : sequence of str
        Labels.

    References
    ----------
    Alain and Bengio (2016), Understanding intermediate layers using linear classifier probes,
    arXiv 1610.01644.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Standardised columns make one range of regularisation fit embeddings of any scale.
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=5000))
    rarest = min(Counter(train_y).values())
    if rarest >= _FOLDS:
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        classifier = GridSearchCV(classifier, {"logisticregression__C": _STRENGTHS}, cv=folds)
    classifier.fit(train_x.double().numpy(), list(train_y))
    found = classifier.predict(test_x.double().numpy())
    return [float(a == b) for a, b in zip(found, test_y, strict=True)]


def cosines(x: Tensor, y: Tensor) -> list[float]:
    """Return the cosine of each row of x with the same row of y, both of shape (n, d)."""
    return torch.nn.functional.cosine_similarity(x.double(), y.double(), dim=-1).tolist()


def paired_interval(
    values: Sequence[float], dense: Sequence[float], seed: int, draws: int = 2000
) -> tuple[float, float]:
    """Return the central 95 % bootstrap interval of mean(values - dense) over the rows.

    Parameters
    ----------
    values, dense : sequence of float
        One number a row, the same rows in both.
    seed : int
        Seed of the resampling.
    draws : int
        Number of resamples.

    References
    ----------
    Efron and Tibshirani (1993), An Introduction to the Bootstrap, section 13.3 (percentiles).
    """
    difference = torch.tensor(values, dtype=torch.float64) - torch.tensor(
        dense, dtype=torch.float64
    )
    generator = torch.Generator().manual_seed(seed)
    means = torch.stack(
        [
            difference[
                torch.randint(len(difference), (len(difference),), generator=generator)
            ].mean()
            for _ in range(draws)
        ]
    )
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
