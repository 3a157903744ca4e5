"""An observer that passes everything on and sends what it saw to a collector of OpenTelemetry.

On the hot path an event is put into a bounded queue, as the watch does it. A side thread counts it and makes a span of
one in many; another one, and the span processor's own, talk to the collector. A collector that is slow or gone costs
telemetry, never an answer.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.deploy.engine.observing import NullObserver
from tidemill.deploy.otel.counts import Counts
from tidemill.deploy.otel.settings import Settings, read_settings
from tidemill.deploy.types import BatchEvent, Feedback, Observer, RequestEvent

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import Metric

_log = logging.getLogger(__name__)
MOST_WAITING = 50_000
"""Events that may wait for the side thread; more are dropped and counted."""
FOLD_S = 0.2
_NOTHING: Mapping[str, NDArray[Any]] = {}


class Sender(Protocol):
    """Where spans and metrics go."""

    def span(self, event: RequestEvent, ended_ns: int, parent: str) -> None:
        """Take one request as a span; returns at once."""

    def follows(self, traceparent: str) -> bool:
        """True where the caller's span is recorded, so that ours should be, too."""

    def metrics(self, metrics: Sequence[Metric]) -> None:
        """Send them now; may take seconds where the collector does."""

    def close(self) -> None:
        """Send what is pending."""


class Telemetry:
    """A `tidemill.deploy.types.Observer` around another one.

    Parameters
    ----------
    inner : Observer or None
        Is told everything, too. Who made it closes it.
    sender : Sender
        Where spans and metrics go.
    settings : Settings
        What is sent.
    chance : callable
        Gives numbers in [0, 1).
    clock : callable
        Gives nanoseconds since 1970.
    start : bool
        False leaves the side threads out; `fold` and `send` then do their work.
    """

    def __init__(
        self,
        inner: Observer | None,
        sender: Sender,
        settings: Settings,
        *,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], int] = time.time_ns,
        start: bool = True,
    ) -> None:
        self._inner: Observer = inner or NullObserver()
        self._whole: Callable[[BatchEvent], None] | None = getattr(self._inner, "answered", None)
        self._sender = sender
        self._settings = settings
        self._chance = chance
        self._clock = clock
        self._counts = Counts(clock())
        self._events: deque[tuple[RequestEvent | BatchEvent, int]] = deque()
        self._dropped = 0
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        if start:
            self._spawn(self.fold, FOLD_S, "tidemill-otel")
            if settings.metrics:
                self._spawn(self.send, settings.every_s, "tidemill-otel-send")

    @property
    def traced(self) -> bool:
        """True where spans are sent below those of the callers: the engine then passes these on."""
        return self._settings.spans and self._settings.follow

    # ------------------------------------------------------------------------------------------------- the hot path

    def request(self, event: RequestEvent) -> None:
        """After an answer: keeps a reference."""
        self._inner.request(event)
        self._keep(event, 1)

    def answered(self, event: BatchEvent) -> None:
        """After a batch, in place of `batch` and `request`: keeps times and names, and lets the rows go."""
        if self._whole is not None:
            self._whole(event)
        else:
            self._inner.batch(event.endpoint, event.revision, event.columns, event.outputs, event.request_ids)
            for one in event.requests():
                self._inner.request(one)
        self._keep(replace(event, columns=_NOTHING, outputs=_NOTHING), len(event.first))

    def batch(
        self,
        endpoint: str,
        revision: str,
        columns: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[np.generic]],
        request_ids: Sequence[str],
    ) -> None:
        """After every batch: pass it on; values of rows are never sent."""
        self._inner.batch(endpoint, revision, columns, outputs, request_ids)

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        """A worker died."""
        self._inner.death(endpoint, revision, reason)
        self._counts.death(endpoint, revision, reason)

    def memory(self, endpoint: str, revision: str, resident_bytes: int) -> None:
        """Memory of a revision's workers, as the engine measured it last."""
        tell = getattr(self._inner, "memory", None)
        if tell is not None:
            tell(endpoint, revision, resident_bytes)
        self._counts.memory(endpoint, revision, resident_bytes)

    def feedback(self, endpoint: str, items: Sequence[Feedback]) -> None:
        """Keep what was right, where there is somebody who keeps it."""
        self._inner.feedback(endpoint, items)
        self._counts.feedback(endpoint, len(items))

    def render_metrics(self) -> str:
        """Prometheus text of the inner observer."""
        return self._inner.render_metrics()

    def snapshot(self, endpoint: str, revision: str) -> dict[str, Any]:
        """Counters of the inner observer."""
        return self._inner.snapshot(endpoint, revision)

    def close(self) -> None:
        """Send what is pending, once; the inner observer is closed by who made it."""
        if self._stop.is_set():
            return
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        self.fold()
        if self._settings.metrics:
            self.send()
        self._sender.close()

    def _keep(self, event: RequestEvent | BatchEvent, requests: int) -> None:
        if len(self._events) < MOST_WAITING:
            self._events.append((event, self._clock()))
        else:
            self._dropped += requests

    # -------------------------------------------------------------------------------------------------- side threads

    def fold(self) -> None:
        """Count what has come, and make spans."""
        settings, events = self._settings, self._events
        dropped, self._dropped = self._dropped, 0
        self._counts.dropped(dropped)
        for _ in range(len(events)):
            event, kept_ns = events.popleft()
            for one, ended_ns, parent in requests_of(event, kept_ns):
                self._counts.request(one)
                if settings.spans and self._becomes_span(parent):
                    self._sender.span(one, ended_ns, parent)

    def send(self) -> None:
        """Send the metrics as they are now."""
        metrics = self._counts.metrics(self._clock())
        if metrics:
            self._sender.metrics(metrics)

    def _becomes_span(self, parent: str) -> bool:
        if parent and self._settings.follow:
            return self._sender.follows(parent)
        return self._settings.share > 0 and self._chance() < self._settings.share

    def _spawn(self, work: Callable[[], None], every_s: float, name: str) -> None:
        def run() -> None:
            while not self._stop.wait(every_s):
                try:
                    work()
                except Exception:  # noqa: BLE001  telemetry that fails must neither end nor cost an answer
                    _log.exception("Telemetry failed.")

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def requests_of(event: RequestEvent | BatchEvent, kept_ns: int) -> Iterator[tuple[RequestEvent, int, str]]:
    """Each request of an event, when it ended, and the caller's span as the header ``traceparent`` named it."""
    if isinstance(event, RequestEvent):
        yield event, kept_ns, event.traceparent
        return
    parents = event.traceparents
    last = max(event.ended, default=0.0)
    for one, first, ended in zip(event.requests(), event.first, event.ended, strict=True):
        yield one, kept_ns - int((last - ended) * 1e9), parents.get(first, "")


@contextlib.contextmanager
def telemetry(inner: Observer | None, settings: Settings | None = None) -> Iterator[Observer | None]:
    """Give an observer that sends telemetry if the environment asks for it, else the inner one as it is.

    Parameters
    ----------
    inner : Observer or None
        Who watches anyway.
    settings : Settings, optional
        In place of what the environment says.

    Examples
    --------
    >>> with telemetry(None, Settings()) as observer:
    ...     observer is None
    True
    """
    wanted = read_settings() if settings is None else settings
    if not wanted.wanted:
        yield inner
        return
    try:
        from tidemill.deploy.otel.sender import OtlpSender
    except ImportError as error:
        # The variables may be meant for every program of a machine: no reason not to serve.
        _log.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but %s is not installed: no telemetry is sent."
            " Install it with: pip install 'tidemill[otel]'",
            error.name,
        )
        yield inner
        return
    observer = Telemetry(inner, OtlpSender(wanted), wanted)
    try:
        yield observer
    finally:
        observer.close()
