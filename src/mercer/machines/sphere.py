"""Ways to put rows of numbers on a sphere."""

import torch
from torch import Tensor

WAYS = ("auto", "given", "normalize", "stereographic")


class SphereEmbedding:
    """A map from rows to points of a unit sphere, with what it learnt from the rows of a fit.

    Parameters
    ----------
    way : str
        One of `WAYS`.
    rows : Tensor of shape (n, d)
        The rows, float64.

    Attributes
    ----------
    way : str
        What "auto" became.
    dimension : int
        That of the sphere.
    """

    def __init__(self, way: str, rows: Tensor) -> None:
        if way == "auto":
            way = "given" if _off(rows) <= 1e-4 else "stereographic"
        self.way = way
        self.dimension = rows.shape[1] if way == "stereographic" else max(rows.shape[1] - 1, 1)
        self.centre = rows.mean(0)
        size = (rows - self.centre).square().sum(-1).mean().sqrt()
        self.size = float(size) if float(size) > 0 else 1.0

    def __call__(self, rows: Tensor) -> Tensor:
        """Map rows (n, d), float64, to points (n, d) or (n, d + 1) of length one."""
        if self.way == "stereographic":
            u = (rows - self.centre.to(rows.device)) / self.size
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
        return rows / length


def _off(rows: Tensor) -> float:
    """Largest distance of a row from the sphere."""
    return float((torch.linalg.vector_norm(rows, dim=-1) - 1).abs().amax())
