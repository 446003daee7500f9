"""Normalisation whose factors and offsets each position has of its own, by the formula."""

import pytest
import torch
from torch import Tensor, nn

from mercer.infinite import NTK
from tests.infinite.golden_networks import Pooled

W, B = 1.3, 0.4


def tokens(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(
    x: Tensor, y: Tensor, over: tuple[int, ...], eps: float, gain: bool, offset: bool
) -> tuple[Tensor, Tensor]:
    """NNGP and NTK of Linear, norm over channels and the grid's axes `over`, mean, Linear.

    x is (n, h, w, d), y is (m, h, w, d); channels behind random weights have mean zero.
    """
    n, m, h, w = len(x), len(y), *x.shape[1:3]
    s = W**2 * torch.einsum("nhwd,mijd->nmhwij", x, y) / x.shape[-1] + B**2
    t = s.clone()  # of the first layer, weights and biases
    for z, shape in ((x, (n, 1, h, w, 1, 1)), (y, (1, m, 1, 1, h, w))):
        q = W**2 * z.square().mean(-1) + B**2  # (n, h, w)
        if over:
            q = q.mean([1 + axis for axis in over], keepdim=True).expand(-1, h, w)
        s, t = (v / (q + eps).sqrt().reshape(shape) for v in (s, t))
    own = torch.ones(h, w, h, w, dtype=s.dtype)  # whether two positions share a factor
    if 0 in over:
        own = own * torch.eye(h, dtype=s.dtype).reshape(h, 1, h, 1)
    if 1 in over:
        own = own * torch.eye(w, dtype=s.dtype).reshape(1, w, 1, w)
    t = t + gain * s * own + offset * own
    s, t = (v.mean((2, 3, 4, 5)) for v in (s, t))
    s = W**2 * s + B**2
    return s, W**2 * t + s


@pytest.mark.parametrize("offset", [True, False])
@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("over", [(), (1,), (0, 1)])
def test_layer_norm_of_a_grid(over: tuple[int, ...], gain: bool, offset: bool):
    norm = nn.LayerNorm([*[(4, 3)[axis] for axis in over], 8], eps=0.05)
    norm.weight.requires_grad_(gain)
    norm.bias.requires_grad_(offset)
    module = Pooled((1, 2), nn.Linear(5, 8), norm, head=nn.Linear(8, 1))
    k = NTK(module, w_std=W, b_std=B, example=torch.zeros(1, 4, 3, 5)).requires_grad_(False)
    x, y = tokens(0, 5, 4, 3, 5), tokens(1, 4, 4, 3, 5)
    for found, exact in zip(k.both(x, y), expected(x, y, over, 0.05, gain, offset), strict=True):
        torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
    exact = expected(x, x, over, 0.05, gain, offset)[1]
    torch.testing.assert_close(k(x), exact, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(k.diag(x), exact.diagonal(), rtol=1e-12, atol=1e-13)


def test_rms_norm_of_tokens_and_channels():
    norm = nn.RMSNorm([4, 8], eps=0.05)
    module = Pooled((1,), nn.Linear(5, 8), norm, head=nn.Linear(8, 1))
    k = NTK(module, w_std=W, b_std=B, example=torch.zeros(1, 4, 5)).requires_grad_(False)
    x, y = tokens(2, 5, 4, 5), tokens(3, 3, 4, 5)
    exact = expected(x.unsqueeze(2), y.unsqueeze(2), (0,), 0.05, True, False)[1]
    torch.testing.assert_close(k(x, y), exact, rtol=1e-12, atol=1e-13)
