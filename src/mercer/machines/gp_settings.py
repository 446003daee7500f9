"""What Gaussian processes and their kin make of their constructor's arguments."""

import math
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array
from torch import Tensor

from .._core.checks import check_choice, check_int, check_real
from .._core.config import config, resident_memory
from ..features.landmark_choice import LANDMARK_CHOICES, choose_landmarks
from ..kernels import Kernel, Scaled, White, resolve_kernel
from .gp_exact import ExactMethod
from .gp_inducing import InducingMethod
from .gp_iterative import IterativeMethod
from .gp_method import GaussianMethod
from .kernel_input import KernelInput

_START = 0.1  # of the targets' mean square, where the noise begins
_NOISE_RANGE = (1e-8, 1e2)  # of the same
_LEAST_NOISE = 1e-10  # where the kernel has its own
_MOST_ROWS = 10_000  # beyond which a factorisation for each step takes too long


def check_optimizer(optimizer: Any) -> None:
    """Raise unless it is a name that SciPy has, a callable, or None."""
    if optimizer is not None and not callable(optimizer):
        check_choice("optimizer", optimizer, ("fmin_l_bfgs_b",))


def normalise(targets: Tensor, wanted: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Bring targets (n, q) to mean 0 and deviation 1; return them, the means and deviations."""
    if not wanted:
        return targets, targets.new_zeros(targets.shape[1]), targets.new_ones(targets.shape[1])
    mean = targets.mean(0)
    scale = (targets - mean).square().mean(0).sqrt()
    # Of a constant column rounding would be left.
    known = scale > 10 * torch.finfo(scale.dtype).eps * targets.abs().amax(0)
    scale = torch.where(known, scale, 1.0)
    return (targets - mean) / scale, mean, scale


def fit_inputs(
    kernel: str | Kernel, x: Tensor, size: float, *, ard: bool, standardize: bool
) -> KernelInput:
    """Take training rows in float64, and a kernel of its own that fits targets of a mean square.

    Parameters
    ----------
    kernel : str or Kernel
        The kernel; by name it is given a variance.
    x : Tensor of shape (n, d)
        Training rows.
    size : float
        Mean square of the targets, the first variance.
    ard : bool
        Whether each column gets a lengthscale of its own.
    standardize : bool
        Whether columns are standardised.

    Returns
    -------
    KernelInput
        Points and kernel.
    """
    named = isinstance(kernel, str) and kernel != "precomputed"
    found = Scaled(resolve_kernel(kernel), size) if named else kernel
    inputs = KernelInput.fit(found, x.double(), standardize=standardize)
    if ard:
        for part in inputs.kernel.modules():
            raw = part._parameters.get("raw_lengthscale")
            if raw is not None and raw.ndim == 0:
                raw.data = raw.data.expand(inputs.size).clone()
    return inputs


def has_noise(kernel: Kernel) -> bool:
    """Whether a kernel has noise of its own."""
    return any(isinstance(part, White) for part in kernel.modules())


def check_noise(alpha: Any, inputs: KernelInput, size: float) -> Tensor:
    """Return the variance of the noise, or where a search for it starts; () or (n,), float64."""
    like = inputs.points
    if isinstance(alpha, str):
        check_choice("alpha", alpha, ("auto",))
        start = _LEAST_NOISE if has_noise(inputs.kernel) else _START * size
        return torch.tensor(start, dtype=torch.float64, device=like.device)
    if isinstance(alpha, Tensor):
        alpha = alpha.detach().cpu().numpy()
    if np.ndim(alpha) == 0:
        number = alpha.item() if isinstance(alpha, np.ndarray | np.generic) else alpha
        variance = check_real("alpha", number, least=0.0)
        return torch.tensor(variance, dtype=torch.float64, device=like.device)
    found: np.ndarray = check_array(alpha, ensure_2d=False, input_name="alpha").astype(float)
    if found.shape != (len(like),) or found.min() < 0:
        raise ValueError(
            f"alpha: expected 'auto', a number or {len(like)} numbers >= 0, one for each row, got "
            f"shape {found.shape}, smallest {found.min():.3g}"
        )
    return torch.from_numpy(np.array(found)).to(like.device)


def noise_bounds(noise: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """Logarithm of the noise, with bounds of it."""
    size = float(targets.square().mean()) or 1.0
    low, high = (math.log(size * share) for share in _NOISE_RANGE)
    return min(max(math.log(float(noise)), low), high), low, high


def choose_method(
    machine: Any, inputs: KernelInput, noise: Tensor, state: np.random.RandomState
) -> tuple[GaussianMethod, str, str]:
    """Choose how to compute; return the method, its name, and the reason."""
    n = len(inputs.points)
    name, reason = machine.method, "asked for"
    if name == "auto":
        needs = 8 * 3 * n * n
        fits = needs <= (config.memory_budget - resident_memory()) / 2
        if n <= _MOST_ROWS and (fits or inputs.precomputed):
            name, reason = "exact", f"{n} rows, at most {_MOST_ROWS}, whose matrices fit"
        else:
            why = f"more than {_MOST_ROWS}" if n > _MOST_ROWS else "whose matrices do not fit"
            # Landmarks cannot tell the noise of a White part from the function.
            name = "iterative" if has_noise(inputs.kernel) else "inducing"
            reason = f"{n} rows, {why}" + (" (White)" if name == "iterative" else "")
    if name == "exact":
        return ExactMethod(), name, reason
    if inputs.precomputed:
        raise ValueError(f"method: a precomputed kernel has the method 'exact' only, got {name!r}")
    if name == "inducing":
        if has_noise(inputs.kernel):
            raise ValueError(
                "kernel: the method 'inducing' takes no White part, whose noise landmarks cannot "
                "tell from the function; leave it out: alpha is the noise"
            )
        count = min(check_int("num_landmarks", machine.num_landmarks), n)
        check_choice("landmarks", machine.landmarks, LANDMARK_CHOICES)
        found = choose_landmarks(
            inputs.kernel,
            inputs.points,
            count,
            method=machine.landmarks,
            generator=int(state.randint(np.iinfo(np.int32).max)),
        )
        return InducingMethod(found), name, reason
    if noise.ndim or not (float(noise) > 0 or has_noise(inputs.kernel)):
        raise ValueError("alpha: the method 'iterative' takes one positive variance for all rows")
    probes = check_int("num_probes", machine.num_probes)
    return IterativeMethod(probes, int(state.randint(np.iinfo(np.int32).max))), name, reason
