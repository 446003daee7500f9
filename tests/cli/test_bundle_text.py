"""The division of the texts, and the labels of a head."""

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mercer.cli.bundle_text import class_ids, plan_texts
from mercer.cli.errors import UserError
from mercer.datasets import Texts


@settings(deadline=None)
@given(
    texts=st.lists(st.integers(0, 60), min_size=120, max_size=160),
    labelled=st.booleans(),
    has_classes=st.booleans(),
    calibration=st.integers(1, 100),
    seed=st.integers(0, 5),
)
def test_no_text_is_in_two_parts(texts, labelled, has_classes, calibration, seed):
    texts = (*map(str, texts), *map(str, range(20)))
    labels = tuple(str(int(t) % 2) for t in texts) if labelled else None
    plan = plan_texts(Texts(texts, labels), has_classes, calibration, 1000, seed)
    parts = [plan.calibration, plan.train, plan.test]
    assert sorted(sum(parts, ())) == sorted(set(texts))  # disjoint, complete, without repeats
    assert plan.repeated == len(texts) - len(set(texts))
    assert len(plan.calibration) == min(calibration, len(set(texts)) // 2)
    assert bool(plan.train) == (labelled and not has_classes)
    for part, of in ((plan.train, plan.train_labels), (plan.test, plan.test_labels)):
        assert of == (tuple(str(int(t) % 2) for t in part) if labelled else None)


def test_evaluation_is_bounded_and_follows_the_seed():
    data = Texts(tuple(f"text {i}" for i in range(100)))
    plan = plan_texts(data, False, 30, 40, seed=0)
    assert (len(plan.calibration), len(plan.test), plan.measure) == (30, 40, "cosine")
    assert plan == plan_texts(data, False, 30, 40, seed=0)
    assert plan.test != plan_texts(data, False, 30, 40, seed=1).test


def test_too_few_texts_and_labels():
    with pytest.raises(UserError, match="--data: 1 different texts; at least 16"):
        plan_texts(Texts(("same",) * 50), False, 10, 10, 0)
    texts = tuple(map(str, range(50)))
    with pytest.raises(UserError, match="--label-column: 1 different labels"):
        plan_texts(Texts(texts, ("x",) * 50), False, 10, 1000, 0)


def test_labels_meet_classes_by_name_or_by_number():
    config = SimpleNamespace(label2id={"No": 0, "Yes": 1}, num_labels=2)
    assert class_ids(["yes", "NO"], config).tolist() == [1, 0]
    assert class_ids(["1", "0"], config).tolist() == [1, 0]
    with pytest.raises(UserError, match="no class '2'; its classes are no, yes or 0 to 1"):
        class_ids(["1", "2"], config)
