"""MiniLM bundled, then uptrained without labels: what is kept of it, how fast, after how long.

Uptrained on SST-2 training sentences (labels unused), and on sentences made of them, for a number
of steps fixed in advance and at most ``--minutes`` for each size. Quality: mean cosine to the
dense embeddings on the SST-2 test sentences, and a logistic-regression probe (5,000 training
sentences, the whole test set, paired bootstrap interval). Speed: batch 32, 64 tokens, interleaved
medians. Checkpoints are kept under ``--work``; the same command goes on where it was killed.
"""

import argparse
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from _minilm import MiniLM, sentences
from torch import Tensor, nn

import mercer
from mercer.cli.environment import describe_environment
from mercer.cli.probe import paired_interval, probe
from mercer.cli.timing import interleaved
from mercer.convert import allocate, bundle, load, uptrain
from mercer.datasets import sst2

WANTED = {0.5: (0.985, 0.5), 0.25: (0.97, 1.0)}  # share: cosine at least, points below at most
_LONGEST = 48  # words of a sentence that is put together


def recombined(texts: list[str], count: int, vocabulary: list[str], seed: int = 0) -> list[str]:
    """Make sentences from the beginning of one and the end of another, some words replaced."""
    source = random.Random(seed)
    words = [text.split() for text in texts]
    made = []
    for _ in range(count):
        a, b = source.choice(words), source.choice(words)
        new = a[: source.randint(1, len(a))] + b[source.randrange(len(b)) :]
        share = source.choice((0.0, 0.1, 0.25))
        new = [source.choice(vocabulary) if source.random() < share else word for word in new]
        made.append(" ".join(new[:_LONGEST]))
    return made


def training_batches(minilm: MiniLM, more: int, size: int) -> list[dict[str, Tensor]]:
    """Batch the SST-2 training sentences, and as many others made of them as asked for."""
    texts = list(sst2("train").texts)
    # Whole words of the tokenizer: the model is to be the same on words that SST-2 lacks, too.
    vocabulary = sorted(w for w in minilm.tokenizer.get_vocab() if w.isalpha() and len(w) > 1)
    return minilm.batches(texts + recombined(texts, more, vocabulary), size=size)


def make(minilm: MiniLM, keep: float, args: argparse.Namespace) -> dict[str, Any]:
    """Uptrain at one size, or read what an earlier run made."""
    folder = args.work / f"keep-{keep:g}"
    if not (folder / "facts.json").is_file():
        batches = training_batches(minilm, args.more, args.batch_size)
        share: Any = keep
        if args.allocate:
            share = allocate(minilm.dense, batches[:: len(batches) // 32 + 1], keep=keep).keep
        start = time.perf_counter()
        with mercer.config.override(memory_budget=args.memory):
            uptrained = uptrain(
                minilm.dense,
                batches,
                keep=share,
                steps=args.steps,
                learning_rate=args.learning_rate,
                checkpoint=folder / "run",
                progress=True,
            )
        report = uptrained.report
        facts = {
            "steps": args.steps,
            "batch_size": args.batch_size,
            "sentences": sum(len(batch["input_ids"]) for batch in batches),
            "learning_rate": report.learning_rate,
            "trials": [[trial.learning_rate, trial.loss] for trial in report.trials],
            "resumed": report.resumed,
            "training_minutes": report.seconds / 60,
            "minutes": (time.perf_counter() - start) / 60,
            "threads": torch.get_num_threads(),
            "model_stored": report.bundle.model_after,
            "ffn_stored": report.bundle.stored_after,
            "held_out_cosine": [report.before.cosine, report.after.cosine],
        }
        uptrained.save_pretrained(folder / "model")
        (folder / "facts.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(folder / "run")
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return {**facts, "model": load(folder / "model")}


def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--keeps", type=float, nargs="*", default=[0.5, 0.25])
    parser.add_argument("--steps", type=int, default=3000, help="of each uptraining")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--more", type=int, default=7000, help="sentences made besides the 6,920")
    parser.add_argument("--learning-rate", type=float, default=None, help="searched by default")
    parser.add_argument("--allocate", action="store_true", help="a share for each block")
    parser.add_argument("--memory", default="8 GiB", help="for what the dense model gives")
    parser.add_argument("--minutes", type=float, default=10, help="that each size may take")
    default = Path(__file__).parents[1] / "out" / "benchmarks" / "minilm_uptrain"
    parser.add_argument("--work", type=Path, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    minilm, data = MiniLM(), sentences()
    models: dict[str, nn.Module] = {"dense": minilm.dense}
    rows: list[dict[str, Any]] = [{"model": "dense"}]
    calibration = minilm.batches(data.calibration)
    for keep in args.keeps:
        bundled = bundle(minilm.dense, calibration, keep=keep, generator=0)
        uptrained = make(minilm, keep, args)
        report = bundled.report
        rows[0] |= {"ffn_stored": report.stored_before, "model_stored": report.model_before}
        name = f"bundled {keep:g}"
        models[name] = bundled.model
        rows.append(
            {"model": name, "ffn_stored": report.stored_after, "model_stored": report.model_after}
        )
        name = f"uptrained {keep:g}"
        models[name] = uptrained.pop("model")
        rows.append({"model": name, "keep": keep, **uptrained})
    measure(minilm, models, rows)
    for row in rows:
        if "keep" in row:
            cosine, below = WANTED.get(row["keep"], (0.0, 100.0))
            row["met"] = (
                row["cosine"] >= cosine
                and row["points_below_dense"] <= below
                and row["minutes"] <= args.minutes
            )
            print(
                f"{row['model']}: wanted cosine >= {cosine}, at most {below} points below, within "
                f"{args.minutes:g} minutes: {'met' if row['met'] else 'NOT met'}"
            )
    if args.json:
        result = {"rows": rows, "environment": describe_environment()}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@torch.no_grad()
def measure(minilm: MiniLM, models: dict[str, nn.Module], rows: list[dict[str, Any]]) -> None:
    """Add cosine, accuracy of the probe and time to each row, and print it."""
    data = sentences()
    source = torch.Generator().manual_seed(0)
    ids = torch.randint(1000, 20000, (32, 64), generator=source)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    times = interleaved({n: lambda m=m: m(**inputs) for n, m in models.items()}, 30, least=15)
    right: dict[str, list[float]] = {}
    reference = None
    for row in rows:
        name = row["model"]
        train = minilm.embed(models[name], data.probe_train[0])
        test = minilm.embed(models[name], data.probe_test[0])
        reference = test if reference is None else reference
        right[name] = probe(train, data.probe_train[1], test, data.probe_test[1])
        low, high = paired_interval(right[name], right["dense"], seed=0)
        row["accuracy"] = 100 * sum(right[name]) / len(right[name])
        row["points_below_dense"] = rows[0]["accuracy"] - row["accuracy"]
        row["interval"] = [-100 * high, -100 * low]
        row["cosine"] = float(nn.functional.cosine_similarity(test, reference).mean())
        row["milliseconds"] = 1000 * times[name]["median"]
        row["faster"] = times["dense"]["median"] / times[name]["median"]
        trained = (
            f"  {row['minutes']:.1f} min, {row['threads']} threads" if "minutes" in row else ""
        )
        print(
            f"{name:15s} {row['model_stored'] / 1e6:6.2f} M stored  cosine {row['cosine']:.4f}  "
            f"probe {row['accuracy']:.2f} %, below dense {row['points_below_dense']:+.2f} "
            f"[{row['interval'][0]:+.2f}, {row['interval'][1]:+.2f}]  "
            f"{row['milliseconds']:.1f} ms ({row['faster']:.2f}x){trained}",
            flush=True,
        )


if __name__ == "__main__":
    main()
