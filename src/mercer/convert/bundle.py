"""Bundle the feed-forward blocks of a trained model into scalable neural network kernels."""

import copy
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from .._core.activation import resolve_activation
from .._core.checks import check_generator
from .._core.counter import RandomSource
from .._core.progress import progress as progress_bar
from .bundled import Bundled, BundleReport, stored_numbers
from .calibration import Batch, Calibration
from .observe import Block, Skipped, observe
from .options import Options, read_keep, read_projection, read_ridge
from .placing import attribute, fused_paths, place
from .replace_block import plan_blocks, replace_block, stored_after
from .running import check_model, check_numbers, evaluating

_MOST_TOLD = 12  # skipped layers that an error names


def bundle(
    model: nn.Module,
    calibrate: Tensor | Iterable[Any],
    keep: float | Mapping[str, float] = 0.5,
    where: str | Callable[[str], bool] = "ffn",
    features: str = "neuron",
    projection: str | None = None,
    ridge: float | str = "gcv",
    *,
    affine: bool = False,
    dry_run: bool = False,
    inplace: bool = False,
    progress: bool = False,
    generator: RandomSource | int | None = None,
) -> Bundled:
    r"""Replace blocks Linear -> activation -> Linear by features and one matrix, in closed form.

    A block :math:`y = W_2 f(W_1 x + b_1) + b_2` becomes :math:`y \approx W \phi(x) + b` with a
    ridge regression on the activations that reach the block:

    .. math:: \min_{W, b} \sum_i \|y_i - W \phi(x_i) - b\|^2 + \lambda \|W\|_F^2

    Blocks are found by following the data through one forward pass, so the activation may be a
    module or a function, and are solved in the order they run, each on what reaches it *after*
    the earlier ones were replaced. No gradient step is taken. Padding tokens (an
    ``attention_mask`` or ``src_key_padding_mask`` among the inputs) do not count.

    Parameters
    ----------
    model : Module
        Any module; it is left as it was unless ``inplace``.
    calibrate : Tensor, or iterable of batches
        Inputs to calibrate on: a tensor with one sample a row, or batches, each a tensor, a
        tuple of positional arguments or a mapping of keyword arguments. Every eighth sample is
        held out to measure R², and joins the fit after that.
    keep : float or mapping of str to float, default 0.5
        Numbers stored by a bundle (parameters, buffers, affine part) divided by those of the
        dense block, 0 < keep <= 1; or such a share for each block by its name, other blocks
        staying as they are (`allocate` finds shares that suit the model). For the sake of speed
        the number of features is rounded down to a multiple of eight, four or two where that
        costs at most one in a hundred.
    where : str or callable, default "ffn"
        Which blocks: all (``"ffn"``), those whose first layer's name matches a regular
        expression, or for which a function of that name is true.
    features : {"neuron", "universal", "arc_cosine"}, default "neuron"
        The feature map.
    projection : str, optional
        With ``"neuron"``: ``"leverage"`` (the default), ``"greedy"`` or ``"dpp"`` choose among the
        block's own neurons (see `mercer.nn.select_neurons`); ``"orthogonal"``, ``"gaussian"``,
        ``"hadamard"`` or ``"sobol"`` draw blindly, as they do for the other feature maps
        (``"orthogonal"`` by default).
    ridge : float or "gcv", default "gcv"
        The ridge :math:`\lambda`, or generalised cross-validation.
    affine : bool, default False
        Whether each block also keeps an exact affine part of its input, paid for out of ``keep``.
    dry_run : bool, default False
        Only report which blocks match and which layers do not, and why.
    inplace : bool, default False
        Whether to change ``model`` itself; after an error it is as it was.
    progress : bool, default False
        Whether to show a progress bar.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of what is drawn.

    Returns
    -------
    Bundled
        The smaller model and a report.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If an argument is out of range, no block matches, ``keep`` leaves no feature to a block,
        or an activation on the calibration data is NaN or infinite.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov, "Scalable neural network kernels",
    ICLR 2024, arXiv:2310.13225. Choosing the projections among the layer's own neurons by ridge
    leverage scores is Mercer's own step.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import bundle
    >>> _ = torch.manual_seed(0)
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.GELU(), torch.nn.Linear(64, 8))
    >>> bundled = bundle(net, torch.randn(512, 8), keep=0.5)
    >>> bundled.model
    Sequential(
      (0): Linear(in_features=8, out_features=31, bias=True)
      (1): GELU(approximate='none')
      (2): Linear(in_features=31, out_features=8, bias=True)
    )
    """
    options = Options(
        keep=read_keep(keep),
        features=features,
        projection=read_projection(projection, features),
        ridge=read_ridge(ridge),
        affine=bool(affine),
        generator=check_generator(generator),
    )
    wanted = read_where(where)
    check_model(model)
    if not dry_run:
        check_numbers(model)
    calibration = Calibration(calibrate)
    before = stored_numbers(model)
    work = model if inplace or dry_run else copy.deepcopy(model)
    with evaluating(work), restored_on_error(work) as placed:
        blocks, skipped = choose_blocks(work, calibration.batches[0], wanted, options)
        if not blocks:
            raise ValueError(f"where: no block of the model matches {where!r} ({_tell(skipped)})")
        plans = plan_blocks(work, blocks, options)
        dense = stored_numbers(
            *(work.get_submodule(n) for b in blocks for n in (b.first, b.second))
        )
        reports = [plan.report for plan in plans]
        if not dry_run:
            shown = progress_bar(plans, "bundle", show=progress, total=len(plans))
            reports = [replace_block(work, plan, calibration, options, placed) for plan in shown]
    after = stored_after(plans)
    return Bundled(
        model=work,
        report=BundleReport(
            blocks=tuple(reports),
            skipped=tuple(skipped),
            keep=options.keep,
            features=options.features,
            projection=options.projection,
            affine=options.affine,
            stored_before=dense,
            stored_after=after,
            model_before=before,
            model_after=before + after - dense,
        ),
        _placed=tuple(placed),
    )


def read_where(where: Any) -> Callable[[str], bool]:
    """Return a test of names from what names a choice of blocks."""
    if isinstance(where, str):
        if where == "ffn":
            return lambda name: True
        try:
            pattern = re.compile(where)
        except re.error as error:
            raise ValueError(f"where: {where!r} is not a regular expression: {error}") from None
        return lambda name: pattern.search(name) is not None
    if callable(where):
        return lambda name: bool(where(name))
    raise TypeError(
        "where: expected 'ffn', a regular expression or a function of a name, "
        f"got {type(where).__name__}"
    )


def _tell(skipped: list[Skipped]) -> str:
    """Say why layers were skipped, gated blocks first: their models have nothing to bundle."""
    ordered = sorted(skipped, key=lambda item: not item.reason.startswith("gated"))
    told = [f"{item.name}: {item.reason}" for item in ordered[:_MOST_TOLD]]
    if len(ordered) > _MOST_TOLD:
        told.append(f"and {len(ordered) - _MOST_TOLD} more")
    return "; ".join(told) or "no linear layer"


@contextmanager
def restored_on_error(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Collect what was placed, by name, with what was there before; put it back on an error."""
    placed: dict[str, Any] = {}
    fused = fused_paths(model)
    try:
        yield placed
    except BaseException:
        for name, old in reversed(placed.items()):
            place(model, name, old)
        for module, name, old in fused:
            setattr(module, name, old)
        raise


def choose_blocks(
    model: nn.Module, batch: Batch, wanted: Callable[[str], bool], options: Options
) -> tuple[list[Block], list[Skipped]]:
    """Return the blocks to replace, and the linear layers that start none, with the reason."""
    found, skipped = observe(model, batch)
    named = options.keep if isinstance(options.keep, dict) else None
    unknown = sorted(set(named or ()) - {block.name for block in found})
    if unknown:
        raise ValueError(
            f"keep: the model has no block {unknown[0]!r}; its blocks are "
            f"{', '.join(block.name for block in found) or 'none'}"
        )
    blocks = []
    for block in found:
        reason = None if wanted(block.name) else "where leaves it out"
        if reason is None and named is not None and block.name not in named:
            reason = "keep does not name it"
        if reason is None and not options.same_structure:
            reason = why_no_features(model, block)
        if reason is None:
            blocks.append(block)
        else:
            skipped.append(Skipped(block.name, reason))
    return blocks, skipped


def why_no_features(model: nn.Module, block: Block) -> str | None:
    """Why features cannot take the place of a block's activation, or None if they can."""
    if block.activation is None:
        reason = "is a function call, is shared or carries hooks"
    else:
        try:
            resolve_activation(attribute(model, block.activation))
        except ValueError as error:
            reason = f"is not one that Mercer can compute ({error})"
        else:
            return None
    return (
        f"its activation {reason}, so that features cannot take its place; features='neuron' "
        "with projection 'leverage', 'greedy' or 'dpp' and affine=False can"
    )
