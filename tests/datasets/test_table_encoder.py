"""Tables as matrices, beside scikit-learn's transformers."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from mercer.datasets import DataTable, TableEncoder, TableFile


def numbers(count, seed=0, holes=0.2):
    rng = np.random.default_rng(seed)
    found = rng.normal(3.0, 5.0, count)
    found[rng.random(count) < holes] = np.nan
    return found


def table(count=200):
    rng = np.random.default_rng(1)
    towns = rng.choice(["Ulm", "Bonn", "Köln", None, "Rom"], count, p=[0.4, 0.3, 0.2, 0.08, 0.02])
    return DataTable.of(
        {
            "a": numbers(count),
            "b": rng.integers(0, 9, count),
            "town": towns.tolist(),
            "open": rng.choice(["yes", "no"], count).tolist(),
            "day": [f"2026-01-{1 + i % 28:02d}" for i in range(count)],
        }
    )


def kind_of(cells, name="x", **options):
    """Return the kind of one column, or why it is left out; a second one is always there."""
    other = [i % 7 / 3 for i in range(len(cells))]
    encoder = TableEncoder.fit(DataTable.of({name: cells, "other": other}), **options)
    kinds = {column.name: column.kind for column in encoder.columns}
    return kinds.get(name) or encoder.notes[name]


def test_numbers_as_scikit_learn_has_them():
    data = table()
    encoder = TableEncoder.fit(data)
    got = encoder.encode(data).numpy()
    x = np.stack([data.column("a"), data.column("b")], 1)
    imputed = StandardScaler().fit_transform(SimpleImputer(strategy="median").fit_transform(x))
    gaps = MissingIndicator().fit_transform(x).astype(float)
    titles = list(encoder.titles)
    assert titles[:3] == ["a", "a missing", "b"]
    np.testing.assert_allclose(got[:, [0, 2]], imputed, atol=1e-14)
    np.testing.assert_allclose(got[:, [1]], gaps - gaps.mean(), atol=1e-15)


def test_categories_as_scikit_learn_has_them():
    data = table()
    encoder = TableEncoder.fit(data, rare=10)
    got = encoder.encode(data).numpy()
    towns = np.array(["none" if t is None else t for t in data.column("town")], dtype=object)
    towns[towns == "Rom"] = "other"
    order = ["Bonn", "Köln", "Ulm", "other", "none"]
    coded = OneHotEncoder(categories=[order], sparse_output=False).fit_transform(towns[:, None])
    places = [i for i, title in enumerate(encoder.titles) if title.startswith("town")]
    assert [encoder.titles[i] for i in places] == [
        *("town = Bonn", "town = Köln", "town = Ulm", "town other", "town missing")
    ]
    centred = coded - coded.mean(0)
    np.testing.assert_allclose(
        got[:, places], centred / math.sqrt(centred.var(0).sum()), atol=1e-14
    )
    # The columns of a category have the variance of one number together.
    assert got[:, places].var(0).sum() == pytest.approx(1, abs=1e-12)


def test_dates_and_truth_values_are_numbers():
    data = table()
    got = TableEncoder.fit(data, drop=("a", "b", "town")).encode(data).numpy()
    truth = np.array([float(cell == "yes") for cell in data.column("open")])
    days = np.array(data.column("day"), dtype="datetime64[D]").astype(float)
    want = StandardScaler().fit_transform(np.stack([truth, days], 1))
    np.testing.assert_allclose(got, want, atol=1e-9)


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2.5", "-3e2", None] * 10, "number"),
        ([str(i % 3) for i in range(40)], "number"),
        (["true", "FALSE", None] * 10, "boolean"),
        (["y", "n"] * 10, "boolean"),
        (["F", "N"] * 10, "category"),
        (["yes", "y", "no"] * 10, "category"),
        (["2026-01-31", "2025-02-01T12:30:00", None] * 10, "date"),
        (["2026-01-31 12:00:00+02:00", "2026-02-01 00:00:00Z"] * 10, "date"),
        (["red", "blue", None] * 10, "category"),
        (["1", "2", "x"] * 10, "category"),
        (["x"] * 20 + [None], "category"),
        ([1.5] * 20 + [None], "number"),
        ([None] * 20, "left out: all of its cells are missing"),
        (["x"] * 20, "left out: every cell is 'x'"),
        ([7] * 20, "left out: every cell is '7'"),
        (list(range(30)), "left out: it counts the rows"),
        (list(range(100, 130)), "left out: it counts the rows"),
        ([i * i for i in range(30)], "number"),
        ([i + 0.5 for i in range(30)], "number"),
        ([f"code-{i * 7919 % 1000}" for i in range(60)], "left out: a text of its own in each row"),
        (
            [f"it was the {i}th of many words" for i in range(60)],
            "left out: free text, such as 'it was the 0th of many words'",
        ),
        (
            [f"{1 + i % 28}.{1 + i % 12}.{1900 + i % 90}" for i in range(200)],
            "left out: dates not written as 2026-01-31",
        ),
    ],
)
def test_kinds(cells, kind):
    assert kind_of(cells).startswith(kind)


def test_a_name_tells_numbers_that_name_rows():
    cells = [i * i for i in range(30)]
    for name in ("id", "ID", "customer_id", "row number", "uuid"):
        found = kind_of(cells, name)
        assert found == "number" if name == "row number" else found.startswith("left out")
    assert kind_of(cells, "paid") == "number"
    assert kind_of([*cells[:-1], 0], "id") == "number"  # one comes twice


def test_many_levels():
    cells = [f"zip {i % 40}" for i in range(400)] + ["zip 3"] * 5
    data = DataTable.of({"zip": cells, "x": list(range(2, 812, 2))})
    encoder = TableEncoder.fit(data, most_levels=4)
    (column,) = [c for c in encoder.columns if c.name == "zip"]
    assert len(column.levels) == 4
    assert "zip 3" in column.levels
    assert "40 different texts, 4 levels of their own" in encoder.notes["zip"]
    few = DataTable.of({"zip": ["a"] * 9 + ["b"] * 4 + ["c"] * 9, "x": list(range(2, 46, 2))})
    (column,) = [c for c in TableEncoder.fit(few, rare=5).columns if c.name == "zip"]
    assert column.levels == ("a", "c")


def test_codes_as_categories():
    assert kind_of([i % 3 for i in range(40)], categories=("x",)) == "category"
    data = DataTable.of({"x": [1.0, 2.0, 1.0] * 10, "y": [0.5, 2.0, 1.0] * 10})
    encoder = TableEncoder.fit(data, categories=("x",))
    assert encoder.titles[:2] == ("x = 1", "x = 2")
    # A CSV file writes the same numbers as texts.
    texts = DataTable.of({"x": ["1", "2", "3"], "y": ["0.5", "2", "1"]})
    same = DataTable.of({"x": [1, 2, 3], "y": [0.5, 2, 1]})
    assert torch.equal(encoder.encode(texts), encoder.encode(same))


def test_numbers_among_levels_are_written_in_one_way():
    data = DataTable.of({"x": ["1.0", "2", "red"] * 10, "y": [0.5, 2.0, 1.0] * 10})
    encoder = TableEncoder.fit(data)
    assert encoder.titles[:3] == ("x = 1", "x = 2", "x = red")
    new = DataTable.of({"x": ["1", "2.00", "red"], "y": [0.5, 2.0, 1.0]})
    assert torch.equal(encoder.encode(new), encoder.encode(data)[:3])


def test_statistics_come_from_the_rows_that_are_asked_for():
    data = table()
    rows = torch.arange(200) < 100
    part = DataTable(data.names, tuple(c[:100] for c in data.columns), data.lines[:100])
    one, other = TableEncoder.fit(data, rows=rows), TableEncoder.fit(part)
    assert one.columns == other.columns


def test_a_file_in_parts_is_the_whole(tmp_path):
    data = table()
    lines = [",".join(data.names)]
    for row in zip(*(c.tolist() for c in data.columns), strict=True):
        lines.append(",".join("" if v is None or v != v else str(v) for v in row))
    file = tmp_path / "t.csv"
    file.write_text("\n".join(lines), encoding="utf-8")
    encoder = TableEncoder.fit(TableFile(file))
    # Numbers were written in full, so nothing is lost.
    assert encoder.columns == TableEncoder.fit(data).columns
    parts = [encoder.encode(part) for part in TableFile(file).chunks(33)]
    assert torch.equal(torch.cat(parts), encoder.encode(data))


def test_what_was_not_in_the_fit():
    data = DataTable.of({"n": [1.0, 2.0, 3.0] * 10, "c": ["u", "v", "w"] * 10})
    encoder = TableEncoder.fit(data)
    new = DataTable.of({"extra": [9, 9, 9], "c": ["new", None, "u"], "n": [None, 2.0, 1e9]})
    got = encoder.encode(new)
    assert encoder.ignored(new.names) == ["extra"]
    # An unknown level and a gap where there was none are both "other"; a number gets the median.
    assert torch.equal(got[0, 1:], got[1, 1:])
    assert float(got[0, 0]) == float(got[1, 0]) == 0.0
    other = encoder.titles.index("c other")
    assert float(got[0, other]) > 0 == float(got[2, other])


def test_a_constant_with_gaps_tells_where_they_are():
    data = DataTable.of({"x": [5.0, None] * 10, "y": list(range(3, 63, 3))})
    got = TableEncoder.fit(data).encode(data)[:, :2]
    assert torch.equal(got[:, 0], torch.zeros(20, dtype=torch.float64))
    assert torch.equal(got[:, 1], torch.tensor([-0.5, 0.5] * 10, dtype=torch.float64))


def test_comes_back_from_json():
    data = table()
    encoder = TableEncoder.fit(data)
    again = TableEncoder.from_config(json.loads(json.dumps(encoder.to_config())))
    assert again == encoder
    assert torch.equal(again.encode(data), encoder.encode(data))


@pytest.mark.parametrize(
    ("new", "message"),
    [
        ({"n": [1.0]}, "table: no column 'c', which the encoder was fitted with; there are 'n'"),
        ({"x": [1.0]}, "table: no column 'n', 'c', which the encoder"),
        (
            {"n": ["1", "abc"], "c": ["u", "u"]},
            "table: column 'n': expected a number, got 'abc' in row 2",
        ),
        ({"n": [1.0, math.inf], "c": ["u", "u"]}, "table: column 'n': infinite in row 2"),
    ],
)
def test_wrong_tables(new, message):
    data = DataTable.of({"n": [1.0, 2.0, 3.0] * 10, "c": ["u", "v", "w"] * 10})
    with pytest.raises(ValueError, match=f"^{message}"):
        TableEncoder.fit(data).encode(DataTable.of(new))


@pytest.mark.parametrize(
    ("cells", "bad", "message"),
    [
        (["yes", "no"] * 10, "perhaps", "expected true or false, got 'perhaps' in row 1"),
        (["2026-01-31", "2026-02-01"] * 10, "soon", "expected a date, got 'soon' in row 1"),
    ],
)
def test_wrong_cells(cells, bad, message):
    encoder = TableEncoder.fit(DataTable.of({"x": cells}))
    with pytest.raises(ValueError, match=f"^table: column 'x': {message}"):
        encoder.encode(DataTable.of({"x": [bad]}))


def test_a_mistake_among_numbers_is_named():
    cells = [str(i / 7) for i in range(100)]
    cells[41] = "4l.5"
    with pytest.raises(
        ValueError,
        match=r"column 'x': expected a number, as 99 % of its cells are numbers, got "
        r"'4l\.5' in row 42; correct it",
    ):
        TableEncoder.fit(DataTable.of({"x": cells}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "z"}, "target: no column 'z'; the columns are 'x', 'y'"),
        ({"drop": ("z",)}, "drop: no column 'z'"),
        ({"categories": ("z",)}, "categories: no column 'z'"),
        ({"most_levels": 0}, "most_levels: "),
        ({"rare": 0}, "rare: "),
        ({"drop": ("x", "y")}, "table: no column to learn from is left: 'x': left out: as asked"),
        ({"target": "y"}, "table: no column to learn from is left: 'x': left out: every cell is"),
    ],
)
def test_arguments_are_refused(options, message):
    data = DataTable.of({"x": [1.0] * 10, "y": [float(i % 3) for i in range(10)]})
    with pytest.raises(ValueError, match=f"^{message}"):
        TableEncoder.fit(data, **options)


def test_a_table_of_the_target_alone():
    with pytest.raises(ValueError, match="is left: the table has the column 'y' only"):
        TableEncoder.fit(DataTable.of({"y": [1.0, 2.0, 3.0]}), target="y")


def test_numbers_whose_squares_overflow():
    with pytest.raises(ValueError, match=r"column 'x': numbers up to 3e.200, whose squares"):
        TableEncoder.fit(DataTable.of({"x": [1e200, 3e200, -2e200], "y": [1.0, 2.0, 3.0]}))
