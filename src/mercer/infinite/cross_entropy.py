"""Training of wide networks by cross-entropy: the equation in function space, integrated."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_real, check_tensor
from ..kernels import Kernel
from .kernel_matrices import Times, check_kernel, check_points, check_targets, check_times

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class CrossEntropyPath:
    """A wide classifier along training, made by `cross_entropy_dynamics`.

    Attributes
    ----------
    times : Tensor of shape (T,)
        Times, or numbers of steps.
    outputs : Tensor of shape (T, n, classes) or (T, n)
        Logits at the training points; without the last axis where there are two classes and one
        logit.
    test_outputs : Tensor of shape (T, m, classes) or (T, m), or None
        Logits at the test points.
    coefficients : Tensor of the shape of outputs
        What the kernel with the training points is multiplied with: at any point the outputs have
        moved by ``kernel(x, X) @ coefficients``.
    loss : Tensor of shape (T,)
        Mean cross-entropy at the training points.
    accuracy : Tensor of shape (T,)
        Share of the training points whose class is right.
    evaluations : int
        How often the right-hand side was computed.
    unit : {"time", "steps"}
        What times count.
    """

    times: Tensor
    outputs: Tensor
    test_outputs: Tensor | None
    coefficients: Tensor
    loss: Tensor
    accuracy: Tensor
    evaluations: int
    unit: str

    def probabilities(self) -> Tensor | None:
        """Return the classes' probabilities at the test points, or those of class 1."""
        if self.test_outputs is None:
            return None
        logits = self.test_outputs
        return logits.sigmoid() if logits.ndim == 2 else logits.softmax(-1)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw loss and error rate at the training points against time.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        ax.plot(self.times.cpu(), self.loss.cpu(), color="#0072B2", label="cross-entropy")
        wrong = 1 - self.accuracy.cpu()
        ax.plot(self.times.cpu(), wrong, "--", color="#D55E00", label="share of wrong classes")
        ax.set_ylim(bottom=0)
        ax.set_xlabel(self.unit)
        ax.set_ylabel("at the training points")
        ax.set_title("Training by cross-entropy")
        ax.legend()
        return ax


@torch.no_grad()
def cross_entropy_dynamics(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    times: Times,
    x_test: Tensor | None = None,
    *,
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    discrete: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    ridge: float = 0.0,
    initial: Tensor | None = None,
    initial_test: Tensor | None = None,
    tolerance: float = 1e-8,
) -> CrossEntropyPath:
    r"""Follow a wide classifier through training by cross-entropy.

    A wide network moves by its tangent kernel T whatever the loss. With the probabilities p of
    its outputs (softmax, or sigmoid for a single output), rate :math:`\eta` and M points,

    .. math::
        f_t = f_0 + T a_t, \qquad
        \dot a_t = -\frac{\eta}{M} \left(p(f_t(X)) - y + \alpha a_t\right), \qquad a_0 = 0,

    which SciPy integrates (an explicit Runge-Kutta method of order 8). The path depends on the
    initial outputs; zero ones are those of the mean network, others can be drawn from the NNGP
    kernel. There is no limit at infinite time without a ridge: the outputs grow for ever.

    Parameters
    ----------
    kernel : Kernel
        T, such as ``NTK(module)``.
    x : Tensor of shape (n, *event)
        Training points.
    y : Tensor of shape (n,) or (n, classes)
        Classes as whole numbers, for softmax over as many classes as occur (or as ``initial``
        has); or floating-point probabilities: (n, classes) for softmax, (n,) of class 1 for one
        output and the sigmoid.
    times : float or sequence of float
        T finite times, or whole numbers of steps.
    x_test : Tensor of shape (m, *event), optional
        Test points.
    learning_rate : float
        :math:`\eta`; the step where ``discrete``.
    momentum : float
        Of the heavy ball as in ``torch.optim.SGD``, from 0 to below 1; needs ``discrete=True``.
    discrete : bool
        Whether to take steps of gradient descent instead of following the flow.
    reduction : {"mean", "sum"}
        Whether M is n, as in ``torch.nn.functional.cross_entropy``, or 1.
    ridge : float
        :math:`\alpha`; adds :math:`\frac{\alpha}{2M} \|\theta - \theta_0\|^2` to the loss.
    initial : Tensor of shape (n, classes) or (n,), optional
        Outputs at the training points before training; zero by default.
    initial_test : Tensor of shape (m, classes) or (m,), optional
        Outputs at the test points before training; zero by default.
    tolerance : float
        Relative error of the integration.

    Returns
    -------
    CrossEntropyPath
        Logits, loss and accuracy at the times, with a plot.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, or a number is out of its range or not finite.
    RuntimeError
        If the integration fails.

    References
    ----------
    Lee, Xiao, Schoenholz, Bahri, Novak, Sohl-Dickstein, Pennington: Wide Neural Networks of Any
    Depth Evolve as Linear Models Under Gradient Descent, 2019, arXiv 1902.06720.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF
    >>> x = torch.tensor([[-1.0], [0.0], [1.0]]).double()
    >>> path = cross_entropy_dynamics(RBF(), x, torch.tensor([0, 1, 1]), [0.0, 10.0, 100.0])
    >>> path.loss
    tensor([0.6931, 0.2069, 0.0253], dtype=torch.float64)
    >>> path.outputs.shape
    torch.Size([3, 3, 2])
    """
    check_kernel("kernel", kernel)
    check_points("x", x, kernel)
    targets = _class_targets(y, len(x), initial).to(x.device)  # (n, classes)
    classes = targets.shape[1]
    single = y.is_floating_point() and y.ndim == 1
    check_choice("reduction", reduction, ("mean", "sum"))
    if not isinstance(discrete, bool):
        raise TypeError(f"discrete: expected True or False, got {discrete!r}")
    rate = check_real("learning_rate", learning_rate, above=0.0)
    rate /= len(x) if reduction == "mean" else 1
    momentum = check_real("momentum", momentum, least=0.0)
    if momentum >= 1 or (momentum and not discrete):
        raise ValueError(f"momentum: expected 0, or below 1 with discrete=True, got {momentum:g}")
    alpha = check_real("ridge", ridge, least=0.0)
    tolerance = check_real("tolerance", tolerance, above=0.0, most=0.1)
    asked, _ = check_times(times, whole=discrete, infinite=False)
    begin = _initial("initial", initial, len(x), classes).to(x.device)
    matrix = kernel(x.detach().double())  # (n, n)
    cross, there = None, None
    if x_test is not None:
        check_points("x_test", x_test, kernel)
        there = _initial("initial_test", initial_test, len(x_test), classes).to(x.device)
        cross = kernel(x_test.detach().double().to(x.device), x.detach().double())  # (m, n)
    elif initial_test is not None:
        raise ValueError("initial_test: expected x_test with it")

    def slope(a: Tensor) -> Tensor:
        outputs = begin + matrix @ a
        chances = outputs.sigmoid() if single else outputs.softmax(-1)
        return -rate * (chances - targets + alpha * a)  # (n, classes)

    if discrete:
        path, evaluations = _descend(slope, begin, asked, momentum)
    else:
        path, evaluations = _integrate(slope, begin, asked, tolerance)
    outputs = begin + matrix @ path  # (T, n, classes)
    test_outputs = None if cross is None else there + cross @ path
    if single:
        whole = targets.expand_as(outputs)
        losses = F.binary_cross_entropy_with_logits(outputs, whole, reduction="none").mean((1, 2))
        right = ((outputs > 0) == (targets > 0.5)).double().mean((1, 2))
    else:
        losses = -(targets * outputs.log_softmax(-1)).sum(-1).mean(-1)
        right = (outputs.argmax(-1) == targets.argmax(-1)).double().mean(-1)

    def finish(values: Tensor) -> Tensor:
        return (values.squeeze(-1) if single else values).to(x.dtype)

    return CrossEntropyPath(
        times=asked,
        outputs=finish(outputs),
        test_outputs=None if test_outputs is None else finish(test_outputs),
        coefficients=finish(path),
        loss=losses.to(x.dtype),
        accuracy=right.to(x.dtype),
        evaluations=evaluations,
        unit="steps" if discrete else "time",
    )


def _class_targets(y: Tensor, count: int, initial: Tensor | None) -> Tensor:
    """Turn classes or probabilities into probabilities (n, classes) in float64."""
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected a torch.Tensor, got {type(y).__name__}")
    if y.is_floating_point():
        targets = check_targets("y", y, count)
        sums = targets.sum(-1)
        broken = y.ndim == 2 and bool(((sums - 1).abs() > 1e-4).any())
        if float(targets.min()) < 0 or float(targets.max()) > 1 or broken:
            raise ValueError(
                f"y: expected probabilities, got values from {float(targets.min()):g} to "
                f"{float(targets.max()):g} with sums up to {float(sums.max()):g}"
            )
        return targets
    if y.dtype == torch.bool or y.is_complex() or y.shape != (count,):
        raise ValueError(
            f"y: expected whole numbers ({count},) or probabilities, got {y.dtype} {tuple(y.shape)}"
        )
    least, most = int(y.min()), int(y.max())
    classes = max(most + 1, 2)
    if initial is not None and isinstance(initial, Tensor) and initial.ndim == 2:
        classes = initial.shape[1]
    if least < 0 or most >= classes:
        raise ValueError(f"y: expected classes from 0 to {classes - 1}, got {least} to {most}")
    return F.one_hot(y.detach().long(), classes).double()


def _initial(name: str, value: Tensor | None, count: int, classes: int) -> Tensor:
    """Return outputs before training as (count, classes) in float64."""
    if value is None:
        return torch.zeros(count, classes, dtype=torch.float64)
    check_tensor(name, value)
    return check_targets(name, value, count, classes)


def _descend(slope, begin: Tensor, times: Tensor, momentum: float) -> tuple[Tensor, int]:
    """Take steps with a heavy ball, and keep the states asked for."""
    a, speed = torch.zeros_like(begin), torch.zeros_like(begin)
    last = int(times.max())
    kept: dict[int, Tensor] = {}
    wanted = {int(t) for t in times}
    for step in range(last + 1):
        if step in wanted:
            kept[step] = a
        if step < last:
            speed = momentum * speed + slope(a)
            a = a + speed
    return torch.stack([kept[int(t)] for t in times]), last


def _integrate(slope, begin: Tensor, times: Tensor, tolerance: float) -> tuple[Tensor, int]:
    """Integrate the flow, and keep the states asked for."""
    import numpy as np
    from scipy.integrate import solve_ivp

    def right_hand_side(_: float, state: np.ndarray) -> np.ndarray:
        a = torch.from_numpy(state).to(begin.device).reshape(begin.shape)
        return slope(a).reshape(-1).cpu().numpy()

    moments, places = times.unique(return_inverse=True)  # ascending
    end = float(moments[-1])
    start = np.zeros(begin.numel())
    if end == 0:
        return torch.zeros(len(times), *begin.shape, dtype=torch.float64, device=begin.device), 0
    solved = solve_ivp(
        right_hand_side,
        (0.0, end),
        start,
        method="DOP853",
        t_eval=moments.numpy(),
        rtol=tolerance,
        atol=1e-2 * tolerance,
    )
    if not solved.success:
        raise RuntimeError(f"cross_entropy_dynamics: the integration failed: {solved.message}")
    states = torch.from_numpy(solved.y.T.copy()).reshape(-1, *begin.shape)
    return states[places].to(begin.device), int(solved.nfev)
