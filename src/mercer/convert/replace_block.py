"""Replace one block Linear -> activation -> Linear by features and one matrix."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .._core.activation import Activation, resolve_activation
from ..features import (
    ArcCosineFeatures,
    FeatureMap,
    NeuronFeatures,
    UniversalFeatures,
    WithInput,
)
from ..linalg import StreamingRidge
from ..nn import select_neurons
from .bundled import BlockReport, stored_numbers
from .calibration import Calibration
from .linear import bias_of, linear_like, weight_of
from .observe import Block
from .options import Options
from .placing import attribute, place
from .running import reaching

# Matrix products are up to a fifth slower where a width is no multiple of eight (measured with
# MKL: 767 hidden neurons against 760). That is worth one feature in a hundred, not more.
_ALIGNMENTS = (8, 4, 2)
_WORTH = 0.01


@dataclass(frozen=True)
class Plan:
    """What will become of a block."""

    block: Block
    activation: Activation | None  # None where nothing needs to compute it
    second_after: int  # numbers of the matrix that replaces the second layer
    report: BlockReport


def plan_blocks(model: nn.Module, blocks: list[Block], options: Options) -> list[Plan]:
    """Fix each block's number of features, before anything is replaced."""
    plans: list[Plan] = []
    narrowed: dict[str, int] = {}  # features that reach a layer in a chain of blocks
    for block in blocks:
        block = replace(block, in_features=narrowed.get(block.first, block.in_features))
        plans.append(_plan_block(model, block, options))
        narrowed[block.second] = plans[-1].report.num_features + (
            block.in_features if options.affine else 0
        )
    return plans


def _plan_block(model: nn.Module, block: Block, options: Options) -> Plan:
    activation, shown = None, "function"
    if block.activation is not None:
        found = attribute(model, block.activation)
        kind = type(found).__name__
        shown = kind if isinstance(found, nn.Module) else getattr(found, "__name__", kind)
        activation = None if options.same_structure else resolve_activation(found)
    first, second = model.get_submodule(block.first), model.get_submodule(block.second)
    dense = stored_numbers(first, second)
    stored = _stored(model, block, activation, options)
    step = _step(options)
    keep = options.share(block.name)
    budget = keep * dense
    if stored(step) > budget:
        raise ValueError(
            f"keep: {keep:g} leaves no feature to block {block.name!r} "
            f"({dense:,} numbers); it needs at least {stored(step) / dense:.3f}"
        )
    per_feature = stored(2 * step) - stored(step)
    low, high = 1, int(budget // per_feature) + 1
    if options.chooses:
        high = min(high, block.hidden_features)
    while low < high:  # the largest number of features within the budget
        middle = (low + high + 1) // 2
        low, high = (middle, high) if stored(step * middle) <= budget else (low, middle - 1)
    count = _aligned(step * low, block.hidden_features)
    report = BlockReport(
        name=block.name,
        activation=shown,
        in_features=block.in_features,
        hidden_features=block.hidden_features,
        out_features=block.out_features,
        num_features=count,
        stored_before=dense,
        stored_after=stored(count),
    )
    return Plan(block, activation, _stored_second(block, count, options), report)


def least_share(model: nn.Module, block: Block, options: Options) -> float:
    """Share of its numbers that a block must keep for one feature."""
    dense = stored_numbers(model.get_submodule(block.first), model.get_submodule(block.second))
    return _stored(model, block, None, options)(_step(options)) / dense


def _step(options: Options) -> int:
    return 2 if options.features == "universal" else 1  # sine and cosine come in pairs


def _stored_second(block: Block, num_features: int, options: Options) -> int:
    width = num_features + (block.in_features if options.affine else 0)
    return block.out_features * (width + 1)


def _stored(
    model: nn.Module, block: Block, activation: Activation | None, options: Options
) -> Callable[[int], int]:
    """Make the function from a number of features to what a block then stores."""
    bias = bias_of(model.get_submodule(block.first)) is not None

    def stored(num_features: int) -> int:
        phi = _make_map(block, activation, num_features, options, bias=bias, device="meta")
        return stored_numbers(phi) + _stored_second(block, num_features, options)

    return stored


def stored_after(plans: list[Plan]) -> int:
    """Numbers stored by all planned blocks, where one may start with another's second layer."""
    starts = {plan.block.first for plan in plans}
    total = 0
    for plan in plans:
        total += plan.report.stored_after
        if plan.block.second in starts:  # the next block's features take the place of the matrix
            total -= plan.second_after
    return total


def _aligned(num_features: int, all_neurons: int) -> int:
    """Round a number of features down to one at which matrix products are fast."""
    for alignment in _ALIGNMENTS:
        spare = num_features % alignment
        if num_features != all_neurons and spare <= _WORTH * num_features:
            return num_features - spare
    return num_features


def _make_map(
    block: Block,
    activation: Activation | None,
    num_features: int,
    options: Options,
    *,
    bias: bool,
    **more: Any,
) -> FeatureMap:
    """Make a feature map from a block's input; where its draw does not matter, any draw."""
    sizes = (block.in_features, num_features)
    draw = "gaussian" if options.chooses else options.projection
    if options.features == "neuron":
        return NeuronFeatures.random(*sizes, activation or "identity", draw=draw, bias=bias, **more)
    if options.features == "universal":
        return UniversalFeatures(activation or "identity", *sizes, draw=draw, **more)
    return ArcCosineFeatures(*sizes, draw=draw, **more)


def replace_block(
    model: nn.Module,
    plan: Plan,
    calibration: Calibration,
    options: Options,
    placed: dict[str, Any],
) -> BlockReport:
    """Solve one block on what reaches it now, and put the result in its place."""
    start = time.perf_counter()
    block, num_features = plan.block, plan.report.num_features
    first, second = model.get_submodule(block.first), model.get_submodule(block.second)
    phi: FeatureMap | None = None
    slots: dict[str, nn.Module]
    if options.chooses:
        fit, held_out = moments(model, block, calibration)
        chosen = select_neurons(
            fit.feature_scatter / fit.count,
            num_features,
            method=options.projection,
            output_weight=weight_of(second),
            generator=options.generator,
        )
        bias = bias_of(first)
        weight, bias = weight_of(first)[chosen], None if bias is None else bias[chosen]
        if options.same_structure:
            fit, held_out = fit.subset(chosen), held_out.subset(chosen)
            slots = {block.first: linear_like(weight, bias, like=first)}
        else:
            assert plan.activation is not None
            phi = NeuronFeatures(weight, bias, plan.activation)
    else:
        phi = _drawn_map(model, plan, calibration, options)
    if phi is not None:
        assert block.activation is not None
        phi = WithInput(phi) if options.affine else phi
        slots = {block.first: phi, block.activation: nn.Identity()}
        fit, held_out = moments(model, block, calibration, phi)
    r2 = None
    if held_out.count:
        r2 = float(held_out.score(fit.solve(ridge=options.ridge)).mean())
        fit.merge(held_out)  # measured, they serve the final fit as well
    solution = fit.solve(ridge=options.ridge)
    slots[block.second] = linear_like(solution.weight, solution.bias, like=second)
    for name, module in slots.items():
        placed.setdefault(name, attribute(model, name))
        place(model, name, module)
    return replace(
        plan.report,
        r2=r2,
        ridge=solution.ridge,
        rows=int(fit.count),
        seconds=time.perf_counter() - start,
    )


def _drawn_map(
    model: nn.Module, plan: Plan, calibration: Calibration, options: Options
) -> FeatureMap:
    """Draw a map suited to the size of what reaches the block."""
    block = plan.block
    first = model.get_submodule(block.first)
    weight, bias = weight_of(first), bias_of(first)
    more: dict[str, Any] = {
        "generator": options.generator,
        "device": weight.device,
        "dtype": weight.dtype,
    }
    if options.features == "universal":
        seen = reaching(model, block, calibration.batches[0], calibration)
        x = torch.cat([each.x for each in seen]).float()  # (n, in)
        z = F.linear(x, weight.float(), None if bias is None else bias.float())  # (n, hidden)
        if not bool(z.isfinite().all()):
            raise ValueError(
                f"features: what reaches block {block.name!r} overflows; universal features "
                "suit inputs of norm about 1, above that they grow exponentially"
            )
        norms = (float(x.norm(dim=-1).median()), float(weight.float().norm(dim=-1).median()))
        more["norms"] = tuple(max(norm, 1e-6) for norm in norms)
        more["domain"] = max(float(z.abs().amax()), 1.0)
    return _make_map(
        block, plan.activation, plan.report.num_features, options, bias=bias is not None, **more
    )


def moments(
    model: nn.Module, block: Block, calibration: Calibration, phi: FeatureMap | None = None
) -> tuple[StreamingRidge, StreamingRidge]:
    """Accumulate moments of features and block outputs, for fitting and held out.

    Without a map the features are the block's own hidden neurons.
    """
    second = model.get_submodule(block.second)
    sizes = (block.hidden_features if phi is None else phi.num_features, block.out_features)
    device = weight_of(second).device
    fit, held_out = (StreamingRidge(*sizes, device=device) for _ in range(2))
    for batch in calibration.batches:
        for seen in reaching(model, block, batch, calibration):
            features = seen.hidden if phi is None else phi(seen.x)
            for ridge, rows in ((fit, ~seen.held_out), (held_out, seen.held_out)):
                if bool(rows.any()):
                    ridge.update(features[rows], seen.y[rows])
    if fit.count == 0:
        raise ValueError(
            f"calibrate: no row reaches block {block.name!r} that is neither padding nor held out"
        )
    return fit, held_out
