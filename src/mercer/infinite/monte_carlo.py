"""Kernels of wide networks by Monte Carlo: means over finite networks, with standard errors."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._core.axes import axes_or_new
from .._core.checks import check_choice, check_finite, check_int, check_tensor
from .._core.counter import RandomSource
from .._core.random import draw_integers, own_stream
from .monte_carlo_draws import Drawn, draw_state, plan_draws, read_scales
from .monte_carlo_estimate import estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class MonteCarloKernel:
    """Kernels estimated from finite networks, made by `monte_carlo`.

    Attributes
    ----------
    nngp, ntk : Tensor of shape (n, m)
        Means over networks.
    nngp_error, ntk_error : Tensor of shape (n, m)
        Their standard errors. They say nothing of the bias of a finite width, which shrinks as
        one over the width.
    samples : int
        Number of networks.
    width : int
        What the factory was called with.
    """

    nngp: Tensor = field(repr=False)
    ntk: Tensor = field(repr=False)
    nngp_error: Tensor = field(repr=False)
    ntk_error: Tensor = field(repr=False)
    samples: int
    width: int

    def plot(
        self, ax: "Axes | None" = None, *, kernel: str = "ntk", exact: Tensor | None = None
    ) -> "Axes":
        """Draw the estimated matrix, or each of its entries over the exact one.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        kernel : {"ntk", "nngp"}
            Which of the two.
        exact : Tensor of shape (n, m), optional
            The kernel at infinite width. With it, entries are drawn over the exact ones, with
            bars of two standard errors; without it, the matrix as an image.

        Returns
        -------
        matplotlib Axes
            The axes.
        """
        check_choice("kernel", kernel, ("ntk", "nngp"))
        mean, error = (self.ntk, self.ntk_error)
        if kernel == "nngp":
            mean, error = (self.nngp, self.nngp_error)
        name = kernel.upper()
        told = f"{self.samples} networks of width {self.width}"
        if exact is None:
            ax = axes_or_new(ax, (4.8, 4.0))
            image = ax.imshow(mean.cpu().numpy(), cmap="viridis", interpolation="nearest")
            share = float((error / mean.abs().clamp(min=1e-300)).median())
            label = f"{name} (standard error {share:.1%} in the median)"
            ax.get_figure(root=True).colorbar(image, ax=ax, label=label)  # pyright: ignore
            ax.set_xlabel("point of the columns")
            ax.set_ylabel("point of the rows")
            ax.set_title(f"{name}, {told}", fontsize="medium")
            return ax
        if check_tensor("exact", exact).shape != mean.shape:
            raise ValueError(
                f"exact: expected shape {tuple(mean.shape)} like the estimate, "
                f"got {tuple(exact.shape)}"
            )
        ax = axes_or_new(ax, (4.8, 4.0))
        over = exact.detach().cpu().flatten().numpy()
        ax.axline((float(over[0]), float(over[0])), slope=1, color="0.5", label="equal", zorder=1)
        ax.errorbar(
            over,
            mean.cpu().flatten().numpy(),
            2 * error.cpu().flatten().numpy(),
            fmt="o",
            markersize=4,
            color="#0072B2",
            ecolor="#56B4E9",
            label="estimate, 2 standard errors",
        )
        ax.set_xlabel(f"exact {name}")
        ax.set_ylabel(f"estimated {name}")
        ax.set_title(told, fontsize="medium")
        ax.legend()
        return ax


def _build(module_factory: Callable[[int], nn.Module], width: int) -> nn.Module:
    if isinstance(module_factory, nn.Module) or not callable(module_factory):
        got = type(module_factory).__name__
        raise TypeError(
            "module_factory: expected a callable from a width to a torch module, such as "
            f"lambda width: nn.Sequential(...), got {got}"
        )
    module = module_factory(width)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"module_factory: expected it to return a torch module, got {type(module).__name__}"
        )
    return module


def _states(
    module_factory: Callable[[int], nn.Module],
    width: int,
    module: nn.Module,
    plan: Mapping[str, Drawn],
    source: RandomSource | None,
    like: Tensor,
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Draw one network after the other: with nothing to draw, made anew by the factory."""
    anew = all(drawn.spread is None for drawn in plan.values())
    yield draw_state(module, plan, source, like)
    while True:
        another = _build(module_factory, width) if anew else module
        shapes = {name: value.shape for name, value in another.named_parameters()}
        if shapes != {name: drawn.shape for name, drawn in plan.items()}:
            raise ValueError(
                f"module_factory: expected networks of one architecture at width {width}, "
                f"got parameters {sorted(shapes)} after {sorted(plan)}, or other sizes of them"
            )
        yield draw_state(another, plan, source, like)


@torch.no_grad()
def monte_carlo(
    module_factory: Callable[[int], nn.Module],
    width: int,
    samples: int,
    x: Tensor,
    y: Tensor | None = None,
    *,
    parametrization: str = "ntk",
    w_std: float | Mapping[str, float] | None = None,
    b_std: float | Mapping[str, float] | None = None,
    generator: RandomSource | int | None = None,
    show_progress: bool = False,
) -> MonteCarloKernel:
    r"""Estimate the kernels of a wide network from finite ones.

    .. math:: K(x, x') \approx \frac{1}{S O} \sum_{s, o} f^s_o(x) f^s_o(x'), \qquad
        \Theta(x, x') \approx \frac{1}{S O} \sum_{s, o}
        \frac{\partial f^s_o(x)}{\partial \theta} \cdot
        \frac{\partial f^s_o(x')}{\partial \theta}

    over S networks with O outputs. It takes any network that torch can differentiate, those
    without a kernel in closed form too (softmax attention, max pooling), and tests the others:
    the estimates scatter by the standard errors around a mean that approaches the limit as one
    over the width.

    ================= ========================================================================
    Parametrization   Weights and gradients
    ================= ========================================================================
    ``"ntk"``         ``z = w_std / sqrt(fan_in) W a + b_std b``, standard normal W and b: each
                      weight of the module is drawn with variance ``w_std^2 / fan_in``, each bias
                      with ``b_std^2``, and gradients are scaled by the roots of these
    ``"standard"``    the same draws, gradients as they are
    ``"torch"``       each network as the factory made it, gradients as they are
    ================= ========================================================================

    The fan-in of a convolution is its channels by groups times the positions of its kernel. What
    norms learn stays as it was made. Parameters that require no gradient are drawn, and do not
    count in the tangent kernel. The mode of the module decides, as ever, whether it drops out;
    then each point has masks of its own. Gradients are what autograd says: those of a
    `mercer.kernels.SurrogateActivation` are its surrogate's.

    Parameters
    ----------
    module_factory : callable
        From a width to an ordinary torch module whose hidden layers are that wide; it maps
        ``(n, *event)`` to ``(n, o)`` or ``(n,)``. It is called once, or with ``"torch"`` once
        for each network; what it returns is not changed.
    width : int
        What the factory is called with.
    samples : int
        How many networks, at least 2.
    x : Tensor of shape (n, *event)
        Points of the rows; the dtype is that of the computation.
    y : Tensor of shape (m, *event), optional
        Points of the columns; without them those of the rows.
    parametrization : {"ntk", "standard", "torch"}
        See the table.
    w_std, b_std : float or mapping of str to float, optional
        Standard deviations, by default the root of 2, and 0.1; a mapping gives them to layers by
        their names, or those of modules that contain them, where the rest keep the default. They
        are not for ``"torch"``.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of the draws, those of the factory and of dropout too. With one given, the global
        random state is untouched.
    show_progress : bool, default False
        Whether to show a progress bar.

    Returns
    -------
    MonteCarloKernel
        Estimates of both kernels, with their standard errors.

    Raises
    ------
    TypeError
        If the factory returns no module, or an argument has the wrong type.
    ValueError
        If shapes do not fit, the network has parameters that the parametrization does not know,
        or normalises over the batch.
    MemoryError
        If the Jacobian of a single point does not fit the memory budget.

    References
    ----------
    Jacot, Gabriel, Hongler: Neural Tangent Kernel, 2018, arXiv 1806.07572.

    Novak, Xiao, Hron, Lee, Alemi, Sohl-Dickstein, Schoenholz: Neural Tangents, 2019,
    arXiv 1912.02803.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> def net(width):
    ...     return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, 1))
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> found = monte_carlo(net, 256, 200, x, b_std=0.0, generator=0)
    >>> exact = torch.tensor([[2.0, 0.3183], [0.3183, 2.0]])  # q = 1 on the diagonal, 0 off it
    >>> bool(((found.ntk - exact).abs() < 4 * found.ntk_error).all())
    True
    """
    check_int("width", width)
    check_int("samples", samples, least=2)
    check_choice("parametrization", parametrization, ("ntk", "standard", "torch"))
    weights, biases = read_scales("w_std", w_std), read_scales("b_std", b_std)
    if parametrization == "torch" and not (w_std is None and b_std is None):
        raise ValueError(
            'w_std, b_std: networks of the parametrization "torch" stay as the factory made them; '
            'expected None, or "standard" to draw them'
        )
    x, y = _check_points(x, y)
    source = own_stream(generator)  # from None too: torch's default generator moves by one draw
    # Of the ways to attend only the plain one has a rule for vmap.
    plain = sdpa_kernel(SDPBackend.MATH)
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), plain:
        torch.manual_seed(int(draw_integers(2**62, (), source)))
        module = _build(module_factory, width)
        plan = plan_draws(module, parametrization, weights, biases)
        states = _states(module_factory, width, module, plan, source, x)
        nngp, ntk = estimate(module, plan, states, samples, x, y, show_progress)
    read = (nngp.mean, ntk.mean, nngp.error(), ntk.error())
    return MonteCarloKernel(*(t.to(x.dtype) for t in read), samples=samples, width=width)


def _check_points(x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
    for name, points in (("x", x), ("y", y)):
        if points is None:
            continue
        if check_tensor(name, points).ndim < 2 or not len(points):
            raise ValueError(
                f"{name}: expected at least one point, shape (n, *event), got {tuple(points.shape)}"
            )
        check_finite(name, points)
    if y is not None and (y.shape[1:] != x.shape[1:] or y.dtype != x.dtype):
        raise ValueError(
            f"y: expected points like those of x {tuple(x.shape)} in {x.dtype}, "
            f"got {tuple(y.shape)} in {y.dtype}"
        )
    return x.detach(), None if y is None or y is x else y.detach()
