"""What the reader makes of a torch module, step by step."""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .operations import Operation
from .propagate import Plan
from .reader import call, event_shape, flat, output_of
from .signal import Signal
from .tape import CHANNEL, NoRuleError, Tape
from .trace import Step, walk
from .weight import Weight

_HEADINGS = ("step", "type", "an entry takes", "trained", "frozen")


@final
@dataclass(frozen=True)
class ReadingRow:
    """A step of a module's forward.

    Attributes
    ----------
    name : str
        Where it stands in the module.
    kind : str
        Class of the module, or name of the function or method.
    numbers : int
        How many covariances it makes for each entry of the kernel matrix; 0 where it costs
        nothing, or is not known.
    cost : str
        What is done to each of them.
    trained, frozen : int
        How many parameters it has, trained or not.
    problem : str
        Why it has no rule; empty where it has one.
    """

    name: str
    kind: str
    numbers: int = 0
    cost: str = ""
    trained: int = 0
    frozen: int = 0
    problem: str = ""


@final
@dataclass(frozen=True)
class Reading:
    """How a module is read as a network of infinite width, made by `explain`.

    Its text is a table.

    Attributes
    ----------
    rows : tuple of ReadingRow
        The steps of the forward, in order.
    """

    rows: tuple[ReadingRow, ...]

    @property
    def supported(self) -> bool:
        """Whether every step has a rule, so that the module has kernels."""
        return not self.problems

    @property
    def problems(self) -> tuple[ReadingRow, ...]:
        """The steps without a rule."""
        return tuple(row for row in self.rows if row.problem)

    def __repr__(self) -> str:
        """Write the table."""
        cells = [_HEADINGS, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in cells) for i in range(len(_HEADINGS))]
        lines = []
        for i, line in enumerate(cells):
            *texts, trained, frozen = (c.ljust(w) for c, w in zip(line, widths, strict=True))
            lines.append("  ".join((*texts, trained.strip().rjust(widths[3]), frozen)).rstrip())
            if i and self.rows[i - 1].problem:
                lines.append(textwrap.indent(textwrap.fill(self.rows[i - 1].problem, 92), "    ! "))
        count = len(self.problems)
        lines.append(
            "every step has a rule"
            if not count
            else f"{count} step{'s' * (count > 1)} without a rule (!); what follows one is read as "
            "if it changed the shape alone"
        )
        return "\n".join(lines)


def _cells(row: ReadingRow) -> tuple[str, ...]:
    cost = f"{row.numbers:,} x {row.cost}" if row.numbers else row.cost
    counts = (f"{n:,}" if n else "" for n in (row.trained, row.frozen))
    return row.name, row.kind, "NO RULE" if row.problem else cost, *counts


def explain(module: nn.Module, example: Tensor | None = None) -> Reading:
    """Say how a module is read as a network of infinite width, and what each step costs.

    Goes on past steps without a rule, so that all of them are seen at once.

    Parameters
    ----------
    module : Module
        The network; it is not changed.
    example : Tensor of shape (n, *event), optional
        An input, for its shape; see `mercer.infinite.NTK`.

    Returns
    -------
    Reading
        The steps; its text is a table.

    Raises
    ------
    TypeError, ValueError
        If the module is none, or an example is needed.

    Examples
    --------
    >>> from torch import nn
    >>> from mercer.infinite import explain
    >>> net = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.BatchNorm1d(64), nn.Linear(64, 1))
    >>> found = explain(net)
    >>> found.supported
    False
    >>> [row.name for row in found.problems]
    ['2']
    >>> print(str(found).splitlines()[2])
    1     Tanh         1 x tanh: series
    """
    shape = event_shape(module, example)
    tape = Tape()
    seen: dict[int, int] = {}
    rows: list[ReadingRow] = []
    steps: list[int] = []

    def perform(step: Step, args: Any, options: Any) -> Any:
        row = _row(step, args, options)
        try:
            found = call(step, tape, seen, args, options)
        except NoRuleError as error:
            row = replace(row, problem=str(error).removeprefix(f"{step.name}: "))
            found = _stand_in(step, args, options)
        if any(isinstance(v, Signal) for v in flat((args, options))):
            rows.append(row)
            steps.append(tape.step)
        return found

    try:
        out = output_of(walk(module, tape, shape, perform), tape)
        if out.positions:
            problem = "has positions left; flatten or average them"
            rows.append(ReadingRow("the output", out.shape_text, problem=problem))
            steps.append(tape.step)
            out = out.reshaped((out.shape[0], -1))
    except NoRuleError as error:
        problem = str(error).removeprefix("module: ")
        rows.append(ReadingRow("module", type(module).__name__, problem=problem))
        return Reading(tuple(rows))
    return Reading(tuple(_priced(rows, steps, tape)))


def _row(step: Step, args: Any, options: Any) -> ReadingRow:
    parameters: Sequence[Tensor]
    if isinstance(step.target, nn.Module):
        parameters = list(step.target.parameters())
    else:
        parameters = [a.tensor for a in flat((args, options)) if isinstance(a, Weight)]
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    frozen = sum(p.numel() for p in parameters) - trained
    return ReadingRow(step.layer, step.kind, trained=trained, frozen=frozen)


def _priced(rows: Sequence[ReadingRow], steps: Sequence[int], tape: Tape) -> list[ReadingRow]:
    """Fill in what the steps cost, in the layouts that are wanted."""
    plan = Plan(tape.operations)
    found = []
    for row, step in zip(rows, steps, strict=True):
        costs: list[tuple[int, Operation]] = []
        for node in tape.made.get(step, []):
            full, operation = plan.cross[node], tape.operations[node]
            if full is not None:
                sizes = operation.positions
                pairs = math.prod(n for n, both in zip(sizes, full, strict=True) if both)
                costs.append((math.prod(sizes) * pairs, operation))
        if costs:
            numbers = max(n for n, _ in costs)
            texts = dict.fromkeys(operation.cost for _, operation in costs)
            row = replace(row, numbers=numbers, cost=", ".join(texts))
        found.append(row)
    return found


def _stand_in(step: Step, args: Any, options: Any) -> Any:
    """Take a signal for the output of a step without a rule: the input's, of another shape."""
    signals = [a for a in flat((args, options)) if isinstance(a, Signal)]
    if not signals:
        return None
    (x, *_), shapes = signals, _shapes(step, args, options)
    if isinstance(shapes, list):
        return tuple(None if s is None else _reshaped(x, s) for s in shapes)
    return _reshaped(x, x.shape if shapes is None else shapes)


def _reshaped(x: Signal, shape: tuple[int, ...]) -> Signal:
    """Give a signal another shape, and randomness of its own."""
    tape = x.tape
    if x.is_data:
        return replace(x, shape=shape, roles=(x.roles[0], *[None] * (len(shape) - 1)))
    x = x.settled()
    if len(shape) == x.ndim:
        for axis in range(1, x.ndim):
            if x.roles[axis] == CHANNEL:
                x = x.widened(axis, shape[axis])
            elif shape[axis] != x.shape[axis]:
                n = x.shape[axis]
                x = x.picked(axis, [i % n for i in range(shape[axis])])
    # What comes next shall not be blamed for what came before: normal, and its own randomness.
    fresh = frozenset({(-1 - tape.step, 0, 2520)})
    return replace(x, gaussian=True, sources=fresh, gains=())


def _shapes(step: Step, args: Any, options: Any) -> Any:
    """Run a step on the meta device for the shape of its output, or those in a tuple of them."""

    def meta(value: Any) -> Any:
        if isinstance(value, Signal):
            return torch.empty(value.shape, device="meta")
        if isinstance(value, Weight):
            return torch.empty_like(value.tensor, device="meta")
        if isinstance(value, tuple | list):
            return type(value)(meta(v) for v in value)
        return value

    inputs = meta(tuple(args))
    named = {k: meta(v) for k, v in options.items()}
    target = step.target
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            if isinstance(target, nn.Module):
                state = {**dict(target.named_parameters()), **dict(target.named_buffers())}
                empty = {k: torch.empty_like(v, device="meta") for k, v in state.items()}
                found = functional_call(target, empty, inputs, named)
            elif isinstance(target, str):
                found = getattr(inputs[0], target)(*inputs[1:], **named)
            else:
                found = target(*inputs, **named)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return None
    if isinstance(found, tuple | list):
        return [tuple(f.shape) if isinstance(f, Tensor) else None for f in found]
    return tuple(found.shape) if isinstance(found, Tensor) else None
