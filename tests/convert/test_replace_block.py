import functools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from torch import Tensor, nn

from mercer.convert import bundle
from mercer.features import ArcCosineFeatures, FeatureMap, NeuronFeatures, UniversalFeatures
from mercer.linalg import StreamingRidge
from mercer.nn import select_neurons
from tests.convert.models import (
    CHOOSE,
    WAYS,
    chain,
    encoder,
    every_way,
    inputs,
    numbers,
    same,
    seen_by,
    snapshot,
    with_affine,
)


def held_out(samples: int, rows_each: int = 1) -> Tensor:
    return (torch.arange(samples * rows_each) // rows_each) % 8 == 7


class TestExact:
    @pytest.mark.parametrize("projection", CHOOSE)
    @pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU, nn.PReLU])
    def test_all_neurons_give_the_dense_outputs(self, activation, projection):
        net, x = chain(5, 24, 3, activation=activation), inputs(300, 5)
        bundled = bundle(net, x, keep=1.0, projection=projection, ridge=0.0, generator=0)
        (block,) = bundled.report.blocks
        assert block.num_features == 24
        assert block.stored_after == block.stored_before == 24 * 6 + 3 * 25
        assert block.r2 == pytest.approx(1, abs=1e-9)
        new = inputs(50, 5, seed=3)
        torch.testing.assert_close(bundled.model(new), net(new), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("ridge", [0.5, "gcv"])
    def test_but_for_what_the_ridge_takes(self, ridge):
        """W - W_ridge = ridge W (G + ridge I)^-1, with the ridge that the report names."""
        net, x = chain(5, 24, 3, activation=nn.GELU), inputs(300, 5)
        bundled = bundle(net, x, keep=1.0, ridge=ridge)
        used = bundled.report.blocks[0].ridge
        hidden, _ = seen_by(net, "2", x)
        hidden = hidden - hidden.mean(0)
        gram, weight = hidden.mT @ hidden, net[2].weight.detach()
        taken = used * torch.linalg.solve(
            gram + used * torch.eye(24, dtype=torch.float64), weight, left=False
        )
        found = weight - bundled.model[2].weight.detach()
        torch.testing.assert_close(found, taken, rtol=0, atol=1e-9)
        assert used == ridge or float(taken.abs().max()) < 1e-7

    def test_several_blocks(self):
        net, x = chain(5, 16, 12, 9, 2), inputs(300, 5)
        bundled = bundle(net, x, keep=1.0, ridge=0.0)
        assert [block.num_features for block in bundled.report.blocks] == [16, 12, 9]
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-9)

    @pytest.mark.parametrize("norm_first", [False, True])
    @pytest.mark.parametrize("batch_first", [False, True])
    def test_encoders(self, batch_first, norm_first):
        net = encoder(batch_first=batch_first, norm_first=norm_first).eval()
        x = inputs(40, 5, 8)
        bundled = bundle(net, x, keep=1.0, ridge=0.0)
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-9)

    def test_half_the_neurons_are_copies(self):
        net, x = chain(5, 24, 3), inputs(300, 5)
        with torch.no_grad():
            net[0].weight[12:] = net[0].weight[:12]
            net[0].bias[12:] = net[0].bias[:12]
        bundled = bundle(net, x, keep=0.52, projection="greedy", ridge=0.0)
        assert bundled.report.blocks[0].num_features == 12
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-8)

    @every_way
    def test_the_affine_part_is_exact(self, features, projection):
        identity = functools.partial(nn.Hardtanh, -1e6, 1e6)
        net, x = chain(5, 48, 3, activation=identity), inputs(300, 5)
        bundled = bundle(
            net, x, features=features, projection=projection, affine=True, ridge=1e-9, generator=0
        )
        torch.testing.assert_close(bundled.model(x), net(x), rtol=0, atol=1e-8)


class TestLeastSquares:
    @pytest.mark.parametrize("ridge", [0.0, 0.3, "gcv"])
    def test_by_hand(self, ridge):
        """Selection, R² and the final fit, each from their definition."""
        net, x = chain(5, 24, 3), inputs(201, 5)
        bundled = bundle(net, x, keep=0.5, ridge=ridge)
        (block,) = bundled.report.blocks
        hidden, y = seen_by(net, "2", x)
        out = held_out(201)
        centred = hidden[~out] - hidden[~out].mean(0)
        chosen = select_neurons(
            centred.mT @ centred / len(centred),
            block.num_features,
            output_weight=net[2].weight.detach(),
        )
        assert torch.equal(bundled.model[0].weight, net[0].weight[chosen])
        assert torch.equal(bundled.model[0].bias, net[0].bias[chosen])

        z = hidden[:, chosen]
        part = StreamingRidge(len(chosen), 3).update(z[~out], y[~out]).solve(ridge)
        found = Ridge(part.ridge, solver="cholesky").fit(z[~out], y[~out])
        assert block.r2 == pytest.approx(r2_score(y[out], found.predict(z[out])), abs=1e-9)

        whole = StreamingRidge(len(chosen), 3).update(z, y).solve(ridge)
        assert block.ridge == pytest.approx(whole.ridge, rel=1e-9)
        assert block.rows == 201
        expected = Ridge(block.ridge, solver="cholesky").fit(z, y)
        np.testing.assert_allclose(
            bundled.model[2].weight.detach(), expected.coef_, rtol=0, atol=1e-8
        )
        np.testing.assert_allclose(
            bundled.model[2].bias.detach(), expected.intercept_, rtol=0, atol=1e-8
        )

    @every_way
    @with_affine
    @pytest.mark.parametrize("activation", [nn.Tanh, nn.GELU])
    def test_whatever_the_features(self, features, projection, affine, activation):
        net, x = chain(5, 40, 3, activation=activation), inputs(200, 5)
        options = {"features": features, "projection": projection, "affine": affine}
        bundled = bundle(net, x, ridge=0.01, generator=0, **options)
        first, act, second = bundled.model
        (block,) = bundled.report.blocks
        if projection in CHOOSE and not affine:
            assert type(first) is nn.Linear and type(act) is activation
        else:
            assert isinstance(first, FeatureMap) and type(act) is nn.Identity
            assert first.num_features == block.num_features + 5 * affine
        assert second.in_features == block.num_features + 5 * affine
        z = act(first(x)).detach()
        expected = Ridge(0.01, solver="cholesky").fit(z, net(x).detach())
        # Of the products' size: universal features may be large.
        scale = max(1.0, float(z.abs().max()) * float(np.abs(expected.coef_).max()))
        np.testing.assert_allclose(
            bundled.model(x).detach(), expected.predict(z), rtol=0, atol=1e-8 * scale
        )
        report = bundled.report
        assert (report.features, report.projection, report.affine) == (features, projection, affine)

    @pytest.mark.parametrize("projection", ["leverage", "orthogonal"])
    @with_affine
    def test_a_block_is_solved_on_what_reaches_it_after_the_one_before(self, projection, affine):
        net, x = encoder(), inputs(40, 5, 8)
        options = {"projection": projection, "affine": affine}
        both = bundle(net, x, generator=7, **options)
        source = torch.Generator().manual_seed(7)
        first = bundle(net, x, where=r"^layers\.0", generator=source, **options)
        second = bundle(first.model, x, where=r"^layers\.1", generator=source, **options)
        assert same(both.model.state_dict(), second.model.state_dict())
        assert both.report.blocks[1].r2 == second.report.blocks[0].r2
        alone = bundle(net, x, where=r"^layers\.1", generator=7, **options)
        name = "layers.1.linear2.weight"
        assert not torch.equal(alone.model.state_dict()[name], both.model.state_dict()[name])

    def test_a_chain_where_blocks_share_a_layer(self):
        net, x = chain(5, 24, 20, 3), inputs(300, 5)
        bundled = bundle(net, x, ridge=0.1)
        one, two = bundled.report.blocks
        a, b = one.num_features, two.num_features
        # The first block alone: rows of layer 0, then a fit of layer 2.
        dense, y = seen_by(net, "2", x)
        rows = (net[0].weight[:, None] == bundled.model[0].weight).all(-1).any(1)
        z = dense[:, rows]
        middle = Ridge(0.1, solver="cholesky").fit(z, y)
        # The second on the activations that this gives: rows of that fit.
        new_weight = torch.as_tensor(middle.coef_)  # (20, a)
        new = bundled.model[2].weight.detach()
        gaps = (new[:, None] - new_weight).abs().amax(-1)  # (b, 20)
        chosen = gaps.argmin(1)
        assert float(gaps.min(1).values.max()) < 1e-9 and len(set(chosen.tolist())) == b
        hidden = torch.tanh(torch.as_tensor(middle.predict(z)))
        out = hidden @ net[4].weight.mT + net[4].bias
        expected = Ridge(0.1, solver="cholesky").fit(hidden[:, chosen], out.detach())
        np.testing.assert_allclose(bundled.model[4].weight.detach(), expected.coef_, atol=1e-8)
        assert (a, b) == (bundled.model[0].out_features, bundled.model[2].out_features)

    def test_a_block_that_runs_three_times_is_fitted_to_all_its_calls(self):
        up, down = nn.Linear(5, 24, dtype=torch.float64), nn.Linear(24, 5, dtype=torch.float64)
        act, after = nn.Tanh(), nn.ReLU(inplace=True)  # in place: what was seen must be a copy
        net = nn.Sequential(up, act, down, after, up, act, down, after, up, act, down)
        x = inputs(120, 5)
        bundled = bundle(net, x, ridge=0.1)
        (block,) = bundled.report.blocks
        assert block.rows == 360
        chosen = (up.weight[:, None] == bundled.model[0].weight).all(-1).any(1)
        hidden, y = seen_by(net, "2", x)
        expected = Ridge(0.1, solver="cholesky").fit(hidden[:, chosen], y)
        np.testing.assert_allclose(bundled.model[2].weight.detach(), expected.coef_, atol=1e-8)
        assert bundled.model[0] is bundled.model[4] and bundled.model[2] is bundled.model[10]

    def test_inputs_that_are_changed_in_place_later(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.up, self.down = nn.Linear(5, 40).double(), nn.Linear(40, 5).double()
                self.act = nn.Tanh()

            def forward(self, x):
                x = x.clone()
                h = self.up(x)
                x.zero_()
                return self.down(self.act(h))

        net, x = Net(), inputs(200, 5)
        bundled = bundle(net, x, projection="orthogonal", ridge=0.1, generator=0)
        assert bundled.report.blocks[0].r2 > 0.5
        z = bundled.model.up(x)
        expected = Ridge(0.1, solver="cholesky").fit(z, net(x).detach())
        np.testing.assert_allclose(bundled.model.down.weight.detach(), expected.coef_, atol=1e-8)


def map_numbers(features: str, projection: str, sizes: tuple[int, int], bias: bool) -> int:
    """Numbers that a feature map of given sizes stores."""
    draw = "gaussian" if projection in CHOOSE else projection
    if features == "neuron":
        return numbers(NeuronFeatures.random(*sizes, "tanh", draw=draw, bias=bias))
    if features == "universal":
        return numbers(UniversalFeatures("tanh", *sizes, draw=draw))
    return numbers(ArcCosineFeatures(*sizes, draw=draw))


class TestKeep:
    @settings(max_examples=40, deadline=None)
    @given(
        widths=st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 12)),
        keep=st.floats(0.05, 1.0),
        biases=st.tuples(st.booleans(), st.booleans()),
        way=st.sampled_from(WAYS),
        affine=st.booleans(),
    )
    def test_is_used_up(self, widths, keep, biases, way, affine):
        d, h, k = widths
        net = nn.Sequential(
            nn.Linear(d, h, bias=biases[0]), nn.Tanh(), nn.Linear(h, k, bias=biases[1])
        ).double()
        dense = numbers(net)
        step = 2 if way[0] == "universal" else 1

        def stored(m: int) -> int:
            width = m + d * affine
            return map_numbers(*way, (d, m), biases[0]) + k * (width + 1)

        x = inputs(40, d)
        call = functools.partial(bundle, net, x, keep, features=way[0], projection=way[1])
        if stored(step) > keep * dense:
            with pytest.raises(ValueError, match=r"keep: .* leaves no feature to block '0'"):
                call(affine=affine, generator=0)
            return
        bundled = call(affine=affine, generator=0)
        (block,) = bundled.report.blocks
        assert block.stored_before == bundled.report.stored_before == dense
        assert block.stored_after == numbers(bundled.model) == stored(block.num_features)
        assert block.stored_after <= keep * dense
        most = block.num_features
        while stored(most + step) <= keep * dense and (way[1] not in CHOOSE or most + step <= h):
            most += step
        # Rounded down to a multiple of eight only where that costs at most one in a hundred.
        assert most - block.num_features <= 0.01 * most
        if most > block.num_features:
            assert block.num_features % 2 == 0

    def test_large_blocks_are_aligned(self):
        net, x = chain(2, 803, 2), inputs(20, 2)
        assert bundle(net, x, 0.999, dry_run=True).report.blocks[0].num_features == 800
        assert bundle(net, x, 1.0, dry_run=True).report.blocks[0].num_features == 803

    @pytest.mark.parametrize("make", [lambda: chain(5, 40, 30, 20, 3), encoder])
    @every_way
    @with_affine
    def test_a_dry_run_predicts_the_totals(self, make, features, projection, affine):
        net = make()
        x = 0.1 * inputs(40, 5) if isinstance(net, nn.Sequential) else inputs(20, 5, 8)
        before = snapshot(net)
        options = {"features": features, "projection": projection, "affine": affine, "keep": 0.7}
        dry = bundle(net, x, dry_run=True, **options)
        real = bundle(net, x, generator=0, **options)
        assert dry.model is net and same(before, net.state_dict())
        unsolved = {"r2": None, "ridge": None, "rows": 0, "seconds": 0.0}
        blocks = tuple(replace(block, **unsolved) for block in real.report.blocks)
        assert dry.report == replace(real.report, blocks=blocks)
        report = real.report
        assert report.model_before == numbers(net)
        assert report.model_after == numbers(real.model)
        assert (
            report.stored_before - report.stored_after == report.model_before - report.model_after
        )
        assert report.keep == 0.7

    def test_a_share_that_leaves_nothing_names_what_would(self):
        net, x = chain(5, 24, 3), inputs(40, 5)
        with pytest.raises(ValueError, match=r"needs at least 0\.\d+") as caught:
            bundle(net, x, 0.01)
        least = float(re.findall(r"at least ([\d.]+)", str(caught.value))[0])
        assert bundle(net, x, least + 0.001).report.blocks[0].num_features == 1
