"""Tables as people have them, and each way in which a file of one can be broken."""

import csv
import datetime
import io
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mercer.datasets import DataTable, TableFile, read_table
from mercer.datasets.cells import MISSING
from mercer.datasets.read_table import compact


def write(folder, name, content, encoding="utf-8"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return file


def cells(table):
    """Return a table as a plain dictionary, NaN as None."""
    plain = [[None if v is None or v != v else v for v in c.tolist()] for c in table.columns]
    return dict(zip(table.names, plain, strict=True))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends(tmp_path, delimiter, end):
    lines = [delimiter.join(row) for row in (["a", "b", "c"], ["1", "x y", "2.5"], ["", "z", "-3"])]
    table = read_table(write(tmp_path, "t.csv", end.join(lines)))
    assert cells(table) == {"a": ["1", None], "b": ["x y", "z"], "c": ["2.5", "-3"]}
    assert table.where(1) == "line 3"


def test_quotes_hold_delimiters_quotes_and_lines(tmp_path):
    file = write(tmp_path, "t.csv", 'n,t\n1,"a, ""b""\nc"\n\n2,"d"\n')
    table = read_table(file)
    assert cells(table) == {"n": ["1", "2"], "t": ['a, "b"\nc', "d"]}
    assert table.lines.tolist() == [3, 5]


@pytest.mark.parametrize("word", sorted(MISSING))
def test_words_for_missing_cells(tmp_path, word):
    file = write(tmp_path, "t.csv", f"a,b\n1,x\n{word.upper()} ,y\n")
    assert cells(read_table(file))["a"] == ["1", None]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    assert read_table(write(tmp_path, "t.csv", "\ufeffage,b\n1,2\n")).names == ("age", "b")


def test_decimal_commas(tmp_path):
    table = read_table(write(tmp_path, "t.csv", "a;b\n1,5;x\n-2,25;1,2,3\n"))
    assert cells(table) == {"a": ["1.5", "-2.25"], "b": ["x", "1,2,3"]}
    # Where points are decimal, a comma is something else.
    table = read_table(write(tmp_path, "t.csv", "a;b\n1,5;2.5\n2,25;3.5\n"))
    assert cells(table)["a"] == ["1,5", "2,25"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("1,2\n3,4\n", ("0", "1")),
        ("age,town\n31,Ulm\n,Bonn\n", ("age", "town")),
        ("x,1\ny,2\nx,3\n", ("0", "1")),
        ("colour,shape\nred,round\nblue,long\nred,long\n", ("colour", "shape")),
        ("red,round\nblue,long\nred,long\n", ("0", "1")),
        (",a\n0,1.5\n1,2.5\n", ("unnamed 0", "a")),
        ("a,a\nb,c\n", ("0", "1")),
    ],
)
def test_headers_are_guessed(tmp_path, content, names):
    assert read_table(write(tmp_path, "t.csv", content)).names == names


def test_what_is_given_is_not_guessed(tmp_path):
    file = write(tmp_path, "t.csv", "2019,2020\n1,2\n")
    assert read_table(file, header=True).names == ("2019", "2020")
    assert TableFile(file, named="2020").names == ("0", "1")  # a number of a column, or a cell
    texts = write(tmp_path, "texts.csv", "x,y\nx,x\n")
    assert TableFile(texts).names == ("0", "1")
    assert TableFile(texts, named="x").names == ("x", "y")
    assert len(read_table(file, header=False)) == 2
    assert read_table(file, delimiter=";").names == ("2019,2020",)


def test_columns_by_name_or_number(tmp_path):
    file = TableFile(write(tmp_path, "t.csv", "a,b,1\n1,2,3\n4,5,6\n"), header=True)
    assert [file.find(name) for name in ("b", "0", "-1", "1")] == ["b", "a", "1", "1"]
    for wanted in ("c", "3", "-4", "1.0", ""):
        with pytest.raises(ValueError, match=f"no column {wanted!r}; the columns are 'a', 'b'"):
            file.find(wanted)


def test_parts_are_the_whole(tmp_path):
    rows = [f"{i},{'x' * (i % 7)},{i / 3}" for i in range(500)]
    file = TableFile(write(tmp_path, "t.csv", "i,s,f\n" + "\n".join(rows)))
    whole = cells(read_table(file.path))
    for size in (1, 7, 499, 500, 501):
        parts = list(file.chunks(size))
        assert max(map(len, parts)) <= size
        joined = {n: [v for part in parts for v in cells(part)[n]] for n in file.names}
        assert joined == whole
        assert np.concatenate([part.lines for part in parts]).tolist() == list(range(2, 502))


def test_compact_tables_hold_numbers_as_such(tmp_path, monkeypatch):
    rows = [
        f"{i},{'' if i % 3 else i / 7},{'NA' if i % 5 else i},x{i % 4},1_{i}" for i in range(99)
    ]
    rows.append("oops, 3 ,4,x0,2_2")
    file = TableFile(write(tmp_path, "t.csv", "a,b,c,d,e\n" + "\n".join(rows)))
    parts = file.parts
    monkeypatch.setattr(file, "parts", lambda rows, read: parts(20, read))
    table, texts = compact(file), read_table(file.path)
    assert [c.dtype.kind for c in table.columns] == ["O", "f", "f", "O", "O"]
    for own, plain in zip(table.columns, texts.columns, strict=True):
        if own.dtype.kind == "O":
            assert own.tolist() == plain.tolist()
        else:
            want = [math.nan if cell is None else float(cell) for cell in plain]
            np.testing.assert_array_equal(own, want)
    assert len({id(cell) for cell in table.column("d")}) == 4
    assert table.lines.tolist() == texts.lines.tolist()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=8), st.floats(allow_nan=False), st.text('ab,;"\n', max_size=5)),
        min_size=3,
        max_size=12,
    ).filter(lambda rows: not any("\0" in a or "\r" in a for a, _, _ in rows))
)
def test_what_pythons_writer_writes_comes_back(tmp_path_factory, rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["text", "number", "marks"])
    writer.writerows(rows)
    file = write(tmp_path_factory.mktemp("csv"), "t.csv", text.getvalue(), "utf-8")
    got = read_table(file, header=True, delimiter=",")
    clean = [[str(cell).strip() for cell in row] for row in rows]
    want = [[None if c.lower() in MISSING else c for c in row] for row in clean]
    assert [list(row) for row in zip(*(c.tolist() for c in got.columns), strict=True)] == want


class TestParquet:
    @pytest.fixture(autouse=True)
    def _arrow(self):
        self.pa = pytest.importorskip("pyarrow")
        self.pq = pytest.importorskip("pyarrow.parquet")

    def write(self, folder, columns, **options):
        file = folder / "t.parquet"
        self.pq.write_table(self.pa.table(columns), file, **options)
        return file

    def test_types(self, tmp_path):
        day = datetime.date(2026, 1, 31)
        columns = {
            "i": [1, None, 3],
            "f": [0.5, float("nan"), 2.0],
            "b": [True, False, None],
            "s": ["x", None, "NA"],
            "c": self.pa.array(["u", "v", "u"]).dictionary_encode(),
            "d": [day, None, day],
            "t": [datetime.datetime(2026, 1, 31, 12), None, None],
            "none": self.pa.nulls(3),
            "list": [[1], [2], [3]],
        }
        table = TableFile(self.write(tmp_path, columns))
        assert table.left_out == {"list": "list<element: int64>"}
        assert cells(read_table(table.path)) == {
            "i": [1.0, None, 3.0],
            "f": [0.5, None, 2.0],
            "b": [1.0, 0.0, None],
            "s": ["x", None, None],
            "c": ["u", "v", "u"],
            "d": ["2026-01-31", None, "2026-01-31"],
            "t": ["2026-01-31 12:00:00.000000", None, None],
            "none": [None, None, None],
        }
        with pytest.raises(ValueError, match=r"column 'list' .* holds list"):
            table.find("list")

    def test_parts(self, tmp_path):
        file = TableFile(self.write(tmp_path, {"i": list(range(1000))}, row_group_size=300))
        parts = list(file.chunks(256))
        assert np.concatenate([p.column("i") for p in parts]).tolist() == list(range(1000))
        assert parts[1].where(0) == f"row {parts[1].lines[0]}"
        assert np.concatenate([p.lines for p in parts]).tolist() == list(range(1, 1001))

    def test_a_file_cut_in_half(self, tmp_path):
        file = self.write(tmp_path, {"i": list(range(1000))})
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ValueError, match=r"^file: .*is not Parquet, or cut off: "):
            TableFile(file)

    def test_a_damaged_part(self, tmp_path):
        file = self.write(tmp_path, {"i": [f"text {i}" for i in range(5000)]}, compression="gzip")
        raw = bytearray(file.read_bytes())
        raw[200:4000] = bytes(3800)
        file.write_bytes(raw)
        with pytest.raises(ValueError, match=r"^file: .*is damaged: "):
            list(TableFile(file).chunks())

    def test_without_pyarrow(self, tmp_path, monkeypatch):
        file = self.write(tmp_path, {"i": [1]})
        monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
        with pytest.raises(ModuleNotFoundError, match=r"needs pyarrow: pip install"):
            TableFile(file)


GOOD = "a,b\n" + "".join(f"{i},{i % 3}\n" for i in range(50))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", r"t\.csv is empty"),
        ("t.csv", b"\n\n  \n", r"t\.csv holds no rows"),
        ("t.csv", b"age,b\n", r"holds a header and no rows|no rows"),
        ("t.xlsx", b"PK", r"unknown ending '\.xlsx'"),
        ("t", b"1,2\n", r"unknown ending ''"),
        ("t.csv", b"a,b\n1,caf\xe9\n2,x\n", r"not UTF-8: byte 0xe9 at offset 9, line 2"),
        ("t.csv", GOOD.encode("utf-16"), r"is UTF-16; save it as UTF-8"),
        ("t.csv", b"a,b\n1,\0\n", r"a zero byte in line 2"),
        ("t.csv", GOOD + "50\n", r"line 52 has 1 cells, the first row has 2; it is the last"),
        ("t.csv", GOOD + "50\n51,1\n", r"line 52 has 1 cells, the first row has 2$"),
        ("t.csv", GOOD + "50,1,2\n", r"line 52 has 3 cells, the first row has 2$"),
        ("t.csv", GOOD + '50,"1\n', r"inside a quoted cell of the row that starts in line 52"),
        ("t.csv", GOOD + '50,"1" x\n', r"is not CSV: line 52: "),
        ("t.csv", "a,b,a\n1,2,3\n", r"2 columns are named 'a'"),
        ("t.parquet", b"PAR1 is not enough", r"is not Parquet, or cut off"),
        ("t.parquet", b"", r"is not Parquet, or cut off"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    file = write(tmp_path, name, content)
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    header = True if "named" in message else None
    with pytest.raises(ValueError, match=message) as caught:
        read_table(file, header=header)
    assert re.match(r"file: ", str(caught.value))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"^file: no file "):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"^file: .*is not a file"):
        read_table(tmp_path)
    for delimiter in ("", ",,", '"', "\n"):
        with pytest.raises(ValueError, match=r"^delimiter: expected one character"):
            read_table(write(tmp_path, "t.csv", GOOD), delimiter=delimiter)
    with pytest.raises(TypeError, match=r"^rows: "):
        list(TableFile(tmp_path / "t.csv").chunks(2.5))


class TestDataTable:
    def test_of_columns(self):
        day = datetime.date(2026, 1, 31)
        table = DataTable.of({"n": [1, None, True], "s": ["x", float("nan"), "?"], "d": [day] * 3})
        assert cells(table) == {
            "n": [1.0, None, 1.0],
            "s": ["x", None, None],
            "d": ["2026-01-31"] * 3,
        }

    @pytest.mark.parametrize(
        ("columns", "error", "message"),
        [
            ([1, 2], TypeError, "columns: expected a mapping"),
            ({}, ValueError, "columns: there are none"),
            ({"a": [1], "b": [1, 2]}, ValueError, r"columns: expected one length, got \[1, 2\]"),
            ({"a": [1, [2]]}, TypeError, "columns: 'a': expected numbers or texts, got int, list"),
        ],
    )
    def test_is_refused(self, columns, error, message):
        with pytest.raises(error, match=f"^{message}"):
            DataTable.of(columns)

    def test_no_column(self):
        with pytest.raises(ValueError, match="table: no column 'b'; the columns are 'a'"):
            DataTable.of({"a": [1]}).column("b")
