"""Where named data sets are looked for."""

import pytest

from mercer.datasets import find, sst2


def test_a_folder_of_mercer_data_is_found(tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    monkeypatch.setenv("MERCER_DATA", str(tmp_path))
    assert find("films") == tmp_path / "films"
    with pytest.raises(FileNotFoundError, match="name: no data set 'songs'"):
        find("songs")


def test_without_the_variable_the_error_names_it(monkeypatch):
    monkeypatch.delenv("MERCER_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match="MERCER_DATA is not set"):
        find("films")


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc"])
def test_only_plain_names(name):
    with pytest.raises(ValueError, match="name: expected the plain name"):
        find(name)


def test_sst2_has_its_published_sizes(shared_data, monkeypatch):
    monkeypatch.setenv("MERCER_DATA", str(shared_data))
    for split, size in (("train", 6920), ("dev", 872), ("test", 1821)):
        texts = sst2(split)
        assert len(texts) == len(texts.labels or ()) == size
        assert set(texts.labels or ()) == {"0", "1"}
    with pytest.raises(ValueError, match="split: expected one of"):
        sst2("validation")
