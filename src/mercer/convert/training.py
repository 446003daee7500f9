"""Train some parameters of a model for a set number of steps, and go on after a kill."""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.checks import check_int, check_real
from .._core.progress import progress as progress_bar
from .._core.saving import CONFIG_FILE, load_state, save_state

_WARMUP = 0.06  # of the steps
_LARGEST_GRADIENT = 1.0
_BUCKET = 50  # batches whose samples are sorted by length together


class Diverged(ValueError):  # noqa: N818 - the outcome of a learning rate, which callers try
    """A loss or a gradient that is not finite: the learning rate is too large."""


@dataclass(frozen=True)
class Training:
    """What `train` did.

    Attributes
    ----------
    losses : tuple of float
        The loss at every step.
    resumed : int
        Steps that came from a checkpoint.
    seconds : float
        Time taken by the others.
    """

    losses: tuple[float, ...]
    resumed: int
    seconds: float


def batch_indices(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """Divide samples into batches of like length, in an order that the epoch alone decides.

    Parameters
    ----------
    lengths : sequence of int
        Length of each sample; all the same where they have none.
    batch_size : int
        Samples a batch; the last one may be smaller.
    seed, epoch : int
        Same numbers, same batches: a resumed run needs no record of where it was.

    Returns
    -------
    list of LongTensor
        Indices of the samples of each batch.

    Examples
    --------
    >>> sorted(len(batch) for batch in batch_indices([3, 1, 2, 1, 5], 2, seed=0, epoch=0))
    [1, 2, 2]
    """
    check_int("batch_size", batch_size)
    source = torch.Generator().manual_seed(_seed_of(seed, "epoch", epoch))
    order = torch.randperm(len(lengths), generator=source)
    size = torch.as_tensor(lengths)
    batches: list[Tensor] = []
    for part in order.split(_BUCKET * batch_size):
        batches += part[size[part].argsort(stable=True)].split(batch_size)
    return [batches[i] for i in torch.randperm(len(batches), generator=source).tolist()]


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    steps: int,
    *,
    learning_rate: float,
    weight_decay: float = 0.01,
    seed: int = 0,
    key: str = "",
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 100,
    progress: bool = False,
    label: str = "train",
) -> Training:
    r"""Minimise a loss by AdamW over the parameters that require a gradient.

    The learning rate rises over the first 6 % of the steps and then falls to zero in a straight
    line; gradients are clipped at norm one; matrices decay, vectors do not. What is random in a
    step (dropout) is seeded from its number, so a run that was killed and resumed from its
    checkpoint ends with the same bits as one that was not.

    Parameters
    ----------
    model : Module
        Changed in place; in training mode meanwhile.
    loss : callable
        From the number of a step, from 0, to a scalar. What it returns may depend on that number
        and on the model alone.
    steps : int
        How many.
    learning_rate : float
        The largest.
    weight_decay : float, default 0.01
        Of AdamW.
    seed : int, default 0
        Of what is random in a step. Torch's global random state is as before afterwards.
    key : str, optional
        What else the result depends on: a checkpoint with another key is refused.
    checkpoint : path, optional
        Folder for the state of the training, replaced atomically; where it holds one, the training
        goes on from there.
    every : int, default 100
        Steps between two checkpoints.
    progress : bool, default False
        Whether to show a bar.
    label : str, default "train"
        What the bar is called.

    Returns
    -------
    Training
        The losses.

    Raises
    ------
    TypeError
        If an argument has the wrong type, or what the loss returns is no scalar with a gradient.
    ValueError
        If nothing trains, a number is out of range, a loss or its gradient is not finite (a
        `Diverged`, then), or the checkpoint is of another training.

    References
    ----------
    Loshchilov, Hutter: Decoupled Weight Decay Regularization, 2019, arXiv 1711.05101.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(2, 1)
    >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> y = x.sum(dim=1, keepdim=True)
    >>> done = train(model, lambda step: (model(x) - y).square().mean(), 200, learning_rate=0.1)
    >>> done.losses[-1] < 1e-3
    True
    """
    steps, every = check_int("steps", steps, least=0), check_int("every", every)
    learning_rate = check_real("learning_rate", learning_rate, above=0.0)
    weight_decay = check_real("weight_decay", weight_decay, least=0.0)
    names, parameters = _trained(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=learning_rate,
    )
    made_from = {
        "key": key,
        "steps": steps,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "seed": seed,
        "parameters": {name: list(p.shape) for name, p in zip(names, parameters, strict=True)},
    }
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
    losses: list[float] = []
    if checkpoint is not None and (Path(checkpoint) / CONFIG_FILE).is_file():
        losses = _restore(Path(checkpoint), digest, model, optimizer)
    resumed, start = len(losses), time.perf_counter()
    modes = {module: module.training for module in model.modules()}
    model.train()
    # torch.manual_seed reaches every device's state: only where one can matter, and then all of
    # them are put back.
    on_cpu = all(t.device.type == "cpu" for t in (*model.parameters(), *model.buffers()))
    seed_all = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
    devices = [] if on_cpu else list(range(torch.cuda.device_count()))
    try:
        with torch.random.fork_rng(devices=devices):
            bar = progress_bar(range(resumed, steps), label, show=progress, total=steps - resumed)
            for step in bar:
                seed_all(_seed_of(seed, "step", step))
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate * _share(step, steps)
                optimizer.zero_grad(set_to_none=True)
                value = _check_loss(loss(step))
                _check_finite("loss", value, step, learning_rate)
                value.backward()
                norm = nn.utils.clip_grad_norm_(parameters, _LARGEST_GRADIENT)
                _check_finite("gradient", norm, step, learning_rate)
                optimizer.step()
                losses.append(value.item())
                if checkpoint is not None and len(losses) % every == 0 and len(losses) < steps:
                    _save(Path(checkpoint), digest, model, optimizer, losses)
    finally:
        for module, mode in modes.items():
            module.training = mode
        optimizer.zero_grad(set_to_none=True)
    if checkpoint is not None and steps > resumed:
        _save(Path(checkpoint), digest, model, optimizer, losses)
    return Training(tuple(losses), resumed, time.perf_counter() - start)


def _check_loss(value: Any) -> Tensor:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        told = type(value).__name__
        if isinstance(value, Tensor):
            told = f"one of shape {tuple(value.shape)}, requires_grad={value.requires_grad}"
        raise TypeError(f"loss: expected it to return a scalar tensor with a gradient, got {told}")
    return value


def _check_finite(what: str, value: Tensor, step: int, learning_rate: float) -> None:
    if not bool(value.detach().isfinite()):
        raise Diverged(
            f"learning_rate: the {what} of step {step} is {value.item()} at a learning rate of "
            f"{learning_rate:g}; take a smaller one"
        )


def _trained(model: nn.Module) -> tuple[list[str], list[nn.Parameter]]:
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not named:
        raise ValueError("model: none of its parameters requires a gradient, so nothing trains")
    return [name for name, _ in named], [p for _, p in named]


def _seed_of(seed: int, what: str, number: int) -> int:
    """Mix a seed with the number of a step, so that no two steps of two seeds agree."""
    digest = hashlib.sha256(f"{seed} {what} {number}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _share(step: int, steps: int) -> float:
    """Share of the largest learning rate: up over the warm-up, then down to zero."""
    warmup = math.ceil(_WARMUP * steps)
    if step < warmup:
        return (step + 1) / warmup
    return (steps - step) / max(steps - warmup, 1)


def _moving(model: nn.Module) -> dict[str, Tensor]:
    """Return what a step may change: trained parameters and buffers, by name."""
    names, parameters = _trained(model)
    return dict(zip(names, parameters, strict=True)) | dict(model.named_buffers())


def _save(
    folder: Path,
    digest: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: list[float],
) -> None:
    state = {f"model.{name}": tensor for name, tensor in _moving(model).items()}
    for name, parameter in zip(*_trained(model), strict=True):
        for what, value in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{what}.{name}"] = value
    state["losses"] = torch.tensor(losses, dtype=torch.float64)
    save_state(folder, {"class": "convert.Training", "key": digest}, state)


@torch.no_grad()
def _restore(
    folder: Path, digest: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[float]:
    config, state = load_state(folder)
    fits = _moving(model).keys() == {
        name.removeprefix("model.") for name in state if name.startswith("model.")
    }
    if config.get("class") != "convert.Training" or config.get("key") != digest or not fits:
        raise ValueError(
            f"checkpoint: {folder} holds another training (another model, key or setting); name "
            "another folder, or remove it"
        )
    for name, tensor in _moving(model).items():
        tensor.copy_(state[f"model.{name}"])
    for name, parameter in zip(*_trained(model), strict=True):
        kept: dict[str, Any] = {}
        for key, value in state.items():
            start, _, rest = key.partition(".")
            what, _, owner = rest.partition(".")
            if start == "optimizer" and owner == name:
                # The count of steps stays where AdamW keeps it, on the CPU.
                kept[what] = value if what == "step" else value.to(parameter.device)
        optimizer.state[parameter] = kept
    return state["losses"].tolist()
