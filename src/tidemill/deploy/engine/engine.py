"""Runs models: forms batches, sends them to workers, replays what a dead worker held, keeps to the memory there is.

One object for each front, on its event loop; nothing here blocks. A job that `submit` took is answered exactly once,
by its outputs or by a `Refusal`, whatever happens to workers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from tidemill.core.errors import BundleError, TidemillError
from tidemill.deploy.engine import capacity, wire
from tidemill.deploy.engine.curves import Curve
from tidemill.deploy.engine.fleet import Worker, Zygote
from tidemill.deploy.engine.layout import Layout
from tidemill.deploy.engine.limits import MIB, Limits
from tidemill.deploy.engine.model import NICE, Job, Model, State
from tidemill.deploy.engine.observing import Columns, NullObserver
from tidemill.deploy.engine.query import Outputs
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.scheduler import Device
from tidemill.deploy.types import BatchEvent, Observer

_log = logging.getLogger(__name__)
SWEEP_S = 0.1
_AHEAD = 2
"""Batches that one worker may have: the one that runs, and the next."""
_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 10.0)
_GROW_S = 0.5
_WEIGH_EVERY = 50
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class WorkerDiedError(BundleError):
    """A worker died while it loaded or checked a model."""


@dataclass(slots=True, eq=False)
class Flight:
    """A batch that a worker has."""

    ticket: int
    model: Model
    jobs: list[Job]
    rows: int
    sent: float
    begun: float
    alone: bool
    area: int


class Engine:
    """Models, their workers, and the device that they share.

    Parameters
    ----------
    limits : Limits
        Bounds.
    observer : Observer, optional
        Told of batches and deaths.
    slots : int
        Batches that run side by side on the device; 0 means as many as there are cores.
    ahead : optional
        A warm process that was launched before; see `tidemill.deploy.engine.launching.launch`.
    """

    def __init__(self, limits: Limits, observer: Observer | None = None, *, slots: int = 0, ahead: Any = None) -> None:
        self.limits = limits
        self.observer: Observer = observer or NullObserver()
        self._quiet = type(self.observer) is NullObserver
        self._told: Callable[[BatchEvent], None] | None = getattr(self.observer, "answered", None)
        self.loop = asyncio.get_running_loop()
        self.clock = time.perf_counter
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._devices: dict[str, Device[Job]] = {
            "cpu": Device(self.clock, slots=slots or cores),
            "cuda": Device(self.clock, slots=1, interrupts=False),
        }
        self.zygote = Zygote(self.loop, ahead)
        self.models: list[Model] = []
        self.memory_bytes = limits.memory_bytes or int(psutil.virtual_memory().total * 0.8)
        self._owner: dict[int, Model] = {}
        self._tickets = 0
        self._reports: dict[int, tuple[Worker, asyncio.Future[dict[str, Any]]]] = {}
        self._readying: dict[Worker, asyncio.Future[dict[str, Any]]] = {}
        self._pumping = False
        self._closed = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._sweeps = 0

    def start(self) -> None:
        """Start the zygote and the watch over workers."""
        self.zygote.start()
        self._sweep()

    async def close(self) -> None:
        """Let all workers go."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in list(self._tasks):
            task.cancel()
        for model in list(self.models):
            self.remove(model)
        for worker in list(self._readying):
            worker.release()
        await asyncio.sleep(0)
        self.zygote.close()

    # ------------------------------------------------------------------------------------------------------ models

    def add(self, model: Model) -> None:
        """Take a model in; `prepare` makes it answer."""
        self.models.append(model)
        self._owner[id(model.line)] = model
        self._device(model).add(model.line)

    def remove(self, model: Model) -> None:
        """Let a model go: what waits is refused, what runs may end."""
        if model in self.models:
            self.models.remove(model)
        model.state = State.GONE
        self._device(model).remove(model.line)
        gone = Refusal(503, "unavailable", f"{model.endpoint!r} was taken out of service.", retry_after_s=1)
        self._refuse_all(model, gone)
        for worker in list(model.workers):
            if not worker.flights:
                self._release(model, worker)

    def _device(self, model: Model) -> Device[Job]:
        return self._devices[model.provider]

    async def prepare(self, model: Model) -> None:
        """Load a model for the first time: its graph is understood, its golden rows must pass.

        Raises
        ------
        TidemillError
            Why it can't serve; it is then `State.FAILED`.
        """
        model.state = State.CHECKING
        try:
            for attempt in range(self.limits.attempts):
                try:
                    await self._check(model)
                    break
                except WorkerDiedError:  # it says nothing about the model yet
                    if attempt + 1 == self.limits.attempts:
                        raise
        except Refusal:  # there is no room just now
            model.state = State.NEW
            raise
        except TidemillError as error:
            model.state, model.problem = State.FAILED, str(error)
            for worker in list(model.workers):
                self._release(model, worker)
            raise
        model.state = State.READY
        model.last_used = self.clock()
        self._pump_soon()

    async def _check(self, model: Model) -> None:
        worker = await self._start_worker(model)
        if model.facts.golden is None:
            return
        report = await self._ask(worker, wire.CHECK, {"golden": str(model.facts.golden)})
        model.held_bytes = max(model.held_bytes, int(report["memory"]))
        if report["problems"]:
            raise BundleError(" ".join(report["problems"]), where=str(model.facts.model))

    async def measure(self, model: Model) -> Curve | None:
        """Measure the batch curve finely, in a worker beside those that serve, and learn the best batch from it.

        Returns
        -------
        Curve or None
            What was measured; None where it could not be.
        """
        request = {"golden": None if model.facts.golden is None else str(model.facts.golden)}
        try:
            worker = await self._start_worker(model, serving=False)
            try:
                report = await self._ask(worker, wire.MEASURE, request)
            finally:
                worker.release()
        except TidemillError:  # it serves as it is
            return None
        curve = Curve(tuple((int(b), float(ms)) for b, ms in report["curve"]), int(report["memory"]))
        model.measure_is(curve)
        return curve

    async def _ask(self, worker: Worker, kind: int, request: dict[str, Any]) -> dict[str, Any]:
        self._tickets += 1
        ticket = self._tickets
        future: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        self._reports[ticket] = (worker, future)
        worker.send(wire.json_frame(kind, ticket, json.dumps(request).encode()))
        try:
            return await asyncio.wait_for(future, self.limits.start_s)
        except asyncio.TimeoutError:
            worker.kill("hang")
            raise BundleError("The model hangs on its golden rows.") from None
        finally:
            self._reports.pop(ticket, None)

    # ----------------------------------------------------------------------------------------------------- workers

    async def _start_worker(self, model: Model, *, serving: bool = True) -> Worker:
        """Fork a worker and wait until its model is loaded."""
        self._make_room(model)
        model.starting += 1
        ready: asyncio.Future[dict[str, Any]] = self.loop.create_future()
        try:
            order = model.order() if serving else {**model.order(), "nice": 15}
            worker = await self.zygote.order(order, self._frame, lambda w: self._ended(model, w))
            self._readying[worker] = ready
            try:
                told = await asyncio.wait_for(ready, self.limits.start_s)
            except asyncio.TimeoutError:
                worker.kill("start")
                raise BundleError(
                    f"The model did not load within {self.limits.start_s:.0f} s.", where=str(model.facts.model)
                ) from None
            finally:
                self._readying.pop(worker, None)
        finally:
            model.starting -= 1
        if "died" in told:
            raise WorkerDiedError("The worker died while it loaded the model; is there enough memory?")
        if "error" in told:
            raise BundleError(told["error"])
        model.understood(Layout.from_json(told["layout"]))
        model.held_bytes = max(model.held_bytes, int(told["memory"]))
        worker.ready = True
        worker.last_used = self.clock()
        if serving:
            worker.bulk = "nice" in order
            if model.state is State.GONE or self._closed:
                worker.release()
                raise BundleError(f"{model.endpoint!r} was taken out of service.")
            model.workers.append(worker)
            model.line.workers = max(1, len(model.workers))
            model.failures = 0
        return worker

    def _make_room(self, model: Model) -> None:
        """Admit one more worker by memory, letting idle models go where that helps.

        Raises
        ------
        Refusal
            507 with the numbers.
        """
        holders = [
            capacity.Holder(m, m.alive * m.memory_bytes, m.last_used, m is not model and m.idle and m.replicas[0] == 0)
            for m in self.models
            if m.alive
        ]
        plan = capacity.plan(self.memory_bytes, model.memory_bytes, holders)
        if isinstance(plan, capacity.Shortage):
            raise Refusal(507, "no_room", plan.describe(model.endpoint), retry_after_s=5)
        for held in plan:
            for worker in list(held.workers):
                self._release(held, worker)

    def wake(self, model: Model) -> None:
        """Start a worker where none is, without waiting for it."""
        if model.alive or self._closed or model.state not in (State.READY,):
            return
        now = self.clock()
        if now < model.retry_at:
            return
        self._spawn(self._wake(model))

    async def _wake(self, model: Model) -> None:
        try:
            await self._start_worker(model)
        except Refusal as error:
            if not model.alive:
                self._refuse_all(model, error)
            return
        except TidemillError as error:
            model.failures += 1
            wait = _BACKOFF_S[min(model.failures, len(_BACKOFF_S) - 1)]
            model.retry_at = self.clock() + wait
            if model.failures >= self.limits.attempts:
                why = f"The model can't start: {error}"
                self._refuse_all(model, Refusal(503, "unavailable", why, retry_after_s=max(1.0, wait)))
            elif model.line.waiting_rows:
                self.loop.call_later(wait, self.wake, model)
            return
        self._pump_soon()

    def _spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, model: Model, worker: Worker) -> None:
        if worker in model.workers:
            model.workers.remove(worker)
            model.line.workers = max(1, len(model.workers))
        worker.release()

    async def warm(self, model: Model) -> None:
        """See to it that a worker runs."""
        if not model.workers:
            await self._start_worker(model)

    def cool(self, model: Model) -> None:
        """Let the workers of an idle model go."""
        for worker in list(model.workers):
            if not worker.flights:
                self._release(model, worker)

    # -------------------------------------------------------------------------------------------------------- jobs

    @property
    def quiet(self) -> bool:
        """True where nobody watches."""
        return self._quiet

    def most_rows(self, model: Model) -> int:
        """Rows that go to a worker at a time."""
        return self._devices[model.provider].most_rows(model.line)

    def admits(self, model: Model, rows: int, deadline: float) -> bool:
        """True where so many rows can be answered before a deadline. An empty line takes what comes."""
        line = model.line
        before = line.waiting_rows + line.running_rows
        if not before:
            return True
        device = self._devices[model.provider]
        return before + rows <= self.limits.queue_rows and device.in_time(line, rows, deadline)

    def overloaded(self, model: Model) -> Refusal:
        """The refusal of what can't be answered in time."""
        return _overloaded(model.line.wait_ms)

    def submit(self, model: Model, job: Job, *, admitted: bool = False) -> Refusal | None:
        """Take a job in, or say why not; the refusal is the caller's to answer with.

        Parameters
        ----------
        model : Model
            Who shall answer.
        job : Job
            The rows.
        admitted : bool
            True where `admits` said yes just now.
        """
        if not model.on or model.state is State.GONE:
            return Refusal(503, "unavailable", f"{model.endpoint!r} is unloaded.", hint="Load it first.")
        if not admitted and not self.admits(model, job.rows, job.deadline):
            return _overloaded(model.line.wait_ms)
        if model.workers:
            self._devices[model.provider].push(model.line, job)
            if not self._pumping:
                self._pumping = True
                self.loop.call_soon(self._pump)
            return None
        if not model.alive and model.failures >= self.limits.attempts and self.clock() < model.retry_at:
            return Refusal(503, "unavailable", "The model can't start at the moment.", retry_after_s=1)
        self._devices[model.provider].push(model.line, job)
        self.wake(model)
        return None

    def _pump_soon(self) -> None:
        if not self._pumping:
            self._pumping = True
            self.loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        self._start_batches()

    def _free(self, line: Any) -> bool:
        return self._choose(self._owner[id(line)], line.suspects) is not None

    def _choose(self, model: Model, alone: bool) -> Worker | None:
        best, least = None, 1 if alone else _AHEAD
        for worker in model.workers:
            flights = worker.flights
            if len(flights) < least and not (flights and flights[-1].alone):
                if not flights:
                    return worker
                best, least = worker, len(flights)
        return best

    def _send(self, device: Device[Job], line: Any, jobs: list[Job]) -> None:
        model = self._owner[id(line)]
        now = self.clock()
        worker = self._choose(model, jobs[0].alone)
        assert worker is not None
        assert model.layout is not None
        self._tickets = ticket = (self._tickets + 1) & 0x7FFFFFFF
        rows = 0
        for job in jobs:
            job.sent = now
            rows += job.rows
        shapes = jobs[0].key
        batches = model.layout.batches
        if len(model.wire_types) == 1:
            shape = (rows, *shapes[0]) if batches else shapes[0]
            tensors = [(model.wire_types[0], shape, [j.query.pieces[0] for j in jobs])]
        else:
            tensors = [
                (kind, (rows, *shapes[k]) if batches else shapes[k], [j.query.pieces[k] for j in jobs])
                for k, kind in enumerate(model.wire_types)
            ]
        flights = worker.flights
        area = 3 - flights[-1].area if flights else 1  # there are never more than two
        flights.append(Flight(ticket, model, jobs, rows, now, now, jobs[0].alone, area))
        worker.send(wire.frame_of_parts(wire.RUN, ticket, tensors, area=area, shared=worker.area(area)))

    def _frame(self, worker: Worker, kind: int, ticket: int, count: int, ms: float, frame: bytes) -> None:
        if kind == wire.ANSWER:
            self._answered(worker, ticket, count, ms, frame)
            return
        told = json.loads(frame[wire.HEAD.size :])
        ready = self._readying.get(worker)
        if ready is not None and not ready.done():
            ready.set_result(told)
        elif ticket in self._reports:
            future = self._reports[ticket][1]
            if not future.done():
                if kind == wire.FAILED:
                    future.set_exception(BundleError(told["error"]))
                else:
                    future.set_result(told)
        elif kind == wire.FAILED:
            self._failed(worker, told)

    def _answered(self, worker: Worker, ticket: int, count: int, ms: float, frame: bytes) -> None:
        flight = worker.flights.popleft()
        assert flight.ticket == ticket
        model = flight.model
        now = self.clock()
        assert model.layout is not None
        outputs = Outputs(model.layout.outputs, wire.tensors_of(frame, count), ms)
        self._landed(worker, flight, (now - flight.begun) * 1e3, now)
        # The worker's next batch leaves before anything is written to callers.
        self._start_batches()
        start = 0
        for job in flight.jobs:
            try:
                job.done(job, outputs, start, None)
            except Exception:  # noqa: BLE001  a bug in one answer must not cost the answers behind it
                _log.exception("An answer could not be given.")
                job.done(job, None, 0, Refusal(500, "internal", "This is a bug in Tidemill; please report it."))
            start += job.rows
        if not self._quiet:
            self._tell(model, flight, outputs, now)

    def _start_batches(self) -> None:
        for device in self._devices.values():
            while (grant := device.take(self._free)) is not None:
                self._send(device, *grant)
            if device.late:
                late, device.late = device.late, []
                for job in late:
                    job.done(job, None, 0, _too_late())

    def _landed(self, worker: Worker, flight: Flight, ms: float, now: float) -> None:
        self._devices[flight.model.provider].finished(flight.model.line, flight.jobs, ms)
        flight.model.last_used = worker.last_used = now
        if worker.flights:
            worker.flights[0].begun = now
        elif flight.model.state is State.GONE:
            self._release(flight.model, worker)

    def _tell(self, model: Model, flight: Flight, outputs: Outputs, landed: float) -> None:
        """Tell the observer of a batch; what was refused, divided or copied has told of itself."""
        layout = model.layout
        assert layout is not None
        jobs = flight.jobs
        parts: dict[int, int] = {}
        if flight.rows == len(jobs):
            ids = [job.request_id for job in jobs]
            told = [(k, job) for k, job in enumerate(jobs) if job.ended]
            if len(told) < len(jobs):
                parts = {k: job.first for k, job in enumerate(jobs) if job.first >= 0}
        else:
            ids, told = [], []
            for job in jobs:
                if job.ended:
                    told.append((len(ids), job))
                elif job.first >= 0:
                    parts[len(ids)] = job.first
                ids.extend([job.request_id] * job.rows)
        event = BatchEvent(
            model.endpoint, model.revision, Columns(layout, flight.rows, [j.query.pieces for j in jobs], jobs[0].key),
            outputs.by_name(), ids, [k for k, _ in told], [j.rows for _, j in told], [j.arrived for _, j in told],
            [j.queued for _, j in told], [j.ended for _, j in told], flight.sent, landed, outputs.model_ms,
            [j.retries for _, j in told], parts,
        )  # fmt: skip
        if self._told is not None:
            self._told(event)
            return
        self.observer.batch(event.endpoint, event.revision, event.columns, event.outputs, event.request_ids)
        for one in event.requests():
            self.observer.request(one)

    def _failed(self, worker: Worker, told: dict[str, Any]) -> None:
        """A batch raised an error: its requests run alone, so that one bad row fails no neighbour."""
        flight = worker.flights.popleft()
        now = self.clock()
        self._landed(worker, flight, (now - flight.begun) * 1e3, now)
        if len(flight.jobs) == 1:
            job = flight.jobs[0]
            if told.get("kind") == "input":
                job.done(job, None, 0, Refusal(400, "invalid_input", f"The model refused it: {told['error']}"))
            else:
                job.done(job, None, 0, Refusal(500, "model_failed", f"The model failed: {told['error']}"))
        else:
            self._again(flight.model, flight.jobs, alone=True)
        self._pump_soon()

    def _again(self, model: Model, jobs: Sequence[Job], *, alone: bool) -> None:
        device = self._device(model)
        for job in jobs:
            job.alone = job.alone or alone
            device.push(model.line, job)

    # ------------------------------------------------------------------------------------------------------- deaths

    def _ended(self, model: Model, worker: Worker) -> None:
        ready = self._readying.get(worker)
        if ready is not None and not ready.done():
            ready.set_result({"died": True})
        for owner, future in list(self._reports.values()):
            if owner is worker and not future.done():
                future.set_exception(WorkerDiedError("The worker died while it checked the model."))
        if worker in model.workers:
            model.workers.remove(worker)
            model.line.workers = max(1, len(model.workers))
        if worker.released and not worker.flights:
            return
        if not self._closed:
            self.observer.death(model.endpoint, model.revision, worker.killed_for or "died")
        self._replay(model, worker)
        if model.line.waiting_rows or model.replicas[0] > len(model.workers):
            self.wake(model)
        self._pump_soon()

    def _replay(self, model: Model, worker: Worker) -> None:
        """What a dead worker held goes back into the line; what it ran when it died is tried alone from now on."""
        device = self._device(model)
        first = True
        while worker.flights:
            flight = worker.flights.popleft()
            device.finished(model.line, flight.jobs, 0.0, counted=False)
            again: list[Job] = []
            for job in flight.jobs:
                job.retries += 1
                job.attempts += first
                if job.attempts >= self.limits.attempts:
                    why = "Its workers died of it" if worker.killed_for == "" else "Its workers hang on it"
                    text = f"{why}, {job.attempts} times; it will not be tried again."
                    job.done(job, None, 0, Refusal(500, "model_failed", text))
                elif model.state is State.GONE or self._closed:
                    job.done(job, None, 0, Refusal(503, "unavailable", "The server ends.", retry_after_s=1))
                else:
                    again.append(job)
            self._again(model, again, alone=first)
            first = False

    def _refuse_all(self, model: Model, why: Refusal) -> None:
        for job in model.line.drop(lambda _: True):
            job.done(job, None, 0, why)

    # -------------------------------------------------------------------------------------------------------- watch

    def _sweep(self) -> None:
        if self._closed:
            return
        self._sweeper = self.loop.call_later(SWEEP_S, self._sweep)
        self._sweeps += 1
        now = self.clock()
        for model in list(self.models):
            self._end_hanging(model, now)
            self._end_late(model, now)
            self._reclass(model)
            self._resize(model, now)
            if self._sweeps % _WEIGH_EVERY == 0:
                self._weigh(model)

    def _weigh(self, model: Model) -> None:
        """Tell the observer what the workers hold, where it wants to know."""
        tell = getattr(self.observer, "memory", None)
        if tell is not None and model.workers:
            tell(model.endpoint, model.revision, sum(resident_bytes(w.pid) for w in model.workers))

    def _end_hanging(self, model: Model, now: float) -> None:
        for worker in model.workers:
            if worker.flights:
                flight = worker.flights[0]
                expected = max(model.line.predict_ms(flight.rows), model.line.row_ms * flight.rows) / 1e3
                if now - flight.begun > max(self.limits.hang_floor_s, self.limits.hang_factor * expected):
                    worker.kill("hang")

    def _end_late(self, model: Model, now: float) -> None:
        if model.line.deadline < now:
            for job in model.line.drop(lambda j: j.deadline < now):
                job.done(job, None, 0, _too_late())

    def _reclass(self, model: Model) -> None:
        """Let workers run at the priority of their model's class, which may change while they run."""
        bulk = model.line.bulk
        for worker in [w for w in model.workers if w.bulk != bulk and w.pid]:
            try:
                os.setpriority(os.PRIO_PROCESS, worker.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE * bulk)
                worker.bulk = bulk
            except OSError:  # few may raise a priority: a new worker takes its place
                if not worker.flights:
                    self._release(model, worker)

    def _resize(self, model: Model, now: float) -> None:
        if model.state is not State.READY:
            return
        least, most = model.replicas
        if model.line.waiting_rows and not model.alive:
            self.wake(model)
        elif model.alive < least or (
            model.alive < most
            and len(model.line) > 1
            and model.line.wait_ms > model.line.target_ms / 4
            and now - model.grown_at > _GROW_S
        ):
            model.grown_at = now
            self._spawn(self._wake(model))
        elif len(model.workers) > least:
            for worker in list(model.workers):
                if len(model.workers) > least and not worker.flights and now - worker.last_used > model.idle_s:
                    self._release(model, worker)

    def memory_in_use(self) -> int:
        """Bytes that are given to workers."""
        return sum(m.alive * m.memory_bytes for m in self.models)

    def describe_memory(self) -> str:
        """For people."""
        return f"{self.memory_in_use() // MIB:,} of {self.memory_bytes // MIB:,} MiB"


def resident_bytes(pid: int) -> int:
    """Bytes of a process that are in memory; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _overloaded(wait_ms: float) -> Refusal:
    return Refusal(
        429,
        "overloaded",
        f"It can't be answered before its deadline: about {wait_ms:,.0f} ms of work wait.",
        retry_after_s=max(0.05, wait_ms / 1e3),
    )


def _too_late() -> Refusal:
    return Refusal(504, "too_late", "Its deadline passed while it waited.", retry_after_s=0.5)
