import math

import pytest
import torch
from torch.quasirandom import SobolEngine

from mercer.features import CounterGenerator
from mercer.features.sobol_points import draw_sobol_points

SOURCES = [lambda s: torch.Generator().manual_seed(s), CounterGenerator]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_it_is_a_net(source, dimensions):
    # 2^k points of a (0, 1)-sequence: one in each of 2^k cells of every coordinate.
    points = draw_sobol_points(64, dimensions, source(3))
    assert points.dtype == torch.float64 and bool(((points > 0) & (points < 1)).all())
    cells = (points * 64).long().sort(0).values
    assert torch.equal(cells, torch.arange(64).unsqueeze(-1).expand(64, dimensions))
    # The first two coordinates are a (0, 2)-sequence: one in each box of area 2^-k.
    if dimensions > 1:
        for k in range(7):
            boxes = (points[:, 0] * 2**k).long() * 2 ** (6 - k) + (
                points[:, 1] * 2 ** (6 - k)
            ).long()
            assert len(boxes.unique()) == 64


@pytest.mark.parametrize("source", SOURCES)
def test_every_point_is_uniform_over_scrambles(source):
    count = 300
    draws = torch.stack([draw_sobol_points(6, 3, source(s)) for s in range(count)])  # (s, m, d)
    assert ((draws.mean(0) - 0.5).abs() <= 4.5 / math.sqrt(12 * count)).all()
    assert ((draws.var(0) - 1 / 12).abs() <= 4.5 / math.sqrt(180 * count)).all()


def test_pairs_of_points_are_as_random_as_those_of_torch():
    # A scramble keeps the leading digit in which two points differ, and draws all that follow.
    count = 500
    first, second = (
        torch.stack([draw_sobol_points(8, 1, s(i))[[1, 4], 0] for i in range(count)])
        for s in SOURCES
    )
    moments = [(x[:, 0] - x[:, 1]).abs() for x in (first, second)]
    error = moments[0].mean() - moments[1].mean()
    assert abs(error) <= 4.5 * math.sqrt(2) * moments[0].std() / math.sqrt(count)
    assert moments[1].std() == pytest.approx(float(moments[0].std()), rel=0.15)


def test_the_scramble_by_plain_integers():
    source = CounterGenerator(6)
    drawn = source.integers(2**30, (31, 2)).tolist()
    plain = (SobolEngine(2).draw(10, dtype=torch.float64) * 2**30).long().tolist()
    points = draw_sobol_points(10, 2, CounterGenerator(6))
    for i, row in enumerate(plain):
        for j, value in enumerate(row):
            out = drawn[30][j]
            for k in range(30):
                if value >> k & 1:
                    out ^= 1 << k | drawn[k][j] & ((1 << k) - 1)
            assert float(points[i, j]) == (out + 0.5) / 2**30


def test_torch_decides_nothing(global_state_unchanged):
    first = draw_sobol_points(5, 3, CounterGenerator(1))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(draw_sobol_points(5, 3, CounterGenerator(1)), first)
    finally:
        torch.set_default_dtype(torch.float32)
