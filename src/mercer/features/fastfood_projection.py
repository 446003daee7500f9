"""Structured Gaussian directions: Hadamard matrices, signs, a permutation, and normal numbers."""

import math
from typing import final

import torch
from torch import Tensor, nn

from .._core.checks import check_last_dim, check_materialized
from .._core.counter import RandomSource
from .._core.random import draw_signs, draw_uniform, own_stream
from .hadamard import hadamard_transform
from .projection import Projection, draw_chi, draw_gaussian


@final
class FastfoodProjection(Projection):
    r"""Structured directions each of which is exactly Gaussian (Fastfood), in O(m log d) work.

    Each block of D rows (D the next power of two above ``in_features``) is

    .. math:: D^{-1/2} \, S H G \Pi H B,

    with signs B, a permutation :math:`\Pi`, normal numbers G and lengths S on diagonals, and H
    the Hadamard matrix; inputs are padded with zeros. A row of ``H G`` is a Gaussian vector and
    what follows turns it, so every single row has the law N(0, I), where those of
    `HadamardProjection` have its mean and covariance only; but the rows of a block share their
    normal numbers, and errors are up to 1.4 times those of independent rows.

    Parameters
    ----------
    num_rows, in_features : int
        Shape of the matrix that is never built.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draw; None means torch's default generator.
    device, dtype : optional
        Of the normal numbers and lengths; signs are int8, permutations int64.

    Raises
    ------
    ValueError
        If a size is below one.

    References
    ----------
    Le, Sarlos, Smola, "Fastfood: approximating kernel expansions in loglinear time", ICML 2013,
    arXiv 1408.3060.

    Examples
    --------
    >>> import torch
    >>> project = FastfoodProjection(1000, 16, generator=0)
    >>> mean_square = project(torch.ones(16)).square().mean()
    >>> bool((mean_square / 16 - 1).abs() < 0.1)  # |x|^2 on average
    True
    """

    kind = "fastfood"
    signs: Tensor
    order: Tensor
    normals: Tensor
    lengths: Tensor

    def __init__(
        self,
        num_rows: int,
        in_features: int,
        *,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(num_rows, in_features)
        self.block = 1 << (in_features - 1).bit_length()
        shape = (math.ceil(num_rows / self.block), self.block)
        self.register_buffer("signs", torch.empty(shape, device=device, dtype=torch.int8))
        self.register_buffer("order", torch.empty(shape, device=device, dtype=torch.int64))
        self.register_buffer("normals", torch.empty(shape, device=device, dtype=dtype))
        self.register_buffer("lengths", torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw everything; on the meta device nothing is drawn."""
        if self.signs.is_meta:
            return
        source = own_stream(generator)
        shape = self.signs.shape
        self.signs.copy_(draw_signs(shape, source))
        self.order.copy_(draw_uniform(shape, source).argsort(-1))
        normals = draw_gaussian(shape[0], shape[1], source)
        self.normals.copy_(normals)
        # Rows of a block would share the length of G; each gets one of its own instead.
        chi = draw_chi(shape.numel(), self.block, source).reshape(shape)
        self.lengths.copy_(chi / normals.norm(dim=-1, keepdim=True))

    def draw_lengths(self, generator: RandomSource | int | None = None) -> Tensor:
        """Return ones: the rows have Gaussian lengths already."""
        return torch.ones(self.num_rows, dtype=torch.float64, device="cpu")

    def squared_lengths(self) -> Tensor:
        """Return the squared length of every row, shape (num_rows,), in float64."""
        if self.in_features == self.block:
            norms = self.normals.double().square().sum(-1, keepdim=True)  # (B, 1)
            return (norms * self.lengths.double().square()).flatten()[: self.num_rows]
        return self.rows().square().sum(-1)

    def rows(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the matrix that is never stored, shape (num_rows, in_features)."""
        return self(torch.eye(self.in_features, dtype=dtype, device=self.signs.device)).mT

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to products of shape (..., num_rows)."""
        check_last_dim("x", x, self.in_features)
        check_materialized("FastfoodProjection", self.signs, x)
        if self.in_features < self.block:
            x = nn.functional.pad(x, (0, self.block - self.in_features))
        scale = self.block**-0.5
        signs, normals = self.signs.to(x.dtype) * scale, self.normals.to(x.dtype)
        x = hadamard_transform(x.unsqueeze(-2) * signs)  # (..., B, D)
        x = torch.gather(x, -1, self.order.expand(x.shape))
        x = hadamard_transform(x * normals) * self.lengths.to(x.dtype)
        return x.flatten(-2)[..., : self.num_rows]  # (..., m)
