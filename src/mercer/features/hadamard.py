"""Structured orthogonal directions: products of sign flips and Hadamard transforms."""

import math
from typing import final

import torch
from torch import Tensor, nn

from .._core.checks import check_last_dim, check_materialized
from .._core.counter import RandomSource
from .._core.random import draw_signs, own_stream
from .projection import Projection, draw_chi

_CHUNK = 2**22  # numbers held at a time where only sums of squares are kept
_RADIX = 32  # small matrix products beat butterflies of additions, and round less in bfloat16


def hadamard_transform(x: Tensor) -> Tensor:
    r"""Multiply by the Hadamard matrix, in Sylvester's order, without normalisation.

    .. math:: y_i = \sum_j (-1)^{\mathrm{popcount}(i \wedge j)} x_j

    Parameters
    ----------
    x : Tensor of shape (..., d)
        Vectors; ``d`` a power of two. The cost of each is O(d log d).

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
    while size > 1:
        # The matrix is a Kronecker product. A factor for the leading bits of the index is
        # applied and those bits are turned to the back, until all are where they were.
        radix = min(size, _RADIX)
        size //= radix
        x = (x.unflatten(-1, (radix, -1)).mT @ _hadamard_matrix(radix, x)).flatten(-2)
    return x


def _hadamard_matrix(size: int, like: Tensor) -> Tensor:
    """Make the Hadamard matrix of a small power of two, for the dtype and device of a tensor."""
    matrix = like.new_ones(1, 1)
    while matrix.shape[0] < size:
        top = torch.cat((matrix, matrix), dim=1)
        matrix = torch.cat((top, torch.cat((matrix, -matrix), dim=1)))
    return matrix


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
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the signs; None means torch's default generator.
    device : optional
        Of the signs, which are int8 whatever the dtype of the inputs.

    Raises
    ------
    ValueError
        If a size is below one.

    References
    ----------
    Yu, Suresh, Choromanski, Holtmann-Rice, Kumar: Orthogonal Random Features, 2016,
    arXiv 1610.09072.

    Examples
    --------
    >>> import torch
    >>> project = HadamardProjection(4, 4, generator=0)
    >>> project(torch.ones(4)).square().sum()  # orthogonal rows of length 2
    tensor(16.)
    """

    kind = "hadamard"
    signs: Tensor

    def __init__(
        self,
        num_rows: int,
        in_features: int,
        *,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(num_rows, in_features)
        self.block = 1 << (in_features - 1).bit_length()
        blocks = math.ceil(num_rows / self.block)
        signs = torch.empty(3, blocks, self.block, device=device, dtype=torch.int8)
        self.register_buffer("signs", signs)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the signs; on the meta device nothing is drawn."""
        if not self.signs.is_meta:
            self.signs.copy_(draw_signs(self.signs.shape, own_stream(generator)))

    def draw_lengths(self, generator: RandomSource | int | None = None) -> Tensor:
        r"""Draw chi-distributed factors (num_rows,) that make the rows Gaussian in length.

        A row in the padded space has length :math:`\sqrt{D}`; the factor is
        :math:`\chi_D / \sqrt{D}`.
        """
        chi = draw_chi(self.num_rows, self.block, own_stream(generator))
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
