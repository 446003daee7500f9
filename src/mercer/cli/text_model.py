"""A Hugging Face text model with its tokenizer, by folder or by name, without foreign code."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._core.progress import progress
from .errors import UserError, user_errors

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class TextModel:
    """A model, its tokenizer and how texts go in.

    Attributes
    ----------
    model : Module
        In evaluation mode, float32, on the CPU.
    tokenizer : object
        Of transformers.
    architecture : str
        The class of the model.
    max_length : int
        Tokens after which texts are cut off.
    batch_size : int
        Texts a batch.
    identity : str
        Digest of what tells this model from others, changed weights included.
    notes : tuple of str
        What the user should know about loading it.
    """

    model: Any
    tokenizer: Any
    architecture: str
    max_length: int
    batch_size: int
    identity: str
    notes: tuple[str, ...] = field(default=())

    @property
    def has_classes(self) -> bool:
        """Whether the model has a head that tells classes apart."""
        return "SequenceClassification" in self.architecture and self.model.config.num_labels > 1

    def batches(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Return texts as batches of token tensors, in their order."""
        return [
            dict(
                self.tokenizer(
                    list(texts[i : i + self.batch_size]),
                    padding=True,
                    truncation=True,
                    max_length=self.max_length,
                    return_tensors="pt",
                )
            )
            for i in range(0, len(texts), self.batch_size)
        ]

    def _by_length(self, texts: Sequence[str]) -> list[int]:
        return sorted(range(len(texts)), key=lambda i: len(texts[i]))

    @torch.no_grad()
    def outputs(self, model: nn.Module, texts: Sequence[str], classes: bool, show: bool) -> Tensor:
        """Return class scores (n, classes) or mean-pooled embeddings (n, d) of texts.

        Parameters
        ----------
        model : Module
            The model, or one made from it.
        texts : sequence of str
            The texts.
        classes : bool
            Whether to return the scores of the model's own head.
        show : bool
            Whether to show a progress bar.
        """
        order = self._by_length(texts)  # batches of similar length waste little on padding
        batches = self.batches([texts[i] for i in order])
        rows: list[Tensor] = []
        # The base model holds the same modules without the head; embeddings come from it.
        body = model if classes else getattr(model, "base_model", model)
        for batch in progress(batches, "evaluating", show=show):
            result = body(**batch)
            if classes:
                rows.append(result.logits)
                continue
            mask = batch["attention_mask"].unsqueeze(-1)  # (b, tokens, 1)
            hidden = result.last_hidden_state * mask  # (b, tokens, d)
            rows.append(hidden.sum(dim=1) / mask.sum(dim=1).clamp_min(1))
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return torch.cat(rows)[back]  # (n, classes) or (n, d)

    def example(self, texts: Sequence[str], tokens: int) -> dict[str, Tensor]:
        """Return one full batch of exactly ``tokens`` tokens a row, for timing."""
        ids = self.tokenizer(" ".join(texts), add_special_tokens=False)["input_ids"]
        wanted = self.batch_size * tokens
        ids = (ids * (wanted // max(len(ids), 1) + 1))[:wanted]
        rows = torch.tensor(ids).view(self.batch_size, tokens)
        return {"input_ids": rows, "attention_mask": torch.ones_like(rows)}


def _longest(config: Any, tokenizer: Any, wanted: int) -> int:
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions")]
    # RoBERTa-like models lose two positions to the padding index.
    known = [limit - 2 for limit in limits if isinstance(limit, int) and limit > 2]
    return min([wanted, tokenizer.model_max_length, *known])


def _resolve(name: str) -> str:
    """Tell a folder from a hub name, and say what it is if it is neither."""
    path = Path(name).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"MODEL: the folder {name} holds no config.json")
        return str(path)
    if path.exists():
        raise UserError(f"MODEL: {name} is a file; expected a folder or a hub name")
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"MODEL: no folder {name}")
    return name


def _identity(where: str, config: Any) -> str:
    """Tell models apart without reading all their weights."""
    folder = Path(where)
    files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    commit = getattr(config, "_commit_hash", None)
    text = config.to_json_string(use_diff=False)
    return hashlib.sha256(f"{where} {commit} {stats} {text}".encode()).hexdigest()[:16]


def load_text_model(name: str, max_length: int, batch_size: int) -> TextModel:
    """Load a model and its tokenizer with transformers.

    A model that was saved with a head keeps it; embeddings come from its body.

    Parameters
    ----------
    name : str
        A folder or a hub name.
    max_length : int
        Tokens after which texts are cut off.
    batch_size : int
        Texts a batch.

    Raises
    ------
    UserError
        If transformers is missing, or the model is not there, is not a text encoder or decoder
        or would need code from the folder.
    """
    try:
        import transformers
    except ModuleNotFoundError:
        raise UserError(
            "a Hugging Face model needs transformers: pip install 'mercer[hf]'"
        ) from None
    from safetensors import SafetensorError

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    where = _resolve(name)
    options = {"trust_remote_code": False}
    kinds = (OSError, ValueError, KeyError, ImportError, SafetensorError)
    with user_errors(*kinds, prefix=f"MODEL: cannot load {name}: "):
        config = transformers.AutoConfig.from_pretrained(where, **options)
    if getattr(config, "is_encoder_decoder", False):
        raise UserError(
            f"MODEL: {name} is an encoder-decoder ({config.model_type}); the command takes "
            "encoders and decoders, mercer.convert takes any module"
        )
    with user_errors(*kinds, prefix=f"MODEL: cannot load the tokenizer of {name}: "):
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
    if tokenizer is None or not callable(tokenizer):
        raise UserError(f"MODEL: {name} has no tokenizer; the command takes text models")
    named = (getattr(config, "architectures", None) or [""])[0]
    found = getattr(transformers, named, None)
    is_model = isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
    kind: Any = found if is_model else transformers.AutoModel
    with user_errors(*kinds, prefix=f"MODEL: cannot load {name}: "):
        # Only safetensors: the older form of weights is a pickle.
        model, info = kind.from_pretrained(
            where, use_safetensors=True, output_loading_info=True, **options
        )
    notes = []
    # A pooler takes no part in mean-pooled embeddings, so it may be missing.
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise UserError(f"MODEL: {name} lacks the weights {', '.join(missing[:3])}")
    if named and type(model).__name__ != named:
        notes.append(f"Of {named} the body was loaded ({type(model).__name__}), without its head.")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        if tokenizer.pad_token is None:
            raise UserError(f"MODEL: the tokenizer of {name} has no padding token")
        notes.append(f"The tokenizer had no padding token; {tokenizer.pad_token!r} was taken.")
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"
    return TextModel(
        model=model.float().eval(),
        tokenizer=tokenizer,
        architecture=type(model).__name__,
        max_length=_longest(model.config, tokenizer, max_length),
        batch_size=batch_size,
        identity=_identity(where, config),
        notes=tuple(notes),
    )
