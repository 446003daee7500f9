"""Wide convolutional networks on patches that do not overlap: the kernel, its spectrum, its rates.

The kernel needs no class of its own: it is the `NTK` or `NNGP` of an ordinary module whose layers
stride by their filters. The reader keeps for such a network the covariances of equal positions
only, the same p n m numbers as the recursion of the paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .._core.checks import check_choice, check_finite, check_int, check_tensor
from .wide_kernel import NNGP, NTK

_SMOOTHNESS = {"ntk": 0.5, "nngp": 1.5}  # of ReLU kernels where two inputs meet


@dataclass(frozen=True)
class SectorExponents:
    """How the eigenvalues of one sector fall: functions of one patch of its level, and no smaller.

    Attributes
    ----------
    dimension : int
        Effective dimension of the sector.
    decay : float
        Exponent of the eigenvalues in the frequency, ``|k|^-decay``.
    sorted_decay : float
        Exponent in the index, where the eigenvalues of the sector are sorted.
    """

    dimension: int
    decay: float
    sorted_decay: float


def hierarchical_network(
    filter_sizes: Sequence[int],
    num_inputs: int,
    *,
    channels: int = 64,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """Make a convolutional network whose strides are its filters, with ReLU and a dense read-out.

    Parameters
    ----------
    filter_sizes : sequence of int
        Of each layer, from the input on; a size of 1 is a layer that mixes channels only.
    num_inputs : int
        Length of the input, a multiple of the product of the sizes.
    channels : int, default 64
        Of each layer; kernels of infinite width do not depend on it.
    device, dtype : optional
        Of the weights.

    Returns
    -------
    Sequential
        From inputs (..., num_inputs) to (..., 1), without biases.

    Raises
    ------
    TypeError
        If sizes are not integers.
    ValueError
        If there are none, or their product does not divide the length.

    Examples
    --------
    >>> net = hierarchical_network((2, 2), 8)
    >>> [type(layer).__name__ for layer in net]
    ['Unflatten', 'Conv1d', 'ReLU', 'Conv1d', 'ReLU', 'Flatten', 'Linear']
    """
    sizes = _sizes("filter_sizes", filter_sizes)
    length, width = check_int("num_inputs", num_inputs), check_int("channels", channels)
    if length % math.prod(sizes):
        raise ValueError(
            f"num_inputs: expected a multiple of {math.prod(sizes)}, the product of the filter "
            f"sizes {sizes}, got {length}"
        )
    made = {"bias": False, "device": device, "dtype": dtype}
    layers: list[nn.Module] = [nn.Unflatten(-1, (1, length))]
    before = 1
    for size in sizes:
        layers += [nn.Conv1d(before, width, size, stride=size, **made), nn.ReLU()]
        before = width
    nodes = length // math.prod(sizes)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * nodes, 1, **made))


def hierarchical_kernel(
    filter_sizes: Sequence[int], num_inputs: int, *, kind: Literal["ntk", "nngp"] = "ntk"
) -> NTK | NNGP:
    r"""Make the kernel of a wide `hierarchical_network`, scaled for patches of length one.

    From the cosines of the patches, :math:`k = T = \cos`, each layer gives

    .. math::
        k \leftarrow \mathrm{mean}\, \kappa_1(k), \qquad
        T \leftarrow \mathrm{mean}\, [\kappa_0(k) T + \kappa_1(k)]

    over the nodes that one filter of the next layer covers, the last over all nodes that are left;
    :math:`\kappa_n` are the arc-cosine kernels with :math:`\kappa_n(1) = 1`. T is the NTK, k the
    NNGP. That is the kernel of the module with weights of standard deviation :math:`\sqrt{s_1}`
    in the first layer and :math:`\sqrt 2` in the others, both over the root of the fan-in. Inputs
    whose patches are not of length one are welcome; see `normalize_patches`.

    Parameters
    ----------
    filter_sizes : sequence of int
        Of each layer, from the input on.
    num_inputs : int
        Length of the input, a multiple of their product.
    kind : {"ntk", "nngp"}
        Whether all layers are trained, or the last.

    Returns
    -------
    NTK or NNGP
        The kernel, of inputs (..., n, num_inputs).

    Raises
    ------
    TypeError
        If sizes are not integers.
    ValueError
        If there are none, their product does not divide the length, or the kind is unknown.

    References
    ----------
    Cagnetta, Favero, Wyart, "What can be learnt with wide convolutional neural networks?", ICML
    2023, arXiv 2208.01003.

    Examples
    --------
    >>> import torch
    >>> x = normalize_patches(torch.randn(5, 8, dtype=torch.float64), 2)
    >>> kernel = hierarchical_kernel((2, 2), 8)
    >>> [round(value, 6) for value in kernel.diag(x).tolist()]
    [3.0, 3.0, 3.0, 3.0, 3.0]
    """
    sizes = _sizes("filter_sizes", filter_sizes)
    make = {"ntk": NTK, "nngp": NNGP}[check_choice("kind", kind, _SMOOTHNESS)]
    module = hierarchical_network(sizes, num_inputs)
    stds = [math.sqrt(sizes[0])] + [math.sqrt(2)] * len(sizes)
    example = torch.zeros(1, num_inputs)
    kernel = make(module, w_std=stds, b_std=0.0, example=example, dtype=torch.float64)
    return kernel.requires_grad_(False)


def normalize_patches(x: Tensor, size: int) -> Tensor:
    """Scale each patch of an input to length one.

    Parameters
    ----------
    x : Tensor of shape (..., num_inputs)
        Inputs, patches one after the other.
    size : int
        Length of a patch: the first filter.

    Returns
    -------
    Tensor of shape (..., num_inputs)
        The same with patches on the sphere.

    Raises
    ------
    TypeError
        If x is not a floating-point tensor.
    ValueError
        If the size does not divide the length, or a patch is zero or not finite.

    Examples
    --------
    >>> import torch
    >>> normalize_patches(torch.tensor([3.0, 4.0, 0.0, -2.0]), 2)
    tensor([ 0.6000,  0.8000,  0.0000, -1.0000])
    """
    check_tensor("x", x)
    check_finite("x", x)
    size = check_int("size", size)
    if x.ndim == 0 or x.shape[-1] % size:
        raise ValueError(f"size: expected a divisor of the last axis of x {tuple(x.shape)}")
    patches = x.unflatten(-1, (-1, size))  # (..., patches, size)
    lengths = torch.linalg.vector_norm(patches, dim=-1, keepdim=True)
    if not bool((lengths > 0).all()):
        raise ValueError(f"x: expected patches of {size} that are not zero, got {tuple(x.shape)}")
    return (patches / lengths).flatten(-2)


def sector_exponents(
    filter_sizes: Sequence[int], kind: Literal["ntk", "nngp"] = "ntk"
) -> list[SectorExponents]:
    r"""Exponents of the eigenvalues of each sector of a hierarchical kernel.

    Sector l holds the functions of one patch of level l that are none of a smaller patch. Its
    eigenvalues fall as :math:`|k|^{-2\nu - d_l}` with the frequency and as
    :math:`\rho^{-1 - 2\nu/d_l}` with their rank; :math:`d_l = (s_1 - 1) s_2 \cdots s_l`, and
    :math:`\nu` is 1/2 for the NTK, 3/2 for the NNGP.

    Parameters
    ----------
    filter_sizes : sequence of int
        Of each layer, from the input on; the first at least 2.
    kind : {"ntk", "nngp"}
        Which kernel.

    Returns
    -------
    list of SectorExponents
        One for each layer.

    Raises
    ------
    TypeError
        If sizes are not integers.
    ValueError
        If there are none, the first is 1, or the kind is unknown.

    References
    ----------
    Cagnetta, Favero, Wyart, "What can be learnt with wide convolutional neural networks?", ICML
    2023, arXiv 2208.01003.

    Examples
    --------
    >>> [(s.dimension, s.decay, s.sorted_decay) for s in sector_exponents((2, 2, 2))]
    [(1, 2.0, 2.0), (2, 3.0, 1.5), (4, 5.0, 1.25)]
    """
    nu = _SMOOTHNESS[check_choice("kind", kind, _SMOOTHNESS)]
    found = []
    for dimension in _dimensions("filter_sizes", filter_sizes):
        decay, ranked = 2 * nu + dimension, 1 + 2 * nu / dimension
        found.append(SectorExponents(dimension, decay, ranked))
    return found


def predicted_rate(
    teacher: Sequence[int],
    student: Sequence[int],
    *,
    teacher_kind: Literal["ntk", "nngp"] = "ntk",
    student_kind: Literal["ntk", "nngp"] = "ntk",
) -> float:
    r"""Exponent at which a student's error falls with samples of a teacher's Gaussian field.

    .. math::
        \beta = \frac{2 \nu_T (d_S + 2 \nu_S)}{d_S (2 \nu_S + d_T)}, \qquad
        \epsilon(n) \sim n^{-\beta}

    from the teacher's power in modes whose student eigenvalue lies below the n-th; d are the
    effective dimensions of the last sectors, see `sector_exponents`. It holds for many samples.

    Parameters
    ----------
    teacher, student : sequence of int
        Filter sizes; those of the student begin with those of the teacher.
    teacher_kind, student_kind : {"ntk", "nngp"}
        Which kernels.

    Returns
    -------
    float
        The exponent.

    Raises
    ------
    TypeError
        If sizes are not integers.
    ValueError
        If a teacher is deeper than the student or differs from its first layers.

    References
    ----------
    Cagnetta, Favero, Wyart, "What can be learnt with wide convolutional neural networks?", ICML
    2023, arXiv 2208.01003.

    Examples
    --------
    >>> predicted_rate((2,), (2,)), predicted_rate((2,), (2, 2)), predicted_rate((2, 2), (2, 2))
    (1.0, 0.75, 0.5)
    """
    nu_t = _SMOOTHNESS[check_choice("teacher_kind", teacher_kind, _SMOOTHNESS)]
    nu_s = _SMOOTHNESS[check_choice("student_kind", student_kind, _SMOOTHNESS)]
    d_t, d_s = _dimensions("teacher", teacher)[-1], _dimensions("student", student)[-1]
    if tuple(student)[: len(teacher)] != tuple(teacher):
        raise ValueError(
            f"student: expected filter sizes that begin with the teacher's {tuple(teacher)}, "
            f"got {tuple(student)}"
        )
    return 2 * nu_t * (d_s + 2 * nu_s) / (d_s * (2 * nu_s + d_t))


def _sizes(name: str, sizes: Sequence[int]) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str):
        raise TypeError(f"{name}: expected a sequence of integers, got {type(sizes).__name__}")
    if not sizes:
        raise ValueError(f"{name}: expected at least one size, got {sizes!r}")
    return tuple(check_int(name, size) for size in sizes)


def _dimensions(name: str, sizes: Sequence[int]) -> list[int]:
    """Return the effective dimension of each sector."""
    first, *rest = _sizes(name, sizes)
    if first == 1:
        raise ValueError(f"{name}: expected a first size >= 2: one input alone has no sphere")
    found = [first - 1]
    for size in rest:
        found.append(found[-1] * size)
    return found
