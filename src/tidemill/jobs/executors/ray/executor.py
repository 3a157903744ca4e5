"""Runs steps on the nodes of a cluster."""

from __future__ import annotations

import os
import secrets
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

from tidemill.core.errors import InternalError, OptionError, TrialError
from tidemill.core.protocols import Outcome, Step
from tidemill.jobs.executors.pool import outcome_of, pickled
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.jobs.executors.ray.host import Blind, Hello, Host, Told
from tidemill.jobs.executors.ray.parcels import Parcel, Stock, moved

START_S = 60.0
"""How long the first worker may take to come up."""
REST_S = 5.0
"""How long the others are waited for, once there is one; those that come later join in."""
ALONE_S = 120.0
"""So long a cluster without a single worker may take to get one, before the steps that wait are given up."""
_LOOK_S = 1.0
_CLOSE_S = 10.0


class RayExecutor:
    """An `Executor` whose steps run on the nodes of a cluster, each in a process of its own that can be ended.

    Ray places the workers where there is room, one actor each, and a worker runs one step at a time by the same code
    as a `ProcessExecutor`: limits, signals, output and what is left behind are kept on the node. Steps that wait stay
    here; they are handed out by `submit` and `wait`.

    Nodes need Tidemill installed, but no shared disk: the files that a step names are sent to its node once and gone
    after `close`. On this process's own node they are used where they lie. Steps that go on from what other steps left
    in a folder do need a shared disk; who hands them in says so by `require`.

    A worker that is lost with its node, or ended by Ray for want of memory, is asked for anew wherever there is room.
    Its step runs again from the beginning on another one; a step that loses its worker a second time has failed, with
    both nodes named.

    Parameters
    ----------
    cluster : Cluster
        From `tidemill.jobs.executors.ray.cluster.connect`; stays open when the executor is closed.
    workers : int, optional
        Steps that run at the same time; default as many as the nodes have room for.
    preload : sequence of str
        Modules that steps use.
    threads : int
        Cores that a worker takes, and threads of the numeric libraries in most steps.
    gpus : int
        GPUs that a worker takes.

    Raises
    ------
    OptionError
        Where the cluster has no room for a worker, or none comes up.

    Examples
    --------
    >>> with connect() as cluster, RayExecutor(cluster) as executor:  # doctest: +SKIP
    ...     executor.submit(Step("package.module:function", {"seed": 7}, time_s=30.0))
    ...     outcomes = executor.wait()
    """

    def __init__(
        self,
        cluster: Cluster,
        workers: int | None = None,
        preload: Sequence[str] = (),
        *,
        threads: int = 1,
        gpus: int = 0,
    ) -> None:
        if (workers is not None and workers < 1) or threads < 1 or gpus < 0:
            raise OptionError(
                f"Workers and threads must be at least 1, and GPUs not negative, but got ({workers=}, {threads=}, "
                f"{gpus=})."
            )
        room = cluster.room(threads, gpus)
        if room < 1:
            raise OptionError(f"No node of the cluster has room for a worker ({_size(threads, gpus)}).")
        self.threads = threads
        self._ray = cluster.ray
        self._here = cluster.node
        self._stock = Stock(self._ray.put)
        self._host = self._ray.remote(Host).options(
            num_cpus=threads, num_gpus=gpus, max_restarts=0, max_task_retries=0, max_concurrency=5,
            scheduling_strategy="SPREAD",
        )  # fmt: skip
        self._arguments = (secrets.token_hex(12), tuple(preload), threads)
        self._next = 0
        self._given: dict[int, _Given] = {}
        self._queue: deque[int] = deque()
        self._ended: list[Outcome] = []
        self._seats: list[_Seat] = []
        self._marks: list[str] = []
        self._lost: TrialError | None = None
        self._alone_since: float | None = None
        self._closed = False
        try:
            for _ in range(min(workers or room, room)):
                self._sit()
            self._start(_size(threads, gpus))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def capacity(self) -> int:
        """How many steps run at the same time: workers that are up."""
        return max(1, sum(seat.hello is not None for seat in self._seats))

    @property
    def nodes(self) -> list[str]:
        """Nodes with a worker that is up, for people, sorted."""
        return sorted({seat.hello.name for seat in self._seats if seat.hello is not None})

    def ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the workers that are up have loaded their modules; those that come later are not waited for."""
        loads = {seat.actor.load.remote(): seat for seat in self._seats if seat.hello is not None and not seat.loaded}
        if not loads:
            return True
        ready, late = self._ray.wait(list(loads), num_returns=len(loads), timeout=timeout_s)
        for each in ready:  # or lost, which the next look at it tells
            loads[each].loaded = True
        return not late

    def blind(self, folder: str | Path) -> list[str]:
        """Nodes with a worker that is up and does not see a folder of this machine, for people, sorted.

        Parameters
        ----------
        folder : str or Path
            An absolute path; made where it is not there. A file is written there, and removed again.
        """
        mark = _mark(folder)
        try:
            return self._without(mark)
        finally:
            with suppress(OSError):
                mark.unlink()

    def require(self, folder: str | Path) -> None:
        """Let only those workers work that see a folder of this machine, as on a shared disk.

        A worker that comes later and does not see it is let go, and its step runs on another one. An empty file stays
        in the folder until the executor is closed.

        Raises
        ------
        OptionError
            Where a worker that is up does not see it.
        """
        mark = _mark(folder)
        self._marks.append(str(mark))
        if found := self._without(mark):
            raise OptionError(
                f"The folder {folder} is not seen by {', '.join(found)}, and steps go on there from what others left.",
                hint="Put it on a disk that all nodes share, under the same path.",
            )

    def _without(self, mark: Path) -> list[str]:
        up = [(seat.hello.name, seat.actor.sees.remote(str(mark))) for seat in self._seats if seat.hello is not None]
        ready, _ = self._ray.wait([told for _, told in up], num_returns=len(up), timeout=_CLOSE_S) if up else ([], [])
        found = set()
        for name, told in up:
            try:
                if told not in ready or not self._ray.get(told):
                    found.add(name)
            except self._ray.exceptions.RayError:  # it is lost, which the next look at it tells
                continue
        return sorted(found)

    def submit(self, step: Step) -> int:
        """Queue a step and return its ticket; raises `OptionError` for arguments that can't be pickled."""
        if self._closed:
            raise InternalError("A step was submitted to an executor that is closed.")
        body = pickled(step)
        ticket = self._next
        self._next += 1
        self._given[ticket] = _Given(step, body)
        self._queue.append(ticket)
        self._hand_out()
        return ticket

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        """Return what has ended since the last call; blocks until there is something, or for the timeout."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        self._look(0.0)
        while not self._ended and self._given:
            left_s = _LOOK_S if deadline is None else min(_LOOK_S, deadline - monotonic())
            if left_s <= 0:
                break
            self._look(left_s)
            self._give_up_alone()
        ended, self._ended = self._ended, []
        return ended

    def cancel(self, ticket: int) -> None:
        """End a step, by force if it runs; it gives no outcome. Unknown and ended tickets are ignored."""
        self._ended = [outcome for outcome in self._ended if outcome.ticket != ticket]
        if self._given.pop(ticket, None) is None:
            return
        if ticket in self._queue:
            self._queue.remove(ticket)
        for seat in self._seats:
            if seat.ticket == ticket:
                seat.actor.cancel.remote(ticket)

    def close(self) -> None:
        """End everything, on all nodes. Twice is allowed."""
        self._closed = True
        self._given.clear()
        self._queue.clear()
        self._ended.clear()
        self._stock = Stock(self._ray.put)  # Ray forgets what nobody refers to
        marks, self._marks = self._marks, []
        for mark in marks:
            Path(mark).unlink(missing_ok=True)
        seats, self._seats = self._seats, []
        if not seats or not self._ray.is_initialized():
            return
        partings = [seat.actor.close.remote() for seat in seats if seat.hello is not None]
        if partings:
            self._ray.wait(partings, num_returns=len(partings), timeout=_CLOSE_S)
        for seat in seats:
            self._ray.kill(seat.actor)

    # -------------------------------------------------------------------------------------------------------- workers

    def _sit(self) -> None:
        """Ask for one more worker."""
        actor = self._host.remote(*self._arguments)
        self._seats.append(_Seat(actor, actor.hello.remote()))

    def _start(self, size: str) -> None:
        deadline = monotonic() + START_S
        while any(seat.hello is None for seat in self._seats) and (left_s := deadline - monotonic()) > 0:
            self._look(min(left_s, _LOOK_S))
            if any(seat.hello is not None for seat in self._seats):
                deadline = min(deadline, monotonic() + REST_S)
        if all(seat.hello is None for seat in self._seats):
            why = f"No worker ({size}) came up within {START_S:.0f} s." if self._lost is None else str(self._lost)
            raise OptionError(why, hint="`ray status` shows what the nodes have, and who uses it.")

    def _look(self, timeout_s: float) -> None:
        """Take what has come from the workers, at once or after a while, and hand out what waits."""
        seats = {seat.reference: seat for seat in self._seats if seat.reference is not None}
        if seats:
            many = len(seats) if timeout_s <= 0 else 1
            ready, _ = self._ray.wait(list(seats), num_returns=many, timeout=max(0.0, timeout_s))
            for reference in ready:
                self._take(seats[reference], reference)
        self._hand_out()

    def _take(self, seat: _Seat, reference: Any) -> None:
        seat.reference = None
        ticket, seat.ticket = seat.ticket, None
        try:
            told: Hello | Told = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:  # ours, or of what Ray does with files and answers
            if seat.hello is None:
                self._lose(seat, ticket, error)
            else:
                message = f"The worker on {seat.hello.name} failed: {error.cause or error}"
                self._end(ticket, Outcome(0, error=TrialError(message), traceback=str(error)))
            return
        except self._ray.exceptions.RayError as error:
            self._lose(seat, ticket, error)
            return
        if isinstance(told, Hello):
            seat.hello = told
            self._alone_since = None
        elif isinstance(told, Blind):
            self._let_go(seat, ticket, told)
        elif isinstance(told, Outcome):
            self._end(ticket, told)
        elif told is not None and ticket in self._given:
            ended, body = told
            self._end(ticket, outcome_of(self._given[ticket].step, ended, body))

    def _end(self, ticket: int | None, outcome: Outcome) -> None:
        if ticket is not None and self._given.pop(ticket, None) is not None:
            self._ended.append(replace(outcome, ticket=ticket))

    def _lose(self, seat: _Seat, ticket: int | None, error: Exception) -> None:
        """Ask for another worker, and let the step of the lost one run again, once."""
        self._seats.remove(seat)
        told = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        if seat.hello is None:
            self._lost = TrialError(f"A worker did not come up: {told}")
        else:
            self._lost = TrialError(f"The worker on {seat.hello.name} was lost: {told}")
            self._sit()
        for other in self._seats:  # what took this one may have taken others: no work before they answer
            if other.hello is not None and other.reference is None:
                other.reference = other.actor.hello.remote()
        given = None if ticket is None else self._given.get(ticket)
        if ticket is None or given is None or seat.hello is None:
            return
        given.lost_on.append(seat.hello.name)
        if len(given.lost_on) == 1:
            self._queue.appendleft(ticket)
            return
        message = f"Twice the worker that ran it was lost, on {' and on '.join(given.lost_on)}: {told}"
        self._end(ticket, Outcome(0, error=TrialError(message, hint="A node may have run out of memory.")))

    def _let_go(self, seat: _Seat, ticket: int | None, told: Blind) -> None:
        """Do without a worker that does not see what all have to see; others run its step."""
        name = "" if seat.hello is None else seat.hello.name
        self._lost = TrialError(f"The worker on {name} does not see the folder {Path(told.mark).parent}.")
        self._seats.remove(seat)
        self._ray.kill(seat.actor)
        if ticket in self._given:
            self._queue.appendleft(ticket)

    def _give_up_alone(self) -> None:
        """End the steps that wait for workers that will not come."""
        if any(seat.hello is not None for seat in self._seats):
            return
        self._alone_since = self._alone_since or monotonic()
        if self._seats and monotonic() - self._alone_since < ALONE_S:
            return
        why = self._lost or TrialError("There is none.")
        for ticket in list(self._given):
            self._end(ticket, Outcome(0, error=TrialError(f"No worker is left on the cluster. {why}")))
        self._queue.clear()

    # ---------------------------------------------------------------------------------------------------------- steps

    def _hand_out(self) -> None:
        for seat in self._seats:
            if not self._queue:
                return
            if seat.hello is not None and seat.reference is None:
                self._give(seat, seat.hello, self._queue.popleft())

    def _give(self, seat: _Seat, hello: Hello, ticket: int) -> None:
        given = self._given[ticket]
        step = given.step
        limits = Step(step.call, {}, step.time_s, step.memory_bytes, step.threads, step.name)
        try:
            body, parcels = self._for_node(given, hello)
        except TrialError as error:
            self._end(ticket, Outcome(0, error=error))
            return
        seat.ticket = ticket
        seat.reference = seat.actor.run.remote(ticket, limits, body, parcels, tuple(self._marks))

    def _for_node(self, given: _Given, hello: Hello) -> tuple[bytes, list[Parcel]]:
        """What travels to a node: call and arguments with the paths that its files have there, and the files."""
        step = given.step
        parcels: list[Parcel] = []
        if hello.node == self._here:  # only that a worker stands in another folder
            places = {path: os.path.abspath(path) for path in (*step.files, *step.scratch)}
        else:
            places = {path: f"{hello.folder}/scratch-{_name(path)}" for path in step.scratch}
            for path in step.files:
                place, content = self._stock.take(path)
                places[path] = f"{hello.folder}/{place}"
                parcels += content
        if all(there == path for path, there in places.items()):
            return given.body, []
        return pickled(replace(step, arguments=moved(dict(step.arguments), places))), parcels


@dataclass
class _Given:
    """A step that has not ended."""

    step: Step
    body: bytes
    lost_on: list[str] = field(default_factory=list)


@dataclass(eq=False)
class _Seat:
    """A worker: ``reference`` is what is waited for, its hello or the end of its step."""

    actor: Any
    reference: Any
    hello: Hello | None = None
    ticket: int | None = None
    loaded: bool = False


def _mark(folder: str | Path) -> Path:
    """Write a file whose name nobody has looked for yet, so that no disk remembers that it was absent."""
    mark = Path(folder) / f".seen-{secrets.token_hex(8)}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    return mark


def _name(path: str) -> str:
    return sha256(path.encode()).hexdigest()[:16]


def _size(threads: int, gpus: int) -> str:
    cores = "1 core" if threads == 1 else f"{threads} cores"
    return cores if not gpus else f"{cores}, {gpus} GPU" + ("s" if gpus > 1 else "")
