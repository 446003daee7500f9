import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mercer.convert import bundle
from tests.convert.models import (
    WAYS,
    chain,
    encoder,
    inputs,
    same,
)


def batches(x: Tensor) -> list[Tensor]:
    return list(x.split(32))


class Named(nn.Module):
    """A model that takes its input by any name."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, scale: float = 1.0, *, extra=None) -> Tensor:
        return self.net(scale * x)


class TestCalibration:
    @pytest.mark.parametrize(
        "form",
        [
            lambda x: batches(x),
            lambda x: (batch for batch in batches(x)),
            lambda x: [(batch,) for batch in batches(x)],
            lambda x: [[batch, 1.0] for batch in batches(x)],
            lambda x: [{"x": batch, "extra": None} for batch in batches(x)],
            lambda x: DataLoader(TensorDataset(x), batch_size=32),
            lambda x: DataLoader(x, batch_size=32),
            lambda x: [*batches(x), x[:0]],
        ],
    )
    def test_every_form_gives_the_same(self, form):
        net, x = Named(chain(5, 24, 3)), inputs(100, 5)
        expected = bundle(net, batches(x)).model.state_dict()
        assert same(bundle(net, form(x)).model.state_dict(), expected)

    def test_batches_do_not_matter_beyond_rounding(self):
        net, x = chain(5, 24, 3), inputs(300, 5)
        one = bundle(net, x, ridge=0.1).model.state_dict()
        for size in (1, 7, 300):
            other = bundle(net, list(x.split(size)), ridge=0.1).model.state_dict()
            torch.testing.assert_close(other, one, rtol=0, atol=1e-9)

    def test_inputs_stay_as_they_were(self):
        net = nn.Sequential(nn.ReLU(inplace=True), *chain(5, 24, 3))
        x = inputs(40, 5)
        bundle(net, x)
        assert torch.equal(x, inputs(40, 5))

    def test_one_sample(self):
        net, x = chain(5, 24, 3), inputs(1, 5)
        bundled = bundle(net, x)
        (block,) = bundled.report.blocks
        assert (block.rows, block.r2) == (1, None)
        torch.testing.assert_close(bundled.model(x), net(x))

    def test_infinite_activations_are_refused(self):
        net = chain(5, 24, 3, activation=nn.ReLU, dtype=torch.float32)
        with pytest.raises(ValueError, match=r"calibrate: an activation at block '0'"):
            bundle(net, torch.full((20, 5), 3e38))

    def test_universal_features_say_where_they_overflow(self):
        options = {"features": "universal", "projection": "gaussian", "generator": 0}
        with pytest.raises(ValueError, match=r"features: what reaches block '\d' overflows"):
            bundle(chain(5, 40, 30, 20, 3), inputs(40, 5), 0.7, **options)

    def test_large_values(self):
        net, x = chain(5, 24, 3, activation=nn.ReLU, dtype=torch.float32), inputs(300, 5).float()
        small, large = (bundle(net, scale * x) for scale in (1.0, 1e25))
        assert large.report.blocks[0].r2 == pytest.approx(small.report.blocks[0].r2, abs=0.05)
        assert torch.isfinite(large.model(1e25 * x)).all()


class TestPadding:
    @pytest.mark.parametrize("batch_first", [False, True])
    @pytest.mark.parametrize(("features", "projection"), [WAYS[0], WAYS[3], WAYS[7], WAYS[-1]])
    @pytest.mark.parametrize("form", ["keyword", "position", "added"])
    def test_its_content_changes_nothing(self, batch_first, features, projection, form):
        net = encoder(batch_first=batch_first, activation="relu")
        padding = torch.zeros(30, 6, dtype=torch.bool)
        padding[::3, -3:] = True
        x = inputs(30, 6, 8)
        other = torch.where(padding.unsqueeze(-1), 40 * inputs(30, 6, 8, seed=5), x)
        found = []
        for src in (x, other):
            src = src if batch_first else src.transpose(0, 1)
            mask = padding
            if form == "added":
                mask = torch.zeros(30, 6, dtype=torch.float64).masked_fill(padding, -math.inf)
            given = (src, None, mask) if form == "position" else {"src": src}
            if isinstance(given, dict):
                given["src_key_padding_mask"] = mask
            bundled = bundle(
                net, [given], features=features, projection=projection, keep=0.7, generator=0
            )
            assert [block.rows for block in bundled.report.blocks] == [int((~padding).sum())] * 2
            found.append(bundled)
        assert same(found[0].model.state_dict(), found[1].model.state_dict())
        assert found[0].report.blocks[0].r2 == found[1].report.blocks[0].r2

    def test_numbers_that_are_not_finite_there_do_not_matter(self):
        net = encoder(1)
        padding = torch.zeros(30, 6, dtype=torch.bool)
        padding[0] = True  # nothing to attend to: NaN
        bundled = bundle(net, {"src": inputs(30, 6, 8), "src_key_padding_mask": padding})
        assert bundled.report.blocks[0].rows == 29 * 6

    def test_all_padding(self):
        net = encoder(1)
        padding = torch.ones(20, 6, dtype=torch.bool)
        with pytest.raises(ValueError, match=r"calibrate: no row reaches block 'layers.0.linear1'"):
            bundle(net, {"src": inputs(20, 6, 8), "src_key_padding_mask": padding})

    def test_a_causal_mask(self):
        net, x = encoder(1), inputs(20, 6, 8)
        mask = nn.Transformer.generate_square_subsequent_mask(6, dtype=torch.float64)
        assert bundle(net, {"src": x, "mask": mask}).report.blocks[0].rows == 120
