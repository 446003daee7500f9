"""A machine that takes tables: from mappings, frames and files, saved and loaded."""

import numpy as np
import pytest
import torch

from mercer.datasets import DataTable, TableEncoder
from mercer.machines import KernelLogisticRegression, KernelRidge, TablePredictor

COLUMNS = {
    "a": [float(i * 7 % 23) for i in range(90)],
    "c": ["u", "v", "w"] * 30,
    "y": [float(i * 7 % 23 + 10 * (i % 3)) for i in range(90)],
}


def regression():
    table = DataTable.of(COLUMNS)
    encoder = TableEncoder.fit(table, target="y")
    y = torch.tensor(COLUMNS["y"], dtype=torch.float64)
    machine = KernelRidge("rbf", alpha=1e-9).fit(encoder.encode(table), (y - 20) / 4)
    return TablePredictor(encoder, machine, "y", mean=20.0, scale=4.0)


def classification():
    table = DataTable.of(COLUMNS)
    encoder = TableEncoder.fit(table, target="c")
    y = torch.arange(90) % 3
    machine = KernelLogisticRegression("rbf").fit(encoder.encode(table), y)
    return TablePredictor(encoder, machine, "c", ("u", "v", "w"))


def test_interpolates_in_the_targets_unit():
    model = regression()
    assert model.task == "regression"
    np.testing.assert_allclose(model.predict(COLUMNS), COLUMNS["y"], atol=1e-3)


def test_classes_are_named():
    model = classification()
    assert model.task == "classification"
    shares = model.predict_proba(COLUMNS)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-12)
    assert model.predict(COLUMNS).tolist() == ["uvw"[i] for i in shares.argmax(1)]


def test_every_kind_of_table(tmp_path):
    model = regression()
    want = model.predict(DataTable.of(COLUMNS))
    (tmp_path / "t.csv").write_text(
        "c,a\n" + "\n".join(f"{c},{a}" for c, a in zip(COLUMNS["c"], COLUMNS["a"], strict=True))
    )
    assert np.array_equal(model.predict(COLUMNS), want)
    assert np.array_equal(model.predict(tmp_path / "t.csv"), want)
    assert np.array_equal(model.predict(str(tmp_path / "t.csv")), want)


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    model = regression()
    frame = pandas.DataFrame(COLUMNS)
    assert np.array_equal(model.predict(frame), model.predict(COLUMNS))


@pytest.mark.parametrize("make", [regression, classification])
def test_comes_back_bit_by_bit(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path / "m")
    again = TablePredictor.from_pretrained(tmp_path / "m")
    assert {f.name for f in (tmp_path / "m").iterdir()} == {
        *("config.json", "model.safetensors", "table.json")
    }
    assert again.encoder == model.encoder
    assert (again.target, again.classes, again.mean, again.scale) == (
        *(model.target, model.classes, model.mean, model.scale),
    )
    assert np.array_equal(again.predict(COLUMNS), model.predict(COLUMNS))
    model.save_pretrained(tmp_path / "m")  # over what is there
    assert len(list(tmp_path.iterdir())) == 1


def test_no_rows():
    empty = {"a": [], "c": []}
    assert regression().predict(empty).shape == (0,)
    assert classification().predict_proba({"a": [], "y": []}).shape == (0, 3)


def test_is_refused(tmp_path):
    model = regression()
    with pytest.raises(ValueError, match=r"^predict_proba: 'y' is a number and has no classes"):
        model.predict_proba(COLUMNS)
    with pytest.raises(ValueError, match=r"^table: no column 'c', which the encoder"):
        model.predict({"a": [1.0]})
    with pytest.raises(
        ValueError, match=r"^table: column 'a': expected a number, got 'x' in row 2"
    ):
        model.predict({"a": ["1", "x"], "c": ["u", "u"]})
    with pytest.raises(TypeError, match=r"^columns: expected a mapping"):
        model.predict([[1.0, 2.0]])
    with pytest.raises(FileNotFoundError, match=r"^folder: .* holds no table\.json"):
        TablePredictor.from_pretrained(tmp_path)
