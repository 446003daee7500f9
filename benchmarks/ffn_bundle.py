"""A feed-forward block bundled, against other ways to the same stored size.

Each of MiniLM's six blocks (384 -> 1,536 -> 384, GELU) on the activations that reach it in the
dense model, for SST-2 sentences: fitted on the tokens of some sentences, R2 (mean over outputs)
on the tokens of others. Peers of the same stored size: structured magnitude pruning (neurons by
|incoming| |outgoing|), as it is and with the same ridge regression after it, truncated SVD of
both matrices, and blind features act(Gx + c) with the same ridge. Time: 2,048 tokens,
interleaved medians.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _minilm import MiniLM, sentences
from torch import Tensor, nn

from mercer.cli.environment import describe_environment
from mercer.cli.timing import interleaved
from mercer.convert import bundle
from mercer.linalg import StreamingRidge

KEEPS = (0.5, 0.25)
ALIGNED = 8  # peers get widths at which products are fast too, as `bundle` chooses them


def stored(module: nn.Module) -> int:
    """Numbers in parameters and buffers."""
    return sum(tensor.numel() for tensor in module.state_dict().values())


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """Make a linear layer with these numbers."""
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight.copy_(weight)
    if bias is not None:
        made.bias.copy_(bias)
    return made


def pruned(block: nn.Sequential, keep: float) -> nn.Sequential:
    """Keep the neurons of the largest weights, without a refit."""
    first, act, second = block
    size = first.weight.norm(dim=1) * second.weight.norm(dim=0)
    count = int(
        (keep * stored(block) - len(second.bias)) / (first.in_features + 1 + second.out_features)
    )
    count -= count % ALIGNED
    kept = size.topk(count).indices.sort().values
    return nn.Sequential(
        linear(first.weight[kept], first.bias[kept]),
        act,
        linear(second.weight[:, kept], second.bias),
    )


def refitted(block: nn.Sequential, smaller: nn.Sequential, x: Tensor) -> nn.Sequential:
    """Solve the second matrix of a pruned block anew, with the ridge that bundling uses."""
    hidden = smaller[:2]
    moments = StreamingRidge(smaller[2].in_features, smaller[2].out_features)
    for rows in x.split(4096):
        moments.update(hidden(rows), block(rows))
    found = moments.solve()
    return nn.Sequential(*hidden, linear(found.weight, found.bias))


def truncated(block: nn.Sequential, keep: float) -> nn.Sequential:
    """Replace both matrices by products of rank r."""
    first, act, second = block
    biases = len(first.bias) + len(second.bias)
    rank = int((keep * stored(block) - biases) / (2 * sum(first.weight.shape)))
    rank -= rank % ALIGNED
    parts: list[nn.Module] = []
    for layer in (first, second):
        u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
        root = s[:rank].sqrt()
        parts += [linear(root[:, None] * v[:rank], None), linear(u[:, :rank] * root, layer.bias)]
    return nn.Sequential(*parts[:2], act, *parts[2:])


def methods(block: nn.Sequential, fit: Tensor, keep: float) -> dict[str, nn.Module]:
    """Every way to make the block smaller."""

    def bundled(**more: Any) -> nn.Module:
        return bundle(block, fit, keep=keep, generator=0, **more).model

    return {
        "SNNK, leverage": bundled(),
        "SNNK, k-DPP": bundled(projection="dpp"),
        "SNNK, leverage + affine": bundled(affine=True),
        "blind orthogonal": bundled(projection="orthogonal"),
        "magnitude + same ridge": refitted(block, pruned(block, keep), fit),
        "magnitude pruning": pruned(block, keep),
        "truncated SVD": truncated(block, keep),
    }


def reaching(minilm: MiniLM, texts: list[str], index: int) -> Tensor:
    """Return what reaches a layer's feed-forward block, (tokens, 384)."""
    seen: list[Tensor] = []
    layer = minilm.dense.encoder.layer[index].intermediate
    hook = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    rows = []
    for batch in minilm.batches(texts):
        minilm.dense(**batch)
        rows.append(seen.pop()[batch["attention_mask"].bool()])
    hook.remove()
    return torch.cat(rows)


def r2(block: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Coefficient of determination of one block by another, mean over outputs."""
    y = block(x).double()
    rest = (y - other(x).double()).square().sum(0)
    return float((1 - rest / (y - y.mean(0)).square().sum(0)).mean())


@torch.no_grad()
def main() -> None:
    """Run and print; write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--calibration", type=int, default=600)
    args = parser.parse_args()
    minilm, data = MiniLM(), sentences(calibration=args.calibration)
    held_out = data.probe_train[0][:200]
    rows: list[dict[str, Any]] = []
    example: dict[float, dict[str, nn.Module]] = {}
    for index, layer in enumerate(minilm.dense.encoder.layer):
        block = nn.Sequential(
            layer.intermediate.dense, layer.intermediate.intermediate_act_fn, layer.output.dense
        )
        fit, test = (reaching(minilm, texts, index) for texts in (data.calibration, held_out))
        for keep in KEEPS:
            made = methods(block, fit, keep)
            example[keep] = {"dense": block, **made}
            for name, other in made.items():
                rows.append(
                    {
                        "block": index,
                        "keep": keep,
                        "method": name,
                        "stored": stored(other),
                        "share": stored(other) / stored(block),
                        "r2": r2(block, other, test),
                    }
                )
        print(f"block {index}: {len(fit):,} tokens to fit, {len(test):,} held out", flush=True)
    x = torch.randn(2048, 384, generator=torch.Generator().manual_seed(0))
    print(
        "\nR2: mean over 6 blocks; time: one block on 2,048 tokens, "
        f"{torch.get_num_threads()} threads"
    )
    summary = []
    for keep, made in example.items():
        times = interleaved({n: lambda m=m: m(x) for n, m in made.items()}, seconds=10, least=15)
        for name in made:
            mine = [row for row in rows if (row["keep"], row["method"]) == (keep, name)]
            line = {
                "keep": keep,
                "method": name,
                "stored": mine[0]["stored"] if mine else stored(made["dense"]),
                "r2": [round(row["r2"], 3) for row in mine],
                "r2_mean": sum(row["r2"] for row in mine) / len(mine) if mine else 1.0,
                "ms": 1000 * times[name]["median"],
                "faster": times["dense"]["median"] / times[name]["median"],
            }
            summary.append(line)
            print(
                f"keep {keep:4.2f}  {name:24s} stored {line['stored']:9,d}  "
                f"R2 {line['r2_mean']:6.3f}  {line['ms']:6.2f} ms  {line['faster']:.2f}x",
                flush=True,
            )
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        result = {"summary": summary, "rows": rows, "environment": describe_environment()}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
