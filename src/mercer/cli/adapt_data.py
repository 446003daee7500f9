"""Which texts ``mercer adapt`` trains on, chooses on and tests on, with their classes."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..datasets import Texts
from .bundle_text import class_ids
from .errors import UserError

_MOST_CLASSES = 200
_HELD_OUT = 5  # every fifth text of the training file chooses, where nothing else is given


@dataclass(frozen=True)
class Part:
    """Texts with the numbers of their classes.

    Attributes
    ----------
    texts : tuple of str
        The texts.
    classes : LongTensor of shape (n,)
        One number a text.
    """

    texts: tuple[str, ...]
    classes: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Sequence[int]) -> "Part":
        return Part(tuple(self.texts[i] for i in rows), self.classes[list(rows)])

    def digest(self) -> str:
        """Tell these texts and classes from others."""
        text = "\0".join((*self.texts, str(self.classes.tolist())))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class AdaptPlan:
    """Which texts are for what.

    Attributes
    ----------
    train : Part
        What models are trained on in the end.
    choose_train, choose_dev : Part
        What the learning rate is chosen on: trained on the one, measured on the other.
    test : Part
        What is measured at the end, and used for nothing else.
    names : tuple of str
        Names of the classes, by number.
    held_out : bool
        Whether ``choose_dev`` is a part of ``train``.
    left_out : int
        Training texts that were left out because they are among those measured on.
    """

    train: Part
    choose_train: Part
    choose_dev: Part
    test: Part
    names: tuple[str, ...]
    held_out: bool
    left_out: int


def plan_adaptation(
    train: Texts, test: Texts, dev: Texts | None, config: Any | None, seed: int
) -> AdaptPlan:
    """Divide the texts and number their labels.

    Parameters
    ----------
    train, test : Texts
        Of the two files.
    dev : Texts, optional
        Of a third one; otherwise every fifth training text is held out of the choice.
    config : object, optional
        Of a model with a head, whose classes are kept; otherwise the labels of ``train`` are.
    seed : int
        Of what is held out.

    Raises
    ------
    UserError
        If labels are missing, unknown, or too few or too many.
    """
    given = {"--train": train, "--test": test, **({} if dev is None else {"--dev": dev})}
    for option, texts in given.items():
        if texts.labels is None:
            raise UserError(f"{option}: no labels found; name their column by --label-column")
        if not len(texts):
            raise UserError(f"{option}: no texts found")
    if config is None:
        names = _sorted_labels(train.labels or ())
        if not 2 <= len(names) <= _MOST_CLASSES:
            raise UserError(
                f"--train: {len(names)} different labels; expected 2 to {_MOST_CLASSES} classes"
            )
    else:
        names = tuple(str(config.id2label[i]) for i in range(config.num_labels))
    parts = {
        option: Part(texts.texts, _numbers(option, texts.labels or (), names, config))
        for option, texts in given.items()
    }
    measured = {*test.texts, *(dev.texts if dev is not None else ())}
    rows = [i for i, text in enumerate(train.texts) if text not in measured]
    whole = parts["--train"][rows]
    if len(whole) < 2 * _HELD_OUT:
        raise UserError(
            f"--train: {len(whole)} texts that are not among those of --test or --dev; at least "
            f"{2 * _HELD_OUT} are needed"
        )
    missing = set(range(len(names))) - set(whole.classes.tolist())
    if config is None and missing:
        raise UserError(
            f"--train: no text with label {names[min(missing)]!r} is left that is not among those "
            "of --test or --dev"
        )
    if dev is not None:
        choose_train, choose_dev = whole, parts["--dev"]
    else:
        choose_train, choose_dev = _hold_out(whole, seed)
    return AdaptPlan(
        train=whole,
        choose_train=choose_train,
        choose_dev=choose_dev,
        test=parts["--test"],
        names=names,
        held_out=dev is None,
        left_out=len(train) - len(whole),
    )


def _sorted_labels(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the different labels: numbers by size, other texts by alphabet."""
    found = sorted(set(labels))  # first: of numbers written in two ways, none is smaller
    return tuple(sorted(found, key=int) if all(each.isdecimal() for each in found) else found)


def _numbers(
    option: str, labels: Sequence[str], names: tuple[str, ...], config: Any | None
) -> Tensor:
    if config is not None:
        return class_ids(labels, config)
    known = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(labels) - known.keys())
    if unknown:
        raise UserError(f"{option}: no text of --train has its label {unknown[0]!r}")
    return torch.tensor([known[label] for label in labels])


def _hold_out(part: Part, seed: int) -> tuple[Part, Part]:
    """Hold out a fifth of each class, in an order that the seed decides."""
    source = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(part), generator=source).tolist()
    seen: Counter[int] = Counter()
    out = set()
    for i in order:
        kind = int(part.classes[i])
        seen[kind] += 1
        if seen[kind] % _HELD_OUT == 0:
            out.add(i)
    if not out:  # many classes of few texts
        out = set(order[: len(order) // _HELD_OUT])
    rest = [i for i in range(len(part)) if i not in out]
    return part[rest], part[sorted(out)]
