"""Each form of file that people have, and each way in which it can be broken."""

import csv
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mercer.datasets import Texts, read_texts

LONG = "a film that takes its time and is worth every minute of it"


def write(folder, name, content, encoding="utf-8"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return file


def test_text_is_one_a_line(tmp_path):
    file = write(tmp_path, "a.txt", "one\r\n\r\n  two  \nthr\u2028ee\r\n\n")
    assert read_texts(file) == Texts(("one", "two", "thr\u2028ee"))
    assert read_texts(write(tmp_path, "noending", "x")).texts == ("x",)


def test_a_byte_order_mark_is_not_text(tmp_path):
    file = write(tmp_path, "a.txt", "\ufeffone\ntwo\n")
    assert read_texts(file).texts == ("one", "two")
    table = write(tmp_path, "a.csv", "\ufefftext,label\nx,1\n")
    assert read_texts(table) == Texts(("x",), ("1",), "0 'text'", "1 'label'")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path, end):
    rows = [f"{LONG} {i}\t{i % 2}" for i in range(8)]
    got = read_texts(write(tmp_path, "a.tsv", end.join(rows) + end))
    assert got.texts == tuple(row.split("\t")[0] for row in rows)
    assert got.labels == tuple("01010101")
    assert (got.text_column, got.label_column) == ("0", "1")


def test_tsv_keeps_quotes_that_are_text(tmp_path):
    file = write(tmp_path, "a.tsv", 'text\tlabel\n"odd\t0\n"a ""b"" c"\t1\n"x" or "y"\t0\n')
    assert read_texts(file).texts == ('"odd', 'a "b" c', '"x" or "y"')


def test_csv_quotes_hold_commas_quotes_and_lines(tmp_path):
    file = write(tmp_path, "a.csv", 'label,text\r\n1,"a, ""b""\r\nc"\r\n\r\n0,d\r\n')
    assert read_texts(file) == Texts(('a, "b"\nc', "d"), ("1", "0"), "1 'text'", "0 'label'")


def test_csv_with_semicolons(tmp_path):
    file = write(tmp_path, "a.csv", "text;label\nwell, well;1\nno;0\n")
    assert read_texts(file).texts == ("well, well", "no")


def test_a_list_of_texts_needs_no_header(tmp_path):
    got = read_texts(write(tmp_path, "a.csv", f"{LONG}\nshort\n"))
    assert got == Texts((LONG, "short"), None, "0", None)


def test_very_long_cells(tmp_path):
    before = csv.field_size_limit()
    file = write(tmp_path, "a.csv", "text,label\n" + "x" * 300_000 + ",1\n")
    assert len(read_texts(file).texts[0]) == 300_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("rows", "has_header"),
    [
        ([("sentence", "gold"), (LONG, "x"), (LONG, "y")], True),
        ([("was", "points"), (LONG, "3"), (LONG, "4")], True),
        ([("was", "verdict"), (LONG, "good"), (LONG, "bad"), (LONG, "bad"), (LONG, "good")], True),
        ([(LONG, "good"), (LONG, "bad"), (LONG, "bad"), (LONG, "good")], False),
        ([(LONG, "1"), (LONG, "0"), (LONG, "0"), (LONG, "1")], False),
    ],
)
def test_headers_are_recognised(tmp_path, rows, has_header):
    file = write(tmp_path, "a.tsv", "\n".join("\t".join(row) for row in rows))
    assert len(read_texts(file, text_column=0, label_column=1)) == len(rows) - has_header
    assert len(read_texts(file, 0, 1, header=False)) == len(rows)
    assert len(read_texts(file, 0, 1, header=True)) == len(rows) - 1


def test_columns_are_guessed_by_what_they_hold(tmp_path):
    rows = [f"{i},{LONG} {i},{'good' if i % 2 else 'bad'},{i / 7:.3f}" for i in range(12)]
    got = read_texts(write(tmp_path, "a.csv", "\n".join(rows)))
    assert (got.text_column, got.label_column) == ("1", "2")


def test_columns_by_name_and_by_number(tmp_path):
    file = write(tmp_path, "a.csv", "id,q1,q2\n7,what,why\n8,who,whom\n")
    assert read_texts(file, text_column="q2").texts == ("why", "whom")
    assert read_texts(file, text_column="2", header=True).texts == ("why", "whom")
    assert read_texts(file, text_column="q1", label_column="id").labels == ("7", "8")
    named = write(tmp_path, "b.csv", "text,label\nx,1\ny,0\n")
    assert read_texts(named, label_column="none") == Texts(("x", "y"), None, "0 'text'", None)


def test_rows_without_text_are_left_out(tmp_path):
    file = write(tmp_path, "a.csv", "text,label\nx,1\n,0\n  ,\ny,0\n")
    assert read_texts(file) == Texts(("x", "y"), ("1", "0"), "0 'text'", "1 'label'")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"fine\nalso\nb\xe4d\n", r"byte 0xe4 at offset 11, line 3"),
        ("a.txt", "x".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("a.txt", b"x\ny\0z", "a zero byte in line 2"),
        ("a.txt", b" \n\n", "holds no text"),
        ("a.csv", b"", "holds no rows"),
        ("a.csv", b"text,label\n", "a header and no rows"),
        ("a.csv", b"text,label\n ,1\n", "column 0 'text' holds no text"),
        ("a.csv", b'text,label\n"x,1\n', "is not CSV: line 2"),
        ("a.csv", b"text,label\nx,1\ny\n", "line 3 has 1 columns, the first row has 2"),
        ("a.tsv", b"text\tlabel\nx\t1\ty\n", "line 2 has 3 columns, the first row has 2"),
        ("a.tsv", b"text\tlabel\nx\t1\n\ny\t \n", "line 4 has no label in column 1 'label'"),
        ("a.csv", b"text,review,label\nx,y,1\n", "text_column: 2 columns have usual names"),
        ("a.csv", b"q,a\nwhat,this\nwho,me\nwho,he\n", "text_column: two columns hold strings of"),
        ("a.csv", b"1,2\n3,4\n", "text_column: no column holds texts"),
        ("a.csv", b"text,class,label\nx,y,1\n", "label_column: 2 columns have usual names"),
        (
            "a.csv",
            b"text,u,v\n" + b"".join(f"t{i},{i % 2},{i % 3}\n".encode() for i in range(12)),
            r"label_column: 2 columns have few distinct values: set label_column \('none' for no "
            r"labels\); the columns are 0 'text' \('t0'\), 1 'u' \('0'\), 2 'v' \('0'\)",
        ),
        ("a.jsonl", b"{}", "unknown ending '.jsonl'"),
        ("a.parquet", b"PAR1", "is not Parquet"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    file = write(tmp_path, name, content)
    with pytest.raises(ValueError, match=message):
        read_texts(file)


def test_wrong_columns_and_paths_are_named(tmp_path):
    file = write(tmp_path, "a.csv", "text,label\nx,1\n")
    for options, message in (
        ({"text_column": "body"}, "text_column: no column 'body'; the columns are 0 'text'"),
        ({"text_column": 2}, "text_column: no column 2"),
        ({"text_column": 0, "label_column": 0}, "label_column: 0 'text' is the column of the"),
    ):
        with pytest.raises(ValueError, match=message):
            read_texts(file, **options)
    with pytest.raises(ValueError, match="which has no columns"):
        read_texts(write(tmp_path, "a.txt", "x"), text_column="body")
    with pytest.raises(ValueError, match="is not a file"):
        read_texts(tmp_path)
    with pytest.raises(FileNotFoundError, match="file: no file"):
        read_texts(tmp_path / "missing.csv")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "picture": pa.array([b"\x00", b"\x01", b"\x02"], pa.binary()),
            "review": ["good", None, "bäd, \n"],
            "label": pa.array([1, 0, 0], pa.int8()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    got = read_texts(tmp_path / "a.parquet")
    assert got == Texts(("good", "bäd,"), ("1", "0"), "0 'review'", "1 'label'")
    pq.write_table(table.select(["picture"]), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="no rows of strings or numbers"):
        read_texts(tmp_path / "b.parquet")


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mercer\[hf\]'"):
        read_texts(write(tmp_path, "a.parquet", b"PAR1"))


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, st.sampled_from(["a", "b"])), min_size=1, max_size=8))
def test_csv_gives_back_what_python_wrote(tmp_path_factory, rows):
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *rows])
    plain = [(t.replace("\r\n", "\n").replace("\r", "\n").strip(), y) for t, y in rows]
    kept = [(text, y) for text, y in plain if text]
    if not kept:
        return
    got = read_texts(file)
    assert list(zip(got.texts, got.labels or (), strict=True)) == kept, json.dumps(rows)
