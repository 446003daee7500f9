"""The feature map on which a layer is put, and the weights that it gets there."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._core.activation import Activation
from .._core.checks import check_choice, check_generator, check_int
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.random import draw_uniform
from ..features.arc_cosine import ArcCosineFeatures
from ..features.base import FeatureMap, TwoSidedFeatureMap
from ..features.draws import PROJECTION_KINDS
from ..features.neuron import NeuronFeatures
from ..features.universal import UniversalFeatures
from .calibration import Calibration, fit_readout, median_norm, second_moment
from .selection import SELECTIONS, select_neurons

FEATURES = ("universal", "arc_cosine", "neuron")


def check_sizes(features: FeatureMap, in_features: int, num_features: int) -> FeatureMap:
    """Return the map if it has these sizes."""
    if (features.in_features, features.num_features) != (in_features, num_features):
        raise ValueError(
            f"features: expected a map from {in_features} inputs to {num_features} features, "
            f"got one from {features.in_features} to {features.num_features}"
        )
    return features


def draw_features(
    kind: str,
    activation: Activation,
    in_features: int,
    num_features: int,
    *,
    norms: tuple[float, float],
    projection: str,
    **options: Any,
) -> FeatureMap:
    """Draw a map of a kind of `FEATURES`; ``norms`` are those that a universal map expects."""
    options["draw"] = check_choice("projection", projection, PROJECTION_KINDS)
    if options.get("device") not in ("meta", torch.device("meta")):
        require_memory(
            8.0 * in_features * num_features,  # drawn in float64
            f"num_features: drawing {num_features} features of {in_features} inputs",
            "take fewer",
        )
    if check_choice("features", kind, FEATURES) == "universal":
        return UniversalFeatures(activation, in_features, num_features, norms=norms, **options)
    if kind == "arc_cosine":
        return ArcCosineFeatures(in_features, num_features, **options)
    return NeuronFeatures.random(in_features, num_features, activation, **options)


def read_off(
    features: TwoSidedFeatureMap, weight: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, affine weight and bias that the neurons' side of a map gives, without data."""
    psi = features.dual(weight, bias)  # (out, m)
    offset = torch.zeros_like(weight[:, 0]) if bias is None else bias
    if isinstance(features, UniversalFeatures):
        slope, intercept = features.slope.to(weight), features.intercept.to(weight)
        return psi, slope * weight, slope * offset + intercept
    return psi, torch.zeros_like(weight), torch.zeros_like(offset)


def draw_weights(
    features: FeatureMap, like: Tensor, bias: bool, generator: RandomSource | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weight, affine weight and bias of a new layer, drawn on the scale of `torch.nn.Linear`.

    On a two-sided map neurons are drawn and read off, on another the weight itself is.
    """
    out_features, d = len(like), features.in_features

    def draw(fan_in: int, *shape: int) -> Tensor:
        return ((2 * draw_uniform(shape, generator) - 1) / fan_in**0.5).to(like)

    if isinstance(features, TwoSidedFeatureMap):
        neurons = draw(d, out_features, d)
        return read_off(features, neurons, draw(d, out_features) if bias else None)
    m = features.num_features
    weight = draw(m, out_features, m)
    offset = draw(m, out_features) if bias else None
    return weight, like.new_zeros(out_features, d), offset


def features_for(
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation,
    num_features: int,
    data: Calibration | None,
    target: Callable[[Tensor], Tensor],
    features: str | FeatureMap,
    projection: str,
    generator: RandomSource | int | None,
) -> FeatureMap:
    """Choose, draw or copy the map on which `SNNK.from_linear` puts a layer."""
    check_int("num_features", num_features)
    check_choice("projection", projection, (*PROJECTION_KINDS, *SELECTIONS))
    generator = check_generator(generator)
    if projection in SELECTIONS:
        if features != "neuron" or data is None:
            raise ValueError(
                f"projection: {projection!r} chooses among the layer's neurons, for which it needs "
                f"features='neuron' and calibrate; got features={features!r} and "
                f"{'no calibrate' if data is None else 'calibrate'}"
            )
        if num_features > len(weight):
            raise ValueError(
                f"num_features: {projection!r} chooses among {len(weight)} neurons, weight "
                f"{tuple(weight.shape)}; got {num_features}"
            )
        covariance = second_moment(data, target)  # (out, out)
        chosen = select_neurons(covariance, num_features, method=projection, generator=generator)
        return NeuronFeatures(weight[chosen], None if bias is None else bias[chosen], activation)
    if isinstance(features, FeatureMap):
        return copy.deepcopy(check_sizes(features, weight.shape[1], num_features))
    typical = median_norm(data) if features == "universal" and data is not None else 1.0
    return draw_features(
        features,
        activation,
        weight.shape[1],
        num_features,
        norms=(typical, median_norm([weight])),
        bias=bias is not None,
        projection=projection,
        generator=generator,
        device=weight.device,
        dtype=weight.dtype,
    )


def weights_for(
    features: FeatureMap,
    data: Calibration | None,
    target: Callable[[Tensor], Tensor],
    weight: Tensor,
    bias: Tensor | None,
    affine: bool,
    ridge: float | str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, affine weight and bias of `SNNK.from_linear`: fitted, or read off without data."""
    if data is not None:
        found = fit_readout(features, data, target, affine=affine, ridge=ridge)
        own, straight = found.weight.tensor_split([features.num_features], dim=-1)
        return own, straight, found.bias
    if not isinstance(features, TwoSidedFeatureMap):
        raise ValueError(
            f"calibrate: {type(features).__name__} has no neurons' side from which to read the "
            "weight; pass calibration inputs"
        )
    return read_off(features, weight, bias)


def outside_domain(
    features: FeatureMap, data: Calibration, weight: Tensor, bias: Tensor | None
) -> str:
    """Say which fraction of the pre-activations leaves a universal map's domain; "" if none."""
    if not isinstance(features, UniversalFeatures):
        return ""
    outside = data.mean(lambda x: features.fraction_outside(x, weight, bias))
    if outside == 0:
        return ""
    return (
        f"calibrate: {outside:.2%} of the pre-activations lie outside the domain "
        f"[-{features.domain:g}, {features.domain:g}] of the universal features; pass a map with "
        "a larger one, features=UniversalFeatures(..., domain=...)"
    )
