"""The feature map of a kernel: exact where there is one, else the best that is known."""

import copy
import logging
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .._core.checks import check_choice, check_finite, check_generator, check_int, check_tensor
from .._core.counter import RandomSource
from ..kernels import Exponential, Kernel, Polynomial, White, resolve_kernel
from .base import FeatureMap
from .fastfood import Fastfood
from .monomial import MonomialFeatures, num_monomials
from .nystroem import Nystroem
from .polynomial_sketch import PolynomialSketch
from .positive import PositiveFeatures
from .quadrature import QuadratureFeatures
from .random_fourier import RandomFourier
from .spectrum import spectral_components, unscaled

_LOG = logging.getLogger(__name__)
_FEW = 4  # dimensions up to which a grid may beat random frequencies
_SOBOL = 16  # dimensions up to which, and pairs a dimension from which, Sobol points pay

Maker = Callable[..., FeatureMap]
"""Make a map from (kernel, num_features, like, generator, **options)."""

FEATURE_METHODS: dict[str, Maker] = {}


def register_feature_method(name: str) -> Callable[[Maker], Maker]:
    """Make a decorator that adds a method to those of `kernel_features`.

    Parameters
    ----------
    name : str
        The method's name.

    Returns
    -------
    callable
        The decorator, for a function of ``(kernel, num_features, like, generator, **options)``
        that returns a `FeatureMap`; the kernel's values are set.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import Nystroem, register_feature_method
    >>> from mercer.kernels import RBF
    >>> @register_feature_method("first_rows")
    ... def first_rows(kernel, num_features, like, generator):
    ...     return Nystroem(kernel, like[:num_features])
    >>> RBF().features(5, like=torch.rand(9, 3), method="first_rows").num_features
    5
    """

    def register(make: Maker) -> Maker:
        FEATURE_METHODS[name] = make
        return make

    return register


def kernel_features(
    kernel: Kernel | str,
    num_features: int,
    *,
    like: Tensor,
    method: str | None = None,
    generator: RandomSource | int | None = None,
    **options: Any,
) -> FeatureMap:
    """Make a feature map that approximates a kernel; see also `Kernel.features`.

    ===================== ============================ =======================================
    method                map                          chosen where
    ===================== ============================ =======================================
    ``exact``             `MonomialFeatures`, or       there is one of at most num_features:
                          `RandomFourier`              linear, polynomial, constant, cosine
    ``quadrature``        `QuadratureFeatures`         stationary, at most four dimensions, and
                          more exact there than random waves are
    ``random_fourier``    `RandomFourier`              stationary otherwise; Sobol draws in few
                                                       dimensions, orthogonal ones elsewhere
    ``nystroem``          `Nystroem`                   any other kernel
    ``polynomial_sketch`` `PolynomialSketch`           polynomial, like of fewer rows than features
    ``positive``          `PositiveFeatures`           exponential, like of as few rows
    ``fastfood``          `Fastfood`                   never; for very large d
    ===================== ============================ =======================================

    Sketches and positive features know nothing of the data; with enough of them landmarks have a
    fraction of their error (``benchmarks/feature_draws.py`` measures it).
    The name of the map's class says which was chosen, and so does a line in the log.

    Parameters
    ----------
    kernel : Kernel or str
        The kernel, or its name. What is left to the data (a median lengthscale) is set from
        ``like``, in a copy.
    num_features : int
        Largest number of features: waves come in pairs, and an exact map may have fewer.
    like : Tensor of shape (n, in_features)
        Data, or points like them: their size, dtype and device are the map's.
    method : str, optional
        One of the table; None chooses.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws; None means torch's default generator.
    **options : object
        Further arguments of the map.

    Returns
    -------
    FeatureMap
        The map; its attribute ``kernel`` is what it approximates.

    Raises
    ------
    TypeError
        If kernel or like are no such things, or the map has no such option.
    ValueError
        If the method is unknown or not for this kernel, like is empty or not finite, or the
        kernel has independent noise, which no function of a point can have.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import kernel_features
    >>> from mercer.kernels import Linear, Matern
    >>> x = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
    >>> kernel_features(Matern("median"), 200, like=x, generator=0).num_features
    200
    >>> kernel_features(Linear(), 200, like=x)
    MonomialFeatures(kernel=Linear(), in_features=8, num_features=8)
    """
    kernel = resolve_kernel(kernel)
    check_int("num_features", num_features)
    check_finite("like", check_tensor("like", like))
    if like.ndim != kernel.event_ndim + 1 or len(like) == 0:
        raise ValueError(
            f"like: expected shape (n, {'in_features' if kernel.event_ndim == 1 else '*event'}) "
            f"with n >= 1, got {tuple(like.shape)}"
        )
    if any(isinstance(part, White) for part in kernel.modules()):
        raise ValueError(
            f"kernel: independent noise has no features, got {kernel!r}; leave White out, and "
            "give its variance to the solver as a ridge"
        )
    if any(getattr(part, "_waits_for_data", False) for part in kernel.modules()):
        kernel = copy.deepcopy(kernel).fit(like)
    source = check_generator(generator)
    found = None
    if method is None:
        method, found = _choose(kernel, num_features, like, options)
    make = FEATURE_METHODS[check_choice("method", method, FEATURE_METHODS)]
    phi = make(kernel, num_features, like, source, **options) if found is None else found
    _LOG.info("%s for %r: %d features by %s", method, kernel, phi.num_features, type(phi).__name__)
    return phi


def _choose(
    kernel: Kernel, num_features: int, like: Tensor, options: dict[str, Any]
) -> tuple[str, FeatureMap | None]:
    """Choose a method; where that takes making its map, return the map too."""
    if kernel.event_ndim != 1:
        return "nystroem", None
    in_features = like.shape[-1]
    if _exact_size(kernel, in_features) <= num_features:
        return "exact", None
    components = spectral_components(kernel, in_features)
    if components is not None and 2 * len(components) <= num_features:
        if in_features <= _FEW and len(like) > 1 and not options:
            phi = FEATURE_METHODS["quadrature"](kernel, num_features, like, None)
            # Random waves have errors of about k(0) / sqrt(m); here the largest one is below.
            typical = sum(c.variance for c in components) / num_features**0.5
            if float(phi.largest_error) < typical:  # type: ignore[arg-type]
                return "quadrature", phi
        return "random_fourier", None
    plain = unscaled(kernel)[1]
    if len(like) < num_features:  # more features than there could be landmarks
        if isinstance(plain, Polynomial):
            return "polynomial_sketch", None
        if isinstance(plain, Exponential):
            return "positive", None
    return "nystroem", None


def _exact_size(kernel: Kernel, in_features: int) -> float:
    """Return how many features are exact for a kernel; infinity where there are none."""
    count = num_monomials(kernel, in_features)
    if count is not None:
        return count
    components = spectral_components(kernel, in_features)
    if components is not None and all(c.is_fixed for c in components):
        return 2 * len(components)
    return float("inf")


def _even(num_features: int) -> int:
    """Round down, as waves come in pairs; a single feature is left for the map to refuse."""
    return num_features - num_features % 2 if num_features > 1 else num_features


def _factory(like: Tensor) -> dict[str, Any]:
    return {"device": like.device, "dtype": like.dtype}


@register_feature_method("exact")
def _exact(
    kernel: Kernel, num_features: int, like: Tensor, generator: RandomSource | None
) -> FeatureMap:
    size = _exact_size(kernel, like.shape[-1])
    if size > num_features:
        needs = f"{size} features are" if size < float("inf") else "no finite number of them is"
        raise ValueError(
            f"method: {needs} exact for {kernel!r} with {like.shape[-1]} inputs, got "
            f"num_features={num_features}"
        )
    if num_monomials(kernel, like.shape[-1]) is not None:
        return MonomialFeatures(kernel, like.shape[-1], **_factory(like))
    return RandomFourier(kernel, like.shape[-1], int(size), generator=0, **_factory(like))


@register_feature_method("quadrature")
def _quadrature(
    kernel: Kernel,
    num_features: int,
    like: Tensor,
    generator: RandomSource | None,
    **options: Any,
) -> FeatureMap:
    given = {"like": like} if len(like) > 1 and "rules" not in options else {}
    return QuadratureFeatures(
        kernel, like.shape[-1], num_features, **{**given, **_factory(like), **options}
    )


@register_feature_method("positive")
def _positive(
    kernel: Kernel,
    num_features: int,
    like: Tensor,
    generator: RandomSource | None,
    **options: Any,
) -> FeatureMap:
    given: dict[str, Any] = {} if {"norms", "damping"} & set(options) else {"like": like}
    if options.get("paired", True):
        num_features = _even(num_features)
    given |= {"generator": generator, **_factory(like), **options}
    return PositiveFeatures(kernel, like.shape[-1], num_features, **given)


@register_feature_method("nystroem")
def _nystroem(
    kernel: Kernel,
    num_features: int,
    like: Tensor,
    generator: RandomSource | None,
    **options: Any,
) -> FeatureMap:
    count = min(num_features, len(like))  # points cannot be landmarks twice
    return Nystroem.from_data(kernel, like, count, generator=generator, **options)


def _register(name: str, make: Any, *, pairs: bool) -> None:
    """Register a map whose constructor takes kernel, in_features, num_features and factory."""

    def maker(
        kernel: Kernel,
        num_features: int,
        like: Tensor,
        generator: RandomSource | None,
        **options: Any,
    ) -> FeatureMap:
        size = _even(num_features) if pairs else num_features
        return make(
            kernel, like.shape[-1], size, **{"generator": generator, **_factory(like), **options}
        )

    register_feature_method(name)(maker)


@register_feature_method("random_fourier")
def _random_fourier(
    kernel: Kernel,
    num_features: int,
    like: Tensor,
    generator: RandomSource | None,
    **options: Any,
) -> FeatureMap:
    in_features = like.shape[-1]
    components = spectral_components(kernel, in_features) or []
    # Sobol points pay where they are many for their dimensions; see the table of RandomFourier.
    width = max((max(len(c.factors), 1) * in_features for c in components), default=0)
    spread = width <= _SOBOL and num_features >= 2 * _SOBOL * width
    given = {"draw": "sobol" if spread else "orthogonal", "generator": generator}
    return RandomFourier(
        kernel, in_features, _even(num_features), **{**given, **_factory(like), **options}
    )


_register("fastfood", Fastfood, pairs=True)
_register("polynomial_sketch", PolynomialSketch, pairs=False)
