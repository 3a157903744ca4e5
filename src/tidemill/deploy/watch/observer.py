"""What a serving process tells the watch: the hot path keeps references, one side thread does the rest."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import secrets
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tidemill.core.errors import OptionError, TidemillError
from tidemill.core.protocols import Change
from tidemill.deploy.types import BatchEvent, Feedback, RequestEvent
from tidemill.deploy.watch import prometheus
from tidemill.deploy.watch.endpoint import EndpointWatch
from tidemill.deploy.watch.feedback import FeedbackLog
from tidemill.deploy.watch.recent import Batch
from tidemill.deploy.watch.sources import RecordSources, Sources, folder_of
from tidemill.deploy.watch.window import DEPLOY_WINDOW, Window, key_of, merge
from tidemill.store.workspace import Workspace

MOST_WAITING = 100_000
"""Events that may wait for the side thread; more are dropped and counted."""
MOST_WAITING_ROWS = 200_000
"""Rows of batches that may wait; what their columns weigh is not known before they are looked at."""
_ROW_BYTES = 1 << 12
"""Bytes of a file that count as one row."""
FOLD_S = 0.1
PUBLISH_S = 2.0
SLICE = 8192
"""Events, and rows, that are folded under one lock, so that a reader of the counters waits for milliseconds."""
STALE_S = 60.0
"""After so many seconds the counters of a dead process are joined with those of the past."""
PAST = "past"
"""Name under which the counters of dead processes stand."""

_FRONT = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_Event = BatchEvent | RequestEvent | tuple[str, Batch] | tuple[str, str, str]


def new_front() -> str:
    """Name for this process that no other ever had: its number, its machine, and chance.

    Examples
    --------
    >>> new_front() != new_front()
    True
    """
    return f"{os.getpid()}-{machine()}-{secrets.token_hex(4)}"


def machine() -> str:
    """Six digits that tell this machine from others that share the workspace."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def is_dead(front: str) -> bool:
    """True where the process that had this name ran on this machine and runs no more."""
    number, _, rest = front.partition("-")
    here = rest.partition("-")[0] == machine()
    return here and number.isdigit() and int(number) != os.getpid() and not psutil.pid_exists(int(number))


def _weight(event: BatchEvent) -> int:
    """Rows of a batch as they are counted while they wait: those that are files count for several."""
    files: int = getattr(event.columns, "file_bytes", 0)
    return len(event.request_ids) + files // _ROW_BYTES


class Watch:
    """The `tidemill.deploy.types.Observer` of a serving process.

    `answered`, `request`, `batch` and `death` only append to a bounded queue and never raise. Everything else is done
    by a side thread, whose failures are counted (``tidemill_watch_failures_total``) and never reach a caller.
    `feedback` returns when the disk has it.

    Parameters
    ----------
    workspace : Workspace
        Where counters, feedback and captured rows go.
    front : str, optional
        Name of this process, its own among all that ever wrote to the workspace.
    sources : Sources, optional
        Where endpoints are described; default the workspace's records.
    clock : callable
        Gives the time in seconds since 1970.
    seed : int, optional
        Of the samples; default chance.
    start : bool
        False leaves the side thread out; `fold` then does its work.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
    ...     watch = Watch(workspace)
    ...     watch.request(RequestEvent("fraud", "a1", "r1", 200, 1, 0.1, 0.0, 0.2, 0.1, 0.5))
    ...     watch.close()
    ...     watch.snapshot("fraud", "a1")["requests"]
    1
    """

    def __init__(
        self,
        workspace: Workspace,
        front: str | None = None,
        *,
        sources: Sources | None = None,
        clock: Callable[[], float] = time.time,
        seed: int | None = None,
        start: bool = True,
    ) -> None:
        self.front = front or new_front()
        if not _FRONT.fullmatch(self.front):
            raise OptionError(f"{self.front!r} is no name of a front.")
        self._workspace = workspace
        self._sources = sources or RecordSources(workspace)
        self._clock = clock
        self._rng = np.random.default_rng(seed)
        self._events: deque[_Event] = deque()
        self._rows_in = 0
        self._rows_out = 0
        self._dropped = 0
        self._failures = 0
        self._last_failure = ""
        self._memory: dict[tuple[str, str], int] = {}
        self._published: dict[tuple[str, str], dict[str, Any]] = {}
        self._endpoints: dict[str, EndpointWatch] = {}
        self._logs: dict[str, FeedbackLog] = {}
        self._lock = threading.Lock()
        self._side = threading.Lock()
        self._stop = threading.Event()
        self._next_publish = 0.0
        self._thread: threading.Thread | None = None
        if start:
            self._thread = threading.Thread(target=self._run, name="tidemill-watch", daemon=True)
            self._thread.start()

    # --------------------------------------------------------------------------------------------------- hot path

    def request(self, event: RequestEvent) -> None:
        """After every answer: keeps a reference."""
        if len(self._events) < MOST_WAITING:
            self._events.append(event)
        else:
            self._dropped += 1

    def batch(
        self,
        endpoint: str,
        revision: str,
        columns: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[np.generic]],
        request_ids: Sequence[str],
    ) -> None:
        """After every batch of a model: keeps references; the arrays may not be changed afterwards."""
        rows = len(request_ids)
        if len(self._events) < MOST_WAITING and self._rows_in - self._rows_out + rows <= MOST_WAITING_ROWS:
            self._rows_in += rows
            self._events.append((endpoint, Batch(revision, columns, outputs, request_ids, self._clock())))
        else:
            self._dropped += 1

    def answered(self, event: BatchEvent) -> None:
        """After every batch of a model, with the requests that it answered: keeps a reference."""
        rows = _weight(event)
        if len(self._events) < MOST_WAITING and self._rows_in - self._rows_out + rows <= MOST_WAITING_ROWS:
            self._rows_in += rows
            self._events.append(event)
        else:
            self._dropped += 1

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        """A worker died."""
        self._events.append((endpoint, revision, reason))

    def memory(self, endpoint: str, revision: str, resident_bytes: int) -> None:
        """Memory of a revision's workers, as the engine measured it last."""
        self._memory[endpoint, revision] = resident_bytes

    def feedback(self, endpoint: str, items: Sequence[Feedback]) -> None:
        """Keep what was right; returns when it is durable.

        Raises
        ------
        OptionError
            If an item can't be feedback; none is kept.
        WorkspaceError
            If the disk refuses; none is kept.
        """
        if items:
            self._log(endpoint).append(items)

    # ------------------------------------------------------------------------------------------------ what is known

    def window(self, endpoint: str, revision: str) -> Window:
        """Counters of one revision over all fronts; what waits for the side thread is not among them yet."""
        own = key_of(endpoint, revision, self.front)
        with self._lock:
            held = self._endpoints.get(endpoint)
            mine = held.revisions[revision].window.to_json() if held and revision in held.revisions else None
        others = [
            Window.from_json(record.body)
            for record in self._workspace.records.find(DEPLOY_WINDOW, f"{endpoint}/{revision}/")
            if record.key != own
        ]
        return merge([*others, *([Window.from_json(mine)] if mine else [])])

    def snapshot(self, endpoint: str, revision: str) -> dict[str, Any]:
        """Counters of one revision over all fronts as JSON, see `tidemill.deploy.watch.window.Window`."""
        return self.window(endpoint, revision).to_json()

    def render_metrics(self) -> str:
        """Prometheus text over all fronts, so that any of them may answer."""
        page = prometheus.Page()
        self._add_own(page)
        now = self._clock()
        for (endpoint, revision), window in sorted(self._all_windows().items()):
            labels = {"endpoint": endpoint, "revision": revision}
            prometheus.add_window(page, window, labels, now=now)
            held = self._memory.get((endpoint, revision))
            if held is not None:
                about = "Resident memory of a revision's workers of this front."
                page.add("tidemill_worker_memory_bytes", "gauge", about, {**labels, "front": self.front}, held)
        return page.text()

    def _all_windows(self) -> dict[tuple[str, str], Window]:
        parts: dict[tuple[str, str], list[Window]] = defaultdict(list)
        for record in self._workspace.records.find(DEPLOY_WINDOW):
            endpoint, revision, front = record.key.split("/", 2)
            if front != self.front:
                with contextlib.suppress(TidemillError):  # of another version
                    parts[endpoint, revision].append(Window.from_json(record.body))
        with self._lock:
            for endpoint, held in self._endpoints.items():
                for revision, state in held.revisions.items():
                    parts[endpoint, revision].append(Window.from_json(state.window.to_json()))
        return {key: merge(windows) for key, windows in parts.items()}

    def _add_own(self, page: prometheus.Page) -> None:
        mine = {"front": self.front}
        dropped = "Events that the watch could not take in time."
        page.add("tidemill_watch_dropped_total", "counter", dropped, mine, self._dropped)
        failures = "Failures of the watch's side thread."
        page.add("tidemill_watch_failures_total", "counter", failures, mine, self._failures)
        waiting = "Events that wait for the watch's side thread."
        page.add("tidemill_watch_waiting", "gauge", waiting, mine, len(self._events))
        lost = sum(e.dropped_rows + e.lost_periods for e in self._endpoints.values())
        refused = "Captured rows and periods that the disk refused."
        page.add("tidemill_watch_refused_by_disk_total", "counter", refused, mine, lost)
        memory = psutil.Process().memory_info().rss
        page.add("tidemill_front_memory_bytes", "gauge", "Resident memory of this front.", mine, memory)

    # -------------------------------------------------------------------------------------------------- side thread

    def fold(self) -> None:
        """Take in all that waits, and write what is due; the side thread does it ten times a second."""
        with self._side:
            self._sources.refresh()
            while self._events:
                taken = self._slice()
                with self._lock:
                    self._take(taken)
            now = self._clock()
            with self._lock:
                for held in self._endpoints.values():
                    self._guarded(partial(held.tick, now))
            if now >= self._next_publish or now < self._next_publish - 10 * PUBLISH_S:  # the clock may jump back
                self._publish(now)
                self._next_publish = now + PUBLISH_S

    def _slice(self) -> list[_Event]:
        """Some of the events that wait."""
        taken: list[_Event] = []
        rows = 0
        while self._events and len(taken) < SLICE and rows < SLICE:
            event = self._events.popleft()
            taken.append(event)
            if isinstance(event, BatchEvent):
                rows += len(event.request_ids)
        return taken

    def close(self) -> None:
        """Write what is pending and end the side thread; twice is allowed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=30)
            self._thread = None
        self._guarded(self.fold)
        with self._lock:
            for held in self._endpoints.values():
                self._guarded(held.close)
        self._guarded(lambda: self._publish(self._clock()))  # what came last is counted, too
        with self._lock:
            for log in self._logs.values():
                log.close()

    def _run(self) -> None:
        self._guarded(self._recover)
        while not self._stop.wait(FOLD_S):
            self._guarded(self.fold)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  a worker's edge: watching may fail, serving may not
            self._failures += 1
            self._last_failure = f"{type(error).__name__}: {error}"

    def _take(self, events: Sequence[_Event]) -> None:
        requests: dict[str, list[RequestEvent]] = defaultdict(list)
        batches: dict[str, list[Batch]] = defaultdict(list)
        answered: dict[str, list[BatchEvent]] = defaultdict(list)
        for event in events:
            if isinstance(event, BatchEvent):
                self._rows_out += _weight(event)
                answered[event.endpoint].append(event)
            elif isinstance(event, RequestEvent):
                requests[event.endpoint].append(event)
            elif len(event) == 2:
                self._rows_out += event[1].rows
                batches[event[0]].append(event[1])
            else:
                endpoint, revision, reason = event
                self._guarded(partial(self._count_death, endpoint, revision, reason))
        now = self._clock()
        for endpoint, whole in answered.items():
            self._guarded(partial(self._take_answers, endpoint, whole, now))
        for endpoint, told in batches.items():
            self._guarded(partial(self._take_batches, endpoint, told))
        for endpoint, some in requests.items():
            self._guarded(partial(self._take_requests, endpoint, some, now))

    def _count_death(self, endpoint: str, revision: str, reason: str) -> None:
        self._endpoint(endpoint).count_death(revision, reason)

    def _take_answers(self, endpoint: str, events: Sequence[BatchEvent], now: float) -> None:
        self._endpoint(endpoint).take_answers(events, now)

    def _take_batches(self, endpoint: str, batches: Sequence[Batch]) -> None:
        self._endpoint(endpoint).take_batches(batches)

    def _take_requests(self, endpoint: str, events: Sequence[RequestEvent], now: float) -> None:
        self._endpoint(endpoint).take_requests(events, now)

    def _endpoint(self, name: str) -> EndpointWatch:
        held = self._endpoints.get(name)
        if held is None:
            held = EndpointWatch(
                name,
                folder_of(self._workspace, name),
                self.front,
                self._sources,
                clock=self._clock,
                rng=self._rng,
            )
            self._endpoints[name] = held
        return held

    def _log(self, endpoint: str) -> FeedbackLog:
        folder = folder_of(self._workspace, endpoint)
        with self._lock:
            if endpoint not in self._logs:
                self._logs[endpoint] = FeedbackLog(folder / "feedback", self.front, clock=self._clock)
                self._endpoint(endpoint)  # begins to read what comes
            return self._logs[endpoint]

    def _publish(self, now: float) -> None:
        with self._lock:
            logs = list(self._logs.values())
            current: dict[tuple[str, str], dict[str, Any]] = {}
            for endpoint, held in self._endpoints.items():
                for revision, state in held.revisions.items():
                    body = state.window.to_json()
                    if body != self._published.get((endpoint, revision)):
                        current[endpoint, revision] = body
        for log in logs:
            log.roll()
        changes = [
            Change(DEPLOY_WINDOW, key_of(endpoint, revision, self.front), {**body, "at": now})
            for (endpoint, revision), body in current.items()
        ]
        if changes:
            self._workspace.records.put_all(changes)
            self._published.update(current)

    def _recover(self) -> None:
        """Take over what dead processes left: their counters join those of the past. Their files others fold."""
        records = self._workspace.records
        now = self._clock()
        gone: dict[str, list[Any]] = defaultdict(list)
        for record in records.find(DEPLOY_WINDOW):
            endpoint, revision, front = record.key.split("/", 2)
            if front != PAST and front != self.front and is_dead(front) and now - record.updated_at > STALE_S:
                gone[key_of(endpoint, revision, PAST)].append(record)
        for key, dead in gone.items():
            held = [r for r in records.find(DEPLOY_WINDOW, key) if r.key == key]
            joined = merge(Window.from_json(r.body) for r in [*held, *dead])
            changes = [Change(DEPLOY_WINDOW, key, joined.to_json(), held[0].version if held else 0)]
            changes += [Change(DEPLOY_WINDOW, r.key, None, r.version) for r in dead]
            records.put_all(changes)  # a conflict: another process was first
