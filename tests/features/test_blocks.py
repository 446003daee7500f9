import pytest
import torch

import mercer
from mercer.features import RandomFourier
from mercer.features.blocks import can_block, map_blocks, write_waves
from mercer.kernels import RBF


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lead", [(1,), (5000,), (3, 7, 100), (0,)])
def test_blocks_cover_every_row_once(lead, dtype):
    x = torch.randn(*lead, 4)

    def write(rows, out):
        assert out.shape == (len(rows), 100)
        out.copy_(rows.sum(-1, keepdim=True) * torch.arange(100))

    found = map_blocks(x, 100, dtype, write)
    expected = (x.sum(-1, keepdim=True) * torch.arange(100)).to(dtype)
    assert found.dtype == dtype and torch.equal(found, expected)


def test_what_is_differentiated_is_not_written_in_place():
    x = torch.randn(1000, 4)
    assert can_block(x, 100) and not can_block(x, 10)
    assert not can_block(x.clone().requires_grad_(), 100)
    with torch.no_grad():
        assert can_block(x.clone().requires_grad_(), 100)
    assert not can_block(torch.empty(1000, 4, device="meta"), 100)


def test_large_features_ask_the_memory_budget():
    phi = RandomFourier(RBF(), 3, 1000, generator=0)
    x = torch.zeros(100_000, 3)
    with (
        mercer.config.override(memory_budget="100 MiB"),
        pytest.raises(MemoryError, match=r"feature matrix of shape \(100000, 1000\).*in batches"),
    ):
        phi(x)


def test_gradients_flow_where_there_are_many_rows():
    phi = RandomFourier(RBF(), 3, 300, generator=0, dtype=torch.float64)
    x = torch.randn(900, 3, dtype=torch.float64, requires_grad=True)
    (few,) = torch.autograd.grad(phi(x[:2]).sum(), x)
    (many,) = torch.autograd.grad(phi(x)[:2].sum(), x)
    torch.testing.assert_close(many, few)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_waves_in_place(dtype):
    phases = torch.cat([torch.randn(40, 30) * s for s in (1e-4, 1.0, 30.0, 1e5)]).to(dtype)
    amplitude = torch.rand(60, dtype=dtype)
    out = torch.empty(160, 60, dtype=dtype)
    write_waves(phases, amplitude, out)
    wide = phases.double()
    expected = torch.cat([wide.cos(), wide.sin()], -1) * amplitude.double()
    assert float((out.double() - expected).abs().max()) <= 4 * torch.finfo(dtype).eps
    phases[0, 0] = torch.inf
    write_waves(phases, amplitude, out)
    assert int(out.isnan().sum()) == 2
