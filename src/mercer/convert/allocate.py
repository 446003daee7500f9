"""Choose which share each block keeps, under one budget for all of them."""

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.checks import check_choice, check_generator, check_real
from .._core.counter import RandomSource
from .._core.progress import progress as progress_bar
from ..nn import select_neurons
from .allocation import Allocation, choose_shares
from .bundle import choose_blocks, read_where
from .calibration import Calibration
from .distil import Distiller, Output, batches_of, divide
from .linear import bias_of, linear_like, weight_of
from .observe import Block
from .options import FROM_LAYER, Options, read_ridge
from .placing import attribute, fused_paths, place
from .replace_block import least_share, moments, plan_blocks
from .running import check_model, evaluating, reaching

_AROUND = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)  # times the share asked for
_ROUNDS = 15  # of timing, after two that warm up


def allocate(
    model: nn.Module,
    calibrate: Tensor | Iterable[Any],
    keep: float = 0.5,
    where: str | Callable[[str], bool] = "ffn",
    cost: str = "parameters",
    *,
    shares: Sequence[float] | None = None,
    projection: str = "leverage",
    ridge: float | str = "gcv",
    output: Output | None = None,
    progress: bool = False,
    generator: RandomSource | int | None = None,
) -> Allocation:
    r"""Choose the share that each block keeps, so that the model's output suffers least.

    Each block alone is bundled at each of several shares, and the error :math:`e_b(s)` that this
    causes at the output of the model is measured on calibration data that were held out. Errors
    of several blocks are predicted to add up, and the shares solve

    .. math::
        \min_{s} \sum_b e_b(s_b) \quad \text{subject to} \quad
        \sum_b c_b(s_b) \le \text{keep} \sum_b c_b(\text{dense})

    exactly, among the shares that were tried.

    Parameters
    ----------
    model : Module
        The dense model; it is left as it was.
    calibrate : Tensor, or iterable of batches
        As `bundle` takes them. Every eighth batch, at most 16 of them, is held out for measuring
        errors (a tensor is divided into batches of 32).
    keep : float, default 0.5
        The budget: what the blocks may cost together, divided by what they cost dense.
    where : str or callable, default "ffn"
        Which blocks, see `bundle`.
    cost : {"parameters", "latency"}, default "parameters"
        What is limited: stored numbers, or the time of the blocks, as this machine takes it for
        one batch (medians of turns; an activation that is a function is timed as GELU).
    shares : sequence of float, optional
        The shares to try; ``keep`` is always among them. By default a quarter to three times
        ``keep``.
    projection : {"leverage", "greedy", "dpp"}, default "leverage"
        How neurons are chosen, see `bundle`.
    ridge : float or "gcv", default "gcv"
        See `bundle`.
    output : callable, optional
        Which output of the model counts, see `uptrain`.
    progress : bool, default False
        Whether to show a progress bar.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of what ``"dpp"`` draws.

    Returns
    -------
    Allocation
        The shares, for ``bundle(keep=allocation.keep)`` or `uptrain`, and what they rest on.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument is out of range, no block matches, or the budget is too small.

    Notes
    -----
    A layer that two blocks share counts in both, as it does for ``keep`` of `bundle`.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import allocate, bundle
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(
    ...     *(torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8), torch.nn.Tanh()),
    ...     *(torch.nn.LayerNorm(8), torch.nn.Linear(8, 64), torch.nn.ReLU()),
    ...     torch.nn.Linear(64, 8),
    ... )
    >>> x = torch.randn(512, 8)
    >>> allocation = allocate(net, x, keep=0.5)
    >>> sorted(allocation.keep)
    ['0', '5']
    >>> allocation.predicted <= allocation.uniform and allocation.spent <= allocation.budget
    True
    >>> smaller = bundle(net, x, keep=allocation.keep).model
    """
    check_choice("cost", cost, ("parameters", "latency"))
    keep = check_real("keep", keep, above=0.0, most=1.0)
    options = Options(
        keep=keep,
        features="neuron",
        projection=check_choice("projection", projection, FROM_LAYER),
        ridge=read_ridge(ridge),
        affine=False,
        generator=check_generator(generator),
    )
    grid = _read_shares(shares, keep)
    wanted = read_where(where)
    check_model(model)
    fitted, held_out = divide(batches_of(calibrate).batches)
    calibration, judging = (
        Calibration([batch.kwargs or batch.args for batch in part]) for part in (fitted, held_out)
    )
    work = copy.deepcopy(model)
    errors: dict[str, tuple[float, ...]] = {}
    costs: dict[str, tuple[float, ...]] = {}
    dense_cost: dict[str, float] = {}
    known_times: dict[tuple[str | int, ...], list[float]] = {}
    with evaluating(model), evaluating(work):
        blocks, skipped = choose_blocks(work, calibration.batches[0], wanted, options)
        if not blocks:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:12])
            raise ValueError(f"where: no block of the model matches {where!r} ({reasons})")
        distiller = Distiller(judging, (), output)
        distiller.scale(model, judging.batches)
        for block in progress_bar(blocks, "allocate", show=progress, total=len(blocks)):
            least = least_share(work, block, options)
            fitting = [share for share in grid if share >= least]
            if keep < least:
                raise ValueError(
                    f"keep: {keep:g} leaves no feature to block {block.name!r}; it needs at least "
                    f"{least:.3f}"
                )
            reports = [
                plan_blocks(work, [block], replace(options, keep=share))[0].report
                for share in fitting
            ]
            widths = [report.num_features for report in reports]
            errors[block.name] = tuple(
                _errors(work, model, block, widths, calibration, judging, distiller, options)
            )
            if cost == "parameters":
                costs[block.name] = tuple(float(report.stored_after) for report in reports)
                dense_cost[block.name] = float(reports[0].stored_before)
            else:
                *times, dense = _times(work, block, widths, calibration, known_times)
                costs[block.name], dense_cost[block.name] = tuple(times), dense
            # Blocks for which the smallest shares leave nothing have fewer options.
            missing = len(grid) - len(fitting)
            for table in (errors, costs):
                table[block.name] = (float("inf"),) * missing + table[block.name]
    names = [block.name for block in blocks]
    budget = keep * sum(dense_cost.values())
    chosen, front = choose_shares([costs[n] for n in names], [errors[n] for n in names], budget)
    same = grid.index(keep)
    return Allocation(
        keep={name: grid[i] for name, i in zip(names, chosen, strict=True)},
        cost=cost,
        budget=budget,
        spent=sum(costs[name][i] for name, i in zip(names, chosen, strict=True)),
        predicted=sum(errors[name][i] for name, i in zip(names, chosen, strict=True)),
        uniform=sum(errors[name][same] for name in names),
        shares=grid,
        errors=errors,
        costs=costs,
        front=tuple(front),
    )


def _read_shares(shares: Sequence[float] | None, keep: float) -> tuple[float, ...]:
    if shares is None:
        shares = [min(factor * keep, 1.0) for factor in _AROUND]
    given = [check_real("shares", share, above=0.0, most=1.0) for share in shares]
    return tuple(sorted({*given, keep}))


def _errors(
    work: nn.Module,
    model: nn.Module,
    block: Block,
    widths: Sequence[int],
    calibration: Calibration,
    judging: Calibration,
    distiller: Distiller,
    options: Options,
) -> list[float]:
    """Error at the model's output with one block at each width, the others dense."""
    first, second = work.get_submodule(block.first), work.get_submodule(block.second)
    fit, rest = moments(work, block, calibration)
    fit.merge(rest)
    covariance = fit.feature_scatter / fit.count  # (hidden, hidden)
    fused = fused_paths(work)
    found: dict[int, float] = {}
    for width in widths:
        if width in found:
            continue
        chosen = select_neurons(
            covariance,
            width,
            method=options.projection,
            output_weight=weight_of(second),
            generator=options.generator,
        )
        solution = fit.subset(chosen).solve(ridge=options.ridge)
        bias = bias_of(first)
        bias = None if bias is None else bias[chosen]
        place(work, block.first, linear_like(weight_of(first)[chosen], bias, like=first))
        place(work, block.second, linear_like(solution.weight, solution.bias, like=second))
        try:
            found[width] = distiller.measure(work, model, judging.batches).output
        finally:
            place(work, block.first, first)
            place(work, block.second, second)
            for module, name, old in fused:
                setattr(module, name, old)
    return [found[width] for width in widths]


def _times(
    work: nn.Module,
    block: Block,
    widths: Sequence[int],
    calibration: Calibration,
    known: dict[tuple[str | int, ...], list[float]],
) -> list[float]:
    """Seconds of a block at each width, and dense: medians over rounds in which all take turns."""
    first, second = work.get_submodule(block.first), work.get_submodule(block.second)
    seen = reaching(work, block, calibration.batches[0], calibration)
    x = torch.cat([each.x for each in seen])  # (n, in)
    activation = F.gelu if block.activation is None else attribute(work, block.activation)
    sizes = (len(x), block.in_features, block.hidden_features, block.out_features, *widths)
    key = (repr(activation), *sizes)
    if key in known:  # blocks of the same sizes and activation take the same time
        return known[key]
    runs: list[tuple[Any, Any]] = []
    for width in widths:
        weight, bias = weight_of(first)[:width], bias_of(first)
        bias = None if bias is None else bias[:width]
        out = weight_of(second)[:, :width]
        runs.append(
            (
                linear_like(weight, bias, like=first),
                linear_like(out, bias_of(second), like=second),
            )
        )
    runs.append((first, second))
    taken: list[list[float]] = [[] for _ in runs]
    for turn in range(_ROUNDS + 2):
        order = range(len(runs)) if turn % 2 else reversed(range(len(runs)))
        for index in order:
            narrow, wide = runs[index]
            start = time.perf_counter()
            y = wide(activation(narrow(x)))
            if y.device.type != "cpu":
                torch.accelerator.synchronize()
            if turn > 1:
                taken[index].append(time.perf_counter() - start)
    known[key] = [median(each) for each in taken]
    return known[key]
