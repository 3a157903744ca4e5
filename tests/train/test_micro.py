"""The search for the largest piece of a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import TrialMemoryError
from tidemill.train.micro import NoMemory, largest_fitting


@given(base=st.integers(0, 500), slope=st.integers(1, 50), ceiling=st.integers(1, 3000), free=st.integers(1, 20_000))
def test_what_is_found_fits_and_nothing_too_large_is_run(base: int, slope: int, ceiling: int, free: int) -> None:
    run: list[int] = []

    def trial(size: int) -> int:
        run.append(size)
        if base + slope * size > free:
            raise NoMemory
        return base + slope * size

    most = min(ceiling, int((0.9 * free - base) // slope))
    if most < 1:
        with pytest.raises(TrialMemoryError, match="One sample is too much"):
            largest_fitting(trial, ceiling, free)
        return
    found = largest_fitting(trial, ceiling, free)
    assert 1 <= found <= most
    assert found in run
    assert found >= most // 2
    assert len(run) < 20


def test_memory_that_grows_faster_than_a_line_halves_the_bound() -> None:
    def trial(size: int) -> int:
        if size**2 > 1000:
            raise NoMemory
        return size**2

    assert 8 <= largest_fitting(trial, ceiling=512, free_bytes=1000) <= 30


def test_a_batch_that_fits_is_taken_whole() -> None:
    assert largest_fitting(lambda size: size, ceiling=64, free_bytes=10**6) == 64


def test_memory_too_small_to_be_seen_is_no_obstacle() -> None:
    assert largest_fitting(lambda size: 7, ceiling=300, free_bytes=1000) == 300
