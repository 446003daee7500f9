"""``mercer predict`` on files of every kind, whole and broken."""

import csv
import json
import shutil
import signal

import numpy as np
import pytest
import torch

from mercer.cli import predict
from mercer.datasets import TableEncoder, TableFile, read_table
from mercer.machines import KernelLogisticRegression, KernelRidge, TablePredictor
from tests.cli.test_bundle_command import run

ROWS = 300


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Return a table of numbers with gaps, a category and two targets."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 2))
    towns = rng.choice(["Ulm", "Bonn", "Köln"], ROWS)
    y = np.sin(x[:, 0]) + (towns == "Ulm")
    file = tmp_path_factory.mktemp("table") / "t.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "a", "b", "town", "price", "size"])
        for i in range(ROWS):
            gap = "" if i % 9 == 0 else x[i, 1]
            size = "large" if y[i] > 0.5 else "small"
            writer.writerow([f"boat no. {i} of the fleet", x[i, 0], gap, towns[i], y[i], size])
    return file


@pytest.fixture(scope="module")
def models(table, tmp_path_factory):
    """Return the folders of a regression and a classification, with their predictors."""
    found = {}
    data = read_table(table)
    for target in ("price", "size"):
        encoder = TableEncoder.fit(data, target=target, drop={"price", "size"} - {target})
        x = encoder.encode(data)
        if target == "price":
            y = torch.tensor([float(v) for v in data.column(target)], dtype=torch.float64)
            machine = KernelRidge("rbf", alpha=0.01).fit(x, (y - 1) / 2)
            model = TablePredictor(encoder, machine, target, mean=1.0, scale=2.0)
        else:
            y = torch.tensor([v == "small" for v in data.column(target)]).long()
            machine = KernelLogisticRegression("rbf", C=10.0).fit(x, y)
            model = TablePredictor(encoder, machine, target, ("large", "small"))
        folder = tmp_path_factory.mktemp("models") / target
        model.save_pretrained(folder)
        found[target] = (folder, model)
    return found


def columns_of(file):
    data = read_table(file, header=True)
    return dict(zip(data.names, data.columns, strict=True))


def as_numbers(cells):
    return np.array([float(cell) for cell in cells])


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
@pytest.mark.parametrize("batch", [1, 64, 1000])
def test_files_of_any_length_and_kind(models, table, tmp_path, ending, batch):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    folder, model = models["price"]
    out = tmp_path / f"p{ending}"
    given = ("--out", out, "--keep", "name", "town", "--batch-rows", batch, "--threads", 1)
    code, printed, errors = run("predict", folder, table, *given)
    assert (code, errors) == (0, "")
    assert printed == f"300 predictions of 'price' in {out}\n"
    got = columns_of(out)
    assert list(got) == ["name", "town", "prediction"]
    assert got["name"].tolist() == read_table(table).column("name").tolist()
    # Written in full: no digit is lost on the way; sums over other batches differ by rounding.
    np.testing.assert_allclose(as_numbers(got["prediction"]), model.predict(table), atol=1e-12)
    assert {path.name for path in tmp_path.iterdir()} == {out.name}


def test_probabilities_of_classes(models, table, tmp_path):
    folder, model = models["size"]
    assert run("predict", folder, table, "--out", tmp_path / "p.csv")[0] == 0
    got = columns_of(tmp_path / "p.csv")
    assert list(got) == ["prediction", "probability of large", "probability of small"]
    shares = np.stack([as_numbers(got[f"probability of {c}"]) for c in model.classes], 1)
    np.testing.assert_allclose(shares, model.predict_proba(table), atol=1e-15)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-12)
    assert got["prediction"].tolist() == [model.classes[i] for i in shares.argmax(1)]
    right = got["prediction"] == read_table(table).column("size")
    assert right.mean() > 0.95


def test_another_order_and_other_columns(models, table, tmp_path):
    data = read_table(table)
    names = ["new", "town", "b", "a"]
    with (tmp_path / "new.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(names)
        for i in range(50):
            writer.writerow([i, *(data.column(name)[i] or "" for name in names[1:])])
    folder, model = models["price"]
    code, _, errors = run("predict", folder, tmp_path / "new.csv", "--out", tmp_path / "p.csv")
    assert (code, errors) == (0, "mercer: columns that the model does not know: new\n")
    got = as_numbers(columns_of(tmp_path / "p.csv")["prediction"])
    np.testing.assert_allclose(got, model.predict(table)[:50], atol=1e-12)


def test_parquet_in(models, table, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    data = read_table(table)
    columns = {"town": data.column("town").tolist()}
    columns |= {n: [None if v is None else float(v) for v in data.column(n)] for n in ("a", "b")}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    folder, model = models["price"]
    given = (tmp_path / "t.parquet", "--out", tmp_path / "p.csv")
    assert run("predict", folder, *given)[0] == 0
    got = as_numbers(columns_of(tmp_path / "p.csv")["prediction"])
    np.testing.assert_allclose(got, model.predict(table), atol=1e-12)


def test_earlier_predictions_stay_until_new_ones_are_complete(models, table, tmp_path):
    out = tmp_path / "p.csv"
    out.write_text("earlier")
    raw = table.read_text(encoding="utf-8")
    (tmp_path / "cut.csv").write_text(raw[: len(raw) // 2].rpartition(",")[0], encoding="utf-8")
    given = ("--out", out, "--batch-rows", 20)
    code, _, errors = run("predict", models["price"][0], tmp_path / "cut.csv", *given)
    assert code == 2
    assert "it is the last: the file was cut off" in errors
    assert out.read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"p.csv", "cut.csv"}
    assert run("predict", models["price"][0], table, *given)[0] == 0
    assert len(columns_of(out)["prediction"]) == ROWS


def test_ctrl_c_leaves_nothing(models, table, monkeypatch, tmp_path):
    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TablePredictor, "numbers", interrupted)
    code, printed, errors = run("predict", models["price"][0], table, "--out", tmp_path / "p.csv")
    assert (code, printed, errors) == (130, "", "\nmercer: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_file(models, table, monkeypatch, tmp_path):
    """No more rows are read before those at hand are written."""
    seen = []
    batches = predict._batches

    def spy(*args):
        for columns in batches(*args):
            seen.append(len(columns["prediction"]))
            yield columns

    monkeypatch.setattr(predict, "_batches", spy)
    given = ("--out", tmp_path / "p.csv", "--batch-rows", 128)
    assert run("predict", models["price"][0], table, *given)[0] == 0
    assert seen == [128, 128, 44]


HEADER = "a,b,town\n"


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        ("a,town\n1,Ulm\n", [], "TABLE: table: no column 'b', which the encoder was fitted with"),
        (HEADER + "1,2,Ulm\nx,2,Ulm\n", [], "column 'a': expected a number, got 'x' in line 3"),
        (HEADER + "1,2,Ulm\n1,inf,Ulm\n", [], "column 'b': infinite in line 3"),
        (HEADER + "1,2,Ulm\n1,2\n", [], "line 3 has 2 cells"),
        (HEADER + '1,2,"Ulm\n', [], "inside a quoted cell"),
        (HEADER, [], "a header and no rows"),
        ("", [], "is empty"),
        (None, [], "TABLE: file: no file"),
        (HEADER + "1,2,Ulm\n", ["--keep", "z"], "--keep: no column 'z'"),
        (
            "a,b,town,prediction\n1,2,Ulm,3\n",
            ["--keep", "prediction"],
            "--keep: the column 'prediction' would be overwritten",
        ),
        (HEADER + "1,2,Ulm\n", ["--out", "p.xlsx"], "--out: unknown ending '.xlsx'"),
        (HEADER + "1,2,Ulm\n", ["--batch-rows", "0"], "--batch-rows: expected at least 1"),
        (HEADER + "1,2,Ulm\n", ["--delimiter", "::"], "--delimiter: expected one character"),
    ],
)
def test_what_the_user_can_put_right_is_one_line(
    models, content, args, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "t.csv").write_text(content, encoding="utf-8")
    code, printed, errors = run("predict", models["price"][0], "t.csv", *args)
    assert (code, printed) == (2, "")
    assert errors.count("\n") == 1
    assert message in errors
    assert {path.name for path in tmp_path.iterdir()} <= {"t.csv"}


def test_wrong_places(models, table, tmp_path):
    folder = models["price"][0]
    for args, message in (
        ((tmp_path / "none", table), "MODEL: folder: "),
        ((tmp_path, table), "holds no table.json"),
        ((folder, table, "--out", table), "--out: is the table itself"),
        ((folder, table, "--out", tmp_path / "no" / "such.csv"), None),
        ((folder, folder / "table.json"), "TABLE: file: unknown ending '.json'"),
    ):
        code, _, errors = run("predict", *args)
        assert code == (0 if message is None else 2)
        assert message is None or message in errors
    (tmp_path / "folder.csv").mkdir()
    code, _, errors = run("predict", folder, table, "--out", tmp_path / "folder.csv")
    assert (code, "is a folder; name a file" in errors) == (2, True)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("table.json", lambda raw: raw[: len(raw) // 2], "table.json is damaged"),
        ("table.json", lambda raw: b"[]", "was not written by Mercer"),
        ("table.json", lambda raw: raw.replace(b'"encoder"', b'"decoder"'), "is damaged"),
        (
            "table.json",
            lambda raw: raw.replace(b'"format_version": 1', b'"format_version": 9'),
            "newer version of Mercer",
        ),
        ("model.safetensors", lambda raw: raw[: len(raw) // 2], "is damaged"),
        ("model.safetensors", lambda raw: b"", "is damaged"),
    ],
)
def test_damaged_models(models, table, tmp_path, name, damage, message):
    folder = shutil.copytree(models["price"][0], tmp_path / "model")
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    code, _, errors = run("predict", folder, table, "--out", tmp_path / "p.csv")
    assert (code, errors.count("\n")) == (2, 1)
    assert message in errors


def test_files_of_two_models_are_told_apart(models, table, tmp_path):
    folder = shutil.copytree(models["price"][0], tmp_path / "model")
    config = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    config["encoder"]["columns"].pop()
    (folder / "table.json").write_text(json.dumps(config))
    code, _, errors = run("predict", folder, table, "--out", tmp_path / "p.csv")
    assert code == 2
    assert "its files are not of one model" in errors


def test_a_file_without_header_by_numbers(tmp_path):
    lines = [f"{i * 7 % 53},{i % 4 / 3},{i / 3}" for i in range(60)]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    data = read_table(tmp_path / "t.csv")
    encoder = TableEncoder.fit(data, target="2")
    machine = KernelRidge("rbf").fit(encoder.encode(data), torch.arange(60).double())
    TablePredictor(encoder, machine, "2").save_pretrained(tmp_path / "model")
    # New rows come without a target.
    (tmp_path / "new.csv").write_text("\n".join(line.rpartition(",")[0] for line in lines))
    out = tmp_path / "p.csv"
    assert run("predict", tmp_path / "model", tmp_path / "new.csv", "--out", out)[0] == 0
    assert TableFile(tmp_path / "new.csv").names == ("0", "1")
    assert len(columns_of(out)["prediction"]) == 60
