"""Training of infinitely wide networks by squared error, in closed form."""

from typing import Literal

import torch
from torch import Tensor

from .._core.checks import check_choice, check_real
from ..kernels import Kernel
from .eigenmodes import Eigenmodes
from .kernel_matrices import both, check_kernel, check_points, check_targets, prior_of
from .spectral_filter import Spectrum
from .trained_ensemble import Dynamics
from .training_rule import Descent, Flow, TrainingRule


@torch.no_grad()
def dynamics(
    kernel: Kernel,
    x: Tensor,
    y: Tensor,
    *,
    learning_rate: float = 1.0,
    momentum: float = 0.0,
    discrete: bool = False,
    reduction: Literal["mean", "sum"] = "mean",
    ridge: float = 0.0,
    ridge_unit: Literal["absolute", "diagonal"] = "absolute",
    target_noise: float | Literal["ridge"] = 0.0,
    prior: Kernel | None = None,
) -> Dynamics:
    r"""Follow an ensemble of infinitely wide networks through training by squared error.

    A wide network moves by its tangent kernel T, which training does not change. Under gradient
    flow with rate :math:`\eta` on the loss :math:`\frac{1}{2M} \sum (f - y)^2`,

    .. math::
        f_t(x) = f_0(x) + A_t (y - f_0(X)), \qquad
        A_t = T_{xX} (T + \alpha I)^{-1} \left(I - e^{-\eta (T + \alpha I) t / M}\right),

    and over random initial networks, whose outputs have the covariance S (the NNGP kernel),

    .. math::
        E f_t = A_t y, \qquad
        \mathrm{cov} f_t = S_{xx} + A_t (S_{XX} + \nu I) A_t^\top - A_t S_{Xx} - S_{xX} A_t^\top.

    One eigendecomposition of T, in float64, serves all times. Where T is singular (points that
    occur twice), training ends at the solution of least norm, not at an error.

    With ``discrete=True`` times count steps of full-batch gradient descent, with the momentum of
    ``torch.optim.SGD``, exactly, also for large steps. ``torch.nn.MSELoss`` lacks the factor of
    one half: its learning rate is half of the one here.

    Parameters
    ----------
    kernel : Kernel
        T: ``NTK(module)`` trains all layers; ``NNGP(module)`` only the last one, which ends at
        the posterior of the Gaussian process; any other kernel is taken as one of fixed features.
    x : Tensor of shape (n, *event)
        Training points.
    y : Tensor of shape (n,) or (n, outputs)
        Targets.
    learning_rate : float
        :math:`\eta`; the step where ``discrete``.
    momentum : float
        Of the heavy ball, from 0 to below 1; needs ``discrete=True``.
    discrete : bool
        Whether to take steps instead of following the flow.
    reduction : {"mean", "sum"}
        What M is: the number of targets ``y.numel()`` (points times outputs), or 1.
    ridge : float
        :math:`\alpha \geq 0`. Adds :math:`\frac{\alpha}{2M} \|\theta - \theta_0\|^2` to the loss,
        which pulls the parameters towards their initial values.
    ridge_unit : {"absolute", "diagonal"}
        Whether the ridge is the number itself or a share of the mean diagonal of T.
    target_noise : float or "ridge"
        :math:`\nu`: the variance of noise that each network has on its targets, drawn once.
        ``"ridge"`` takes the ridge for it; then an ensemble with the ``NNGP`` kernel ends at the
        posterior of the Gaussian process with that noise ("sample, then optimise").
    prior : Kernel, optional
        S. By default ``kernel.nngp`` where there is one, else the kernel itself.

    Returns
    -------
    Dynamics
        Means, covariances and errors at any time, `Dynamics.early_stopping`,
        `Dynamics.learning_times`, and plots of them.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If shapes do not fit, a number is out of its range or not finite, or the kernel matrix is
        not positive semi-definite.
    MemoryError
        If the eigenvectors do not fit the memory budget.

    References
    ----------
    Jacot, Gabriel, Hongler: Neural Tangent Kernel, 2018, arXiv 1806.07572.

    Lee, Xiao, Schoenholz, Bahri, Novak, Sohl-Dickstein, Pennington: Wide Neural Networks of Any
    Depth Evolve as Linear Models Under Gradient Descent, 2019, arXiv 1902.06720.

    Matthews, Hron, Turner, Ghahramani: Sample-then-optimize posterior sampling for Bayesian
    linear models, 2017.

    Examples
    --------
    >>> import torch
    >>> from mercer.kernels import RBF
    >>> x = torch.linspace(-1, 1, 5).double().unsqueeze(-1)
    >>> y = x.squeeze(-1).square()
    >>> flow = dynamics(RBF(0.5), x, y)
    >>> round(flow.mean(float("inf"), x[1:2]).item(), 6)  # the end of training interpolates
    0.25
    >>> flow.squared_error([0.0, 10.0, 20.0]).ensemble
    tensor([0.4250, 0.0187, 0.0064], dtype=torch.float64)
    >>> steps = dynamics(RBF(0.5), x, y, discrete=True, learning_rate=0.1, momentum=0.9)
    >>> round(steps.largest_learning_rate, 3)
    8.57
    """
    check_kernel("kernel", kernel)
    prior, together = prior_of(kernel, prior)
    check_points("x", x, kernel)
    targets = check_targets("y", y, len(x)).to(x.device)  # (n, outputs)
    check_choice("reduction", reduction, ("mean", "sum"))
    check_choice("ridge_unit", ridge_unit, ("absolute", "diagonal"))
    if not isinstance(discrete, bool):
        raise TypeError(f"discrete: expected True or False, got {discrete!r}")
    rate = check_real("learning_rate", learning_rate, above=0.0)
    momentum = check_real("momentum", momentum, least=0.0)
    if momentum >= 1:
        raise ValueError(f"momentum: expected a number below 1, got {momentum:g}")
    if momentum and not discrete:
        raise ValueError(f"momentum: {momentum:g} needs discrete=True; gradient flow has none")
    alpha = check_real("ridge", ridge, least=0.0)
    tangent, covariance = both(kernel, prior, together, x)  # (n, n) each
    spectrum = Spectrum.of("kernel", tangent)
    if ridge_unit == "diagonal":
        alpha *= float(tangent.diagonal().mean())
    if isinstance(target_noise, str):
        check_choice("target_noise", target_noise, ("ridge",))
        noise = alpha
    else:
        noise = check_real("target_noise", target_noise, least=0.0)
    size = float(targets.numel()) if reduction == "mean" else 1.0
    rule: TrainingRule = Descent(rate, size, momentum) if discrete else Flow(rate, size)
    return Dynamics(
        kernel=kernel,
        prior=prior,
        x=x,
        y=y,
        ridge=alpha,
        target_noise=noise,
        _together=together,
        _modes=Eigenmodes(
            rule=rule,
            spectrum=spectrum,
            targets=spectrum.rotate(targets),
            covariance=spectrum.vectors.mT @ covariance @ spectrum.vectors,
            ridge=alpha,
            noise=noise,
        ),
    )
