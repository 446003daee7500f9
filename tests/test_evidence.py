"""The evidence plugin: what it demands of a test, and the file that it writes."""

import json

import pytest

pytest_plugins = ("pytester",)

GOOD = """
    import numpy, pytest, torch

    @pytest.mark.paper("core-some-paper", kind="exact", claim="two is two")
    def test_number(evidence):
        evidence(required="== 2", measured=torch.tensor(2.0))
        assert True

    @pytest.mark.paper("core-some-paper", kind="behaviour", claim="they fall")
    @pytest.mark.parametrize("name", ["sin", "cos"])
    def test_each(evidence, name):
        evidence(required="<= 1", measured=numpy.float32(0.5))
        evidence(required="<= 1", measured=float("nan"), what="worst")

    @pytest.mark.paper("core-some-paper", kind="exact", claim="breaks after it measured")
    def test_breaks(evidence):
        evidence(required=1e-12, measured="much")
        assert False

    @pytest.mark.paper("core-some-paper", kind="exact", claim="no data here")
    def test_skipped(evidence):
        pytest.skip("no data")

    @pytest.mark.paper("core-some-paper", kind="exact", claim="breaks before")
    def test_unready(missing_fixture, evidence):
        evidence(required=1, measured=1)

    def test_other():
        assert True
"""


@pytest.fixture
def session(pytester):
    def run(source, *args):
        pytester.makepyfile(source)
        return pytester.runpytest("-p", "tests.evidence", *args)

    return run


@pytest.mark.parametrize("workers", ["0", "2"])
def test_rows_are_written_with_and_without_workers(session, pytester, workers):
    result = session(GOOD, "-n", workers, "--evidence=out/rows.json")
    result.assert_outcomes(passed=4, failed=1, skipped=1, errors=1)
    result.stdout.fnmatch_lines(["*evidence: 8 rows in *rows.json*"])
    written = json.loads((pytester.path / "out" / "rows.json").read_text())
    assert set(written["environment"]["versions"]) >= {"torch", "numpy", "scikit-learn"}
    assert written["environment"]["cores"] >= 1
    rows = written["rows"]
    assert {row["sheet"] for row in rows} == {"core-some-paper"}
    assert [row["kind"] for row in rows] == ["exact"] * 4 + ["behaviour"] * 4
    found = {
        (row["claim"], row["what"], row["case"]): tuple(
            row[name] for name in ("required", "measured", "outcome")
        )
        for row in rows
    }
    assert found == {
        ("two is two", "", ""): ("== 2", 2.0, "passed"),
        ("they fall", "", "sin"): ("<= 1", 0.5, "passed"),
        ("they fall", "", "cos"): ("<= 1", 0.5, "passed"),
        ("they fall", "worst", "sin"): ("<= 1", "nan", "passed"),
        ("they fall", "worst", "cos"): ("<= 1", "nan", "passed"),
        ("breaks after it measured", "", ""): (1e-12, "much", "failed"),
        ("no data here", "", ""): (None, None, "skipped"),
        ("breaks before", "", ""): (None, None, "failed"),
    }
    assert all(row["seconds"] >= 0 and "::test_" in row["test"] for row in rows)


def test_nothing_is_written_unless_asked(session, pytester):
    session(GOOD)
    assert not list(pytester.path.glob("**/*.json"))


def test_marked_but_never_recorded_fails(session):
    result = session(
        """
        import pytest
        @pytest.mark.paper("a-sheet", "exact", "a claim")
        def test_silent(evidence):
            pass
        @pytest.mark.paper("a-sheet", "exact", "a claim")
        def test_without_the_fixture():
            pass
        """
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*never called the fixture 'evidence'*"])


def test_recorded_but_not_marked_fails(session):
    result = session(
        """
        def test_unmarked(evidence):
            evidence(required=1, measured=1)
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*without the marker 'paper'*"])


def test_a_failing_marked_test_shows_its_own_error(session):
    result = session(
        """
        import pytest
        @pytest.mark.paper("a-sheet", "exact", "a claim")
        def test_broken(evidence):
            raise RuntimeError("the cause")
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*RuntimeError: the cause*"])
    result.stdout.no_fnmatch_line("*never called*")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'a-sheet', kind='maybe', claim='c'", "kind: expected one of"),
        ("'A Sheet.md', kind='exact', claim='c'", "sheet: expected a name"),
        ("'a-sheet', kind='exact', claim=' '", "claim: expected one sentence"),
        ("'a-sheet', kind='exact'", "missing 1 required positional argument: 'claim'"),
        ("'a-sheet', kind='exact', claim='c', more=1", "unexpected keyword argument 'more'"),
    ],
)
def test_a_wrong_marker_stops_the_session(session, arguments, message):
    result = session(
        f"""
        import pytest
        @pytest.mark.slow
        @pytest.mark.paper({arguments})
        def test_marked(evidence):
            evidence(required=1, measured=1)
        """,
        "-m",
        "not slow",  # a marker must be right in the lane that does not run it, too
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*marker paper: *{message}*"])


def test_a_record_that_is_no_number_or_text_is_refused(session):
    result = session(
        """
        import pytest
        @pytest.mark.paper("a-sheet", "exact", "a claim")
        def test_list(evidence):
            evidence(required=1, measured=[1, 2])
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*measured: expected a number or a text, got list*"])
