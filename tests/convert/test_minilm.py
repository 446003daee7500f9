"""The main job on a real Transformer: MiniLM's feed-forward blocks, calibration alone."""

import sys
from pathlib import Path

import pytest
import torch

from mercer.cli.probe import paired_interval, probe
from mercer.convert import bundle, load

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def measured(minilm_folder, shared_data):
    """MiniLM, sentences, and dense embeddings of 5,000 training and all test sentences."""
    pytest.importorskip("transformers")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from _minilm import MiniLM, sentences
    finally:
        sys.path.remove(str(BENCHMARKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERCER_DATA", str(shared_data))
        data = sentences(calibration=1000, probe=5000)
    minilm = MiniLM()
    train, test = (
        minilm.embed(minilm.dense, part[0]) for part in (data.probe_train, data.probe_test)
    )
    return minilm, data, train, test


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="behaviour",
    claim="MiniLM with all feed-forward blocks at half their numbers keeps the accuracy of a "
    "linear probe on SST-2 within 1 point, after closed-form calibration alone",
)
def test_half_of_the_feed_forward_numbers_keep_the_probe(measured, evidence):
    minilm, data, train, test = measured
    bundled = bundle(minilm.dense, minilm.batches(data.calibration), keep=0.5)
    assert len(bundled.report.blocks) == 6
    assert bundled.report.stored_after <= 0.5 * bundled.report.stored_before
    smaller_train, smaller_test = (
        minilm.embed(bundled.model, part[0]) for part in (data.probe_train, data.probe_test)
    )
    cosine = float(torch.nn.functional.cosine_similarity(smaller_test, test).mean())
    evidence(what="mean cosine to the dense embeddings", required="> 0.947", measured=cosine)
    assert cosine > 0.947

    dense = probe(train, data.probe_train[1], test, data.probe_test[1])
    right = probe(smaller_train, data.probe_train[1], smaller_test, data.probe_test[1])
    below = 100 * (sum(dense) - sum(right)) / len(dense)
    low, high = paired_interval(right, dense, seed=0)
    evidence(
        what=f"points below dense ({100 * sum(dense) / len(dense):.2f} %), "
        f"95 % interval [{-100 * high:.2f}, {-100 * low:.2f}]",
        required="<= 1.0",
        measured=below,
    )
    assert below <= 1.0


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="behaviour",
    claim="Neurons chosen by leverage beat blind features of the same size, ridge and data",
)
def test_chosen_neurons_beat_blind_ones_at_a_quarter(measured, evidence):
    minilm, data, _, test = measured
    calibration = minilm.batches(data.calibration)
    cosine, r2 = {}, {}
    for projection in ("leverage", "orthogonal"):
        bundled = bundle(minilm.dense, calibration, keep=0.25, projection=projection, generator=0)
        embeddings = minilm.embed(bundled.model, data.probe_test[0])
        cosine[projection] = float(torch.nn.functional.cosine_similarity(embeddings, test).mean())
        r2[projection] = min(block.r2 or 0.0 for block in bundled.report.blocks)
    evidence(what="cosine at a quarter", required="> 0.879", measured=cosine["leverage"])
    evidence(
        what="least R2 of a block, leverage minus blind",
        required="> 0.1",
        measured=r2["leverage"] - r2["orthogonal"],
    )
    assert cosine["leverage"] > 0.879
    assert r2["leverage"] - r2["orthogonal"] > 0.1


def test_a_bundled_minilm_reloads_bitwise(measured, tmp_path):
    minilm, data, _, _ = measured
    batches = minilm.batches(data.calibration[:64])
    bundled = bundle(minilm.dense, batches, keep=0.25)
    bundled.save_pretrained(tmp_path / "bundled")
    again = load(tmp_path / "bundled")
    with torch.no_grad():
        assert torch.equal(
            again(**batches[0]).last_hidden_state, bundled.model(**batches[0]).last_hidden_state
        )
