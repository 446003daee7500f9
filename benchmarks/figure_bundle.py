"""Draw docs/figures/bundle.png: what a feed-forward block keeps at a given size.

R2 of MiniLM's blocks on held-out tokens (mean over six blocks and their outputs) against the
share of stored numbers that is kept, for the methods of `ffn_bundle.py`.
"""

from pathlib import Path
from typing import Any

import torch
from _minilm import MiniLM, sentences
from ffn_bundle import linear, pruned, r2, reaching, refitted, stored, truncated
from torch import nn

from mercer.convert import bundle

KEEPS = (0.125, 0.25, 0.375, 0.5, 0.75)
STYLES: dict[str, dict[str, Any]] = {  # Okabe and Ito's palette, and a marker each
    "SNNK, neurons by leverage (Mercer)": {"color": "#0072B2", "marker": "o"},
    "blind features, same ridge": {"color": "#E69F00", "marker": "s"},
    "truncated SVD": {"color": "#009E73", "marker": "^"},
    "magnitude pruning": {"color": "#CC79A7", "marker": "D"},
    "magnitude pruning, same ridge": {"color": "#56B4E9", "marker": "v"},
}
TARGET = Path(__file__).parents[1] / "docs" / "figures" / "bundle.png"


@torch.no_grad()
def main() -> None:
    """Measure, draw and print."""
    import matplotlib.pyplot as plt

    minilm, data = MiniLM(), sentences(calibration=600)
    values = {name: torch.zeros(len(KEEPS), 6) for name in STYLES}
    for index, layer in enumerate(minilm.dense.encoder.layer):
        first, act, second = (
            layer.intermediate.dense,
            layer.intermediate.intermediate_act_fn,
            layer.output.dense,
        )
        block = nn.Sequential(
            linear(first.weight, first.bias), act, linear(second.weight, second.bias)
        )
        texts = (data.calibration, data.probe_train[0][:200])
        fit, test = (reaching(minilm, part, index) for part in texts)
        for i, keep in enumerate(KEEPS):
            made = {
                "SNNK, neurons by leverage (Mercer)": bundle(block, fit, keep=keep).model,
                "blind features, same ridge": bundle(
                    block, fit, keep=keep, projection="orthogonal", generator=0
                ).model,
                "truncated SVD": truncated(block, keep),
                "magnitude pruning": pruned(block, keep),
                "magnitude pruning, same ridge": refitted(block, pruned(block, keep), fit),
            }
            for name, other in made.items():
                assert stored(other) <= keep * stored(block)
                values[name][i, index] = r2(block, other, test)
        print(f"block {index} done", flush=True)
    figure, ax = plt.subplots(figsize=(8.4, 3.8), layout="constrained")
    for name, style in STYLES.items():
        mean = values[name].mean(1)
        ax.plot([100 * keep for keep in KEEPS], mean, label=name, linewidth=2, **style)
        shown = " ".join(f"{k}: {v:.3f}" for k, v in zip(KEEPS, mean, strict=True))
        print(f"{name:36s} {shown}")
    ax.set_ylim(-0.25, 1)
    ax.set_xlabel("stored numbers, % of the dense block")
    ax.set_ylabel("R² of the block on held-out tokens")
    ax.set_title("MiniLM's feed-forward blocks, made smaller without training")
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.axhline(0, color="black", linewidth=0.8)
    figure.legend(loc="outside right center", frameon=False)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=160)
    print(
        f"wrote {TARGET.relative_to(Path.cwd()) if TARGET.is_relative_to(Path.cwd()) else TARGET}"
    )


if __name__ == "__main__":
    main()
