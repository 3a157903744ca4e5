"""Who tries again under the same key gets the first answer, once, and nothing is kept for ever."""

from __future__ import annotations

import pytest

from tidemill.deploy.engine.idempotency import Kept
from tidemill.deploy.engine.refusal import Refusal


class Caller:
    def __init__(self) -> None:
        self.got: list[bytes] = []

    def send(self, out: bytes) -> None:
        self.got.append(out)


def _kept(seconds: float = 10, most_bytes: int = 100) -> tuple[Kept, list[float]]:
    now = [0.0]
    return Kept(seconds, most_bytes, lambda: now[0]), now


def test_a_second_caller_waits_for_the_first_answer() -> None:
    kept, _ = _kept()
    first, second, third = Caller(), Caller(), Caller()
    entry = kept.begin("k", b"body", first)
    assert entry is not None
    assert kept.begin("k", b"body", second) is None
    entry.answered(b"answer", 200)
    assert kept.begin("k", b"body", third) is None
    assert (first.got, second.got, third.got) == ([], [b"answer"], [b"answer"])


def test_another_body_under_the_same_key_is_refused() -> None:
    kept, _ = _kept()
    kept.begin("k", b"body", Caller())
    with pytest.raises(Refusal) as caught:
        kept.begin("k", b"other", Caller())
    assert caught.value.status == 422


@pytest.mark.parametrize(
    ("status", "again"), [(200, False), (400, False), (500, False), (429, True), (503, True), (504, True)]
)
def test_what_may_go_better_next_time_is_tried_again(status: int, again: bool) -> None:
    kept, _ = _kept()
    entry = kept.begin("k", b"body", Caller())
    assert entry is not None
    entry.answered(b"answer", status)
    assert (kept.begin("k", b"body", Caller()) is not None) == again


def test_answers_go_with_time_and_with_size() -> None:
    kept, now = _kept(seconds=10, most_bytes=100)
    for k in range(10):
        entry = kept.begin(k, b"", Caller())
        assert entry is not None
        entry.answered(b"x" * 30, 200)
    assert len(kept) == 3
    now[0] = 11.0
    assert kept.begin("new", b"", Caller()) is not None
    assert len(kept) == 1
