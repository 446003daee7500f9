"""The ways to draw random directions: Gaussian, orthogonal, quasi-random, or structured."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from .._core.checks import check_choice, check_last_dim, check_materialized
from .._core.counter import RandomSource
from .._core.random import draw_uniform, own_stream
from .fastfood_projection import FastfoodProjection
from .hadamard import HadamardProjection
from .projection import Projection, draw_chi, draw_gaussian
from .sobol_points import draw_sobol_points


def _draw_orthogonal(num_rows: int, in_features: int, generator: RandomSource | None) -> Tensor:
    """Blocks of orthogonal rows, each row Haar-distributed in direction, chi in length."""
    blocks = []
    for start in range(0, num_rows, in_features):
        count = min(in_features, num_rows - start)
        q, r = torch.linalg.qr(draw_gaussian(in_features, count, generator))
        # Signs that make R's diagonal positive turn LAPACK's Q into a Haar-distributed one.
        blocks.append((q * torch.where(r.diagonal() < 0, -1.0, 1.0)).mT)  # (count, d)
    return torch.cat(blocks) * draw_chi(num_rows, in_features, generator).unsqueeze(-1)


def _draw_sobol(num_rows: int, in_features: int, generator: RandomSource | None) -> Tensor:
    """Points of a scrambled Sobol sequence, taken through the normal quantile."""
    return torch.special.ndtri(draw_sobol_points(num_rows, in_features, generator))


_DENSE_DRAWS: dict[str, Callable[[int, int, RandomSource | None], Tensor]] = {
    "gaussian": draw_gaussian,
    "orthogonal": _draw_orthogonal,
    "sobol": _draw_sobol,
}
STRUCTURED_KINDS = ("hadamard", "fastfood")  # never a matrix
PROJECTION_KINDS = (*_DENSE_DRAWS, *STRUCTURED_KINDS)


def check_sobol_size(name: str, kind: str, size: int) -> None:
    """Raise where Sobol points of more dimensions are asked for than there are numbers for."""
    if kind == "sobol" and size > SobolEngine.MAXDIM:
        raise ValueError(f"{name}: kind 'sobol' goes up to {SobolEngine.MAXDIM}, got {size}")


def draw_uniforms(num_rows: int, columns: int, generator: RandomSource | None) -> Tensor:
    """Draw numbers in (0, 1), one in each of num_rows cells of every column, in random order."""
    shape = (num_rows, columns)
    place = draw_uniform(shape, generator)
    cell = draw_uniform(shape, generator).argsort(0)
    return _inside((cell + place) / num_rows)


def _inside(uniforms: Tensor) -> Tensor:
    """Keep numbers off 0 and 1."""
    return uniforms.clamp(2.0**-54, 1 - 2.0**-53)


def draw_normals_and_uniforms(
    kind: str,
    num_rows: int,
    in_features: int,
    vectors: int,
    columns: int,
    generator: RandomSource | None,
) -> tuple[Tensor, Tensor]:
    """Draw what frequencies are made of: normal vectors, and uniform numbers.

    Parameters
    ----------
    kind : {"gaussian", "orthogonal", "sobol"}
        How they are drawn. Sobol points cover all of it; with ``"orthogonal"`` each kind of
        vector has orthogonal blocks, and the uniform numbers are stratified.
    num_rows : int
        Number m of rows.
    in_features, vectors : int
        Length of a vector, and how many vectors a row has.
    columns : int
        How many uniform numbers a row has.
    generator : torch.Generator, CounterGenerator or None
        Source of the draw.

    Returns
    -------
    tuple of Tensor
        Normal numbers (m, vectors * in_features) and uniform ones (m, columns), in float64.
    """
    width = vectors * in_features
    if kind == "sobol" and width + columns:
        points = draw_sobol_points(num_rows, width + columns, generator)
        # The first coordinates are the best spread ones: the few uniforms take those.
        return torch.special.ndtri(points[:, columns:]), points[:, :columns]
    if kind == "orthogonal":
        parts = [_draw_orthogonal(num_rows, in_features, generator) for _ in range(vectors)]
        normals = torch.cat(parts, -1) if parts else torch.zeros(num_rows, 0, dtype=torch.float64)
        return normals, draw_uniforms(num_rows, columns, generator)
    normals = draw_gaussian(num_rows, width, generator)
    return normals, _inside(draw_uniform((num_rows, columns), generator))


@final
class DenseProjection(Projection):
    """Directions stored as a matrix: Gaussian, block-orthogonal or quasi-random.

    Parameters
    ----------
    kind : {"gaussian", "orthogonal", "sobol"}
        How the rows are drawn; see `make_projection`.
    num_rows, in_features : int
        Shape of the matrix.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the matrix. It is drawn on the CPU in float64 and then cast.

    Raises
    ------
    ValueError
        If the kind is unknown, a size is below one, or in_features is too large for
        ``"sobol"``.

    Examples
    --------
    >>> import torch
    >>> rows = DenseProjection("orthogonal", 2, 4, generator=0).rows()
    >>> bool((rows[0] @ rows[1]).abs() < 1e-6)
    True
    """

    matrix: Tensor

    def __init__(
        self,
        kind: str,
        num_rows: int,
        in_features: int,
        *,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_rows, in_features)
        self.kind = check_choice("kind", kind, _DENSE_DRAWS)
        check_sobol_size("in_features", kind, in_features)
        self.register_buffer(
            "matrix", torch.empty(num_rows, in_features, device=device, dtype=dtype)
        )
        self.reset_parameters(generator)

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the matrix; on the meta device nothing is drawn."""
        if not self.matrix.is_meta:
            draw = _DENSE_DRAWS[self.kind]
            self.matrix.copy_(draw(self.num_rows, self.in_features, own_stream(generator)))

    def draw_lengths(self, generator: RandomSource | int | None = None) -> Tensor:
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


def make_projection(
    kind: str,
    num_rows: int,
    in_features: int,
    *,
    generator: RandomSource | int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Projection:
    """Draw the directions of a feature map.

    ============== =============================== ============ ===========================
    kind           rows                            stored       choose it for
    ============== =============================== ============ ===========================
    ``orthogonal`` orthogonal in blocks of d rows  m d numbers  somewhat less error, safely
    ``gaussian``   independent                     m d numbers  exact variance formulas
    ``sobol``      quasi-random                    m d numbers  least error where norms are
                                                                small, d up to 21201
    ``hadamard``   orthogonal in blocks, products  3 m signs    large d: little memory,
                   of signs and Hadamard matrices               O(m log d) time
    ``fastfood``   Gaussian one by one, from        4 m numbers  large d, without any bias
                   Hadamard matrices
    ============== =============================== ============ ===========================

    ``benchmarks/feature_draws.py`` and ``benchmarks/universal_draws.py`` measure the errors.

    Parameters
    ----------
    kind : {"gaussian", "orthogonal", "sobol", "hadamard", "fastfood"}
        How the rows are drawn.
    num_rows : int
        Number m of directions.
    in_features : int
        Length d of an input vector.
    generator : torch.Generator, CounterGenerator, int or None, optional
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
    if kind == "fastfood":
        return FastfoodProjection(
            num_rows, in_features, generator=generator, device=device, dtype=dtype
        )
    return DenseProjection(
        kind, num_rows, in_features, generator=generator, device=device, dtype=dtype
    )
