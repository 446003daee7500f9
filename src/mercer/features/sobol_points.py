"""Points of a Sobol sequence, scrambled at random."""

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from .._core.counter import CounterGenerator, RandomSource
from .._core.random import draw_integers

_BITS = SobolEngine.MAXBIT


def draw_sobol_points(num_rows: int, dimensions: int, source: RandomSource | None) -> Tensor:
    """Draw points (num_rows, dimensions) of a scrambled sequence, inside the unit cube."""
    if isinstance(source, CounterGenerator):
        points = _scrambled(num_rows, dimensions, source)
    else:
        seed = int(draw_integers(2**62, (), source))
        engine = SobolEngine(dimensions, scramble=True, seed=seed)
        points = engine.draw(num_rows, dtype=torch.float64)  # (m, d), multiples of 2^-30 in [0, 1)
        # The engine rounds its first point to the default dtype, up to 1.0 at worst.
        points[0] = engine.shift.double() / 2**_BITS
    return points + 2.0 ** -(_BITS + 1)  # half a cell: away from 0 and 1


def _scrambled(num_rows: int, dimensions: int, source: CounterGenerator) -> Tensor:
    """Scramble as the engine does, with numbers of Mercer's own: it takes torch's.

    A digit is replaced by the sum, modulo two, of itself and a random choice of the digits
    before it; then every digit is flipped or not, the same way for all points.
    """
    plain = SobolEngine(dimensions, scramble=False).draw(num_rows, dtype=torch.float64)
    bits = (plain * 2**_BITS).long()  # (m, d), whole numbers
    drawn = source.integers(2**_BITS, (_BITS + 1, dimensions))
    scrambled = drawn[_BITS].expand_as(bits)  # the flips
    for k in range(_BITS):
        digit = 1 << k
        reached = digit | drawn[k] & (digit - 1)  # (d,): what digit k adds to, itself first
        scrambled = scrambled ^ (bits >> k & 1) * reached
    return scrambled.double() / 2**_BITS
