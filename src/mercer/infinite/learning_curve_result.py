"""Predicted risks, and what they look like."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .._core.axes import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_NAMES = {"samples": "training samples", "features": "random features", "ridge": "ridge"}


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """The predicted risk of ridge regression; every field is of the same shape.

    Attributes
    ----------
    samples, features, ridge : Tensor of shape (...)
        What was asked for; features are infinite for the kernel itself.
    test, train : Tensor of shape (...)
        Mean squared errors, summed over outputs.
    kappa, gamma : Tensor of shape (...)
        Effective ridges, of samples and of features, on the scale of the eigenvalues.
    overfitting : Tensor of shape (...)
        By what factor the fit to a sample rather than the distribution raises the test risk.
    optimal : bool
        Whether the ridge was chosen to minimise the test risk.
    """

    samples: Tensor
    features: Tensor
    ridge: Tensor
    test: Tensor
    train: Tensor
    kappa: Tensor
    gamma: Tensor
    overfitting: Tensor
    optimal: bool = False

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the test risk (solid) and the train risk (dashed).

        The horizontal axis is what varies: samples, or else features, or else the ridge; of what
        else varies, each value is a line.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        ax = axes_or_new(ax)
        given = {"samples": self.samples, "features": self.features}
        if not self.optimal:  # else it follows from the two
            given["ridge"] = self.ridge
        varied = {name: value for name, value in given.items() if _varies(value)}
        along = next(iter(varied), "samples")
        axis = _axis(given[along])

        def lines(value: Tensor) -> Tensor:
            """Bring the axis to the front, (points, lines)."""
            value = value.reshape(1) if value.ndim == 0 else value
            return value.movedim(axis, 0).reshape(value.shape[axis], -1)

        x, test, train = lines(given[along]), lines(self.test), lines(self.train)
        others = {name: lines(value) for name, value in varied.items() if name != along}
        others = {name: value for name, value in others.items() if _varies(value[0])}
        mark = "o" if len(x) == 1 else ""
        for i in range(x.shape[1]):
            order = x[:, i].argsort()
            said = ", ".join(f"{_NAMES[name]} {_number(v[0, i])}" for name, v in others.items())
            colour = _COLOURS[i % len(_COLOURS)]
            label = f"test, {said}" if said else "test"
            ax.plot(x[order, i], test[order, i], mark + "-", color=colour, label=label)
            label = None if i else "train"
            ax.plot(x[order, i], train[order, i], mark + "--", color=colour, label=label, lw=1)
        ax.set_xscale("symlog", linthresh=_least(x)) if along == "ridge" else ax.set_xscale("log")
        if bool((test[test.isfinite()] > 0).all()):
            ax.set_yscale("log")
            finite = test[test.isfinite()]
            if finite.numel():
                ax.set_ylim(float(finite.min()) / 5, float(finite.max()) * 1.5)
        ax.set_xlabel(_NAMES[along])
        ax.set_ylabel("mean squared error")
        ax.set_title("Predicted learning curve" + (", best ridge" if self.optimal else ""))
        ax.legend(frameon=False)
        return ax


def _varies(value: Tensor) -> bool:
    return value.numel() > 1 and bool((value != value.flatten()[0]).any())


def _axis(value: Tensor) -> int:
    """Find the first axis along which a tensor varies."""
    for axis in range(value.ndim):
        if value.shape[axis] > 1 and bool((value != value.narrow(axis, 0, 1)).any()):
            return axis
    return 0


def _least(x: Tensor) -> float:
    """Find the smallest ridge above zero, where the axis turns from linear to logarithmic."""
    positive = x[x > 0]
    return float(positive.min()) if positive.numel() else 1.0


def _number(value: Tensor) -> str:
    number = float(value)
    return "∞" if math.isinf(number) else f"{number:g}"
