"""The mean of an activation over a normal variable."""

import math
from functools import partial

from torch import Tensor

from .._core.activation import Activation
from ..kernels.activations import PowerActivation
from ..kernels.dual_closed_forms import closed_form
from ..kernels.dual_mesh import Profile, edges_of
from ..kernels.dual_variance import variance_mean


def gaussian_mean(activation: Activation, q: Tensor) -> Tensor:
    r"""Compute :math:`E[\phi(\sqrt{q} Z)]` for a standard normal Z.

    Parameters
    ----------
    activation : Activation
        The function.
    q : Tensor of shape (...)
        Variances.

    Returns
    -------
    Tensor of shape (...)
        Means.
    """
    form = closed_form(activation)
    if isinstance(form, PowerActivation):
        k = form.order
        # E[max(Z, 0)^k] = 2^(k/2 - 1) Gamma((k + 1) / 2) / sqrt(pi)
        half = 2 ** (k / 2 - 1) * math.gamma((k + 1) / 2) / math.sqrt(math.pi)
        return (form.positive + form.negative) * half * (q.clamp(min=0) ** (k / 2))
    profile = Profile(activation.function)
    return variance_mean(profile, partial(edges_of, (profile,)), q)
