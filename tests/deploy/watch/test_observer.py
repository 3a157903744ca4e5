"""The observer's whole path: events in, counters, Prometheus text and durable feedback out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from tidemill.core.errors import OptionError
from tidemill.deploy.types import BatchEvent, Feedback, RequestEvent
from tidemill.deploy.watch import feedback
from tidemill.deploy.watch.folding import fold_ended
from tidemill.deploy.watch.observer import Watch, is_dead, machine, new_front
from tidemill.deploy.watch.window import DEPLOY_WINDOW
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock

NOW = 1_800_000_000.0


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


def event(request_id: str = "r1", *, status: int = 200, total_ms: float = 2.0, **changes: object) -> RequestEvent:
    values: dict[str, object] = {
        "endpoint": "fraud", "revision": "a1", "request_id": request_id, "status": status, "rows": 1, "queue_ms": 0.5,
        "wait_ms": 0.1, "model_ms": 1.0, "encode_ms": 0.4, "total_ms": total_ms, **changes,
    }  # fmt: skip
    return RequestEvent(**values)  # type: ignore[arg-type]


def answers(*second: float) -> dict[str, np.ndarray]:
    p = np.array(second)
    return {
        "label": np.array(["yes" if v > 0.5 else "no" for v in second], dtype=object),
        "probabilities": np.stack([1 - p, p], axis=1).astype(np.float32),
    }


def test_every_answer_is_counted_once(workspace: Workspace) -> None:
    watch = Watch(workspace, start=False)
    for status in (200, 200, 500, 429, 503, 404):
        watch.request(event(status=status, retries=1))
    watch.request(event(total_ms=1e6))
    watch.request(event(shadow=True))
    watch.death("fraud", "a1", "killed")
    watch.fold()
    seen = watch.window("fraud", "a1")
    assert (seen.requests, seen.errors, seen.refusals, seen.retries, seen.deaths) == (7, 1, 2, 6, 1)
    assert (seen.slow, seen.shadow_requests) == (1, 1)
    assert sum(seen.latency_counts["total"]) == 5  # refusals are no answers of the model
    assert sum(seen.latency_counts["model"]) == 6  # the shadow's time counts for its model
    assert next(iter(seen.slo.values())) == [7, 4]


def test_feedback_finds_its_row(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = Watch(workspace, start=False, clock=clock)
    watch.batch("fraud", "a1", {"x": np.zeros(3)}, answers(0.9, 0.2, 0.7), ["r1", "r1", "r2"])
    watch.fold()
    watch.feedback("fraud", [Feedback("r1", "yes"), Feedback("r1", "yes", row=1), Feedback("gone", "yes")])
    watch.feedback("fraud", [Feedback("r1", "no")])  # the first word counts
    clock.now += 5
    watch.fold()
    seen = watch.window("fraud", "a1")
    assert (seen.feedback, seen.feedback_right, seen.feedback_wrong) == (2, 1, 1)
    assert dict(seen.confusion) == {"yes\tyes": 1, "yes\tno": 1}
    watch.close()
    assert feedback.read_all(workspace.path / "watch" / "fraud" / "feedback").num_rows == 4


def test_feedback_reaches_the_front_that_answered(workspace: Workspace) -> None:
    clock = Clock(NOW)
    one, two = (Watch(workspace, start=False, clock=clock) for _ in range(2))
    one.batch("fraud", "a1", {}, answers(0.9), ["r1"])
    one.fold()
    two.feedback("fraud", [Feedback("r1", "no")])
    clock.now += 5
    one.fold()
    two.fold()
    assert two.window("fraud", "a1").feedback_wrong == 1


def test_fronts_add_up(workspace: Workspace) -> None:
    clock = Clock(NOW)
    fronts = [Watch(workspace, start=False, clock=clock) for _ in range(3)]
    for front in fronts:
        front.request(event())
        front.batch("fraud", "a1", {}, answers(0.9), ["r"])
        front.fold()
    assert len(workspace.records.find(DEPLOY_WINDOW)) == 3
    assert all(front.snapshot("fraud", "a1")["requests"] == 3 for front in fronts)
    assert 'tidemill_requests_total{endpoint="fraud",revision="a1"} 3\n' in fronts[0].render_metrics()


def test_revisions_that_answer_the_same_rows_are_compared(workspace: Workspace) -> None:
    watch = Watch(workspace, start=False)
    watch.batch("fraud", "a1", {}, answers(0.9, 0.1, 0.8), ["r1", "r1", "r2"])
    watch.batch("fraud", "b2", {}, answers(0.8), ["r2"])
    watch.batch("fraud", "b2", {}, answers(0.7, 0.6), ["r1", "r1"])
    watch.fold()
    shadow = watch.window("fraud", "b2")
    assert (shadow.compared, shadow.disagreements) == (3, 1)


def test_a_failing_watch_never_reaches_the_caller(workspace: Workspace) -> None:
    watch = Watch(workspace, start=False)
    watch.batch("fraud", "a1", {}, {"label": np.zeros(1), "probabilities": np.zeros((1, 2))}, [None])  # type: ignore[list-item]
    watch.request(event())
    watch.batch("../etc", "a1", {}, answers(0.9), ["r"])
    watch.fold()
    assert watch.window("fraud", "a1").requests == 1
    assert "tidemill_watch_failures_total" in watch.render_metrics()
    with pytest.raises(OptionError, match="no name of an endpoint"):
        watch.feedback("../etc", [Feedback("r", 1)])


def test_the_queue_is_bounded_and_says_what_it_dropped(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.deploy.watch.observer.MOST_WAITING", 3)
    watch = Watch(workspace, start=False)
    for _ in range(5):
        watch.request(event())
    watch.fold()
    assert watch.window("fraud", "a1").requests == 3
    assert "_dropped_total" in watch.render_metrics()
    assert "} 2\n" in next(line + "\n" for line in watch.render_metrics().splitlines() if "dropped_total{" in line)


def test_counters_of_dead_fronts_join_the_past(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.deploy.watch.observer.STALE_S", -1.0)
    dead = Watch(workspace, f"999999999-{machine()}-dead", start=False)
    dead.request(event())
    dead.feedback("fraud", [Feedback("r1", "no")])
    dead.close()
    again = Watch(workspace, start=False)
    again._recover()
    assert [r.key for r in workspace.records.find(DEPLOY_WINDOW)] == ["fraud/a1/past"]
    assert again.window("fraud", "a1").requests == 1
    assert fold_ended(workspace.path) == 1
    assert len(list((workspace.path / "watch").rglob("*.parquet"))) == 1
    again._recover()
    assert again.window("fraud", "a1").requests == 1


def test_a_process_of_another_machine_is_never_taken_for_dead() -> None:
    assert is_dead(f"999999999-{machine()}-1")
    assert not is_dead("999999999-abcdef-1")
    assert not is_dead(new_front())


def test_the_side_thread_does_the_work(workspace: Workspace) -> None:
    watch = Watch(workspace)
    for k in range(1000):
        watch.request(event(f"r{k}"))
    watch.close()
    watch.close()
    assert watch.window("fraud", "a1").requests == 1000


def told(rows: int, *, start: int = 0, revision: str = "a1", parts: dict[int, int] | None = None) -> BatchEvent:
    """A batch with a request for each row, or slices of divided ones, as an engine tells of it."""
    seconds = [0.9 if k % 3 else 0.2 for k in range(start, start + rows)]
    whole = [] if parts else list(range(rows))
    times = [float(k) for k in whole]
    return BatchEvent(
        "fraud", revision, Known({"x": np.arange(rows, dtype=np.float64)}), answers(*seconds),
        [f"r{start + k}" for k in range(rows)], whole, [1] * len(whole), times, [t + 0.001 for t in times],
        [t + 0.02 for t in times], 0.005, 0.015, 4.0, [1] * len(whole), parts or {},
    )  # fmt: skip


class Known(dict):  # type: ignore[type-arg]  # columns that know how to be joined
    """Columns by name."""

    @classmethod
    def joined(cls, parts: Sequence[Known]) -> Known:
        return cls({name: np.concatenate([p[name] for p in parts]) for name in parts[0]})


def test_a_batch_told_at_once_counts_as_its_parts(workspace: Workspace) -> None:
    at_once, apart = (Watch(workspace, start=False, clock=Clock(NOW)) for _ in range(2))
    for k in range(5):
        event = told(7 + k, start=100 * k)
        at_once.answered(event)
        apart.batch("fraud", "a1", event.columns, event.outputs, event.request_ids)
        for one in event.requests():
            apart.request(one)
    for watch in (at_once, apart):
        watch.fold()
    seen, wanted = (w._endpoint("fraud").revision("a1").window.to_json() for w in (at_once, apart))
    assert seen == wanted
    assert (seen["requests"], seen["rows"], seen["batches"], seen["retries"]) == (45, 45, 5, 45)
    assert sum(seen["latency_counts"]["wait"]) == 45


def test_feedback_finds_its_row_in_batches_that_were_joined(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = Watch(workspace, start=False, clock=clock)
    for start in (0, 100, 200):
        watch.answered(told(4, start=start))
    watch.fold()
    assert len(watch._endpoint("fraud")._recent._batches) == 1
    watch.feedback("fraud", [Feedback("r0", "no"), Feedback("r101", "yes"), Feedback("r203", "no")])
    clock.now += 5
    watch.fold()
    seen = watch.window("fraud", "a1")
    assert (seen.feedback, seen.feedback_right) == (3, 2)
    assert dict(seen.confusion) == {"no\tno": 1, "yes\tyes": 1, "no\tyes": 1}


def test_what_is_told_at_once_is_bounded_by_its_rows(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.deploy.watch.observer.MOST_WAITING_ROWS", 10)
    watch = Watch(workspace, start=False)
    for start in (0, 10, 20):
        watch.answered(told(4, start=start))
    watch.fold()
    assert watch.window("fraud", "a1").rows == 8
    watch.answered(told(4, start=30))
    watch.fold()
    assert watch.window("fraud", "a1").rows == 12
