from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidemill.data.features.asof import exact_rows, last_known

TIMES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(0, 9)), max_size=60)
ASKED = st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 10), st.integers(-1, 10)), min_size=1, max_size=30)


def arrays(history: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ordered = np.array(sorted(history), dtype=np.int64).reshape(-1, 3)
    return np.searchsorted(ordered[:, 0], np.arange(6)), ordered[:, 1].copy(), ordered[:, 2].copy()


@given(TIMES, ASKED)
def test_the_last_row_by_event_time_then_created_time_is_known(history, asked) -> None:
    starts, event, created = arrays(history)
    codes, label, cutoff = np.array(asked, dtype=np.int64).T
    for cut in (None, cutoff, 5):
        found = last_known(starts, event, created, codes, label, cut)
        limits = np.broadcast_to(99 if cut is None else cut, len(codes))
        for row, code, at, limit in zip(found, codes, label, limits, strict=True):
            seen = [(e, c) for n, e, c in history if n == code and e <= at and c <= limit]
            if seen:
                assert starts[code] <= row < starts[code + 1]
                assert (event[row], created[row]) == max(seen)
            else:
                assert row == -1


@given(TIMES, ASKED)
def test_exact_times_are_found_where_they_are(history, asked) -> None:
    starts, event, created = arrays(history)
    codes, label, made = np.array(asked, dtype=np.int64).T
    found = exact_rows(starts, event, created, codes, label, made)
    any_created = exact_rows(starts, event, created, codes, label, None)
    for row, loose, code, at, c in zip(found, any_created, codes, label, made, strict=True):
        assert (row >= 0) == ((code, at, c) in history)
        assert row < 0 or (event[row], created[row]) == (at, c)
        same_event = [h[2] for h in history if h[:2] == (code, at)]
        assert (created[loose] == max(same_event)) if same_event else loose == -1


def test_a_long_run_of_late_rows_is_walked_back_to_its_first_early_one() -> None:
    n = 1000
    starts, event = np.array([0, n]), np.arange(n)
    created = np.full(n, 10**6)
    created[3] = 5
    codes, label = np.zeros(n, dtype=np.int64), np.arange(n)
    found = last_known(starts, event, created, codes, label, 10)
    assert found.tolist() == [-1] * 3 + [3] * (n - 3)
