"""The noun Projection: random directions G of a feature map, and the product G x."""

import abc
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from .._core.checks import check_int
from .._core.counter import RandomSource
from .._core.random import draw_normal

P = ParamSpec("P")
T = TypeVar("T")
_CHUNK = 2**22  # numbers drawn at a time where only their sums of squares are kept


class Projection(nn.Module, abc.ABC):
    """Directions ``G`` of shape ``(num_rows, in_features)`` and the product ``G x``.

    Abstract. The rows behave like independent draws of N(0, I): exactly so for ``"gaussian"``,
    in each single row for ``"orthogonal"``, ``"sobol"`` and ``"fastfood"``, in mean and
    covariance for ``"hadamard"``, whose lengths are fixed (see `draw_lengths`).

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
    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Redraw the directions; on the meta device nothing is drawn."""

    @abc.abstractmethod
    def draw_lengths(self, generator: RandomSource | int | None = None) -> Tensor:
        """Draw factors (num_rows,) by which rows of fixed length become Gaussian in length.

        Ones, without a draw, where the rows have Gaussian lengths already; float64, on the CPU.
        """

    @abc.abstractmethod
    def squared_lengths(self) -> Tensor:
        """Return the squared length of every row of ``G``, shape (num_rows,), in float64."""

    def extra_repr(self) -> str:
        """Return the shape and kind for ``repr``."""
        return f"{self.num_rows}, {self.in_features}, kind={self.kind!r}"


def on_cpu(compute: Callable[P, T]) -> Callable[P, T]:
    """Decorate what draws or prepares numbers: on the CPU, whatever the default, no gradients."""

    @functools.wraps(compute)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        with torch.no_grad(), torch.device("cpu"):
            return compute(*args, **kwargs)

    return run


def draw_gaussian(rows: int, columns: int, generator: RandomSource | None) -> Tensor:
    """Draw a matrix of independent N(0, 1), in float64 on the CPU."""
    return draw_normal((rows, columns), generator)


def draw_chi(count: int, degrees: int, generator: RandomSource | None) -> Tensor:
    """Draw the lengths of ``count`` standard Gaussian vectors with ``degrees`` entries."""
    step = max(1, _CHUNK // degrees)
    return torch.cat(
        [
            draw_gaussian(min(step, count - start), degrees, generator).norm(dim=-1)
            for start in range(0, count, step)
        ]
    )
