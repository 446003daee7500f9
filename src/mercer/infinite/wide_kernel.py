"""NNGP and NTK: kernels of torch modules of infinite width."""

import abc
import importlib
import math
from collections.abc import Mapping, Sequence
from typing import final

import torch
from torch import Tensor, nn

from .._core.config import require_memory
from .._core.precision import full_precision, is_plain, working_dtype
from ..kernels.base import Kernel
from ..kernels.hyperparameter import positive, read_positive, register_positive
from .network import Network
from .operations import State
from .propagate import Scales, Selves, cross
from .tile_plan import held

Std = float | Sequence[float] | Mapping[str, float] | Tensor | None
_DEFAULTS = {"w_std": 2**0.5, "b_std": 0.1}
_PARAMETRIZATIONS = ("ntk", "standard", "torch")


class WideKernel(Kernel, abc.ABC):
    """What NNGP and NTK share: a network and its hyperparameters.

    Abstract.

    Parameters
    ----------
    module : Module or Network
        The network; a module is read and not kept.
    parametrization : {"ntk", "standard", "torch"}
        See `NTK`.
    w_std, b_std : float, sequence, mapping or Tensor, optional
        See `NTK`.
    example : Tensor, optional
        See `NTK`.
    device, dtype : optional
        Of the hyperparameters.
    """

    w_std = positive("w_std", "Standard deviation of weights times the root of fan_in.", least=0.0)
    b_std = positive("b_std", "Standard deviation of biases.", least=0.0)

    def __init__(
        self,
        module: nn.Module | Network,
        *,
        parametrization: str = "ntk",
        w_std: Std = None,
        b_std: Std = None,
        example: Tensor | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(module, Network):
            from .reader import read  # which imports every rule

            module = read(module, example)
        super().__init__(
            module=module,
            parametrization=parametrization,
            w_std=w_std,
            b_std=b_std,
            device=device,
            dtype=dtype,
        )
        if parametrization not in _PARAMETRIZATIONS:
            raise ValueError(
                f"parametrization: expected one of {_PARAMETRIZATIONS}, got {parametrization!r}"
            )
        if parametrization == "torch" and not (w_std is None and b_std is None):
            raise ValueError(
                "w_std, b_std: the parametrization 'torch' reads them from PyTorch's default "
                "initialisation; use 'standard' to set them"
            )
        self.network = module
        self._entries = module.tile_plan.entries
        importlib.import_module(f"{__package__}.wide_tiles")  # which takes this class
        self.parametrization = parametrization
        self.event_ndim = len(module.event_shape)
        given = () if parametrization == "torch" else (("w_std", w_std), ("b_std", b_std))
        for name, value in given:
            register_positive(
                self,
                name,
                read_std(name, value, module.layers),
                least=0.0,
                device=device,
                dtype=dtype,
            )

    @property
    def module(self) -> Network:
        """The network, frozen, as the constructor takes it."""
        return self.network

    @property
    @abc.abstractmethod
    def output(self) -> int:
        """Which of S and T the kernel is: 0 or 1."""

    def diagonals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """S and T of each input with itself, (..., n, *event) to (..., n)."""
        axis = x.ndim - self.event_ndim - 1
        each = held(self.network.operations, self.network.plan.diagonal)
        step = max(1, 2**24 // each)
        parts = []
        for part in x.split(step, axis) if each > 1 and x.shape[axis] > step else (x,):
            s, t = self.selves(part, output=True).states[len(self.network.operations) - 1]
            parts.append((s, torch.zeros_like(s) if t is None else t))
        s, t = zip(*parts, strict=True)
        return (s[0], t[0]) if len(parts) == 1 else (torch.cat(s, -1), torch.cat(t, -1))

    def _scales(self) -> Scales:
        if self.parametrization == "torch":
            return Scales("torch", None, None)
        return Scales(self.parametrization, self.w_std, self.b_std)

    def selves(self, x: Tensor, output: bool = False) -> Selves:
        """Carry each input's covariances with itself through the network."""
        self._check_event("x", x)
        return Selves(self.network.plan, self._scales(), x, output)

    def _check_event(self, name: str, x: Tensor) -> None:
        event = self.network.event_shape
        if tuple(x.shape[x.ndim - len(event) :]) != event:
            wanted = ", ".join(map(str, event))
            raise ValueError(
                f"{name}: expected shape (..., n, {wanted}) as the network takes, "
                f"got {tuple(x.shape)}"
            )

    def _pair(self, x: Tensor, y: Tensor) -> State:
        """S and T between inputs, the formula in one piece."""
        self._check_event("x" if x is y else "y", y)
        lead = max(x.ndim, y.ndim)
        same = x is y
        if is_plain(x, y):
            self._ask_pairs(x, y)
        x, y = (t.reshape(*[1] * (lead - t.ndim), *t.shape) for t in (x, y))
        rows = self.selves(x)
        return cross(rows, rows if same else self.selves(y))

    def _ask_pairs(self, x: Tensor, y: Tensor) -> None:
        """Ask the budget for covariances of all positions of all pairs, several at a time."""
        e = self.event_ndim
        most = held(self.network.operations, self.network.plan.cross)
        pairs = x.shape[x.ndim - e - 1] * y.shape[y.ndim - e - 1]
        lead = x.shape[: x.ndim - e - 1], y.shape[: y.ndim - e - 1]
        pairs *= max(math.prod(lead[0]), math.prod(lead[1]))
        if most > 1 and pairs * most > 2**20:
            require_memory(
                8 * pairs * most * x.element_size(),
                f"covariances of {most} positions of {pairs} pairs of inputs",
                "differentiate fewer inputs at a time",
            )


def read_std(name: str, value: Std, layers: tuple[str, ...]) -> Tensor:
    """Read one standard deviation, or one for each layer."""
    default = _DEFAULTS[name]
    if value is None:
        return torch.tensor(default, dtype=torch.float64)
    if isinstance(value, Mapping):
        found = []
        used = set()
        for layer in layers:
            prefixes = [k for k in value if k == layer or layer.startswith(f"{k}.") or not k]
            best = max(prefixes, key=len, default=None)
            used |= set(prefixes)
            found.append(default if best is None else value[best])
        unknown = [k for k in value if k not in used]
        if unknown:
            raise ValueError(f"{name}: no layer {unknown}; the layers are {list(layers)}")
        value = found
    tensor = read_positive(name, value, least=0.0)
    if tensor.ndim and len(tensor) != len(layers):
        raise ValueError(
            f"{name}: expected one number or {len(layers)}, one for each of {list(layers)}, "
            f"got {len(tensor)}"
        )
    return tensor


@final
class NNGP(WideKernel):
    r"""The kernel of a torch module of infinite width with random weights.

    .. math:: k(x, x') = E_\theta\left[f_\theta(x)\, f_\theta(x')\right]

    An output of the network is a Gaussian process with this covariance. See `NTK` for how a
    module is read.

    Parameters
    ----------
    module : Module or Network
        The network, of any widths; it is read and not kept.
    parametrization : {"ntk", "standard", "torch"}, default "ntk"
        The first two draw weights from N(0, w_std² / fan_in) and biases from N(0, b_std²), which
        makes them the same for this kernel; the last one takes the variances of PyTorch's
        default initialisation.
    w_std, b_std : float, sequence, mapping or Tensor, optional
        Standard deviations; by default the root of 2, and 0.1. See `NTK`.
    example : Tensor of shape (n, *event), optional
        An input, for its shape. See `NTK`.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    NoRuleError
        If the module does what has no rule; it says what, where, and why.
    ValueError, TypeError
        If an argument does not fit.

    References
    ----------
    Lee et al., "Deep neural networks as Gaussian processes", 2017, arXiv 1711.00165.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> k = NNGP(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), b_std=0.0)
    >>> with torch.no_grad():
    ...     k(torch.eye(2))
    tensor([[1.0000, 0.3183],
            [0.3183, 1.0000]])
    """

    @property
    def output(self) -> int:
        """It is S."""
        return 0

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        return self._pair(x, y)[0]

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.diagonals(x)[0]


@final
class NTK(WideKernel):
    r"""The neural tangent kernel of a torch module of infinite width.

    .. math:: k(x, x') = E_\theta\left[\frac{\partial f_\theta(x)}{\partial \theta} \cdot
        \frac{\partial f_\theta(x')}{\partial \theta}\right]

    Gradient descent moves a wide network's outputs by this kernel. The module is traced by
    ``torch.fx``: any forward of layers, activations, residual sums, products, concatenations,
    pooling and reshapes that have a rule (`explain` lists them; `rule` adds one).

    Parameters
    ----------
    module : Module or Network
        The network, of any widths; it is read and not kept. Parameters that do not require
        gradients count as not trained. Dropout counts where its module is in training mode.
    parametrization : {"ntk", "standard", "torch"}, default "ntk"
        ``"ntk"``: :math:`z = (\sigma_w / \sqrt{n}) W x + \sigma_b b` with standard normal W, b,
        so that widths do not enter; ``"standard"``: W from N(0, w_std² / n), b from N(0, b_std²),
        trained as they are, so that the kernel grows with the module's widths; ``"torch"``:
        the same with the variances of PyTorch's default initialisation, which is what the module
        has at birth.
    w_std, b_std : float, sequence, mapping or Tensor, optional
        Standard deviations :math:`\sigma_w, \sigma_b`: one number, one for each layer with
        weights (``kernel.network.layers``), or a mapping from names of layers or of modules
        that contain them, where the rest keep the default. By default the root of 2, for which
        variances of ReLU networks neither grow nor vanish, and 0.1.
    example : Tensor of shape (n, *event), optional
        An input, for its shape, on any device (``device="meta"`` costs nothing). Needed where
        the first layer with weights is no ``nn.Linear``, or takes more than vectors.
    device, dtype : optional
        Of the hyperparameters; float64 by default, whatever the inputs.

    Raises
    ------
    NoRuleError
        If the module does what has no rule; it says what, where, and why.
    ValueError, TypeError
        If an argument does not fit.

    References
    ----------
    Jacot, Gabriel, Hongler: Neural Tangent Kernel, 2018, arXiv 1806.07572.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> k = NTK(nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)), b_std=0.0)
    >>> with torch.no_grad():
    ...     k(torch.eye(2))
    tensor([[2.0000, 0.3183],
            [0.3183, 2.0000]])
    """

    @property
    def output(self) -> int:
        """It is T."""
        return 1

    def _evaluate(self, x: Tensor, y: Tensor) -> Tensor:
        s, t = self._pair(x, y)
        return torch.zeros_like(s) if t is None else t

    def _diagonal(self, x: Tensor) -> Tensor:
        return self.diagonals(x)[1]

    @property
    def nngp(self) -> NNGP:
        """The NNGP kernel of the same network, with the values that the hyperparameters have."""
        found = self._current()
        return NNGP(**found)

    def both(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Evaluate the NNGP kernel and the NTK in one pass.

        Parameters
        ----------
        x : Tensor of shape (..., n, *event)
            Inputs.
        y : Tensor of shape (..., m, *event), optional
            Inputs; without them those of the rows.

        Returns
        -------
        tuple of Tensor of shape (..., n, m)
            The NNGP kernel and the NTK.
        """
        x = self._check("x", x)
        y = None if y is None or y is x else self._check("y", y)
        other = x if y is None else y
        flat = x.ndim == other.ndim == self.event_ndim + 1
        tracked = torch.is_grad_enabled() and any(
            t.requires_grad for t in (x, other, *self.parameters())
        )
        with full_precision(x):
            if flat and is_plain(x, other, *self.parameters()) and not tracked:
                from .wide_tiles import fill_both  # below this file, as it takes kernels

                return fill_both(self, x, y)
            work = working_dtype(x.dtype)
            a = x.to(work)
            s, t = self._pair(a, a if y is None else y.to(work))
            found = [s, torch.zeros_like(s) if t is None else t]
            if y is None:
                for i, diagonal in enumerate(self.diagonals(a)):
                    found[i] = torch.diagonal_scatter(found[i], diagonal, dim1=-2, dim2=-1)
            return found[0].to(x.dtype), found[1].to(x.dtype)
