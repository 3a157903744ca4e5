"""The observer passes everything on, samples as it was told, and never costs an answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tests.deploy.otel.test_counts import event

from tidemill.deploy.engine.observing import NullObserver
from tidemill.deploy.otel import observer as module
from tidemill.deploy.otel.counts import DROPPED, ROWS
from tidemill.deploy.otel.observer import Telemetry, requests_of, telemetry
from tidemill.deploy.otel.settings import Settings
from tidemill.deploy.types import BatchEvent, Feedback, RequestEvent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0{}"


def traced(flag: int) -> RequestEvent:
    """An event whose caller has a span."""
    return event(traceparent=PARENT.format(flag))


class Inner(NullObserver):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def request(self, event: RequestEvent) -> None:
        self.told.append("request")

    def batch(
        self, endpoint: str, revision: str, columns: Mapping[str, Any], outputs: Mapping[str, Any],
        request_ids: Sequence[str],
    ) -> None:  # fmt: skip
        self.told.append("batch")

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        self.told.append("death")

    def memory(self, endpoint: str, revision: str, resident_bytes: int) -> None:
        self.told.append("memory")

    def feedback(self, endpoint: str, items: Sequence[Feedback]) -> None:
        self.told.append("feedback")

    def render_metrics(self) -> str:
        return "text"

    def snapshot(self, endpoint: str, revision: str) -> dict[str, Any]:
        return {"requests": 1}

    def close(self) -> None:
        self.told.append("close")


class FakeSender:
    """Keeps what it gets."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken
        self.spans: list[RequestEvent] = []
        self.ended: list[int] = []
        self.parents: list[str] = []
        self.sent: list[Any] = []
        self.closed = 0

    def span(self, event: RequestEvent, ended_ns: int, parent: str) -> None:
        self.spans.append(event)
        self.ended.append(ended_ns)
        self.parents.append(parent)

    def follows(self, traceparent: str) -> bool:
        return traceparent.endswith("01")

    def metrics(self, metrics: Sequence[Any]) -> None:
        if self.broken:
            raise OSError("the collector is gone")
        self.sent.append({m.name: m for m in metrics})

    def close(self) -> None:
        self.closed += 1


BOTH = Settings(spans=True, metrics=True, share=0.5)


def test_everything_is_passed_on() -> None:
    inner, sender = Inner(), FakeSender()
    watch = Telemetry(inner, sender, Settings(spans=True), start=False)
    watch.request(event())
    watch.batch("m", "a1", {}, {"y": np.zeros(1)}, ["r"])
    watch.death("m", "a1", "died")
    watch.memory("m", "a1", 5)
    watch.feedback("m", [Feedback("r", "yes")])
    assert (watch.render_metrics(), watch.snapshot("m", "a1")) == ("text", {"requests": 1})
    watch.close()
    watch.close()
    assert inner.told == ["request", "batch", "death", "memory", "feedback"]  # who made it closes it
    assert sender.closed == 1


def test_feedback_that_nobody_keeps_is_not_acknowledged() -> None:
    with pytest.raises(NotImplementedError):
        Telemetry(None, FakeSender(), BOTH, start=False).feedback("m", [Feedback("r", 1)])


@pytest.mark.parametrize(("share", "spans"), [(0.0, 0), (1.0, 4), (0.5, 2)])
def test_a_share_of_the_requests_become_spans(share: float, spans: int) -> None:
    sender, numbers = FakeSender(), iter([0.1, 0.9, 0.4, 0.6])
    watch = Telemetry(None, sender, Settings(spans=True, share=share), chance=lambda: next(numbers), start=False)
    for _ in range(4):
        watch.request(event())
    watch.fold()
    assert len(sender.spans) == spans


@pytest.mark.parametrize(
    ("follow", "flag", "share", "spans"), [(True, 1, 0.0, 1), (True, 0, 1.0, 0), (False, 0, 1.0, 1)]
)
def test_a_parent_decides_where_it_is_followed(follow: bool, flag: int, share: float, spans: int) -> None:
    sender = FakeSender()
    watch = Telemetry(None, sender, Settings(spans=True, share=share, follow=follow), start=False)
    watch.request(traced(flag))
    watch.fold()
    assert len(sender.spans) == spans
    assert [p for _, _, p in requests_of(event(), 0)] == [""]


def batch(**more: Any) -> BatchEvent:
    return BatchEvent(
        "m", "a1", {"x": np.zeros(3)}, {"y": np.ones(3)}, ["q", "r", "r"], [0, 1], [1, 2], [1.0, 1.001], [1.002, 1.002],
        [1.01, 1.012], 1.003, 1.009, 2.0, [0, 1], **more,
    )  # fmt: skip


def test_a_batch_is_told_request_by_request() -> None:
    sender = FakeSender()
    watch = Telemetry(None, sender, Settings(spans=True, share=0.0), clock=lambda: 9_000_000_000, start=False)
    watch.answered(batch(traceparents={1: PARENT.format(1), 0: PARENT.format(0)}))
    watch.fold()
    (one,) = sender.spans
    assert (one.request_id, one.rows, one.status, one.retries) == ("r", 2, 200, 1)
    assert one.total_ms == pytest.approx(11.0)
    assert sender.parents == [PARENT.format(1)]
    assert sender.ended == [9_000_000_000]
    assert [e for _, e, _ in requests_of(batch(), 9_000_000_000)] == [8_998_000_000, 9_000_000_000]


@pytest.mark.parametrize(("spans", "follow"), [(True, True), (True, False), (False, True)])
def test_callers_spans_are_asked_for_only_where_they_are_followed(spans: bool, follow: bool) -> None:
    watch = Telemetry(None, FakeSender(), Settings(spans=spans, follow=follow), start=False)
    assert watch.traced is (spans and follow)


@pytest.mark.parametrize("whole", [True, False])
def test_a_batch_is_passed_on_in_the_form_that_the_inner_one_takes(whole: bool) -> None:
    told: list[Any] = []
    inner = Inner()
    if whole:
        inner.answered = told.append  # type: ignore[attr-defined]  # an optional method of the protocol
    watch = Telemetry(inner, FakeSender(), BOTH, start=False)
    event = batch()
    watch.answered(event)
    if whole:
        assert told == [event]
        assert told[0].columns["x"].size == 3
        assert inner.told == []
    else:
        assert inner.told == ["batch", "request", "request"]


def test_what_comes_too_fast_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics.export")
    monkeypatch.setattr(module, "MOST_WAITING", 10)
    sender = FakeSender()
    watch = Telemetry(None, sender, BOTH, start=False)
    for _ in range(25):
        watch.request(event())
    watch.close()
    found = sender.sent[-1]
    assert found[DROPPED].data.data_points[0].value == 15
    assert found[ROWS].data.data_points[0].value == 30


def test_a_collector_that_is_gone_costs_telemetry_alone(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics.export")
    sender = FakeSender(broken=True)
    watch = Telemetry(None, sender, Settings(metrics=True, every_s=0.01))
    for _ in range(20):
        watch.request(event())
    end = time.monotonic() + 60
    while "Telemetry failed" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.01)
    sender.broken = False
    watch.close()
    assert sender.sent[-1][ROWS].data.data_points[0].value == 60


def test_the_side_thread_sends_by_itself() -> None:
    pytest.importorskip("opentelemetry.sdk.metrics.export")
    sender = FakeSender()
    watch = Telemetry(None, sender, Settings(spans=True, metrics=True, share=1.0, every_s=0.05))
    watch.request(event())
    end = time.monotonic() + 60
    while not (sender.spans and sender.sent):
        assert time.monotonic() < end
        time.sleep(0.01)
    watch.close()


def test_without_the_variable_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    inner = Inner()
    with telemetry(inner) as watch:
        assert watch is inner


def test_without_the_packages_it_is_said_and_models_are_served(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delitem(sys.modules, "tidemill.deploy.otel.sender", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    inner = Inner()
    with telemetry(inner) as watch:
        assert watch is inner
    assert "tidemill[otel]" in caplog.text
