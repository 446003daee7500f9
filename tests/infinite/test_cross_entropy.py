"""Training by cross-entropy against explicit gradient descent, expansions and laws."""

import pytest
import torch
from torch.nn import functional as F

from mercer.infinite import cross_entropy_dynamics
from mercer.kernels import RBF, Linear

SOURCE = torch.Generator().manual_seed(0)
X = torch.randn(10, 4, generator=SOURCE, dtype=torch.float64)
TEST = torch.randn(3, 4, generator=SOURCE, dtype=torch.float64)
CLASSES = torch.arange(10) % 3
WEIGHT = torch.randn(4, 3, generator=SOURCE, dtype=torch.float64)


def descend(weight, loss, rate, steps, momentum=0.0, ridge=0.0):
    """Train a model linear in its parameters by torch's own optimiser."""
    start, weight = weight, weight.clone().requires_grad_()
    optimizer = torch.optim.SGD([weight], lr=rate, momentum=momentum)
    for _ in range(steps):
        optimizer.zero_grad()
        penalty = ridge / (2 * len(X)) * (weight - start).square().sum()
        (loss(X @ weight) + penalty).backward()
        optimizer.step()
    return weight.detach()


def softmax_loss(outputs):
    return F.cross_entropy(outputs, CLASSES)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_steps_are_those_of_torch(momentum, ridge):
    path = cross_entropy_dynamics(
        Linear(),
        X,
        CLASSES,
        [0, 1, 5, 40, 5],
        TEST,
        discrete=True,
        learning_rate=0.5,
        momentum=momentum,
        ridge=ridge,
        initial=X @ WEIGHT,
        initial_test=TEST @ WEIGHT,
    )
    for i, steps in enumerate([0, 1, 5, 40, 5]):
        weight = descend(WEIGHT, softmax_loss, 0.5, steps, momentum, ridge)
        torch.testing.assert_close(path.outputs[i], X @ weight, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(path.test_outputs[i], TEST @ weight, rtol=1e-10, atol=1e-10)
        assert float(path.loss[i]) == pytest.approx(float(softmax_loss(X @ weight)), rel=1e-10)
        right = ((X @ weight).argmax(-1) == CLASSES).double().mean()
        assert float(path.accuracy[i]) == pytest.approx(float(right))


def test_flow_is_the_limit_of_small_steps():
    """Richardson's extrapolation of 2,000 and 4,000 steps to none, of second order."""
    time = 5.0
    coarse, fine = (TEST @ descend(WEIGHT, softmax_loss, time / n, n) for n in (2000, 4000))
    path = cross_entropy_dynamics(
        Linear(), X, CLASSES, time, TEST, initial=X @ WEIGHT, initial_test=TEST @ WEIGHT
    )
    torch.testing.assert_close(path.test_outputs[0], 2 * fine - coarse, rtol=0, atol=2e-6)
    assert float((fine - coarse).abs().max()) > 5e-5  # what is taken out


def test_one_output_is_the_sigmoid():
    labels = (CLASSES > 0).double()
    weight = WEIGHT[:, :1]
    loss = lambda outputs: F.binary_cross_entropy_with_logits(outputs[:, 0], labels)
    path = cross_entropy_dynamics(
        Linear(), X, labels, [3], TEST, discrete=True, initial=(X @ weight)[:, 0],
        initial_test=(TEST @ weight)[:, 0],
    )  # fmt: skip
    assert path.outputs.shape == (1, 10) and path.test_outputs.shape == (1, 3)
    moved = descend(weight, loss, 1.0, 3)
    torch.testing.assert_close(path.test_outputs[0], (TEST @ moved)[:, 0], rtol=1e-10, atol=1e-10)
    assert float(path.loss[0]) == pytest.approx(float(loss(X @ moved)), rel=1e-10)
    torch.testing.assert_close(path.probabilities(), path.test_outputs.sigmoid())


def test_two_classes_of_softmax_are_one_sigmoid_at_twice_the_rate():
    labels = CLASSES > 0
    two = cross_entropy_dynamics(RBF(), X, labels.long(), [0.5, 8.0], TEST)
    one = cross_entropy_dynamics(RBF(), X, labels.double(), [1.0, 16.0], TEST)
    gap = two.test_outputs[..., 1] - two.test_outputs[..., 0]
    torch.testing.assert_close(gap, one.test_outputs, rtol=1e-6, atol=1e-6)
    assert bool((two.probabilities().sum(-1) - 1).abs().max() < 1e-12)


def test_flow_with_a_ridge_ends_where_the_gradient_vanishes():
    path = cross_entropy_dynamics(RBF(), X, CLASSES, [2e4], ridge=0.1)
    gap = path.outputs[0].softmax(-1) - F.one_hot(CLASSES) + 0.1 * path.coefficients[0]
    assert float(gap.abs().max()) < 1e-7


def test_laws_along_the_flow():
    path = cross_entropy_dynamics(RBF(), X, CLASSES, [0.0, 1.0, 10.0, 1000.0], TEST)
    assert float(path.outputs[0].abs().max()) == 0.0
    assert float(path.loss[0]) == pytest.approx(torch.tensor(3.0).log().item())
    assert bool((path.loss.diff() < 0).all())
    assert float(path.accuracy[-1]) == 1.0
    # Softmax moves outputs against each other only.
    assert float(path.test_outputs.sum(-1).abs().max()) < 1e-8
    moved = RBF()(TEST, X) @ path.coefficients
    torch.testing.assert_close(path.test_outputs, moved.detach())
    slow = cross_entropy_dynamics(RBF(), X, CLASSES, [100.0], learning_rate=0.01, reduction="sum")
    torch.testing.assert_close(slow.outputs[0], path.outputs[2].mul(1.0), rtol=1e-6, atol=1e-6)
    low = cross_entropy_dynamics(RBF(), X.float(), CLASSES, 1.0)
    assert low.outputs.dtype == torch.float32 and low.test_outputs is None
    assert low.probabilities() is None
    torch.testing.assert_close(low.outputs[0].double(), path.outputs[1], rtol=1e-5, atol=1e-5)


def test_plot():
    import matplotlib as mpl

    mpl.use("agg")
    ax = cross_entropy_dynamics(RBF(), X, CLASSES, [0.0, 1.0, 2.0]).plot()
    assert ax.get_xlabel() == "time" and len(ax.lines) == 2
    mpl.pyplot.close("all")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"y": CLASSES[:4]}, ValueError, r"y: .*\(10,\).*\(4,\)"),
        ({"y": CLASSES - 1}, ValueError, "y: .*-1"),
        ({"y": [0, 1]}, TypeError, "y: .*list"),
        ({"y": torch.rand(10, 3)}, ValueError, "y: .*probabilities"),
        ({"y": CLASSES.double()}, ValueError, "y: .*probabilities.*2"),
        ({"y": CLASSES, "initial": torch.zeros(10, 2)}, ValueError, "y: .*0 to 1"),
        ({"initial": torch.zeros(9, 3)}, ValueError, r"initial: .*\(9, 3\)"),
        ({"initial_test": torch.zeros(3, 3)}, ValueError, "initial_test"),
        ({"times": float("inf")}, ValueError, "t: .*finite"),
        ({"times": 0.5, "discrete": True}, ValueError, "t: .*whole"),
        ({"momentum": 0.5}, ValueError, "momentum"),
        ({"learning_rate": -1.0}, ValueError, "learning_rate"),
        ({"tolerance": 0.0}, ValueError, "tolerance"),
        ({"reduction": "none"}, ValueError, "reduction"),
        ({"x_test": TEST[:, 0]}, ValueError, "x_test"),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        cross_entropy_dynamics(**{"kernel": RBF(), "x": X, "y": CLASSES, "times": 1.0, **changes})
