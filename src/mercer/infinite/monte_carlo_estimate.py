"""Kernels of finite networks from their Jacobians: one network, or a stack of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from .._core.config import block_rows, require_memory
from .._core.progress import progress
from .monte_carlo_draws import Drawn

State = Mapping[str, Tensor]

_STACK_BYTES = 2**23  # of Jacobians in one stack of networks: beyond it, stacking saves no time
_COPIES = 3  # of a Jacobian while it is made


def output_of(module: nn.Module, parameters: State, buffers: State, point: Tensor) -> Tensor:
    """Apply a network to one point; the outputs are a vector (o,)."""
    out = functional_call(module, (dict(parameters), dict(buffers)), (point.unsqueeze(0),))
    return out.reshape(-1)


def jacobian_function(module: nn.Module, counted: frozenset[str]) -> Callable[..., Any]:
    """Make (parameters, buffers, points) to Jacobians and outputs, for stacks of networks.

    Parameters of shape (s, ...) and points (n, *event) give a dict of (s, n, o, ...), of the
    parameters that count alone, and outputs (s, n, o).
    """

    def one(free: State, fixed: State, buffers: State, point: Tensor) -> tuple[Tensor, Tensor]:
        out = output_of(module, {**free, **fixed}, buffers, point)  # (o,)
        return out, out

    over_points = vmap(
        jacrev(one, has_aux=True), in_dims=(None, None, None, 0), randomness="different"
    )
    over_networks = vmap(over_points, in_dims=(0, 0, 0, None), randomness="different")

    def apply(
        parameters: State, buffers: State, points: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        free = {name: value for name, value in parameters.items() if name in counted}
        fixed = {name: value for name, value in parameters.items() if name not in counted}
        return over_networks(free, fixed, dict(buffers), points)

    return apply


def contract(
    left: Mapping[str, Tensor], right: Mapping[str, Tensor], factors: Mapping[str, float]
) -> Tensor:
    """Contract Jacobians (s, n, o, ...) and (s, m, o, ...) to (s, n, m), the mean over o."""
    total: Any = 0.0
    for name, a in left.items():
        b = right[name]
        s, n, o = a.shape[:3]
        product = a.reshape(s, n, -1) @ b.reshape(s, b.shape[1], -1).mT  # (s, n, m)
        total = total + factors[name] ** 2 / o * product
    return total


def stack_states(states: list[tuple[dict[str, Tensor], dict[str, Tensor]]]) -> tuple[State, State]:
    """Stack parameters and buffers of several networks along a new first axis."""
    parameters, buffers = zip(*states, strict=True)
    return tuple(  # pyright: ignore[reportReturnType]
        {name: torch.stack([one[name] for one in many]) for name in many[0]}
        for many in (parameters, buffers)
    )


class Moments:
    """Mean and standard error of matrices that come in stacks."""

    def __init__(self, n: int, m: int, like: Tensor) -> None:
        self.count = 0
        self.mean = like.new_zeros(n, m, dtype=torch.float64)
        self.squares = torch.zeros_like(self.mean)

    def add(self, values: Tensor) -> None:
        """Take in a stack (s, n, m)."""
        values = values.double()
        s, total = len(values), self.count + len(values)
        centre = values.mean(0)
        apart = centre - self.mean
        self.squares += (values - centre).square().sum(0)
        self.squares += apart.square() * (self.count * s / total)
        self.mean += apart * (s / total)
        self.count = total

    def error(self) -> Tensor:
        """Return the standard errors of the mean."""
        return (self.squares / (self.count * (self.count - 1))).sqrt()


def estimate(
    module: nn.Module,
    plan: Mapping[str, Drawn],
    states: Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]],
    samples: int,
    x: Tensor,
    y: Tensor | None,
    show_progress: bool,
) -> tuple[Moments, Moments]:
    """Average the kernels of networks, a stack of them at a time."""
    counted = frozenset(name for name, p in module.named_parameters() if p.requires_grad)
    if not counted:
        raise ValueError("module_factory: expected parameters that require gradients, got none")
    factors = {name: plan[name].factor for name in counted}
    first = next(states)
    outputs = _count_outputs(module, first, x)
    jacobian = outputs * sum(plan[name].shape.numel() for name in counted) * x.element_size()
    n, m = len(x), len(x) if y is None else len(y)
    rows = block_rows(2 * _COPIES * jacobian, most=max(n, m), least=0)
    if rows == 0:
        require_memory(4 * _COPIES * jacobian, "the Jacobian of two points", "take a smaller width")
        rows = 1
    stack = 1
    if rows >= max(n, m):
        points = n if y is None else n + m
        fit = block_rows(_COPIES * jacobian * points, most=samples)
        stack = min(fit, max(1, _STACK_BYTES // (jacobian * points)))
    apply = jacobian_function(module, counted)
    nngp, ntk = Moments(n, m, x), Moments(n, m, x)
    starts = range(0, samples, stack)
    for start in progress(starts, "networks", show=show_progress, total=len(starts)):
        some = [first] if start == 0 else []
        while len(some) < min(stack, samples - start):
            some.append(next(states))
        found = _stack_kernels(apply, *stack_states(some), x, y, factors, rows)
        nngp.add(found[0])
        ntk.add(found[1])
    return nngp, ntk


def _count_outputs(
    module: nn.Module, state: tuple[dict[str, Tensor], dict[str, Tensor]], x: Tensor
) -> int:
    out = functional_call(module, (dict(state[0]), dict(state[1])), (x[:1],))
    if not isinstance(out, Tensor) or out.ndim not in (1, 2) or len(out) != 1:
        came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            "module_factory: expected a network with outputs of shape (n, o) or (n,), got "
            f"{came} for a batch of one point of shape {tuple(x.shape[1:])}"
        )
    return out.numel()


def _stack_kernels(
    apply: Callable[..., tuple[dict[str, Tensor], Tensor]],
    parameters: State,
    buffers: State,
    x: Tensor,
    y: Tensor | None,
    factors: Mapping[str, float],
    rows: int,
) -> tuple[Tensor, Tensor]:
    """Both kernels of each network of a stack, (s, n, m), by blocks of points."""
    stack = len(next(iter(parameters.values())))
    columns = x if y is None else y
    nngp = x.new_empty(stack, len(x), len(columns))
    ntk = torch.empty_like(nngp)
    for i in range(0, len(x), rows):
        left, f = apply(parameters, buffers, x[i : i + rows])
        for j in range(i if y is None else 0, len(columns), rows):
            # The same point twice is one evaluation: its dropout has the same masks.
            same = y is None and j == i
            right, g = (left, f) if same else apply(parameters, buffers, columns[j : j + rows])
            values = f @ g.mT / f.shape[-1], contract(left, right, factors)  # (s, rows, rows)
            for whole, value in zip((nngp, ntk), values, strict=True):
                whole[:, i : i + rows, j : j + rows] = value
                if y is None and not same:
                    whole[:, j : j + rows, i : i + rows] = value.mT
    return nngp, ntk
