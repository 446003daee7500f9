"""Write a fine-tuned model so that it loads again, each method's in the form that fits it.

============================== ==============================================================
method                         what is written
============================== ==============================================================
full, bitfit, probe            the whole model, by transformers
lora, vera                     adapter and head, by PEFT
snnk                           adapters and head, by `mercer.convert.Adapted`
bottleneck                     the trained tensors
============================== ==============================================================
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.saving import load_state, save_state
from ..convert.adapted import gather, load_adapters
from .adapt_methods import Prepared, prepare

_WHOLE = ("full", "bitfit", "probe")
_PEFT = ("lora", "vera")
_CLASS = "cli.Tuned"

Fresh = Callable[[], tuple[Any, list[str]]]


def save_tuned(prepared: Prepared, fresh: Fresh, folder: Path) -> None:
    """Write a model that was trained.

    Parameters
    ----------
    prepared : Prepared
        The model, as `prepare` made it and as training left it.
    fresh : callable
        Makes the model that the method started from, and the names of its head's parameters.
    folder : Path
        Where to write.
    """
    model: Any = prepared.model
    if prepared.method in _WHOLE:
        model.save_pretrained(folder)
    elif prepared.method in _PEFT:
        _as_peft(prepared, fresh()[0]).save_pretrained(folder, save_embedding_layers=False)
    elif prepared.method == "snnk":
        gather(model).save_pretrained(folder)
    else:
        config = {"class": _CLASS, "method": prepared.method, "head": list(prepared.head)}
        save_state(folder, config, {**prepared.trained, **prepared.head})


@torch.no_grad()
def _as_peft(prepared: Prepared, base: nn.Module) -> Any:
    """Put what was trained into a model that PEFT saves with its head."""
    from peft import get_peft_model

    own: Any = prepared.model
    config = copy.deepcopy(own.peft_config["default"])
    config.modules_to_save = sorted({name.rpartition(".")[0] for name in prepared.head})
    with torch.random.fork_rng(devices=[]):  # it draws what is replaced below
        wrapped = get_peft_model(base, config)  # type: ignore[arg-type]
    places = dict(wrapped.named_parameters())
    for name, tensor in prepared.trained.items():
        places[f"base_model.model.{name}"].copy_(tensor)
    for name, tensor in prepared.head.items():
        owner, _, leaf = name.rpartition(".")
        places[f"base_model.model.{owner}.modules_to_save.default.{leaf}"].copy_(tensor)
    return wrapped


def load_tuned(method: str, folder: Path, fresh: Fresh) -> nn.Module:
    """Load what `save_tuned` wrote, in evaluation mode."""
    if method in _WHOLE:
        return type(fresh()[0]).from_pretrained(folder, use_safetensors=True).eval()
    base = fresh()[0]
    if method in _PEFT:
        from peft import PeftModel

        return PeftModel.from_pretrained(base, folder).eval()
    if method == "snnk":
        return load_adapters(folder, base).model.eval()
    config, state = load_state(folder)
    prepared = prepare(base, method, head=config["head"])
    _copy({**prepared.trained, **prepared.head}, state)
    return prepared.model.eval()


@torch.no_grad()
def _copy(places: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    for name, tensor in places.items():
        tensor.copy_(state[name])


def loading_lines(method: str, kind: str, name: str, folder: str, names: list[str]) -> list[str]:
    """Return the lines of Python that load a saved model.

    Parameters
    ----------
    method : str
        The method.
    kind : str
        Class of the model.
    name : str
        The model that was fine-tuned, as the user named it.
    folder : str
        Where it was saved.
    names : list of str
        The classes.
    """
    head = ["from transformers import AutoTokenizer, " + kind]
    tokenizer = [f"tokenizer = AutoTokenizer.from_pretrained({folder!r})"]
    if method in _WHOLE:
        return [*head, "", f"model = {kind}.from_pretrained({folder!r})", *tokenizer]
    base = [f"base = {kind}.from_pretrained({name!r}, num_labels={len(names)})"]
    if method in _PEFT:
        last = [f"model = PeftModel.from_pretrained(base, {folder!r}).eval()"]
        return ["from peft import PeftModel", *head, "", *base, *last, *tokenizer]
    if method == "snnk":
        last = [f"model = load_adapters({folder!r}, base).model.eval()"]
        return ["from mercer.convert import load_adapters", *head, "", *base, *last, *tokenizer]
    return [
        *("from pathlib import Path", "from mercer.cli.adapt_saving import load_tuned", *head, ""),
        *(*base, f"model = load_tuned({method!r}, Path({folder!r}), lambda: (base, []))"),
        *tokenizer,
    ]
