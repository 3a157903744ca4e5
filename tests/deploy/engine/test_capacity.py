"""Memory is never promised twice, and nobody at work is let go."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from tidemill.deploy.engine.capacity import Holder, Shortage, plan

HOLDERS = st.lists(st.tuples(st.integers(0, 50), st.floats(0, 100), st.booleans()), max_size=8).map(
    lambda found: [Holder(k, size, used, idle) for k, (size, used, idle) in enumerate(found)]
)


@given(st.integers(0, 200), st.integers(0, 100), HOLDERS)
def test_what_is_planned_fits_and_lets_go_no_more_than_it_must(
    limit: int, needed: int, holders: list[Holder[int]]
) -> None:
    gone = plan(limit, needed, holders)
    held = sum(h.bytes for h in holders)
    if isinstance(gone, Shortage):
        busy = sum(h.bytes for h in holders if not h.idle)
        assert busy + needed > limit
        assert (gone.held, gone.idle) == (busy, held - busy)
        return
    freed = [holders[k] for k in gone]
    assert all(h.idle for h in freed)
    assert held - sum(h.bytes for h in freed) + needed <= limit
    kept_idle = [h for h in holders if h.idle and h not in freed]
    assert all(f.last_used <= k.last_used for f in freed for k in kept_idle)
    if freed:
        assert held - sum(h.bytes for h in freed[:-1]) + needed > limit


def test_a_shortage_names_the_numbers() -> None:
    text = Shortage(300 << 20, 100 << 20, 0, 256 << 20).describe("fraud")
    assert "'fraud' needs 300 MiB" in text
    assert "of 256 MiB 100 MiB are held" in text
