"""A parameter or buffer that a module's forward uses as such."""

from dataclasses import dataclass
from typing import final

from torch import Tensor


@final
@dataclass(frozen=True)
class Weight:
    """A tensor of the module, with its name.

    Attributes
    ----------
    name : str
        Where the module has it.
    tensor : Tensor
        Its shape and whether it is trained are read, its values only where it is a number.
    """

    name: str
    tensor: Tensor
