import copy
import math
import pickle
import statistics
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
import torch

from mercer._core.counter import CounterGenerator, philox

MASK = 2**32 - 1
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)

GOLDEN = {  # words, signs and integers also by plain integers, when they were written down
    "words": [1200655132, 1488638318, 3997352695],
    "signs": [1, -1, -1, 1, -1, -1, 1, -1],
    "integers": [465, 117, 529, 418],
    "permutation": [1, 2, 5, 4, 3, 0],
    "uniform": ["0x1.fd730f339ada6p-2", "0x1.8bbe495a6f9c4p-3", "0x1.065a4ca6ddd28p-4"],
    "normal": [3.714697845105144, -0.756830104129462, -1.1443734448142813],
}


def one_block(counter, key):
    """Compute Philox4x32-10 on one block in Python's own integers."""
    a, b, c, d = counter
    left, right = key
    for _ in range(10):
        first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
        a, b, c, d = second >> 32 ^ b ^ left, second & MASK, first >> 32 ^ d ^ right, first & MASK
        left, right = (left + 0x9E3779B9) & MASK, (right + 0xBB67AE85) & MASK
    return a, b, c, d


def word(seed, stream, position):
    """Compute one word of a stream in Python's own integers."""
    block = position // 4
    counter = (block & MASK, block >> 32, stream & MASK, stream >> 32)
    return one_block(counter, (seed & MASK, seed >> 32))[position % 4]


# The file kat_vectors of Random123 (D. E. Shaw Research), its three lines for philox4x32 10.
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((MASK,) * 4, (MASK,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (PI[:4], PI[4:], (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ],
    ids=["zeros", "ones", "pi"],
)
@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="exact",
    claim="Seeds that replace stored projections drive Philox4x32-10: the answers of Random123.",
)
def test_known_answers(counter, key, answer, evidence):
    assert one_block(counter, key) == answer
    found = tuple(philox(torch.tensor(counter).unsqueeze(-1), key).flatten().tolist())
    evidence(required="== 4 words", measured=sum(map(int.__eq__, found, answer)))
    assert found == answer


@pytest.mark.parametrize("seed", [0, 7, 2**32, 2**64 - 1])
@pytest.mark.parametrize("stream", [0, 1, 2**40 + 3])
@pytest.mark.parametrize("position", [0, 1, 6, 2**34 - 3, 2**63 + 5])
def test_words_are_those_of_plain_integers(seed, stream, position):
    words = CounterGenerator(seed, stream, position=position).words(9).tolist()
    assert words == [word(seed, stream, position + i) for i in range(9)]


def test_words_of_many_blocks_at_a_time():
    words = CounterGenerator(3, position=2).words(200_001)  # several chunks, ends off a block
    for i in (0, 1, 65_533, 65_534, 65_535, 131_070, 200_000):
        assert int(words[i]) == word(3, 0, 2 + i)
    assert int(words.min()) >= 0 and int(words.max()) <= MASK


def test_a_stream_does_not_depend_on_how_it_is_drawn():
    whole = CounterGenerator(5, 6)
    parts = CounterGenerator(5, 6)
    expected = whole.words(100)
    assert torch.equal(torch.cat([parts.words(n) for n in (1, 0, 3, 4, 5, 80, 7)]), expected)
    assert whole.position == parts.position == 100
    for draw, words in (("uniform", 2), ("normal", 2), ("signs", 1)):
        start = whole.position
        numbers = getattr(whole, draw)((3, 5))
        pieces = [getattr(parts, draw)((n,)) for n in (4, 0, 11)]
        assert torch.equal(numbers, torch.cat(pieces).reshape(3, 5))
        assert whole.position == parts.position == start + 15 * words
    at = CounterGenerator(5, 6, position=whole.position)
    assert torch.equal(at.integers(10, (7,)), whole.integers(10, (7,)))


def test_golden_numbers():
    """What a file that keeps a seed relies on: these must never change under this version."""
    assert CounterGenerator.algorithm_version == 1
    source = CounterGenerator(2024, 7)
    assert source.words(3).tolist() == GOLDEN["words"]
    assert source.signs((8,)).tolist() == GOLDEN["signs"]
    assert source.integers(1000, (4,)).tolist() == GOLDEN["integers"]
    assert source.permutation(6).tolist() == GOLDEN["permutation"]
    assert [x.hex() for x in source.uniform((3,)).tolist()] == GOLDEN["uniform"]
    assert source.normal((3,)).tolist() == pytest.approx(GOLDEN["normal"], rel=1e-12)
    assert source.position == 3 + 8 + 8 + 12 + 6 + 6


def test_uniform_numbers_exactly():
    found = CounterGenerator(1, 2).uniform((50,))
    for i, value in enumerate(found.tolist()):
        high, low = word(1, 2, 2 * i), word(1, 2, 2 * i + 1)
        expected = Fraction(2 * ((high << 20) + (low >> 12)) + 1, 2**53)
        assert Fraction(value) == expected


@pytest.mark.parametrize(("fill", "end"), [(0, 2.0**-53), (MASK, 1 - 2.0**-53)])
def test_the_interval_is_open(monkeypatch, fill, end):
    monkeypatch.setattr(CounterGenerator, "words", lambda self, n: torch.full((n,), fill))
    assert CounterGenerator(0).uniform((1,)).item() == end
    normal = CounterGenerator(0).normal((1,)).item()
    assert normal == pytest.approx(math.copysign(8.2095361516, end - 0.5), rel=1e-10)


def test_normal_numbers_are_quantiles():
    uniform, normal = CounterGenerator(4).uniform((2000,)), CounterGenerator(4).normal((2000,))
    quantile = statistics.NormalDist().inv_cdf
    expected = torch.tensor([quantile(u) for u in uniform.tolist()], dtype=torch.float64)
    # Near one half the quantile is near zero, and the reference good to 1e-16 absolutely.
    torch.testing.assert_close(normal, expected, rtol=1e-12, atol=1e-15)


# -- laws --------------------------------------------------------------------------------------


def test_laws():
    n = 200_000
    source = CounterGenerator(11)
    uniform, normal = source.uniform((n,)).numpy(), source.normal((n,)).numpy()
    assert uniform.dtype == normal.dtype == np.float64
    assert scipy.stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert scipy.stats.kstest(normal, "norm").pvalue > 1e-3
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (normal**power).mean() - moment
        assert abs(error) <= 4.5 * math.sqrt(variance / n)
    for lag in (1, 2, 3, 4):
        assert abs((normal[lag:] * normal[:-lag]).mean()) <= 4.5 / math.sqrt(n)
    signs = source.signs((n,))
    assert signs.dtype == torch.int8 and set(signs.tolist()) == {-1, 1}
    assert abs(signs.double().mean()) <= 4.5 / math.sqrt(n)


@pytest.mark.parametrize("high", [1, 2, 6, 1000])
def test_integers_are_equally_probable(high):
    found = CounterGenerator(12).integers(high, (60_000,))
    counts = torch.bincount(found, minlength=high)
    assert len(counts) == high
    assert high == 1 or scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_large_integers():
    found = CounterGenerator(13).integers(2**62, (10_000,))
    assert int(found.min()) >= 0 and int(found.max()) < 2**62
    assert scipy.stats.kstest(found.double().numpy() / 2.0**62, "uniform").pvalue > 1e-3
    with pytest.raises(ValueError, match=r"^high: expected an integer in \[1, 2\^62\], got 0"):
        CounterGenerator(0).integers(0, (3,))
    with pytest.raises(TypeError, match=r"^high: expected an integer, got float 2\.5"):
        CounterGenerator(0).integers(2.5, (3,))  # pyright: ignore[reportArgumentType]


def test_every_order_is_equally_probable():
    source = CounterGenerator(14)
    orders = torch.stack([source.permutation(3) for _ in range(1200)])
    assert torch.equal(orders.sort(-1).values, torch.arange(3).expand(1200, 3))
    counts = torch.bincount(orders[:, 0] * 3 + orders[:, 1], minlength=9)
    counts = counts[counts > 0]
    assert len(counts) == 6
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_seeds_and_streams_are_independent():
    n = 20_000
    draws = torch.stack(
        [CounterGenerator(seed, stream).normal((n,)) for seed in (0, 1) for stream in (0, 1, 2**33)]
    )
    correlation = draws @ draws.mT / n - torch.eye(6)
    off = correlation[~torch.eye(6, dtype=torch.bool)]
    assert off.abs().max() <= 4.5 / math.sqrt(n)


# -- manners -----------------------------------------------------------------------------------


def draw_all(source):
    return [
        source.words(5),
        source.uniform((2, 3)),
        source.normal((4,)),
        source.signs((3,)),
        source.integers(9, ()),
        source.permutation(4),
    ]


def test_torch_decides_nothing(global_state_unchanged):
    expected = draw_all(CounterGenerator(9))
    with torch.random.fork_rng():
        torch.manual_seed(1234)
        assert all(map(torch.equal, draw_all(CounterGenerator(9)), expected))
    for device in ("cpu", "meta"):
        with torch.device(device), torch.inference_mode():
            found = draw_all(CounterGenerator(9))
        assert all(x.device.type == "cpu" for x in found)
        assert all(map(torch.equal, found, expected))
    torch.set_default_dtype(torch.float64)
    try:
        assert all(map(torch.equal, draw_all(CounterGenerator(9)), expected))
    finally:
        torch.set_default_dtype(torch.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        long = CounterGenerator(9).normal((100_000,))
        torch.set_num_threads(1)
        assert torch.equal(CounterGenerator(9).normal((100_000,)), long)
    finally:
        torch.set_num_threads(threads)


def test_copies_go_on_from_where_it_is():
    source = CounterGenerator(8, 2)
    source.words(3)
    twins = [copy.deepcopy(source), pickle.loads(pickle.dumps(source))]
    expected = source.words(6)
    for twin in twins:
        assert (twin.seed, twin.stream, twin.position) == (8, 2, 3)
        assert torch.equal(twin.words(6), expected)
    assert repr(source) == "CounterGenerator(8, stream=2, position=9)"


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (2, 3)])
def test_shapes(shape):
    source = CounterGenerator(0)
    for drawn in (source.uniform(shape), source.normal(shape), source.signs(shape)):
        assert drawn.shape == shape
    assert source.integers(5, torch.Size(shape)).shape == shape


@pytest.mark.parametrize("name", ["seed", "stream", "position"])
def test_bad_input(name):
    good = {"seed": 0, "stream": 0, "position": 0}
    for value in (-1, 2**64):
        with pytest.raises(ValueError, match=rf"^{name}: expected an integer in \[0, 2\^64\)"):
            CounterGenerator(**{**good, name: value})
    for value in (1.0, "1", None, True):
        with pytest.raises(TypeError, match=rf"^{name}: expected an integer, got"):
            CounterGenerator(**{**good, name: value})
    assert CounterGenerator(**{**good, name: np.uint64(2**64 - 1)}).device.type == "cpu"


def test_the_end_of_a_stream():
    source = CounterGenerator(0, position=2**64 - 3)
    assert source.words(2).tolist() == [word(0, 0, 2**64 - 3), word(0, 0, 2**64 - 2)]
    with pytest.raises(ValueError, match=r"^position: "):
        source.words(2)
    with pytest.raises(ValueError, match=r"^count: "):
        source.words(-1)
