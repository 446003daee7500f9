"""Layers that stand in for those of ``torch.nn``.

Which one should I use?

================== ===============================================================================
use                for
================== ===============================================================================
`SNNK.from_linear` replacing ``activation(linear(x))`` of a trained network by something smaller:
                   with typical inputs by ``calibrate``, ``features="neuron"`` and
                   ``projection="leverage"``; without data for inputs of norm about one
`SNNK`             a layer to train, with as few trained numbers as you like
`SNNK.bundle`      absorbing the linear layer that follows it, exactly
`SNNKAdapter`      fine-tuning: a residual branch beside frozen layers, the identity at the start
`select_neurons`   finding out which neurons of a layer matter
================== ===============================================================================
"""

from .adapter import SNNKAdapter as SNNKAdapter
from .selection import select_neurons as select_neurons
from .snnk import SNNK as SNNK
