"""Laws of sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import OptionError
from tidemill.data.matching.sampling import balanced, first, priorities, stratified

orders = st.lists(st.integers(0, 5), max_size=40).map(lambda v: np.array(v, dtype=float))


@given(orders, st.integers(0, 50))
def test_the_first_are_those_of_lowest_priority_and_never_too_many(order, size):
    taken = first(order, size)
    assert len(taken) == min(size, len(order))
    assert (np.diff(taken) > 0).all()
    left = np.setdiff1d(np.arange(len(order)), taken)
    if len(taken) and len(left):
        assert order[taken].max() <= order[left].min()


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60), st.none() | st.integers(4, 70), st.integers(0, 9))
def test_balanced_classes_are_equally_frequent(codes, size, seed):
    codes = np.array(codes)
    taken = balanced(priorities(len(codes), seed), codes, size)
    counts = np.unique(codes[taken], return_counts=True)[1]
    assert len(set(counts.tolist())) <= 1
    assert (codes[taken] >= 0).all()
    assert set(codes[taken].tolist()) == set(codes[codes >= 0].tolist())
    assert size is None or len(taken) <= size


def test_a_sample_too_small_for_the_classes_is_refused():
    with pytest.raises(OptionError, match="3 classes"):
        balanced(np.zeros(3), np.arange(3), 2)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(1, 60), st.integers(0, 9))
def test_strata_keep_their_share_to_within_one_row(codes, size, seed):
    codes = np.array(codes)
    taken = stratified(priorities(len(codes), seed), codes, size)
    assert len(taken) == min(size, len(codes))
    for code in np.unique(codes):
        exact = (codes == code).mean() * len(taken)
        assert abs((codes[taken] == code).sum() - exact) < 1


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 30), st.integers(0, 9))
def test_rows_added_at_the_end_do_not_change_the_order_of_the_others(rows, more, size, seed):
    before, after = first(priorities(rows, seed), size), first(priorities(rows + more, seed), size)
    assert set(after[after < rows]) <= set(before)
