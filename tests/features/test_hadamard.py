import math

import pytest
import scipy.linalg
import scipy.stats
import torch

from mercer.features import HadamardProjection, hadamard_transform, make_projection


@pytest.mark.parametrize("num_rows", [5, 16, 40])
def test_hadamard_blocks_are_orthogonal_with_fixed_lengths(num_rows):
    projection = make_projection("hadamard", num_rows, 16, generator=1)
    for block in projection.rows().split(16):
        assert (block @ block.mT - 16 * torch.eye(len(block))).abs().max() < 1e-12
    assert torch.equal(projection.squared_lengths(), torch.full((num_rows,), 16.0).double())


@pytest.mark.parametrize(("num_rows", "in_features"), [(3, 1), (16, 16), (40, 16), (70, 11)])
def test_hadamard_equals_the_product_of_its_factors(num_rows, in_features):
    projection = HadamardProjection(num_rows, in_features, generator=2)
    size = projection.block
    h = torch.from_numpy(scipy.linalg.hadamard(size)).double() / math.sqrt(size)
    blocks = [
        math.sqrt(size) * h @ d3.diag() @ h @ d2.diag() @ h @ d1.diag()
        for d1, d2, d3 in projection.signs.double().transpose(0, 1)
    ]
    dense = torch.cat(blocks)[:num_rows, :in_features]
    assert (projection.rows() - dense).abs().max() < 1e-12
    x = torch.randn(2, 3, in_features, dtype=torch.float64)
    assert (projection(x) - x @ dense.mT).abs().max() < 1e-12
    assert (projection.squared_lengths() - dense.square().sum(-1)).abs().max() < 1e-11


def test_hadamard_stores_only_signs():
    state = HadamardProjection(40, 11).state_dict()
    assert {name: (t.dtype, t.shape) for name, t in state.items()} == {
        "signs": (torch.int8, (3, 3, 16))
    }
    assert state["signs"].abs().eq(1).all()


def test_lengths_make_hadamard_rows_chi_distributed():
    lengths, squares = [], []
    for seed in range(40):
        projection = make_projection("hadamard", 48, 11, generator=seed)
        factor = projection.draw_lengths(seed + 1000)
        lengths.append(factor.square() * projection.block)
        squares.append(factor.square() * projection.squared_lengths())
    assert scipy.stats.kstest(torch.cat(lengths), "chi2", args=(16,)).pvalue > 1e-3
    # Padded coordinates are cut off after the draw, so these have the right mean, d.
    squares = torch.cat(squares)
    assert abs(squares.mean() - 11) < 4.5 * squares.std() / math.sqrt(len(squares))


@pytest.mark.parametrize("log_size", [*range(7), 11])
def test_transform_equals_scipy(log_size):
    size = 2**log_size
    x = torch.randn(3, 2, size, dtype=torch.float64)
    expected = x @ torch.from_numpy(scipy.linalg.hadamard(size)).double()
    assert (hadamard_transform(x) - expected).abs().max() < 1e-12 * max(1, size / 64)


def test_transform_differentiates_twice_and_vmaps():
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    f = lambda x: hadamard_transform(x).sin()
    assert torch.autograd.gradgradcheck(f, (x,))
    jacobian = torch.func.vmap(torch.func.jacfwd(hadamard_transform))(x.detach())
    expected = torch.from_numpy(scipy.linalg.hadamard(8)).double()
    assert (jacobian - expected).abs().max() < 1e-12


@pytest.mark.parametrize("shape", [(2, 6), (0,), ()])
def test_other_sizes_are_refused(shape):
    with pytest.raises(ValueError, match=r"x: the last axis must be a power of two"):
        hadamard_transform(torch.ones(shape))
