"""Metrics of several labels a row: scikit-learn's values, and laws of their own."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as reference

from tidemill.core.errors import DataError, OptionError
from tidemill.core.metrics import get_metric, metrics_for
from tidemill.core.task import Task, TaskKind

NAMES = (
    "f1_micro", "f1_macro", "subset_accuracy", "hamming_loss", "log_loss", "roc_auc", "average_precision", "lrap",
)  # fmt: skip


def task_of(labels: int) -> Task:
    return Task(TaskKind.MULTILABEL, "tags", tuple(f"l{k}" for k in range(labels)))


def theirs(name: str, y: np.ndarray, p: np.ndarray, weight: np.ndarray | None) -> float:
    decided = (p > 0.5).astype(int)
    words: dict[str, Any] = {"sample_weight": weight}
    if name in ("f1_micro", "f1_macro"):
        return float(reference.f1_score(y, decided, average=name[3:], zero_division=0, **words))
    if name == "subset_accuracy":
        return float(reference.accuracy_score(y, decided, **words))
    if name == "hamming_loss":
        return float(reference.hamming_loss(y, decided, **words))
    if name == "log_loss":
        each = [reference.log_loss(y[:, k], p[:, k], labels=[0, 1], **words) for k in range(y.shape[1])]
        return float(np.mean(each))
    if name == "roc_auc":
        return float(reference.roc_auc_score(y, p, average="macro", **words))
    if name == "average_precision":
        return float(reference.average_precision_score(y, p, average="macro", **words))
    return float(reference.label_ranking_average_precision_score(y, p, **words))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("labels", [2, 5])
def test_values_are_scikit_learns(name: str, weighted: bool, labels: int) -> None:
    rng = np.random.default_rng(labels)
    y = (rng.random((200, labels)) < 0.3).astype(np.int8)
    y[:2] = [[1] * labels, [0] * labels]
    p = np.round(np.clip(0.35 * y + rng.random((200, labels)) * 0.7, 0.01, 0.99), 2)  # rounded: there are ties
    weight = rng.random(200) + 0.1 if weighted else None
    ours = get_metric(name)(y, p, task=task_of(labels), weight=weight)
    assert ours == pytest.approx(theirs(name, y, p, weight), abs=1e-9)


def test_a_label_without_a_positive_row_is_left_out_of_what_it_can_t_tell() -> None:
    task = task_of(3)
    y = np.array([[1, 0, 0], [0, 0, 1], [1, 0, 1], [0, 0, 0]])
    p = np.array([[0.9, 0.1, 0.2], [0.2, 0.3, 0.8], [0.7, 0.2, 0.9], [0.1, 0.1, 0.3]])
    for name in ("roc_auc", "average_precision", "f1_macro"):
        assert get_metric(name)(y, p, task=task) == 1.0
    named = p.copy()
    named[0, 1] = 0.9  # now it occurs in a decision, and is wrong there
    assert get_metric("f1_macro")(y, named, task=task) == pytest.approx(2 / 3)
    nothing = np.zeros((2, 3), dtype=int)
    few = {name: get_metric(name)(nothing, p[:2], task=task) for name in NAMES}
    assert few["roc_auc"] == 0.5
    assert few["average_precision"] == 0.0
    assert few["lrap"] == 1.0
    assert get_metric("f1_micro")(nothing, np.zeros((2, 3)), task=task) == 0.0


def test_all_metrics_of_the_kind_are_these_and_no_other_fits() -> None:
    assert {m.name for m in metrics_for(TaskKind.MULTILABEL)} == set(NAMES)
    with pytest.raises(OptionError, match="'accuracy' does not fit a multilabel task"):
        get_metric("accuracy")(np.zeros((1, 2)), np.zeros((1, 2)), task=task_of(2))
    with pytest.raises(OptionError, match="It fits multilabel"):
        get_metric("lrap")(np.zeros(1), np.zeros((1, 2)), task=Task(TaskKind.BINARY, "y", ("a", "b")))


def test_wrong_shapes_are_told() -> None:
    with pytest.raises(DataError, match=r"shape \(3, 2\) for answers of shape \(3, 2\)"):
        get_metric("log_loss")(np.zeros(3), np.zeros((3, 2)), task=task_of(2))


@st.composite
def judged(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rows, labels = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    y = draw(arrays.arrays(np.int8, (rows, labels), elements=st.integers(0, 1)))
    p = draw(arrays.arrays(np.float64, (rows, labels), elements=st.sampled_from([0.0, 0.2, 0.5, 0.51, 0.9, 1.0])))
    return y, p


@settings(max_examples=80, deadline=None)
@given(judged())
def test_values_are_finite_and_do_not_depend_on_the_order_of_rows_and_labels(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    y, p = case
    task = task_of(y.shape[1])
    for metric in metrics_for(TaskKind.MULTILABEL):
        value = metric(y, p, task=task)
        assert math.isfinite(value)
        assert metric(y[::-1], p[::-1], task=task) == pytest.approx(value, abs=1e-9)
        assert metric(y[:, ::-1], p[:, ::-1], task=task) == pytest.approx(value, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(judged())
def test_the_truth_itself_is_the_best_there_is(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = case
    task = task_of(y.shape[1])
    for metric in metrics_for(TaskKind.MULTILABEL):
        assert metric.loss(metric(y, y.astype(float), task=task)) <= metric.loss(metric(y, p, task=task)) + 1e-9


@settings(max_examples=60, deadline=None)
@given(judged())
def test_ranking_agrees_with_scikit_learn_with_ties_and_empty_rows(case: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = case
    if y.shape[1] == 1:
        return  # scikit-learn takes one column for one label a row
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = reference.label_ranking_average_precision_score(y, p)
    assert get_metric("lrap")(y, p, task=task_of(y.shape[1])) == pytest.approx(wanted, abs=1e-9)
