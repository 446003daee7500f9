"""Ways to put rows of numbers on a sphere, no two of them more than a right angle apart."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

WAYS = ("auto", "given", "normalize", "stereographic")
_CAP = math.tan(math.pi / 8)  # radius in the plane of a cap of 45 degrees


@final
@dataclass(frozen=True, eq=False)
class SphereEmbedding:
    """A map from rows to points of a unit sphere, with what it learnt from the rows of a fit.

    Deep kernels see opposite points as alike or as opposites, never as far apart: the theory
    is for inner products that are not negative. Rows of length one with negative entries get
    one more coordinate, a constant, which halves all squared distances and changes nothing else;
    projected rows are scaled to a cap of 45 degrees, and those farther out than the rows of the
    fit move to its edge.

    Attributes
    ----------
    way : str
        One of `WAYS` but "auto".
    dimension : int
        That of the sphere, not counting the constant.
    lifted : bool
        Whether there is the constant.
    centre : Tensor of shape (d,)
        The mean of the rows of the fit.
    size : float
        What projected rows are divided by.
    """

    way: str
    dimension: int
    lifted: bool
    centre: Tensor
    size: float

    @classmethod
    def fit(cls, way: str, rows: Tensor) -> "SphereEmbedding":
        """Find the map for rows (n, d), float64; ``way`` is one of `WAYS`."""
        if way == "auto":
            way = "given" if _off(rows) <= 1e-4 else "stereographic"
        dimension = rows.shape[1] if way == "stereographic" else max(rows.shape[1] - 1, 1)
        lifted = way != "stereographic" and bool((rows < 0).any())
        centre = rows.mean(0)
        size = float(torch.linalg.vector_norm(rows - centre, dim=-1).amax()) / _CAP
        return cls(way, dimension, lifted, centre, size if size > 0 else 1.0)

    def __call__(self, rows: Tensor) -> Tensor:
        """Map rows (n, d), float64, to points (n, d) or (n, d + 1) of length one."""
        if self.way == "stereographic":
            u = (rows - self.centre.to(rows.device)) / self.size
            length = torch.linalg.vector_norm(u, dim=-1, keepdim=True)
            # Not for rows of the fit, whatever rounding does to the farthest.
            u = torch.where(length > _CAP * (1 + 1e-12), u * (_CAP / length), u)
            s = u.square().sum(-1, keepdim=True)  # (n, 1)
            return torch.cat([2 * u, s - 1], -1) / (s + 1)
        if self.way == "given" and (off := _off(rows)) > 1e-4:
            raise ValueError(
                f"X: expected rows of length one, one is off by {off:.2g}; use sphere='normalize' "
                "or 'stereographic'"
            )
        length = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        if bool((length == 0).any()):
            raise ValueError("X: a row of zeros has no direction; use sphere='stereographic'")
        x = rows / length
        return torch.cat([x, torch.ones_like(length)], -1) * 0.5**0.5 if self.lifted else x


def _off(rows: Tensor) -> float:
    """Largest distance of a row from the sphere."""
    return float((torch.linalg.vector_norm(rows, dim=-1) - 1).abs().amax())
