"""Looks after models ten times a second: hanging workers, late requests, priorities, and how many workers there are."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from tidemill.deploy.engine.model import NICE, Model, State
from tidemill.deploy.engine.refusal import too_late

if TYPE_CHECKING:
    from tidemill.deploy.engine.engine import Engine

SWEEP_S = 0.1
_GROW_S = 0.5
_WEIGH_EVERY = 50
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


class Care:
    """The watch over the workers of an engine.

    Parameters
    ----------
    engine : Engine
        Whose models.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._timer: asyncio.TimerHandle | None = None
        self._sweeps = 0

    def start(self) -> None:
        """Look now, and again and again."""
        engine = self._engine
        if engine.closed:
            return
        self._timer = engine.loop.call_later(SWEEP_S, self.start)
        self._sweeps += 1
        now = engine.clock()
        for model in list(engine.models):
            self._end_hanging(model, now)
            self._end_late(model, now)
            self._reclass(model)
            self._resize(model, now)
            if self._sweeps % _WEIGH_EVERY == 0:
                self._weigh(model)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _weigh(self, model: Model) -> None:
        """Tell the observer what the workers hold, where it wants to know."""
        tell = getattr(self._engine.observer, "memory", None)
        if tell is not None and model.workers:
            tell(model.endpoint, model.revision, sum(resident_bytes(w.pid) for w in model.workers))

    def _end_hanging(self, model: Model, now: float) -> None:
        limits = self._engine.limits
        for worker in model.workers:
            if worker.flights:
                flight = worker.flights[0]
                expected = max(model.line.predict_ms(flight.rows), model.line.row_ms * flight.rows) / 1e3
                allowed = max(limits.hang_floor_s, limits.hang_factor * expected) + model.hang_s * flight.rows
                if now - flight.begun > allowed:
                    worker.kill("hang")

    @staticmethod
    def _end_late(model: Model, now: float) -> None:
        if model.line.deadline < now:
            for job in model.line.drop(lambda j: j.deadline < now):
                job.done(job, None, 0, too_late())

    def _reclass(self, model: Model) -> None:
        """Let workers run at the priority of their model's class, which may change while they run."""
        bulk = model.line.bulk
        for worker in [w for w in model.workers if w.bulk != bulk and w.pid]:
            try:
                os.setpriority(os.PRIO_PROCESS, worker.pid, os.getpriority(os.PRIO_PROCESS, 0) + NICE * bulk)
                worker.bulk = bulk
            except OSError:  # few may raise a priority: a new worker takes its place
                if not worker.flights:
                    self._engine.staff.release(model, worker)

    def _resize(self, model: Model, now: float) -> None:
        if model.state is not State.READY:
            return
        staff = self._engine.staff
        least, most = model.replicas if model.on else (0, 0)
        if model.line.waiting_rows and not model.alive:
            staff.wake(model)
        elif model.alive < least or (
            model.alive < most
            and len(model.line) > 1
            and model.line.wait_ms > model.line.target_ms / 4
            and now - model.grown_at > _GROW_S
        ):
            model.grown_at = now
            staff.add(model)
        elif len(model.workers) > least:
            for worker in list(model.workers):
                idle = now - worker.last_used > model.idle_s or not model.on
                if len(model.workers) > least and not worker.flights and idle:
                    staff.release(model, worker)


def resident_bytes(pid: int) -> int:
    """Bytes of a process that are in memory; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
