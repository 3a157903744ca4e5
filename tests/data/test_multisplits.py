"""Parts of rows with several labels: a partition, even in labels, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tidemill.core.task import Task, TaskKind
from tidemill.data.multisplits import deal, rarest
from tidemill.data.splits import lock_test, make_folds


def task_of(y: np.ndarray) -> Task:
    return Task(TaskKind.MULTILABEL, "tags", tuple(f"l{k}" for k in range(y.shape[1])))


def made(rows: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((rows, 6)) < [0.5, 0.3, 0.2, 0.1, 0.05, 0.03]).astype(np.int8)


def test_every_fold_has_its_share_of_every_label() -> None:
    y = made()
    folds = make_folds(task_of(y), y, k=5, seed=1)
    assert sorted(np.concatenate([valid for _, valid in folds]).tolist()) == list(range(300))
    for train, valid in folds:
        assert len(np.intersect1d(train, valid)) == 0
        assert abs(len(valid) - 60) <= 6
        wanted = y.sum(axis=0) / 5
        assert np.abs(y[valid].sum(axis=0) - wanted).max() <= 3
        assert y[valid].any(axis=0).all()


def test_rare_labels_are_dealt_better_than_by_chance() -> None:
    y = made(200, seed=2)
    wanted = y.sum(axis=0) / 4

    def unevenness(part: np.ndarray) -> float:
        return float(sum(np.abs(y[part == k].sum(axis=0) - wanted).sum() for k in range(4)))

    ours = unevenness(deal(y, [0.25] * 4, np.random.default_rng(0)))
    chance = [unevenness(np.random.default_rng(i).permutation(200) % 4) for i in range(20)]
    assert ours < min(chance)


def test_the_same_seed_gives_the_same_rows() -> None:
    y = made()
    first, again, other = (lock_test(task_of(y), y, 0.2, seed) for seed in (3, 3, 4))
    assert np.array_equal(first[1], again[1])
    assert not np.array_equal(first[1], other[1])


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.int8, st.tuples(st.integers(4, 40), st.integers(1, 5)), elements=st.integers(0, 1)),
    st.floats(0.05, 0.9),
)
def test_locked_rows_leave_every_label_in_training(y: np.ndarray, share: float) -> None:
    train, test = lock_test(task_of(y), y, share, 0)
    assert sorted([*train, *test]) == list(range(len(y)))
    assert len(train)
    assert len(test)
    twice = y.sum(axis=0) >= 2
    assert y[train][:, twice].any(axis=0).all()


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.int8, st.tuples(st.integers(5, 30), st.integers(1, 4)), elements=st.integers(0, 1)),
    st.integers(2, 5),
)
def test_no_fold_is_empty_and_each_row_is_in_one(y: np.ndarray, k: int) -> None:
    folds = make_folds(task_of(y), y, k=k, seed=0)
    assert all(len(valid) for _, valid in folds)
    assert sorted(np.concatenate([valid for _, valid in folds]).tolist()) == list(range(len(y)))


def test_groups_stay_together() -> None:
    y = made(120)
    groups = np.arange(120) // 6
    for train, valid in make_folds(task_of(y), y, k=4, seed=0, groups=groups):
        assert not set(groups[train]) & set(groups[valid])
    assert rarest(y).max() <= 6


def test_two_rows_of_a_label_stand_in_two_parts() -> None:
    y = np.zeros((20, 2), dtype=np.int8)
    y[:2, 0], y[5:15, 1] = 1, 1
    part = deal(y, [0.5, 0.5], np.random.default_rng(0))
    assert part[0] != part[1]


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_a_locked_slice_has_about_its_share(share: float) -> None:
    y = made(400)
    _, test = lock_test(task_of(y), y, share, 0)
    assert abs(len(test) - share * 400) <= 8
