"""Options that `bundle` and `solve` share, and how they are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.checks import check_choice, check_real
from .._core.counter import RandomSource

FROM_LAYER = ("leverage", "greedy", "dpp")  # choose among the layer's own neurons
DRAWS = ("orthogonal", "gaussian", "hadamard", "sobol")
FEATURES = ("neuron", "universal", "arc_cosine")


@dataclass(frozen=True)
class Options:
    """How `bundle` replaces each block; its arguments, checked."""

    keep: float | dict[str, float]
    features: str
    projection: str
    ridge: float | str
    affine: bool
    generator: RandomSource | None

    def share(self, name: str) -> float:
        """Share of its stored numbers that a block keeps."""
        return self.keep[name] if isinstance(self.keep, dict) else self.keep

    @property
    def chooses(self) -> bool:
        """Whether features are chosen among the layer's own neurons."""
        return self.projection in FROM_LAYER

    @property
    def same_structure(self) -> bool:
        """Whether a block stays Linear -> activation -> Linear, only narrower."""
        return self.chooses and not self.affine


def read_keep(keep: Any) -> float | dict[str, float]:
    """Return a share above 0 and at most 1, or one for each name."""
    if not isinstance(keep, Mapping):
        return check_real("keep", keep, above=0.0, most=1.0)
    if not keep or not all(isinstance(name, str) for name in keep):
        raise ValueError(
            f"keep: expected a share, or shares by the names of blocks, got {dict(keep)!r}"
        )
    return {
        name: check_real(f"keep[{name!r}]", share, above=0.0, most=1.0)
        for name, share in keep.items()
    }


def read_ridge(ridge: Any) -> float | str:
    """Return a ridge that is a number >= 0, or ``"gcv"``."""
    if not isinstance(ridge, str):
        return check_real("ridge", ridge, least=0.0)
    if ridge != "gcv":
        raise ValueError(f"ridge: expected a number >= 0 or 'gcv', got {ridge!r}")
    return ridge


def read_projection(projection: Any, features: Any) -> str:
    """Return a projection that goes with a kind of features; None takes the usual one."""
    own = check_choice("features", features, FEATURES) == "neuron"
    if projection is None:
        return "leverage" if own else "orthogonal"
    check_choice("projection", projection, (*FROM_LAYER, *DRAWS))
    if projection in FROM_LAYER and not own:
        raise ValueError(
            f"projection: {projection!r} chooses among a layer's own neurons and needs "
            f"features='neuron', got features={features!r}; expected one of {list(DRAWS)}"
        )
    return projection
