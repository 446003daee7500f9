"""A text model as a classifier: made anew for each training, trained and measured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..convert.training import Training, batch_indices, train
from .adapt_data import Part
from .adapt_methods import Prepared, head_of, prepare
from .errors import user_errors
from .text_model import TextModel

_EVERY = 50  # steps between two checkpoints


class Encoded:
    """Texts as tokens, put together to batches on demand.

    Parameters
    ----------
    text_model : TextModel
        Has the tokenizer.
    part : Part
        The texts and their classes.
    """

    def __init__(self, text_model: TextModel, part: Part) -> None:
        self._tokenizer = text_model.tokenizer
        self._tokens = dict(
            self._tokenizer(list(part.texts), truncation=True, max_length=text_model.max_length)
        )
        self._classes = part.classes
        self.lengths = [len(ids) for ids in self._tokens["input_ids"]]

    def loss(self, model: nn.Module, rows: Tensor) -> Tensor:
        """Mean cross-entropy of a model on some of the texts."""
        picked = {key: [each[i] for i in rows.tolist()] for key, each in self._tokens.items()}
        batch = self._tokenizer.pad(picked, return_tensors="pt")
        return F.cross_entropy(model(**batch).logits, self._classes[rows])


class Classifier:
    """A pretrained text model with a head for some classes.

    Parameters
    ----------
    where : str
        Its folder or hub name.
    text_model : TextModel
        The model, as it was loaded to see what it is.
    names : tuple of str
        The classes.
    epochs : int
        How often a training goes through its texts.
    """

    def __init__(
        self, where: str, text_model: TextModel, names: tuple[str, ...], epochs: int
    ) -> None:
        self._where, self._model, self._names, self._epochs = where, text_model, names, epochs
        self._encoded: dict[str, Encoded] = {}

    def fresh(self, seed: int) -> tuple[Any, list[str]]:
        """Load the model again; return it with the names of its head's parameters."""
        import transformers

        kind: Any = type(self._model.model)
        options: dict[str, Any] = {}
        if not self._model.has_classes:
            kind = transformers.AutoModelForSequenceClassification
            options = {
                "num_labels": len(self._names),
                "id2label": dict(enumerate(self._names)),
                "label2id": {name: i for i, name in enumerate(self._names)},
            }
        prefix = f"MODEL: cannot load {self._where} as a classifier: "
        with (
            torch.random.fork_rng(devices=[]),
            user_errors(OSError, ValueError, KeyError, prefix=prefix),
        ):
            torch.default_generator.manual_seed(seed)  # of the numbers of a new head
            model, info = kind.from_pretrained(
                self._where,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
                **options,
            )
        model.config.pad_token_id = self._model.model.config.pad_token_id
        # What the folder lacks, such as a pooler, is as new as the head.
        return model.float(), sorted({*head_of(model), *info["missing_keys"]})

    def prepared(self, method: str, seed: int) -> Prepared:
        """Make a fresh model into which a method has put what it adds."""
        model, head = self.fresh(seed)
        return prepare(model, method, head=head, seed=seed)

    def fit(
        self,
        prepared: Prepared,
        part: Part,
        rate: float,
        seed: int,
        checkpoint: Path,
        key: str,
        show: bool,
    ) -> Training:
        """Train in place.

        Parameters
        ----------
        prepared : Prepared
            The model.
        part : Part
            What it is trained on.
        rate : float
            The largest learning rate.
        seed : int
            Of the order of the texts, and of dropout.
        checkpoint : Path
            Where the state is kept, and taken up again.
        key : str
            All that the result depends on.
        show : bool
            Whether to show a bar.

        Raises
        ------
        Diverged
            If the learning rate is too large.
        """
        size, data = self._model.batch_size, self._encode(part)
        turns = -(-len(part) // size)
        batches: dict[int, list[Tensor]] = {}

        def loss(step: int) -> Tensor:
            epoch, turn = divmod(step, turns)
            if epoch not in batches:
                batches.clear()
                batches[epoch] = batch_indices(data.lengths, size, seed, epoch)
            return data.loss(prepared.model, batches[epoch][turn])

        return train(
            prepared.model,
            loss,
            turns * self._epochs,
            learning_rate=rate,
            seed=seed,
            key=key,
            checkpoint=checkpoint,
            every=_EVERY,
            progress=show,
            label=f"{prepared.method}, learning rate {rate:g}",
        )

    def measure(self, model: nn.Module, part: Part, show: bool) -> dict[str, Any]:
        """Return the accuracy, the mean loss, and for each text 1.0 where it is right."""
        scores = self._model.outputs(model.eval(), part.texts, True, show)  # (n, classes)
        right = scores.argmax(dim=-1) == part.classes
        return {
            "values": right.double().tolist(),
            "accuracy": float(right.double().mean()),
            "loss": float(F.cross_entropy(scores, part.classes)),
        }

    def step(self, prepared: Prepared, part: Part) -> Callable[[], None]:
        """Make one step of training on texts of typical length, for timing."""
        data, size = self._encode(part), self._model.batch_size
        order = torch.tensor(data.lengths).argsort(stable=True)
        rows = order[max(len(order) // 2 - size // 2, 0) :][:size]
        model = prepared.model.train()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-6)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            data.loss(model, rows).backward()
            optimizer.step()

        return step

    def _encode(self, part: Part) -> Encoded:
        digest = part.digest()
        if digest not in self._encoded:
            self._encoded[digest] = Encoded(self._model, part)
        return self._encoded[digest]
