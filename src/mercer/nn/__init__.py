"""Layers that stand in for those of ``torch.nn``.

Which one should I use?

=========================================================== ===================================
you want                                                    use
=========================================================== ===================================
to replace ``activation(linear(x))`` of a trained network   `SNNK.from_linear` with
by something smaller, and have typical inputs               ``calibrate``, ``features="neuron"``,
                                                            ``projection="leverage"``
the same without data, for inputs of norm about one         `SNNK.from_linear`
a layer to train, with as few trained numbers as you like   `SNNK`
to absorb the linear layer that follows it, exactly         `SNNK.bundle`
to know which neurons of a layer matter                     `select_neurons`
=========================================================== ===================================
"""

from .selection import select_neurons as select_neurons
from .snnk import SNNK as SNNK
