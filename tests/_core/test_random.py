import pytest
import torch

from mercer._core.checks import check_generator
from mercer._core.counter import CounterGenerator
from mercer._core.random import (
    draw_integers,
    draw_normal,
    draw_permutation,
    draw_signs,
    draw_uniform,
    own_stream,
)


def torch_source(seed=3):
    return torch.Generator().manual_seed(seed)


DRAWS = [
    (
        lambda source: draw_uniform((2, 5), source),
        lambda g: torch.rand(2, 5, generator=g, dtype=torch.float64),
        lambda c: c.uniform((2, 5)),
    ),
    (
        lambda source: draw_normal((20,), source),
        lambda g: torch.randn(20, generator=g, dtype=torch.float64),
        lambda c: c.normal((20,)),
    ),
    (
        lambda source: draw_integers(2**62, (3,), source),
        lambda g: torch.randint(2**62, (3,), generator=g),
        lambda c: c.integers(2**62, (3,)),
    ),
    (
        lambda source: draw_signs((4, 2), source),
        lambda g: 2 * torch.randint(2, (4, 2), generator=g) - 1,
        lambda c: c.signs((4, 2)),
    ),
    (
        lambda source: draw_permutation(9, source),
        lambda g: torch.randperm(9, generator=g),
        lambda c: c.permutation(9),
    ),
]


@pytest.mark.parametrize(("draw", "plain", "counted"), DRAWS)
def test_draws_are_those_of_the_source(draw, plain, counted, global_state_unchanged):
    assert torch.equal(draw(torch_source()), plain(torch_source()))
    assert torch.equal(draw(CounterGenerator(3)), counted(CounterGenerator(3)))
    with torch.device("meta"):  # numbers are drawn on the CPU whatever the default device is
        found = draw(torch_source())
    assert torch.equal(found, plain(torch_source()))


@pytest.mark.parametrize(("draw", "plain", "counted"), DRAWS)
def test_none_is_the_default_generator(draw, plain, counted):
    torch.manual_seed(5)
    expected = plain(None)
    torch.manual_seed(5)
    assert torch.equal(draw(None), expected)


def test_own_stream(global_state_unchanged):
    source = CounterGenerator(3, 4)
    child = own_stream(source)
    assert isinstance(child, CounterGenerator)
    assert source.position == 2 and child.position == 0 and child.stream == 4
    assert child.seed == int(CounterGenerator(3, 4).integers(2**62, ()))
    seed = int(torch.randint(2**62, (), generator=torch_source()))
    own = own_stream(torch_source())
    assert isinstance(own, torch.Generator) and own.initial_seed() == seed
    assert torch.equal(draw_normal((3,), own_stream(3)), draw_normal((3,), own))


def test_a_counter_generator_is_a_generator():
    source = CounterGenerator(1)
    assert check_generator(source) is source
    with pytest.raises(TypeError, match=r"a CounterGenerator or None, got type$"):
        check_generator(CounterGenerator)
