"""Counters add up, and say so in the words of OpenTelemetry."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.otel import counts
from tidemill.deploy.otel.counts import BOUNDS_S, Cells, Counts
from tidemill.deploy.types import RequestEvent


@given(st.lists(st.floats(0, 100), min_size=1))
def test_cells_hold_every_value_once(values: list[float]) -> None:
    cells = Cells()
    for value in values:
        cells.add(value)
    assert sum(cells.counts) == cells.count == len(values)
    assert (cells.least, cells.most) == (min(values), max(values))
    assert cells.total == pytest.approx(sum(values))
    edges = [-1.0, *BOUNDS_S, float("inf")]
    for number, (low, high) in enumerate(pairwise(edges)):
        assert cells.counts[number] == sum(low < v <= high for v in values)


def event(**changes: Any) -> RequestEvent:
    values: dict[str, Any] = {
        "endpoint": "m", "revision": "a1", "request_id": "r", "status": 200, "rows": 3, "queue_ms": 1.0, "wait_ms": 0.5,
        "model_ms": 2.0, "encode_ms": 0.25, "total_ms": 4.0,
    }  # fmt: skip
    return RequestEvent(**{**values, **changes})


def by_name(held: Counts) -> dict[str, Any]:
    return {m.name: m for m in held.metrics(2_000)}


def test_requests_are_counted_by_endpoint_revision_and_status() -> None:
    pytest.importorskip("opentelemetry.sdk.metrics.export")
    held = Counts(1_000)
    for one in (event(), event(), event(status=429, error="overloaded"), event(shadow=True), event(retries=2)):
        held.request(one)
    held.death("m", "a1", "hang")
    held.feedback("m", 7)
    held.memory("m", "a1", 5)
    held.memory("m", "a1", 6)
    held.dropped(0)
    found = by_name(held)
    durations = {tuple(sorted(p.attributes.items())): p for p in found[counts.DURATION].data.data_points}
    assert sorted(p.count for p in durations.values()) == [1, 1, 3]
    one = next(p for p in durations.values() if p.count == 3)
    assert one.attributes == {"tidemill.endpoint": "m", "tidemill.revision": "a1", "http.response.status_code": 200}
    assert (one.sum, one.min, one.max) == (pytest.approx(0.012), 0.004, 0.004)
    assert (one.start_time_unix_nano, one.time_unix_nano) == (1_000, 2_000)
    stages = {p.attributes["tidemill.stage"] for p in found[counts.STAGE].data.data_points}
    assert stages == {"queue", "wait", "model", "encode"}
    assert sum(p.value for p in found[counts.ROWS].data.data_points) == 12
    assert [p.value for p in found[counts.RETRIES].data.data_points] == [2]
    assert found[counts.DEATHS].data.data_points[0].attributes["tidemill.reason"] == "hang"
    assert found[counts.FEEDBACK].data.data_points[0].value == 7
    assert found[counts.MEMORY].data.data_points[0].value == 6
    assert counts.DROPPED not in found
    assert found[counts.ROWS].data.is_monotonic


def test_revisions_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk.metrics.export")
    monkeypatch.setattr(counts, "MOST_SERIES", 10)
    held = Counts(0)
    for number in range(100):
        held.request(event(revision=f"r{number}"))
        held.request(event(revision="r3"))
    found = by_name(held)
    for name in (counts.DURATION, counts.ROWS):
        points = found[name].data.data_points
        assert len(points) <= 11
        assert any(p.attributes == {"otel.metric.overflow": True} for p in points)
    assert sum(p.value for p in found[counts.ROWS].data.data_points) == 600
    assert sum(p.count for p in found[counts.DURATION].data.data_points) == 200
