"""The whole kernel matrix, written tile by tile, and differentiated by recomputing it."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.func import functional_call

from .._core.config import require_memory
from .._core.precision import full_precision, working_dtype
from .._core.workers import in_order
from .base import Kernel
from .tiles import Spare, plan_tiles

_COPIES = 7  # of the matrix, that differentiating its formula takes


def tile_side(kernel: Kernel, x: Tensor) -> int:
    """Return the side of a tile, which depends on the device and on what a pair takes.

    On a CPU a tile stays in the cache of the core that computes it; other devices want more work
    at once.
    """
    side = 512 if x.device.type == "cpu" else 4096
    if kernel.pair_entries == 1:
        return side
    # Many small steps: threads wait for Python more than for the cache.
    return max(1, math.isqrt(4 * side**2 // kernel.pair_entries))


def empty_matrix(n: int, m: int, like: Tensor) -> Tensor:
    """Make an uninitialised matrix, on huge pages where the system has them.

    NumPy asks the system for huge pages for large arrays, and torch does not: writing to the
    fresh memory of 800 MB then costs a quarter of the time.
    """
    if like.device.type == "cpu" and like.dtype in (torch.float32, torch.float64):
        import numpy as np

        name = {torch.float32: np.float32, torch.float64: np.float64}[like.dtype]
        return torch.from_numpy(np.empty((n, m), dtype=name))
    return torch.empty(n, m, dtype=like.dtype, device=like.device)


def fill_matrix(kernel: Kernel, x: Tensor, y: Tensor | None) -> Tensor:
    """Evaluate the kernel between all rows; the symmetric half is computed once."""
    work = working_dtype(x.dtype)
    a = x.to(work)
    plan = plan_tiles(kernel, a, a if y is None else y.to(work))

    def fill(rows: slice, columns: slice, outs: Sequence[Tensor], spare: Spare) -> None:
        plan(rows, columns, outs[0], spare)

    return fill_matrices(kernel, x, y, fill, lambda rows: (kernel._diagonal(a[rows]),), 1)[0]


@torch.no_grad()
def fill_matrices(
    kernel: Kernel,
    x: Tensor,
    y: Tensor | None,
    fill: Callable[[slice, slice, Sequence[Tensor], Spare], None],
    diagonals: Callable[[slice], Sequence[Tensor]],
    count: int,
) -> list[Tensor]:
    """Write matrices between all rows, tile by tile; the symmetric half is computed once.

    Parameters
    ----------
    kernel : Kernel
        Whose tiles they are.
    x : Tensor of shape (n, *event)
        Points of the rows.
    y : Tensor of shape (m, *event) or None
        Points of the columns.
    fill : callable
        ``fill(rows, columns, outs, spare)`` writes a tile of each matrix.
    diagonals : callable
        ``diagonals(rows)`` gives entries on the diagonals.
    count : int
        Number of matrices.

    Returns
    -------
    list of Tensor of shape (n, m)
        The matrices, in the dtype of x.
    """
    work = working_dtype(x.dtype)
    a = x.to(work)
    n, m = len(a), len(a if y is None else y)
    itemsize = a.element_size() + (x.element_size() if work != x.dtype else 0)
    require_memory(
        count * n * m * itemsize,
        f"{'a kernel matrix' if count == 1 else f'{count} kernel matrices'} of shape ({n}, {m}) "
        f"in {x.dtype}",
        "use kernel.gram(x, y), which never builds it",
    )
    whole = [empty_matrix(n, m, a) for _ in range(count)]
    side = tile_side(kernel, x)

    starts = range(0, m, side)
    jobs = [(i, [j for j in starts if y is not None or j >= i]) for i in range(0, n, side)]
    if len(jobs) < 4 * torch.get_num_threads():  # too few bands to share out
        jobs = [(i, [j]) for i, columns in jobs for j in columns]

    def band(job: int, check: Callable[[], None]) -> None:
        i, columns_of = jobs[job]
        rows = slice(i, min(i + side, n))
        # A tile is made in memory of its own and copied out: everything is faster where rows
        # follow each other, above all the transposed copy.
        buffers, mirror = a.new_empty(count, side * side), a.new_empty(side * side)
        spare = Spare()
        for j in columns_of:
            check()
            columns = slice(j, min(j + side, m))
            height, width = rows.stop - i, columns.stop - j
            tiles = [buffer[: height * width].view(height, width) for buffer in buffers]
            fill(rows, columns, tiles, spare)
            if y is None and i == j:  # need not be symmetric to the last bit yet
                for tile, diagonal in zip(tiles, diagonals(rows), strict=True):
                    tile.copy_(tile.triu() + tile.triu(1).mT)
                    tile.diagonal().copy_(diagonal)
            for tile, out in zip(tiles, whole, strict=True):
                if y is None and i != j:
                    turned = mirror[: height * width].view(width, height)
                    out[columns, rows] = turned.copy_(tile.mT)
                out[rows, columns] = tile

    for _ in in_order(range(len(jobs)), band, x.device):
        pass
    return [out.to(x.dtype) for out in whole]


class _Dense(torch.autograd.Function):
    """`fill_matrix`, differentiated through the formula in one piece."""

    @staticmethod
    def forward(
        ctx: Any, kernel: Kernel, names: list[str], x: Tensor, y: Tensor | None, *values: Tensor
    ) -> Tensor:
        ctx.kernel, ctx.names, ctx.same = kernel, names, y is None
        ctx.save_for_backward(x, *(() if y is None else (y,)), *values)
        return fill_matrix(kernel, x, y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        y = None if ctx.same else rest.pop(0)
        inputs = [x, *([] if y is None else [y]), *rest]
        higher = torch.is_grad_enabled()  # whether these gradients are differentiated in turn
        n, m = len(x), len(x if y is None else y)
        require_memory(
            _COPIES * n * m * x.to(working_dtype(x.dtype))[:0].element_size(),
            f"the gradient of a kernel matrix of shape ({n}, {m})",
            "use products with kernel.gram(x, y), whose gradient never builds it",
        )
        with torch.enable_grad(), full_precision(x):
            # Views, so that a gradient with respect to x is that through this matrix alone.
            views = [t.view_as(t) for t in inputs]
            y_view = None if y is None else views[1]
            values = views[1 if y is None else 2 :]
            whole = functional_call(
                NaiveKernel(own_copy(ctx.kernel)),
                {f"kernel.{k}": v for k, v in zip(ctx.names, values, strict=True)},
                (views[0], y_view),
            )
            chosen = [v for v, t in zip(views, inputs, strict=True) if t.requires_grad]
            found = torch.autograd.grad(whole, chosen, g, create_graph=higher, allow_unused=True)
        grads = iter(found)
        all_grads = [next(grads) if t.requires_grad else None for t in inputs]
        if y is None:
            all_grads.insert(1, None)
        return (None, None, *all_grads)


_Module = TypeVar("_Module", bound=torch.nn.Module)


def own_copy(module: _Module) -> _Module:
    """Copy a tree of modules, sharing what they hold.

    `functional_call` exchanges parameters in place: in the kernel itself, another thread would
    meet them there.
    """
    return _copy(module, {})


def _copy(module: Any, known: dict[int, Any]) -> Any:
    if module is None:
        return None
    if id(module) not in known:
        twin = known[id(module)] = object.__new__(type(module))
        vars(twin).update(vars(module))
        for name in ("_parameters", "_buffers"):
            vars(twin)[name] = dict(vars(module)[name])
        parts = module._modules.items()
        vars(twin)["_modules"] = {name: _copy(part, known) for name, part in parts}
    return known[id(module)]


class NaiveKernel(torch.nn.Module):
    """The formula in one piece, as a module that `functional_call` can call."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Evaluate the formula between rows (n, *event) and (m, *event)."""
        return self.kernel._naive(x, y)


def dense(kernel: Kernel, x: Tensor, y: Tensor | None) -> Tensor:
    """Evaluate the kernel between all rows of x (n, *event) and y (m, *event), shape (n, m)."""
    named = dict(kernel.named_parameters())
    tensors = [x, *([] if y is None else [y]), *named.values()]
    if not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors)):
        return fill_matrix(kernel, x, y)
    return _Dense.apply(kernel, list(named), x, y, *named.values())  # type: ignore[return-value]
