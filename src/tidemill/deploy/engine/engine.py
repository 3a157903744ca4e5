"""Runs models: forms batches, sends them to workers, replays what a dead worker held, keeps to the memory there is.

One object for each front, on its event loop; nothing here blocks. A job that `submit` took is answered exactly once,
by its outputs or by a `Refusal`, whatever happens to workers. Here is the way of a batch; `staff` starts workers,
`loading` takes a model in, `care` looks after both, `replay` says what becomes of a dead worker's requests.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from tidemill.deploy.engine import loading, wire
from tidemill.deploy.engine.care import Care
from tidemill.deploy.engine.curves import Curve
from tidemill.deploy.engine.fleet import Worker, Zygote
from tidemill.deploy.engine.flight import Flight, event_of
from tidemill.deploy.engine.limits import MIB, Limits
from tidemill.deploy.engine.model import Job, Model, State
from tidemill.deploy.engine.observing import NullObserver
from tidemill.deploy.engine.query import Outputs
from tidemill.deploy.engine.refusal import Refusal, overloaded, too_late
from tidemill.deploy.engine.replay import left_behind, refuse_alone
from tidemill.deploy.engine.scheduler import Device
from tidemill.deploy.engine.staff import Staff
from tidemill.deploy.types import BatchEvent, Observer

_log = logging.getLogger(__name__)
_AHEAD = 2
"""Batches that one worker may have: the one that runs, and the next."""


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
        self.traced = bool(getattr(self.observer, "traced", False))
        """True where the callers' spans are of interest to somebody."""
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
        self.closed = False
        self.staff = Staff(self)
        self._care = Care(self)
        self._owner: dict[int, Model] = {}
        self._tickets = 0
        self._pumping = False

    def start(self) -> None:
        """Start the zygote and the watch over workers."""
        self.zygote.start()
        self._care.start()

    async def close(self) -> None:
        """Let all workers go."""
        self.closed = True
        self._care.stop()
        for model in list(self.models):
            self.remove(model)
        await self.staff.close()
        await self.zygote.settle()
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
        self.refuse_all(
            model, Refusal(503, "unavailable", f"{model.endpoint!r} was taken out of service.", retry_after_s=1)
        )
        self.cool(model)

    def _device(self, model: Model) -> Device[Job]:
        return self._devices[model.provider]

    async def prepare(self, model: Model) -> None:
        """Load a model for the first time; see `tidemill.deploy.engine.loading.load`."""
        await loading.load(self.staff, model, self.limits.attempts)
        model.last_used = self.clock()
        self.pump_soon()

    async def measure(self, model: Model) -> Curve | None:
        """Measure its batch curve; see `tidemill.deploy.engine.loading.measure`."""
        return await loading.measure(self.staff, model)

    async def warm(self, model: Model) -> None:
        """See to it that a worker runs."""
        if not model.workers:
            await self.staff.start(model)

    def cool(self, model: Model) -> None:
        """Let the workers of an idle model go."""
        for worker in list(model.workers):
            if not worker.flights:
                self.staff.release(model, worker)

    def memory_in_use(self) -> int:
        """Bytes that are given to workers."""
        return sum(m.alive * m.memory_bytes for m in self.models)

    def describe_memory(self) -> str:
        """For people."""
        return f"{self.memory_in_use() // MIB:,} of {self.memory_bytes // MIB:,} MiB"

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
        return overloaded(model.line.wait_ms)

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
            return overloaded(model.line.wait_ms)
        if model.workers:
            self._devices[model.provider].push(model.line, job)
            if not self._pumping:
                self._pumping = True
                self.loop.call_soon(self._pump)
            return None
        if not model.alive and model.failures >= self.limits.attempts and self.clock() < model.retry_at:
            return Refusal(503, "unavailable", "The model can't start at the moment.", retry_after_s=1)
        self._devices[model.provider].push(model.line, job)
        self.staff.wake(model)
        return None

    def pump_soon(self) -> None:
        """Form batches in this turn of the loop, once for all that came in it."""
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
        layout = model.layout
        assert worker is not None
        assert layout is not None
        self._tickets = ticket = (self._tickets + 1) & 0x7FFFFFFF
        rows = 0
        for job in jobs:
            job.sent = now
            rows += job.rows
        shapes = jobs[0].key
        batches = layout.batches
        kinds = layout.types_of(shapes) if layout.encoded else model.wire_types
        if len(kinds) == 1:
            shape = (rows, *shapes[0]) if batches else shapes[0]
            tensors = [(kinds[0], shape, [j.query.pieces[0] for j in jobs])]
        else:
            tensors = [
                (kind, (rows, *shapes[k]) if batches else shapes[k], [j.query.pieces[k] for j in jobs])
                for k, kind in enumerate(kinds)
            ]
        flights = worker.flights
        area = 3 - flights[-1].area if flights else 1  # there are never more than two
        flights.append(Flight(ticket, model, jobs, rows, now, now, jobs[0].alone, area))
        worker.send(wire.frame_of_parts(wire.RUN, ticket, tensors, area=area, shared=worker.area(area)))

    def hear(self, worker: Worker, kind: int, ticket: int, count: int, ms: float, frame: bytes) -> None:
        """A frame from a worker."""
        if kind == wire.ANSWER:
            self._answered(worker, ticket, count, ms, frame)
            return
        told = json.loads(frame[wire.HEAD.size :])
        if not self.staff.told(worker, kind, ticket, told) and kind == wire.FAILED:
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
                    job.done(job, None, 0, too_late())

    def _landed(self, worker: Worker, flight: Flight, ms: float, now: float) -> None:
        self._devices[flight.model.provider].finished(flight.model.line, flight.jobs, ms)
        flight.model.last_used = worker.last_used = now
        if worker.flights:
            worker.flights[0].begun = now
        elif flight.model.state is State.GONE:
            self.staff.release(flight.model, worker)

    def _tell(self, model: Model, flight: Flight, outputs: Outputs, landed: float) -> None:
        event = event_of(model, flight, outputs, landed, traced=self.traced)
        if self._told is not None:
            self._told(event)
            return
        self.observer.batch(event.endpoint, event.revision, event.columns, event.outputs, event.request_ids)
        for one in event.requests():
            self.observer.request(one)

    # ---------------------------------------------------------------------------------------------- errors and deaths

    def _failed(self, worker: Worker, told: dict[str, Any]) -> None:
        """A batch raised an error: its requests run alone, so that one bad row fails no neighbour."""
        flight = worker.flights.popleft()
        now = self.clock()
        self._landed(worker, flight, (now - flight.begun) * 1e3, now)
        if not refuse_alone(flight.jobs, told):
            self._again(flight.model, flight.jobs, alone=True)
        self.pump_soon()

    def _again(self, model: Model, jobs: Sequence[Job], *, alone: bool) -> None:
        device = self._device(model)
        for job in jobs:
            job.alone = job.alone or alone
            device.push(model.line, job)

    def ended(self, model: Model, worker: Worker) -> None:
        """A worker's socket closed: it is dead, or was let go. What it held goes back into the line."""
        self.staff.died(worker)
        if worker in model.workers:
            model.workers.remove(worker)
            model.line.workers = max(1, len(model.workers))
        if worker.released and not worker.flights:
            return
        if not self.closed:
            self.observer.death(model.endpoint, model.revision, worker.killed_for or "died")
        device = self._device(model)

        def lost(flight: Flight) -> None:
            device.finished(model.line, flight.jobs, 0.0, counted=False)

        for jobs, alone in left_behind(model, worker, self.limits.attempts, ends=self.closed, lost=lost):
            self._again(model, jobs, alone=alone)
        if model.line.waiting_rows or model.replicas[0] > len(model.workers):
            self.staff.wake(model)
        self.pump_soon()

    def refuse_all(self, model: Model, why: Refusal) -> None:
        """Refuse what waits for a model."""
        for job in model.line.drop(lambda _: True):
            job.done(job, None, 0, why)
