"""Laws of folds and of the locked slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError, OptionError
from tidemill.core.task import Task, TaskKind
from tidemill.data.splits import lock_test, make_folds, strata

CLASSES = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
VALUES = Task(TaskKind.REGRESSION, "y")

codes = st.lists(st.integers(0, 2), min_size=2, max_size=60).map(np.array)
values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60).map(np.array)
problems = st.one_of(st.tuples(st.just(CLASSES), codes), st.tuples(st.just(VALUES), values))
seeds = st.integers(0, 2**32)


@given(problems, st.integers(2, 8), st.integers(1, 3), seeds)
def test_each_repeat_is_an_even_stratified_partition(problem, k, repeats, seed):
    task, y = problem
    assume(len(y) >= k)
    folds = make_folds(task, y, k=k, repeats=repeats, seed=seed)
    assert len(folds) == k * repeats
    groups = strata(task, y)
    for repeat in range(repeats):
        part = folds[repeat * k : (repeat + 1) * k]
        assert sorted(np.concatenate([valid for _, valid in part])) == list(range(len(y)))
        sizes = [len(valid) for _, valid in part]
        assert max(sizes) - min(sizes) <= 1
        for stratum in np.unique(groups):
            counts = [int((groups[valid] == stratum).sum()) for _, valid in part]
            assert max(counts) - min(counts) <= 1
            if (groups == stratum).sum() >= 2:
                assert all((groups[train] == stratum).any() for train, _ in part)
        for train, valid in part:
            assert sorted([*train, *valid]) == list(range(len(y)))
            assert (np.diff(train) > 0).all()


@given(problems, st.integers(2, 5), seeds)
def test_the_same_seed_gives_the_same_rows(problem, k, seed):
    task, y = problem
    assume(len(y) >= k)
    for one, two in zip(make_folds(task, y, k=k, seed=seed), make_folds(task, y, k=k, seed=seed), strict=True):
        assert np.array_equal(one[1], two[1])
    assert np.array_equal(lock_test(task, y, 0.2, seed)[1], lock_test(task, y, 0.2, seed)[1])


def test_repeats_and_seeds_differ():
    y = np.arange(100) % 3
    folds = make_folds(CLASSES, y, k=2, repeats=2, seed=0)
    assert not np.array_equal(folds[0][1], folds[2][1])
    assert not np.array_equal(folds[0][1], make_folds(CLASSES, y, k=2, seed=1)[0][1])


@given(problems, st.integers(2, 4), seeds, st.data())
def test_groups_never_stand_on_both_sides(problem, k, seed, data):
    task, y = problem
    groups = np.array(data.draw(st.lists(st.integers(0, 9), min_size=len(y), max_size=len(y))))
    assume(len(np.unique(groups)) >= k)
    folds = make_folds(task, y, k=k, seed=seed, groups=groups)
    assert sorted(np.concatenate([valid for _, valid in folds])) == list(range(len(y)))
    for train, valid in folds:
        assert len(train)
        assert len(valid)
        assert not set(groups[train]) & set(groups[valid])
    train, test = lock_test(task, y, 0.3, seed, groups=groups)
    assert len(train)
    assert len(test)
    assert not set(groups[train]) & set(groups[test])


def test_many_groups_give_even_parts():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 200, 5000)
    y = (rng.random(5000) < 0.1).astype(int)
    folds = make_folds(Task(TaskKind.BINARY, "y", ("0", "1"), "1"), y, k=5, seed=0, groups=groups)
    assert all(abs(len(valid) - 1000) < 100 for _, valid in folds)
    assert all(abs(y[valid].mean() - y.mean()) < 0.02 for _, valid in folds)


@given(st.lists(st.integers(0, 30), min_size=3, max_size=60), st.integers(2, 6), seeds)
@settings(max_examples=200)
def test_training_is_always_before_validation(moments, k, seed):
    time = np.array(moments, dtype=float)
    assume(len(np.unique(time)) >= 2)
    y = np.zeros(len(time))
    folds = make_folds(VALUES, y, k=k, seed=seed, time=time)
    assert 1 <= len(folds) <= k
    seen: set[int] = set()
    for train, valid in folds:
        assert time[train].max() < time[valid].min()
        assert not seen & set(valid)
        seen |= set(valid)
        assert len(train) + (time > time[valid].max()).sum() + len(valid) == len(time)
    assert folds[-1][1][time[folds[-1][1]].argmax()] in np.flatnonzero(time == time.max())
    train, test = lock_test(VALUES, y, 0.25, seed, time=time)
    assert time[train].max() < time[test].min()


def test_time_blocks_are_even():
    time = np.random.default_rng(0).permutation(1000).astype(float)
    folds = make_folds(VALUES, time, k=4, seed=0, time=time)
    assert [len(valid) for _, valid in folds] == [200] * 4
    assert [len(train) for train, _ in folds] == [200, 400, 600, 800]


def test_time_and_groups_together():
    time, groups = np.arange(100.0), np.arange(100) % 10
    with pytest.raises(DataError, match="every group"):
        make_folds(VALUES, time, k=3, seed=0, time=time, groups=groups)
    groups = np.arange(100) // 7
    for train, valid in make_folds(VALUES, time, k=3, seed=0, time=time, groups=groups):
        assert time[train].max() < time[valid].min()
        assert not set(groups[train]) & set(groups[valid])
    train, test = lock_test(VALUES, time, 0.2, 0, time=time, groups=groups)
    assert not set(groups[train]) & set(groups[test])


@given(problems, st.floats(0.05, 0.95), seeds)
def test_the_locked_slice_has_its_share_of_each_class(problem, share, seed):
    task, y = problem
    train, test = lock_test(task, y, share, seed)
    assert sorted([*train, *test]) == list(range(len(y)))
    assert len(train)
    assert len(test)
    groups = strata(task, y)
    for stratum in np.unique(groups):
        total, taken = (groups == stratum).sum(), (groups[test] == stratum).sum()
        assert taken < total or total == 1
        if total > 2:
            assert taken <= share * total + 1 + len(np.unique(groups))
    if len(y) > 30 and share < 0.5:
        assert abs(len(test) - share * len(y)) <= len(np.unique(groups)) + 1


def test_stratified_shares_are_exact_where_they_can_be():
    y = np.repeat([0, 1, 2], [700, 200, 100])
    _, test = lock_test(CLASSES, y, 0.2, 0)
    assert np.bincount(y[test]).tolist() == [140, 40, 20]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"k": 1}, OptionError),
        ({"k": 2, "repeats": 0}, OptionError),
        ({"k": 9}, DataError),
        ({"k": 3, "groups": np.array([0, 0, 1, 1])}, DataError),
        ({"k": 2, "time": np.zeros(4)}, DataError),
    ],
)
def test_what_can_not_be_split_is_refused(arguments, error):
    with pytest.raises(error):
        make_folds(VALUES, np.zeros(4), seed=0, **arguments)


@pytest.mark.parametrize(
    ("share", "arguments", "error"),
    [
        (0.0, {}, OptionError),
        (1.0, {}, OptionError),
        (0.5, {"groups": np.zeros(4)}, DataError),
        (0.5, {"time": np.zeros(4)}, DataError),
        (0.5, {"time": np.arange(4), "groups": np.array([0, 1, 0, 1])}, DataError),
    ],
)
def test_what_can_not_be_locked_is_refused(share, arguments, error):
    with pytest.raises(error):
        lock_test(VALUES, np.zeros(4), share, 0, **arguments)
    with pytest.raises(DataError):
        lock_test(VALUES, np.zeros(1), 0.5, 0)
