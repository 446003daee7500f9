"""Tiles of wide networks against the operations one after the other."""

import math

import pytest
import torch
from torch import nn

import mercer
from mercer._core.config import resident_memory
from mercer.infinite import NNGP, NTK
from mercer.infinite.tile_memory import Pool
from mercer.infinite.tile_plan import find_stream
from mercer.kernels import RBF
from tests.infinite.golden_networks import Apply, Pooled, Residual


def images(n, *event, dtype=torch.float64, seed=0):
    return torch.randn(
        n, *event, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def conv(channels, size=3, **options):
    return nn.Conv2d(channels, 8, size, **options)


def pooled(*layers):
    return Pooled((2, 3), *layers, head=nn.Linear(8, 1))


STREAMED = {
    "same": pooled(conv(3, padding=1), nn.ReLU(), conv(8, padding=1), nn.ReLU()),
    "strides": pooled(conv(3, padding=1, stride=2), nn.ReLU(), conv(8, 2), nn.ReLU()),
    "dilation": pooled(conv(3, padding=2, dilation=2), nn.GELU(), conv(8, 2), Apply(torch.erf)),
    "no_bias": pooled(conv(3, padding=1, bias=False), nn.ReLU(), conv(8, bias=False), nn.Tanh()),
    "residual": pooled(conv(3, padding=1), Residual(nn.ReLU(), conv(8, padding=1)), nn.ReLU()),
    "one_by_one": pooled(conv(3, 1), nn.ReLU(), conv(8, 1), nn.ReLU()),
    "adaptive": nn.Sequential(
        conv(3, (3, 1), padding=(1, 0)),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 1),
    ),
}
OTHERS = {
    "circular": pooled(conv(3, padding=1, padding_mode="circular"), nn.ReLU()),
    "wide_padding": pooled(conv(3, padding=3), nn.ReLU(), conv(8), nn.ReLU()),
    "pool_between": pooled(conv(3), nn.ReLU(), nn.AvgPool2d(2), conv(8, 2), nn.ReLU()),
    "flat": nn.Sequential(
        conv(3, padding=1, stride=2), nn.ReLU(), conv(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 1)
    ),
}


def reading(module):
    return NTK(module, w_std=1.3, b_std=0.2, example=torch.zeros(1, 3, 9, 7)).requires_grad_(False)


@pytest.mark.parametrize("name", [*STREAMED, *OTHERS])
def test_tiles_equal_the_operations(name):
    k = reading({**STREAMED, **OTHERS}[name])
    assert (find_stream(k.network.operations) is not None) == (name in STREAMED)
    x, y = images(7, 3, 9, 7), images(4, 3, 9, 7, seed=1)
    with mercer.config.override(memory_budget=2**60):
        for columns in (None, y):
            for found, which in zip(k.both(x, columns), (k.nngp, k), strict=True):
                expected = which.requires_grad_(False)._naive(x, columns)
                scale = float(expected.abs().max())
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 * scale)
                torch.testing.assert_close(which(x, columns), found, rtol=0, atol=1e-14 * scale)


@pytest.mark.parametrize("name", ["same", "flat"])
def test_single_precision(name):
    k = reading({**STREAMED, **OTHERS}[name])
    x, y = images(6, 3, 9, 7, dtype=torch.float32), images(5, 3, 9, 7, dtype=torch.float32, seed=1)
    for found, exact in zip(k.both(x, y), k.both(x.double(), y.double()), strict=True):
        assert found.dtype == torch.float32
        assert float((found - exact).abs().max() / exact.abs().max()) <= 1e-6


def test_number_of_threads_does_not_matter():
    k, x = reading(STREAMED["same"]), images(20, 3, 9, 7)
    vectors = NTK(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))).requires_grad_(False)
    z = images(1200, 5)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append([*k.both(x), *vectors.both(z)])
        assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    finally:
        torch.set_num_threads(before)


def test_zero_inputs_and_repeated_ones():
    """Without biases an input of zeros has no variance anywhere."""
    module = nn.Sequential(
        nn.Linear(4, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 8, bias=False),
        nn.ReLU(),
        nn.Linear(8, 1),
    )
    k = NTK(module, b_std=0.0).requires_grad_(False)
    x = images(300, 4)
    x[3] = x[7] = 0.0
    x[11] = x[12]
    whole = k(x)
    torch.testing.assert_close(whole, k._naive(x, None), rtol=1e-12, atol=1e-7)
    assert torch.isfinite(whole).all()
    assert float(whole[3].abs().max()) == 0.0
    other = k(x, x.clone())
    assert float((other[11, 12] - whole[11, 11]).abs()) <= 1e-7


def test_gram_products_of_images():
    k, x = reading(STREAMED["same"]), images(12, 3, 9, 7)
    y, v = images(5, 3, 9, 7, seed=1), torch.ones(5, 2, dtype=torch.float64)
    torch.testing.assert_close(k.gram(x, y) @ v, k(x, y) @ v)
    torch.testing.assert_close(k.gram(x) @ x[:, 0, 0, :2], k(x) @ x[:, 0, 0, :2])
    solution = k.gram(x).solve(x[:, 0, 0, 0], ridge=0.1)
    expected = torch.linalg.solve(k(x) + 0.1 * torch.eye(12, dtype=torch.float64), x[:, 0, 0, 0])
    torch.testing.assert_close(solution.solution, expected, rtol=1e-6, atol=1e-8)


def test_sums_with_other_kernels_keep_small_tiles():
    k = reading(STREAMED["same"])
    total = k + 0.5 * NNGP(STREAMED["strides"], example=torch.zeros(1, 3, 9, 7))
    assert total.pair_entries == max(k.pair_entries, total.right.pair_entries) > 100
    assert RBF().pair_entries == 1
    x = images(40, 3, 9, 7)
    total.requires_grad_(False)
    torch.testing.assert_close(total(x), total.left(x) + total.right(x))


def test_gradients_of_images():
    k = NTK(STREAMED["residual"], w_std=1.3, b_std=0.2, example=torch.zeros(1, 3, 9, 7))
    x = images(9, 3, 9, 7).requires_grad_()
    weight = images(9, 9)
    found = torch.autograd.grad((k(x) * weight).sum(), [x, *k.parameters()])
    naive = torch.autograd.grad((k._naive(x, None) * weight).sum(), [x, *k.parameters()])
    for a, b in zip(found, naive, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


def test_memory_is_asked_for():
    x = torch.zeros(1, 3, 32, 32).expand(30_000, -1, -1, -1)
    module = nn.Sequential(conv(3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 900, 1))
    k = NTK(module, example=x[:1]).requires_grad_(False)
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**29),
        pytest.raises(MemoryError, match="variances of 30000 inputs"),
    ):
        k(x, x[:2])
    k = reading(OTHERS["pool_between"]).requires_grad_(True)
    with (
        mercer.config.override(memory_budget=resident_memory() + 2**25),
        pytest.raises(MemoryError, match="differentiate fewer inputs"),
    ):
        k(images(60, 3, 9, 7)).sum().backward()


def test_buffers_are_used_again():
    pool, like = Pool(), torch.zeros(1)
    one = pool.empty((3, 4), (1, 0), like)
    assert one.shape == (3, 4) and one.stride() == (1, 3)
    where = one.data_ptr()
    pool.back(one)
    assert pool.empty((2, 5), (0, 1), like).data_ptr() == where
    other = pool.empty((2, 5), (0, 1), like)
    assert other.data_ptr() != where
    twin = pool.like(torch.empty(4, 3).mT)
    assert twin.stride() == (1, 3) and math.prod(twin.shape) == 12
