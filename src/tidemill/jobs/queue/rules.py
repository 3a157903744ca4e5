"""The laws of the queue as pure functions: whose turn it is, what fits, what follows from how an attempt ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tidemill.jobs.queue.types import ENDED, HELD, Claimant, Device, Ending, Job, JobState, Request, Until

AGE_S = 600.0
"""So many seconds of waiting weigh as much as one point of priority."""
PATIENCE_S = 600.0
"""A job that is due and has waited so long for room is not overtaken any more by smaller ones."""
FIRST_PAUSE_S = 5.0
MOST_PAUSE_S = 600.0


def turn(priority: int, submitted_at: float) -> float:
    """Give a job's place in the line; smaller comes first.

    Ageing is linear: a job gains a point for every `AGE_S` seconds, and so does every other. What decides is therefore
    the same at any time, and can stand in an index: who came first, each point of priority counting as `AGE_S` seconds.

    Examples
    --------
    >>> turn(1, 1000.0) < turn(0, 401.0) and turn(0, 399.0) < turn(1, 1000.0)
    True
    """
    return submitted_at - priority * AGE_S


def pause_s(attempt: int, first_s: float = FIRST_PAUSE_S) -> float:
    """Give the pause after an attempt that failed, in seconds: each twice the one before, up to ten minutes.

    Examples
    --------
    >>> pause_s(1), pause_s(3), pause_s(50)
    (5.0, 20.0, 600.0)
    """
    return float(min(MOST_PAUSE_S, first_s * 2.0 ** min(attempt - 1, 30)))


def readiness(needs: Iterable[tuple[JobState, Until]]) -> JobState:
    """Say what becomes of a job that waits, from the states of what it needs: waiting, queued or skipped.

    Examples
    --------
    >>> readiness([(JobState.DONE, Until.DONE), (JobState.FAILED, Until.ENDED)]).value
    'queued'
    >>> readiness([(JobState.FAILED, Until.DONE), (JobState.RUNNING, Until.DONE)]).value
    'skipped'
    """
    known = list(needs)
    if any(until is Until.DONE and state in ENDED and state is not JobState.DONE for state, until in known):
        return JobState.SKIPPED
    return JobState.QUEUED if all(state in ENDED for state, _ in known) else JobState.WAITING


@dataclass(frozen=True)
class Verdict:
    """What becomes of a job after an attempt; ``ready_at`` is for one that is tried again."""

    state: JobState
    error: str | None = None
    ready_at: float | None = None


def after(job: Job, ending: Ending, now: float, first_pause_s: float = FIRST_PAUSE_S) -> Verdict:
    """Decide what becomes of a job that a worker has had.

    What it finished counts, even where it was asked to stop meanwhile. A job that was cancelled is not tried again, nor
    one whose time is over or whose input is wrong.
    """
    if ending.outcome == "done":
        return Verdict(JobState.DONE)
    if job.stop in ("cancel", "force"):
        return Verdict(JobState.CANCELLED, "It was cancelled while it ran.")
    if job.stop == "time" or job.left_s(ending.ended_at(now)) <= 0:
        return Verdict(JobState.FAILED, f"Its time of {job.time_s or 0:g} s is over.")
    if ending.hopeless:
        return Verdict(JobState.FAILED, ending.error)
    if job.attempt < job.max_attempts:
        return Verdict(JobState.QUEUED, ending.error, now + pause_s(job.attempt, first_pause_s))
    return Verdict(JobState.LOST if ending.outcome == "lost" else JobState.FAILED, ending.error)


# ---------------------------------------------------------------------------------------------------------- resources


@dataclass(frozen=True)
class Room:
    """What is left for further jobs.

    Parameters
    ----------
    cpus, memory_bytes : int
        Of a worker.
    devices : mapping of str to int
        Bytes by device.
    whole : int
        Cores of the worker, free or not.
    """

    cpus: int
    memory_bytes: int
    devices: Mapping[str, int]
    whole: int


def room(by: Claimant, others: Sequence[Job], *, idle: bool = False) -> Room:
    """Give what a worker has left.

    Parameters
    ----------
    by : Claimant
        The worker.
    others : sequence of Job
        All jobs that run: its own take cores and memory, those of its machine take devices.
    idle : bool
        What it would have if its own jobs had ended.
    """
    if idle:
        others = [job for job in others if job.worker != by.id]
    held = [job for job in others if job.state in HELD]
    mine = [job for job in held if job.worker == by.id]
    devices = {device.name: device.usable for device in by.capacity.devices}
    sizes = dict(devices)
    for job in held:
        for name in job.held if job.host == by.host else ():
            if name in devices:
                devices[name] -= job.device_bytes or sizes[name]
    return Room(
        by.capacity.cpus - sum(by.capacity.cores_of(job) for job in mine),
        by.capacity.memory_bytes - sum(job.memory_bytes for job in mine),
        devices,
        by.capacity.cpus,
    )


def place(job: Job | Request, left: Room, devices: Sequence[Device]) -> tuple[str, ...] | None:
    """Give the devices that a job gets, none where it wants none; None where it doesn't fit.

    Of devices with room the fullest are taken, so that small jobs are packed and large ones find an empty one.
    """
    if (job.cpus or left.whole) > left.cpus or job.memory_bytes > left.memory_bytes:
        return None
    fitting = [d for d in devices if left.devices[d.name] >= (job.device_bytes or d.usable)]
    if len(fitting) < job.devices:
        return None
    fitting.sort(key=lambda d: (left.devices[d.name], d.name))
    return tuple(d.name for d in fitting[: job.devices])


def choose(line: Iterable[Job], by: Claimant, running: Sequence[Job], now: float) -> tuple[Job, tuple[str, ...]] | None:
    """Choose the first job of the line that has room, and its devices.

    A smaller job may go ahead of one that doesn't fit now, but not for ever: where a job that is due has waited for
    `PATIENCE_S`, and would fit if this worker's own jobs had ended, nothing goes ahead of it.

    Parameters
    ----------
    line : iterable of Job
        Queued jobs, first turn first.
    by : Claimant
        Who asks.
    running : sequence of Job
        All jobs that run.
    now : float
        Seconds since 1970.
    """
    now_left, idle_left = room(by, running), room(by, running, idle=True)
    for job in line:
        placed = place(job, now_left, by.capacity.devices)
        if placed is not None:
            return job, placed
        if now - job.ready_at > PATIENCE_S and place(job, idle_left, by.capacity.devices) is not None:
            return None
    return None
