"""Shares under one budget: against brute force, and what they are measured on."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mercer.convert import Allocation, allocate, bundle, uptrain
from mercer.convert.allocation import choose_shares
from tests.convert.models import (
    SIZES,
    chain,
    encoder,
    inputs,
    numbers,
    same,
    snapshot,
    tokens,
    transformer,
)
from tests.convert.test_uptrain import off

PAPER = "core-scalable-neural-network-kernels"


def uneven() -> nn.Sequential:
    """Two blocks: of the first two neurons do anything, of the second all."""
    first, second = chain(6, 32, 6), chain(6, 32, 6)
    with torch.no_grad():
        first[2].weight[:, 2:] = 0
        second[0].weight.mul_(4)
        second[2].weight.mul_(4)
    return nn.Sequential(first, nn.LayerNorm(6, dtype=torch.float64), second)


tables = st.integers(1, 5).flatmap(
    lambda blocks: st.lists(
        st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=4),
        min_size=blocks,
        max_size=blocks,
    )
)


class TestChoice:
    @settings(deadline=None, max_examples=150)
    @given(table=tables, budget=st.integers(1, 60))
    def test_is_that_of_brute_force(self, table, budget):
        costs = [[float(cost) for cost, _ in block] for block in table]
        errors = [[error / 7 for _, error in block] for block in table]
        every = list(itertools.product(*(range(len(block)) for block in table)))

        def total(of, choice):
            return sum(block[i] for block, i in zip(of, choice, strict=True))

        feasible = [choice for choice in every if total(costs, choice) <= budget]
        if not feasible:
            with pytest.raises(ValueError, match="keep: the smallest shares cost"):
                choose_shares(costs, errors, budget)
            return
        chosen, front = choose_shares(costs, errors, budget)
        best = min(total(errors, choice) for choice in feasible)
        assert total(costs, chosen) <= budget
        assert total(errors, chosen) == pytest.approx(best, abs=1e-12)
        # The front: every choice is beaten, or equalled, by a point of it.
        assert all(a < b and x > y for (a, x), (b, y) in itertools.pairwise(front))
        for choice in every:
            cost, error = total(costs, choice), total(errors, choice)
            assert any(c <= cost and e <= error + 1e-12 for c, e in front)

    @pytest.mark.paper(
        PAPER, kind="exact", claim="Shares of blocks under a budget are the best of all choices"
    )
    def test_of_many(self, evidence):
        source = torch.Generator().manual_seed(0)
        costs = torch.randint(1, 1000, (7, 5), generator=source).double()
        errors = torch.rand(7, 5, generator=source).double()
        every = torch.cartesian_prod(*[torch.arange(5)] * 7)  # (78125, 7)
        index = torch.arange(7)
        cost, error = (table[index, every].sum(1) for table in (costs, errors))
        gap = 0.0
        for budget in (900.0, 1500.0, 2500.0):
            chosen, _ = choose_shares(costs.tolist(), errors.tolist(), budget)
            found = float(errors[index, torch.tensor(chosen)].sum())
            gap = max(gap, abs(found - float(error[cost <= budget].min())))
        evidence(required="<= 1e-12", measured=gap, what="error over that of brute force")
        assert gap <= 1e-12

    def test_a_hundred_blocks_keep_the_budget(self, monkeypatch):
        import mercer.convert.allocation as room

        source = torch.Generator().manual_seed(0)
        costs = torch.rand(100, 8, generator=source).double().cumsum(1)
        errors = torch.rand(100, 8, generator=source).double().flip(1).cumsum(1).flip(1)
        exact, _ = choose_shares(costs.tolist(), errors.tolist(), 150.0)
        monkeypatch.setattr(room, "_MOST_STATES", 2000)  # as with far more blocks
        thinned, _ = choose_shares(costs.tolist(), errors.tolist(), 150.0)
        index = torch.arange(100)
        assert float(costs[index, torch.tensor(thinned)].sum()) <= 150.0
        a, b = (float(errors[index, torch.tensor(each)].sum()) for each in (exact, thinned))
        assert b <= 1.01 * a

    def test_options_that_do_not_exist_are_infinitely_dear(self):
        inf = float("inf")
        chosen, _ = choose_shares([[inf, 2.0], [1.0, 3.0]], [[inf, 1.0], [5.0, 0.0]], 5.0)
        assert chosen == [1, 1]


class TestAllocate:
    def test_numbers_go_where_they_help(self):
        net, x = uneven(), inputs(512, 6)
        allocation = allocate(net, x, keep=0.5)
        assert allocation.keep["0.0"] < 0.5 < allocation.keep["2.0"]
        assert allocation.predicted < allocation.uniform

    def test_the_budget_is_kept(self):
        net, x = uneven(), inputs(256, 6)
        dense = numbers(net[0], net[2])
        for keep in (0.3, 0.5, 0.8):
            allocation = allocate(net, x, keep=keep)
            assert allocation.budget == keep * dense
            report = bundle(net, x, keep=allocation.keep).report
            assert report.stored_after == allocation.spent <= allocation.budget
            assert report.keep == allocation.keep

    def test_errors_are_those_at_the_output_with_one_block_replaced(self):
        net, x = uneven(), inputs(512, 6)
        allocation = allocate(net, x, keep=0.5, shares=[0.25])
        assert allocation.shares == (0.25, 0.5)
        parts = x.split(32)
        held_out = torch.cat(parts[7::8])
        fitted = torch.cat([part for i, part in enumerate(parts) if i % 8 != 7])
        with torch.no_grad():
            z = net(held_out)
        for name, errors in allocation.errors.items():
            for share, error in zip(allocation.shares, errors, strict=True):
                alone = bundle(net, fitted, keep={name: share}).model
                with torch.no_grad():
                    found = alone(held_out)
                assert error == pytest.approx(off(found, z), rel=1e-4)

    def test_better_at_the_output_than_one_share(self):
        net, x, test = uneven(), inputs(512, 6), inputs(512, 6, seed=5)
        allocation = allocate(net, x, keep=0.5)
        with torch.no_grad():
            z = net(test)
            gap = {
                kind: float((bundle(net, x, keep=keep).model(test) - z).square().sum())
                for kind, keep in (("uniform", 0.5), ("allocated", allocation.keep))
            }
        assert gap["allocated"] < 0.8 * gap["uniform"]

    def test_by_time(self):
        net = nn.Sequential(chain(64, 512, 64), nn.LayerNorm(64).double(), chain(64, 512, 64))
        allocation = allocate(net, inputs(512, 64), keep=0.6, cost="latency", shares=[0.2, 1.0])
        assert allocation.spent <= allocation.budget
        assert allocation.costs["0.0"] == allocation.costs["2.0"]  # of one size
        assert 0 < allocation.costs["0.0"][0] < allocation.costs["0.0"][-1]

    @pytest.mark.parametrize(
        ("make", "batches"),
        [
            (lambda: transformer("BertModel", SIZES), lambda: [tokens()] * 2),
            (encoder, lambda: [inputs(4, 5, 8)] * 9),
        ],
    )
    def test_transformers(self, make, batches):
        net = make()
        before, fused = snapshot(net), torch.backends.mha.get_fastpath_enabled()
        allocation = allocate(net, batches(), keep=0.4)
        assert same(before, snapshot(net))
        assert torch.backends.mha.get_fastpath_enabled() == fused
        assert len(allocation.keep) == 2
        smaller = uptrain(net, batches(), keep=allocation.keep, steps=2, learning_rate=1e-3)
        assert smaller.report.bundle.stored_after <= allocation.budget

    def test_as_text_and_drawn(self):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        from matplotlib import pyplot as plt

        allocation = allocate(uneven(), inputs(128, 6), keep=0.5)
        assert isinstance(allocation, Allocation)
        assert str(allocation).startswith("2 blocks, ")
        assert f"  2.0: {allocation.keep['2.0']:g}" in str(allocation)
        ax = allocation.plot()
        assert list(ax.get_lines()[1].get_xdata()) == [allocation.spent]
        other = plt.figure().add_subplot()
        assert allocation.plot(other) is other
        plt.close("all")

    @pytest.mark.parametrize(
        ("options", "error", "text"),
        [
            ({"keep": 0.0}, ValueError, "keep: expected a number"),
            ({"keep": 0.001}, ValueError, "keep: 0.001 leaves no feature to block '0.0'"),
            ({"cost": "joules"}, ValueError, "cost: expected one of"),
            ({"shares": [1.2]}, ValueError, "shares: expected a number"),
            ({"projection": "orthogonal"}, ValueError, "projection: expected one of"),
            ({"where": "nowhere"}, ValueError, "where: no block of the model matches"),
        ],
    )
    def test_what_is_refused(self, options, error, text):
        with pytest.raises(error, match=text):
            allocate(uneven(), inputs(64, 6), **options)


class TestKeepByName:
    def test_each_block_keeps_its_own(self):
        net, x = uneven(), inputs(128, 6)
        report = bundle(net, x, keep={"0.0": 0.25, "2.0": 0.75}).report
        one, two = (block.num_features for block in report.blocks)
        alone = [bundle(net, x, keep=share).report.blocks for share in (0.25, 0.75)]
        assert (one, two) == (alone[0][0].num_features, alone[1][1].num_features)

    def test_blocks_without_a_share_stay(self):
        report = bundle(uneven(), inputs(128, 6), keep={"2.0": 0.75}).report
        assert [block.name for block in report.blocks] == ["2.0"]
        assert ("0.0", "keep does not name it") in [(s.name, s.reason) for s in report.skipped]

    @pytest.mark.parametrize(
        ("keep", "text"),
        [
            ({"7": 0.5}, "keep: the model has no block '7'; its blocks are 0.0, 2.0"),
            ({"0.0": 0.0}, r"keep\['0.0'\]: expected a number"),
            ({}, "keep: expected a share, or shares by the names of blocks"),
        ],
    )
    def test_what_is_refused(self, keep, text):
        with pytest.raises(ValueError, match=text):
            bundle(uneven(), inputs(128, 6), keep=keep)
