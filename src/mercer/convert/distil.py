"""What a model gives for a batch at its blocks and at its end, and how far another model is off."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.config import config, resident_memory
from .calibration import Batch, Calibration
from .observe import Block

_ROWS_PER_BATCH = 32  # of a tensor that holds all inputs
_HELD_OUT = 8  # every eighth batch
_FLOOR = 0.1  # of the median variance
_MOST_HELD_OUT = 16  # batches, because each judgement takes a forward pass of them

# From what a model returned and the batch it was called with to the tensor that matters.
Output = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Distance:
    r"""How far a model is from its teacher on the rows that count.

    Attributes
    ----------
    blocks : dict of str to float
        For each block, the mean of :math:`(y_j - \hat y_j)^2 / v_j` over rows and outputs j, with
        the variance of the teacher's :math:`y_j`, and a tenth of its median over outputs, for
        :math:`v_j`: 0 is perfect, 1 as good as a constant. A Transformer's blocks have single
        outputs of ten thousand times the variance of the others, which must not count alone. A
        block whose last layer is the first of another is left out, since there the neurons
        themselves become fewer.
    output : float
        The same of the model's output.
    cosine : float
        Mean cosine between output and teacher's output; where the output is a sequence of hidden
        states, between their means over the tokens of each sample.
    loss : float
        What uptraining minimises: the mean over blocks, plus that of the output, plus, for hidden
        states, one minus the cosine.
    """

    blocks: dict[str, float]
    output: float
    cosine: float
    loss: float


@dataclass(frozen=True)
class Seen:
    """What one call of a model gave, as rows that count.

    Attributes
    ----------
    blocks : tuple of Tensor of shape (rows, out_features)
        Outputs of the blocks.
    output : Tensor of shape (rows, d)
        Output of the model.
    pooled : Tensor of shape (samples, d)
        Mean hidden states of each sample; the rows of the output themselves where it is none.
    """

    blocks: tuple[Tensor, ...]
    output: Tensor
    pooled: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in (*self.blocks, self.output, self.pooled))


@dataclass(frozen=True)
class Gap:
    """Differences on one batch that carry gradients.

    Attributes
    ----------
    blocks : Tensor of shape (blocks,)
        Mean squared distance in units of the teacher's variance, block by block.
    output : Tensor of shape ()
        The same of the output.
    cosine : Tensor of shape ()
        Mean cosine.
    """

    blocks: Tensor
    output: Tensor
    cosine: Tensor


@contextmanager
def _recorded(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Collect what the named modules give while the model runs."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}

    def record(name: str) -> Any:
        # A copy, because what runs later may work in place.
        return lambda module, args, output: found[name].append(output.clone())

    hooks = [model.get_submodule(name).register_forward_hook(record(name)) for name in names]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def batches_of(data: Any) -> Calibration:
    """Read data as batches; of a tensor with all inputs, small ones."""
    whole = isinstance(data, Tensor) and data.ndim > 0
    return Calibration(data.split(_ROWS_PER_BATCH) if whole else data)


def divide(batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Return the batches to fit to and those held out; of a single one, both times itself."""
    if len(batches) == 1:
        return batches, batches
    every = max(_HELD_OUT, -(-len(batches) // _MOST_HELD_OUT))
    held_out = batches[every - 1 :: every] or batches[-1:]
    chosen = {batch.start for batch in held_out}
    return [batch for batch in batches if batch.start not in chosen], held_out


class Distiller:
    """Calls a teacher and its students on the same batches and compares them.

    Parameters
    ----------
    calibration : Calibration
        The batches; says which rows count.
    blocks : sequence of Block
        The blocks that were, or will be, replaced.
    output : callable, optional
        See `mercer.convert.uptrain`.
    """

    def __init__(
        self,
        calibration: Calibration,
        blocks: Sequence[Block],
        output: Output | None = None,
    ) -> None:
        self._calibration, self._output = calibration, output
        firsts = {block.first for block in blocks}
        self._layers = {block.name: block.second for block in blocks if block.second not in firsts}
        self._kept: dict[int, Seen] = {}
        self._scales: tuple[list[Tensor], Tensor] | None = None
        self.pools = False

    def see(self, model: nn.Module, batch: Batch) -> Seen:
        """Call a model and return the rows that count."""
        with _recorded(model, list(self._layers.values())) as found:
            result = batch.call(model)
        blocks = []
        for name, second in self._layers.items():
            calls = [self._calibration.rows(batch, y, model, name)[0] for y in found[second]]
            if not calls:
                raise ValueError(f"data: batch {batch.start} does not run through block {name!r}")
            blocks.append(calls[0] if len(calls) == 1 else torch.cat(calls))
        tensor, hidden = self._read(result, batch)
        self.pools = hidden
        # The output of an encoder-decoder is that of its decoder, with the decoder's mask.
        both = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        name = "decoder" if both else ""
        output = self._calibration.rows(batch, tensor, model, name)[0]
        pooled = output
        if hidden:
            mask = batch.tokens(tensor.shape[:-1], model, name)  # (b, t)
            if mask is None:
                pooled = tensor.mean(dim=1)
            else:
                weight = mask.to(tensor).unsqueeze(-1)  # (b, t, 1)
                pooled = (tensor * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        return Seen(tuple(blocks), output, pooled)

    @torch.no_grad()
    def wanted(self, teacher: nn.Module, batch: Batch) -> Seen:
        """Return what the teacher gives, computed once where the memory budget allows."""
        seen = self._kept.get(batch.start)
        if seen is None:
            seen = self.see(teacher, batch)
            free = config.memory_budget - resident_memory()
            if 2 * seen.nbytes < free:  # leaves as much again for the step itself
                self._kept[batch.start] = seen
        return seen

    def gap(self, student: nn.Module, teacher: nn.Module, batch: Batch) -> Gap:
        """Compare a student with its teacher on one batch."""
        if self._scales is None:
            raise RuntimeError("scale the distances first")
        scales, output_scale = self._scales
        wanted, found = self.wanted(teacher, batch), self.see(student, batch)
        blocks = [
            _mean_square(p, q, scale)
            for p, q, scale in zip(found.blocks, wanted.blocks, scales, strict=True)
        ]
        cosine = F.cosine_similarity(_wide(found.pooled), _wide(wanted.pooled), dim=-1)
        return Gap(
            torch.stack(blocks) if blocks else output_scale[:0],
            _mean_square(found.output, wanted.output, output_scale),
            cosine.mean(),
        )

    def loss(self, gap: Gap) -> Tensor:
        """Return what uptraining minimises."""
        total = gap.output + (gap.blocks.mean() if len(gap.blocks) else 0.0)
        return total + (1 - gap.cosine) if self.pools else total

    @torch.no_grad()
    def scale(self, teacher: nn.Module, batches: Sequence[Batch]) -> None:
        """Measure the variance of what the teacher gives: the unit of all distances."""
        seen = [self.wanted(teacher, batch) for batch in batches]
        per_block = zip(*(each.blocks for each in seen), strict=True)
        blocks = [_unit(torch.cat(rows)) for rows in per_block]
        self._scales = blocks, _unit(torch.cat([each.output for each in seen]))

    @torch.no_grad()
    def measure(self, student: nn.Module, teacher: nn.Module, batches: Sequence[Batch]) -> Distance:
        """Average over batches, each weighted by its samples."""
        total = torch.zeros(len(self._layers) + 3, dtype=torch.float64)
        for batch in batches:
            gap = self.gap(student, teacher, batch)
            values = torch.stack([*gap.blocks, gap.output, gap.cosine, self.loss(gap)])
            total += batch.num_samples * values.double().cpu()
        *blocks, output, cosine, loss = (total / sum(b.num_samples for b in batches)).tolist()
        return Distance(dict(zip(self._layers, blocks, strict=True)), output, cosine, loss)

    def _read(self, result: Any, batch: Batch) -> tuple[Tensor, bool]:
        """Return the tensor that matters, and whether it is a sequence of hidden states."""
        if self._output is not None:
            tensor = self._output(result, batch.kwargs or batch.args)
            if not isinstance(tensor, Tensor) or tensor.ndim == 0:
                raise TypeError(
                    "output: expected to return a tensor of shape (..., d), "
                    f"got {type(tensor).__name__}"
                )
            return tensor, False
        for name in ("logits", "last_hidden_state"):
            tensor = getattr(result, name, None)
            if tensor is None and isinstance(result, Mapping):
                tensor = result.get(name)
            if isinstance(tensor, Tensor):
                return tensor, name == "last_hidden_state" and tensor.ndim == 3
        if isinstance(result, tuple | list) and result:
            result = result[0]
        if isinstance(result, Tensor) and result.ndim:
            return result, False
        raise TypeError(
            f"output: the model returns a {type(result).__name__} without logits or hidden "
            "states; pass output=, a function of what it returns and of the batch to a tensor"
        )


def _mean_square(found: Tensor, wanted: Tensor, unit: Tensor) -> Tensor:
    """Mean over rows and outputs of the squared difference, each output in its own unit."""
    return ((_wide(found) - _wide(wanted)).square() / unit).mean()


def _wide(x: Tensor) -> Tensor:
    """Return numbers in float32 or, where they are finer, as they are."""
    return x if x.element_size() > 4 else x.float()


def _unit(rows: Tensor) -> Tensor:
    """Variance of each output of rows (n, d), and a tenth of the median; ones where all are zero.

    Outputs that hardly vary would count as much as the others without the median.
    """
    wide = rows.double()
    variance = wide.var(dim=0, unbiased=False)  # (d,)
    unit = variance + _FLOOR * variance.median()
    if not bool((unit > 0).all()):
        unit = unit + (float(variance.mean()) or float(wide.square().mean()) or 1.0)
    return unit.to(_wide(rows).dtype)
