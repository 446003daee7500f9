"""The product of a kernel matrix with vectors, tile by tile, differentiated by recomputing."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.func import functional_call

from .._core.config import require_memory
from .._core.precision import full_precision, working_dtype
from .base import Kernel
from .dense import NaiveKernel, own_copy, tile_side
from .ordered_sum import check_same, cut, ordered_sum
from .tiles import Spare, plan_tiles


def _edges(n: int, side: int) -> list[slice]:
    return [slice(i, min(i + side, n)) for i in range(0, n, side)]


def _ask_memory(nbytes: float, what: str) -> str | None:
    """Ask the budget; return the text of the refusal, so that all processes can be told."""
    try:
        require_memory(nbytes, what, "multiply by fewer vectors at a time")
    except MemoryError as error:
        return str(error)
    return None


def multiply(
    kernel: Kernel, x: Tensor, y: Tensor | None, v: Tensor, group: ProcessGroup | None
) -> Tensor:
    """Multiply the kernel matrix of x (n, *event) and y (m, *event) by v (m, r), shape (n, r)."""
    named = dict(kernel.named_parameters())
    return _Product.apply(kernel, list(named), group, x, y, v, *named.values())  # type: ignore[return-value]


@torch.no_grad()
def _forward(
    kernel: Kernel, x: Tensor, y: Tensor | None, v: Tensor, group: ProcessGroup | None
) -> Tensor:
    work = working_dtype(x.dtype)
    n, m, r = len(x), len(v), v.shape[1]
    side = tile_side(kernel, x)
    slabs = cut(-(-n // side))
    threads = torch.get_num_threads()
    # The slabs that are under way, and with a group those that wait for their turn.
    copies = 2 + 2 * threads
    if group is not None:
        copies += len(slabs) / group.size()
    failure = _ask_memory(
        8 * (n * r * copies + 3 * (n + m) * (x[:1].numel() + 2) + threads * 3 * side**2),
        f"the product of a kernel matrix ({n}, {m}) with {r} vectors",
    )
    if group is not None:
        check_same(
            group, "vectors and hyperparameters", [v, *kernel.state_dict().values()], failure
        )
    elif failure is not None:
        raise MemoryError(failure)
    a = x.to(work)
    b = a if y is None else y.to(work)
    # Vectors as rows: the thin products then run along the rows of a tile, twice as fast.
    vt = v.to(work).mT.contiguous()  # (r, m)
    out = vt.new_zeros(n, r)
    if not (n and m and r):
        return out.to(x.dtype)
    fill = plan_tiles(kernel, a, b)
    rows, columns = _edges(n, side), _edges(m, side)

    def tile(i: int, j: int, buffer: Tensor, spare: Spare) -> Tensor:
        height, width = rows[i].stop - rows[i].start, columns[j].stop - columns[j].start
        view = buffer[: height * width].view(height, width)
        fill(rows[i], columns[j], view, spare)
        if y is None and i == j:
            view.diagonal().copy_(kernel._diagonal(a[rows[i]]))
        return view

    def slab(s: int, check: Callable[[], None]) -> list[Tensor]:
        buffer, spare = vt.new_empty(side * side), Spare()
        start = rows[slabs[s].start].start
        stop = n if y is None else rows[slabs[s].stop - 1].stop
        part = vt.new_zeros(r, stop - start)
        for i in slabs[s]:
            here = slice(rows[i].start - start, rows[i].stop - start)
            for j in range(i if y is None else 0, len(columns)):
                check()
                k = tile(i, j, buffer, spare)
                part[:, here].addmm_(vt[:, columns[j]], k.mT)
                if y is None and j > i:  # its mirror image
                    there = slice(columns[j].start - start, columns[j].stop - start)
                    part[:, there].addmm_(vt[:, rows[i]], k)
        return [part.mT]

    extents = [[(rows[s.start].start, n if y is None else rows[s.stop - 1].stop)] for s in slabs]
    costs = [sum(len(rows) - i if y is None else 1 for i in s) for s in slabs]
    ordered_sum([out], extents, slab, costs, group)
    return out.to(x.dtype)


class _Product(torch.autograd.Function):
    """The product, whose derivative evaluates the formula again, one tile at a time."""

    @staticmethod
    def forward(
        ctx: Any,
        kernel: Kernel,
        names: list[str],
        group: ProcessGroup | None,
        x: Tensor,
        y: Tensor | None,
        v: Tensor,
        *values: Tensor,
    ) -> Tensor:
        ctx.kernel, ctx.names, ctx.group, ctx.same = kernel, names, group, y is None
        ctx.save_for_backward(x, v, *values, *(() if y is None else (y,)))
        return _forward(kernel, x, y, v, group)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, v, *values = ctx.saved_tensors
        y = None if ctx.same else values.pop()
        need_x, need_y, need_v = ctx.needs_input_grad[3:6]
        if not (need_x or need_y or any(ctx.needs_input_grad[6:])):
            with full_precision(x):
                a, b = (x, None) if y is None else (y, x)
                gv = multiply(ctx.kernel, a, b, g, ctx.group)  # linear in g: differentiable
            return (*(None,) * 5, gv, *(None for _ in values))
        with full_precision(x), torch.no_grad():
            gx, gy, gv, *gp = _backward(ctx, x, y, v, values, g)
            gx, gy, gv = gx.to(x.dtype), gy.to(x.dtype), gv.to(v.dtype)
        if torch.is_grad_enabled():  # these gradients may be differentiated in turn
            gx, gy, gv, *gp = _Last.apply(gx, gy, gv, *gp, g, *ctx.saved_tensors)  # type: ignore[misc]
        return (
            *(None, None, None),
            gx if need_x else None,
            gy if need_y else None,
            gv if need_v else None,
            *gp,
        )


class _Last(torch.autograd.Function):
    """Gradients tied to what they depend on: without, autograd would take them for constants."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        # Gradients of x, y, v and the values come first; then g, x, v, the values, perhaps y.
        count = len(tensors) // 2
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(
            "Gram: a product has no second derivatives with respect to points or hyperparameters; "
            "build the matrix, kernel(x, y) @ v, which has them"
        )


def _backward(
    ctx: Any, x: Tensor, y: Tensor | None, v: Tensor, values: list[Tensor], g: Tensor
) -> list[Tensor]:
    """Add up the derivatives of all tiles with respect to x, y, v and hyperparameters."""
    same = y is None
    work = working_dtype(x.dtype)
    a, g, v = x.to(work), g.to(work).contiguous(), v.to(work).contiguous()
    b = a if y is None else y.to(work)
    n, m = len(a), len(b)
    side = tile_side(ctx.kernel, x)
    rows, columns = _edges(n, side), _edges(m, side)
    slabs = cut(len(rows))
    totals = [torch.zeros_like(a), torch.zeros_like(b), torch.zeros_like(v)]
    # Sums over many tiles, so not in half precision.
    totals += [torch.zeros_like(p, dtype=working_dtype(p.dtype)).reshape(-1) for p in values]
    threads = torch.get_num_threads()
    copies = 1 + 2 * threads if ctx.group is None else len(slabs)
    failure = _ask_memory(
        8 * (copies * sum(t.numel() for t in totals) + threads * 16 * side**2),
        f"the gradient of a product with a kernel matrix ({n}, {m})",
    )
    if ctx.group is not None:
        check_same(ctx.group, "incoming gradients", [g], failure)
    elif failure is not None:
        raise MemoryError(failure)
    names = [f"kernel.{name}" for name in ctx.names]

    def slab(s: int, check: Callable[[], None]) -> list[Tensor]:
        # A kernel of its own for each thread: functional_call exchanges parameters in place.
        module = NaiveKernel(own_copy(ctx.kernel))
        parts = [torch.zeros_like(t) for t in totals]
        gx, gy, gv, *gp = parts
        for i in slabs[s]:
            for j in range(i if same else 0, len(columns)):
                check()
                mirrored = same and j > i
                xi = a[rows[i]].detach().requires_grad_()
                yj = None if same and i == j else b[columns[j]].detach().requires_grad_()
                leaves = [p.detach().requires_grad_() for p in values]
                with torch.enable_grad():
                    k = functional_call(module, dict(zip(names, leaves, strict=True)), (xi, yj))
                weight = g[rows[i]] @ v[columns[j]].mT  # (n_i, m_j)
                if mirrored:
                    weight.addmm_(v[rows[i]], g[columns[j]].mT)
                inputs = [xi, *([] if yj is None else [yj]), *leaves]
                if k.requires_grad:
                    found = list(torch.autograd.grad(k, inputs, weight, allow_unused=True))
                else:
                    found = [None] * len(inputs)
                _add(gx[rows[i]], found.pop(0))
                if yj is not None:
                    _add((gx if same else gy)[columns[j]], found.pop(0))
                for total, part in zip(gp, found, strict=True):
                    _add(total, None if part is None else part.reshape(-1))
                k = k.detach()
                gv[columns[j]].addmm_(k.mT, g[rows[i]])
                if mirrored:
                    gv[rows[i]].addmm_(k, g[columns[j]])
        return parts

    extents = [[(0, len(t)) for t in totals] for _ in slabs]
    costs = [sum(len(columns) - i if same else len(columns) for i in s) for s in slabs]
    ordered_sum(totals, extents, slab, costs, ctx.group)
    found = zip(totals[3:], values, strict=True)
    return [*totals[:3], *(total.reshape(p.shape).to(p.dtype) for total, p in found)]


def _add(total: Tensor, part: Tensor | None) -> None:
    if part is not None:
        total += part
