"""The words of this room as plain types: what an endpoint should be, and what its processes tell each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import OptionError

ENDPOINT = "endpoint"
"""Kind of the records that hold what endpoints should be."""


class Priority(str, Enum):
    """How an endpoint shares a device with others."""

    LATENCY = "latency"
    BULK = "bulk"


@dataclass(frozen=True)
class Revision:
    """One bundle behind an endpoint.

    Parameters
    ----------
    id : str
        First 12 digits of the bundle's hash: the bundle is the revision.
    bundle : str
        Full hash of the bundle (SHA-256 of its manifest), which names its folder in the workspace.
    created_at : float
        Seconds since 1970.
    state : str
        ``"checking"``, ``"ready"`` (its golden rows passed) or ``"refused"``.
    reason : str
        Why it was refused or rolled back.
    """

    id: str
    bundle: str
    created_at: float
    state: str = "checking"
    reason: str = ""


@dataclass(frozen=True)
class CanaryStep:
    """One step of a canary.

    Parameters
    ----------
    weight : float
        Share of the traffic for the new revision, in (0, 1].
    requests : int
        Answers that the new revision must have given before the gate may open.
    seconds : float
        Time that must have passed at this step.
    """

    weight: float
    requests: int = 200
    seconds: float = 30.0


DEFAULT_STEPS = (CanaryStep(0.01), CanaryStep(0.05), CanaryStep(0.25), CanaryStep(1.0))
"""1 → 5 → 25 → 100 %."""


@dataclass(frozen=True)
class Canary:
    """A new revision on its way to all of the traffic.

    Parameters
    ----------
    revision, baseline : str
        The new one, and the one that it replaces.
    steps : tuple of CanaryStep
        The way.
    step : int
        Where it is.
    started_at, step_at : float
        Seconds since 1970: of the canary, and of this step.
    """

    revision: str
    baseline: str
    steps: tuple[CanaryStep, ...] = DEFAULT_STEPS
    step: int = 0
    started_at: float = 0.0
    step_at: float = 0.0


@dataclass(frozen=True)
class CapturePolicy:
    """Which requests are kept for the next turn of the loop, and for how long.

    Parameters
    ----------
    sample : float
        Uniform share of all rows, in [0, 1].
    confidence : float
        Rows whose highest probability is below it are kept.
    slow_ms : float
        Requests that took longer are kept; 0 means none.
    per_hour : int
        Bound of each reservoir: reason × revision × hour.
    days : float
        How long captured rows are kept.
    redact : tuple of str
        Columns whose values are never stored.
    """

    sample: float = 0.01
    confidence: float = 0.6
    slow_ms: float = 0.0
    per_hour: int = 500
    days: float = 30.0
    redact: tuple[str, ...] = ()


@dataclass(frozen=True)
class Endpoint:
    """What a served name should be; the serving processes bring it about.

    Parameters
    ----------
    name : str
        Letters, digits, ``-`` and ``_``; at most 64.
    revisions : tuple of Revision
        All that were deployed, oldest first.
    traffic : mapping of str to float
        Share of each revision id; sums to 1, empty before the first revision is ready.
    previous : str
        Revision that a rollback goes to; empty if there is none.
    shadow : str
        Revision that gets a copy of the requests at bulk priority; empty if none.
    canary : Canary or None
        A change under way.
    priority : Priority
        ``latency`` or ``bulk``.
    min_replicas, max_replicas : int
        Bounds for workers of each revision; 0 lets it scale to zero.
    idle_s : float
        Seconds without a request after which workers above ``min_replicas`` are let go.
    deadline_ms : float
        How long a request may take where its caller does not say.
    target_ms : float
        The latency that is wanted: objective of the SLO, and what bulk work is sliced for.
    features : tuple of str
        Feature groups that complete a request's rows.
    capture : CapturePolicy
        What is kept of the traffic.
    deterministic : bool
        Never batch: every answer is bit-equal to a call with that request alone.
    loaded : bool
        False where it was unloaded: no front answers for it, and none holds its models in memory.
    """

    name: str
    revisions: tuple[Revision, ...] = ()
    traffic: Mapping[str, float] = field(default_factory=dict)
    previous: str = ""
    shadow: str = ""
    canary: Canary | None = None
    priority: Priority = Priority.LATENCY
    min_replicas: int = 0
    max_replicas: int = 1
    idle_s: float = 300.0
    deadline_ms: float = 10_000.0
    target_ms: float = 100.0
    features: tuple[str, ...] = ()
    capture: CapturePolicy = field(default_factory=CapturePolicy)
    deterministic: bool = False
    loaded: bool = True

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "priority": self.priority.value, "traffic": dict(self.traffic)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Endpoint:
        """Rebuild from `to_json`.

        Raises
        ------
        OptionError
            For a field that is not known or has the wrong form.

        Examples
        --------
        >>> Endpoint.from_json(Endpoint("fraud").to_json()) == Endpoint("fraud")
        True
        """
        unknown = sorted(set(data) - {f.name for f in fields(cls)})
        if unknown:
            raise OptionError(f"An endpoint has no field {unknown[0]!r}.")
        values = dict(data)
        try:
            values["revisions"] = tuple(Revision(**r) for r in values.get("revisions", ()))
            values["priority"] = Priority(values.get("priority", "latency"))
            values["features"] = tuple(values.get("features", ()))
            capture = dict(values.get("capture") or {})
            values["capture"] = CapturePolicy(**{**capture, "redact": tuple(capture.get("redact", ()))})
            canary = values.get("canary")
            if canary is not None:
                steps = tuple(CanaryStep(**s) for s in canary["steps"])
                values["canary"] = Canary(**{**canary, "steps": steps})
            return cls(**values)
        except (TypeError, ValueError, KeyError) as error:
            raise OptionError(f"The endpoint's description does not fit: {error}.") from error


@dataclass(slots=True)  # not frozen: there is one for every request, and a frozen one takes three times as long to make
class RequestEvent:
    """What one request cost; times in milliseconds. Nobody changes it.

    Parameters
    ----------
    endpoint, revision, request_id : str
        Which.
    status : int
        HTTP status of the answer.
    rows : int
        Rows that were asked for.
    queue_ms, wait_ms, model_ms, encode_ms, total_ms : float
        In line; under way to the worker and back, the batch before it included; the model; writing the answer; all of
        it from its first byte.
    retries : int
        How often it was replayed because a worker died.
    shadow : bool
        True for the copy that a shadow got.
    error : str
        What went wrong; empty if nothing.
    traceparent : str
        The caller's span (W3C Trace Context), where somebody follows it; else empty.
    """

    endpoint: str
    revision: str
    request_id: str
    status: int
    rows: int
    queue_ms: float
    wait_ms: float
    model_ms: float
    encode_ms: float
    total_ms: float
    retries: int = 0
    shadow: bool = False
    error: str = ""
    traceparent: str = ""


NO_PARENTS: Mapping[int, str] = {}
"""Of a batch whose callers have no spans, or where nobody follows them. Nobody changes it."""


@dataclass(slots=True)  # not frozen, as `RequestEvent`
class BatchEvent:
    """One call of a model with the requests that it answered. Nobody changes it.

    Times are seconds on the clock of `time.perf_counter`; of lists there is one entry for each request that was
    answered as a whole. A request was read until ``queued`` and waited in line until ``sent``. Until ``landed`` it
    waited for the worker (its way there, the batch before, the way back) but for ``model_ms``. It was written at
    ``ended``, after those before it.

    Parameters
    ----------
    endpoint, revision : str
        Which.
    columns, outputs : mapping
        Rows that were asked for and their answers. Arrays are kept, never changed.
    request_ids : sequence of str
        One for each row.
    first, rows : sequence of int
        First row of each request in the batch, and how many it has.
    arrived, queued, ended : sequence of float
        When it came, was in line, was answered.
    sent, landed : float
        When the batch went to a worker, and when its answer was back.
    model_ms : float
        The model's time.
    retries : sequence of int
        How often each was replayed because a worker died.
    parts : mapping of int to int
        Of slices of requests that were divided: by the first row in the batch, which row of the request it is.
    traceparents : mapping of int to str
        Callers' spans by the first row of their request in the batch, where somebody follows them.
    """

    endpoint: str
    revision: str
    columns: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[np.generic]]
    request_ids: Sequence[str]
    first: Sequence[int]
    rows: Sequence[int]
    arrived: Sequence[float]
    queued: Sequence[float]
    ended: Sequence[float]
    sent: float
    landed: float
    model_ms: float
    retries: Sequence[int] = ()
    parts: Mapping[int, int] = field(default_factory=dict)
    traceparents: Mapping[int, str] = field(default_factory=lambda: NO_PARENTS)

    def requests(self) -> list[RequestEvent]:
        """The same as one event for each request."""
        wait_ms = max(0.0, (self.landed - self.sent) * 1e3 - self.model_ms)
        retries = self.retries or [0] * len(self.first)
        told = zip(self.first, self.rows, self.arrived, self.queued, self.ended, retries, strict=True)
        return [
            RequestEvent(
                self.endpoint, self.revision, self.request_ids[row], 200, count, (self.sent - queued) * 1e3, wait_ms,
                self.model_ms, (ended - self.landed) * 1e3, (ended - arrived) * 1e3, again,
            )
            for row, count, arrived, queued, ended, again in told
        ]  # fmt: skip


@dataclass(frozen=True)
class Feedback:
    """What was right, told afterwards.

    Parameters
    ----------
    request_id : str
        Of the answer.
    label : Any
        The true label or value; of several labels a row a list, in any order.
    row : int
        Which row of the request.
    at : float
        When it was known, seconds since 1970.
    note : str
        For people.
    """

    request_id: str
    label: Any
    row: int = 0
    at: float = 0.0
    note: str = ""


class Observer(Protocol):
    """What the engine tells the watch. Nothing here may raise or take more than microseconds, but for `feedback`.

    One that has a method ``memory(endpoint, revision, resident_bytes)`` is told every few seconds what workers hold.
    One that has a method ``answered(event: BatchEvent)`` is told of a batch and its requests in one call, and not by
    `batch` and `request`; what was refused or divided, and a shadow's answers, come by `request` all the same.
    One whose attribute ``traced`` is true gets the callers' ``traceparent`` with both.
    """

    def request(self, event: RequestEvent) -> None:
        """After every answer."""

    def batch(
        self,
        endpoint: str,
        revision: str,
        columns: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[np.generic]],
        request_ids: Sequence[str],
    ) -> None:
        """After every batch of a model; ``request_ids`` has one entry for each row. Arrays are kept, never changed."""

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        """A worker died."""

    def feedback(self, endpoint: str, items: Sequence[Feedback]) -> None:
        """Keep what was right; returns when it is durable. Called in a thread of its own."""

    def render_metrics(self) -> str:
        """Prometheus text."""

    def snapshot(self, endpoint: str, revision: str) -> dict[str, Any]:
        """Counters that the canary's gate asks for."""

    def close(self) -> None:
        """Write what is pending."""
