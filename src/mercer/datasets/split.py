"""The shape in which the loaders of rows and classes return a data set."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Inputs with their targets.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        Inputs.
    y : Tensor of shape (n,)
        Targets; classes are counted from 0.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Split:
    """A data set in three parts without a row in common.

    Attributes
    ----------
    train : Rows
        What a model is trained on.
    calibration : Rows
        What a conversion is calibrated on; its targets are not needed for that.
    test : Rows
        What everything is measured on.
    """

    train: Rows
    calibration: Rows
    test: Rows
