"""Which modules of which models are adapted where the user names none, and what they put out."""

from typing import Any

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import nn
from transformers.pytorch_utils import Conv1D

# What ends an attention or a feed-forward block, by a model's type; where versions of
# transformers name them differently, the names of both.
_BERT = ("output.dense",)  # attention.output.dense too
_LLAMA = ("self_attn.o_proj", "mlp.down_proj")
_T5 = ("SelfAttention.o", "EncDecAttention.o", "DenseReluDense.wo")
_VIT = ("output.dense", "attention.o_proj", "mlp.fc2")
AFTER_BLOCKS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"), _LLAMA),
    **dict.fromkeys(("t5", "mt5"), _T5),
    **dict.fromkeys(("vit", "deit", "vit_mae"), _VIT),
    "distilbert": ("attention.out_lin", "ffn.lin2"),
    "mpnet": ("attn.o", "output.dense"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
}
_QUERY_VALUE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("vit", "deit", "vit_mae"), ("query", "value", "q_proj", "v_proj")),
    "camembert": ("query", "value"),
    "distilbert": ("q_lin", "v_lin"),
    "mpnet": ("attn.q", "attn.v"),
}
TARGETS: dict[str, dict[str, Any]] = {
    "adapter": AFTER_BLOCKS,
    # The same places as LoRA's, so that the two compare.
    "replacement": {**TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, **_QUERY_VALUE},
}


def default_targets(placement: str, model_type: str | None) -> set[str] | str:
    """Return the usual targets in models of a type.

    Raises
    ------
    ValueError
        If there are none on record.
    """
    known = TARGETS[placement]
    if model_type not in known:
        kind = "no model of transformers" if model_type == "custom" else f"type {model_type!r}"
        raise ValueError(
            f"target_modules: none given, and for this model ({kind}) none are known with "
            f"placement={placement!r}; expected names of modules, or a type of {sorted(known)}"
        )
    found = known[model_type]
    return found if isinstance(found, str) else set(found)


def output_width(module: nn.Module, name: str) -> int:
    """Return the length of a module's output vectors: its own, or that of its last linear layer.

    Raises
    ------
    ValueError
        If the module says nothing about it.
    """
    for kinds in ((nn.Linear, Conv1D, nn.MultiheadAttention, nn.Embedding), (nn.Module,)):
        for each in reversed(list(module.modules())):
            if isinstance(each, kinds) and (width := _own_width(each)) is not None:
                if isinstance(each, nn.Embedding) and each is not module:
                    continue  # of positions or buckets, beside what the module puts out
                return width
    raise ValueError(
        f"target_modules: {name!r}, a {type(module).__name__}, does not tell the length of its "
        "output vectors; expected width=... in the config, or another module"
    )


def _own_width(module: nn.Module) -> int | None:
    """Return the length of what a layer puts out, or None."""
    if isinstance(module, Conv1D):
        return module.nf
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim
    if isinstance(module, nn.Embedding):
        return module.embedding_dim
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    width = getattr(module, "out_features", None)
    if isinstance(width, int):
        return width
    weight = module._parameters.get("weight")
    return len(weight) if weight is not None and weight.ndim == 1 else None
