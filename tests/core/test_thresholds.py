"""Thresholds of labels: exact where they are chosen, careful where they are used."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.decision import Decision, codes_of, fit_decision, labels_of, lists_of, undecided
from tidemill.core.errors import OptionError
from tidemill.core.metrics import Evidence, get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.task import Task, TaskKind
from tidemill.core.thresholds import _CHOICES, fit_thresholds

TAGS = Task(TaskKind.MULTILABEL, "tags", ("a", "b", "c"))


def made(rows: int, seed: int = 0, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Labels whose probabilities are too small by far: one half is no good threshold."""
    rng = np.random.default_rng(seed)
    y = (rng.random((rows, labels)) < 0.3).astype(np.int8)
    return y, np.clip(0.15 * y + rng.random((rows, labels)) * 0.2, 0.001, 0.999)


def value(name: str, y: np.ndarray, p: np.ndarray, at: np.ndarray) -> float:
    codes = (p > at).astype(np.int64)
    return get_metric(name).function(Evidence(y.astype(np.int64), p, y.shape[1], given=codes))


@pytest.mark.parametrize("name", ["f1_macro", "f1_micro", "hamming_loss", "subset_accuracy"])
def test_chosen_thresholds_beat_one_half_where_probabilities_are_too_small(name: str) -> None:
    y, p = made(400)
    found = _CHOICES[name](y > 0, p, np.ones(len(y)))
    metric = get_metric(name)
    assert metric.loss(value(name, y, p, found)) < metric.loss(value(name, y, p, np.full(3, 0.5)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_choices_for_f1_are_the_best_of_all_cuts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random((7, 2)) < 0.5).astype(np.int8)
    p = rng.random((7, 2)).round(1) * 0.9 + 0.05
    if not y.any(axis=0).all():
        return
    grid = [np.unique(np.concatenate([p[:, k] - 0.01, p[:, k] + 0.01])) for k in range(2)]
    for name in ("f1_micro", "f1_macro"):
        best = max(value(name, y, p, np.array(at)) for at in product(*grid))
        found = _CHOICES[name](y > 0, p, np.ones(7))
        assert value(name, y, p, found) == pytest.approx(best, abs=1e-12)


def test_nothing_is_tuned_on_few_rows_or_where_it_doesn_t_pay() -> None:
    y, p = made(40)
    assert fit_thresholds(y, p, get_metric("f1_macro")) is None
    y, p = made(9_000)
    assert fit_thresholds(y, p, get_metric("hamming_loss")) is None
    assert fit_thresholds(y, p, get_metric("log_loss")) is None
    rng = np.random.default_rng(3)
    honest = rng.random((500, 3))
    truth = (rng.random((500, 3)) < 0.5).astype(np.int8)
    assert fit_thresholds(truth, np.where(truth > 0, 0.9, 0.1) + 0 * honest, get_metric("f1_micro")) is None


def test_a_decision_for_f1_has_a_threshold_for_each_label_and_keeps_it() -> None:
    y, p = made(600)
    objective = parse_objective("maximize f1_macro").resolve(TAGS)
    decision = fit_decision(objective, TAGS, y, p)
    assert decision.kind == "thresholds"
    assert all(t < 0.4 for t in decision.thresholds or (1,))
    assert decision.threshold is None
    assert Decision.from_json(decision.to_json()) == decision
    assert get_metric("f1_macro")(y, p, decision.apply(p), task=TAGS) > get_metric("f1_macro")(y, p, task=TAGS)
    assert fit_decision(parse_objective("minimize log_loss").resolve(TAGS), TAGS, y, p) == undecided(TAGS)
    assert fit_decision(objective, TAGS, y, p, seed=5) == fit_decision(objective, TAGS, y, p, seed=5)


def test_older_decisions_look_as_they_did() -> None:
    assert set(Decision().to_json()) == {"kind", "offsets", "cost"}
    with pytest.raises(OptionError, match="has its own numbers and no others"):
        Decision("argmax", thresholds=(0.5,))
    with pytest.raises(OptionError, match="must lie between 0 and 1"):
        Decision.by_thresholds([1.5])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), max_size=8))
def test_labels_as_text_and_codes_are_the_same(rows: list[tuple[bool, bool, bool]]) -> None:
    codes = np.array(rows, dtype=np.int64).reshape(-1, 3)
    texts = labels_of(TAGS, codes)
    assert texts.shape == (len(rows),)
    assert np.array_equal(codes_of(TAGS, texts), codes)
    assert [len(some) for some in lists_of(texts)] == codes.sum(axis=1).tolist()


@pytest.mark.parametrize("classes", [(), ("a", ""), ("a", "b;c")])
def test_a_task_refuses_labels_that_can_t_be_told_apart(classes: tuple[str, ...]) -> None:
    with pytest.raises(OptionError, match="label"):
        Task(TaskKind.MULTILABEL, "tags", classes)
