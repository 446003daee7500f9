"""The Nystroem map: a kernel's features from its values at a few landmarks."""

import copy
from typing import Any, Self, final

import torch
from torch import Tensor

from .._core.checks import (
    check_finite,
    check_int,
    check_last_dim,
    check_materialized,
    check_real,
    check_tensor,
)
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.precision import full_precision, is_plain, working_dtype
from .._core.random import own_stream
from ..kernels import Kernel
from .base import FeatureMap
from .blocks import can_block, map_blocks
from .landmark_choice import choose_landmarks, fitted
from .projection import draw_gaussian


@final
class Nystroem(FeatureMap):
    r"""Features of any kernel, from its values at k landmarks.

    .. math:: \phi(x) = k(x, L) \, k(L, L)^{-1/2}, \qquad
        \phi(x) \cdot \phi(y) = k(x, L) \, k(L, L)^{-1} k(L, y)

    This is the projection of the kernel on the span of the landmarks: exact where x or y is one
    of them, and never above the kernel, :math:`K - \Phi \Phi^\top \succeq 0`. How good it is
    elsewhere depends on the landmarks; `from_data` chooses them, `random` draws them.

    The root is symmetric, taken in float64 from an eigendecomposition. Directions with
    eigenvalues that are rounding are left out, so landmarks may repeat or lie close together;
    the number of features is that of the landmarks all the same.

    Nothing trains: the kernel is copied, and its hyperparameters are buffers here. Those of
    `kernel`, which is what the map was built with, do not follow a loaded state.

    Parameters
    ----------
    kernel : Kernel
        A kernel of vectors.
    landmarks : Tensor of shape (num_features, in_features)
        The landmarks; copied. The map has their dtype and device.
    cutoff : float, optional
        Eigenvalues of k(L, L) below so large a share of the largest are left out; by default
        k times the precision of the landmarks' dtype. To use a map in a lower precision, give it
        landmarks of that precision: casting the map later keeps directions that only the higher
        one resolves.

    Raises
    ------
    TypeError
        If ``kernel`` is not a Kernel, or ``landmarks`` not a floating-point tensor.
    ValueError
        If there is no landmark, a number is not finite, shapes do not fit, the cutoff is not in
        [0, 1], or the kernel turns out not to be positive semi-definite.
    RuntimeError
        If a hyperparameter of the kernel is left to the data; `from_data` sets it.
    MemoryError
        If the landmarks' matrix does not fit the memory budget.

    References
    ----------
    Williams, Seeger, "Using the Nyström method to speed up kernel machines", NeurIPS 2000.

    Examples
    --------
    >>> import torch
    >>> from mercer.features import Nystroem
    >>> from mercer.kernels import RBF
    >>> x = torch.linspace(0, 1, 200).unsqueeze(-1).double()
    >>> k = RBF(0.3).requires_grad_(False)
    >>> phi = Nystroem(k, x[::10])
    >>> phi(x).shape
    torch.Size([200, 20])
    >>> bool((phi(x) @ phi(x).mT - k(x)).abs().max() < 1e-6)
    True
    """

    landmarks: Tensor
    whitening: Tensor

    def __init__(self, kernel: Kernel, landmarks: Tensor, *, cutoff: float | None = None) -> None:
        super().__init__()
        kernel = self._approximate(kernel)
        check_finite("landmarks", check_tensor("landmarks", landmarks, ndim=2))
        self.num_features = check_int("landmarks.shape[0]", landmarks.shape[0])
        self.in_features = check_int("landmarks.shape[1]", landmarks.shape[1])
        self.cutoff = None if cutoff is None else check_real("cutoff", cutoff, least=0.0, most=1.0)
        k = self.num_features
        factory: dict[str, Any] = {"device": landmarks.device, "dtype": landmarks.dtype}
        self.register_buffer("landmarks", landmarks.detach().clone())
        self.register_buffer("whitening", torch.empty(k, k, **factory))
        self._evaluated = _with_buffers(kernel).to(landmarks.device)
        if not landmarks.is_meta:
            self._whiten()

    @classmethod
    def from_data(
        cls,
        kernel: Kernel,
        x: Tensor,
        num_features: int,
        *,
        landmarks: str = "kmeans",
        ridge: float | None = None,
        cutoff: float | None = None,
        generator: RandomSource | int | None = None,
    ) -> Self:
        """Choose the landmarks from data.

        Parameters
        ----------
        kernel : Kernel
            The kernel. Hyperparameters left to the data are set from x, in a copy.
        x : Tensor of shape (n, in_features)
            The data; n at least ``num_features``.
        num_features : int
            Number of landmarks.
        landmarks : {"kmeans", "leverage", "kdpp", "greedy", "uniform"}, default "kmeans"
            How they are chosen; see `choose_landmarks`.
        ridge : float, optional
            Of the leverage scores; see `choose_landmarks`.
        cutoff : float, optional
            As in the constructor.
        generator : torch.Generator, CounterGenerator, int or None, optional
            Source of the draws; None means torch's default generator.

        Returns
        -------
        Nystroem
            The map, in the dtype and on the device of x.

        Raises
        ------
        ValueError
            If there are fewer points than features, a number is not finite, or the choice is
            unknown.

        Examples
        --------
        >>> import torch
        >>> from mercer.kernels import Matern
        >>> x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
        >>> phi = Nystroem.from_data(Matern("median"), x, 50, generator=0)
        >>> phi.num_features, phi.in_features
        (50, 3)
        """
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel: expected a Kernel, got {type(kernel).__name__}")
        check_finite("x", check_tensor("x", x, ndim=2))
        if check_int("num_features", num_features) > len(x):
            raise ValueError(
                f"num_features: expected at most the {len(x)} points of x {tuple(x.shape)}, "
                f"got {num_features}"
            )
        kernel = fitted(kernel, x)
        chosen = choose_landmarks(
            kernel, x, num_features, method=landmarks, ridge=ridge, generator=generator
        )
        return cls(kernel, chosen, cutoff=cutoff)

    @classmethod
    def random(
        cls,
        kernel: Kernel,
        in_features: int,
        num_features: int,
        *,
        cutoff: float | None = None,
        generator: RandomSource | int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Draw standard normal landmarks, for inputs that are like that.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        in_features, num_features : int
            Lengths of an input and of a feature vector.
        cutoff : float, optional
            As in the constructor.
        generator : torch.Generator, CounterGenerator, int or None, optional
            Source of the draw; None means torch's default generator.
        device, dtype : optional
            Of the buffers.

        Returns
        -------
        Nystroem
            The map.

        Raises
        ------
        ValueError
            If a size is below one.
        """
        check_int("in_features", in_features)
        check_int("num_features", num_features)
        empty = torch.empty(num_features, in_features, device="meta", dtype=dtype)
        phi = cls(kernel, empty, cutoff=cutoff)
        where = torch.get_default_device() if device is None else torch.device(device)
        if where.type != "meta":
            phi.to_empty(device=where)
            phi.reset_parameters(generator)
        return phi

    def reset_parameters(self, generator: RandomSource | int | None = None) -> None:
        """Replace all landmarks by standard normal ones, drawn as in `random`.

        It does not matter where the landmarks came from: those that were given, or chosen from
        data, are forgotten too. The kernel is again the one that the map was built with.
        """
        if self.landmarks.is_meta:
            return
        with torch.no_grad():
            self._evaluated.load_state_dict(self._approximated[0].state_dict())
            stream = own_stream(generator)
            self.landmarks.copy_(draw_gaussian(self.num_features, self.in_features, stream))
        self._whiten()

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs of shape (..., in_features) to features of shape (..., num_features)."""
        check_last_dim("x", x, self.in_features)
        check_materialized(type(self).__name__, self.landmarks, x)
        # The finer of the two: what the landmarks' precision resolves, an input's must not blur.
        work = torch.promote_types(working_dtype(x.dtype), self.landmarks.dtype)
        points, whitening = self.landmarks.to(work), self.whitening.to(work)  # (k, d), (k, k)
        with full_precision(x):
            if x.ndim > 1 and can_block(x, self.num_features, *self.buffers()):

                def write(rows: Tensor, out: Tensor) -> None:
                    torch.mm(self._evaluated(rows, points), whitening, out=out)

                return map_blocks(x.to(work), self.num_features, x.dtype, write)
            rows = x.reshape(-1, self.in_features).to(work)  # (n, d)
            # Where a function is traced its sizes must not decide, so the formula it is. The
            # landmarks come first, as kernels centre on the first: an outlier among the rows must
            # not cost the others their digits, which tiles would see to.
            evaluate = self._evaluated if is_plain(rows, points) else self._evaluated._naive
            features = evaluate(points, rows).mT @ whitening  # (n, k)
            return features.to(x.dtype).reshape(*x.shape[:-1], self.num_features)

    @torch.no_grad()
    def _whiten(self) -> None:
        """Set the whitening to the inverse root of the landmarks' matrix, symmetric."""
        k = self.num_features
        option = "use fewer landmarks"
        require_memory(8 * 5 * k * k, f"the eigenvectors of {k} landmarks", option)
        matrix = self._evaluated(self.landmarks.double())  # (k, k)
        check_finite("kernel", matrix)
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)  # ascending
        largest = max(float(values[-1]), 0.0)
        if float(values[0]) < -(torch.finfo(torch.float64).eps ** 0.5) * max(largest, 1e-300):
            raise ValueError(
                "kernel: expected a positive semi-definite kernel, got eigenvalues of the "
                f"landmarks' matrix from {float(values[0]):.3g} to {float(values[-1]):.3g}"
            )
        precision = torch.finfo(working_dtype(self.landmarks.dtype)).eps
        share = k * precision if self.cutoff is None else self.cutoff
        known = (values > share * largest) & (values > 0)
        vectors, values = vectors[:, known], values[known]  # (k, rank)
        self.whitening.copy_((vectors * values.rsqrt()) @ vectors.mT)

    def _config(self) -> dict[str, Any]:
        return {
            "kernel": self._approximated[0].to_config(),
            "in_features": self.in_features,
            "num_features": self.num_features,
            "cutoff": self.cutoff,
        }

    @classmethod
    def _from_config(cls, config: dict[str, Any]) -> Self:
        # On the meta device nothing is computed; the numbers come from the state dict.
        kernel = Kernel.build(config["kernel"])
        return cls.random(**{**config, "kernel": kernel}, device="meta").to_empty(device="cpu")

    def extra_repr(self) -> str:
        """Describe the sizes and the kernel for ``repr``."""
        parts = [
            f"in_features={self.in_features}, num_features={self.num_features}",
            f"kernel={self.kernel!r}",
            *([f"cutoff={self.cutoff:g}"] if self.cutoff is not None else []),
        ]
        return ", ".join(parts)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


def _with_buffers(kernel: Kernel) -> Kernel:
    """Copy a kernel with its parameters as buffers, under the same names."""
    twin = copy.deepcopy(kernel)
    for part in twin.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach().clone())
    return twin
