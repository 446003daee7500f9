"""Configuration and the memory budget."""

import os
import subprocess
import sys

import pytest

import mercer
from mercer._core.config import (
    Config,
    _free_in_container,
    available_memory,
    block_rows,
    require_memory,
    resident_memory,
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (1, 1),
        (2.5e3, 2500),
        ("17", 17),
        ("3 B", 3),
        ("2KiB", 2048),
        ("1.5 MiB", 3 * 2**19),
        ("512mib", 2**29),
        ("2 GB", 2 * 10**9),
        ("1 GiB", 2**30),
        ("0.5TB", 5 * 10**11),
        ("1 TiB", 2**40),
    ],
)
def test_budget_is_read(given, expected):
    with mercer.config.override(memory_budget=given):
        assert mercer.config.memory_budget == expected


@pytest.mark.parametrize(
    "given", ["", "GiB", "much", "1 PiB", "-1", "0", 0, -5, 0.5, float("inf"), float("nan"), "nan"]
)
def test_budget_that_is_no_size_is_refused(given):
    before = mercer.config.memory_budget
    with pytest.raises(ValueError, match="memory_budget: expected"):
        mercer.config.memory_budget = given
    assert mercer.config.memory_budget == before


@pytest.mark.parametrize("given", [None, True, [1], b"1"])
def test_budget_of_the_wrong_type_is_refused(given):
    with pytest.raises(TypeError, match="memory_budget: expected a number of bytes or a text"):
        mercer.config.memory_budget = given


def test_override_comes_back_after_an_error():
    before = mercer.config.memory_budget
    with pytest.raises(RuntimeError, match="inside"), mercer.config.override(memory_budget=1000):
        assert mercer.config.memory_budget == 1000
        raise RuntimeError("inside")
    assert mercer.config.memory_budget == before


def test_a_misspelt_setting_is_an_error():
    with pytest.raises(AttributeError, match="memory_budgte"):
        mercer.config.memory_budgte = 1


def test_default_is_a_quarter_of_what_is_free(monkeypatch):
    monkeypatch.delenv("MERCER_MEMORY_BUDGET", raising=False)
    monkeypatch.setattr("mercer._core.config.available_memory", lambda: 4000)
    assert Config().memory_budget == 1000


def test_environment_variable_sets_the_budget():
    code = "import mercer; print(mercer.config.memory_budget)"
    environment = {**os.environ, "MERCER_MEMORY_BUDGET": "3 MiB"}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == 3 * 2**20


def test_memory_of_a_container(tmp_path):
    assert _free_in_container(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("300\n")
    assert _free_in_container(tmp_path) == float("inf")
    (tmp_path / "memory.max").write_text("1000\n")
    assert _free_in_container(tmp_path) == 700
    (tmp_path / "memory.max").write_text("200\n")
    assert _free_in_container(tmp_path) == 0


def test_memory_is_measured():
    before = resident_memory()
    block = bytearray(os.urandom(1)) * 2**26  # written, hence resident
    grown = resident_memory() - before
    assert 2**25 < grown < 2**28
    assert len(block) == 2**26
    assert 0 < available_memory() < 2**50


def test_error_says_need_rest_and_option(monkeypatch):
    monkeypatch.setattr("mercer._core.config.resident_memory", lambda: 2**29)
    with mercer.config.override(memory_budget="1 GiB"):
        require_memory(2**29, "a matrix", "use blocks")  # exactly what is left
        with pytest.raises(MemoryError) as caught:
            require_memory(3 * 2**30, "the Gram matrix (20000, 20000)", "pass block_size")
    assert str(caught.value) == (
        "the Gram matrix (20000, 20000) needs 3.00 GiB, but 0.50 GiB of the memory budget "
        "(1.00 GiB) is left: pass block_size, or raise mercer.config.memory_budget"
    )


def test_error_when_the_budget_is_overdrawn(monkeypatch):
    monkeypatch.setattr("mercer._core.config.resident_memory", lambda: 2**31)
    with (
        mercer.config.override(memory_budget="100 MiB"),
        pytest.raises(MemoryError, match=r"needs 1\.0 MiB, but 0\.0 MiB of .*\(100\.0 MiB\)"),
    ):
        require_memory(2**20, "a block", "use less")


def test_block_rows_fit_half_of_the_rest(monkeypatch):
    monkeypatch.setattr("mercer._core.config.resident_memory", lambda: 1000)
    with mercer.config.override(memory_budget=3000):
        assert block_rows(10, most=10**6) == 100
        assert block_rows(10, most=50) == 50
        assert block_rows(10**9, most=50) == 1
        assert block_rows(10**9, most=50, least=8) == 8
