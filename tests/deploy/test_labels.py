"""What people tell is compared with what was answered: of several labels a set, spelled as in a table."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.task import JOINT
from tidemill.data.multilabel import JSON, MOST_LABELS, join_cell, split_cell
from tidemill.deploy.engine import told
from tidemill.deploy.labels import compare, label_text, labels_told
from tidemill.deploy.watch.recent import Batch, Place
from tidemill.deploy.watch.truth import count_truth
from tidemill.deploy.watch.window import Window

CLASSES = ("1", "boat", "glad, or so", "ü", "true", "sea")
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=6).filter(
    lambda word: JOINT not in word
)
SPELLINGS: dict[str, list[Any]] = {"1": [1, 1.0, "1", " 1 "], "true": [True, "true", " true"]}


def place(predicted: str) -> Place:
    return Place(Batch("a", {}, {"label": np.array([predicted], dtype=object)}, ["r"], 0.0), 0)


def counted(truth: Any, predicted: str, *, several: bool | None = True) -> dict[str, Any]:
    window = Window()
    count_truth(window, orjson.dumps(truth).decode(), place(predicted), several=several)
    return window.to_json()


@settings(max_examples=150)
@given(st.sets(st.sampled_from(CLASSES)), st.sets(st.sampled_from([*CLASSES, "fish"])), st.integers(0, 10**6))
def test_order_and_spelling_never_change_what_is_counted(answered: set[str], truth: set[str], seed: int) -> None:
    predicted = JOINT.join(sorted(answered))
    plain = counted(sorted(truth), predicted)
    assert (plain["feedback_right"], plain["feedback_wrong"]) == ((1, 0) if answered == truth else (0, 1))
    assert plain["confusion"] == {f"{JOINT.join(sorted(truth))}\t{predicted}": 1}
    random = Random(seed)
    told_again = [random.choice(SPELLINGS.get(label, [label, f" {label} "])) for label in truth for _ in range(2)]
    random.shuffle(told_again)
    assert counted(told_again, predicted) == plain
    assert counted(told_again, predicted, several=None) == plain, "a list has several labels, whoever answered"
    texts = [label_text(label) for label in told_again]
    assert counted(f" {JOINT} ".join(texts), predicted) == plain, "as answers over the protocol are written"
    assert counted(json.dumps(told_again), predicted) == plain


@settings(max_examples=150)
@given(
    st.lists(WORDS | st.integers(-9, 9) | st.booleans() | st.sampled_from([0.5, 2.0, "", " sea ", "1.0"]), max_size=6)
)
def test_labels_are_spelled_as_in_the_cells_of_a_table(labels: list[Any]) -> None:
    assert labels_told(labels) == split_cell(labels, JSON)
    assert labels_told(json.dumps(labels)) == split_cell(json.dumps(labels), JSON)
    assert labels_told(join_cell(labels_told(labels))) == labels_told(labels)


@pytest.mark.parametrize(
    ("truth", "predicted", "several", "wanted"),
    [
        (["yes"], "yes", True, (True, "yes")),
        ([], "", True, (True, "")),
        ("", "", True, (True, "")),
        ([], "sea", True, (False, "")),
        ("sea", "sea", True, (True, "sea")),
        (["sea"], "boat;sea", True, (False, "sea")),
        (["sea", "boat", "fish"], "boat;sea", True, (False, "boat;fish;sea")),
        ([1.0, "True"], "1;true", True, (True, "1;true")),
        (["1"], "1;1.0", True, (False, "1")),  # both are labels of the model
        ("[a]", "[a]", True, (True, "[a]")),
        ("sea;boat", "boat;sea", False, (False, "sea;boat")),  # one label of one row, with a sign in it
        ("sea;boat", "boat;sea", None, (False, "sea;boat")),
        (["sea", "boat"], "boat;sea", None, (True, "boat;sea")),
    ],
)
def test_a_row_is_right_where_all_its_labels_were_answered_and_no_other(
    truth: Any, predicted: str, several: bool | None, wanted: tuple[bool, str]
) -> None:
    assert compare(truth, predicted, several=several) == wanted


def test_the_door_takes_as_many_labels_as_a_table() -> None:
    assert told.MOST_LABELS == MOST_LABELS
