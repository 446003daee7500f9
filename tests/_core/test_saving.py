"""Saving: no pickle, nothing half written, nothing loaded that does not belong."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mercer._core.saving import (
    CONFIG_FILE,
    FORMAT_VERSION,
    WEIGHTS_FILE,
    Saveable,
    load_state,
    save_state,
    untie,
    write_folder,
    write_text,
)

OLD = {"class": "nn.Some", "config": {"size": 2}}
NEW = {"class": "nn.Some", "config": {"size": 3}}


def save(folder, config, value):
    return save_state(folder, config, {"weight": torch.full((3, 2), value)})


def text_of(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def broken(path):
    path.write_text("half of i")
    raise OSError("disk full")


def test_new_folder_appears_whole(tmp_path):
    target = tmp_path / "a" / "b"
    write_folder(target, {"x.txt": write_text("é"), "sub/y.txt": write_text("y")})
    assert (target / "x.txt").read_bytes() == "é".encode()
    assert (target / "sub" / "y.txt").read_text() == "y"
    assert [path.name for path in target.parent.iterdir()] == ["b"]


def test_new_folder_has_the_usual_mode(tmp_path):
    (tmp_path / "plain").mkdir()
    write_folder(tmp_path / "written", {"x.txt": write_text("x")})
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "written")}
    assert len(modes) == 1


def test_failed_writer_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk full"):
        write_folder(tmp_path / "new", {"x.txt": write_text("x"), "y.txt": broken})
    assert list(tmp_path.iterdir()) == []


def test_failed_writer_leaves_the_old_files(tmp_path):
    target = write_folder(tmp_path / "old", {"x.txt": write_text("x"), "y.txt": write_text("y")})
    (target / "kept.txt").write_text("the user's")
    with pytest.raises(OSError, match="disk full"):
        write_folder(target, {"x.txt": write_text("new"), "y.txt": broken})
    assert text_of(target) == {"x.txt": "x", "y.txt": "y", "kept.txt": "the user's"}
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    write_folder(target, {"x.txt": write_text("new")})
    assert text_of(target) == {"x.txt": "new", "y.txt": "y", "kept.txt": "the user's"}


def test_keyboard_interrupt_leaves_nothing(tmp_path):
    def interrupted(path):
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "new", {"x.txt": interrupted})
    assert list(tmp_path.iterdir()) == []


def test_target_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"folder: .*file exists and is not a directory"):
        write_folder(tmp_path / "file", {"x.txt": write_text("x")})


def test_state_round_trip(tmp_path):
    state = {
        "a": torch.randn(3, 4, dtype=torch.float64),
        "b": torch.randn(4, 3).T,  # not contiguous
        "c": torch.tensor(2.5, dtype=torch.bfloat16),
        "d": torch.tensor([True, False]),
        "e": torch.zeros(0, 3),
    }
    save_state(tmp_path / "m", OLD, state)
    config, loaded = load_state(tmp_path / "m")
    assert config["class"] == "nn.Some" and config["config"] == {"size": 2}
    assert loaded.keys() == state.keys()
    for name in state:
        assert loaded[name].dtype == state[name].dtype and torch.equal(loaded[name], state[name])


def test_no_pickle_is_written(tmp_path):
    save(tmp_path / "m", OLD, 1.0)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
    assert json.loads((tmp_path / "m" / CONFIG_FILE).read_text())["format"] == "mercer"
    assert load_file(tmp_path / "m" / WEIGHTS_FILE).keys() == {"weight"}


def test_tied_tensors_are_stored_once():
    shared = torch.randn(3, 2)
    state = {"x": shared, "y": shared, "row": shared[0], "turned": shared.T, "own": shared.clone()}
    tensors, tied = untie(state)
    assert tied == {"y": "x"} and tensors.keys() == {"x", "row", "turned", "own"}
    pointers = {tensor.data_ptr() for tensor in tensors.values()}
    assert len(pointers) == 4
    assert torch.equal(tensors["turned"], shared.T)


def test_tied_names_come_back(tmp_path):
    shared = torch.randn(3)
    save_state(tmp_path / "m", OLD, {"x": shared, "y": shared})
    _, state = load_state(tmp_path / "m")
    assert torch.equal(state["x"], shared) and state["y"] is state["x"]


def test_meta_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="state: weight is on the meta device"):
        save_state(tmp_path / "m", OLD, {"weight": torch.empty(2, device="meta")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_missing_file_is_named(tmp_path, name):
    folder = save(tmp_path / "m", OLD, 1.0)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"folder: .* holds no {name}"):
        load_state(folder)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder: .*nowhere holds no"):
        load_state(tmp_path / "nowhere")


@pytest.mark.parametrize("length", [0, 5, 40, -3])
def test_truncated_weights_are_refused(tmp_path, length):
    folder = save(tmp_path / "m", OLD, 1.0)
    weights = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(weights[:length])
    with pytest.raises(ValueError, match=r"folder: .*model\.safetensors is damaged"):
        load_state(folder)


@pytest.mark.parametrize("metadata", [None, {"config": "{"}, {"config": '{"format": "other"}'}])
def test_weights_of_others_are_refused(tmp_path, metadata):
    folder = save(tmp_path / "m", OLD, 1.0)
    save_file({"weight": torch.zeros(2)}, folder / WEIGHTS_FILE, metadata=metadata)
    with pytest.raises(ValueError, match=r"folder: .* was not written by Mercer"):
        load_state(folder)


def test_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("mercer._core.saving.FORMAT_VERSION", FORMAT_VERSION + 1)
    folder = save(tmp_path / "m", OLD, 1.0)
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=f"version {FORMAT_VERSION + 1}, .* up to {FORMAT_VERSION}"
    ):
        load_state(folder)


def test_config_that_does_not_belong_to_the_weights(tmp_path):
    folder = save(tmp_path / "m", OLD, 1.0)
    other = save(tmp_path / "other", NEW, 2.0)
    (other / CONFIG_FILE).replace(folder / CONFIG_FILE)
    with pytest.warns(UserWarning, match=r"config\.json in .* is not the one that model"):
        config, state = load_state(folder)
    assert config["config"] == OLD["config"] and state["weight"][0, 0] == 1.0


_KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from mercer._core.saving import save_state

folder, point = sys.argv[1], int(sys.argv[2])
count = 0

def kill_at_the_point(event, args):
    # Every step that changes the disk is one audit event; die right before one of them.
    global count
    ours = {"os.rename", "os.mkdir", "open", "os.remove", "os.rmdir"}
    if event in ours and str(Path(folder).parent) in str(args[0]):
        if count == point:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1

sys.addaudithook(kill_at_the_point)
config = {"class": "nn.Some", "config": {"size": 3}}
save_state(folder, config, {"weight": torch.full((3, 2), 2.0)})
print("done")
"""


def killed_save(folder, point):
    return subprocess.run(
        [sys.executable, "-c", _KILLED, str(folder), str(point)], capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("exists", [True, False], ids=["replace", "new"])
def test_kill_at_any_step_leaves_the_old_or_the_new(tmp_path, exists):
    seen = []
    for point in range(40):
        folder = tmp_path / str(point) / "m"
        folder.parent.mkdir()
        if exists:
            save(folder, OLD, 1.0)
        result = killed_save(folder, point)
        assert result.returncode in (0, -signal.SIGKILL), result.stderr
        if not exists and not folder.exists():
            seen.append("nothing")
        else:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("mercer._core.saving.warnings.warn", lambda *args, **more: None)
                config, state = load_state(folder)  # loads, whatever happened
            value = state["weight"][0, 0].item()
            assert config["config"]["size"] == {1.0: 2, 2.0: 3}[value]
            seen.append({1.0: "old", 2.0: "new"}[value])
        if result.returncode == 0:
            break
    before = "old" if exists else "nothing"
    assert result.returncode == 0 and seen[-1] == "new"
    assert seen.count(before) >= 4 and seen == sorted(seen, key=lambda name: name == "new")


_SLOW_WRITER = """
import sys, time
from mercer._core.saving import write_folder

def write(path):
    with path.open("w") as file:
        file.write("half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)

write_folder(sys.argv[1], {"x.txt": write})
"""


@pytest.mark.parametrize(("sent", "leftovers"), [(signal.SIGKILL, 1), (signal.SIGINT, 0)])
def test_signal_while_a_file_is_written(tmp_path, sent, leftovers):
    folder = write_folder(tmp_path / "m", {"x.txt": write_text("old")})
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_WRITER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.05)
        os.kill(process.pid, sent)
    assert process.returncode != 0
    assert text_of(folder) == {"x.txt": "old"}
    assert len(list(tmp_path.iterdir())) == 1 + leftovers


class _Thing(Saveable):
    """A module with two dtypes, tied weights and a buffer."""

    def __init__(self, size):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.randn(size))
        self.inner = nn.Module()
        self.inner.same = self.weight
        self.register_buffer("fine", torch.randn(size, dtype=torch.float64))
        self.register_buffer("signs", torch.tensor([True, False]))

    def _config(self):
        return {"size": self.size}

    @classmethod
    def _from_config(cls, config):
        return cls(**config)


class _Other(_Thing):
    """Something else that is saved."""


@pytest.fixture
def room(monkeypatch):
    """Let the two classes above live in the room `features`."""
    import mercer.features

    for kind in (_Thing, _Other):
        monkeypatch.setattr(kind, "__module__", "mercer.features.thing")
        monkeypatch.setattr(mercer.features, kind.__name__, kind, raising=False)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_module_comes_back(tmp_path, dtype):
    module = _Thing(4).to(dtype)
    module.fine = torch.randn(4, dtype=torch.float64)
    module.weight.requires_grad_(True)
    module.save_pretrained(tmp_path / "m")
    again = Saveable.from_pretrained(tmp_path / "m")
    assert type(again) is _Thing and not again.training
    assert again.weight.dtype == dtype and again.fine.dtype == torch.float64
    assert again.weight.requires_grad and isinstance(again.weight, nn.Parameter)
    for name, tensor in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert again.inner.same is again.weight
    assert sorted(dict(again.named_buffers())) == ["fine", "signs"]


@pytest.mark.usefixtures("room")
def test_loading_leaves_the_global_state_alone_after_the_build(tmp_path):
    _Thing(4).save_pretrained(tmp_path / "m")
    first, second = (_Thing.from_pretrained(tmp_path / "m") for _ in range(2))
    assert torch.equal(first.fine, second.fine)


@pytest.mark.usefixtures("room")
def test_wrong_class_is_refused(tmp_path):
    _Thing(4).save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match=r"config: 'features\._Thing' is not a _Other of Mercer"):
        _Other.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    "name", ["nn.Linear", "os.system", "features.torch", "features.NoSuch", "", "_core.Saveable"]
)
def test_class_that_is_not_mercers_is_refused(tmp_path, name):
    save(tmp_path / "m", {"class": name, "dtype": "float32", "config": {}}, 1.0)
    with pytest.raises(ValueError, match=f"config: '{name}' is not a Saveable of Mercer"):
        Saveable.from_pretrained(tmp_path / "m")


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("dtype", ["load", "float33", None])
def test_dtype_that_is_none_is_refused(dtype):
    config = {"class": "features._Thing", "dtype": dtype, "config": {"size": 2}}
    with pytest.raises(ValueError, match=r"config: .* is not a dtype of torch"):
        Saveable.build(config)


def test_files_are_as_readable_as_the_umask_says(tmp_path):
    (tmp_path / "plain").touch()
    expected = (tmp_path / "plain").stat().st_mode
    save_state(tmp_path / "saved", {"class": "x"}, {"a": torch.ones(2)})
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "saved" / name).stat().st_mode == expected
