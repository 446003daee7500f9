"""Draw docs/figures/adapters.png: test accuracy against trained numbers, a panel a task.

From what `sst2_adapters.py` and `vit_adapters.py` wrote with ``--json`` into out/benchmarks.
"""

import json
from pathlib import Path
from typing import Any

from _adapters import OUT

PANELS = {
    "sst2_adapters": "MiniLM on SST-2, 3,000 sentences",
    "vit_adapters": "Small ViT on five new CIFAR-10 classes",
}
STYLES: dict[str, dict[str, Any]] = {  # Okabe and Ito's palette, and a marker each
    "snnk": {"color": "#0072B2", "marker": "o"},
    "lora": {"color": "#E69F00", "marker": "s"},
    "vera": {"color": "#009E73", "marker": "^"},
    "bottleneck": {"color": "#CC79A7", "marker": "D"},
    "bitfit": {"color": "#56B4E9", "marker": "v"},
    "full": {"color": "#D55E00", "marker": "P"},
}
TARGET = Path(__file__).parents[1] / "docs" / "figures" / "adapters.png"


def main() -> None:
    """Draw what has been measured."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(PANELS), figsize=(10.4, 3.9), layout="constrained")
    for ax, (name, title) in zip(axes, PANELS.items(), strict=True):
        path = OUT / f"{name}.json"
        if not path.exists():
            raise SystemExit(f"first: python benchmarks/{name}.py --json {path}")
        rows = {r["method"]: r for r in json.loads(path.read_text(encoding="utf-8"))["rows"]}
        for method, style in STYLES.items():
            row = rows[method]
            ax.errorbar(
                row["trainable"],
                row["accuracy"],
                yerr=row["sd"],
                label=row["title"],
                markersize=9 if method == "snnk" else 7,
                linestyle="none",
                capsize=3,
                **style,
            )
        probe = rows["probe"]["accuracy"]
        ax.axhline(probe, color="black", linestyle="--", linewidth=1, label="linear probe")
        ax.set_xscale("log")
        ax.set_xlabel("trained numbers, without the head")
        ax.set_title(title)
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test accuracy, %: mean and s.d. of 3 seeds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=160)
    print(f"wrote docs/figures/{TARGET.name}")


if __name__ == "__main__":
    main()
