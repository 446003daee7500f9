"""Explicit feature maps ``phi(x)``, and the random directions that they stand on.

Which one should I use?

========================= =====================================================================
You have                  Use
========================= =====================================================================
directions to draw        `make_projection`: gaussian, orthogonal, hadamard or sobol
========================= =====================================================================
"""

from .base import FeatureMap as FeatureMap
from .base import TwoSidedFeatureMap as TwoSidedFeatureMap
from .draws import DenseProjection as DenseProjection
from .draws import HadamardProjection as HadamardProjection
from .draws import Projection as Projection
from .draws import hadamard_transform as hadamard_transform
from .draws import make_projection as make_projection
