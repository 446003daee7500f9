"""Quantiles of the Gamma distribution, for the lengths of random frequencies."""

import numpy as np
import torch
from torch import Tensor


def inverse_gamma_cdf(uniforms: Tensor, shape: float) -> Tensor:
    """Return the quantiles of the Gamma distribution with scale 1.

    Parameters
    ----------
    uniforms : Tensor of shape (m,)
        Numbers in (0, 1).
    shape : float
        The distribution's shape.

    Returns
    -------
    Tensor of shape (m,)
        The quantiles, in float64.
    """
    from scipy.special import gammaincinv  # heavy, and only needed for draws

    u = uniforms.detach().double().cpu().numpy()
    return torch.as_tensor(gammaincinv(shape, np.asarray(u))).to(uniforms.device)
