"""Runs steps right here, one after the other."""

from __future__ import annotations

import itertools
import resource
import time
from collections import deque

from tidemill.core.protocols import Outcome, Step
from tidemill.core.trial import Usage
from tidemill.jobs._call import answer


class InProcessExecutor:
    """An `Executor` for debugging and for small work: each `wait` runs the oldest step in the caller's thread.

    A step can't be ended from here: ``time_s``, ``memory_bytes`` and ``threads`` are not enforced, `wait` may take
    longer than its timeout, and a step that kills its process kills the caller. What a step prints is seen.

    Examples
    --------
    >>> executor = InProcessExecutor()
    >>> ticket = executor.submit(Step("math:floor", {}))
    >>> [outcome] = executor.wait()
    >>> type(outcome.error).__name__
    'TypeError'
    """

    def __init__(self) -> None:
        self._tickets = itertools.count()
        self._queue: deque[tuple[int, Step]] = deque()

    @property
    def capacity(self) -> int:
        """One."""
        return 1

    def ready(self, timeout_s: float | None = None) -> bool:
        """Always, for it runs here."""
        return True

    def submit(self, step: Step) -> int:
        """Queue a step and return its ticket."""
        ticket = next(self._tickets)
        self._queue.append((ticket, step))
        return ticket

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        """Run the oldest step and return its outcome; nothing where none is queued, or without any time to wait."""
        if not self._queue or (timeout_s is not None and timeout_s <= 0):
            return []
        ticket, step = self._queue.popleft()
        wall_s, cpu_s = time.monotonic(), _cpu_s()
        given = answer(step.call, step.arguments)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        usage = Usage(time.monotonic() - wall_s, _cpu_s() - cpu_s, peak)
        return [Outcome(ticket, given.value, given.error, given.traceback, usage)]

    def cancel(self, ticket: int) -> None:
        """Take a step from the queue; it gives no outcome."""
        self._queue = deque(item for item in self._queue if item[0] != ticket)

    def close(self) -> None:
        """Forget what is queued; twice is allowed."""
        self._queue.clear()


def _cpu_s() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)
