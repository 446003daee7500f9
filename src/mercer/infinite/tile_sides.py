"""What tiles need of each input, computed once: variances, means, own covariances."""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from .._core.config import require_memory
from .layout import Full, spread
from .operations import Affine, Attention, Input, Normalize, Pointwise, Sum
from .propagate import Scales, Selves
from .tile_memory import Pool
from .tile_plan import TilePlan


@final
class Sides:
    """What tiles need of each input: variances, means, own covariances, and the data.

    Parameters
    ----------
    plan : TilePlan
        The plan.
    scales : Scales
        The values of the hyperparameters.
    x : Tensor of shape (n, *event)
        Inputs.
    tangents : bool
        Whether T is wanted.
    """

    def __init__(self, plan: TilePlan, scales: Scales, x: Tensor, tangents: bool) -> None:
        self.tangents = tangents
        self.plan, self.scales, self.dtype = plan, scales, x.dtype
        needed: dict[str, set[int]] = {"variance": set(), "mean": set(), "whole": set()}
        for i, operation in enumerate(plan.operations):
            if plan.layouts[i] is None:
                continue
            if isinstance(operation, Attention):
                needed["whole"].update(operation.inputs)
            elif isinstance(operation, Pointwise | Normalize):
                needed["variance"].update(operation.inputs)
            if isinstance(operation, Sum):
                needed["mean"].update(operation.inputs)
            if isinstance(operation, Normalize) and operation.centre:
                needed["mean"].update(operation.inputs)
        copies = {"variance": 4, "mean": 2, "whole": 2}
        numbers = x[:1].numel() * 2
        for kind, nodes in needed.items():
            for node in nodes:
                count = math.prod(plan.operations[node].positions)
                numbers += copies[kind] * (count**2 if kind == "whole" else count)
        if len(x) * numbers > 2**22:
            require_memory(
                len(x) * numbers * x.element_size(),
                f"the variances of {len(x)} inputs in every layer",
                "evaluate blocks of fewer inputs",
            )
        found: dict[tuple[str, int], list[Tensor | None]] = {}
        own = [
            math.prod(op.positions)
            * math.prod(n for n, f in zip(op.positions, full, strict=True) if f)
            for op, full in zip(plan.operations, plan.plan.selves, strict=True)
            if full is not None
        ]
        step = max(1, 2**22 // max(own, default=1))
        for part in x.split(step) if len(x) else (x,):
            selves = Selves(plan.plan, scales, part)
            for kind, nodes in needed.items():
                for node in nodes:
                    found.setdefault((kind, node), []).append(getattr(selves, kind)(node))
        self.known: dict[tuple[str, int], Tensor | None] = {}
        for key, parts in found.items():
            kept = [p for p in parts if p is not None]
            self.known[key] = torch.cat(kept, -1).contiguous() if kept else None
        self.zeros: set[int] = set()  # where some variances are zero
        for node in needed["variance"]:
            q = self.known["variance", node]
            assert q is not None
            positive = q > 0
            if not bool(positive.all()):
                self.zeros.add(node)
            self.known["inverse", node] = torch.where(positive, q, torch.inf).rsqrt()
            self.known["root", node] = torch.where(positive, q, 0.0).sqrt()
        self.data = {
            # Channels in front, inputs behind: (channels, *positions, n)
            i: op.arrange(x).movedim(-1, 0).contiguous()
            for i, op in enumerate(plan.operations)
            if isinstance(op, Input)
        }
        self.like = x[:0]
        self.affines: dict[int, tuple[float, float, float]] = {}


@final
class View:
    """Some of the inputs, at some distance along the streamed axis.

    Parameters
    ----------
    sides : Sides
        All inputs.
    index : slice
        Which of them.
    """

    def __init__(self, sides: Sides, index: slice) -> None:
        self.sides, self.index = sides, index
        self.scales = sides.scales
        self.shift = 0  # a distance, positive or negative; rows have none
        self._whole: dict[Any, Any] = {}
        self._moved: dict[Any, Any] = {}

    def at(self, shift: int) -> None:
        """Look from a distance along the streamed axis."""
        self.shift = shift
        self._moved.clear()

    def _values(self, kind: str, node: int) -> Tensor | None:
        key = (kind, node)
        if key not in self._moved:
            if key not in self._whole:
                values = self.sides.data[node] if kind == "data" else self.sides.known[key]
                # Contiguous, so that passes over them are long.
                self._whole[key] = None if values is None else values[..., self.index].contiguous()
            values = self._whole[key]
            stream = self.sides.plan.stream
            if values is not None and self.shift and stream is not None and node in stream.axes:
                axis = stream.axes[node] + (kind == "data")
                values = self.cut(values, axis, self.shift * stream.strides[node])
            self._moved[key] = values
        return self._moved[key]

    def cut(self, values: Tensor, axis: int, shift: int) -> Tensor:
        """Keep the positions that have a partner at the distance."""
        size = max(values.shape[axis] - abs(shift), 0)
        return values.narrow(axis, min(max(shift, 0), values.shape[axis] - size), size)

    def variance(self, node: int) -> Tensor:
        """Variances at each position, (*positions, n)."""
        found = self._values("variance", node)
        assert found is not None
        return found

    def root(self, node: int) -> Tensor:
        """Roots of the variances."""
        found = self._values("root", node)
        assert found is not None
        return found

    def inverse(self, node: int) -> Tensor:
        """Inverse roots of the variances; zero for variance zero."""
        found = self._values("inverse", node)
        assert found is not None
        return found

    def mean(self, node: int) -> Tensor | None:
        """Means at each position, (*positions, n); None is zero."""
        return self._values("mean", node)

    def whole(self, node: int) -> Tensor:
        """Covariances of all positions of each input, (*positions, *positions, n)."""
        found = self._values("whole", node)
        assert found is not None
        return found

    def data(self, node: int) -> Tensor:
        """Return the arranged data, (channels, *positions, n)."""
        found = self._values("data", node)
        assert found is not None
        return found


@final
@dataclass(frozen=True)
class TilePlace:
    """Where an operation maps the covariances of a tile."""

    rows: View
    columns: View
    full: Full
    node: int
    same: bool = False

    def variances(self, node: int, full: Full) -> tuple[Tensor, Tensor]:
        """Variances of a node's channels, laid out for rows and for columns."""
        one, two = self.rows.variance(node), self.columns.variance(node)
        return spread(one, full, 0), spread(two, full, 1)

    def outer(self, kind: str, node: int, like: Tensor, pool: Pool) -> Tensor:
        """Multiply numbers of rows and columns, in memory laid out as that of another tensor."""
        one, two = (getattr(view, kind)(node) for view in (self.rows, self.columns))
        out = pool.like(like)
        torch.mul(spread(one, self.full, 0), spread(two, self.full, 1), out=out)
        return out

    def means(self, node: int, full: Full) -> tuple[Tensor, Tensor] | None:
        """Means of a node's channels, laid out for rows and for columns; None is zero."""
        one, two = self.rows.mean(node), self.columns.mean(node)
        if one is None or two is None:
            return None
        return spread(one, full, 0), spread(two, full, 1)

    def selves(self, node: int) -> tuple[Tensor, Tensor]:
        """Covariances of each input's positions among themselves."""
        return self.rows.whole(node), self.columns.whole(node)

    def affine(self, operation: Affine) -> tuple[Any, Any, Any]:
        """Variance of weights, that of biases, and the factor of S in T."""
        known = self.rows.sides.affines
        if operation.layer not in known:
            found = self.rows.scales.affine(operation, self.rows.sides.like)
            w2, b2, own = map(float, found)
            known[operation.layer] = w2, b2, own
        return known[operation.layer]

    def attention(self, operation: Attention) -> tuple[Any, Any, Any, Any, Any]:
        """Variances of the keys, of values times outputs, and of the biases."""
        return self.rows.scales.attention(operation, self.rows.sides.like)
