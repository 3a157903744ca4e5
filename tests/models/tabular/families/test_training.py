"""What holds for the training of every network: its schedule, its targets, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import TrialError
from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular._base import Feature, FeatureKind, TabularData
from tidemill.models.tabular.families import _links
from tidemill.models.tabular.families._training import PATIENCE, Recipe, first_bias, learnable, targets_of

THREE = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
BINARY = Task(TaskKind.BINARY, "y", ("a", "b"))
NUMBER = Task(TaskKind.REGRESSION, "y")
FEATURES = (Feature("a", "a", FeatureKind.NUMBER),)


def recipe(schedule: str, epochs: int = 40) -> Recipe:
    return Recipe(0.1, 32, epochs, schedule=schedule)


@given(st.sampled_from(tuple(PATIENCE)), st.floats(0, 1))
def test_a_rate_is_never_larger_than_the_largest(schedule: str, t: float) -> None:
    assert 0.0 <= recipe(schedule).rate_at(t) <= 0.1


@pytest.mark.parametrize("schedule", PATIENCE)
def test_a_schedule_ends_with_small_steps(schedule: str) -> None:
    found = recipe(schedule)
    assert max(found.rate_at(t) for t in np.linspace(0, 1, 101)) > 0.09
    assert found.rate_at(0.99) < 0.001


@pytest.mark.parametrize("wave", [1, 2, 3, 4])
def test_each_wave_ends_with_small_steps(wave: int) -> None:
    assert recipe("coslog4").rate_at((2**wave - 1) / 15) == pytest.approx(0.0, abs=1e-12)


def test_patience_reaches_over_the_last_wave() -> None:
    valley = (2**3 - 1) / 15
    assert recipe("coslog4", 100).patience >= 100 * (1 - valley)


def test_patience_is_never_short() -> None:
    assert recipe("cosine", 12).patience == 10


@given(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.floats(0, 0.9))
def test_smoothed_labels_are_probabilities_with_the_label_ahead(labels: list[int], smoothing: float) -> None:
    targets = targets_of(np.array(labels), THREE, smoothing)
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-5)
    assert (targets >= 0).all()
    assert targets.argmax(axis=1).tolist() == labels


@pytest.mark.parametrize("task", [BINARY, THREE])
def test_the_first_answer_is_the_share_of_each_class(task: Task) -> None:
    y = np.array([0, 0, 0, 1, 0, 1, task.n_classes - 1])
    z = first_bias(targets_of(y, task, 0.0), task)[None, :]
    shares = np.bincount(y, minlength=task.n_classes) / len(y)
    np.testing.assert_allclose(_links.scores(z, task)[0], np.maximum(shares, 1e-4), atol=1e-3)


def test_the_first_answer_is_the_mean_value() -> None:
    assert first_bias(targets_of(np.array([1.0, 3.0]), NUMBER, 0.0), NUMBER).tolist() == [2.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gaps_are_refused_with_a_way_out(bad: float) -> None:
    data = TabularData(np.array([[1.0], [bad]], dtype=np.float32), FEATURES, np.zeros(2))
    with pytest.raises(TrialError, match="'impute'"):
        learnable(data)


def test_rows_without_targets_are_refused() -> None:
    with pytest.raises(TrialError, match="need targets"):
        learnable(TabularData(np.zeros((2, 1), dtype=np.float32), FEATURES))
