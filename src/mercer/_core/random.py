"""Where random numbers come from: one function for each kind of draw, whatever the source."""

import torch
from torch import Tensor

from .checks import check_generator
from .counter import CounterGenerator, RandomSource

Device = torch.device | str


def draw_uniform(
    shape: tuple[int, ...], source: RandomSource | None, like: Device = "cpu"
) -> Tensor:
    """Draw uniform numbers in [0, 1), in float64.

    Parameters
    ----------
    shape : tuple of int
        Of the result.
    source : torch.Generator, CounterGenerator or None
        The numbers are drawn where it lives.
    like : device
        Where torch's default generator draws them.

    Returns
    -------
    Tensor
        The numbers.
    """
    if isinstance(source, CounterGenerator):
        return source.uniform(shape)
    device = _device(source, like)
    return torch.rand(shape, generator=source, dtype=torch.float64, device=device)


def draw_normal(shape: tuple[int, ...], source: RandomSource | None) -> Tensor:
    """Draw standard normal numbers, in float64."""
    if isinstance(source, CounterGenerator):
        return source.normal(shape)
    return torch.randn(shape, generator=source, dtype=torch.float64, device=_device(source))


def draw_integers(high: int, shape: tuple[int, ...], source: RandomSource | None) -> Tensor:
    """Draw integers in [0, high), as int64."""
    if isinstance(source, CounterGenerator):
        return source.integers(high, shape)
    return torch.randint(high, shape, generator=source, device=_device(source))


def draw_signs(shape: tuple[int, ...], source: RandomSource | None) -> Tensor:
    """Draw ones and minus ones, as integers."""
    if isinstance(source, CounterGenerator):
        return source.signs(shape)
    return 2 * torch.randint(2, shape, generator=source, device=_device(source)) - 1


def draw_permutation(count: int, source: RandomSource | None) -> Tensor:
    """Draw an order of ``count`` items."""
    if isinstance(source, CounterGenerator):
        return source.permutation(count)
    return torch.randperm(count, generator=source, device=_device(source))


def own_stream(generator: RandomSource | int | None) -> RandomSource:
    """Make a source of the same kind, on the CPU, whose seed is drawn from the one given.

    Data that a user drew from the same seed must not come back as directions: G would be
    aligned with the inputs, and every estimate far off.
    """
    generator = check_generator(generator)
    seed = int(draw_integers(2**62, (), generator))
    if isinstance(generator, CounterGenerator):
        return CounterGenerator(seed, generator.stream)
    return torch.Generator().manual_seed(seed)


def _device(source: torch.Generator | None, default: Device = "cpu") -> Device:
    return default if source is None else source.device
