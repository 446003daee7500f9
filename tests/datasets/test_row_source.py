import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mercer.datasets import ArrayRows, BatchRows, ParquetRows, RowBlock, RowSource

pa = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402


def _arrays(n=23, seed=0):
    source = np.random.default_rng(seed)
    return source.normal(size=(n, 3)), source.normal(size=(n, 2)), source.uniform(size=n)


def _write(path, x, y, w, rows=5):
    columns = {f"x{j}": x[:, j] for j in range(x.shape[1])}
    columns |= {"y0": y[:, 0], "y1": y[:, 1], "w": w}
    parquet.write_table(pa.table(columns), path, row_group_size=rows)


@pytest.fixture
def sources(tmp_path):
    x, y, w = _arrays()
    _write(tmp_path / "a.parquet", x[:9], y[:9], w[:9])
    _write(tmp_path / "b.parquet", x[9:], y[9:], w[9:])
    np.save(tmp_path / "x.npy", x)
    cuts = [0, 4, 4, 11, 23]
    return {
        "arrays": ArrayRows(x, y, w),
        "tensors": ArrayRows(*map(torch.from_numpy, (x, y, w))),
        "mapped": ArrayRows(np.load(tmp_path / "x.npy", mmap_mode="r"), y, w),
        "parquet": ParquetRows(tmp_path / "*.parquet", ["y0", "y1"], weight="w"),
        "files": ParquetRows(
            [tmp_path / "a.parquet", tmp_path / "b.parquet"], ["y0", "y1"], weight="w"
        ),
        "batches": BatchRows([(x[a:b], y[a:b], w[a:b]) for a, b in itertools.pairwise(cuts)]),
        "function": BatchRows(
            lambda: ((x[i : i + 1], y[i : i + 1], w[i : i + 1]) for i in range(23))
        ),
    }


def test_blocks_are_the_rows_whatever_the_source(sources):
    whole = _arrays()
    for name, source in sources.items():
        assert isinstance(source, RowSource) and len(source) == 23
        for size, start in itertools.product((1, 4, 23, 100), (0, 3, 9, 22)):
            blocks = list(source.blocks(size, start))
            assert [len(b.x) for b in blocks[:-1]] == [size] * (len(blocks) - 1), name
            for found, values in zip(zip(*blocks, strict=True), whole, strict=True):
                np.testing.assert_array_equal(torch.cat(found), values[start:], err_msg=name)
        assert list(source.blocks(4, 23)) == []


def test_rows_are_picked_by_number(sources):
    index = torch.tensor([0, 3, 8, 9, 10, 22])
    for name, source in sources.items():
        found = source.take(index)
        assert isinstance(found, RowBlock)
        for tensor, values in zip(found, _arrays(), strict=True):
            np.testing.assert_array_equal(tensor, values[index.numpy()], err_msg=name)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.integers(1, 9), st.integers(0, 9))
def test_batches_of_any_sizes(sizes, size, start):
    total = sum(sizes)
    x = np.arange(2.0 * total).reshape(total, 2)
    edges = np.r_[0, np.cumsum(sizes)]
    source = BatchRows([x[a:b] for a, b in itertools.pairwise(edges)])
    assert len(source) == total
    blocks = list(source.blocks(size, start))
    joined = torch.cat([b.x for b in blocks]) if blocks else torch.empty(0, 2)
    np.testing.assert_array_equal(joined, x[start:])
    assert all(b.y is None and b.weight is None for b in blocks)


@pytest.mark.parametrize("part", range(3))
def test_what_is_not_finite_is_named_with_its_row(part):
    arrays = list(_arrays())
    arrays[part][17] = np.nan
    name = ("X", "y", "sample_weight")[part]
    for source in (ArrayRows(*arrays), BatchRows([arrays])):
        with pytest.raises(ValueError, match=f"{name}: expected finite .* in row 17"):
            list(source.blocks(5))
        with pytest.raises(ValueError, match=f"{name}: expected finite .* in row 17"):
            source.take(torch.tensor([2, 17]))


def test_holes_in_a_file_are_not_finite(tmp_path):
    parquet.write_table(pa.table({"a": [1.0, None, 2.0], "t": [1, 2, 3]}), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=r"X: expected finite .* row 1"):
        list(ParquetRows(tmp_path / "x.parquet", "t").blocks(10))


def test_integers_and_truth_values_come_as_floats(tmp_path):
    table = pa.table({"a": [1, 2], "b": [True, False], "t": pa.array([1.5, 2.5], pa.float32())})
    parquet.write_table(table, tmp_path / "x.parquet")
    block = next(ParquetRows(tmp_path / "x.parquet", "t").blocks(2))
    assert block.x.tolist() == [[1.0, 1.0], [2.0, 0.0]]
    assert block.y.tolist() == [[1.5], [2.5]]
    assert next(ArrayRows(np.ones((2, 1), int), np.ones(2, int)).blocks(2)).y.dtype == torch.float64
    assert next(ArrayRows(np.ones((2, 1), "f4")).blocks(2)).x.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: ParquetRows(p / "none.parquet"), FileNotFoundError, "not a file"),
        (lambda p: ParquetRows(p / "none-*.parquet"), FileNotFoundError, "no file matches"),
        (lambda p: ParquetRows(p / "half.parquet"), ValueError, "no whole Parquet file"),
        (lambda p: ParquetRows(p / "x.parquet", "u"), ValueError, r"no column \['u'\]"),
        (lambda p: ParquetRows(p / "x.parquet"), ValueError, "column 'c' .* not numbers"),
        (lambda p: ParquetRows(p / "x.parquet", ["a", "c"], columns=[]), ValueError, "column"),
        (lambda p: ArrayRows(np.ones(3)), ValueError, r"X: expected shape \(n, d\)"),
        (lambda p: ArrayRows(np.ones((3, 2)), np.ones(4)), ValueError, "y: expected 3 rows"),
        (lambda p: BatchRows(iter([])), TypeError, "iterator"),
        (lambda p: len(BatchRows([])), ValueError, "at least one batch"),
        (lambda p: len(BatchRows([(1, 2, 3, 4)])), ValueError, "got 4 parts"),
        (lambda p: len(BatchRows([np.ones((1, 2)), np.ones((1, 3))])), ValueError, "batch 1"),
    ],
)
def test_bad_input(make, error, message, tmp_path):
    parquet.write_table(pa.table({"a": [1.0], "c": ["text"]}), tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(error, match=message):
        make(tmp_path)


def test_numbers_of_rows_to_take_are_checked():
    source = ArrayRows(*_arrays())
    for index in ([], [3, 2], [-1, 4], [22, 23]):
        with pytest.raises(ValueError, match="index: expected ascending numbers from 0 to 22"):
            source.take(torch.tensor(index, dtype=torch.long))


def test_lists_and_half_precisions_become_floats():
    x, y, _ = _arrays()
    found = next(ArrayRows(x.tolist(), y.tolist()).blocks(30))
    np.testing.assert_array_equal(found.x, x)
    for dtype in (torch.float16, torch.bfloat16):
        half = next(ArrayRows(torch.from_numpy(x).to(dtype)).blocks(30)).x
        assert half.dtype == torch.float64
        assert torch.equal(half, torch.from_numpy(x).to(dtype).double())
    for bad in (x + 1j, torch.from_numpy(x + 1j)):
        with pytest.raises(TypeError, match="expected real numbers"):
            next(ArrayRows(bad).blocks(30))


def test_batches_that_are_others_the_second_time():
    x, y, _ = _arrays()
    calls = itertools.count(1)
    fewer = BatchRows(lambda: [x[: -next(calls)]])
    assert len(fewer) < 23
    with pytest.raises(ValueError, match=r"the same rows each time, got 2. and then"):
        list(fewer.blocks(5))
    source = np.random.default_rng(0)
    shuffled = BatchRows(lambda: [source.permutation(x)])
    len(shuffled)
    with pytest.raises(ValueError, match="the same rows each time, got another first"):
        list(shuffled.blocks(5))
    with pytest.raises(ValueError, match="batch 1"):
        len(BatchRows([(x, y), (x, y[:, 0])]))


def test_an_error_of_the_batches_comes_through():
    def batches():
        yield np.ones((4, 2))
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(BatchRows(batches).blocks(3))


def test_groups_without_rows_and_holes_in_other_columns(tmp_path):
    schema = pa.schema([("a", pa.int64()), ("b", pa.bool_()), ("t", pa.float32())])
    with parquet.ParquetWriter(tmp_path / "x.parquet", schema) as file:
        for size in (0, 2, 0, 0, 3, 0):
            values = list(range(size))
            file.write_table(pa.table([values, [True] * size, [0.5] * size], schema=schema))
    source = ParquetRows(tmp_path / "x.parquet", "t")
    assert len(source) == 5
    found = torch.cat([block.x[:, 0] for block in source.blocks(2)])
    assert found.tolist() == [0, 1, 0, 1, 2]
    assert torch.cat([block.x[:, 0] for block in source.blocks(2, 2)]).tolist() == [0, 1, 2]
    for column, values in (("a", [1, None]), ("b", [True, None]), ("t", [1.0, None])):
        rows = {"a": [1, 2], "b": [True, False], "t": [0.5, 1.5]} | {column: values}
        parquet.write_table(pa.table(rows, schema=schema), tmp_path / "y.parquet")
        with pytest.raises(ValueError, match=r"expected finite .* row 1"):
            list(ParquetRows(tmp_path / "y.parquet", "t").blocks(10))
    codes = pa.array(["u", "v"]).dictionary_encode()
    parquet.write_table(pa.table({"a": codes, "t": [1.0, 2.0]}), tmp_path / "z.parquet")
    with pytest.raises(ValueError, match=r"column 'a' .* dictionary.* not numbers"):
        ParquetRows(tmp_path / "z.parquet", "t")
    with pytest.raises(ValueError, match=r"z.parquet.* no column"):
        ParquetRows([tmp_path / "y.parquet", tmp_path / "z.parquet"], "t")
