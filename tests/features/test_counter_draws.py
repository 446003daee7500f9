"""Draws from a `CounterGenerator`: the same in every process, whatever torch's own would give."""

import hashlib
import math
import os
import subprocess
import sys

import pytest
import scipy.stats
import torch
from safetensors.torch import load_file

from mercer.features import (
    ArcCosineFeatures,
    CounterGenerator,
    NeuronFeatures,
    Nystroem,
    PolynomialSketch,
    PositiveFeatures,
    RandomFourier,
    UniversalFeatures,
    make_projection,
)
from mercer.kernels import RBF, Exponential, Matern, Polynomial
from mercer.nn import SNNK, select_neurons

KINDS = ["gaussian", "orthogonal", "sobol", "hadamard", "fastfood"]
DATA = torch.linspace(-1, 1, 120, dtype=torch.float64).reshape(40, 3).sin()
MAKERS = {
    **{
        f"projection-{kind}": lambda kind=kind, **more: make_projection(kind, 20, 6, **more)
        for kind in KINDS
        if kind != "hadamard"
    },
    "projection-hadamard": lambda dtype=None, **more: make_projection("hadamard", 20, 6, **more),
    **{
        f"neuron-{kind}": lambda kind=kind, **more: NeuronFeatures.random(
            6, 20, "relu", draw=kind, **more
        )
        for kind in KINDS
    },
    **{
        f"arc-cosine-{kind}": lambda kind=kind, **more: ArcCosineFeatures(6, 20, draw=kind, **more)
        for kind in KINDS
    },
    **{
        f"universal-{kind}": lambda kind=kind, **more: UniversalFeatures(
            "relu", 6, 20, draw=kind, **more
        )
        for kind in KINDS
    },
    "gaussian-waves": lambda **more: UniversalFeatures("gaussian", 6, 20, **more),
    "fourier": lambda **more: RandomFourier(Matern(), 6, 20, **more),
    "positive": lambda **more: PositiveFeatures(Exponential(), 6, 20, draw="hadamard", **more),
    "sketch": lambda **more: PolynomialSketch(Polynomial(2), 6, 20, **more),
    "nystroem": lambda **more: Nystroem.random(RBF(), 6, 20, **more),
    **{
        f"layer-{kind}": lambda kind=kind, **more: SNNK(
            6, 5, "relu", num_features=20, features=kind, **more
        )
        for kind in ("neuron", "universal", "arc_cosine")
    },
}
PINNED = {
    "hadamard": "8b046e700c1d0714",
    "fastfood": "821e7025748c9fbf",
    "gaussian": [
        [2.114544580586174, -0.45787331060169095],
        [-0.04959985861262706, 0.515805690298213],
        [0.005724933610705911, 0.5138601775979522],
    ],
    "orthogonal": [
        [0.553037577143135, -0.012972337346590857],
        [0.029424212970766528, 1.2544150692298182],
        [0.013283142699004527, 1.1922720035748704],
    ],
    "sobol": [
        [-1.9773711371756624, 1.2227035906209291],
        [1.0300833516203238, -0.4166924451453194],
        [0.6431668884329786, 0.2614604805506723],
    ],
    "layer": [
        -0.38946494460105896,
        0.10091464221477509,
        -0.4950287640094757,
        -0.1467684805393219,
        -0.1990344524383545,
        -0.10433125495910645,
        -0.24344569444656372,
        0.10252613574266434,
        0.2184305340051651,
        0.3171740174293518,
        0.31562045216560364,
        -0.169716939330101,
    ],
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def same(a, b):
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@every_maker
def test_seed_and_stream_decide(make, global_state_unchanged):
    made = make(generator=CounterGenerator(3, 1), dtype=torch.float64)
    assert same(made, make(generator=CounterGenerator(3, 1), dtype=torch.float64))
    for other in (CounterGenerator(4, 1), CounterGenerator(3, 2), 3):
        assert not same(made, make(generator=other, dtype=torch.float64))
    single = make(generator=CounterGenerator(3, 1), dtype=torch.float32)
    for name, tensor in made.state_dict().items():
        torch.testing.assert_close(single.state_dict()[name].to(tensor.dtype), tensor)


@every_maker
def test_reset_draws_what_construction_draws(make, global_state_unchanged):
    made = make(generator=CounterGenerator(3, 1))
    other = make(generator=CounterGenerator(9))
    other.reset_parameters(CounterGenerator(3, 1))
    assert same(other, made)


@every_maker
def test_construction_goes_on_with_the_stream(make):
    source = CounterGenerator(3)
    first, second = make(generator=source), make(generator=source)
    assert source.position > 0
    assert not same(first, second)


@pytest.mark.parametrize("method", ["leverage", "kdpp", "greedy", "uniform", "kmeans"])
def test_landmarks_are_chosen_with_it(method, global_state_unchanged):
    chosen = [
        Nystroem.from_data(RBF(), DATA, 8, landmarks=method, generator=CounterGenerator(seed))
        for seed in (1, 1)
    ]
    assert same(*chosen)


def test_neurons_are_chosen_with_it(global_state_unchanged):
    covariance = torch.eye(30, dtype=torch.float64) + 0.1
    first, again, other = (
        select_neurons(covariance, 8, method="dpp", generator=CounterGenerator(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


# -- laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_features", [8, 11])
def test_rows_have_mean_zero_and_unit_covariance(kind, in_features):
    count, num_rows = 60, 2 * in_features + 3
    source = CounterGenerator(0)
    rows = torch.stack(
        [
            make_projection(kind, num_rows, in_features, generator=source).rows()
            for _ in range(count)
        ]
    )  # (s, m, d)
    error = rows.mean((0, 1)).abs()
    assert (error <= 4.5 * rows.mean(1).std(0) / math.sqrt(count) + 1e-3).all()
    second = rows.mT @ rows / num_rows  # (s, d, d)
    error = (second.mean(0) - torch.eye(in_features)).abs()
    slack = 0.05 if kind == "sobol" else 1e-9  # 19 points of a net are a biased quadrature of z^2
    assert (error <= 4.5 * second.std(0) / math.sqrt(count) + slack).all()


@pytest.mark.parametrize("kind", ["gaussian", "orthogonal", "sobol"])
def test_each_row_is_gaussian(kind):
    source = CounterGenerator(1)
    drawn = [make_projection(kind, 5, 6, generator=source).rows()[3] for _ in range(250)]
    rows = torch.stack(drawn)
    assert scipy.stats.kstest(rows[:, 0], "norm").pvalue > 1e-3
    assert scipy.stats.kstest(rows.square().sum(-1), "chi2", args=(6,)).pvalue > 1e-3


# -- what a stored seed stands for ---------------------------------------------------------------


def fingerprint(tensor):
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="A projection kept as a seed comes back: signs bitwise, other draws to 1e-6.",
)
def test_pinned_draws(evidence):
    """Numbers written down once: a version of torch or a machine that changes them fails here."""
    signs = make_projection("hadamard", 300, 100, generator=CounterGenerator(7, 3)).signs
    evidence(required=PINNED["hadamard"], measured=fingerprint(signs), what="signs, SHA-256")
    fastfood = make_projection("fastfood", 300, 100, generator=CounterGenerator(7, 3))
    evidence(
        required=PINNED["fastfood"], measured=fingerprint(fastfood.signs), what="Fastfood signs"
    )
    assert fingerprint(signs) == PINNED["hadamard"]
    assert fingerprint(fastfood.signs) == PINNED["fastfood"]
    for kind in ("gaussian", "orthogonal", "sobol"):
        rows = make_projection(
            kind, 3, 2, generator=CounterGenerator(7, 3), dtype=torch.float64
        ).rows()
        error = float((rows - torch.tensor(PINNED[kind], dtype=torch.float64)).abs().max())
        evidence(required="<= 1e-6", measured=error, what=kind)
        assert error <= 1e-6  # (measured: about 1e-15 where they were written down)
    layer = SNNK(
        3, 2, "relu", num_features=4, features="neuron", generator=CounterGenerator(7, 3)
    ).double()
    state = layer.state_dict()
    found = torch.cat([state["features.bias"], state["weight"].flatten()])
    error = float((found - torch.tensor(PINNED["layer"], dtype=torch.float64)).abs().max())
    evidence(required="<= 1e-6", measured=error, what="offsets and weights")
    assert error <= 1e-6


_DRAW = """
import sys, torch
from safetensors.torch import save_file
from mercer.features import CounterGenerator, UniversalFeatures, make_projection
from mercer.nn import SNNKAdapter
source, drawn = CounterGenerator(7, 3), {}
for kind in ("gaussian", "orthogonal", "sobol", "hadamard", "fastfood"):
    drawn[kind] = make_projection(kind, 300, 100, generator=source, dtype=torch.float64)
for name in ("gelu", "relu", "gaussian"):
    drawn[name] = UniversalFeatures(name, 32, 64, generator=source, dtype=torch.float64)
for name in ("neuron", "universal", "arc_cosine"):
    drawn[f"adapter {name}"] = SNNKAdapter(
        64, 32, features=name, up=False, generator=source, dtype=torch.float64
    )
save_file({f"{a}.{b}": t for a, m in drawn.items() for b, t in m.state_dict().items()}, sys.argv[1])
"""
_MACHINES = [  # what a computer without newer instructions, or with more cores, would run
    {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"},
    {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "3"},
]


@pytest.mark.slow
@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="A seed draws the same with other instruction sets and numbers of threads.",
)
def test_other_instructions_draw_the_same(tmp_path, evidence):
    found = []
    for i, machine in enumerate([{}, *_MACHINES]):
        file = tmp_path / f"{i}.safetensors"
        command = [sys.executable, "-W", "error", "-c", _DRAW, str(file)]
        subprocess.run(command, check=True, timeout=120, env={**os.environ, **machine})
        found.append(load_file(file))
    first, *others = found
    for other in others:
        assert other.keys() == first.keys()
        signs = [name for name, tensor in first.items() if tensor.dtype == torch.int8]
        equal = sum(torch.equal(other[name], first[name]) for name in signs)
        evidence(required=len(signs), measured=equal, what="tensors of signs, bitwise")
        assert equal == len(signs) > 0
        error = max(float((other[name] - first[name]).abs().max()) for name in first)
        evidence(required="<= 1e-6", measured=error, what="largest difference of the others")
        assert error <= 1e-6
