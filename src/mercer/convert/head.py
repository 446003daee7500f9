"""Bundle the head of a classifier: pooler, activation and classifier as features and one matrix."""

import copy
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .._core.activation import resolve_activation
from .._core.checks import check_finite, check_generator, check_int
from .._core.counter import RandomSource
from ..features import FeatureMap, NeuronFeatures
from ..nn.layer_features import draw_features
from .bundle import restored_on_error, why_no_features
from .bundled import BlockReport, Bundled, BundleReport, stored_numbers
from .calibration import Batch, Calibration
from .linear import bias_of, linear_like, weight_of
from .observe import REACHES_OUTPUT, Block, Skipped, observe
from .options import FROM_LAYER, Options, read_projection, read_ridge
from .placing import attribute, place
from .replace_block import Plan, plan_blocks, replace_block
from .running import check_model, check_numbers, evaluating

_SHARE = 4  # of the hidden neurons, one in so many is a feature by default


def bundle_head(
    model: nn.Module,
    calibrate: Tensor | Iterable[Any],
    num_features: int | None = None,
    features: str = "neuron",
    projection: str | None = None,
    ridge: float | str = "gcv",
    *,
    fit: bool = True,
    inplace: bool = False,
    generator: RandomSource | int | None = None,
) -> Bundled:
    r"""Bundle the head of a classifier into frozen features and one matrix.

    A head :math:`W_2 f(W_1 x + b_1) + b_2`, the pooler and the classifier of a Transformer or the
    last two layers of any network, becomes :math:`W \phi(x) + b`: the features stand where the
    first layer stood and are buffers, W and b are the new last layer and all that trains. The
    head is found by following the data through one forward pass, as the block whose outputs are
    outputs of the model, so it may read one token only, have dropout inside, and write its
    activation as a module or as a function.

    ========================================= ==============================================
    model of transformers                     its head
    ========================================= ==============================================
    BERT, ALBERT, DeBERTa                     pooler, tanh or GELU, classifier
    RoBERTa, XLM-R, MPNet, ELECTRA, BART      dense, tanh or GELU, out_proj
    DistilBERT                                pre_classifier, ReLU, classifier
    ViT, DeiT, BEiT for image classification  one linear layer: there is nothing to bundle
    a pooler (of ViT too) and a linear layer  pooler, tanh, that layer
    ========================================= ==============================================

    Parameters
    ----------
    model : Module
        Any module; it is left as it was unless ``inplace``.
    calibrate : Tensor, or iterable of batches
        Inputs to calibrate on, as for `bundle`; labels among them are not looked at. With
        ``fit=False`` the first batch serves to find the head, nothing else.
    num_features : int, optional
        Number of features; None takes a quarter of the head's hidden neurons.
    features : {"neuron", "universal", "arc_cosine"}, default "neuron"
        The feature map. All but neurons chosen from the head, or drawn with ``fit=False``, need an
        activation that is a module of its own in the model.
    projection : str, optional
        With ``"neuron"``: ``"leverage"``, ``"greedy"`` or ``"dpp"`` choose among the head's own
        neurons; ``"orthogonal"``, ``"gaussian"``, ``"hadamard"`` or ``"sobol"`` draw blindly. None
        takes ``"leverage"`` with ``fit``, and ``"orthogonal"`` otherwise or for other features.
    ridge : float or "gcv", default "gcv"
        The ridge of the closed form, or generalised cross-validation.
    fit : bool, default True
        Whether W and b are solved in closed form, on the head's own outputs. Otherwise features
        are drawn, W and b are zero, and both are to be trained: for a head that has learned
        nothing yet.
    inplace : bool, default False
        Whether to change ``model`` itself; after an error it is as it was.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of what is drawn.

    Returns
    -------
    Bundled
        The model and a report; `load` reads back what its ``save_pretrained`` writes.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the model has no such head, an argument is out of range, there are more features than
        neurons to choose from, the features cannot take the place of the activation, or an
        activation on the calibration data is NaN or infinite.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov, "Scalable neural network kernels",
    ICLR 2024, arXiv:2310.13225.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import bundle_head
    >>> _ = torch.manual_seed(0)
    >>> body = [torch.nn.Linear(8, 16), torch.nn.LayerNorm(16)]
    >>> head = [torch.nn.Linear(16, 64), torch.nn.Tanh(), torch.nn.Linear(64, 3)]
    >>> net, x = torch.nn.Sequential(*body, *head), torch.randn(512, 8)
    >>> bundled = bundle_head(net, x, num_features=16)
    >>> bundled.model[4]
    Linear(in_features=16, out_features=3, bias=True)
    >>> agree = bundled.model(x).argmax(-1) == net(x).argmax(-1)
    >>> bool(agree.float().mean() > 0.9)
    True
    """
    if projection is None and not fit:
        projection = "orthogonal"
    options = Options(
        keep=1.0,
        features=features,
        projection=read_projection(projection, features),
        ridge=read_ridge(ridge),
        affine=False,
        generator=check_generator(generator),
    )
    if not fit and options.projection in FROM_LAYER:
        raise ValueError(
            f"projection: {projection!r} chooses by what the head computes, which fit=False does "
            "not look at; expected a way to draw, or fit=True"
        )
    if num_features is not None:
        check_int("num_features", num_features)
    check_model(model)
    check_numbers(model)
    calibration = Calibration(calibrate)
    before = stored_numbers(model)
    work = model if inplace else copy.deepcopy(model)
    with evaluating(work), restored_on_error(work) as placed:
        block, skipped = find_head(work, calibration.batches[0])
        if fit and not options.chooses and (reason := why_no_features(work, block)) is not None:
            raise ValueError(f"features: {reason} (head {block.name!r})")
        dense = stored_numbers(*_layers(work, block))
        plan = _plan(work, block, options, num_features)
        if fit:
            report = replace_block(work, plan, calibration, options, placed)
            if options.chooses:  # it leaves a linear layer there, which would train
                _freeze(work, block, placed)
        else:
            report = _start_afresh(work, plan, options, placed)
        after = stored_numbers(*_layers(work, block))
    return Bundled(
        model=work,
        report=BundleReport(
            blocks=(replace(report, stored_after=after),),
            skipped=tuple(skipped),
            keep=after / dense,
            features=options.features,
            projection=options.projection,
            affine=False,
            stored_before=dense,
            stored_after=after,
            model_before=before,
            model_after=before + after - dense,
        ),
        _placed=tuple(placed),
    )


def find_head(model: nn.Module, batch: Batch) -> tuple[Block, list[Skipped]]:
    """Find the block whose outputs are the model's, and say of other linear layers why not.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    # With labels a model of transformers computes its loss too, which is no output of the head.
    inputs = {name: value for name, value in batch.kwargs.items() if name != "labels"}
    blocks, skipped = observe(model, Batch(batch.args, inputs, batch.start))
    last = [item.name for item in skipped if item.reason.endswith(REACHES_OUTPUT)]
    heads = [block for block in blocks if block.second in last]
    if len(heads) > 1:
        told = ", ".join(repr(block.name) for block in heads)
        raise ValueError(f"model: expected one head, found blocks {told} that end in outputs")
    if not heads and last:
        told = ", ".join(repr(name) for name in last)
        reasons = [f"{item.name}: {item.reason}" for item in skipped if item.name not in last]
        raise ValueError(
            f"model: its outputs come from {told} without Linear -> activation before, so that "
            "there is nothing to bundle: a single linear layer is one matrix already"
            + (f" (the last of the other layers, {reasons[-1]})" if reasons else "")
        )
    if not heads:
        raise ValueError("model: none of its outputs is that of a linear layer, so it has no head")
    others = [Skipped(block.name, "it is not the head") for block in blocks if block != heads[0]]
    return heads[0], [*others, *skipped]


def _layers(model: nn.Module, block: Block) -> list[nn.Module]:
    return [model.get_submodule(name) for name in (block.first, block.second)]


def _plan(model: nn.Module, block: Block, options: Options, num_features: int | None) -> Plan:
    """Plan for a block as `bundle` does, with the number of features that was asked for."""
    plan = plan_blocks(model, [block], replace(options, features="neuron", projection="leverage"))[
        0
    ]
    count = num_features
    if count is None:
        count = max(2, block.hidden_features // _SHARE // 2 * 2)  # even, as sine and cosine need
        count = min(count, block.hidden_features)
    if options.chooses and count > block.hidden_features:
        raise ValueError(
            f"num_features: {options.projection!r} chooses among the {block.hidden_features} "
            f"neurons of {block.name!r}, got {count}"
        )
    activation = None
    if not options.chooses and why_no_features(model, block) is None:
        assert block.activation is not None
        activation = resolve_activation(attribute(model, block.activation))
    report = replace(plan.report, num_features=count)
    return replace(plan, activation=activation, report=report)


def _freeze(model: nn.Module, block: Block, placed: dict[str, Any]) -> None:
    """Make buffers of the chosen neurons; the activation stays where the model computes it."""
    first = model.get_submodule(block.first)
    _put(model, block.first, NeuronFeatures(weight_of(first), bias_of(first), "identity"), placed)


def _start_afresh(
    model: nn.Module, plan: Plan, options: Options, placed: dict[str, Any]
) -> BlockReport:
    """Draw features and set the matrix to zero: no draw is better before anything is learned."""
    start = time.perf_counter()
    block, count = plan.block, plan.report.num_features
    first, second = _layers(model, block)
    weight = weight_of(first)
    check_finite(f"model: the weight of {block.first!r}", weight)  # the draws take its scale
    kept = plan.activation is None  # a function computes it, and stays
    if kept and options.features != "neuron":
        raise ValueError(f"features: {why_no_features(model, block)} (head {block.name!r})")
    phi: FeatureMap = draw_features(
        options.features,
        resolve_activation("identity") if plan.activation is None else plan.activation,
        block.in_features,
        count,
        norms=(1.0, max(float(weight.double().norm(dim=-1).median()), 1e-6)),
        bias=True,
        projection=options.projection,
        generator=options.generator,
        device=weight.device,
        dtype=weight.dtype,
    )
    _put(model, block.first, phi, placed)
    if block.activation is not None and not kept:
        _put(model, block.activation, nn.Identity(), placed)
    zero = weight.new_zeros(block.out_features, count)
    _put(model, block.second, linear_like(zero, zero[:, 0], like=second), placed)
    return replace(plan.report, seconds=time.perf_counter() - start)


def _put(model: nn.Module, name: str, module: nn.Module, placed: dict[str, Any]) -> None:
    placed.setdefault(name, attribute(model, name))
    place(model, name, module)
