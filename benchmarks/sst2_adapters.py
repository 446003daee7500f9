"""MiniLM fine-tuned on 3,000 SST-2 sentences: SNNK adapters beside LoRA, VeRA and others.

Mean-pooled MiniLM with a linear head. The learning rate of each method is chosen among four on
the development set (872), the test set (1,821) is read once for each of three seeds. Prints
trained numbers and stored bytes without the head, test accuracy, the difference to LoRA with its
paired bootstrap interval over sentences and seeds, and the time of a step. Finished runs are kept
in out/benchmarks/sst2_adapters; run it again to go on, or twice at once to share the work (the
second with ``--work-only``). ``--json FILE`` writes the numbers, ``--quick`` tries it out.
"""

import torch
from _adapter_task import Task
from _adapters import digest_of, main
from _minilm import MiniLM
from torch import Tensor, nn

from mercer.datasets import sst2


class PooledClassifier(nn.Module):
    """A linear head on the mean of the last hidden states over the tokens."""

    def __init__(self, body: nn.Module, width: int, seed: int) -> None:
        super().__init__()
        self.body = body
        self.classifier = nn.Linear(width, 2)
        with torch.no_grad():
            source = torch.Generator().manual_seed(seed)
            self.classifier.weight.normal_(std=0.02, generator=source)
            self.classifier.bias.zero_()

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Pool token ids of shape (n, t) to (n, width)."""
        hidden = self.body(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1)  # (n, t, 1)
        return (hidden * mask).sum(1) / mask.sum(1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the scores, (n, 2)."""
        return self.classifier(self.embed(input_ids, attention_mask))


class Sentences(Task):
    """SST-2, tokenized once."""

    name = "sst2_adapters"

    def __init__(self, train: int = 3000, most: int | None = None, epochs: int = 3) -> None:
        self.epochs = epochs
        minilm = MiniLM()
        self._body = minilm.dense
        self._tokens: dict[str, list[Tensor]] = {}
        self._labels: dict[str, Tensor] = {}
        texts = []
        for split in ("train", "dev", "test"):
            data = sst2(split)
            index = range(len(data))[:most]
            if split == "train":
                source = torch.Generator().manual_seed(0)
                index = torch.randperm(len(data), generator=source)[:train].tolist()
            chosen = [data.texts[i] for i in index]
            texts.append(chosen)
            ids = minilm.tokenizer(chosen, truncation=True, max_length=128)["input_ids"]
            self._tokens[split] = [torch.tensor(row) for row in ids]
            self._labels[split] = torch.tensor([int(data.labels[i]) for i in index])
        self._digest = digest_of(texts)

    def spec(self) -> dict[str, object]:
        """Plain values that tell model and data from others."""
        return {"model": "all-MiniLM-L6-v2, mean-pooled", "sentences": self._digest}

    def model(self, seed: int) -> nn.Module:
        """Return MiniLM with a fresh head."""
        from transformers import BertModel

        body = BertModel(self._body.config, add_pooling_layer=False)
        state = self._body.state_dict()
        body.load_state_dict({k: v for k, v in state.items() if not k.startswith("pooler.")})
        return PooledClassifier(body, self._body.config.hidden_size, seed)

    def labels(self, split: str) -> Tensor:
        """Labels, (n,)."""
        return self._labels[split]

    def lengths(self, split: str) -> list[int]:
        """Tokens of each sentence."""
        return [len(row) for row in self._tokens[split]]

    def inputs(self, split: str, index: Tensor) -> dict[str, Tensor]:
        """Pad a batch; MiniLM's padding token is 0."""
        rows = [self._tokens[split][i] for i in index.tolist()]
        pad = nn.utils.rnn.pad_sequence
        return {
            "input_ids": pad(rows, batch_first=True),  # (b, t)
            "attention_mask": pad([torch.ones_like(row) for row in rows], batch_first=True),
        }


if __name__ == "__main__":
    main(
        lambda _: Sentences(),
        lambda _: Sentences(train=64, most=64, epochs=1),
        __doc__.splitlines()[0],
    )
