"""Everything that one process knows of one endpoint; used from the side thread under the watch's lock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import WorkspaceError
from tidemill.deploy.types import BatchEvent, CapturePolicy, Endpoint, RequestEvent
from tidemill.deploy.watch import history
from tidemill.deploy.watch.agreement import agree
from tidemill.deploy.watch.capture import Capture
from tidemill.deploy.watch.counting import (
    REFUSED,
    count_answers,
    count_batches,
    count_requests,
    count_rows,
    count_sizes,
    stage_times,
)
from tidemill.deploy.watch.facts import Facts
from tidemill.deploy.watch.feedback import FeedbackTail
from tidemill.deploy.watch.history import History
from tidemill.deploy.watch.periods import SPANS_S, Period, Periods
from tidemill.deploy.watch.recent import MOST_ROWS, Batch, Recent
from tidemill.deploy.watch.sketch import Sketcher
from tidemill.deploy.watch.sources import Sources
from tidemill.deploy.watch.truth import count_truth
from tidemill.deploy.watch.window import Window

TAIL_S = 1.0
JOINED_ROWS = 4096
"""Rows that are looked at together, where so many came."""
FLUSH_S = 5.0
"""Rows wait so long for a chunk to be full: a quiet endpoint is counted every few seconds, a busy one by chunk."""
RESTORED_S = 86_400.0
"""How far back periods of earlier processes are read when a revision is first seen."""


@dataclass
class RevisionWatch:
    """What is counted of one revision."""

    name: str
    facts: Facts
    columns: dict[str, str]
    window: Window = field(default_factory=Window)
    sketcher: Sketcher | None = None
    periods: Periods | None = None
    next_flush: float = 0.0
    newest: float = 0.0


class EndpointWatch:
    """Takes in what happened at one endpoint.

    Parameters
    ----------
    name : str
        Of the endpoint.
    folder : Path
        Where its feedback, captured rows and periods are.
    front : str
        Name of this process.
    sources : Sources
        What the endpoint should be.
    clock : callable
        Gives the time in seconds since 1970.
    rng : numpy.random.Generator
        For samples.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        front: str,
        sources: Sources,
        *,
        clock: Callable[[], float],
        rng: np.random.Generator,
    ) -> None:
        self.name = name
        self.folder = folder
        self.revisions: dict[str, RevisionWatch] = {}
        self._sources = sources
        self._clock = clock
        self._recent = Recent()
        self._capture = Capture(
            folder / "captured", front, rng=rng, row_of=self._recent.row_of, names=self._names, clock=clock
        )
        self._history = History(folder / "drift", front)
        self._tail = FeedbackTail(folder / "feedback")
        self._told: dict[tuple[str, int], None] = {}
        self._late: list[RequestEvent] = []
        self._next_tail = 0.0
        self.lost_periods = 0
        """Periods that the disk refused."""

    @property
    def described(self) -> Endpoint:
        """What the endpoint should be; defaults where it is not known."""
        return self._sources.endpoint(self.name) or Endpoint(self.name)

    @property
    def policy(self) -> CapturePolicy:
        """Which rows are kept."""
        return self.described.capture

    @property
    def dropped_rows(self) -> int:
        """Rows to capture that the disk refused."""
        return self._capture.dropped

    def revision(self, name: str) -> RevisionWatch:
        """What is counted of a revision; its bundle is read when it is first seen."""
        held = self.revisions.get(name)
        if held is None:
            facts = Facts.load(self._sources.bundle(self.name, name))
            held = RevisionWatch(name, facts, facts.columns())
            self.revisions[name] = held
            self._begin(held)
        return held

    def _names(self, revision: str) -> dict[str, str]:
        return self.revision(revision).columns

    def _begin(self, held: RevisionWatch) -> None:
        reference = held.facts.reference
        if reference is None:
            held.window.drift = {"watched": False, "reason": held.facts.word}
            return
        now = self._clock()
        held.sketcher = Sketcher(reference, held.facts.classes, self.policy.redact)
        held.periods = Periods(reference, held.facts.cost)
        for period in history.read_periods(self.folder / "drift", since=now - RESTORED_S).get(held.name, ()):
            held.periods.restore(period, now)
        held.window.drift = held.periods.drift

    def count_death(self, revision: str, reason: str) -> None:
        """Count a worker's death."""
        window = self.revision(revision).window
        window.deaths += 1
        window.death_reasons[reason[:80]] += 1

    def take_requests(self, events: Sequence[RequestEvent], now: float) -> None:
        """Count answers, and keep slow and failed ones."""
        described = self.described
        by_revision: dict[str, list[RequestEvent]] = defaultdict(list)
        for event in events:
            by_revision[event.revision].append(event)
        for revision, some in by_revision.items():
            count_requests(self.revision(revision).window, some, target_ms=described.target_ms, now=now)
        policy = described.capture
        # An engine may tell of an answer before it tells of the batch: what found no row is looked for once more.
        again, self._late = self._late, []
        for event in again:
            self._capture_slow(event.request_id, event.revision, event.total_ms, policy)
        for event in events:
            if event.shadow:
                continue
            if event.status >= 500 and event.status not in REFUSED:
                self._capture_failure(event, policy)
            elif self._is_slow(event, policy) and not self._capture_slow(
                event.request_id, event.revision, event.total_ms, policy
            ):
                self._late.append(event)

    @staticmethod
    def _is_slow(event: RequestEvent, policy: CapturePolicy) -> bool:
        return 0 < policy.slow_ms < event.total_ms and event.status not in REFUSED

    def _capture_slow(self, request_id: str, revision: str, total_ms: float, policy: CapturePolicy) -> bool:
        places = [p for p in self._recent.rows_of(request_id) if p.batch.revision == revision]
        for place in places:
            self._capture.place("slow", place, policy, total_ms=total_ms)
        return bool(places)

    def _capture_failure(self, event: RequestEvent, policy: CapturePolicy) -> None:
        facts = {"total_ms": event.total_ms}
        self._capture.failure(event.revision, event.request_id, event.error or str(event.status), policy, **facts)

    def take_answers(self, events: Sequence[BatchEvent], now: float) -> None:
        """Count batches with the requests that they answered, and do with their rows what `take_batches` does."""
        described = self.described
        by_revision: dict[str, list[BatchEvent]] = defaultdict(list)
        for event in events:
            by_revision[event.revision].append(event)
        slow: list[tuple[str, str, float]] = []
        for revision, some in by_revision.items():
            window = self.revision(revision).window
            count_answers(window, some, target_ms=described.target_ms, now=now)
            count_sizes(window, [len(e.request_ids) for e in some])
            batches = _joined([Batch(revision, e.columns, e.outputs, e.request_ids, now, e.parts) for e in some])
            count_rows(window, batches)
            self._take_rows(batches, described.capture)
            if described.capture.slow_ms > 0:
                slow += _slow(some, described.capture.slow_ms)
        for revision, request_id, total_ms in slow:
            self._capture_slow(request_id, revision, total_ms, described.capture)

    def take_batches(self, batches: Sequence[Batch]) -> None:
        """Count batches, remember their rows, hold them against another revision's answers, keep what is wanted."""
        by_revision: dict[str, list[Batch]] = defaultdict(list)
        for batch in batches:
            by_revision[batch.revision].append(batch)
        for revision, some in by_revision.items():
            count_batches(self.revision(revision).window, some)
        self._take_rows(batches, self.policy)

    def _take_rows(self, batches: Sequence[Batch], policy: CapturePolicy) -> None:
        for batch in batches:
            self._end_hour(batch.at, policy)
            self._recent.add(batch)
            self._compare(batch, policy)
            self._capture.batch(batch, policy)
            held = self.revision(batch.revision)
            if held.sketcher is not None:
                held.newest = batch.at
                self._capture_odd(held.sketcher.add(batch))

    def _capture_odd(self, found: Sequence[tuple[Batch, NDArray[np.intp]]]) -> None:
        for batch, rows in found:
            self._capture.rows("out_of_range", batch, rows, self.policy)

    def tick(self, now: float) -> None:
        """Do what is due: end periods, read feedback, end the hour of captured rows."""
        for held in self.revisions.values():
            self._end_periods(held, now)
        if now >= self._next_tail or now < self._next_tail - 10 * TAIL_S:
            self._next_tail = now + TAIL_S
            self._join_news()
            self.take_requests([], now)
            self._end_hour(now, self.policy)
            self._capture.flush()

    def _end_hour(self, now: float, policy: CapturePolicy) -> None:
        if self._capture.tick(now, policy):
            history.prune(self.folder / "drift", now)

    def close(self) -> None:
        """Write what is pending."""
        for held in self.revisions.values():
            held.next_flush = 0.0
            self._end_periods(held, self._clock())
            if held.periods is not None:
                self._write([p for p in [held.periods.close()] if p is not None], held.name)
        self._join_news()
        self._capture.close()

    def _end_periods(self, held: RevisionWatch, now: float) -> None:
        if held.sketcher is None or held.periods is None:
            return
        over = held.newest // SPANS_S[0] < now // SPANS_S[0]
        if over or now >= held.next_flush or now < held.next_flush - 10 * FLUSH_S:
            held.next_flush = now + FLUSH_S
            self._capture_odd(held.sketcher.flush())
            sketch = held.sketcher.take()
            if sketch.rows:  # they belong to the period in which the newest of them was answered
                self._write(held.periods.tick(held.newest), held.name)
                held.periods.add(sketch, now=held.newest)
        self._write(held.periods.tick(now), held.name)
        held.window.drift, held.window.estimate = held.periods.drift, held.periods.estimate

    def _write(self, periods: Sequence[Period], revision: str) -> None:
        for period in periods:
            if period.span_s != SPANS_S[0]:
                continue  # a sum of those that are written
            try:
                self._history.append(revision, period)
            except (WorkspaceError, OSError):
                self.lost_periods += 1

    def _compare(self, batch: Batch, policy: CapturePolicy) -> None:
        """Hold a batch against what another revision said of the same rows; both revisions count it."""
        for index, place in self._recent.pairs(batch):
            same = agree(batch, index, place.batch, place.index)
            for revision in (batch.revision, place.batch.revision):
                window = self.revision(revision).window
                window.compared += 1
                window.disagreements += not same
            if not same:
                other = _said(batch, index)
                self._capture.place("disagreement", place, policy, other_revision=batch.revision, other=other)

    def _join_news(self) -> None:
        for item in self._tail.news():
            self._join(item)

    def _join(self, item: dict[str, Any]) -> None:
        """Count feedback whose row this process answered; the first word on a row counts."""
        key = (item["request_id"], item["row"])
        found = {} if key in self._told else self._recent.find(*key)
        if not found:
            return
        self._told[key] = None
        if len(self._told) > 4 * MOST_ROWS:
            self._told.pop(next(iter(self._told)))
        for revision, place in found.items():
            held = self.revision(revision)
            facts = held.facts
            right = count_truth(held.window, item["label"], place, several=facts.several, folded=facts.folded)
            self._capture.place("wrong" if right is False else "feedback", place, self.policy)


def _said(batch: Batch, index: int) -> str:
    """What a revision answered, as text."""
    told = batch.labels if batch.labels is not None else batch.texts
    if told is not None:
        return told[index]
    return "" if batch.values is None else repr(float(batch.values[index]))


def _joined(batches: Sequence[Batch]) -> list[Batch]:
    """The same rows in fewer batches: most of what is done with a batch costs the same however many rows it has."""
    out: list[Batch] = []
    group: list[Batch] = []
    rows = 0
    for batch in batches:
        if group and rows + batch.rows > JOINED_ROWS:
            out += _one(group)
            group, rows = [], 0
        group.append(batch)
        rows += batch.rows
    return out + _one(group)


def _one(group: list[Batch]) -> list[Batch]:
    try:
        return [Batch.joined(group)] if group else []
    except (ValueError, TypeError):  # their rows don't follow each other: of several shapes, say
        return group


def _slow(events: Sequence[BatchEvent], slow_ms: float) -> list[tuple[str, str, float]]:
    """Revision, request and milliseconds of the answers that took longer."""
    totals = stage_times(events)[-1]
    if not (totals > slow_ms).any():
        return []
    named = [(e.revision, e.request_ids[row]) for e in events for row in e.first]
    return [(*named[k], float(totals[k])) for k in np.flatnonzero(totals > slow_ms).tolist()]
