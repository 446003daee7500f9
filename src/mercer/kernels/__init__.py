"""Kernels: functions of two points that say how alike they are.

Which one should I use?

====================== ==========================================================================
You have               Use
====================== ==========================================================================
no idea yet            `Matern` (nu=1.5 or 2.5) with ``lengthscale="median"``
smooth functions       `RBF`
lengthscales of all    `RationalQuadratic`: Gaussian kernels of many lengthscales
sizes
functions with kinks   `Laplacian` (dimension by dimension), `Matern` with nu=0.5
a season               `Periodic`; times `RBF` where it drifts; `Cosine` for one pure wave
an unknown spectrum    `SpectralMixture`
vectors whose angle    `CosineSimilarity`, or `ArcCosine`, which is also a wide ReLU layer
matters
interactions           `Polynomial`; `Linear` for none
attention              `Exponential`, which softmax normalises
an offset, a noise     `Constant`, `White`
a matrix already       `Precomputed`
distances between      `distance_kernel`, which is classical scaling; `perplexity_bandwidths`
points
similarities that are  `nearest_psd` repairs them, and says what that took; `center_kernel`
no kernel
several of these       ``k1 + k2``, ``k1 * k2``, ``2.0 * k``: `Sum`, `Product`, `Scaled`
a name                 `resolve_kernel`
a wide network         `dual`: what a layer does to covariances (see `Dual`)
an activation with     `PowerActivation`, `PolynomialActivation`, `HermiteActivation`,
parameters             `ErfActivation`, `SineActivation`, `ExponentialActivation`,
                       `GaussianActivation`, `GaborActivation`: their duals are closed forms
a step or sign to      `SurrogateActivation`, by a `surrogate_derivative`
train through
GPyTorch               `as_gpytorch`, `from_gpytorch`
a kernel of your own   subclass `Kernel`; `Stationary`, `Radial` and `DotProduct` save work
====================== ==========================================================================

``k(x, y)`` is a matrix, ``k.gram(x, y)`` a lazy one (`Gram`), ``k.features(m, like=x)`` an
explicit map.
"""

from .activations import ErfActivation as ErfActivation
from .activations import ExponentialActivation as ExponentialActivation
from .activations import GaborActivation as GaborActivation
from .activations import GaussianActivation as GaussianActivation
from .activations import HermiteActivation as HermiteActivation
from .activations import PolynomialActivation as PolynomialActivation
from .activations import PowerActivation as PowerActivation
from .activations import SineActivation as SineActivation
from .arc_cosine import ArcCosine as ArcCosine
from .base import Kernel as Kernel
from .composition import Product as Product
from .composition import Scaled as Scaled
from .composition import Sum as Sum
from .constant import Constant as Constant
from .constant import White as White
from .cosine import Cosine as Cosine
from .cosine_similarity import CosineSimilarity as CosineSimilarity
from .dot_product import DotProduct as DotProduct
from .dot_product import Exponential as Exponential
from .dot_product import Linear as Linear
from .dot_product import Polynomial as Polynomial
from .dual import Dual as Dual
from .dual import dual as dual
from .gpytorch_export import as_gpytorch as as_gpytorch
from .gpytorch_import import from_gpytorch as from_gpytorch
from .gram import Gram as Gram
from .laplacian import Laplacian as Laplacian
from .matern import Matern as Matern
from .periodic import Periodic as Periodic
from .precomputed import Precomputed as Precomputed
from .rational_quadratic import RationalQuadratic as RationalQuadratic
from .rbf import RBF as RBF
from .registry import resolve_kernel as resolve_kernel
from .similarity import PSDRepair as PSDRepair
from .similarity import center_kernel as center_kernel
from .similarity import distance_kernel as distance_kernel
from .similarity import nearest_psd as nearest_psd
from .similarity import perplexity_bandwidths as perplexity_bandwidths
from .spectral_mixture import SpectralMixture as SpectralMixture
from .stationary import Radial as Radial
from .stationary import Stationary as Stationary
from .surrogate import SurrogateActivation as SurrogateActivation
from .surrogate import surrogate_derivative as surrogate_derivative
