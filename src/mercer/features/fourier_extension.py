"""Fourier extension of an activation, with the cut-off that random features can afford."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_GRID = 1024  # midpoints on half of the domain: over 60 for a period of the highest harmonic
_SWEEPS = 60


@dataclass(frozen=True)
class FourierExtension:
    r"""An affine part and a few waves that stand for f on :math:`[-T, T]`.

    .. math:: f(z) \approx \mathrm{slope}\, z + \mathrm{intercept}
              + \sum_k \big( c_k \cos(\omega_k z) + s_k \sin(\omega_k z) \big)

    Attributes
    ----------
    slope, intercept : float
        The affine part.
    frequencies : Tensor of shape (K,)
        :math:`\omega_k > 0`, ascending, float64.
    coefficients : Tensor of shape (K, 2)
        :math:`c_k` and :math:`s_k`, float64.
    counts : Tensor of shape (K,)
        How many random draws each frequency receives; they add up to those available.
    error : float
        Largest distance from f on the domain.
    """

    slope: float
    intercept: float
    frequencies: Tensor
    coefficients: Tensor
    counts: Tensor
    error: float

    def __call__(self, z: Tensor) -> Tensor:
        """Evaluate the expansion at z, of any shape, in float64."""
        angles = z.unsqueeze(-1) * self.frequencies  # (..., K)
        waves = torch.cos(angles) @ self.coefficients[:, 0]
        return self.slope * z + self.intercept + waves + torch.sin(angles) @ self.coefficients[:, 1]


def fit_fourier_extension(
    function: Callable[[Tensor], Tensor],
    domain: float,
    num_draws: int,
    log_excess: Callable[[Tensor], Tensor],
    *,
    harmonics: int = 64,
) -> FourierExtension:
    r"""Expand a function on an interval so that truncation and variance together are least.

    With period :math:`4T`, twice the length of the domain, the waves extend f smoothly and
    freely beyond :math:`\pm T`. A draw for frequency k has the variance
    :math:`|a_k|^2 v_k / 2` on average over the phase, :math:`a_k = c_k - i s_k`; with
    :math:`n_k` of n draws for it, the best allocation is
    :math:`n_k \propto \sqrt{v_k} |a_k|`, and what is minimised is

    .. math:: \frac{1}{2T} \int_{-T}^{T} \Big( f(z) - \beta - \alpha z
              - \mathrm{Re} \sum_k a_k e^{i \omega_k z} \Big)^2 dz
              + \frac{1}{2n} \Big( \sum_k \sqrt{v_k}\, |a_k| \Big)^2,
              \quad \omega_k = \frac{2 \pi k}{4T}.

    The second term is a squared group lasso: it chooses the frequencies by itself. It is
    solved by re-weighted ridge regressions, a whole number of draws is then given to every
    frequency worth half a draw or more, and one last ridge regression fits the coefficients
    to that allocation. The affine part costs no features and is not penalised.

    Parameters
    ----------
    function : callable
        Elementwise function of a float64 tensor.
    domain : float
        :math:`T`.
    num_draws : int
        :math:`n`, the number of complex features.
    log_excess : callable
        From frequencies to :math:`\log v_k`, the variance of a complex feature of
        amplitude one.
    harmonics : int, optional
        The highest k considered.

    Returns
    -------
    FourierExtension
        The expansion with its allocation. A function that is affine on the domain gets one
        wave, of amplitude zero.

    Raises
    ------
    ValueError
        If the function is not finite on the domain.

    References
    ----------
    Huybrechs: On the Fourier extension of nonperiodic functions, 2010,
    doi 10.1137/090752456, for the extension; penalty and allocation are Mercer's own.

    Examples
    --------
    >>> import torch
    >>> cheap = lambda omega: omega.log()
    >>> extension = fit_fourier_extension(torch.relu, 6.0, 4096, cheap)
    >>> round(extension.slope, 12), extension.error < 0.1
    (0.5, True)
    """
    z = (torch.arange(_GRID, dtype=torch.float64, device="cpu") + 0.5) * (domain / _GRID)  # (N,)
    fine = torch.linspace(-domain, domain, 4 * _GRID + 1, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        right, left, on_fine = function(z), function(-z), function(fine)
    if not all(bool(torch.isfinite(values).all()) for values in (right, left, on_fine)):
        raise ValueError(
            f"activation: not finite everywhere on [-{domain:g}, {domain:g}]; choose a domain "
            "on which it is"
        )
    k = torch.arange(1, harmonics + 1, dtype=torch.float64, device="cpu")
    omega = math.pi / (2 * domain) * k  # (K,)
    log_v = log_excess(omega)
    # On a symmetric grid the even and the odd part are two separate problems, so that symmetric
    # functions get exactly symmetric expansions.
    even = _Part((right + left) / 2, torch.ones_like(z), torch.cos(z.unsqueeze(-1) * omega))
    odd = _Part((right - left) / 2, z, torch.sin(z.unsqueeze(-1) * omega))

    def solve(draws: Tensor) -> Tensor:
        """Ridge regression with the penalty v_k |a_k|^2 / (2 n_k); gives (K, 2)."""
        # Frequencies that fade away leave the system, which soon is tiny.
        draws = torch.where(draws < 1e-4, 0.0, draws)
        scale = torch.exp((torch.log(2 * draws) - log_v) / 2)  # penalty^-1/2, 0 without draws
        # A floor under the penalty: the waves of an extension are nearly dependent.
        scale = scale.clamp(max=1e6)
        return torch.stack((even.solve(scale), odd.solve(scale)), dim=-1)

    share = torch.full_like(omega, 1 / harmonics)
    for _ in range(_SWEEPS):
        weight = torch.exp(log_v / 2) * solve(num_draws * share).norm(dim=-1)  # sqrt(v_k) |a_k|
        total = weight.sum()
        if total <= 1e-12 * right.abs().max():  # affine on the domain, or no wave affordable
            share = torch.zeros_like(omega)
            break
        share, last = weight / total, share
        if (share - last).abs().max() < 1e-4:
            break
    counts = _whole_shares(share, num_draws)
    coefficients = solve(counts) if bool(share.any()) else torch.zeros_like(omega).outer(k[:2])
    kept = counts > 0
    extension = FourierExtension(
        slope=odd.affine(coefficients[:, 1]),
        intercept=even.affine(coefficients[:, 0]),
        frequencies=omega[kept],
        coefficients=coefficients[kept],
        counts=counts[kept].long(),
        error=0.0,
    )
    error = float((extension(fine) - on_fine).abs().max())
    return FourierExtension(**{**vars(extension), "error": error})


class _Part:
    """Least squares for the even or the odd part, the affine term projected out."""

    def __init__(self, target: Tensor, term: Tensor, waves: Tensor) -> None:
        self.target, self.term, self.waves = target, term, waves  # (N,), (N,), (N, K)
        self.term_square = term @ term
        centred = waves - torch.outer(term, term @ waves / self.term_square)
        residual = target - term * (term @ target / self.term_square)
        self.gram = centred.mT @ centred / len(term)  # (K, K)
        self.moment = centred.mT @ residual / len(term)  # (K,)

    def solve(self, scale: Tensor) -> Tensor:
        """Coefficients with the penalty |a_k / scale_k|^2, zero where the scale is zero."""
        result = torch.zeros_like(scale)
        kept = scale.nonzero().squeeze(-1)
        scale = scale[kept]
        system = torch.outer(scale, scale) * self.gram[kept][:, kept]
        system.diagonal().add_(1)
        # Not by Cholesky: torch's starts all threads to clear a triangle of a tiny matrix.
        result[kept] = scale * torch.linalg.solve(system, scale * self.moment[kept])
        return result

    def affine(self, coefficients: Tensor) -> float:
        """Coefficient of the affine term, given those of the waves."""
        return float(self.term @ (self.target - self.waves @ coefficients) / self.term_square)


def _whole_shares(share: Tensor, total: int) -> Tensor:
    """Split ``total`` draws by largest remainder; nothing for shares below half a draw."""
    quota = share * total
    # At most `total` frequencies can have a draw; the first one takes all if none is worth it.
    top = quota.argsort(descending=True, stable=True)[:total]
    kept = torch.zeros_like(quota, dtype=torch.bool)
    kept[top] = quota[top] >= 0.5
    if not bool(kept.any()):
        kept[top[0]], quota = True, torch.ones_like(quota)
    quota = torch.where(kept, quota, 0.0)
    quota = quota * (total / quota.sum())
    counts = torch.where(kept, quota.floor().clamp(min=1), 0.0)
    while counts.sum() > total:  # the ones for the smallest came on top
        counts[(counts - quota).masked_fill(counts <= 1, -torch.inf).argmax()] -= 1
    while counts.sum() < total:
        counts[(quota - counts).masked_fill(~kept, -torch.inf).argmax()] += 1
    return counts
