"""The sparse Student-t classifier: its divergence by Monte Carlo, its bound, its uncertainty."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris, make_moons
from torch import distributions

from mercer.kernels import RBF
from mercer.machines import SparseStudentTClassifier
from mercer.machines.sparse_student_t import SparseStudentT
from tests.contracts.machine import MachineContract

SHEET = "infinite-scale-mixture-nngp"


class TestSparseStudentTClassifier(MachineContract):
    float32_tolerance = 5e-2  # k-means and the batches in float32 may end elsewhere

    def make(self, **params):
        settings = {"num_landmarks": 10, "max_iter": 40, "num_samples": 4, "random_state": 0}
        return SparseStudentTClassifier(**{**settings, **params})


def _model():
    source = torch.Generator().manual_seed(0)
    model = SparseStudentT(
        torch.randn(4, 2, generator=source, dtype=torch.float64), 3, alpha=2.5, beta=1.5
    )
    with torch.no_grad():
        model.means.normal_(0.0, 0.7, generator=source)
        model.log_spread.normal_(-0.5, 0.4, generator=source)
        model.log_shape.copy_(torch.tensor([4.0, 3.0], dtype=torch.float64).log())
    return model


@pytest.mark.paper(
    SHEET,
    kind="exact",
    claim="The divergence of the sparse posterior, variance included, is the Monte Carlo one.",
)
def test_divergence(evidence):
    model = _model()
    torch.manual_seed(0)
    count = 200_000
    q = distributions.InverseGamma(*model.log_shape.detach().exp())
    p = distributions.InverseGamma(*torch.tensor(model.prior, dtype=torch.float64))
    v = q.sample((count,))
    root = v.sqrt().reshape(-1, 1, 1)
    inner = distributions.Normal(
        model.means.detach(), root * (0.5 * model.log_spread.detach()).exp()
    )
    u = inner.sample()
    logs = q.log_prob(v) - p.log_prob(v)
    prior = distributions.Normal(torch.zeros_like(u), root.expand_as(u))
    logs = logs + (inner.log_prob(u) - prior.log_prob(u)).sum((-1, -2))
    error = float(logs.std()) / math.sqrt(count)
    gap = abs(float(logs.mean()) - float(model.divergence().detach())) / error
    evidence(required="<= 4", measured=gap, what="difference in standard errors")
    assert gap <= 4


def test_draws_have_the_moments_of_a_student_t():
    model, kernel = _model(), RBF(1.0).requires_grad_(False)
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model.requires_grad_(False)
    with torch.no_grad():
        mean, variance = model.moments(kernel, x)
        draws = model.draw(mean, variance, 200_000, torch.Generator().manual_seed(2))
    a, b = model.log_shape.detach().exp().tolist()
    spread = variance * b / (a - 1)
    assert float((draws.mean(0) - mean).abs().max()) < 5 * float(spread.max()) ** 0.5 / 200_000**0.5
    assert float((draws.var(0) / spread - 1).abs().max()) < 0.05
    # One variance for all: squares of different classes are correlated.
    z = ((draws - mean) / spread.sqrt())[:, 0].square()
    joint = float((z[:, 0] * z[:, 1]).mean())
    assert abs(joint / ((a - 1) / (a - 2)) - 1) < 0.1
    # With all landmarks seen and nothing learnt, the prior.
    blank = SparseStudentT(x, 2, 2.5, 1.5)
    blank.requires_grad_(False)
    mean, variance = blank.moments(kernel, x)
    assert float(mean.abs().max()) == 0.0
    torch.testing.assert_close(variance, torch.ones_like(variance), rtol=0, atol=1e-5)
    assert float(blank.divergence().detach()) == pytest.approx(0.0, abs=1e-12)


def test_the_bound_is_below_the_evidence():
    """Of two rows whose evidence is a small integral."""
    x, labels = torch.tensor([[0.0], [1.0]]).double(), torch.tensor([0, 1])
    kernel = RBF(1.0).requires_grad_(False)
    model = SparseStudentT(x, 2, 2.0, 2.0)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        logits = model.draw(torch.zeros(2, 2).double(), torch.ones(2, 2).double(), 1, source)
        assert logits.shape == (1, 2, 2)
        count = 400_000
        scale = 2.0 / torch._standard_gamma(torch.full((count,), 2.0).double(), source)
        z = torch.randn(count, 2, 2, generator=source).double()
        f = scale.sqrt().reshape(-1, 1, 1) * (torch.linalg.cholesky(kernel(x)) @ z)
        evidence = f.log_softmax(-1)[:, [0, 1], labels].sum(-1).exp().mean().log()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(200):
        optimizer.zero_grad()
        (-model.bound(kernel, x, labels, 2, 64, source)).backward()
        optimizer.step()
    with torch.no_grad():
        bound = model.bound(kernel, x, labels, 2, 20_000, source)
    assert evidence - 0.2 < bound < evidence + 0.01


@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="The sparse classifier separates two moons, and is uncertain far from the data.",
)
def test_moons(evidence):
    x, y = make_moons(600, noise=0.2, random_state=0)
    model = SparseStudentTClassifier(num_landmarks=40, max_iter=300, random_state=0)
    accuracy = model.fit(x[:400], y[:400]).score(x[400:], y[400:])
    evidence(required=">= 0.93", measured=accuracy, what="accuracy")
    assert accuracy >= 0.93
    angles = np.linspace(0, 2 * np.pi, 12)
    far = 20 * np.stack([np.cos(angles), np.sin(angles)], 1)
    largest = model.predict_proba(far).max()
    evidence(required="<= 0.55", measured=largest, what="largest probability far away")
    assert largest <= 0.55
    assert model.predict_proba(x[400:]).max(1).mean() > 0.8
    one = model.predict_proba(x[400:401])
    np.testing.assert_allclose(one, model.predict_proba(x[400:])[:1], rtol=1e-12)


def test_three_classes_and_fixed_hyperparameters():
    x, y = load_iris(return_X_y=True)
    model = SparseStudentTClassifier(
        RBF(2.0), 30, max_iter=200, random_state=0, fixed=("lengthscale",)
    ).fit(x, y)
    assert model.score(x, y) > 0.93 and model.kernel_.lengthscale == 2.0
    free = SparseStudentTClassifier(RBF(2.0), 30, max_iter=200, random_state=0).fit(x, y)
    assert free.kernel_.lengthscale != 2.0 and free.bound_ > model.bound_ - 5
    assert model.landmarks_.shape == (30, 4) and model.n_iter_ == 200


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"alpha": 0.0}, "alpha"),
        ({"beta": -1.0}, "beta"),
        ({"num_landmarks": 0}, "num_landmarks"),
        ({"landmarks": "best"}, "landmarks"),
        ({"max_iter": 0}, "max_iter"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"kernel": "precomputed"}, "kernel"),
        ({"fixed": ("period",)}, "fixed"),
    ],
)
def test_bad_arguments_are_named(params, text):
    with pytest.raises(ValueError, match=text):
        SparseStudentTClassifier(**params).fit(*make_moons(20, random_state=0))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="class"):
        SparseStudentTClassifier().fit(np.ones((5, 1)), np.zeros(5))
