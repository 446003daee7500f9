"""``mercer fit`` from a table to the files it leaves."""

import csv
import json
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.kernel_ridge import KernelRidge as Reference

import mercer
from mercer.cli import fit_job, fit_models, fit_plan
from mercer.cli.fit_budget import Budget, affordable, finer_fit, forecast, next_fit
from mercer.cli.fit_candidates import TITLES, candidates, make_kernel
from mercer.cli.fit_choice import round_sizes
from mercer.cli.fit_plan import plan_fit
from mercer.cli.fit_scores import (
    classification_scores,
    confusion,
    difference,
    regression_scores,
    reliability,
)
from mercer.datasets import TableFile, read_table
from mercer.datasets.cells import read_cells
from mercer.machines import TablePredictor
from mercer.report import Page
from tests.cli.test_bundle_command import (
    FILES,
    THREADS,
    assert_stands_alone,
    report_of,
    run,
    without_times,
)

load_file = pytest.importorskip("safetensors.torch").load_file
MODEL = {"config.json", "model.safetensors", "table.json"}
PICKLES = (b"\x80\x04\x95", b"\x80\x02", b"cnumpy", b"sklearn.")


def write_set(file, load, category, *, most=None, holes=0.05, delimiter=","):
    """Write a data set of scikit-learn's with missing cells and a category."""
    data, rng = load(), np.random.default_rng(0)
    x = np.array([[f"{v:.6g}" for v in row] for row in data.data], dtype=object)
    half = np.median(data.data[:, category])
    x[:, category] = np.where(data.data[:, category] > half, "high", "low")
    x[rng.random(x.shape) < holes] = ""
    y = data.target
    if hasattr(data, "target_names"):
        y = [str(data.target_names[c]) for c in y]
    order = rng.permutation(len(x))[:most]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow([*data.feature_names, "target"])
        writer.writerows([[*x[i], y[i]] for i in order])
    return file


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Return a folder of three tables."""
    folder = tmp_path_factory.mktemp("tables")
    write_set(folder / "diabetes.csv", datasets.load_diabetes, 1)
    write_set(folder / "wine.csv", datasets.load_wine, 1, delimiter=";")
    write_set(folder / "cancer.csv", datasets.load_breast_cancer, 3, most=250)
    return folder


@pytest.fixture
def without_figures(monkeypatch):
    """Leave the figures out of pages, which take longer than the small fits here."""
    monkeypatch.setattr(Page, "figure", lambda self, *args, **options: None)


def options(out, *more):
    return ("--target", "target", "--out", out, *THREADS, *more)


@pytest.fixture(scope="module")
def diabetes(tables, tmp_path_factory):
    out = tmp_path_factory.mktemp("diabetes") / "out"
    given = options(out, "--kernel", "rbf", "matern32", "ntk")
    code, printed, errors = run("fit", tables / "diabetes.csv", *given)
    assert (code, errors) == (0, "")
    return out, printed, given


@pytest.fixture(scope="module")
def wine(tables, tmp_path_factory):
    out = tmp_path_factory.mktemp("wine") / "out"
    code, printed, errors = run("fit", tables / "wine.csv", *options(out))
    assert (code, errors) == (0, "")
    return out, printed


def planned(table, target="target", share=0.2):
    return plan_fit(table, target, "auto", share, 0)


class TestRegression:
    def test_leaves_a_model_a_page_and_the_numbers(self, diabetes):
        out, printed, _ = diabetes
        assert {path.name for path in out.iterdir()} == FILES
        assert {path.name for path in (out / "model").iterdir()} == MODEL
        assert_stands_alone(out / "report.html", figures=6)
        report = report_of(out)
        assert f"{report['fits'][-1]['score']:.4g}" in printed
        text = (out / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")
        for each in report["candidates"]:
            assert each["title"] in text
            assert f"{each['score']:.4f}" in text
        assert report["data"]["task"] == "regression"
        assert (report["data"]["train"], report["data"]["test"]) == (354, 88)
        assert [fit["rows"] for fit in report["fits"]] == [88, 177, 354]
        assert report["fits"][-1]["reload"] == {"identical": True, "largest_difference": 0.0}
        assert {c["name"]: c["kind"] for c in report["data"]["columns"]}["sex"] == "category"

    def test_learns(self, diabetes):
        report = report_of(diabetes[0])
        scores = report["fits"][-1]
        assert scores["r2"] > 0.4
        assert scores["score"] < 0.85 * report["baseline"]["score"]
        low, high = scores["interval"]
        assert low < scores["score"] < high
        middle, low, high = report["to_peer"]
        assert middle == pytest.approx(scores["score"] - report["peer"]["score"])
        assert low < middle < high

    def test_the_saved_model_has_the_reported_error(self, diabetes, tables):
        plan = planned(tables / "diabetes.csv")
        model = TablePredictor.from_pretrained(diabetes[0] / "model")
        found = model.machine.predict(plan.x_test) * model.scale + model.mean
        error = float((found - plan.y_test).square().mean().sqrt())
        assert error == pytest.approx(report_of(diabetes[0])["fits"][-1]["score"], rel=1e-12)

    def test_it_is_scikit_learns_ridge(self, diabetes, tables):
        """The model on the page, made again from the page's numbers by scikit-learn."""
        plan, report = planned(tables / "diabetes.csv"), report_of(diabetes[0])
        chosen = report["chosen"]
        kernel = make_kernel(chosen["candidate"], plan.x)
        with torch.no_grad():
            k, k_test = kernel(plan.x), kernel(plan.x_test, plan.x)
        # An intercept is the same as centring matrix and targets.
        y, middle = plan.outputs(), torch.eye(len(k)).double() - 1 / len(k)
        ridge = Reference(alpha=chosen["ridge"], kernel="precomputed")
        ridge.fit((middle @ k @ middle).numpy(), (y - y.mean()).numpy())
        centred = (k_test - k.mean(0)) @ middle
        found = torch.from_numpy(ridge.predict(centred.numpy())) + y.mean()
        model = TablePredictor.from_pretrained(diabetes[0] / "model")
        torch.testing.assert_close(model.machine.predict(plan.x_test), found, rtol=0, atol=1e-9)

    def test_the_choice_is_the_best_leave_one_out_error(self, diabetes, tables):
        """The error on the page is that of refits without each row."""
        plan, report = planned(tables / "diabetes.csv"), report_of(diabetes[0])
        chosen = report["chosen"]
        assert chosen["score"] == min(each["score"] for each in report["candidates"])
        with torch.no_grad():
            k = make_kernel(chosen["candidate"], plan.x)(plan.x)
        y, n = plan.outputs(), len(plan.x)
        errors = []
        for i in range(0, n, 40):
            rest = torch.arange(n) != i
            bordered = torch.ones(n, n, dtype=torch.float64)
            bordered[:-1, :-1] = k[rest][:, rest] + chosen["ridge"] * torch.eye(n - 1).double()
            bordered[-1, -1] = 0
            solved = torch.linalg.solve(bordered, torch.cat([y[rest], y.new_zeros(1)]))
            errors.append(float(y[i] - k[i, rest] @ solved[:-1] - solved[-1]))
        from mercer.linalg import RidgePath

        path = RidgePath(k, y, intercept=True).leave_one_out(chosen["ridge"])
        assert path[::40].tolist() == pytest.approx(errors, abs=1e-9)
        assert float(path.square().mean()) == pytest.approx(chosen["score"], rel=1e-9)

    def test_a_complete_run_resumes_at_once(self, diabetes, tables):
        out, printed, given = diabetes
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
        assert run("fit", tables / "diabetes.csv", *given, "--resume") == (0, printed, "")
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    def test_no_file_holds_a_pickle(self, diabetes):
        for file in diabetes[0].rglob("*"):
            if file.is_file():
                assert file.suffix in (".json", ".safetensors", ".html")
                assert not any(mark in file.read_bytes() for mark in PICKLES[2:])
                assert not file.read_bytes().startswith(PICKLES[:2])


@pytest.mark.usefixtures("without_figures")
def test_rows_held_out_decide_nothing(tables, tmp_path):
    """Other targets and inputs in the rows held out leave the model as it is, bit by bit."""
    with (tables / "diabetes.csv").open(newline="") as stream:
        header, *rows = csv.reader(stream)
    plan = planned(tables / "diabetes.csv")
    held = {round(float(y), 6) for y in plan.y_test} - {round(float(y), 6) for y in plan.y}
    changed, count = [], 0
    for row in rows:
        if round(float(row[-1]), 6) in held:
            count += 1
            row = [*row[:4], "0.123", *row[5:-1], str(float(row[-1]) + 1000 + count)]
        changed.append(row)
    assert count > 20
    with (tmp_path / "diabetes.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *changed])
    given = ("--kernel", "rbf")
    for folder, out in ((tables, "one"), (tmp_path, "other")):
        assert run("fit", folder / "diabetes.csv", *options(tmp_path / out, *given))[0] == 0
    one, other = (load_file(tmp_path / o / "model/model.safetensors") for o in ("one", "other"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    first, second = (report_of(tmp_path / out) for out in ("one", "other"))
    assert first["chosen"]["title"] == second["chosen"]["title"]
    assert second["fits"][-1]["score"] > 500 > first["fits"][-1]["score"]


class TestClassification:
    def test_leaves_a_model_a_page_and_the_numbers(self, wine):
        out, printed = wine
        assert {path.name for path in (out / "model").iterdir()} == MODEL
        assert_stands_alone(out / "report.html", figures=5)
        report = report_of(out)
        assert report["classes"] == ["class_0", "class_1", "class_2"]
        assert f"{100 * report['fits'][-1]['score']:.1f}" in printed
        assert {each["candidate"]["kernel"] for each in report["candidates"]} == set(TITLES)

    def test_learns(self, wine):
        report = report_of(wine[0])
        scores = report["fits"][-1]
        assert scores["score"] > 0.9
        assert scores["log_loss"] < 0.3 < report["baseline"]["log_loss"]
        assert sum(map(sum, report["confusion"])) == report["data"]["test"] == 36
        right = sum(report["confusion"][i][i] for i in range(3))
        assert right / 36 == pytest.approx(scores["score"])
        losses = {each["ridge"]: each["log_loss"] for each in report["chosen"]["penalties"]}
        assert min(losses, key=lambda ridge: losses[ridge]) == report["chosen"]["ridge"]

    def test_the_saved_model_gives_the_reported_probabilities(self, wine, tables):
        plan = planned(tables / "wine.csv")
        model = TablePredictor.from_pretrained(wine[0] / "model")
        found = model.machine.predict_proba(plan.x_test)
        own = found[range(len(found)), plan.y_test]
        assert -float(own.log().mean()) == pytest.approx(
            report_of(wine[0])["fits"][-1]["log_loss"], rel=1e-9
        )

    @pytest.mark.usefixtures("without_figures")
    def test_two_classes(self, tables, tmp_path):
        given = options(tmp_path / "out", "--kernel", "matern52", "arc_cosine")
        assert run("fit", tables / "cancer.csv", *given)[0] == 0
        report = report_of(tmp_path / "out")
        assert report["classes"] == ["benign", "malignant"]
        assert report["fits"][-1]["score"] > 0.9
        assert report["data"]["reason"] == "the target holds texts"


@pytest.mark.usefixtures("without_figures")
class TestResuming:
    def test_kill_9_then_resume_gives_the_same_bits(self, tables, tmp_path):
        out, whole = tmp_path / "out", tmp_path / "whole"
        code = "import sys; from mercer.cli import main; sys.exit(main(sys.argv[1:]))"
        kernels = ("--kernel", "rbf", "matern32", "ntk")
        args = [str(a) for a in ("fit", tables / "diabetes.csv", *options(out, *kernels))]
        process = subprocess.Popen([sys.executable, "-c", code, *args], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while len(list((out / ".steps").glob("candidate-*"))) < 7:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (out / "report.json").exists()
        done = {path.name: path.stat().st_mtime_ns for path in (out / ".steps").glob("[!.]*")}
        assert len(done) < 40
        assert run(*args, "--resume")[0] == 0
        assert run("fit", tables / "diabetes.csv", *options(whole, *kernels))[0] == 0
        after = {path.name: path.stat().st_mtime_ns for path in (out / ".steps").glob("*")}
        assert {name: after[name] for name in done} == done  # not done again
        ours, theirs = (load_file(o / "model" / "model.safetensors") for o in (out, whole))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert without_times(report_of(out)) == without_times(report_of(whole))
        for name in ("config.json", "table.json"):
            assert (out / "model" / name).read_bytes() == (whole / "model" / name).read_bytes()

    def test_ctrl_c_says_how_to_go_on(self, tables, tmp_path, monkeypatch):
        given = options(tmp_path / "out", "--kernel", "rbf")

        def interrupted(*args):
            signal.raise_signal(signal.SIGINT)

        with monkeypatch.context() as patch:
            patch.setattr(fit_job, "fit_rows", interrupted)
            code, printed, errors = run("fit", tables / "wine.csv", *given)
        assert (code, printed) == (130, "")
        assert errors.strip() == "mercer: interrupted; the same command with --resume continues"
        assert not (tmp_path / "out" / "model").exists()
        assert run("fit", tables / "wine.csv", *given, "--resume")[0] == 0

    def test_a_larger_budget_takes_up_finished_steps(self, tables, tmp_path):
        given = options(tmp_path / "out", "--kernel", "rbf")
        assert run("fit", tables / "diabetes.csv", *given, "--budget", "1")[0] == 0
        steps = tmp_path / "out" / ".steps"
        before = {p.name: p.stat().st_mtime_ns for p in steps.glob("candidate-*")}
        assert run("fit", tables / "diabetes.csv", *given, "--budget", "2", "--resume")[0] == 0
        assert {p.name: p.stat().st_mtime_ns for p in steps.glob("candidate-*")} == before


def table_of(file, count, seed=0):
    """Write a smooth function of four numbers with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 4))
    y = np.sin(2 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * rng.normal(size=count)
    lines = [",".join(f"{v:.5f}" for v in row) for row in np.column_stack([x, y])]
    file.write_text("a,b,c,d,target\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return file


class TestBudget:
    @pytest.mark.usefixtures("without_figures")
    def test_little_time_still_gives_a_model(self, tmp_path):
        out = tmp_path / "out"
        table = table_of(tmp_path / "t.csv", 1500)
        assert run("fit", table, *options(out, "--budget", "0.001"))[0] == 0
        report = report_of(out)
        assert len(report["candidates"]) == 1
        assert len(report["fits"]) == 1
        assert report["fits"][0]["rows"] < report["data"]["train"]
        assert "a larger --budget fits to more" in (out / "report.html").read_text()
        assert report["fits"][0]["score"] < report["baseline"]["score"]

    @pytest.mark.usefixtures("without_figures")
    def test_little_memory_means_fewer_rows_to_choose_by(self, tmp_path):
        table = table_of(tmp_path / "t.csv", 2500)
        kernels = ("--kernel", "rbf", "--budget", "2")
        with mercer.config.override(memory_budget=2**26):  # used up by torch alone
            code, _, errors = run("fit", table, *options(tmp_path / "a", *kernels))
        assert (code, errors.count("\n")) == (2, 1)
        assert errors.startswith("mercer: cannot fit: ")
        assert "memory budget" in errors
        for budget, want in (
            ("64 MiB", [500]),
            ("1 GiB", [500, 1500]),
            ("2 GiB", [500, 1500, 4000]),
        ):
            with mercer.config.override(memory_budget=budget):
                assert round_sizes(100_000)[-3:] == (want * 2 if len(want) == 1 else want)
        with mercer.config.override(memory_budget="16 GiB"):
            assert round_sizes(2000) == [500, 1500, 2000]
            assert round_sizes(300) == [300, 300]

    @pytest.mark.slow
    def test_is_kept(self, tmp_path):
        """Where all rows would take minutes, the command ends within the time it was given."""
        table, out = table_of(tmp_path / "t.csv", 25_000), tmp_path / "out"
        start = time.perf_counter()
        assert run("fit", table, *options(out, "--budget", "0.6"))[0] == 0
        taken = time.perf_counter() - start
        report = report_of(out)
        assert taken <= 36
        assert taken >= 12  # it is used, too
        assert report["fits"][-1]["rows"] == 20_000  # on landmarks
        assert report["fits"][-1]["score"] < 0.2

    def test_forecasts(self):
        last = {"rows": 1000, "landmarks": None, "seconds": 10.3}
        # Twice the rows take up to eight times as long, with some caution.
        assert 4 * 10 < forecast(last, 2000, None, False) < 8 * 10 * 1.5
        assert affordable(last, 2000, 113.0, False) == (2000, None)
        assert affordable(last, 2000, 3.0, False) is None
        found = affordable(last, 20_000, 150.0, False)
        assert found is not None
        assert found[0] == 20_000
        assert 200 <= (found[1] or 0) < 1000
        for seconds in (10.0, 20.0, 60.0, 100.0, 1000.0):
            found = affordable(last, 20_000, seconds, False)
            assert found is None or forecast(last, *found, False) <= seconds

    def test_few_landmarks_are_not_better(self):
        last = {"rows": 80_000, "landmarks": None, "seconds": 27.6}
        assert affordable(last, 160_000, 10.0, False) is None
        assert affordable(last, 160_000, 300.0, False) == (160_000, None)

    def test_points_of_the_curve_do_not_cost_the_last_one(self):
        last = {"rows": 20_000, "landmarks": 1000, "seconds": 4.4}
        assert next_fit(last, 40_000, 160_000, 1000.0, False) == (40_000, None)
        assert next_fit(last, 25_000, 160_000, 100.0, False) == (25_000, None)  # cheap
        seconds = 1.01 * forecast(last, 160_000, None, False)
        assert next_fit(last, 80_000, 160_000, seconds, False) == (160_000, None)

    def test_time_that_is_left_buys_landmarks(self):
        last = {"rows": 160_000, "landmarks": 886, "seconds": 15.0}
        assert finer_fit(last, 15.0, False) is None
        rows, landmarks = finer_fit(last, 60.0, False) or (0, None)
        assert rows == 160_000
        assert 1.4 * 886 < (landmarks or 0) < 2000
        assert finer_fit(last, 600.0, False) == (160_000, None)
        assert finer_fit({**last, "landmarks": None}, 600.0, False) is None

    def test_the_curve_begins_where_fits_are_quick(self):
        for rows in (60, 500, 6554, 800_000, 10_000_000):
            sizes = fit_job._ladder(rows, 50)
            assert sizes[-1] == rows
            assert sizes[0] <= 2000
            assert sizes == sorted(sizes)
            assert min(len(sizes), 6) == 6 or sizes[0] < 100

    def test_what_is_left(self):
        budget = Budget(10)
        budget.add(100.0)
        assert budget.left == 600 - 12 - 100
        assert Budget(0.1).left == pytest.approx(0.6 * 6)


class TestScores:
    y = torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)

    def test_regression(self):
        from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

        found = torch.tensor([1.5, 2.0, 2.0, 5.0], dtype=torch.float64)
        scores = regression_scores(self.y, found)
        assert scores["score"] == pytest.approx(root_mean_squared_error(self.y, found))
        assert scores["mae"] == pytest.approx(mean_absolute_error(self.y, found))
        assert scores["r2"] == pytest.approx(r2_score(self.y, found))

    def test_classification(self):
        from sklearn.metrics import accuracy_score, confusion_matrix, log_loss

        p = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        p, y = p / p.sum(1, keepdim=True), torch.arange(200) % 3
        scores = classification_scores(y, p)
        assert scores["score"] == pytest.approx(accuracy_score(y, p.argmax(1)))
        assert scores["log_loss"] == pytest.approx(log_loss(y, p))
        assert confusion(y, p) == confusion_matrix(y, p.argmax(1)).tolist()
        brier = sum(float((p[:, c] - (y == c).double()).square().mean()) for c in range(3))
        assert scores["brier"] == pytest.approx(brier)

    def test_intervals_hold_the_truth_as_often_as_they_say(self):
        source = torch.Generator().manual_seed(0)
        inside = [0, 0, 0]
        for _ in range(400):
            noise = torch.randn(300, 2, dtype=torch.float64, generator=source)
            y = torch.zeros(300, dtype=torch.float64)
            low, high = regression_scores(y, noise[:, 0])["interval"]
            inside[0] += low <= 1 <= high
            _, low, high = difference(y, noise[:, 0], 1.1 * noise[:, 1])
            inside[1] += low <= -0.1 <= high
            right = (torch.rand(300, generator=source) < 0.97).long()
            p = torch.nn.functional.one_hot(right, 2).double()
            low, high = classification_scores(torch.ones(300, dtype=torch.long), p)["interval"]
            inside[2] += low <= 0.97 <= high
        assert all(0.92 < count / 400 < 0.98 for count in inside)

    def test_reliability(self):
        y = torch.tensor([0, 0, 1, 1])
        p = torch.tensor([[0.91, 0.09], [0.95, 0.05], [0.92, 0.08], [0.4, 0.6]]).double()
        found = reliability(y, p)
        assert [each["rows"] for each in found["bins"]] == [1, 3]
        middle = (0.91 + 0.95 + 0.92) / 3
        assert found["bins"][1]["confidence"] == pytest.approx(middle, rel=1e-6)
        assert found["bins"][1]["right"] == pytest.approx(2 / 3)
        assert found["error"] == pytest.approx(0.75 * (middle - 2 / 3) + 0.25 * 0.4, rel=1e-6)


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        (["no", "yes"] * 20, "classification", ("no", "yes")),
        (["TRUE", "false"] * 20, "classification", ("false", "TRUE")),
        ([str(i % 2) for i in range(40)], "classification", ("0", "1")),
        ([str(3 + 4 * (i % 2)) for i in range(40)], "classification", ("3", "7")),
        ([str(i % 3) for i in range(40)], "classification", ("0", "1", "2")),
        ([str(1 + i % 3) for i in range(40)], "classification", ("1", "2", "3")),
        ([str(i % 10) for i in range(400)], "classification", tuple("0123456789")),
        ([str(3 + i % 6) for i in range(60)], "regression", ()),
        ([str(i % 30) for i in range(300)], "regression", ()),
        ([f"{i / 7:.3f}" for i in range(40)], "regression", ()),
    ],
)
def test_tasks_are_guessed(tmp_path, cells, task, classes):
    lines = [f"{i % 7},{cell}" for i, cell in enumerate(cells)]
    (tmp_path / "t.csv").write_text("x,target\n" + "\n".join(lines))
    plan = planned(tmp_path / "t.csv")
    assert plan.classes == classes
    assert ("classification" if plan.classes else "regression") == task


@pytest.mark.usefixtures("without_figures")
def test_parquet_gives_what_csv_gives(tables, tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = read_table(tables / "wine.csv")
    columns: dict = {}
    for name, cells in zip(table.names, table.columns, strict=True):
        numbers, bad = read_cells(cells, "number")
        plain = cells.tolist() if bad >= 0 else [None if v != v else v for v in numbers.tolist()]
        columns[name] = plain
    columns["label"] = pa.array(columns.pop("target")).dictionary_encode()
    columns["photo"] = [b"raw"] * len(table)
    pq.write_table(pa.table(columns), tmp_path / "wine.parquet")
    found = {}
    for file, target in ((tables / "wine.csv", "target"), (tmp_path / "wine.parquet", "label")):
        out = tmp_path / file.suffix
        given = ("--target", target, "--out", out, "--kernel", "matern32", *THREADS)
        assert run("fit", file, *given)[0] == 0
        found[file.suffix] = report_of(out)
    one, other = found[".csv"], found[".parquet"]
    assert one["fits"][-1]["log_loss"] == other["fits"][-1]["log_loss"]
    assert one["confusion"] == other["confusion"]
    notes = {each["name"]: each["note"] for each in other["data"]["columns"]}
    assert notes["photo"] == "left out: it holds binary"
    raw = (tmp_path / "wine.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(raw[: len(raw) // 2])
    code, _, errors = run("fit", tmp_path / "cut.parquet", "--target", "label")
    assert (code, errors.count("\n")) == (2, 1)
    assert "is not Parquet, or cut off" in errors


@pytest.mark.usefixtures("without_figures")
def test_rare_classes(tmp_path):
    """Two classes of few rows among many: each part of the learning curve knows all classes."""
    rng = np.random.default_rng(0)
    names = ["rare"] * 5 + ["odd"] * 6 + ["plain"] * 600
    x = rng.normal(size=(len(names), 2)) + [
        [4 * (name == "rare"), 4 * (name == "odd")] for name in names
    ]
    lines = [f"{a:.4f},{b:.4f},{name}" for (a, b), name in zip(x, names, strict=True)]
    rng.shuffle(lines)
    (tmp_path / "t.csv").write_text("a,b,target\n" + "\n".join(lines), encoding="utf-8")
    out = tmp_path / "out"
    assert run("fit", tmp_path / "t.csv", *options(out, "--kernel", "rbf"))[0] == 0
    report = report_of(out)
    assert report["classes"] == ["odd", "plain", "rare"]
    assert report["data"]["counts"] == [5, 480, 4]
    assert len(report["fits"]) >= 3
    assert TablePredictor.from_pretrained(out / "model").machine.classes_.tolist() == [0, 1, 2]
    plan = planned(tmp_path / "t.csv")
    assert sorted(plan.y[:6].tolist()) == [0, 0, 1, 1, 2, 2]
    held = fit_models.held_out(plan.y)
    assert [int((plan.y[held] == c).sum()) for c in range(3)] == [1, 120, 1]


def test_rows_without_target_are_left_out(tmp_path):
    lines = [f"{i % 7},{'' if i % 5 == 0 else i / 3}" for i in range(100)]
    (tmp_path / "t.csv").write_text("x,target\n" + "\n".join(lines))
    plan = planned(tmp_path / "t.csv")
    assert (len(plan.x), len(plan.x_test), plan.without_target) == (64, 16, 20)
    left = sorted([*plan.y.tolist(), *plan.y_test.tolist()])
    assert left == [i / 3 for i in range(100) if i % 5]


def test_long_files_are_never_held(tables, monkeypatch):
    """A file that is read in parts several times gives what one in memory gives."""
    chunks, seen = TableFile.chunks, []

    def spy(self, rows=50):
        for part in chunks(self, 50):
            seen.append(len(part))
            yield part

    for name in ("wine.csv", "diabetes.csv"):
        whole = planned(tables / name)
        with monkeypatch.context() as patch:
            patch.setattr(fit_plan, "_IN_MEMORY", 0)
            patch.setattr(TableFile, "chunks", spy)
            parts = planned(tables / name)
        assert whole.encoder == parts.encoder
        for field in ("x", "y", "x_test", "y_test", "classes", "notes"):
            if field in ("classes", "notes"):
                assert getattr(whole, field) == getattr(parts, field)
                continue
            assert torch.equal(getattr(whole, field), getattr(parts, field))
    assert max(seen) == 50


def test_classes_are_divided_alike(tables):
    plan = planned(tables / "wine.csv", share=0.25)
    shares = [[float((y == c).double().mean()) for c in range(3)] for y in (plan.y, plan.y_test)]
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_candidates_are_different_kernels():
    x = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = candidates(tuple(TITLES))
    assert [each["kernel"] for each in found[:6]] == list(TITLES)
    with torch.no_grad():
        matrices = [make_kernel(each, x)(x) for each in found]
    for i, one in enumerate(matrices):
        assert float(torch.linalg.eigvalsh(one)[0]) > -1e-9 * float(one.trace())
        assert all(not torch.allclose(one, other) for other in matrices[:i])


BASE = "a,b,target\n" + "".join(f"{i * 7 % 53},{i % 4 / 3},{i / 3}\n" for i in range(60))


def lines_with(change):
    rows = BASE.splitlines()
    change(rows)
    return "\n".join(rows) + "\n"


def changed(index, text):
    def change(rows):
        rows[index] = text

    return lines_with(change)


@pytest.mark.parametrize(
    ("content", "args", "message"),
    [
        (BASE, ["--target", "c"], "--target: no column 'c'; the columns are 'a', 'b'"),
        (BASE, ["--kernel", "magic"], "--kernel: expected some of rbf, matern52"),
        (BASE, ["--kernel", "rbf", "rbf"], "--kernel: expected each name once"),
        (BASE, ["--budget", "0"], "--budget: expected minutes above 0, got 0.0"),
        (BASE, ["--budget", "nan"], "--budget: expected minutes above 0, got nan"),
        (BASE, ["--test-share", "1"], "--test-share: expected a share between 0 and 1"),
        (BASE, ["--seed", "-1"], "--seed: expected 0 to"),
        (BASE, ["--threads", "0"], "--threads: expected at least 1"),
        (BASE, ["--delimiter", "xx"], "--delimiter: expected one character or 'tab', got 'xx'"),
        (BASE, ["--delimiter", ";"], "--target: no column 'target'"),
        (BASE, ["--header", "no"], "--target: no column 'target'; the columns are '0'"),
        (BASE, ["--drop", "z"], "--drop: no column 'z'"),
        (BASE, ["--drop", "target"], "--target: 'target' is also named by --drop or --category"),
        (BASE, ["--drop", "a", "b"], "TABLE: table: no column to learn from is left"),
        (BASE, ["--category", "z"], "--category: no column 'z'"),
        (None, [], "TABLE: file: no file "),
        ("", [], "TABLE: file: "),
        ("a,b,target\n", [], "TABLE: file: "),
        (
            BASE[: len(BASE) // 2].rpartition(",")[0] + "\n",
            [],
            "it is the last: the file was cut off",
        ),
        (BASE + '1,"2,3\n', [], "inside a quoted cell"),
        (changed(9, "1,2,3,4"), [], "line 10 has 4 cells, the first row has 3"),
        (changed(9, "oops,2,3"), [], "column 'a': expected a number"),
        (changed(9, "inf,2,3"), [], "column 'a': infinite in line 10"),
        (changed(9, "1,2,inf"), [], "--target: 'target' is infinite in line 10"),
        (changed(9, "1,2,1e200"), [], "--target: 'target' spreads by 1.3e+199, whose square"),
        (
            changed(9, "1,2,many"),
            [],
            "--target: 'target': expected a number, got 'many' in line 10",
        ),
        (
            changed(9, "1,2,many"),
            ["--task", "regression"],
            "--target: 'target': expected a number, got 'many' in line 10",
        ),
        (BASE, ["--task", "classification"], "has 60 different values; expected at most 50"),
        ("\n".join(BASE.splitlines()[:15]), [], "14 rows of 'target' are not missing; at least 20"),
        (BASE.replace("/", "").replace(".", ""), ["--task", "classification"], "--target: "),
        (
            "a,target\n" + "".join(f"{i * 7 % 11},{'xy'[i % 2]}\n" for i in range(40)) + "3,z\n",
            [],
            "--target: class 'z' of 'target' has 1 rows; at least 5 are needed",
        ),
        (
            "a,target\n" + "".join(f"{i * 7 % 11},7\n" for i in range(40)),
            [],
            "--target: every row of 'target' is '7'; nothing to learn",
        ),
        (
            "a,target\n" + "".join(f"{i * 7 % 11},2026-01-{i % 28 + 1:02d}\n" for i in range(40)),
            [],
            "--target: 'target' holds dates",
        ),
    ],
)
def test_what_the_user_can_put_right_is_one_line(content, args, message, tmp_path):
    table = tmp_path / "t.csv"
    if content is not None:
        table.write_text(content, encoding="utf-8")
    target = [] if "--target" in args else ["--target", "target"]
    code, printed, errors = run("fit", table, *target, "--out", tmp_path / "out", *args)
    assert (code, printed) == (2, "")
    assert errors.count("\n") == 1
    assert message in errors
    assert not (tmp_path / "out" / "report.json").exists()


def test_help_and_missing_target(tmp_path, capfd):
    for command in ("fit", "predict"):
        assert run(command, "--help")[0] == 0
    table = table_of(tmp_path / "t.csv", 30)
    assert run("fit", table)[0] == 2
    capfd.readouterr()


@pytest.mark.usefixtures("without_figures")
def test_bytes_that_are_not_utf8(tmp_path):
    (tmp_path / "t.csv").write_bytes(BASE.encode() + b"1,caf\xe9,3\n")
    code, _, errors = run("fit", tmp_path / "t.csv", *options(tmp_path / "out"))
    assert code == 2
    assert "is not UTF-8: byte 0xe9 at offset" in errors
    assert "line 62" in errors


@pytest.mark.usefixtures("without_figures")
def test_names_with_markup_are_shown_as_they_are(tmp_path):
    text = BASE.replace("a,b,target", "<b>a</b>,$b$,target")
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    assert run("fit", tmp_path / "t.csv", *options(tmp_path / "out", "--kernel", "rbf"))[0] == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<b>a</b>" not in page
    assert "&lt;b&gt;a&lt;/b&gt;" in page


@pytest.mark.slow
@pytest.mark.usefixtures("without_figures")
@pytest.mark.parametrize(("name", "most"), [("yacht", 1.2), ("energy", 0.8), ("concrete", 6.0)])
def test_uci_sets(shared_data, tmp_path, name, most):
    """Errors are about those of well tuned machines: see the table of the README."""
    table = shared_data / "uci" / f"{name}.csv"
    if not table.exists():
        pytest.skip(f"no file {table}")
    out = tmp_path / "out"
    assert run("fit", table, "--target", "-1", "--budget", "2", "--out", out, *THREADS)[0] == 0
    report = report_of(out)
    assert report["data"]["task"] == "regression"
    assert report["fits"][-1]["rows"] == report["data"]["train"]
    assert report["fits"][-1]["score"] < most


def test_the_peer_gets_fewer_rows_where_time_is_short(tables, tmp_path, monkeypatch):
    from mercer.cli.steps import Steps

    plan = planned(tables / "diabetes.csv")
    monkeypatch.setattr(fit_models, "_PEER_ROWS", 100)
    little, _ = fit_models.peer(plan, 0, 1e-3, {"limit": "little"}, Steps(tmp_path / "a"))
    much, folder = fit_models.peer(plan, 0, 1e6, {"limit": "much"}, Steps(tmp_path / "b"))
    assert (little["rows"], much["rows"]) == (100, len(plan.x))
    found = fit_models.load_predictions(folder)
    error = math.sqrt(float((found - plan.y_test).square().mean()))
    assert error == pytest.approx(much["score"])
    assert json.dumps(much)
