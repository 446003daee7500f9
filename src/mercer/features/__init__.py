"""Explicit feature maps ``phi(x)``, and the random directions that they stand on.

Which one should I use?

========================= =====================================================================
You have                  Use
========================= =====================================================================
a kernel, and no opinion  ``kernel.features(m, like=x)``, which is `kernel_features`; add methods
                          of your own to it with `register_feature_method`
any kernel, and data      `Nystroem`: its values at landmarks; `choose_landmarks` chooses them
a stationary kernel       `RandomFourier`: plane waves; `Fastfood` where d is large
the same, d up to 4       `QuadratureFeatures`: deterministic, often far more exact
exp(x . y), attention     `PositiveFeatures`: none is negative
a polynomial kernel       `MonomialFeatures` while they are few, `PolynomialSketch` otherwise
neurons of a layer        `NeuronFeatures`: a chosen few stand for the others
weights, and no data      `ArcCosineFeatures`: a smooth kernel between input and ReLU neuron
any activation, no data   `UniversalFeatures`: the activation itself, for norms around one
inputs of any layer       `NeuronFeatures.random`: random kitchen sinks
an affine part to keep    `WithInput`: the input beside the features
directions to draw        `make_projection`: gaussian, orthogonal, sobol, hadamard or fastfood;
                          it makes a `DenseProjection`, `HadamardProjection` or
                          `FastfoodProjection`
numbers from a seed       `CounterGenerator`: the same on every machine and version; give it as
                          ``generator`` wherever one is taken
a map of your own         subclass `FeatureMap`, `TwoSidedFeatureMap` or `Projection`
signs to mix              `hadamard_transform`: the Hadamard matrix in O(d log d)
========================= =====================================================================
"""

from .._core.counter import CounterGenerator as CounterGenerator
from .arc_cosine import ArcCosineFeatures as ArcCosineFeatures
from .base import FeatureMap as FeatureMap
from .base import TwoSidedFeatureMap as TwoSidedFeatureMap
from .choose import kernel_features as kernel_features
from .choose import register_feature_method as register_feature_method
from .draws import DenseProjection as DenseProjection
from .draws import make_projection as make_projection
from .fastfood import Fastfood as Fastfood
from .fastfood_projection import FastfoodProjection as FastfoodProjection
from .hadamard import HadamardProjection as HadamardProjection
from .hadamard import hadamard_transform as hadamard_transform
from .landmark_choice import choose_landmarks as choose_landmarks
from .monomial import MonomialFeatures as MonomialFeatures
from .neuron import NeuronFeatures as NeuronFeatures
from .nystroem import Nystroem as Nystroem
from .polynomial_sketch import PolynomialSketch as PolynomialSketch
from .positive import PositiveFeatures as PositiveFeatures
from .projection import Projection as Projection
from .quadrature import QuadratureFeatures as QuadratureFeatures
from .random_fourier import RandomFourier as RandomFourier
from .universal import UniversalFeatures as UniversalFeatures
from .with_input import WithInput as WithInput
