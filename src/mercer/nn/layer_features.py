"""The feature map on which a layer is put: drawn, chosen among its neurons, or copied."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._core.activation import Activation
from .._core.checks import check_choice, check_generator, check_int
from ..features.arc_cosine import ArcCosineFeatures
from ..features.base import FeatureMap, TwoSidedFeatureMap
from ..features.draws import PROJECTION_KINDS
from ..features.neuron import NeuronFeatures
from ..features.universal import UniversalFeatures
from .calibration import Calibration, median_norm, second_moment
from .selection import SELECTIONS, select_neurons

FEATURES = ("universal", "arc_cosine", "neuron")


def draw_features(
    kind: str,
    activation: Activation,
    in_features: int,
    num_features: int,
    *,
    norms: tuple[float, float],
    **options: Any,
) -> FeatureMap:
    """Draw a map of a kind of `FEATURES`; ``norms`` are those that a universal map expects."""
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


def features_for(
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation,
    num_features: int,
    data: Calibration | None,
    target: Callable[[Tensor], Tensor],
    features: str | FeatureMap,
    projection: str,
    generator: torch.Generator | int | None,
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
        if (features.in_features, features.num_features) != (weight.shape[1], num_features):
            raise ValueError(
                f"features: expected a map from {weight.shape[1]} inputs to {num_features} "
                f"features, got one from {features.in_features} to {features.num_features}"
            )
        return copy.deepcopy(features)
    typical = median_norm(data) if features == "universal" and data is not None else 1.0
    return draw_features(
        features,
        activation,
        weight.shape[1],
        num_features,
        norms=(typical, median_norm([weight])),
        bias=bias is not None,
        draw=projection,
        generator=generator,
        device=weight.device,
        dtype=weight.dtype,
    )
