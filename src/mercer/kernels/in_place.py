"""The fast twin of a kernel's formula: a function that works in place, on tiles."""

from functools import partial

from torch import Tensor

InPlace = partial[Tensor]
"""``function(tile, spare)`` with its hyperparameters: writes to the tile, with one of the same
shape to spare, and returns it. Nothing is differentiated."""
