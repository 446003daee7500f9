"""Bad input over the public functions: the documented type of error, and the argument by name."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mercer
from mercer.convert import adapt, bundle, bundle_head, load, load_adapters, solve, trainable
from mercer.datasets import find, read_texts, sst2
from mercer.features import (
    ArcCosineFeatures,
    CounterGenerator,
    Fastfood,
    FastfoodProjection,
    FeatureMap,
    HadamardProjection,
    MonomialFeatures,
    NeuronFeatures,
    PolynomialSketch,
    PositiveFeatures,
    QuadratureFeatures,
    RandomFourier,
    UniversalFeatures,
    WithInput,
    hadamard_transform,
    kernel_features,
    make_projection,
)
from mercer.infinite import NTK, NoRuleError, SurrogateNTK, explain, monte_carlo, read
from mercer.kernels import (
    RBF,
    ArcCosine,
    Constant,
    Cosine,
    Exponential,
    Gram,
    Laplacian,
    Linear,
    Matern,
    Periodic,
    Polynomial,
    PowerActivation,
    Precomputed,
    Product,
    RationalQuadratic,
    Scaled,
    SpectralMixture,
    Sum,
    SurrogateActivation,
    White,
    resolve_kernel,
)
from mercer.kernels import dual as dual_activation
from mercer.linalg import (
    StreamingMoments,
    StreamingRidge,
    pivoted_cholesky,
    projection_dpp,
    ridge_leverage_scores,
    sample_kdpp,
)
from mercer.nn import SNNK, SNNKAdapter, select_neurons

NET = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
BLOCKLESS = nn.Sequential(nn.Linear(4, 32), nn.LayerNorm(32), nn.Linear(32, 3))  # no block in it
X, Y = torch.linspace(-1, 1, 80).reshape(20, 4), torch.arange(20) % 3
LINEAR = nn.Linear(4, 8)
PSD = torch.eye(5)
ONE = torch.ones(())
NAN = X.clone()
NAN[3, 2] = math.nan
INFINITE = X.clone()
INFINITE[3, 2] = math.inf


def as_parameter(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, dict):  # its numbers are drawn anew in each worker
        return type(value).__name__
    return value.__name__ if callable(value) and hasattr(value, "__name__") else repr(value)[:40]


def rows(function: Any, good: dict[str, Any], *bad: tuple[dict[str, Any], type, str]) -> list:
    """Make a row of each change to good arguments, with the error and the argument it names."""
    return [
        pytest.param(
            function,
            {**good, **changes},
            error,
            name,
            id=f"{function.__qualname__}-"
            + "-".join(f"{key}={as_parameter(value)}" for key, value in changes.items()),
        )
        for changes, error, name in bad
    ]


def wide_net(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 1))


def trained_with_surrogates(surrogate: Any = "erf", **data: Any) -> Any:
    return SurrogateNTK(wide_net(4), surrogate=surrogate).predict(**data)


def wide_kernel_of(x: Any, y: Any = None) -> Any:
    return NTK(wide_net(4))(x, y)


def ridge_with(features: Any, targets: Any) -> StreamingRidge:
    return StreamingRidge(4, 2).update(features, targets)


def moments_with(features: Any, targets: Any, weights: Any = None) -> StreamingMoments:
    return StreamingMoments(4, 2).update(features, targets, weights)


def solved_ridge(ridge: Any) -> Any:
    return StreamingRidge(4, 4).update(X, X).solve(ridge)


def ridge_without_rows(ridge: float = 1.0) -> Any:
    return StreamingRidge(4, 4).solve(ridge)


def merged_ridge(other: Any) -> Any:
    return StreamingRidge(4, 4).merge(other)


def ridge_subset(indices: Any) -> Any:
    return StreamingRidge(4, 4).update(X, X).subset(indices)


def memory_budget(value: Any) -> None:
    with mercer.config.override(memory_budget=value):
        pass


def read_text(
    tmp_path: Any, text: str = "a\tb\nc\td\n", name: str = "f.tsv", **options: Any
) -> Any:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return read_texts(file, **options)


def dual(weight: Any, bias: Any = None) -> Tensor:
    return UniversalFeatures("relu", 4, 8, generator=0).dual(weight, bias)


def forward(x: Any) -> Tensor:
    return SNNK(4, 3, num_features=8, generator=0)(x)


def absorbed(linear: Any) -> SNNK:
    return SNNK(4, 8, num_features=8, generator=0).bundle(linear)


def evaluated(x: Any, y: Any = None, kernel: Any = None) -> Tensor:
    return (kernel or RBF())(x, y)


def diagonal(x: Any) -> Tensor:
    return RBF().diag(x)


def fitted(x: Any) -> Any:
    return RBF("median").fit(x)


def written(lengthscale: Any) -> None:
    RBF([1.0, 2.0]).lengthscale = lengthscale


def multiplied(v: Any, y: Any = None) -> Tensor:
    return RBF().gram(X, y) @ v


def gram_rows(index: Any) -> Tensor:
    return RBF().gram(X).rows(index)


def gram_columns(index: Any) -> Tensor:
    return RBF().gram(X, X[:5].clone()).columns(index)


def gram_solve(rhs: Any = X, **options: Any) -> Any:
    return RBF().gram(X, options.pop("y", None)).solve(rhs, **options)


def approximated(num_features: Any = 8, like: Any = X, **options: Any) -> Any:
    return RBF().features(num_features, like=like, **options)


def dual_of(q11: Any, q22: Any = ONE, q12: Any = ONE) -> Any:
    return dual_activation("relu")(q11, q22, q12)


CASES = [
    *rows(
        RBF,
        {},
        ({"lengthscale": 0.0}, ValueError, "lengthscale"),
        ({"lengthscale": -1}, ValueError, "lengthscale"),
        ({"lengthscale": math.nan}, ValueError, "lengthscale"),
        ({"lengthscale": math.inf}, ValueError, "lengthscale"),
        ({"lengthscale": [1.0, 0.0]}, ValueError, "lengthscale"),
        ({"lengthscale": []}, ValueError, "lengthscale"),
        ({"lengthscale": torch.ones(2, 2)}, ValueError, "lengthscale"),
        ({"lengthscale": "mean"}, ValueError, "lengthscale"),
        ({"lengthscale": None}, TypeError, "lengthscale"),
        ({"lengthscale": True}, TypeError, "lengthscale"),
        ({"lengthscale": ["a"]}, TypeError, "lengthscale"),
    ),
    *rows(
        Matern,
        {},
        ({"nu": 1.0}, ValueError, "nu"),
        ({"nu": "1.5"}, ValueError, "nu"),
        ({"nu": math.inf}, ValueError, "nu"),
        ({"nu": None}, ValueError, "nu"),
    ),
    *rows(
        RationalQuadratic,
        {},
        ({"alpha": 0}, ValueError, "alpha"),
        ({"alpha": [1.0, 2.0]}, ValueError, "alpha"),
    ),
    *rows(Periodic, {}, ({"period": 0}, ValueError, "period")),
    *rows(Cosine, {}, ({"period": -2.0}, ValueError, "period")),
    *rows(Laplacian, {}, ({"lengthscale": "max"}, ValueError, "lengthscale")),
    *rows(
        Polynomial,
        {},
        ({"degree": 0}, ValueError, "degree"),
        ({"degree": 2.5}, TypeError, "degree"),
        ({"offset": -1.0}, ValueError, "offset"),
    ),
    *rows(
        SpectralMixture,
        {"weights": [1.0, 2.0], "means": [[0.0]] * 2, "scales": [[1.0]] * 2},
        ({"weights": [1.0, -2.0]}, ValueError, "weights"),
        ({"means": [[0.0]]}, ValueError, "means"),
        ({"means": [0.0, 1.0]}, ValueError, "means"),
        ({"means": [[math.nan]] * 2}, ValueError, "means"),
        ({"means": "two"}, TypeError, "means"),
        ({"scales": [[1.0, 2.0]] * 2}, ValueError, "scales"),
        ({"scales": [[0.0]] * 2}, ValueError, "scales"),
    ),
    *rows(
        ArcCosine,
        {},
        ({"order": 3}, ValueError, "order"),
        ({"order": "1"}, ValueError, "order"),
        ({"order": True}, ValueError, "order"),
    ),
    *rows(
        Constant,
        {},
        ({"value": -1e-9}, ValueError, "value"),
        ({"event_ndim": -1}, ValueError, "event_ndim"),
    ),
    *rows(White, {}, ({"noise": -1.0}, ValueError, "noise")),
    *rows(
        Precomputed,
        {},
        ({"matrix": [[1.0]]}, TypeError, "matrix"),
        ({"matrix": torch.eye(3).long()}, TypeError, "matrix"),
        ({"matrix": torch.ones(3)}, ValueError, "matrix"),
        ({"matrix": torch.ones(2, 3)}, ValueError, "matrix"),
        ({"matrix": torch.tensor([[1.0, 2.0], [0.0, 1.0]])}, ValueError, "matrix"),
        ({"matrix": torch.full((2, 2), math.nan)}, ValueError, "matrix"),
    ),
    *rows(
        Sum,
        {"left": RBF(), "right": RBF()},
        ({"left": 1.0}, TypeError, "left"),
        ({"right": "rbf"}, TypeError, "right"),
        ({"right": Constant(event_ndim=3)}, ValueError, "right"),
    ),
    *rows(Product, {"left": RBF()}, ({"right": None}, TypeError, "right")),
    *rows(
        Scaled,
        {"kernel": RBF()},
        ({"kernel": "rbf"}, TypeError, "kernel"),
        ({"scale": -1.0}, ValueError, "scale"),
    ),
    *rows(
        resolve_kernel,
        {},
        ({"kernel": "gauss"}, ValueError, "kernel"),
        ({"kernel": "precomputed"}, ValueError, "kernel"),
        ({"kernel": 3}, TypeError, "kernel"),
        ({"kernel": RBF}, TypeError, "kernel"),
    ),
    *rows(
        evaluated,
        {"x": X},
        ({"x": X[0]}, ValueError, "x"),
        ({"x": X.long()}, TypeError, "x"),
        ({"x": X.tolist()}, TypeError, "x"),
        ({"y": X[:, :3]}, ValueError, "y"),
        ({"y": X.double()}, ValueError, "y"),
        ({"y": X.numpy()}, TypeError, "y"),
        ({"kernel": RBF([1.0, 2.0])}, ValueError, "x"),
        ({"kernel": Periodic(period=[1.0, 2.0])}, ValueError, "x"),
        ({"kernel": Precomputed(PSD), "x": torch.tensor([5.0])}, ValueError, "x"),
        ({"kernel": Precomputed(PSD), "x": torch.tensor([0.5])}, ValueError, "x"),
        ({"kernel": Precomputed(PSD), "x": torch.tensor([math.nan])}, ValueError, "x"),
    ),
    *rows(diagonal, {}, ({"x": X[0]}, ValueError, "x"), ({"x": [1.0]}, TypeError, "x")),
    *rows(
        fitted,
        {},
        ({"x": X[:1]}, ValueError, "x"),
        ({"x": NAN}, ValueError, "x"),
        ({"x": INFINITE}, ValueError, "x"),
        ({"x": X[:0]}, ValueError, "x"),
    ),
    *rows(
        written,
        {},
        ({"lengthscale": [1.0, 2.0, 3.0]}, ValueError, "lengthscale"),
        ({"lengthscale": 0}, ValueError, "lengthscale"),
        ({"lengthscale": "median"}, TypeError, "lengthscale"),
    ),
    *rows(
        Gram,
        {"kernel": RBF(), "x": X},
        ({"kernel": "rbf"}, TypeError, "kernel"),
        ({"x": X[None]}, ValueError, "x"),
        ({"y": X[0]}, ValueError, "y"),
        ({"y": X[:, :2]}, ValueError, "y"),
        ({"group": 3}, TypeError, "group"),
    ),
    *rows(
        multiplied,
        {"v": X},
        ({"v": X[:7]}, ValueError, "v"),
        ({"v": X.double()}, ValueError, "v"),
        ({"v": X[None]}, ValueError, "v"),
        ({"v": 2.0}, TypeError, "v"),
        ({"v": X.long()}, TypeError, "v"),
        ({"y": X[:5].clone()}, ValueError, "v"),
    ),
    *rows(
        gram_rows,
        {},
        ({"index": 3}, TypeError, "index"),
        ({"index": torch.tensor([20])}, ValueError, "index"),
        ({"index": torch.ones(20, dtype=torch.bool)}, TypeError, "index"),
        ({"index": torch.tensor([0.5])}, TypeError, "index"),
    ),
    *rows(gram_columns, {}, ({"index": torch.tensor([-6])}, ValueError, "index")),
    *rows(
        gram_solve,
        {},
        ({"rhs": X[:3]}, ValueError, "rhs"),
        ({"rhs": X.double()}, ValueError, "rhs"),
        ({"rhs": NAN}, ValueError, "rhs"),
        ({"rhs": None}, TypeError, "rhs"),
        ({"ridge": -1.0}, ValueError, "ridge"),
        ({"ridge": "auto"}, TypeError, "ridge"),
        ({"method": "lu"}, ValueError, "method"),
        ({"y": X[:5].clone()}, ValueError, "gram"),
        ({"method": "cg", "preconditioner_rank": -1}, ValueError, "preconditioner_rank"),
        ({"method": "cg", "tolerance": -1.0}, ValueError, "tolerance"),
        ({"method": "cg", "max_iterations": 0}, ValueError, "max_iterations"),
        ({"method": "cg", "start": X[:3]}, ValueError, "start"),
    ),
    *rows(
        approximated,
        {},
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": 8.0}, TypeError, "num_features"),
        ({"method": "magic"}, ValueError, "method"),
        ({"like": X.tolist()}, TypeError, "like"),
        ({"like": X[0]}, ValueError, "like"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        dual_activation,
        {},
        ({"activation": "rule"}, ValueError, "activation"),
        ({"activation": 3}, TypeError, "activation"),
        ({"activation": "relu", "derivative": 1.0}, TypeError, "derivative"),
        ({"activation": "sign", "surrogate": "magic"}, ValueError, "surrogate"),
    ),
    *rows(
        dual_of,
        {"q11": ONE},
        ({"q11": 1.0}, TypeError, "q11"),
        ({"q22": ONE.long()}, TypeError, "q22"),
        ({"q12": torch.ones(3), "q11": torch.ones(2)}, ValueError, "q11"),
    ),
    *rows(
        PowerActivation,
        {},
        ({"order": -1}, ValueError, "order"),
        ({"order": 1, "negative": math.nan}, ValueError, "negative"),
    ),
    *rows(
        SurrogateActivation,
        {"activation": "sign", "surrogate": "erf"},
        ({"surrogate": 3}, TypeError, "surrogate"),
    ),
    *rows(
        bundle,
        {"model": NET, "calibrate": X},
        ({"model": "bert"}, TypeError, "model"),
        ({"model": NET.to("cpu").state_dict()}, TypeError, "model"),
        ({"model": nn.Linear(4, 2, device="meta")}, ValueError, "model"),
        ({"calibrate": None}, TypeError, "calibrate"),
        ({"calibrate": "texts.tsv"}, TypeError, "calibrate"),
        ({"calibrate": ["a film"]}, TypeError, "calibrate"),
        ({"calibrate": []}, ValueError, "calibrate"),
        ({"calibrate": X[:0]}, ValueError, "calibrate"),
        ({"calibrate": torch.tensor(3.0)}, ValueError, "calibrate"),
        ({"calibrate": NAN}, ValueError, "calibrate"),
        ({"calibrate": INFINITE}, ValueError, "calibrate"),
        ({"calibrate": [{"x": "text"}]}, ValueError, "calibrate"),
        ({"keep": 0}, ValueError, "keep"),
        ({"keep": 1.5}, ValueError, "keep"),
        ({"keep": math.nan}, ValueError, "keep"),
        ({"keep": "half"}, TypeError, "keep"),
        ({"keep": True}, TypeError, "keep"),
        ({"keep": 1e-3}, ValueError, "keep"),
        ({"where": "("}, ValueError, "where"),
        ({"where": "encoder"}, ValueError, "where"),
        ({"where": 7}, TypeError, "where"),
        ({"model": BLOCKLESS}, ValueError, "where"),
        ({"features": "fourier"}, ValueError, "features"),
        ({"features": None}, TypeError, "features"),
        ({"projection": "random"}, ValueError, "projection"),
        ({"projection": 3}, TypeError, "projection"),
        ({"features": "universal", "projection": "leverage"}, ValueError, "projection"),
        ({"ridge": -1}, ValueError, "ridge"),
        ({"ridge": "loo"}, ValueError, "ridge"),
        ({"ridge": None}, TypeError, "ridge"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        solve,
        {"model": NET, "X": X, "y": Y},
        ({"model": None}, TypeError, "model"),
        ({"model": BLOCKLESS}, ValueError, "model"),
        ({"X": X.tolist()}, TypeError, "X"),
        ({"X": X.long()}, TypeError, "X"),
        ({"X": X[0]}, ValueError, "X"),
        ({"X": NAN}, ValueError, "X"),
        ({"y": Y.tolist()}, TypeError, "y"),
        ({"y": Y[:7]}, ValueError, "y"),
        ({"y": Y + 1}, ValueError, "y"),
        ({"y": Y - 1}, ValueError, "y"),
        ({"y": X}, ValueError, "y"),
        ({"y": NAN[:, :3]}, ValueError, "y"),
        ({"ridge": -0.1}, ValueError, "ridge"),
        ({"features": "rbf"}, ValueError, "features"),
        ({"projection": "leverage"}, ValueError, "projection"),
        ({"projection": "own", "num_features": 3}, ValueError, "projection"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": 2.5}, TypeError, "num_features"),
        ({"generator": 1.5}, TypeError, "generator"),
    ),
    *rows(
        adapt,
        {"model": NET, "where": ["0"], "num_features": 8},
        ({"model": None}, TypeError, "model"),
        ({"where": 3}, TypeError, "where"),
        ({"where": [3]}, TypeError, "where"),
        ({"where": "(0"}, ValueError, "where"),
        ({"where": "ffn"}, ValueError, "where"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"activation": "gelo"}, ValueError, "activation"),
        ({"bottleneck": 2, "up": False}, ValueError, "bottleneck"),
        ({"features": "nope"}, ValueError, "features"),
        ({"train": ["head"]}, ValueError, "train"),
        ({"train": 2}, TypeError, "train"),
        ({"example": 3}, TypeError, "example"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        load_adapters,
        {"folder": "nowhere", "model": NET},
        ({}, FileNotFoundError, "folder"),
        ({"model": "bert"}, TypeError, "model"),
    ),
    *rows(trainable, {"model": NET}, ({"model": "bert"}, TypeError, "model")),
    *rows(
        load,
        {"folder": "nowhere"},
        ({}, FileNotFoundError, "folder"),
        ({"model": "bert"}, TypeError, "model"),
    ),
    *rows(
        SNNK,
        {"in_features": 4, "out_features": 3, "num_features": 8},
        ({"in_features": 0}, ValueError, "in_features"),
        ({"in_features": 4.0}, TypeError, "in_features"),
        ({"out_features": -1}, ValueError, "out_features"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": 7}, ValueError, "num_features"),
        ({"num_features": True}, TypeError, "num_features"),
        ({"activation": "gelo"}, ValueError, "activation"),
        ({"activation": 3}, TypeError, "activation"),
        ({"activation": nn.Softmax(-1)}, ValueError, "activation"),
        ({"activation": nn.PReLU()}, ValueError, "activation"),
        ({"features": "fourier"}, ValueError, "features"),
        ({"features": ArcCosineFeatures(5, 8, generator=0)}, ValueError, "features"),
        ({"projection": "leverage"}, ValueError, "projection"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        bundle_head,
        {"model": NET, "calibrate": X},
        ({"model": BLOCKLESS}, ValueError, "model"),
        ({"model": "net"}, TypeError, "model"),
        ({"calibrate": NAN}, ValueError, "calibrate"),
        ({"num_features": 33}, ValueError, "num_features"),
        ({"features": "nope"}, ValueError, "features"),
        ({"projection": "dpp", "fit": False}, ValueError, "projection"),
        ({"ridge": -1.0}, ValueError, "ridge"),
    ),
    *rows(
        SNNKAdapter,
        {"width": 4, "num_features": 8},
        ({"width": 0}, ValueError, "width"),
        ({"width": 4.0}, TypeError, "width"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": 7, "features": "universal"}, ValueError, "num_features"),
        ({"activation": "nope"}, ValueError, "activation"),
        ({"bottleneck": 0}, ValueError, "bottleneck"),
        ({"bottleneck": 2, "up": False}, ValueError, "bottleneck"),
        ({"features": "nope"}, ValueError, "features"),
        ({"projection": "nope"}, ValueError, "projection"),
        ({"scale": 0.0}, ValueError, "scale"),
        ({"generator": "0"}, TypeError, "generator"),
    ),
    *rows(
        CounterGenerator,
        {"seed": 0},
        ({"seed": -1}, ValueError, "seed"),
        ({"seed": 2**64}, ValueError, "seed"),
        ({"seed": 0.5}, TypeError, "seed"),
        ({"stream": -1}, ValueError, "stream"),
        ({"position": True}, TypeError, "position"),
    ),
    *rows(
        SNNK.from_linear,
        {"linear": LINEAR, "activation": "relu", "num_features": 6},
        ({"linear": nn.Conv1d(4, 8, 1)}, TypeError, "linear"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": 3}, ValueError, "num_features"),
        ({"calibrate": 3}, TypeError, "calibrate"),
        ({"calibrate": NAN}, ValueError, "calibrate"),
        ({"calibrate": X[:, :3]}, ValueError, "calibrate"),
        ({"calibrate": X[:0]}, ValueError, "calibrate"),
        ({"features": "neuron"}, ValueError, "calibrate"),
        ({"projection": "leverage"}, ValueError, "projection"),
        (
            {"features": "neuron", "projection": "dpp", "calibrate": X, "num_features": 9},
            ValueError,
            "num_features",
        ),
        ({"calibrate": X, "ridge": -1.0}, ValueError, "ridge"),
        ({"calibrate": X, "ridge": "best"}, ValueError, "ridge"),
    ),
    *rows(forward, {}, ({"x": X[:, :3]}, ValueError, "x")),
    *rows(
        absorbed,
        {},
        ({"linear": nn.ReLU()}, TypeError, "linear"),
        ({"linear": nn.Linear(7, 2)}, ValueError, "linear"),
    ),
    *rows(
        select_neurons,
        {"covariance": PSD, "num_features": 2},
        ({"covariance": PSD.tolist()}, TypeError, "covariance"),
        ({"covariance": X}, ValueError, "covariance"),
        ({"covariance": -PSD}, ValueError, "covariance"),
        ({"covariance": NAN[:4]}, ValueError, "covariance"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_features": 6}, ValueError, "num_features"),
        ({"method": "random"}, ValueError, "method"),
        ({"output_weight": torch.ones(3, 4)}, ValueError, "output_weight"),
        ({"ridge": -1}, ValueError, "ridge"),
        ({"method": "dpp", "generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        UniversalFeatures,
        {"activation": "gelu", "in_features": 4, "num_features": 8},
        ({"activation": "gelo"}, ValueError, "activation"),
        ({"activation": lambda z: z.sum()}, ValueError, "activation"),
        ({"activation": lambda z: 1 / z}, ValueError, "activation"),
        ({"in_features": 0}, ValueError, "in_features"),
        ({"num_features": 7}, ValueError, "num_features"),
        ({"domain": 0.0}, ValueError, "domain"),
        ({"domain": math.inf}, ValueError, "domain"),
        ({"draw": "random"}, ValueError, "kind"),
        ({"norms": (0.0, 1.0)}, ValueError, "norms"),
        ({"norms": 1.0}, ValueError, "norms"),
        ({"generator": [1]}, TypeError, "generator"),
    ),
    *rows(
        dual,
        {},
        ({"weight": torch.ones(2, 3)}, ValueError, "weight"),
        ({"weight": torch.ones(4)}, ValueError, "weight"),
        ({"weight": torch.ones(2, 4), "bias": torch.ones(3)}, ValueError, "bias"),
    ),
    *rows(
        ArcCosineFeatures,
        {"in_features": 4, "num_features": 8},
        ({"in_features": -1}, ValueError, "in_features"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"order": 3}, ValueError, "order"),
        ({"order": 1.0}, TypeError, "order"),
    ),
    *rows(
        NeuronFeatures,
        {"weight": torch.ones(3, 4), "bias": torch.ones(3), "activation": "relu"},
        ({"weight": [[1.0]]}, TypeError, "weight"),
        ({"weight": torch.ones(4)}, ValueError, "weight"),
        ({"weight": torch.ones(0, 4), "bias": None}, ValueError, "weight"),
        ({"weight": NAN, "bias": None}, ValueError, "weight"),
        ({"bias": torch.ones(2)}, ValueError, "bias"),
        ({"bias": torch.full((3,), math.inf)}, ValueError, "bias"),
        ({"activation": "rilu"}, ValueError, "activation"),
    ),
    *rows(
        NeuronFeatures.random,
        {"in_features": 4, "num_features": 8, "activation": "relu"},
        ({"in_features": 0}, ValueError, "in_features"),
        ({"num_features": "8"}, TypeError, "num_features"),
    ),
    *rows(
        RandomFourier,
        {"kernel": RBF(), "in_features": 4, "num_features": 8},
        ({"kernel": "rbf"}, TypeError, "kernel"),
        ({"kernel": Linear()}, ValueError, "kernel"),
        ({"in_features": 0}, ValueError, "in_features"),
        ({"num_features": 7}, ValueError, "num_features"),
        ({"num_features": 8.0}, TypeError, "num_features"),
        ({"draw": "halton"}, ValueError, "draw"),
        ({"kernel": Laplacian(), "draw": "hadamard"}, ValueError, "draw"),
        ({"in_features": 30000, "draw": "sobol"}, ValueError, "in_features"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        Fastfood,
        {"kernel": RBF(), "in_features": 4, "num_features": 8},
        ({"kernel": Laplacian()}, ValueError, "draw"),
        ({"num_features": 7}, ValueError, "num_features"),
    ),
    *rows(
        PositiveFeatures,
        {"kernel": Exponential(), "in_features": 4, "num_features": 8},
        ({"kernel": Matern()}, ValueError, "kernel"),
        ({"num_features": 7}, ValueError, "num_features"),
        ({"damping": -1.0}, ValueError, "damping"),
        ({"norms": (1.0, -1.0)}, ValueError, "norms"),
        ({"norms": 1.0}, ValueError, "norms"),
        ({"like": NAN}, ValueError, "like"),
    ),
    *rows(
        PolynomialSketch,
        {"kernel": Polynomial(), "in_features": 4, "num_features": 8},
        ({"kernel": RBF()}, ValueError, "kernel"),
        ({"num_features": 0}, ValueError, "num_features"),
    ),
    *rows(
        MonomialFeatures,
        {"kernel": Polynomial(), "in_features": 4},
        ({"kernel": RBF()}, ValueError, "kernel"),
        ({"in_features": -1}, ValueError, "in_features"),
    ),
    *rows(
        QuadratureFeatures,
        {"kernel": RBF(), "in_features": 4, "num_features": 8},
        ({"kernel": Linear()}, ValueError, "kernel"),
        ({"num_features": 1}, ValueError, "num_features"),
        ({"like": X[:1]}, ValueError, "like"),
        ({"like": INFINITE}, ValueError, "like"),
        ({"rules": [(1, 2), (1, 2)]}, ValueError, "rules"),
    ),
    *rows(
        kernel_features,
        {"kernel": RBF(), "num_features": 8, "like": X},
        ({"kernel": "gaussian"}, ValueError, "kernel"),
        ({"kernel": RBF() + White()}, ValueError, "kernel"),
        ({"num_features": 0}, ValueError, "num_features"),
        ({"like": NAN}, ValueError, "like"),
        ({"like": X[0]}, ValueError, "like"),
        ({"method": "fourier"}, ValueError, "method"),
        ({"method": "exact"}, ValueError, "method"),
    ),
    *rows(WithInput, {}, ({"features": nn.Linear(4, 4)}, TypeError, "features")),
    *rows(FeatureMap.build, {}, ({"config": {"class": "os.system"}}, ValueError, "config")),
    *rows(
        make_projection,
        {"kind": "gaussian", "num_rows": 4, "in_features": 3},
        ({"kind": "uniform"}, ValueError, "kind"),
        ({"num_rows": 0}, ValueError, "num_rows"),
        ({"in_features": 0}, ValueError, "in_features"),
        ({"kind": "sobol", "in_features": 30000}, ValueError, "in_features"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        HadamardProjection,
        {"num_rows": 4, "in_features": 3},
        ({"num_rows": 0}, ValueError, "num_rows"),
    ),
    *rows(
        FastfoodProjection,
        {"num_rows": 4, "in_features": 3},
        ({"in_features": 0}, ValueError, "in_features"),
    ),
    *rows(hadamard_transform, {}, ({"x": torch.ones(2, 3)}, ValueError, "x")),
    *rows(
        ridge_leverage_scores,
        {"matrix": PSD, "ridge": 1.0},
        ({"matrix": None}, TypeError, "matrix"),
        ({"matrix": X}, ValueError, "matrix"),
        ({"matrix": torch.full((3, 3), math.nan)}, ValueError, "matrix"),
        ({"matrix": torch.ones(3, 3).triu()}, ValueError, "matrix"),
        ({"ridge": -1.0}, ValueError, "ridge"),
        ({"ridge": "gcv"}, TypeError, "ridge"),
        ({"matrix": None, "factor": NAN}, ValueError, "factor"),
    ),
    *rows(
        pivoted_cholesky,
        {"columns": PSD, "rank": 2},
        ({"columns": "matrix"}, TypeError, "columns"),
        ({"columns": lambda index: PSD[:, index]}, TypeError, "diagonal"),
        ({"rank": 0}, ValueError, "rank"),
        ({"rank": 6}, ValueError, "rank"),
        ({"tolerance": -1.0}, ValueError, "tolerance"),
        (
            {"columns": lambda index: PSD[:, index], "diagonal": torch.ones(2, 2)},
            ValueError,
            "diagonal",
        ),
    ),
    *rows(
        sample_kdpp,
        {"matrix": PSD, "size": 2},
        ({"size": 0}, ValueError, "size"),
        ({"size": 6}, ValueError, "size"),
        ({"size": 2.0}, TypeError, "size"),
        ({"matrix": None}, TypeError, "matrix"),
        ({"matrix": -PSD}, ValueError, "matrix"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(projection_dpp, {}, ({"basis": torch.ones(3, 2)}, ValueError, "basis")),
    *rows(
        ridge_with,
        {"features": X, "targets": X[:, :2]},
        ({"features": X.tolist()}, TypeError, "features"),
        ({"features": X[:, :3]}, ValueError, "features"),
        ({"features": NAN}, ValueError, "features"),
        ({"targets": X}, ValueError, "targets"),
        ({"targets": X[:7, :2]}, ValueError, "targets"),
        ({"targets": INFINITE[:, 2:]}, ValueError, "targets"),
    ),
    *rows(
        moments_with,
        {"features": X, "targets": X[:, :2]},
        ({"weights": torch.full((20,), -1.0)}, ValueError, "weights"),
        ({"weights": torch.ones(7)}, ValueError, "weights"),
    ),
    *rows(
        StreamingRidge,
        {"num_features": 4, "num_outputs": 2},
        ({"num_features": 0}, ValueError, "num_features"),
        ({"num_outputs": 1.5}, TypeError, "num_outputs"),
    ),
    *rows(
        solved_ridge,
        {},
        ({"ridge": -1.0}, ValueError, "ridge"),
        ({"ridge": "loo"}, ValueError, "ridge"),
        ({"ridge": [1.0]}, TypeError, "ridge"),
    ),
    *rows(ridge_without_rows, {}, ({}, ValueError, "features")),
    *rows(
        merged_ridge,
        {},
        ({"other": 3}, TypeError, "other"),
        ({"other": StreamingRidge(3, 4)}, ValueError, "other"),
    ),
    *rows(ridge_subset, {}, ({"indices": [0, 9]}, ValueError, "indices")),
    *rows(
        monte_carlo,
        {"module_factory": wide_net, "width": 4, "samples": 2, "x": X, "generator": 0},
        ({"module_factory": float}, TypeError, "module_factory"),
        ({"width": 2.5}, TypeError, "width"),
        ({"samples": 1}, ValueError, "samples"),
        ({"x": NAN}, ValueError, "x"),
        ({"y": X[:, :3]}, ValueError, "y"),
        ({"parametrization": "mup"}, ValueError, "parametrization"),
        ({"w_std": "1.4"}, TypeError, "w_std"),
        ({"b_std": {"7": 1.0}}, ValueError, "b_std"),
        ({"generator": "seed"}, TypeError, "generator"),
    ),
    *rows(
        NTK,
        {"module": wide_net(3)},
        ({"module": torch.relu}, TypeError, "module"),
        ({"module": nn.Bilinear(2, 2, 1), "example": X}, NoRuleError, "module"),
        ({"module": nn.Flatten(), "example": X}, NoRuleError, "module"),
        ({"module": nn.Conv1d(2, 2, 1)}, ValueError, "example"),
        ({"example": X[0]}, ValueError, "example"),
        ({"example": "X"}, ValueError, "example"),
        ({"parametrization": "mup"}, ValueError, "parametrization"),
        ({"parametrization": "torch", "w_std": 1.0}, ValueError, "w_std"),
        ({"w_std": -1.0}, ValueError, "w_std"),
        ({"w_std": [1.0, 1.0, 1.0]}, ValueError, "w_std"),
        ({"w_std": {"head": 1.0}}, ValueError, "w_std"),
        ({"w_std": {"0": math.nan}}, ValueError, "w_std"),
        ({"b_std": math.nan}, ValueError, "b_std"),
        ({"b_std": "small"}, TypeError, "b_std"),
    ),
    *rows(
        wide_kernel_of,
        {"x": X},
        ({"x": X[:, :2]}, ValueError, "x"),
        ({"x": X[0]}, ValueError, "x"),
        ({"y": X[:, :2]}, ValueError, "y"),
        ({"x": "X"}, TypeError, "x"),
    ),
    *rows(
        read,
        {"module": wide_net(3)},
        ({"module": "net"}, TypeError, "module"),
        ({"example": X[0]}, ValueError, "example"),
    ),
    *rows(
        explain,
        {"module": wide_net(3)},
        ({"module": "net"}, TypeError, "module"),
        ({"example": X[0]}, ValueError, "example"),
    ),
    *rows(
        trained_with_surrogates,
        {"x": X, "y": X[:, 0], "x_test": X},
        ({"x": INFINITE}, ValueError, "x"),
        ({"y": Y}, TypeError, "y"),
        ({"x_test": X[:0]}, ValueError, "x_test"),
        ({"t": -1.0}, ValueError, "t"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"surrogate": "erff"}, ValueError, "surrogate"),
        ({"surrogate": 3}, TypeError, "surrogate"),
    ),
    *rows(
        memory_budget,
        {},
        ({"value": "much"}, ValueError, "memory_budget"),
        ({"value": -1}, ValueError, "memory_budget"),
        ({"value": []}, TypeError, "memory_budget"),
    ),
    *rows(
        find,
        {},
        ({"name": "../elsewhere"}, ValueError, "name"),
        ({"name": "no-such-data"}, FileNotFoundError, "name"),
    ),
    *rows(sst2, {}, ({"split": "validation"}, ValueError, "split")),
    *rows(
        read_texts,
        {"file": "nowhere.tsv"},
        ({}, FileNotFoundError, "file"),
        ({"file": "/"}, ValueError, "file"),
    ),
]

IN_A_FOLDER = rows(
    read_text,
    {},
    ({"text": ""}, ValueError, "file"),
    ({"name": "f.xlsx"}, ValueError, "file"),
    ({"text_column": "review"}, ValueError, "text_column"),
    ({"label_column": 9}, ValueError, "label_column"),
    ({"name": "f.txt", "text_column": 1}, ValueError, "text_column"),
    ({"name": "f.parquet"}, ValueError, "file"),
)


def check(function: Any, arguments: dict[str, Any], error: type, name: str) -> None:
    with pytest.raises(error) as caught:
        function(**arguments)
    assert caught.type is error
    message = str(caught.value)
    assert re.match(rf"{name}\b.*: \S", message, flags=re.DOTALL), message


@pytest.mark.parametrize(("function", "arguments", "error", "name"), CASES)
def test_is_refused_by_name(function, arguments, error, name, monkeypatch, tmp_path):
    monkeypatch.setenv("MERCER_DATA", str(tmp_path))
    state = torch.get_rng_state()
    check(function, arguments, error, name)
    if "generator" in arguments or function in (bundle, solve, load):
        assert torch.equal(torch.get_rng_state(), state)  # nothing was drawn before it


@pytest.mark.parametrize(("function", "arguments", "error", "name"), IN_A_FOLDER)
def test_files_are_refused_by_name(function, arguments, error, name, tmp_path):
    check(function, {"tmp_path": tmp_path, **arguments}, error, name)


def test_there_are_enough():
    assert len(CASES) + len(IN_A_FOLDER) >= 40
    public = {case.values[0] for case in CASES}
    assert len(public) >= 25
