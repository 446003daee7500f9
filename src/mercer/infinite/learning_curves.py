"""Learning curves of a kernel on a data set, predicted without training."""

from typing import Literal

import torch
from torch import Tensor

from .._core.checks import check_tensor
from ..kernels.base import Kernel
from .learning_curve_inputs import Numbers
from .learning_curve_result import LearningCurve
from .learning_curve_risk import KernelRisk


@torch.no_grad()
def learning_curve(
    kernel: Kernel,
    x: Tensor,
    targets: Tensor,
    samples: Numbers,
    *,
    features: Numbers | None = None,
    ridge: Numbers | Literal["optimal"] = 0.0,
) -> LearningCurve:
    """Predict how well ridge regression on a kernel will generalise from fewer points than given.

    The kernel matrix of all points is decomposed once, in float64; see `KernelRisk` for the
    formula, and keep that object to ask several questions of one decomposition.

    Parameters
    ----------
    kernel : Kernel
        Any kernel; `NTK` and `NNGP` of a network are kernels.
    x : Tensor of shape (N, *event)
        Labelled points. At least three times as many as samples are asked for, better five times.
    targets : Tensor of shape (N,) or (N, outputs)
        Labels.
    samples : float, sequence or Tensor
        Numbers of training points, at most N.
    features : float, sequence or Tensor, optional
        Numbers of random features whose mean kernel this is (the width of a network whose last
        layer is trained); None is infinitely many.
    ridge : float, sequence, Tensor or "optimal", default 0
        What is added to the diagonal of the kernel matrix, or the best for each.

    Returns
    -------
    LearningCurve
        Test and train risk for each; shapes broadcast.

    Raises
    ------
    TypeError
        If the kernel is not one, or x or targets are not floating-point tensors.
    ValueError
        If shapes do not fit or a number is out of range.
    MemoryError
        If the eigenvectors do not fit the memory budget.

    References
    ----------
    Simon, Karkada, Ghosh, Belkin, "More is better in modern machine learning", ICLR 2024,
    arXiv 2311.14646.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import ArcCosine
    >>> source = torch.Generator().manual_seed(0)
    >>> x = torch.randn(300, 5, dtype=torch.float64, generator=source)
    >>> curve = learning_curve(ArcCosine(), x, x[:, 0] + 1, [20, 60], ridge=0.1)
    >>> curve.test.shape, bool(curve.test[1] < curve.test[0])
    (torch.Size([2]), True)
    """
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
    check_tensor("x", x)
    risk = KernelRisk.from_gram(kernel(x.double()), targets)
    return risk.predict(samples, features=features, ridge=ridge)
