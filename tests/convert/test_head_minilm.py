"""A bundled head on a real Transformer: MiniLM, its pooler and a classifier trained on SST-2."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mercer.convert import bundle_head, load

pytestmark = pytest.mark.slow
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


class Classifier(nn.Module):
    """What transformers' BertForSequenceClassification computes, on a given encoder."""

    def __init__(self, encoder: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, **batch: Tensor) -> Tensor:
        return self.head(self.encoder(**batch).last_hidden_state[:, 0])


@torch.no_grad()
def first_tokens(minilm, texts):
    """Return what the head reads, (n, 384), and the order of the texts in the batches."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    batches = minilm.batches(texts)
    return torch.cat([minilm.dense(**b).last_hidden_state[:, 0] for b in batches]), order


@pytest.mark.paper(
    "core-scalable-neural-network-kernels",
    kind="behaviour",
    claim="At a quarter of its numbers, in closed form, a head of MiniLM (pooler and classifier) "
    "keeps its accuracy on SST-2 within 1 point.",
)
def test_a_quarter_of_the_head_keeps_the_accuracy(minilm_folder, shared_data, tmp_path, evidence):
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from _minilm import MiniLM, sentences
    finally:
        sys.path.remove(str(BENCHMARKS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERCER_DATA", str(shared_data))
        data = sentences(calibration=512, probe=1500)
    minilm = MiniLM()
    (train, order), (test, test_order) = (
        first_tokens(minilm, part[0]) for part in (data.probe_train, data.probe_test)
    )
    labels = torch.tensor([int(data.probe_train[1][i]) for i in order])
    truth = torch.tensor([int(data.probe_test[1][i]) for i in test_order])

    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(384, 384), nn.Tanh(), nn.Dropout(0.1), nn.Linear(384, 2))
    head[0].load_state_dict(minilm.dense.pooler.dense.state_dict())
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.1)
    for _ in range(10):
        for rows in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(head(train[rows]), labels[rows]).backward()
            optimizer.step()

    model = Classifier(minilm.dense, head).eval()
    bundled = bundle_head(model, minilm.batches(data.calibration), num_features=96)
    assert bundled.report.blocks[0].name == "head.0"
    share = bundled.report.stored_after / bundled.report.stored_before
    evidence(what="stored numbers", required="<= 0.26", measured=share)
    assert share <= 0.26
    with torch.no_grad():
        smaller = bundled.model.get_submodule("head")
        before, after = head(test).argmax(-1), smaller(test).argmax(-1)
    dense = float((before == truth).double().mean())
    lost = 100 * (dense - float((after == truth).double().mean()))
    same = float((before == after).double().mean())
    evidence(what=f"points below dense ({100 * dense:.2f} %)", required="<= 1.0", measured=lost)
    evidence(what="equal labels on the test set", required=">= 0.97", measured=same)
    assert lost <= 1.0 and same >= 0.97

    bundled.save_pretrained(tmp_path / "saved")
    loaded = load(tmp_path / "saved", model)
    batch = minilm.batches(data.calibration[:8])[0]
    with torch.no_grad():
        assert torch.equal(loaded(**batch), bundled.model(**batch))
