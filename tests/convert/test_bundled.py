"""The report, and what saving writes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from mercer.convert import BlockReport, BundleReport, Skipped, bundle, load, solve
from mercer.convert.bundled import report_from_dict, stored_numbers
from tests.convert.models import chain, encoder, inputs, same


@pytest.fixture
def bundled():
    return bundle(chain(5, 24, 20, 3), inputs(100, 5))


class TestReport:
    def test_as_text(self, bundled):
        text = str(bundled.report)
        one, two = bundled.report.blocks
        total = f"2 blocks, {bundled.report.stored_before:,} numbers -> "
        assert text.startswith(total + f"{bundled.report.stored_after:,}; model ")
        assert f"  0: 5 -> 24 -> 20, {one.num_features} features, R2 {one.r2:.3f}\n" in text
        # The second block starts with what is left of the first.
        assert f"  2: {one.num_features} -> 20 -> 3, {two.num_features} features" in text
        assert text.endswith("  not 4: its output is an output of the model")

    def test_a_dry_run_has_no_fit(self):
        report = bundle(chain(5, 24, 3), inputs(100, 5), dry_run=True).report
        assert "R2" not in str(report)
        assert report.blocks[0].r2 is None and report.blocks[0].ridge is None

    def test_seconds(self, bundled):
        assert all(0 < block.seconds < 60 for block in bundled.report.blocks)

    @pytest.mark.parametrize("r2", [0.8, -3.0, None])
    def test_plot(self, bundled, r2):
        matplotlib = pytest.importorskip("matplotlib")
        matplotlib.use("agg")
        from matplotlib import pyplot as plt

        block = BlockReport("0", "GELU", 4, 8, 4, 3, 76, 31, r2=r2)
        report = BundleReport((block,) * 3, (), 0.5, "neuron", "leverage", False, 228, 93, 300, 165)
        ax = report.plot()
        assert [bar.get_height() for bar in ax.patches] == [r2 or 0.0] * 3
        low, high = ax.get_ylim()
        assert low <= (r2 or 0.0) and high == 1
        assert "41%" in ax.get_title()
        other = plt.figure().add_subplot()
        assert report.plot(other) is other
        plt.close("all")

    def test_survives_json(self, bundled, tmp_path):
        bundled.save_pretrained(tmp_path / "saved")
        config = json.loads((tmp_path / "saved" / "config.json").read_text())
        assert report_from_dict(config["report"]) == bundled.report
        assert isinstance(report_from_dict(config["report"]).skipped[0], Skipped)


class TestStoredNumbers:
    def test_each_tensor_once(self):
        layer = nn.Linear(4, 4)
        assert stored_numbers(nn.Sequential(layer, layer)) == 20
        assert stored_numbers(layer, layer) == 20
        tied = nn.Linear(4, 4)
        tied.weight = layer.weight
        assert stored_numbers(layer, tied) == 16 + 4 + 4

    def test_buffers_that_are_saved_count(self):
        layer = nn.BatchNorm1d(5)
        layer.register_buffer("scratch", torch.ones(9), persistent=False)
        assert stored_numbers(layer) == 4 * 5 + 1


_SAVE = """
import sys
from mercer._core.saving import load_state, save_state
config, state = load_state(sys.argv[1])
state = {name: tensor + 1 for name, tensor in state.items()}
del config["tied"]
for time in range(1000):
    save_state(sys.argv[1], config, state)
    print("saved", flush=True)
"""


class TestFolder:
    def test_holds_two_files_and_no_pickle(self, bundled, tmp_path):
        bundled.save_pretrained(tmp_path / "saved")
        names = {path.name for path in (tmp_path / "saved").iterdir()}
        assert names == {"config.json", "model.safetensors"}
        assert [path.name for path in tmp_path.iterdir()] == ["saved"]
        for path in (tmp_path / "saved").iterdir():
            assert b"\x80\x04" not in path.read_bytes()[:64]
            assert not path.read_bytes().startswith(b"PK")

    def test_one_that_exists_is_replaced(self, bundled, tmp_path):
        other = bundle(chain(6, 10, 4), inputs(100, 6))
        other.save_pretrained(tmp_path / "saved")
        (tmp_path / "saved" / "notes.txt").write_text("mine")
        bundled.save_pretrained(tmp_path / "saved")
        assert same(load(tmp_path / "saved").state_dict(), bundled.model.state_dict())
        assert (tmp_path / "saved" / "notes.txt").read_text() == "mine"

    def test_not_over_a_file(self, bundled, tmp_path):
        (tmp_path / "saved").write_text("mine")
        with pytest.raises(NotADirectoryError, match="folder"):
            bundled.save_pretrained(tmp_path / "saved")
        assert (tmp_path / "saved").read_text() == "mine"

    def test_what_was_changed_after_bundling_is_saved(self, bundled, tmp_path):
        bundled.model.to(torch.float32)
        with torch.no_grad():
            bundled.model[0].weight.mul_(2)
        bundled.save_pretrained(tmp_path / "saved")
        again = load(tmp_path / "saved")
        assert same(again.state_dict(), bundled.model.state_dict())
        assert again[0].weight.dtype == torch.float32

    def test_an_activation_without_a_name_matters_only_here(self, tmp_path):
        net = encoder(1, activation=lambda z: z.clamp(-1, 1))
        plain = bundle(net, inputs(20, 5, 8))
        plain.save_pretrained(tmp_path / "plain")
        placed = bundle(net, inputs(20, 5, 8), affine=True, inplace=True)
        with pytest.raises(ValueError, match=r"activation: the callable .* cannot be saved"):
            placed.save_pretrained(tmp_path / "placed")
        assert not (tmp_path / "placed").exists()

    @pytest.mark.parametrize("delay", [0.0, 0.05])
    def test_a_save_that_is_killed_leaves_a_whole_model(self, bundled, tmp_path, delay):
        bundled.save_pretrained(tmp_path / "saved")
        old = bundled.model.state_dict()
        process = subprocess.Popen(
            [sys.executable, "-c", _SAVE, str(tmp_path / "saved")], stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"saved\n"
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        found = load(tmp_path / "saved").state_dict()
        whole = [old, {name: tensor + 1 for name, tensor in old.items()}]
        assert any(same(found, state) for state in whole)


def test_solved_models_save_too(tmp_path):
    solved = solve(chain(5, 8, 3), inputs(60, 5), inputs(60, 3), generator=0)
    solved.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved")
    assert torch.equal(again(inputs(4, 5)), solved.model(inputs(4, 5)))
