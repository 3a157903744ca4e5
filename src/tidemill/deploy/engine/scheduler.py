"""Who runs next: deadlines inside a model, measured milliseconds between models. Pure, with the clock handed in.

Each model has a `Line`. A request is taken in only if it can be answered before its deadline, as far as the measured
times tell. Lines of one `Device` share it by weighted fair queueing: whoever has used the least time for its weight
goes next, so that no line waits longer than one slice of each of the others, whatever they ask for. What bulk lines
send at a time is cut to a quarter of the tightest target of the latency lines beside them.

On a CPU the operating system interrupts a bulk worker (it runs with a low priority) as soon as a latency worker has
something to do, so latency lines do not wait for the slices under way. A GPU does not interrupt: there they do.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

Clock = Callable[[], float]
WEIGHTS = {False: 8.0, True: 1.0}
"""Share of a device by class: latency, bulk."""
_SLOWER, _QUICKER = 0.1, 0.3
"""How much one batch changes what is thought of a line's pace."""
_CAUTION = 2.0
"""A request is taken only if it would be in time even were the work this much slower than it was.

A longer line would answer no more: it is there to keep workers busy while their pace changes, and what waits in it for
nothing is told so late."""
_BATCH_MS = 0.03
"""What a batch costs beside the model: frames, calls, waking a worker. The larger the batch, the fewer pay for it."""
_UNMEASURED_ROWS = 256
"""Rows to which batches of a line without a measured curve may grow."""
_SAME = 1.1
"""Times by the row that are no further apart are the same; measured in passing, they scatter."""
SLICE_SHARE = 0.25
"""Share of the tightest target that one slice of bulk work may take."""


class Waiting(Protocol):
    """What a line holds."""

    @property
    def rows(self) -> int:
        """How many rows."""

    @property
    def deadline(self) -> float:
        """When it must be answered, in seconds on the device's clock."""

    @property
    def key(self) -> object:
        """What it must have in common with those that share its batch."""

    @property
    def alone(self) -> bool:
        """True where it may share none."""


W = TypeVar("W", bound=Waiting)


@dataclass(eq=False)
class Line(Generic[W]):
    """Requests that wait for one model.

    Parameters
    ----------
    name : str
        For people.
    bulk : bool
        False for the latency class.
    target_ms : float
        Latency that is wanted.
    curve : sequence of (int, float)
        Measured milliseconds by batch size. Where only one size is known, batches grow from it as far as that pays.
    together : bool
        False: every request goes alone.
    """

    name: str
    bulk: bool = False
    target_ms: float = 100.0
    curve: Sequence[tuple[int, float]] = ((1, 1.0),)
    together: bool = True
    waiting_rows: int = 0
    running_rows: int = 0
    running: int = 0
    used_ms: float = 0.0
    passed: float = 0.0
    row_ms: float = 0.0
    workers: int = 1
    _fifo: deque[W] = field(default_factory=deque)
    late: list[W] = field(default_factory=list)
    _early: list[tuple[float, int, W]] = field(default_factory=list)
    _alone: deque[W] = field(default_factory=deque)
    _count: int = 0

    def __post_init__(self) -> None:
        self.learn(self.curve)

    def learn(self, curve: Sequence[tuple[int, float]]) -> None:
        """Take over a measured curve."""
        self.curve = sorted((int(b), float(ms)) for b, ms in curve) or [(1, 1.0)]
        self.best = best_batch(self.curve, self.target_ms if not self.bulk else None) if self.together else 1
        self.row_ms = self.predict_ms(self.best) / self.best

    def grow(self, rows: int, ms: float) -> None:
        """Let batches be larger or smaller after one of ``rows``, where nobody has measured which size is best.

        A full batch that took an eighth of the target at most, and no longer by the row than those before it, is
        followed by one of twice its size; one that took more than half of the target, by one of half its size.
        """
        if len(self.curve) > 1 or not self.together or rows < self.best:
            return
        if ms > self.target_ms / 2:
            self.best = max(1, self.best // 2)
        elif ms <= self.target_ms / 8 and ms / rows <= _SAME * self.row_ms and self.best < _UNMEASURED_ROWS:
            self.best *= 2

    def predict_ms(self, rows: int) -> float:
        """Milliseconds that a batch takes, by the measured curve."""
        curve = self.curve
        at = bisect_left(curve, (rows, 0.0))
        if at < len(curve) and curve[at][0] == rows:
            return curve[at][1]
        if at == 0:
            return curve[0][1]
        low, low_ms = curve[at - 1]
        if at == len(curve):
            return low_ms * rows / low
        high, high_ms = curve[at]
        return low_ms + (high_ms - low_ms) * (rows - low) / (high - low)

    @property
    def wait_ms(self) -> float:
        """Milliseconds until a request that comes now would be answered, as far as is known."""
        return (self.waiting_rows + self.running_rows) * self.row_ms / self.workers

    def push(self, item: W) -> None:
        """Put a request in its place."""
        self.waiting_rows += item.rows
        if item.alone:
            self._alone.append(item)
        elif not self._fifo or item.deadline >= self._fifo[-1].deadline:
            self._fifo.append(item)
        else:
            self._count += 1
            heapq.heappush(self._early, (item.deadline, self._count, item))

    def __len__(self) -> int:
        return len(self._fifo) + len(self._early) + len(self._alone)

    @property
    def suspects(self) -> bool:
        """True where the next request must run alone."""
        return bool(self._alone)

    @property
    def deadline(self) -> float:
        """Deadline of the next request; infinite where none waits."""
        heads = [item.deadline for item in (*list(self._alone)[:1], *list(self._fifo)[:1])]
        heads += [entry[0] for entry in self._early[:1]]
        return min(heads, default=float("inf"))

    def pop(self, most: int, now: float = -math.inf) -> list[W]:
        """Take the next batch: earliest deadlines first, up to ``most`` rows, all of one key.

        Requests whose deadline was before ``now`` go to `late` in place of a batch.
        """
        if self._alone:
            item = self._alone.popleft()
            self.waiting_rows -= item.rows
            return [item]
        fifo, early = self._fifo, self._early
        taken: list[W] = []
        rows = lost = 0
        key: object = None
        while fifo or early:
            hurried = bool(early) and (not fifo or early[0][0] < fifo[0].deadline)
            item = early[0][2] if hurried else fifo[0]
            if item.deadline < now:
                self.late.append(item)
                lost += item.rows
            elif taken and (rows + item.rows > most or (item.key is not key and item.key != key)):
                break
            else:
                taken.append(item)
                rows += item.rows
                key = item.key
            if hurried:
                heapq.heappop(early)
            else:
                fifo.popleft()
            if taken and not self.together:
                break
        self.waiting_rows -= rows + lost
        return taken

    def drop(self, gone: Callable[[W], bool]) -> list[W]:
        """Take out requests for which ``gone`` holds, wherever they stand."""
        out = [i for i in (*self._alone, *self._fifo, *(e[2] for e in self._early)) if gone(i)]
        if out:
            lost = set(map(id, out))
            self._alone = deque(i for i in self._alone if id(i) not in lost)
            self._fifo = deque(i for i in self._fifo if id(i) not in lost)
            self._early = [e for e in self._early if id(e[2]) not in lost]
            heapq.heapify(self._early)
            self.waiting_rows -= sum(i.rows for i in out)
        return out


def best_batch(curve: Sequence[tuple[int, float]], target_ms: float | None = None) -> int:
    """The smallest batch within a tenth of the best throughput, of those that take at most half of the target.

    To the model's own time comes what every batch costs, however large it is.

    Examples
    --------
    >>> best_batch([(1, 0.007), (8, 0.02), (32, 0.047), (128, 0.41)])
    32
    """
    fit = [(b, ms) for b, ms in curve if target_ms is None or ms <= target_ms / 2] or [curve[0]]
    top = max(b / (ms + _BATCH_MS) for b, ms in fit)
    return min(b for b, ms in fit if b / (ms + _BATCH_MS) >= 0.9 * top)


class Device(Generic[W]):
    """Cores, or a GPU, that several lines share.

    Parameters
    ----------
    clock : callable
        Seconds, monotonic.
    slots : int
        Batches of the latency class, and of the bulk class, that run side by side.
    interrupts : bool
        True for a CPU: latency work does not wait for bulk work under way.
    """

    def __init__(self, clock: Clock, *, slots: int = 1, interrupts: bool = True) -> None:
        self._clock = clock
        self._slots = max(1, slots)
        self._interrupts = interrupts
        self._lines: list[Line[W]] = []
        self._now = 0.0
        self.late: list[W] = []
        """Requests that were taken out because their deadline was over; see `take`."""

    @property
    def lines(self) -> Sequence[Line[W]]:
        """All lines."""
        return self._lines

    @property
    def slice_ms(self) -> float:
        """Milliseconds that one batch of bulk work may take."""
        return SLICE_SHARE * min((x.target_ms for x in self._lines if not x.bulk), default=float("inf"))

    def _busy(self, bulk: bool | None = None) -> int:
        """Batches under way, of one class or of both."""
        return sum([x.running for x in self._lines if bulk is None or x.bulk == bulk])

    def add(self, line: Line[W]) -> None:
        """Let a line take part."""
        line.passed = self._now
        self._lines.append(line)

    def remove(self, line: Line[W]) -> None:
        """Let a line leave."""
        if line in self._lines:
            self._lines.remove(line)

    def most_rows(self, line: Line[W]) -> int:
        """Rows that one batch of a line may have."""
        if not line.bulk:
            return line.best
        return int(max(1, min(line.best, self.slice_ms / max(line.row_ms, 1e-6))))

    def admits(self, line: Line[W], item: W) -> bool:
        """True where a request can be answered before its deadline, as far as is known."""
        return self.in_time(line, item.rows, item.deadline)

    def in_time(self, line: Line[W], rows: int, deadline: float) -> bool:
        """True where so many further rows can be answered before a deadline, as far as is known.

        A line that is empty takes what comes: were its times measured in a bad moment, nothing else would correct them.
        """
        before = line.waiting_rows + line.running_rows
        ms = _CAUTION * (before + rows) * line.row_ms / line.workers if before else 0.0
        return self._clock() + ms / 1e3 <= deadline

    def push(self, line: Line[W], item: W) -> None:
        """Let a request wait."""
        if not line.waiting_rows and not line.running:
            # A line that was idle has saved up nothing.
            line.passed = max(line.passed, self._now)
        line.push(item)

    def take(self, free: Callable[[Line[W]], bool]) -> tuple[Line[W], list[W]] | None:
        """The next batch that may start now; None where nothing waits or nothing is free.

        Requests that were found to be late on the way are in `late` afterwards: whoever takes batches answers them.

        Parameters
        ----------
        free : callable
            Whether a worker of the line can take a batch.
        """
        while (line := self._next(free)) is not None:
            batch = line.pop(self.most_rows(line), self._clock())
            if line.late:
                self.late += line.late
                line.late = []
            if batch:
                line.running += 1
                line.running_rows += sum([i.rows for i in batch])
                return line, batch
        return None

    def _next(self, free: Callable[[Line[W]], bool]) -> Line[W] | None:
        """The line whose turn it is."""
        lines = self._lines
        if len(lines) == 1:
            line = lines[0]
            return line if line.waiting_rows and free(line) else None
        ready = [x for x in lines if x.waiting_rows and self._open(x) and free(x)]
        if not ready:
            return None
        line = min(ready, key=lambda x: (x.passed, x.deadline))
        self._now = max(self._now, line.passed)
        return line

    def _open(self, line: Line[W]) -> bool:
        if line.running == 0 and (not line.bulk or self._busy(True) < self._slots):
            return self._interrupts or self._busy() < self._slots
        # A second batch behind the first keeps a worker busy; it may not keep others from their turn.
        others = any(x.waiting_rows for x in self._lines if x is not line and x.bulk <= line.bulk)
        busy = self._busy(line.bulk if self._interrupts else None)
        return not others or busy < self._slots

    def finished(self, line: Line[W], batch: Iterable[W], ms: float, *, counted: bool = True) -> None:
        """A batch is done, or lost; ``ms`` is what it took on the device."""
        rows = sum([i.rows for i in batch])
        line.running -= 1
        line.running_rows -= rows
        line.used_ms += ms
        line.passed += ms / WEIGHTS[line.bulk]
        if counted and rows:
            line.grow(rows, ms)
            found = ms / rows
            line.row_ms += (_SLOWER if found > line.row_ms else _QUICKER) * (found - line.row_ms)
