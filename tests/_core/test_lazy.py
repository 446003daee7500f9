"""Rooms that load on first use."""

import sys

import pytest

from mercer._core.lazy import lazy_rooms


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "house_of_tests"
    (folder / "kitchen").mkdir(parents=True)
    (folder / "kitchen" / "__init__.py").write_text("oven = 'hot'\n")
    (folder / "__init__.py").write_text(
        "from mercer._core.lazy import lazy_rooms\n"
        "door = 'open'\n"
        "__getattr__, __dir__ = lazy_rooms(__name__, ('kitchen',))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("house_of_tests")
    for name in [name for name in sys.modules if name.startswith("house_of_tests")]:
        del sys.modules[name]


def test_room_loads_on_first_use(package):
    assert "house_of_tests.kitchen" not in sys.modules
    assert {"kitchen", "door"} <= set(dir(package))
    assert "house_of_tests.kitchen" not in sys.modules
    assert package.kitchen.oven == "hot"
    assert "house_of_tests.kitchen" in sys.modules


def test_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="'house_of_tests' has no attribute 'cellar'"):
        _ = package.cellar


def test_room_that_is_missing_is_an_import_error():
    getattr_, _ = lazy_rooms("mercer", ("cellar",))
    with pytest.raises(ModuleNotFoundError, match=r"mercer\.cellar"):
        getattr_("cellar")
