"""All six feed-forward blocks of MiniLM bundled without a gradient step: what is kept, how fast.

Calibrated on at most 1,000 SST-2 training sentences. Quality: a logistic-regression probe on
mean-pooled embeddings (5,000 other training sentences, the whole test set, paired bootstrap
interval) and the mean cosine to the dense embeddings. Beside it a blind baseline of the same
stored size and ridge: act(Gx + c) with orthogonal G. Speed: batch 32, 64 tokens, interleaved
medians, at several thread counts.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from _minilm import MiniLM, Sentences, sentences
from torch import nn

from mercer.cli.environment import describe_environment
from mercer.cli.probe import paired_interval, probe
from mercer.cli.timing import interleaved
from mercer.convert import bundle

RUNS = {  # name: arguments of bundle
    "neurons by leverage, half": {"keep": 0.5},
    "neurons by leverage, quarter": {"keep": 0.25},
    "neurons by k-DPP, half": {"keep": 0.5, "projection": "dpp"},
    "blind orthogonal, half": {"keep": 0.5, "projection": "orthogonal"},
}
TIMED = ("neurons by leverage, half", "neurons by leverage, quarter")


def quality(minilm: MiniLM, data: Sentences) -> tuple[list[dict[str, Any]], dict[str, nn.Module]]:
    """Accuracy of the probe and cosine to dense, one row a model; and the models."""
    calibration = minilm.batches(data.calibration)
    models: dict[str, nn.Module] = {"dense": minilm.dense}
    rows: list[dict[str, Any]] = []
    right: dict[str, list[float]] = {}
    reference = None
    for name, arguments in {"dense": None, **RUNS}.items():
        row: dict[str, Any] = {"model": name}
        if arguments is not None:
            bundled = bundle(minilm.dense, calibration, generator=0, **arguments)
            models[name] = bundled.model
            report = bundled.report
            row |= {
                "ffn_stored": report.stored_after,
                "model_stored": report.model_after,
                "r2": [round(block.r2, 4) for block in report.blocks],
                "calibration_tokens": report.blocks[0].rows,
                "seconds": round(sum(block.seconds for block in report.blocks), 1),
            }
        train = minilm.embed(models[name], data.probe_train[0])
        test = minilm.embed(models[name], data.probe_test[0])
        right[name] = probe(train, data.probe_train[1], test, data.probe_test[1])
        row["accuracy"] = 100 * sum(right[name]) / len(right[name])
        if reference is None:
            reference = test
        else:
            row["cosine"] = float(nn.functional.cosine_similarity(test, reference).mean())
            low, high = paired_interval(right[name], right["dense"], seed=0)
            row["points_below_dense"] = rows[0]["accuracy"] - row["accuracy"]
            row["interval"] = [-100 * high, -100 * low]
        rows.append(row)
        print(_line(row), flush=True)
    first = bundle(minilm.dense, calibration[:1], dry_run=True).report
    rows[0] |= {"ffn_stored": first.stored_before, "model_stored": first.model_before}
    return rows, models


def _line(row: dict[str, Any]) -> str:
    text = f"{row['model']:30s} probe {row['accuracy']:6.2f} %"
    if "cosine" in row:
        low, high = row["interval"]
        r2 = ", ".join(f"{value:.2f}" for value in row["r2"])
        text += (
            f"  below dense {row['points_below_dense']:+.2f} [{low:+.2f}, {high:+.2f}]"
            f"  cosine {row['cosine']:.4f}  R2 {r2}"
        )
    return text


@torch.no_grad()
def speed(minilm: MiniLM, models: dict[str, nn.Module], threads: int) -> list[dict[str, Any]]:
    """Time of the six feed-forward blocks and of the whole model, batch 32, 64 tokens."""
    torch.set_num_threads(threads)
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (32, 64), generator=source)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    hidden = torch.randn(32, 64, 384, generator=source)

    def blocks(model: nn.Module) -> None:
        for layer in model.encoder.layer:
            layer.output.dense(layer.intermediate(hidden))

    ffn = interleaved({n: lambda m=m: blocks(m) for n, m in models.items()}, seconds=12, least=15)
    whole = interleaved({n: lambda m=m: m(**inputs) for n, m in models.items()}, 20, least=15)
    rows = []
    for name in models:
        row = {"model": name, "threads": threads}
        for part, times in (("ffn", ffn), ("whole", whole)):
            row[f"{part}_ms"] = 1000 * times[name]["median"]
            row[f"{part}_faster"] = times["dense"]["median"] / times[name]["median"]
        rows.append(row)
        print(
            f"{threads} threads  {name:30s} feed-forward {row['ffn_ms']:7.1f} ms "
            f"({row['ffn_faster']:.2f}x)  whole {row['whole_ms']:7.1f} ms "
            f"({row['whole_faster']:.2f}x)",
            flush=True,
        )
    return rows


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--threads", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--calibration", type=int, default=1000)
    parser.add_argument("--speed-only", action="store_true", help="few sentences, no probe")
    args = parser.parse_args()
    minilm = MiniLM()
    rows: list[dict[str, Any]] = []
    timed: dict[str, nn.Module] = {"dense": minilm.dense}
    if args.speed_only:  # times depend on sizes, not on what was fitted
        calibration = minilm.batches(sentences(calibration=64).calibration)
        for name in TIMED:
            timed[name] = bundle(minilm.dense, calibration, generator=0, **RUNS[name]).model
    else:
        rows, models = quality(minilm, sentences(calibration=args.calibration))
        timed |= {name: models[name] for name in TIMED}
    times = [row for threads in args.threads for row in speed(minilm, timed, threads)]
    if args.json:
        result = {"quality": rows, "speed": times, "environment": describe_environment()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
