"""Ensembles of finite networks in training against the prediction for infinite width."""

from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHEET = "infinite-neural-tangent-kernel"


@pytest.fixture
def ensembles(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import ensemble_dynamics

    return ensemble_dynamics


def test_networks_are_trained_as_autograd_would(ensembles):
    points = ensembles.zeros_and_ones(6, 2)
    width, rate = 16, 0.05
    found = ensembles.train_networks(points, width, 2, rate, (0, 3), seed=0)
    source = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(2, *shape, generator=source)
    weights = draw(64, width), draw(width, width), draw(width, 1)
    parameters = [*weights, draw(1, width), draw(1, width), draw(1, 1)]
    parameters = [p.double().requires_grad_() for p in parameters]

    def outputs():
        a = points.x.double()
        for i, (w, b) in enumerate(zip(parameters[:3], parameters[3:], strict=True)):
            a = 2**0.5 / w.shape[1] ** 0.5 * a @ w + 0.1 * b
            a = a.relu() if i < 2 else a
        return a.squeeze(-1)  # (2, 8)

    optimizer = torch.optim.SGD(parameters, lr=rate)
    torch.testing.assert_close(found[0], outputs().detach(), rtol=1e-5, atol=1e-5)
    for _ in range(3):
        optimizer.zero_grad()
        (outputs()[:, :6] - points.y[:6]).square().mean(1).div(2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(found[1], outputs().detach(), rtol=1e-5, atol=1e-5)


def test_moments_and_their_errors(ensembles):
    """Of 2,000 ensembles of a skewed variable: unbiased, and as far off as they say."""
    source = torch.Generator().manual_seed(0)
    draws = torch.empty(1, 60, 2000).double().exponential_(generator=source)
    found = ensembles.moments(draws)
    assert float(found.mean.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(found.variance.mean()) == pytest.approx(1.0, abs=0.03)
    of_mean, of_variance = found._replace(kurtosis=torch.tensor(9.0)).errors(torch.tensor(1.0))
    assert float(of_mean) == pytest.approx(float(found.mean.std()), rel=0.05)
    assert float(of_variance) == pytest.approx(float(found.variance.std()), rel=0.1)
    # A sample of 60 hardly ever has the tail in it: its own kurtosis is too small.
    assert 6.0 < float(found.kurtosis) < 9.0
    many = ensembles.moments(torch.randn(1, 4000, 200, generator=source).double())
    assert float(many.kurtosis) == pytest.approx(3.0, abs=0.05)


def test_bias_of_order_one_over_width_is_taken_out(ensembles):
    prediction = torch.tensor([1.0, -2.0]).double()
    error = torch.tensor([0.1, 0.2]).double()
    c = torch.tensor([3.0, 5.0]).double()
    fits = {w: (prediction + c / w, error) for w in (256, 512)}
    value, uncertain = ensembles.corrected(prediction, fits, 1024)
    torch.testing.assert_close(value, prediction + c / 1024)
    # Each width alone tells c with an error of width * error.
    alone = torch.stack([1 / (w * error) ** 2 for w in fits]).sum(0).rsqrt()
    torch.testing.assert_close(uncertain, alone / 1024)


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="Mean and variance over trained networks follow the prediction for infinite width, "
    "within 4 standard errors after a bias of order 1 / width.",
)
def test_trained_networks_follow_the_prediction(ensembles, evidence):
    points = ensembles.zeros_and_ones(64, 32)
    rate = 0.1 * ensembles.predicted(points).largest_learning_rate
    found = {
        width: ensembles.moments(
            ensembles.train_networks(points, width, networks, rate, ensembles.TIMES, seed=width)
        )
        for width, networks in ((128, 400), (256, 200), (512, 60))
    }
    rows = ensembles.compare(ensembles.predicted(points, rate), points, found, ensembles.TIMES)
    within, numbers = (sum(row[key] for row in rows) for key in ("within", "numbers"))
    what = "means and variances of 60 networks of width 512 at three times, 96 points"
    evidence(required=f"{numbers} of {numbers}", measured=f"{within} of {numbers}", what=what)
    model = ensembles.predicted(points, rate)
    spread = model.covariance(list(ensembles.TIMES), points.x).diagonal(dim1=1, dim2=2)
    ratio = found[512].variance[:, 64:].mean(1) / spread[:, 64:].mean(1)  # (times,)
    worst = float((ratio - 1).abs().max())
    evidence(required="<= 0.2", measured=worst, what="test variance off, mean over points")
    assert within == numbers and worst <= 0.2


@pytest.mark.slow
@pytest.mark.paper(
    SHEET,
    kind="behaviour",
    claim="A network of width 2,048 tracks the function-space solution from its own start "
    "(root mean square below 0.05 at unit targets).",
)
def test_one_wide_network_tracks_its_path(ensembles, evidence):
    points = ensembles.zeros_and_ones(64, 32)
    rate = 0.1 * ensembles.predicted(points).largest_learning_rate
    model = ensembles.predicted(points, rate)
    seen = ensembles.train_networks(points, 2048, 1, rate, (0, *ensembles.TIMES), seed=0)[:, 0]
    path = model.outputs(list(ensembles.TIMES), seen[0, :64], points.x, seen[0])
    error = float((path - seen[1:]).square().mean(1).sqrt().max())
    evidence(required="< 0.05", measured=error, what="over training and test points, three times")
    assert error < 0.05
