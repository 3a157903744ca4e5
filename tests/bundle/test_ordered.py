"""Work ahead, in order, and not too far ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.bundle.runner.ordered import in_order


@given(items=st.lists(st.integers(), max_size=30), threads=st.integers(1, 4))
def test_results_come_in_order(items: list[int], threads: int) -> None:
    assert list(in_order(lambda v: -v, items, threads)) == [-v for v in items]


def test_it_never_runs_far_ahead_of_its_reader() -> None:
    taken = []

    def source() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    for done, _ in enumerate(in_order(lambda v: v, source(), 3)):
        assert len(taken) <= done + 6


def test_several_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=60)
    assert list(in_order(lambda v: both.wait() >= 0, [1, 2], 2)) == [True, True]


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_reaches_the_reader_and_ends_the_work(threads: int) -> None:
    ran = []

    def work(v: int) -> int:
        ran.append(v)
        time.sleep(0.001)
        return 1 // (v - 2)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(1000), threads))
    assert len(ran) < 20
