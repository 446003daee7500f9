"""Mercer's own random numbers: a function of seed, stream and position, the same everywhere."""

import math
from numbers import Integral
from typing import Any, ClassVar, final

import torch
from torch import Tensor

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: what the key grows by
_WORD = 0xFFFFFFFF
_HALF = 0xFFFF
_CHUNK = 2**12  # blocks at a time: what is computed on stays in the cache


def philox(counters: Tensor, key: tuple[int, int]) -> Tensor:
    """Compute Philox4x32-10, a bijection of 128 bits for every key of 64.

    Parameters
    ----------
    counters : LongTensor of shape (4, n)
        The words of each counter, in [0, 2^32).
    key : tuple of two ints
        The words of the key.

    Returns
    -------
    LongTensor of shape (4, n)
        The words of each block.

    References
    ----------
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> import torch
    >>> [hex(word) for word in philox(torch.zeros(4, 1, dtype=torch.int64), (0, 0)).flatten()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    # The cipher has two lanes, (a, b) and (c, d), which trade places in every round.
    x, y = counters[::2], counters[1::2]  # (2, n): a and c; b and d
    factors = counters.new_tensor(_MULTIPLIERS).unsqueeze(-1)  # (2, 1)
    left, right = key
    for _ in range(_ROUNDS):
        high, low = _multiply(x, factors)
        x = high.flip(0) ^ y ^ counters.new_tensor((left, right)).unsqueeze(-1)
        y = low.flip(0)
        left, right = (left + _WEYL[0]) & _WORD, (right + _WEYL[1]) & _WORD
    return torch.stack((x, y), dim=1).flatten(0, 1)


def _multiply(x: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return the high and the low word of products of words; no step leaves 63 bits."""
    low = x * (factor & _HALF)  # below 2^48
    middle = x * (factor >> 16) + (low >> 16)  # below 2^49
    return middle >> 16, (middle & _HALF) << 16 | low & _HALF


@final
class CounterGenerator:
    r"""Random numbers that are the same on every machine and with every version of torch.

    The word at position p of a stream is a function of (seed, stream, p) alone:

    .. math:: w_{4 i + j} = \mathrm{Philox}_{\text{seed}}(i, \text{stream})_j

    Words, signs, integers and uniform numbers are the same bit by bit; normal ones go through the
    quantile function and agree to 1e-12. It takes the place of a `torch.Generator` wherever
    Mercer draws directions, features and weights, on the CPU.

    Parameters
    ----------
    seed : int
        In [0, 2^64).
    stream : int, default 0
        Which of the independent streams of that seed, in [0, 2^64).
    position : int, default 0
        How many words of the stream have been drawn already, in [0, 2^64).

    Attributes
    ----------
    algorithm_version : int
        Which algorithm this is, a constant of the class; a file that keeps a seed in place of
        the numbers keeps it too. It grows when the numbers change.

    Raises
    ------
    TypeError
        If an argument is no integer.
    ValueError
        If it is out of range.

    References
    ----------
    Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> from mercer.features import CounterGenerator
    >>> CounterGenerator(0).signs((8,))
    tensor([-1,  1,  1,  1,  1, -1,  1, -1], dtype=torch.int8)
    >>> source = CounterGenerator(0, stream=1)
    >>> first, second = source.normal((3,)), source.normal((2,))
    >>> source
    CounterGenerator(0, stream=1, position=10)
    """

    algorithm_version: ClassVar[int] = 1

    def __init__(self, seed: int, stream: int = 0, *, position: int = 0) -> None:
        self._seed = _check("seed", seed)
        self._stream = _check("stream", stream)
        self._position = _check("position", position)

    @property
    def seed(self) -> int:
        """The seed."""
        return self._seed

    @property
    def stream(self) -> int:
        """Which stream of the seed it is."""
        return self._stream

    @property
    def position(self) -> int:
        """How many words have been drawn."""
        return self._position

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn: the CPU."""
        return torch.device("cpu")

    def words(self, count: int) -> Tensor:
        """Draw words of 32 bits.

        Parameters
        ----------
        count : int
            How many.

        Returns
        -------
        LongTensor of shape (count,)
            Integers in [0, 2^32).
        """
        count = _check("count", count)
        start, stop = self._position, _check("position", self._position + count)
        out = torch.empty(count, dtype=torch.int64, device="cpu")
        key = (self._seed & _WORD, self._seed >> 32)
        blocks = -(-stop // 4) if count else 0  # in whole numbers: floats end at 2^53
        for first in range(start // 4, blocks, _CHUNK):
            last = min(first + _CHUNK, blocks)
            index = torch.arange(first, last, device="cpu")  # (n,)
            stream = torch.full_like(index, self._stream & _WORD)
            high = torch.full_like(index, self._stream >> 32)
            counters = torch.stack((index & _WORD, index >> 32, stream, high))  # (4, n)
            drawn = philox(counters, key).mT.flatten()  # (4 n,)
            begin, end = max(start, 4 * first), min(stop, 4 * last)
            out[begin - start : end - start] = drawn[begin - 4 * first : end - 4 * first]
        self._position = stop
        return out

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Draw uniform numbers, two words each: odd multiples of 2^-53, never 0 or 1.

        Parameters
        ----------
        shape : tuple of int
            Of the result.

        Returns
        -------
        Tensor
            Numbers in (0, 1), in float64; symmetric about one half.
        """
        high, low = self.words(2 * math.prod(shape)).reshape(-1, 2).unbind(-1)
        # 32 and 20 bits make 52; with the half after them, all of the 53 that float64 has.
        bits = high << 20 | low >> 12
        return ((bits.double() + 0.5) * 2.0**-52).reshape(shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Draw normal numbers, two words each: the quantiles of uniform ones.

        Parameters
        ----------
        shape : tuple of int
            Of the result.

        Returns
        -------
        Tensor
            Numbers with the law N(0, 1), in float64.
        """
        return torch.special.ndtri(self.uniform(shape))

    def signs(self, shape: tuple[int, ...]) -> Tensor:
        """Draw signs, a word each.

        Parameters
        ----------
        shape : tuple of int
            Of the result.

        Returns
        -------
        Tensor
            Ones and minus ones, int8.
        """
        bits = self.words(math.prod(shape)) >> 31
        return (2 * bits - 1).to(torch.int8).reshape(shape)

    def integers(self, high: int, shape: tuple[int, ...]) -> Tensor:
        """Draw integers, two words each.

        Parameters
        ----------
        high : int
            How many values there are, in [1, 2^62].
        shape : tuple of int
            Of the result.

        Returns
        -------
        LongTensor
            Integers in [0, high); none is more probable than another by more than one in
            2^63 / high.
        """
        high = _check("high", high)
        if not 1 <= high <= 2**62:
            raise ValueError(f"high: expected an integer in [1, 2^62], got {high}")
        top, low = self.words(2 * math.prod(shape)).reshape(-1, 2).unbind(-1)
        return ((top >> 1 << 32 | low) % high).reshape(shape)

    def permutation(self, count: int) -> Tensor:
        """Draw an order, two words an item.

        Parameters
        ----------
        count : int
            How many items there are.

        Returns
        -------
        LongTensor of shape (count,)
            The integers in [0, count), in random order.
        """
        return self.integers(2**62, (count,)).argsort(stable=True)

    def __repr__(self) -> str:
        return f"CounterGenerator({self._seed}, stream={self._stream}, position={self._position})"


def _check(name: str, value: Any) -> int:
    """Return a value as an int of 64 bits."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__} {value!r}")
    number = int(value)
    if not 0 <= number < 2**64:
        raise ValueError(f"{name}: expected an integer in [0, 2^64), got {number}")
    return number


RandomSource = torch.Generator | CounterGenerator
"""What numbers are drawn from; None in its place means torch's default generator."""
