"""Explicit feature maps ``phi(x)``, and the random directions that they stand on.

Which one should I use?

========================= =====================================================================
You have                  Use
========================= =====================================================================
neurons of a layer        `NeuronFeatures`: a chosen few stand for the others
weights, and no data      `ArcCosineFeatures`: a smooth kernel between input and ReLU neuron
inputs of any layer       `NeuronFeatures.random`: random kitchen sinks
an affine part to keep    `WithInput`: the input beside the features
directions to draw        `make_projection`: gaussian, orthogonal, hadamard or sobol
========================= =====================================================================
"""

from .arc_cosine import ArcCosineFeatures as ArcCosineFeatures
from .base import FeatureMap as FeatureMap
from .base import TwoSidedFeatureMap as TwoSidedFeatureMap
from .draws import DenseProjection as DenseProjection
from .draws import HadamardProjection as HadamardProjection
from .draws import Projection as Projection
from .draws import hadamard_transform as hadamard_transform
from .draws import make_projection as make_projection
from .neuron import NeuronFeatures as NeuronFeatures
from .with_input import WithInput as WithInput
