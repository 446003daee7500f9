import functools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.convert import bundle
from tests.convert.models import (
    Functional,
    chain,
    encoder,
    every_way,
    inputs,
    same,
    seen_by,
    snapshot,
    with_affine,
)


class TestInPlace:
    @every_way
    @with_affine
    def test_gives_the_same_as_a_copy(self, features, projection, affine):
        net, x = encoder(), inputs(20, 5, 8)
        options = {"features": features, "projection": projection, "affine": affine}
        copied = bundle(net, x, generator=0, **options)
        inside = bundle(net, x, generator=0, inplace=True, **options)
        assert inside.model is net
        assert same(copied.model.state_dict(), net.state_dict())

    @pytest.mark.parametrize("projection", ["leverage", "orthogonal"])
    @with_affine
    @pytest.mark.parametrize("activation", [F.relu, F.gelu, nn.ReLU(), nn.GELU(), torch.tanh])
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
    def test_an_error_in_the_middle_restores_it(self, error, activation, affine, projection):
        net = encoder(3, activation=activation).train()
        for stack in (net, encoder(2)):
            stack.use_nested_tensor = True
        x = inputs(20, 5, 8)
        if error is ValueError:
            net.layers[0].norm2.weight.data[2] = math.nan  # reaches the second block
            match = "calibrate: an activation at block 'layers.1.linear1'"
        else:
            match = "stop"
            before = net.layers[2].norm1.forward  # runs before the third block
            calls = iter(range(100))

            def interrupted(x: Tensor) -> Tensor:
                if next(calls) == 1:  # the first is to find the blocks
                    raise KeyboardInterrupt("stop")
                return before(x)

            net.layers[2].norm1.forward = interrupted
        state, modules, plain = snapshot(net), list(net.modules()), flags(net)
        with pytest.raises(error, match=match):
            bundle(net, x, projection=projection, affine=affine, inplace=True, generator=0)
        assert all(
            torch.equal(a.nan_to_num(7), b.nan_to_num(7))
            for a, b in zip(state.values(), net.state_dict().values(), strict=True)
        )
        assert list(state) == list(net.state_dict())
        assert all(a is b for a, b in zip(net.modules(), modules, strict=True))
        assert flags(net) == plain
        assert all(module.training for module in net.modules())
        assert torch.backends.mha.get_fastpath_enabled() and torch.is_grad_enabled()

    def test_a_chain_is_restored_to_its_first_layers(self):
        net, x = chain(5, 24, 20, 16, 3), inputs(100, 5)
        net[4].weight.data[0, 0] = math.inf
        modules = list(net)
        with pytest.raises(ValueError, match="calibrate: an activation at block '2'"):
            bundle(net, x, projection="orthogonal", inplace=True)
        assert all(a is b for a, b in zip(net, modules, strict=True))


def flags(net: nn.TransformerEncoder) -> list:
    return [
        net.use_nested_tensor,
        *((layer.activation, layer.activation_relu_or_gelu) for layer in net.layers),
    ]


class TestFusedPath:
    @pytest.mark.parametrize("projection", ["leverage", "orthogonal"])
    @with_affine
    @pytest.mark.parametrize("where", ["layers.0", "layers.1", "ffn"])
    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
    def test_gives_the_same_numbers(self, where, affine, projection):
        layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True, dtype=torch.float64)
        net = nn.TransformerEncoder(layer, 2)  # with nested tensors
        x, padding = inputs(20, 5, 8), torch.zeros(20, 5, dtype=torch.bool)
        padding[::2, -2:] = True
        given = {"src": x, "src_key_padding_mask": padding}
        model = bundle(
            net, given, where=where, projection=projection, affine=affine, generator=0
        ).model.eval()
        with torch.no_grad():
            fused = model(**given)
            torch.backends.mha.set_fastpath_enabled(False)
            try:
                plain = model(**given)
            finally:
                torch.backends.mha.set_fastpath_enabled(True)
        torch.testing.assert_close(fused[~padding], plain[~padding], rtol=0, atol=1e-10)


class TestActivations:
    def test_a_function_keeps_its_structure(self):
        net, x = Functional(lambda z: z * torch.sigmoid(z)), inputs(100, 5)
        bundled = bundle(net, x, keep=1.0, ridge=0.0)
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-9)
        assert bundled.report.blocks[0].activation == "function"

    @pytest.mark.parametrize(
        "options", [{"affine": True}, {"projection": "sobol"}, {"features": "universal"}]
    )
    def test_features_cannot_take_the_place_of_a_function(self, options):
        with pytest.raises(ValueError, match=r"where: .*up: its activation is a function call"):
            bundle(Functional(F.relu), inputs(100, 5), **options)

    def test_nor_of_one_with_parameters(self):
        net, x = chain(5, 40, 3, activation=nn.PReLU), inputs(100, 5)
        with pytest.raises(ValueError, match="PReLU has parameters"):
            bundle(net, x, affine=True)
        assert bundle(net, x).report.blocks[0].activation == "PReLU"

    @pytest.mark.parametrize(
        ("activation", "shown"),
        [
            (lambda z: z.clamp(-1, 1), "<lambda>"),
            (functools.partial(F.gelu, approximate="tanh"), "partial"),
            (torch.tanh, "tanh"),
            (nn.SiLU(), "SiLU"),
        ],
    )
    def test_in_an_encoder_any_function_is_replaced(self, activation, shown):
        net, x = encoder(1, activation=activation).eval(), inputs(30, 5, 8)
        bundled = bundle(net, x, affine=True, ridge=0.1)
        (block,) = bundled.report.blocks
        assert block.activation == shown
        layer = bundled.model.layers[0]
        assert type(layer.activation) is nn.Identity and layer.activation_relu_or_gelu == 0
        new, _ = seen_by(bundled.model, "layers.0.linear2", x)
        expected, _ = seen_by(net, "layers.0.linear2", x)
        rows = new[:, : block.num_features]
        assert all(
            float((expected - row.unsqueeze(-1)).abs().amax(0).min()) < 1e-12 for row in rows.mT
        )
