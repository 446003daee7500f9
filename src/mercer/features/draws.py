"""The random directions G of a feature map, and the product G x."""

import abc
import math
from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn
from torch.quasirandom import SobolEngine

from .._core.checks import (
    check_choice,
    check_generator,
    check_int,
    check_last_dim,
    check_materialized,
)

_CHUNK = 2**22  # numbers drawn at a time where only their sums of squares are kept


class Projection(nn.Module, abc.ABC):
    """Directions ``G`` of shape ``(num_rows, in_features)`` and the product ``G x``.

    Abstract. The rows behave like independent draws of N(0, I): exactly so for ``"gaussian"``,
    in each single row for ``"orthogonal"`` and ``"sobol"``, in mean and covariance for
    ``"hadamard"``, whose lengths are fixed (see `draw_lengths`).

    Parameters
    ----------
    num_rows : int
        Number of directions.
    in_features : int
        Length of an input vector.
    """

    kind: str

    def __init__(self, num_rows: int, in_features: int) -> None:
        super().__init__()
        self.num_rows = check_int("num_rows", num_rows)
        self.in_features = check_int("in_features", in_features)

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to products of shape (..., num_rows)."""

    @abc.abstractmethod
    def rows(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return ``G`` as a dense matrix of shape (num_rows, in_features)."""

    @abc.abstractmethod
    def reset_parameters(self, generator: torch.Generator | int | None = None) -> None:
        """Redraw the directions; on the meta device nothing is drawn."""

    @abc.abstractmethod
    def draw_lengths(self, generator: torch.Generator | int | None = None) -> Tensor:
        """Draw factors (num_rows,) by which rows of fixed length become Gaussian in length.

        Ones, without a draw, where the rows have Gaussian lengths already; float64, on the CPU.
        """

    @abc.abstractmethod
    def squared_lengths(self) -> Tensor:
        """Return the squared length of every row of ``G``, shape (num_rows,), in float64."""

    def extra_repr(self) -> str:
        """Return the shape and kind for ``repr``."""
        return f"{self.num_rows}, {self.in_features}, kind={self.kind!r}"


def _draw_gaussian(num_rows: int, in_features: int, generator: torch.Generator | None) -> Tensor:
    return _randn(num_rows, in_features, generator)


def _draw_orthogonal(num_rows: int, in_features: int, generator: torch.Generator | None) -> Tensor:
    """Blocks of orthogonal rows, each row Haar-distributed in direction, chi in length."""
    blocks = []
    for start in range(0, num_rows, in_features):
        count = min(in_features, num_rows - start)
        q, r = torch.linalg.qr(_randn(in_features, count, generator))
        # Signs that make R's diagonal positive turn LAPACK's Q into a Haar-distributed one.
        blocks.append((q * torch.where(r.diagonal() < 0, -1.0, 1.0)).mT)  # (count, d)
    return torch.cat(blocks) * _draw_chi(num_rows, in_features, generator).unsqueeze(-1)


def _draw_sobol(num_rows: int, in_features: int, generator: torch.Generator | None) -> Tensor:
    """Points of a scrambled Sobol sequence, taken through the normal quantile."""
    seed = torch.randint(2**62, (), generator=generator, device="cpu").item()
    engine = SobolEngine(in_features, scramble=True, seed=int(seed))
    points = engine.draw(num_rows, dtype=torch.float64)  # (m, d), multiples of 2^-30 in [0, 1)
    # The engine rounds its first point to the default dtype, up to 1.0 at worst.
    points[0] = engine.shift.double() / 2**SobolEngine.MAXBIT
    half_cell = 2.0 ** -(SobolEngine.MAXBIT + 1)
    return torch.special.ndtri(points + half_cell)  # away from 0 and 1, hence finite


_DENSE_DRAWS: dict[str, Callable[[int, int, torch.Generator | None], Tensor]] = {
    "gaussian": _draw_gaussian,
    "orthogonal": _draw_orthogonal,
    "sobol": _draw_sobol,
}
PROJECTION_KINDS = (*_DENSE_DRAWS, "hadamard")


def _randn(rows: int, columns: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64, device="cpu")


def _draw_chi(count: int, degrees: int, generator: torch.Generator | None) -> Tensor:
    """Draw the lengths of ``count`` standard Gaussian vectors with ``degrees`` entries."""
    step = max(1, _CHUNK // degrees)
    return torch.cat(
        [
            _randn(min(step, count - start), degrees, generator).norm(dim=-1)
            for start in range(0, count, step)
        ]
    )


@final
class DenseProjection(Projection):
    """Directions stored as a matrix: Gaussian, block-orthogonal or quasi-random.

    Parameters
    ----------
    kind : {"gaussian", "orthogonal", "sobol"}
        How the rows are drawn; see `make_projection`.
    num_rows, in_features : int
        Shape of the matrix.
    generator : torch.Generator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the matrix. It is drawn on the CPU in float64 and then cast.
    """

    matrix: Tensor

    def __init__(
        self,
        kind: str,
        num_rows: int,
        in_features: int,
        *,
        generator: torch.Generator | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_rows, in_features)
        self.kind = check_choice("kind", kind, _DENSE_DRAWS)
        if kind == "sobol" and in_features > SobolEngine.MAXDIM:
            raise ValueError(
                f"in_features: kind 'sobol' goes up to {SobolEngine.MAXDIM}, got {in_features}"
            )
        self.register_buffer(
            "matrix", torch.empty(num_rows, in_features, device=device, dtype=dtype)
        )
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | int | None = None) -> None:
        """Redraw the matrix; on the meta device nothing is drawn."""
        generator = check_generator(generator)
        if not self.matrix.is_meta:
            drawn = _DENSE_DRAWS[self.kind](self.num_rows, self.in_features, generator)
            self.matrix.copy_(drawn)

    def draw_lengths(self, generator: torch.Generator | int | None = None) -> Tensor:
        """Return ones: the rows have Gaussian lengths already."""
        return torch.ones(self.num_rows, dtype=torch.float64, device="cpu")

    def squared_lengths(self) -> Tensor:
        """Return the squared length of every row, shape (num_rows,), in float64."""
        return self.matrix.double().square().sum(-1)

    def rows(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrix, shape (num_rows, in_features)."""
        return self.matrix.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to products of shape (..., num_rows)."""
        check_last_dim("x", x, self.in_features)
        check_materialized("DenseProjection", self.matrix, x)
        return x @ self.matrix.to(x.dtype).mT  # (..., m)


def hadamard_transform(x: Tensor) -> Tensor:
    r"""Multiply by the Hadamard matrix, in Sylvester's order, without normalisation.

    .. math:: y_i = \sum_j (-1)^{\mathrm{popcount}(i \wedge j)} x_j

    Parameters
    ----------
    x : Tensor of shape (..., d)
        Vectors; ``d`` a power of two. The cost is d log2(d) additions each.

    Returns
    -------
    Tensor of shape (..., d)
        The transforms.

    Raises
    ------
    ValueError
        If ``d`` is not a power of two.

    Examples
    --------
    >>> import torch
    >>> hadamard_transform(torch.tensor([1.0, 0.0, 2.0, 0.0]))
    tensor([ 3.,  3., -1., -1.])
    """
    size = x.shape[-1] if x.ndim else 0
    if size < 1 or size & (size - 1):
        raise ValueError(f"x: the last axis must be a power of two, got shape {tuple(x.shape)}")
    half = size // 2
    while half:
        pairs = x.unflatten(-1, (-1, 2, half))  # (..., size / (2 half), 2, half)
        low, high = pairs.unbind(-2)
        x = torch.stack((low + high, low - high), dim=-2).flatten(-3)  # (..., size)
        half //= 2
    return x


@final
class HadamardProjection(Projection):
    r"""Structured orthogonal directions (SORF): only signs are stored, and O(m log d) work.

    Each block of D rows (D the next power of two above ``in_features``) is

    .. math:: \sqrt{D}\, H D_3 H D_2 H D_1, \quad H = \text{Hadamard} / \sqrt{D},

    with random signs on the diagonals of :math:`D_1, D_2, D_3`; inputs are padded with zeros.
    Without padding every row has length :math:`\sqrt{d}` exactly.

    Parameters
    ----------
    num_rows, in_features : int
        Shape of the matrix that is never built.
    generator : torch.Generator, int or None, optional
        Source of the signs; None means torch's default generator.
    device : optional
        Of the signs, which are int8 whatever the dtype of the inputs.

    References
    ----------
    Yu, Suresh, Choromanski, Holtmann-Rice, Kumar: Orthogonal Random Features, 2016,
    arXiv 1610.09072.
    """

    kind = "hadamard"
    signs: Tensor

    def __init__(
        self,
        num_rows: int,
        in_features: int,
        *,
        generator: torch.Generator | int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(num_rows, in_features)
        self.block = 1 << (in_features - 1).bit_length()
        blocks = math.ceil(num_rows / self.block)
        signs = torch.empty(3, blocks, self.block, device=device, dtype=torch.int8)
        self.register_buffer("signs", signs)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | int | None = None) -> None:
        """Redraw the signs; on the meta device nothing is drawn."""
        generator = check_generator(generator)
        if not self.signs.is_meta:
            bits = torch.randint(2, self.signs.shape, generator=generator, device="cpu")
            self.signs.copy_(2 * bits - 1)

    def draw_lengths(self, generator: torch.Generator | int | None = None) -> Tensor:
        r"""Draw chi-distributed factors (num_rows,) that make the rows Gaussian in length.

        A row in the padded space has length :math:`\sqrt{D}`; the factor is
        :math:`\chi_D / \sqrt{D}`.
        """
        chi = _draw_chi(self.num_rows, self.block, check_generator(generator))
        return chi / math.sqrt(self.block)

    def squared_lengths(self) -> Tensor:
        """Return the squared length of every row, shape (num_rows,), in float64."""
        if self.in_features == self.block:
            return torch.full(
                (self.num_rows,), float(self.block), dtype=torch.float64, device=self.signs.device
            )
        total = torch.zeros(self.num_rows, dtype=torch.float64, device=self.signs.device)
        step = max(1, _CHUNK // self.num_rows)
        for start in range(0, self.in_features, step):  # a slab of columns at a time
            total += self(self._basis(start, step)).square().sum(0)
        return total

    def rows(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrix that is never stored, shape (num_rows, in_features)."""
        return self(self._basis(0, self.in_features).to(dtype)).mT

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to products of shape (..., num_rows)."""
        check_last_dim("x", x, self.in_features)
        check_materialized("HadamardProjection", self.signs, x)
        first, second, third = (self.signs.to(x.dtype) * self.block**-0.5).unbind(0)  # (B, D)
        if self.in_features < self.block:
            x = nn.functional.pad(x, (0, self.block - self.in_features))
        x = x.unsqueeze(-2)  # (..., 1, D)
        x = hadamard_transform(x * first)  # (..., B, D)
        x = hadamard_transform(x * second)
        x = hadamard_transform(x * third) * self.block**0.5
        return x.flatten(-2)[..., : self.num_rows]  # (..., m)

    def _basis(self, start: int, count: int) -> Tensor:
        """Return unit vectors e_start, ... as rows (count, in_features), in float64."""
        stop = min(start + count, self.in_features)
        index = torch.arange(start, stop, device=self.signs.device)
        return nn.functional.one_hot(index, self.in_features).double()


def make_projection(
    kind: str,
    num_rows: int,
    in_features: int,
    *,
    generator: torch.Generator | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Projection:
    """Draw the directions of a feature map.

    ============== =============================== ============ ==========================
    kind           rows                            stored       choose it for
    ============== =============================== ============ ==========================
    ``orthogonal`` orthogonal in blocks of d rows  m d numbers  least variance as a rule
    ``gaussian``   independent                     m d numbers  exact variance formulas
    ``sobol``      quasi-random                    m d numbers  small d, many rows
    ``hadamard``   orthogonal in blocks, products  3 m signs    large d: little memory,
                   of signs and Hadamard matrices               O(m log d) time
    ============== =============================== ============ ==========================

    Parameters
    ----------
    kind : {"gaussian", "orthogonal", "sobol", "hadamard"}
        How the rows are drawn.
    num_rows : int
        Number m of directions.
    in_features : int
        Length d of an input vector.
    generator : torch.Generator, int or None, optional
        Source of the draw; with one given, torch's global random state stays as it is.
    device, dtype : optional
        Of the result. The draw is made on the CPU in float64, so that one seed means the same
        numbers for every dtype.

    Returns
    -------
    Projection
        A module that maps ``(..., in_features)`` to ``(..., num_rows)``.

    Raises
    ------
    ValueError
        If the kind is unknown, a size is below one, or ``"sobol"`` is asked for more inputs
        than its direction numbers cover (21201).

    References
    ----------
    Yu, Suresh, Choromanski, Holtmann-Rice, Kumar: Orthogonal Random Features, 2016,
    arXiv 1610.09072.

    Examples
    --------
    >>> import torch
    >>> project = make_projection("orthogonal", 5, 3, generator=0)
    >>> project(torch.ones(2, 3)).shape
    torch.Size([2, 5])
    """
    if check_choice("kind", kind, PROJECTION_KINDS) == "hadamard":
        return HadamardProjection(num_rows, in_features, generator=generator, device=device)
    return DenseProjection(
        kind, num_rows, in_features, generator=generator, device=device, dtype=dtype
    )
