"""A job, what is asked of it, and where it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from tidemill.core.errors import OptionError

MOST_PRIORITY = 1000
"""Priorities lie within ±1000."""
USABLE = 0.9
"""Share of a device's memory that is given to jobs: predictions err, and libraries keep some for themselves."""


class JobState(str, Enum):
    """Where a job stands."""

    WAITING = "waiting"
    """For jobs that it needs."""
    QUEUED = "queued"
    """For a worker; after a failed attempt also for the end of its pause."""
    RUNNING = "running"
    STOPPING = "stopping"
    """It was asked to stop, and is given time to do so."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """Nobody heard of its last attempt any more, and there is no other left."""
    SKIPPED = "skipped"
    """A job that it needs did not succeed."""


HELD = (JobState.RUNNING, JobState.STOPPING)
"""States of a job that a worker has."""
OPEN = (JobState.WAITING, JobState.QUEUED, *HELD)
"""States of a job that may still run."""
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.LOST, JobState.SKIPPED)


class Until(str, Enum):
    """What of another job is waited for."""

    DONE = "done"
    """That it succeeds; if it doesn't, who waits is skipped."""
    ENDED = "ended"
    """That it ends, whatever comes of it."""


@dataclass(frozen=True)
class Request:
    """A job that somebody wants.

    Parameters
    ----------
    kind : str
        Name of a registered kind.
    arguments : mapping
        Plain JSON.
    name : str
        For people, and for other requests of the same call that need it; default the kind.
    owner : str
        Who wants it.
    needs : mapping of (int or str) to Until
        Jobs that must have ended or succeeded before: ids, or names of requests of the same call.
    priority : int
        A job with one more point counts as if it had come `tidemill.jobs.queue.rules.AGE_S` seconds earlier.
    cpus : int
        Cores that it uses; 0 for all of the worker that takes it.
    memory_bytes : int
        What it will probably hold; 0 where nobody knows.
    devices : int
        Accelerators that it uses.
    device_bytes : int
        What it will probably hold on each; 0 takes a whole one.
    time_s : float or None
        What all its attempts together may take, in seconds.
    max_attempts : int
        How often it is tried.
    """

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    owner: str = ""
    needs: Mapping[int | str, Until] = field(default_factory=dict)
    priority: int = 0
    cpus: int = 1
    memory_bytes: int = 0
    devices: int = 0
    device_bytes: int = 0
    time_s: float | None = None
    max_attempts: int = 3

    def __post_init__(self) -> None:
        wrong = []
        for noun, text in (("kind", self.kind), ("name", self.name or self.kind)):
            if not text or not text.isprintable() or len(text) > 200:
                wrong.append(f"its {noun} must be printable text of up to 200 characters, but is {text!r}")
        if abs(self.priority) > MOST_PRIORITY:
            wrong.append(f"its priority must lie within ±{MOST_PRIORITY}, but is {self.priority}")
        if self.cpus < 0 or self.max_attempts < 1:
            wrong.append(f"it needs cores and at least one attempt, but has ({self.cpus=}, {self.max_attempts=})")
        if min(self.memory_bytes, self.devices, self.device_bytes) < 0:
            wrong.append("its memory and devices must not be negative")
        if self.device_bytes and not self.devices:
            wrong.append("memory on a device needs a device")
        if self.time_s is not None and not 0 < self.time_s < float("inf"):
            wrong.append(f"its time must be positive and finite, but is {self.time_s} s")
        if wrong:
            raise OptionError(f"The job can't be queued: {'; '.join(wrong)}.", where=self.name or self.kind)

    @property
    def called(self) -> str:
        """Its name, or that of its kind."""
        return self.name or self.kind


@dataclass(frozen=True)
class Job:
    """A job of the queue, as it stood when it was read.

    Parameters
    ----------
    id : int
        1, 2, 3… in the order in which jobs came.
    attempt : int
        Number of the last attempt, 0 before the first. Together with the id it says who may write: what an earlier
        attempt says is not heard.
    turn : float
        Smaller comes first, see `tidemill.jobs.queue.rules.turn`.
    ready_at : float
        From when it may be claimed, seconds since 1970.
    worker, host : str
        Who has it, or had it last.
    pid, mark : int or None, str
        The process of the attempt; see `tidemill.jobs.queue.processes.mark_of`.
    held : tuple of str
        Names of the devices that it was given.
    lease_until : float
        A job that nobody has spoken for until then is lost.
    stop, stop_at : str, float or None
        Why and when it was asked to stop: ``"cancel"``, ``"force"`` or ``"time"``.
    spent_s : float
        Seconds of all ended attempts.
    progress : mapping
        ``share`` (0..1) and ``message``, where it says so.
    result, error : mapping or None, str or None
        What came of it.
    """

    id: int
    name: str
    kind: str
    arguments: Mapping[str, Any]
    owner: str
    state: JobState
    priority: int
    turn: float
    ready_at: float
    cpus: int
    memory_bytes: int
    devices: int
    device_bytes: int
    time_s: float | None
    max_attempts: int
    attempt: int
    spent_s: float
    worker: str
    host: str
    pid: int | None
    mark: str
    held: tuple[str, ...]
    lease_until: float
    stop: str
    stop_at: float | None
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    progress: Mapping[str, Any]
    result: Any
    error: str | None

    def left_s(self, now: float) -> float:
        """Seconds of its time budget that are left at ``now``; ``inf`` without one."""
        if self.time_s is None:
            return float("inf")
        running = now - self.started_at if self.state in HELD and self.started_at is not None else 0.0
        return self.time_s - self.spent_s - running


@dataclass(frozen=True)
class Attempt:
    """One time that a job was tried.

    Parameters
    ----------
    number : int
        1, 2, 3…
    outcome : str
        ``"running"``, or how it ended: ``"done"``, ``"failed"``, ``"died"``, ``"stopped"``, ``"lost"``.
    error : str or None
        Why, in words.
    """

    job_id: int
    number: int
    worker: str
    host: str
    started_at: float
    finished_at: float | None
    outcome: str
    error: str | None


@dataclass(frozen=True)
class Ending:
    """How an attempt ended.

    Parameters
    ----------
    outcome : str
        ``"done"``, ``"failed"`` (it said so), ``"died"`` (its process did), ``"stopped"`` (it was asked), ``"lost"``.
    result : plain value
        For ``"done"``.
    error : str or None
        Why, in words.
    hopeless : bool
        True where another attempt would end the same way: wrong input.
    at : float or None
        When it ended, seconds since 1970, where that is not now: of an attempt that nobody saw end, when it was last
        spoken for.
    """

    outcome: str
    result: Any = None
    error: str | None = None
    hopeless: bool = False
    at: float | None = None

    def ended_at(self, now: float) -> float:
        """When it ended; never later than ``now``.

        Examples
        --------
        >>> Ending("done").ended_at(9.0), Ending("lost", at=5.0).ended_at(9.0)
        (9.0, 5.0)
        """
        return now if self.at is None else min(now, self.at)


@dataclass(frozen=True)
class Device:
    """An accelerator.

    Parameters
    ----------
    name : str
        ``"cuda:0"``.
    memory_bytes : int
        All that it has.
    """

    name: str
    memory_bytes: int

    @property
    def usable(self) -> int:
        """Bytes that jobs may hold."""
        return int(USABLE * self.memory_bytes)


@dataclass(frozen=True)
class Capacity:
    """What a worker gives to jobs.

    Parameters
    ----------
    cpus : int
        Cores.
    memory_bytes : int
        Memory of all its jobs together.
    devices : tuple of Device
        Accelerators of its machine, shared with other workers there; cores and memory are its own.
    """

    cpus: int
    memory_bytes: int
    devices: tuple[Device, ...] = ()

    def __post_init__(self) -> None:
        if self.cpus < 1 or self.memory_bytes < 1:
            raise OptionError(f"A worker needs cores and memory, but got ({self.cpus=}, {self.memory_bytes=}).")

    def cores_of(self, job: Job | Request) -> int:
        """How many cores a job has here."""
        return job.cpus or self.cpus


@dataclass(frozen=True)
class Claimant:
    """A worker that asks for a job.

    Parameters
    ----------
    id : str
        Its own among all, see `tidemill.jobs.queue.processes.worker_id`.
    host : str
        Its machine.
    capacity : Capacity
        What it gives.
    kinds : frozenset of str
        What it knows how to run.
    """

    id: str
    host: str
    capacity: Capacity
    kinds: frozenset[str]


@dataclass(frozen=True)
class Quota:
    """What one owner may have at a time; None for any number.

    Parameters
    ----------
    running : int or None
        Jobs that run at the same time.
    queued : int or None
        Jobs that wait; more are refused when they are submitted.
    """

    running: int | None = None
    queued: int | None = None

    def __post_init__(self) -> None:
        if any(n is not None and n < 0 for n in (self.running, self.queued)):
            raise OptionError("A quota must not be negative.")
