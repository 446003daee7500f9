"""Teachers drawn from a kernel, and students with another: measured and predicted side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._core.axes import axes_or_new
from .._core.checks import check_generator, check_int, check_real, check_tensor
from .._core.counter import RandomSource
from .._core.random import draw_normal, draw_permutation
from ..kernels.base import Kernel
from ..linalg.psd import psd_spectrum
from ..linalg.solve_psd import solve_psd
from .learning_curve_risk import KernelRisk

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class TeacherStudentCurve:
    """Errors of a student on targets drawn from a teacher, relative to their variance.

    Attributes
    ----------
    samples : Tensor of shape (sizes,)
        Numbers of training points.
    measured : Tensor of shape (sizes,)
        Mean of the relative test errors over the draws.
    error : Tensor of shape (sizes,)
        Its standard error.
    predicted : Tensor of shape (sizes,)
        The same by `KernelRisk.from_covariance`, without a draw.
    """

    samples: Tensor
    measured: Tensor
    error: Tensor
    predicted: Tensor

    def plot(self, ax: "Axes | None" = None, label: str = "student") -> "Axes":
        """Draw measured errors with their standard errors, and the prediction as a line.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        label : str, default "student"
            Who is measured.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        (line,) = ax.loglog(self.samples, self.predicted, "-", label=f"{label}, predicted")
        dots = {"color": line.get_color(), "ms": 5, "capsize": 2}
        measured = ax.errorbar(self.samples, self.measured, self.error, fmt="o", **dots)
        measured.set_label(f"{label}, measured")
        ax.set_xlabel("training samples")
        ax.set_ylabel("relative test error")
        ax.set_title("Teacher and student")
        ax.legend(frameon=False)
        return ax


def sample_gaussian_field(
    kernel: Kernel,
    x: Tensor,
    *,
    num_fields: int = 1,
    generator: RandomSource | int | None = None,
) -> Tensor:
    """Draw functions from the Gaussian process of a kernel, at given points.

    Parameters
    ----------
    kernel : Kernel
        Their covariance: the NNGP kernel of a network gives networks at birth.
    x : Tensor of shape (n, *event)
        Points.
    num_fields : int, default 1
        How many functions.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws.

    Returns
    -------
    Tensor of shape (n, num_fields)
        Values in the dtype of x, from float64; those of the kernel's modes above rounding.

    Raises
    ------
    TypeError
        If the kernel is not one, or x is not a floating-point tensor.
    ValueError
        If the kernel's matrix is not positive semi-definite, or there is no field to draw.
    MemoryError
        If its eigenvectors do not fit the memory budget.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF
    >>> sample_gaussian_field(RBF(), torch.randn(6, 2), num_fields=3, generator=0).shape
    torch.Size([6, 3])
    """
    _check_kernel("kernel", kernel)
    check_tensor("x", x)
    count = check_int("num_fields", num_fields)
    source = check_generator(generator)
    with torch.no_grad():
        return _draw(kernel(x.double()), count, source).to(x.dtype)


@torch.no_grad()
def teacher_student_curve(
    teacher: Kernel,
    student: Kernel,
    x: Tensor,
    samples: Sequence[int] | Tensor,
    *,
    ridge: float = 0.0,
    draws: int = 10,
    generator: RandomSource | int | None = None,
) -> TeacherStudentCurve:
    """Measure how a kernel learns functions drawn from another, and predict it.

    For each draw: a Gaussian field with the teacher's covariance at all points, a random choice of
    training points, kernel ridge regression with the student in float64, and the error on all other
    points, relative to the mean variance of the teacher's process.

    The prediction assumes that the eigenfunctions are as good as independent at the points. Where
    these have few dimensions, gaps between few of them vary and it is somewhat too low.

    Parameters
    ----------
    teacher, student : Kernel
        Such as two `hierarchical_kernel` of different depth.
    x : Tensor of shape (N, *event)
        Points to draw from.
    samples : sequence of int or Tensor of shape (sizes,)
        Numbers of training points, below N.
    ridge : float, default 0
        Added to the diagonal of the student's matrix.
    draws : int, default 10
        Of fields and training points, at least 2.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws.

    Returns
    -------
    TeacherStudentCurve
        Measured and predicted errors.

    Raises
    ------
    TypeError
        If a kernel is not one, or x is not a floating-point tensor.
    ValueError
        If a number is out of range.
    MemoryError
        If the eigenvectors do not fit the memory budget.

    References
    ----------
    Cagnetta, Favero, Wyart, "What can be learnt with wide convolutional neural networks?", ICML
    2023, arXiv 2208.01003.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF, Matern
    >>> x = torch.rand(200, 2, dtype=torch.float64)
    >>> curve = teacher_student_curve(Matern(0.5), RBF(0.5), x, [10, 40], ridge=1e-3)
    >>> curve.measured.shape, bool(curve.predicted[1] < curve.predicted[0])
    (torch.Size([2]), True)
    """
    _check_kernel("teacher", teacher)
    _check_kernel("student", student)
    points = check_tensor("x", x).double()
    total = len(points)
    sizes = [check_int("samples", int(n)) for n in samples]
    if not sizes or max(sizes) >= total:
        raise ValueError(f"samples: expected numbers below the {total} points, got {sizes}")
    ridge = check_real("ridge", ridge, least=0.0)
    draws = check_int("draws", draws, least=2)
    source = check_generator(generator)
    covariance, gram = teacher(points), student(points)
    fields = _draw(covariance, draws, source)  # (N, draws)
    found = torch.empty(len(sizes), draws, dtype=torch.float64)
    for j in range(draws):
        order = draw_permutation(total, source).to(points.device)
        for i, n in enumerate(sizes):
            a, b, y = order[:n], order[n:], fields[:, j]
            fit = gram[b][:, a] @ solve_psd(gram[a][:, a], y[a], ridge=ridge).solution
            found[i, j] = (fit - y[b]).square().mean()
    risk = KernelRisk.from_covariance(gram, covariance)
    # Of the process, not of each draw, whose mean square varies with its slowest modes.
    scale = float(risk.power.sum()) + risk.noise_variance
    found = found / scale
    return TeacherStudentCurve(
        torch.tensor(sizes, dtype=torch.float64),
        found.mean(1),
        found.std(1) / draws**0.5,
        risk.predict([float(n) for n in sizes], ridge=ridge).test / scale,
    )


def _check_kernel(name: str, value: Kernel) -> None:
    if not isinstance(value, Kernel):
        raise TypeError(f"{name}: expected a Kernel, got {type(value).__name__}")


def _draw(covariance: Tensor, count: int, source: RandomSource | None) -> Tensor:
    """Draw from N(0, covariance), (n, count)."""
    values, vectors = psd_spectrum(covariance, None, "draw at fewer points")
    z = draw_normal((len(values), count), source).to(vectors.device)
    return (vectors * values.sqrt()) @ z  # (n, count)
