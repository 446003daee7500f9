"""Calibration data: batches that a model is called with, and the rows of them that count."""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from .._core.checks import check_finite

_ROWS_PER_BATCH = 256  # of a tensor that holds all calibration inputs
_HELD_OUT = 8  # every eighth sample is kept for measuring R^2
_SAMPLES_ENOUGH = 16  # with fewer samples, single rows are held out instead of whole samples


@dataclass(frozen=True)
class Batch:
    """One call of the model.

    Attributes
    ----------
    args : tuple
        Positional arguments.
    kwargs : dict
        Keyword arguments.
    start : int
        How many samples came in earlier batches.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    start: int

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors among the arguments."""
        yield from (leaf for leaf in tree_flatten((self.args, self.kwargs))[0] if _is_tensor(leaf))

    @property
    def num_samples(self) -> int:
        """Length of the first tensor's first axis."""
        return len(next(self.tensors()))

    def call(self, model: nn.Module) -> Any:
        """Call the model with copies, on the device of its first parameter."""
        anchor = next(model.parameters(), None)
        device = None if anchor is None else anchor.device
        args, kwargs = tree_map(
            lambda leaf: leaf.to(device, copy=True) if _is_tensor(leaf) else leaf,
            (self.args, self.kwargs),
        )
        return model(*args, **kwargs)

    def _argument(self, name: str, model: nn.Module) -> Any:
        """Return what the model gets under a name, by position or by keyword."""
        by_position = dict(
            zip(inspect.signature(model.forward).parameters, self.args, strict=False)
        )
        return self.kwargs.get(name, by_position.get(name))

    def tokens(self, leading: torch.Size, model: nn.Module, name: str = "") -> Tensor | None:
        """Boolean mask of the rows that are not padding, or None where all rows count.

        Parameters
        ----------
        leading : torch.Size
            Shape of an activation without its last axis.
        model : Module
            Says whether sequences are laid out batch first.
        name : str
            Name of the layer; those in the decoder of an encoder-decoder have a mask of their own.
        """
        both = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        if both and "decoder" in name.split("."):
            real = self._argument("decoder_attention_mask", model)
        else:
            real = self._argument("attention_mask", model)
        if not _is_tensor(real):
            padding = self._argument("src_key_padding_mask", model)
            if not _is_tensor(padding):
                return None
            real = ~padding.bool()
            batch_first = all(getattr(module, "batch_first", True) for module in model.modules())
            if real.ndim == 2 and not batch_first:
                real = real.mT
        if real.is_floating_point() and bool((real <= 0).all()):
            real = real == 0  # a mask that is added: 0 for tokens, very negative for padding
        if len(leading) == 1 and real.numel() == leading.numel():
            real = real.reshape(leading)  # the model lays samples and tokens along one axis
        return real != 0 if real.shape == leading else None


class Calibration:
    """Batches of calibration inputs, checked once and iterated many times.

    Parameters
    ----------
    calibrate : Tensor, or iterable of batches
        A tensor of inputs, one sample a row of its first axis; or batches, each a tensor, a
        tuple of positional arguments or a mapping of keyword arguments (as tokenizers return).

    Raises
    ------
    TypeError
        If a batch is none of these.
    ValueError
        If there is no sample, or an input holds NaN or infinity.
    """

    def __init__(self, calibrate: Tensor | Iterable[Any]) -> None:
        if _is_tensor(calibrate):
            if calibrate.ndim == 0:
                raise ValueError("calibrate: expected samples along the first axis, got a scalar")
            calibrate = calibrate.split(_ROWS_PER_BATCH)
        if isinstance(calibrate, Mapping):
            calibrate = [calibrate]
        if isinstance(calibrate, str) or not isinstance(calibrate, Iterable):
            raise TypeError(
                "calibrate: expected a tensor or an iterable of batches, "
                f"got {type(calibrate).__name__}"
            )
        self.batches: list[Batch] = []
        self.num_samples = 0
        for index, given in enumerate(calibrate):
            batch = _read_batch(given, index, self.num_samples)
            first = next(batch.tensors(), None)
            if first is None or first.ndim == 0:
                raise ValueError(f"calibrate: batch {index} holds no tensor with samples")
            for tensor in batch.tensors():
                if tensor.is_floating_point():
                    # Masks that are added hold -inf.
                    shown = tensor if tensor is first else tensor[tensor != -torch.inf]
                    check_finite(f"calibrate: batch {index}", shown)
            if len(first):
                self.batches.append(batch)
                self.num_samples += len(first)
        if not self.batches:
            raise ValueError("calibrate: expected at least one sample, got none")

    def rows(
        self, batch: Batch, activation: Tensor, model: nn.Module, name: str = ""
    ) -> tuple[Tensor, Tensor]:
        """Flatten an activation into the rows that count, and say which of them are held out.

        Parameters
        ----------
        batch : Batch
            The call that made the activation.
        activation : Tensor of shape (..., d)
            What reached a layer.
        model : Module
            The model that was called.
        name : str
            Name of the layer.

        Returns
        -------
        rows : Tensor of shape (n, d)
            Padding left out.
        held_out : Tensor of shape (n,)
            True for rows on which R^2 is measured instead of being fitted to.
        """
        leading = activation.shape[:-1]
        count = leading.numel()
        index = torch.arange(count, device=activation.device).reshape(leading)
        if self.num_samples >= _SAMPLES_ENOUGH:  # whole samples: their rows are alike
            index = index // max(count // batch.num_samples, 1) + batch.start
        held_out = index % _HELD_OUT == _HELD_OUT - 1
        tokens = batch.tokens(leading, model, name)
        if tokens is None:
            return activation.reshape(count, activation.shape[-1]), held_out.reshape(-1)
        tokens = tokens.to(activation.device)
        return activation[tokens], held_out[tokens]


def _is_tensor(value: Any) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor)


def _read_batch(given: Any, index: int, start: int) -> Batch:
    if _is_tensor(given):
        return Batch((given,), {}, start)
    if isinstance(given, Mapping):
        return Batch((), dict(given), start)
    if isinstance(given, tuple | list):
        return Batch(tuple(given), {}, start)
    raise TypeError(
        f"calibrate: batch {index} is a {type(given).__name__}; expected a tensor, a tuple of "
        "positional arguments or a mapping of keyword arguments"
    )
