"""Which texts are for what."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mercer.cli.adapt_data import plan_adaptation
from mercer.cli.errors import UserError
from mercer.datasets import Texts


def labelled(start: int, count: int, classes: int = 2) -> Texts:
    numbers = range(start, start + count)
    return Texts(tuple(f"text {i}" for i in numbers), tuple(str(i % classes) for i in numbers))


@settings(deadline=None)
@given(
    train=st.integers(40, 90),  # at least five of each class are left
    overlap=st.integers(0, 8),
    classes=st.integers(2, 5),
    seed=st.integers(0, 4),
)
def test_nothing_measured_on_is_trained_on(train, overlap, classes, seed):
    test = labelled(train - overlap, 20, classes)
    plan = plan_adaptation(labelled(0, train, classes), test, None, None, seed)
    assert plan.left_out == overlap
    assert plan.test.texts == test.texts
    assert not set(plan.train.texts) & set(test.texts)
    assert sorted(plan.choose_train.texts + plan.choose_dev.texts) == sorted(plan.train.texts)
    for kind in range(classes):
        of = [int((part.classes == kind).sum()) for part in (plan.train, plan.choose_dev)]
        assert of[1] == of[0] // 5  # a fifth of each class
    for part in (plan.train, plan.choose_train, plan.choose_dev, plan.test):
        numbers = [int(text.split()[1]) % classes for text in part.texts]
        assert part.classes.tolist() == numbers


def test_numbers_written_in_two_ways_are_numbered_alike_in_every_process():
    names = ("7", "07", "٧", "10", "010", "007")
    texts = tuple(f"text {i}" for i in range(48))
    train = Texts(texts, tuple(names[i % 6] for i in range(48)))
    test = Texts(("one",), ("7",))
    plan = plan_adaptation(train, test, None, None, 0)
    # Sets of strings have another order in each process; here each goes by what is written.
    assert plan.names == ("007", "07", "7", "٧", "010", "10")


def test_the_seed_decides_what_is_held_out():
    def of(seed: int):
        return plan_adaptation(labelled(0, 60), labelled(60, 9), None, None, seed).choose_dev

    assert of(0).digest() == of(0).digest()
    assert of(0).digest() != of(1).digest()


def test_own_texts_for_choosing_leave_the_training_texts_whole():
    plan = plan_adaptation(labelled(0, 60), labelled(60, 9), labelled(55, 5), None, 0)
    assert plan.choose_train is plan.train
    assert len(plan.train) == 55
    assert plan.choose_dev.texts == labelled(55, 5).texts
    assert (plan.held_out, plan.left_out) == (False, 5)


def test_classes_are_in_the_order_of_their_names():
    texts = tuple(f"text {i}" for i in range(33))
    numbers = Texts(texts, tuple(str((2, 10, 1)[i % 3]) for i in range(33)))
    words = Texts(texts, tuple(("up", "down", "Left")[i % 3] for i in range(33)))
    for data, names in ((numbers, ("1", "2", "10")), (words, ("Left", "down", "up"))):
        test = Texts(("new",), (names[1],))
        plan = plan_adaptation(data, test, None, None, 0)
        assert plan.names == names
        assert torch.equal(plan.test.classes, torch.tensor([1]))


def test_a_head_brings_its_classes():
    config = SimpleNamespace(id2label={0: "No", 1: "Yes"}, label2id={"No": 0, "Yes": 1})
    config.num_labels = 2
    test = Texts(("new", "newer"), ("yes", "no"))
    plan = plan_adaptation(labelled(0, 30), test, None, config, 0)
    assert plan.names == ("No", "Yes")
    assert plan.test.classes.tolist() == [1, 0]
    with pytest.raises(UserError, match="the model has no class 'maybe'"):
        plan_adaptation(labelled(0, 30), Texts(("new",), ("maybe",)), None, config, 0)


def test_a_class_that_only_the_test_texts_have_left_is_refused():
    train = Texts(
        (*(f"text {i}" for i in range(30)), "rare"), (*("ab"[i % 2] for i in range(30)), "c")
    )
    with pytest.raises(UserError, match="--train: no text with label 'c' is left"):
        plan_adaptation(train, Texts(("rare", "x"), ("c", "a")), None, None, 0)
