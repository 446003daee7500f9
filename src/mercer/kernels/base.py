"""The noun Kernel: a function k(x, y) between points, as a module with its hyperparameters."""

import abc
import importlib
import math
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from .._core.checks import check_int, check_tensor
from .._core.config import require_memory
from .._core.counter import RandomSource
from .._core.precision import full_precision, is_plain, working_dtype
from .specification import Specification

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

    from .composition import Product, Scaled, Sum
    from .gram import Gram

_SMALL = 2**14  # entries under which going by tiles costs more than it saves


class Kernel(Specification, abc.ABC):
    """A positive semi-definite function ``k(x, y)`` of two points.

    Abstract. A subclass passes its constructor arguments on by name (``super().__init__(a=a)``)
    and implements `_evaluate` and `_diagonal`; what is in this class is final. Kernels add,
    multiply and scale: ``k1 + k2``, ``k1 * k2``, ``2.0 * k``.

    As a parameter of a scikit-learn estimator a kernel is a specification: it keeps its
    constructor arguments by identity, `get_params` and `set_params` speak of those, and a
    clone has them, not the values learnt since.

    Parameters
    ----------
    **arguments : object
        The constructor's arguments, by name.

    Attributes
    ----------
    event_ndim : int
        How many trailing axes of an input make one point; 1 for vectors.
    """

    event_ndim: int = 1
    _entries: int = 1

    @property
    def pair_entries(self) -> int:
        """How many numbers a pair of points takes while its entry is computed; 1 for vectors."""
        return max(part._entries for part in self.modules() if isinstance(part, Kernel))

    # -- what a kernel implements ----------------------------------------------------------------

    @abc.abstractmethod
    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        """Evaluate the formula, (..., n, *event) and (..., m, *event) to (..., n, m)."""

    @abc.abstractmethod
    def _diagonal(self, x: Tensor) -> Tensor:
        """Evaluate k(x_i, x_i), (..., n, *event) to (..., n)."""

    # -- evaluation ------------------------------------------------------------------------------

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Evaluate the kernel between rows.

        Parameters
        ----------
        x : Tensor of shape (..., n, *event)
            Points.
        y : Tensor of shape (..., m, *event), optional
            Points; without them, or with the same tensor, the kernel of x with itself, whose
            diagonal is exact.

        Returns
        -------
        Tensor of shape (..., n, m)
            The kernel matrix, in the dtype of x.

        Raises
        ------
        TypeError
            If an input is not a floating-point tensor.
        ValueError
            If shapes, dtypes or devices do not fit.
        MemoryError
            If a large matrix does not fit the memory budget.
        RuntimeError
            If a hyperparameter was left to the data and not set yet; see `fit`.
        """
        x = self._check("x", x)
        if y is not None and y is not x:
            y = self._check("y", y)
            if y.dtype != x.dtype or y.device != x.device:
                raise ValueError(
                    f"y: expected {x.dtype} on {x.device} like x, got {y.dtype} on {y.device}"
                )
            e = self.event_ndim
            if y.shape[y.ndim - e :] != x.shape[x.ndim - e :]:
                raise ValueError(
                    f"y: expected shape (..., m{''.join(f', {s}' for s in x.shape[x.ndim - e :])})"
                    f" beside x {tuple(x.shape)}, got {tuple(y.shape)}"
                )
        else:
            y = None
        self._check_set()
        with full_precision(x):
            other = x if y is None else y
            flat = x.ndim == other.ndim == self.event_ndim + 1
            # Plain first: where a function is traced its sizes must not decide.
            plain = is_plain(x, other, *self.parameters())
            if plain and flat and len(x) * len(other) * self.pair_entries > _SMALL:
                from .dense import dense  # below this file, as it evaluates kernels

                return dense(self, x, y)
            if plain and not flat:
                self._ask_memory(x, other)
            return self._naive(x, y)

    def _naive(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Evaluate the formula in one piece: the twin of the tiles."""
        work = working_dtype(x.dtype)
        a = x.to(work)
        if y is not None:
            return self._evaluate(a, y.to(work)).to(x.dtype)
        whole = self._evaluate(a, a)
        return torch.diagonal_scatter(
            whole, self._diagonal(a).expand(whole.shape[:-1]), dim1=-2, dim2=-1
        ).to(x.dtype)

    def _ask_memory(self, x: Tensor, y: Tensor) -> None:
        """Ask the budget for a batch of matrices, and as much again to compute them."""
        a, b = x.shape[: x.ndim - self.event_ndim], y.shape[: y.ndim - self.event_ndim]
        if any(p != q and 1 not in (p, q) for p, q in zip(a[-2::-1], b[-2::-1], strict=False)):
            return  # the formula says what does not broadcast
        shape = (*torch.broadcast_shapes(a[:-1], b[:-1]), a[-1], b[-1])
        if math.prod(shape) > _SMALL:
            require_memory(
                2 * math.prod(shape) * max(x.element_size(), 4),
                f"kernel matrices of shape {shape} in {x.dtype}",
                "evaluate fewer of them at a time",
            )

    def diag(self, x: Tensor) -> Tensor:
        """Evaluate the kernel of each point with itself.

        Parameters
        ----------
        x : Tensor of shape (..., n, *event)
            Points.

        Returns
        -------
        Tensor of shape (..., n)
            The diagonal of ``k(x)``.
        """
        x = self._check("x", x)
        self._check_set()
        with full_precision(x):
            return self._diagonal(x.to(working_dtype(x.dtype))).to(x.dtype)

    def gram(
        self, x: Tensor, y: Tensor | None = None, *, group: "ProcessGroup | None" = None
    ) -> "Gram":
        """Make the kernel matrix as a lazy operator.

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            Points of the rows.
        y : Tensor of shape (m, *event), optional
            Points of the columns; without them those of the rows.
        group : torch.distributed.ProcessGroup, optional
            Processes that share the work; each must hold the same points and hyperparameters.

        Returns
        -------
        Gram
            The operator; see `Gram`.
        """
        from .gram import Gram

        return Gram(self, x, y, group=group)

    def features(
        self,
        num_features: int,
        *,
        like: Tensor,
        method: str | None = None,
        generator: RandomSource | int | None = None,
        **options: Any,
    ) -> Any:
        """Make a feature map that approximates this kernel.

        Parameters
        ----------
        num_features : int
            Number of output columns.
        like : Tensor of shape (n, *event)
            Data, or points like them: their size, dtype and device are the map's, and what
            depends on data (landmarks, a median lengthscale) comes from them.
        method : str, optional
            Which map; None takes an exact one where it exists and fits, a random one where the
            kernel has a spectral form, and Nystroem otherwise. The map's name says which.
        generator : torch.Generator, CounterGenerator, int or None, optional
            Source of the draws.
        **options : object
            Arguments of that map.

        Returns
        -------
        FeatureMap
            The map; its attribute ``kernel`` is what it approximates.
        """
        check_int("num_features", num_features)
        features = importlib.import_module("mercer.features")  # a later room, which fills this in
        return features.kernel_features(
            self, num_features, like=like, method=method, generator=generator, **options
        )

    def _check(self, name: str, x: Any) -> Tensor:
        if check_tensor(name, x).ndim < self.event_ndim + 1:
            raise ValueError(
                f"{name}: expected shape (..., n{', d' if self.event_ndim == 1 else ', *event'}), "
                f"got {tuple(x.shape)}"
            )
        return x

    # -- hyperparameters left to the data --------------------------------------------------------

    def fit(self, x: Tensor) -> Self:
        """Set the hyperparameters that were left to the data, such as ``lengthscale="median"``.

        Parameters
        ----------
        x : Tensor of shape (n, *event)
            The data.

        Returns
        -------
        Kernel
            The kernel itself.
        """
        x = self._check("x", x)
        with torch.no_grad(), full_precision(x):
            for part in self.modules():
                set_from = getattr(part, "_set_from", None)
                if set_from is not None:
                    set_from(x)
        return self

    def _check_set(self) -> None:
        for part in self.modules():
            if getattr(part, "_waits_for_data", False):
                raise RuntimeError(
                    f"{type(part).__name__}: a hyperparameter is left to the data and not set yet; "
                    "call fit(x) with the data first"
                )

    # -- composition -----------------------------------------------------------------------------

    def __add__(self, other: Any) -> "Sum":
        from .composition import Sum
        from .constant import Constant

        if isinstance(other, Kernel):
            return Sum(self, other)
        if isinstance(other, float | int) and not isinstance(other, bool):
            return Sum(self, Constant(float(other), event_ndim=self.event_ndim))
        return NotImplemented

    def __radd__(self, other: Any) -> "Sum":
        from .composition import Sum
        from .constant import Constant

        if isinstance(other, float | int) and not isinstance(other, bool):
            return Sum(Constant(float(other), event_ndim=self.event_ndim), self)
        return NotImplemented

    def __mul__(self, other: Any) -> "Product | Scaled":
        from .composition import Product, Scaled

        if isinstance(other, Kernel):
            return Product(self, other)
        if isinstance(other, float | int) and not isinstance(other, bool):
            return Scaled(self, float(other))
        return NotImplemented

    def __rmul__(self, other: Any) -> "Product | Scaled":
        return self.__mul__(other)
