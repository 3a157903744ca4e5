"""Metrics as plain counters and histograms: a request costs a few additions, whatever is done with them later.

The instruments of OpenTelemetry take some microseconds for each value; these take a fraction, and are handed to its
exporter as they stand.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tidemill.deploy.types import RequestEvent

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric

BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the cells of all histograms, in seconds."""
MOST_SERIES = 2000
"""Combinations of attributes for each metric; further ones are counted together."""

Attributes = tuple[tuple[str, Any], ...]
_OTHERS: Attributes = (("otel.metric.overflow", True),)
DURATION, STAGE, ROWS = "tidemill.request.duration", "tidemill.request.stage.duration", "tidemill.request.rows"
RETRIES, DEATHS, FEEDBACK = "tidemill.request.retries", "tidemill.worker.deaths", "tidemill.feedback.items"
MEMORY, DROPPED = "tidemill.worker.memory", "tidemill.telemetry.dropped"
_ABOUT = {
    DURATION: ("Time from a request to its answer.", "s"),
    STAGE: ("Time of an answered request by stage: waiting for a batch, in it, in the model, writing.", "s"),
    ROWS: ("Rows of answered requests.", "{row}"),
    RETRIES: ("Times that a request was replayed because a worker died.", "{retry}"),
    DEATHS: ("Workers that died.", "{worker}"),
    FEEDBACK: ("Items of feedback that were kept.", "{item}"),
    MEMORY: ("Memory of a revision's workers.", "By"),
    DROPPED: ("Events that came faster than they could be counted.", "{event}"),
}


class Cells:
    """A histogram.

    Examples
    --------
    >>> cells = Cells()
    >>> for value in (0.0005, 0.002, 20.0):
    ...     cells.add(value)
    >>> cells.counts[0], cells.counts[2], cells.counts[-1]
    (1, 1, 1)
    """

    __slots__ = ("count", "counts", "least", "most", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.count = 0
        self.total = 0.0
        self.least = float("inf")
        self.most = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.count += 1
        self.total += seconds
        if seconds < self.least:
            self.least = seconds
        if seconds > self.most:
            self.most = seconds


class Counts:
    """All metrics of a serving process since it began.

    Parameters
    ----------
    began_ns : int
        When, in nanoseconds since 1970.
    """

    def __init__(self, began_ns: int) -> None:
        self._began = began_ns
        self._lock = threading.Lock()
        self._cells: dict[str, dict[Attributes, Cells]] = {DURATION: {}, STAGE: {}}
        self._sums: dict[str, dict[Attributes, int]] = {n: {} for n in (ROWS, RETRIES, DEATHS, FEEDBACK, DROPPED)}
        self._memory: dict[Attributes, int] = {}

    def request(self, event: RequestEvent) -> None:
        """Count one request."""
        who: Attributes = (("tidemill.endpoint", event.endpoint), ("tidemill.revision", event.revision))
        if event.shadow:
            who = (*who, ("tidemill.shadow", True))
        whole = (*who, ("http.response.status_code", event.status))
        with self._lock:
            self._cell(DURATION, whole).add(event.total_ms / 1e3)
            if event.status == 200:
                for stage in ("queue", "wait", "model", "encode"):
                    cell = self._cell(STAGE, (*who, ("tidemill.stage", stage)))
                    cell.add(max(0.0, getattr(event, f"{stage}_ms")) / 1e3)
                self._add(ROWS, who, event.rows)
            if event.retries:
                self._add(RETRIES, who, event.retries)

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        """Count a worker that died."""
        with self._lock:
            who = (("tidemill.endpoint", endpoint), ("tidemill.revision", revision), ("tidemill.reason", reason))
            self._add(DEATHS, who, 1)

    def feedback(self, endpoint: str, items: int) -> None:
        """Count feedback that was kept."""
        with self._lock:
            self._add(FEEDBACK, (("tidemill.endpoint", endpoint),), items)

    def dropped(self, events: int) -> None:
        """Count events that were not counted otherwise."""
        if events:
            with self._lock:
                self._add(DROPPED, (), events)

    def memory(self, endpoint: str, revision: str, resident_bytes: int) -> None:
        """Note what a revision's workers hold now."""
        with self._lock:
            self._memory[("tidemill.endpoint", endpoint), ("tidemill.revision", revision)] = resident_bytes

    def metrics(self, now_ns: int) -> list[Metric]:
        """All of it, cumulative, for an exporter of OpenTelemetry."""
        from opentelemetry.sdk.metrics.export import AggregationTemporality as Temporality
        from opentelemetry.sdk.metrics.export import (
            Gauge,
            Histogram,
            HistogramDataPoint,
            Metric,
            NumberDataPoint,
            Sum,
        )

        def point(who: Attributes, value: int) -> NumberDataPoint:
            return NumberDataPoint(dict(who), self._began, now_ns, value)

        out: list[Metric] = []
        with self._lock:
            for name, series in self._cells.items():
                points = [
                    HistogramDataPoint(
                        dict(who), self._began, now_ns, c.count, c.total, list(c.counts), BOUNDS_S, c.least, c.most
                    )
                    for who, c in series.items()
                ]
                if points:
                    out.append(Metric(name, *_ABOUT[name], Histogram(points, Temporality.CUMULATIVE)))
            for name, sums in self._sums.items():
                if sums:
                    data = Sum([point(w, v) for w, v in sums.items()], Temporality.CUMULATIVE, is_monotonic=True)
                    out.append(Metric(name, *_ABOUT[name], data))
            if self._memory:
                gauge = Gauge([point(w, v) for w, v in self._memory.items()])
                out.append(Metric(MEMORY, *_ABOUT[MEMORY], gauge))
        return out

    def _cell(self, name: str, who: Attributes) -> Cells:
        series = self._cells[name]
        found = series.get(who)
        if found is None:
            found = series.setdefault(_room(series, who), Cells())
        return found

    def _add(self, name: str, who: Attributes, value: int) -> None:
        sums = self._sums[name]
        key = who if who in sums else _room(sums, who)
        sums[key] = sums.get(key, 0) + value


def _room(series: Mapping[Attributes, Any], who: Attributes) -> Attributes:
    return who if len(series) < MOST_SERIES else _OTHERS
