"""A small network trained the usual way, so that there is one to take apart."""

import torch
from torch import Tensor, nn

from .._core.progress import progress

WIDTH = 256
EPOCHS = 40


def untrained_mlp(in_features: int, num_classes: int, seed: int) -> nn.Sequential:
    """Make a multilayer perceptron with two hidden layers; the global random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(in_features, WIDTH),
            nn.GELU(),
            nn.Linear(WIDTH, WIDTH),
            nn.GELU(),
            nn.Linear(WIDTH, num_classes),
        )


def train_mlp(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    seed: int,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    show: bool = False,
) -> nn.Module:
    """Train in place by Adam on the cross-entropy; the order of rows follows the seed.

    Parameters
    ----------
    model : Module
        From (n, d) to class scores (n, classes).
    x : Tensor of shape (n, d)
        Inputs.
    y : Tensor of shape (n,)
        Classes.
    seed : int
        Seed of the order of rows.
    batch_size : int
        Rows a step.
    learning_rate : float
        Of Adam; it falls to zero along half a cosine.
    show : bool
        Whether to show a progress bar.

    Returns
    -------
    Module
        The same module, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    model.train()
    for _ in progress(range(EPOCHS), "training", show=show):
        for rows in torch.randperm(len(x), generator=generator).split(batch_size):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
        schedule.step()
    return model.eval()
