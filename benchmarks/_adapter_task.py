"""What a comparison of ways to fine-tune needs to know of a model and its data."""

import abc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Task(abc.ABC):
    """A model with a head called ``classifier``, and data to fine-tune it on.

    Attributes
    ----------
    name : str
        Folder of the finished runs.
    epochs, batch_size : int
        The same for every method.
    rate_factor : float
        On the learning rates of every method, where the table's are too small or too large.
    """

    name: str
    epochs: int
    batch_size: int = 32
    rate_factor: float = 1.0

    @abc.abstractmethod
    def spec(self) -> dict[str, Any]:
        """Plain values that tell model and data from others."""

    @abc.abstractmethod
    def model(self, seed: int) -> nn.Module:
        """Make a fresh model; the seed decides its head, ``model.embed(**inputs)`` is (n, d)."""

    @abc.abstractmethod
    def labels(self, split: str) -> Tensor:
        """Labels of "train", "dev" or "test", (n,)."""

    @abc.abstractmethod
    def lengths(self, split: str) -> list[int]:
        """Length of each sample."""

    @abc.abstractmethod
    def inputs(self, split: str, index: Tensor) -> dict[str, Tensor]:
        """Make a batch of inputs."""


@torch.no_grad()
def over(task: Task, split: str, function: Callable[..., Tensor], size: int = 64) -> Tensor:
    """Apply a function of inputs to a split, in batches of like length; rows in their order."""
    order = torch.tensor(task.lengths(split)).argsort(stable=True)
    rows = torch.cat([function(**task.inputs(split, part)) for part in order.split(size)])
    back = torch.empty_like(rows)
    back[order] = rows
    return back
