"""The fully bundled network: every hidden layer becomes features, the last matrix is solved."""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._core.activation import resolve_activation
from .._core.checks import check_choice, check_finite, check_generator, check_int, check_tensor
from .._core.counter import RandomSource
from .._core.saving import save_state
from ..features import ArcCosineFeatures, FeatureMap, NeuronFeatures, UniversalFeatures
from ..linalg import StreamingRidge
from .architecture import describe_model
from .bundled import stored_numbers
from .calibration import Batch
from .linear import bias_of, linear_like, weight_of
from .observe import Block, observe
from .options import DRAWS, FEATURES, read_ridge
from .placing import attribute, describe_placed, place
from .running import check_model, evaluating

_BATCH_ROWS = 2048
_FEATURES_PER_NEURON = 4  # drawn features for each hidden neuron, unless the caller says


@dataclass(frozen=True, eq=False)
class Solved:
    """A network that was solved in closed form.

    Attributes
    ----------
    model : Module
        Maps inputs to outputs (class scores where the targets were classes); evaluation mode.
    ridge : float
        The ridge that was used.
    gcv : float
        The criterion of generalised cross-validation there.
    effective_dof : float
        Effective degrees of freedom of the fit.
    r2_train : float
        Coefficient of determination on the training rows, the mean over outputs.
    num_solved : int
        Numbers that were solved for: the last matrix and its bias.
    num_stored : int
        Numbers that the model stores: those and the feature maps' buffers.
    """

    model: nn.Module
    ridge: float
    gcv: float
    effective_dof: float
    r2_train: float
    num_solved: int
    num_stored: int
    _placed: tuple[str, ...]

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model to a folder, atomically; `mercer.convert.load` reads it back.

        Parameters
        ----------
        folder : str or path
            The folder; made where it is missing.
        """
        config = {
            "class": "convert.Solved",
            "model": describe_model(self.model, set(self._placed)),
            "placed": describe_placed(self.model, self._placed),
        }
        save_state(folder, config, self.model.state_dict())


@torch.no_grad()
def solve(
    model: nn.Module,
    X: Tensor,
    y: Tensor,
    ridge: float | str = "gcv",
    *,
    features: str = "neuron",
    projection: str = "orthogonal",
    num_features: int | None = None,
    generator: RandomSource | int | None = None,
) -> Solved:
    r"""Train a multilayer perceptron in closed form: no gradient step is taken.

    Every hidden layer becomes a feature map, and the last matrix is the optimum for squared
    error (against one-hot targets for classes):

    .. math::
        \hat y = V \, \phi_L(\cdots \phi_1(x)) + b, \qquad
        V = Y^\top Z (Z^\top Z + \lambda I)^{-1}

    in one pass over batches of rows (Z and Y centred), O(n m² + m³).

    Parameters
    ----------
    model : Module
        A chain Linear -> activation -> ... -> Linear, trained or not; it gives depth,
        activations and sizes, and its neurons where the projection asks for them. Unchanged.
    X : Tensor of shape (n, in_features)
        Training inputs.
    y : Tensor of shape (n,) or (n, outputs)
        Classes as integers, or real targets.
    ridge : float or "gcv", default "gcv"
        The ridge :math:`\lambda`, or generalised cross-validation.
    features : {"neuron", "universal", "arc_cosine"}, default "neuron"
        The feature map of each hidden layer.
    projection : str, default "orthogonal"
        ``"orthogonal"``, ``"gaussian"``, ``"hadamard"`` or ``"sobol"`` draw features; ``"own"``
        takes the model's own hidden neurons (features ``"neuron"``): only its last layer is
        solved anew.
    num_features : int, optional
        Features to draw for each hidden layer; by default four for each hidden neuron.
    generator : torch.Generator, CounterGenerator, int or None, optional
        Source of what is drawn.

    Returns
    -------
    Solved
        The network with what is known of the fit.

    Raises
    ------
    TypeError
        If an argument has the wrong type.
    ValueError
        If the model is not such a chain, shapes do not fit, a class is outside the model's
        outputs, or a number is NaN or infinite.

    References
    ----------
    Sehanobish, Choromanski, Zhao, Dubey, Likhosherstov, "Scalable neural network kernels",
    ICLR 2024, arXiv:2310.13225, section on fully bundled networks.

    Examples
    --------
    >>> import torch
    >>> from mercer.convert import solve
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
    >>> X = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> y = (X[:, 0] * X[:, 1] > 0).long()
    >>> solved = solve(net, X, y, generator=0)
    >>> bool((solved.model(X).argmax(1) == y).float().mean() > 0.95)
    True
    """
    check_model(model)
    check_choice("features", features, FEATURES)
    check_choice("projection", projection, (*DRAWS, "own"))
    ridge = read_ridge(ridge)
    if num_features is not None:
        check_int("num_features", num_features)
    if projection == "own" and (features != "neuron" or num_features is not None):
        raise ValueError(
            "projection: 'own' takes all of the model's own neurons, so features must be 'neuron' "
            f"and num_features None; got features={features!r}, num_features={num_features!r}"
        )
    generator = check_generator(generator)
    check_tensor("X", X)
    if X.ndim < 2 or len(X) == 0:
        raise ValueError(f"X: expected shape (n, ...) with n >= 1, got {tuple(X.shape)}")
    check_finite("X", X)

    work = copy.deepcopy(model).eval()
    with evaluating(work):
        blocks = _chain(work, X)
        last = work.get_submodule(blocks[-1].second)
        targets = _targets(y, X, blocks[-1].out_features)
        placed = []
        width = blocks[0].in_features
        for block in blocks:
            phi = _hidden_features(
                work, block, width, features, projection, num_features, generator
            )
            assert block.activation is not None
            for name, module in ((block.first, phi), (block.activation, nn.Identity())):
                place(work, name, module)
                placed.append(name)
            width = phi.num_features
        moments = StreamingRidge(width, targets.shape[1])
        for z, rows in _reaching(work, last, X):
            moments.update(z, targets[rows])
        solution = moments.solve(ridge=ridge)
        matrix = linear_like(solution.weight, solution.bias, like=last)
        place(work, blocks[-1].second, matrix)
        placed.append(blocks[-1].second)
    return Solved(
        model=work,
        ridge=solution.ridge,
        gcv=solution.gcv,
        effective_dof=solution.effective_dof,
        r2_train=float(solution.r2_train.mean()),
        num_solved=stored_numbers(matrix),
        num_stored=stored_numbers(work),
        _placed=tuple(placed),
    )


def _chain(model: nn.Module, X: Tensor) -> list[Block]:
    """Return the blocks of a multilayer perceptron, first to last."""
    blocks, skipped = observe(model, Batch((X[:2],), {}, 0))
    reasons = {item.name: item.reason for item in skipped}
    chained = all(a.second == b.first for a, b in pairwise(blocks))
    ends = bool(blocks) and reasons.get(blocks[-1].second, "").startswith("its output is an output")
    unseen = {item.name for item in skipped} - {b.second for b in blocks}
    if not (chained and ends) or unseen or any(block.activation is None for block in blocks):
        reasons |= {
            block.name: "its activation is a function call, is shared or carries hooks"
            for block in blocks
            if block.activation is None
        }
        told = "; ".join(f"{name or 'model'}: {why}" for name, why in reasons.items())
        raise ValueError(
            "model: expected a chain Linear -> activation module -> ... -> Linear, "
            f"found {len(blocks)} such pairs ({told or 'no linear layer'})"
        )
    return blocks


def _targets(y: Tensor, X: Tensor, outputs: int) -> Tensor:
    """Return targets (n, outputs) in floating point; classes become one-hot."""
    if not isinstance(y, Tensor):
        raise TypeError(f"y: expected a torch.Tensor, got {type(y).__name__}")
    if y.ndim not in (1, 2) or len(y) != len(X):
        raise ValueError(
            f"y: expected shape ({len(X)},) or ({len(X)}, {outputs}) beside X {tuple(X.shape)}, "
            f"got {tuple(y.shape)}"
        )
    if not y.is_floating_point():
        if y.ndim != 1 or y.dtype == torch.bool or y.is_complex():
            raise ValueError(f"y: expected classes of shape (n,), got {y.dtype} {tuple(y.shape)}")
        if int(y.min()) < 0 or int(y.max()) >= outputs:
            raise ValueError(
                f"y: expected classes from 0 to {outputs - 1}, the model's outputs, "
                f"got {int(y.min())} to {int(y.max())}"
            )
        return F.one_hot(y.long(), outputs).to(X.dtype)
    check_finite("y", y)
    y = y.reshape(len(y), -1)
    if y.shape[1] != outputs:
        raise ValueError(f"y: the model has {outputs} outputs, got shape {tuple(y.shape)}")
    return y


def _hidden_features(
    model: nn.Module,
    block: Block,
    width: int,
    features: str,
    projection: str,
    num_features: int | None,
    generator: RandomSource | None,
) -> FeatureMap:
    """Make the map that takes a hidden layer's place; ``width`` is what reaches it by now."""
    first = model.get_submodule(block.first)
    weight, bias = weight_of(first), bias_of(first)
    assert block.activation is not None  # a chain has modules for activations
    activation = resolve_activation(attribute(model, block.activation))
    if projection == "own":
        return NeuronFeatures(weight, bias, activation)
    count = _FEATURES_PER_NEURON * block.hidden_features if num_features is None else num_features
    more: dict[str, Any] = {
        "draw": projection,
        "generator": generator,
        "device": weight.device,
        "dtype": weight.dtype,
    }
    if features == "neuron":
        return NeuronFeatures.random(width, count, activation, **more)
    if features == "universal":
        return UniversalFeatures(activation, width, count, **more)
    return ArcCosineFeatures(width, count, **more)


def _reaching(model: nn.Module, last: nn.Module, X: Tensor) -> Iterator[tuple[Tensor, slice]]:
    """Yield what reaches a layer, batch by batch, with the rows of X it comes from."""
    seen: list[Tensor] = []

    class _Reached(Exception):  # noqa: N818 - not an error: the rest is not needed
        pass

    def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0])
        raise _Reached

    hook = last.register_forward_pre_hook(enter)
    try:
        for start in range(0, len(X), _BATCH_ROWS):
            rows = slice(start, start + _BATCH_ROWS)
            try:
                Batch((X[rows],), {}, start).call(model)
            except _Reached:
                yield seen.pop(), rows
    finally:
        hook.remove()
