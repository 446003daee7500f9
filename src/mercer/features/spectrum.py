"""The spectral form of a kernel: which sums of plane waves it is the mean of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..kernels import Constant, Cosine, Kernel, Product, Scaled, Stationary, Sum
from ..kernels.stationary import Scales


@dataclass(frozen=True)
class Component:
    r"""A multiple of a product of stationary kernels.

    .. math:: v \prod_a k_a(x, y) / k_a(x, x)

    Its frequencies are sums of one frequency of each factor, drawn independently.

    Attributes
    ----------
    variance : float
        v, the component's value on the diagonal.
    factors : tuple of Stationary
        The factors; without any, the component is a constant.
    """

    variance: float
    factors: tuple[Stationary, ...]

    @property
    def is_fixed(self) -> bool:
        """Whether it has a single frequency, so that nothing is random."""
        return all(isinstance(factor, Cosine) for factor in self.factors)

    def num_uniforms(self, in_features: int) -> int:
        """Return how many uniform numbers a frequency needs."""
        return sum(factor.num_uniforms(in_features) for factor in self.factors)

    def frequencies(self, normals: Tensor, uniforms: Tensor) -> Tensor:
        """Turn normal numbers (m, factors * d) and uniform ones into frequencies (m, d)."""
        in_features = normals.shape[-1] // max(len(self.factors), 1)
        total = normals.new_zeros(len(normals), in_features)
        used = 0
        for a, factor in enumerate(self.factors):
            part = normals[:, a * in_features : (a + 1) * in_features]
            count = factor.num_uniforms(in_features)
            total = total + factor.frequencies(part, uniforms[:, used : used + count])
            used += count
        return total


def spectral_components(kernel: Kernel, in_features: int) -> list[Component] | None:
    """Write a kernel as a sum of products of stationary kernels, or return None.

    Sums are taken apart, products multiplied out, constants collected in one component.

    Parameters
    ----------
    kernel : Kernel
        The kernel, with its values set.
    in_features : int
        Length of an input vector.

    Returns
    -------
    list of Component or None
        The components; None where a part of the kernel is not stationary.
    """
    with torch.device("cpu"):
        found = _components(kernel, in_features)
    if found is None:
        return None
    constant = sum(c.variance for c in found if not c.factors)
    rest = [c for c in found if c.factors and c.variance > 0]
    if constant > 0 or not rest:
        rest.append(Component(constant, ()))
    return rest


def _components(kernel: Kernel, in_features: int) -> list[Component] | None:
    if isinstance(kernel, Stationary):
        zero = torch.zeros(1, in_features, dtype=torch.float64)
        return [Component(float(kernel.diag(zero).detach()), (kernel,))]
    if isinstance(kernel, Constant):
        return [Component(float(kernel.value.detach()), ())]
    if isinstance(kernel, Scaled):
        inner = _components(kernel.kernel, in_features)
        scale = float(kernel.scale.detach())
        return inner and [Component(scale * c.variance, c.factors) for c in inner]
    if isinstance(kernel, Sum | Product):
        left = _components(kernel.left, in_features)
        right = _components(kernel.right, in_features)
        if left is None or right is None:
            return None
        if isinstance(kernel, Sum):
            return left + right
        return [
            Component(a.variance * b.variance, a.factors + b.factors) for a in left for b in right
        ]
    return None


def unscaled(kernel: Kernel) -> tuple[float, Kernel]:
    """Take the factors off a kernel: ``2.0 * k`` gives 2.0 and k."""
    factor = 1.0
    while isinstance(kernel, Scaled):
        factor *= float(kernel.scale.detach())
        kernel = kernel.kernel
    return factor, kernel


def inverse_lengthscale(kernel: Scales, in_features: int) -> Tensor:
    """Return one over the lengthscale of every dimension, (d,), in float64 on the CPU."""
    # The lengthscale's own method reads one number or d, and refuses others.
    with torch.no_grad(), torch.device("cpu"):
        return kernel._scale(torch.ones(1, in_features, dtype=torch.float64))[0]


def allot(components: list[Component], count: int) -> list[int]:
    """Share frequencies between components: one where nothing is random, else by variance.

    Shares by variance make the sum's error least where the components have errors alike.
    """
    shares = [1] * len(components)
    left = count - len(components)
    random = [i for i, c in enumerate(components) if not c.is_fixed]
    total = sum(components[i].variance for i in random)
    wanted = [components[i].variance / total * (left + len(random)) for i in random]
    for i, size in zip(random, wanted, strict=True):
        extra = min(max(int(size) - 1, 0), left)
        shares[i] += extra
        left -= extra
    for i in sorted(random, key=lambda i: shares[i] / components[i].variance):
        if left > 0:  # what rounding left over, to those furthest below their share
            shares[i] += 1
            left -= 1
    shares[(random or [0])[0]] += left  # nothing random: the same wave again, still exact
    return shares
