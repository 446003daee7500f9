import pytest
import scipy.stats
import torch

from mercer.features import (
    ArcCosineFeatures,
    FastfoodProjection,
    NeuronFeatures,
    UniversalFeatures,
    make_projection,
)


@pytest.mark.parametrize("in_features", [4, 6])
def test_each_row_is_gaussian(in_features):
    # One row of each of many projections: a coordinate, a direction, and the length.
    rows = torch.stack(
        [
            FastfoodProjection(9, in_features, generator=s, dtype=torch.float64).rows()[3]
            for s in range(1500)
        ]
    )
    direction = torch.full((in_features,), in_features**-0.5, dtype=torch.float64)
    assert scipy.stats.kstest(rows[:, 1], "norm").pvalue > 1e-3
    assert scipy.stats.kstest(rows @ direction, "norm").pvalue > 1e-3
    assert scipy.stats.kstest(rows.square().sum(-1), "chi2", args=(in_features,)).pvalue > 1e-3


@pytest.mark.parametrize("in_features", [8, 11])
def test_squared_lengths(in_features):
    projection = make_projection("fastfood", 37, in_features, generator=0, dtype=torch.float64)
    lengths = projection.rows().square().sum(-1)
    torch.testing.assert_close(projection.squared_lengths(), lengths)
    assert torch.equal(projection.draw_lengths(), torch.ones(37).double())


def test_product_equals_the_definition():
    phi = FastfoodProjection(8, 8, generator=3, dtype=torch.float64)
    hadamard = torch.ones(1, 1, dtype=torch.float64)
    for _ in range(3):
        hadamard = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).double(), hadamard)
    permutation = torch.eye(8, dtype=torch.float64)[phi.order[0]]
    b, g, s = (torch.diag(t[0].double()) for t in (phi.signs, phi.normals, phi.lengths))
    expected = s @ hadamard @ g @ permutation @ hadamard @ b / 8**0.5
    torch.testing.assert_close(phi.rows(), expected)


@pytest.mark.parametrize("shape", [(0, 2), (2, 0)])
def test_refuses_empty_shapes(shape):
    with pytest.raises(ValueError, match=r"num_rows|in_features"):
        FastfoodProjection(*shape)


def test_the_maps_of_networks_take_it():
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 6
    w = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 6
    options = {"draw": "fastfood", "generator": 0, "dtype": torch.float64}
    phi = ArcCosineFeatures(6, 20_000, **options)
    torch.testing.assert_close(phi(x) @ phi.dual(w).mT, phi.expected(x, w), rtol=0.05, atol=0.0)
    waves = UniversalFeatures("sin", 6, 20_000, norms=(0.5, 0.5), **options)
    torch.testing.assert_close(waves.estimate(x, w), torch.sin(x @ w.mT), rtol=0.0, atol=0.02)
    assert NeuronFeatures.random(6, 9, "relu", **options)(x).shape == (5, 9)
