"""The workers of a front: started as far as the memory goes, asked, woken, and let go."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import BundleError, TidemillError
from tidemill.deploy.engine import capacity, wire
from tidemill.deploy.engine.fleet import Worker
from tidemill.deploy.engine.layout import Layout
from tidemill.deploy.engine.model import Model, State
from tidemill.deploy.engine.refusal import Refusal

if TYPE_CHECKING:
    from tidemill.deploy.engine.engine import Engine

_BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 10.0)


class WorkerDiedError(BundleError):
    """A worker died while it loaded or checked a model."""


class Staff:
    """Starts workers and lets them go; nothing here blocks.

    Parameters
    ----------
    engine : Engine
        Whose models they run, and who hears their answers.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = engine.loop
        self._limits = engine.limits
        self._tickets = 1 << 31  # above those of batches
        self._reports: dict[int, tuple[Worker, asyncio.Future[dict[str, Any]]]] = {}
        self._readying: dict[Worker, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Let those go that are not ready yet."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for worker in list(self._readying):
            worker.release()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------------- starting

    async def start(self, model: Model, *, serving: bool = True) -> Worker:
        """Fork a worker and wait until its model is loaded.

        Raises
        ------
        Refusal
            507 where there is no room for it.
        BundleError
            Why its model can't be loaded.
        """
        engine, limits = self._engine, self._limits
        self._make_room(model)
        model.starting += 1
        ready: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        try:
            order = model.order() if serving else {**model.order(), "nice": 15}
            worker = await engine.zygote.order(order, engine.hear, lambda w: engine.ended(model, w))
            self._readying[worker] = ready
            try:
                told = await asyncio.wait_for(ready, limits.start_s)
            except asyncio.TimeoutError:
                worker.kill("start")
                raise BundleError(
                    f"The model did not load within {limits.start_s:.0f} s.", where=str(model.facts.model)
                ) from None
            except asyncio.CancelledError:
                worker.release()
                raise
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
        worker.last_used = engine.clock()
        if serving:
            self._take_on(model, worker, bulk="nice" in order)
        return worker

    def _take_on(self, model: Model, worker: Worker, *, bulk: bool) -> None:
        worker.bulk = bulk
        if model.state is State.GONE or self._engine.closed:
            worker.release()
            raise BundleError(f"{model.endpoint!r} was taken out of service.")
        model.workers.append(worker)
        model.line.workers = max(1, len(model.workers))
        model.failures = 0

    def _make_room(self, model: Model) -> None:
        """Admit one more worker by memory, letting idle models go where that helps.

        Raises
        ------
        Refusal
            507 with the numbers.
        """
        engine = self._engine
        holders = [
            capacity.Holder(m, m.alive * m.memory_bytes, m.last_used, m is not model and m.idle and m.replicas[0] == 0)
            for m in engine.models
            if m.alive
        ]
        plan = capacity.plan(engine.memory_bytes, model.memory_bytes, holders)
        if isinstance(plan, capacity.Shortage):
            raise Refusal(507, "no_room", plan.describe(model.endpoint), retry_after_s=5)
        for held in plan:
            for worker in list(held.workers):
                self.release(held, worker)

    def wake(self, model: Model) -> None:
        """Start a worker where none is, without waiting for it."""
        if model.alive or self._engine.closed or model.state is not State.READY:
            return
        if self._engine.clock() >= model.retry_at:
            self.add(model)

    def add(self, model: Model) -> None:
        """Start one more worker, without waiting for it."""
        task = self._loop.create_task(self._added(model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _added(self, model: Model) -> None:
        engine = self._engine
        try:
            await self.start(model)
        except Refusal as error:
            if not model.alive:
                engine.refuse_all(model, error)
            return
        except TidemillError as error:
            model.failures += 1
            wait = _BACKOFF_S[min(model.failures, len(_BACKOFF_S) - 1)]
            model.retry_at = engine.clock() + wait
            if model.failures >= self._limits.attempts:
                why = f"The model can't start: {error}"
                engine.refuse_all(model, Refusal(503, "unavailable", why, retry_after_s=max(1.0, wait)))
            elif model.line.waiting_rows:
                self._loop.call_later(wait, self.wake, model)
            return
        engine.pump_soon()

    def release(self, model: Model, worker: Worker) -> None:
        """Let a worker end when it has read what was sent."""
        if worker in model.workers:
            model.workers.remove(worker)
            model.line.workers = max(1, len(model.workers))
        worker.release()

    # --------------------------------------------------------------------------------------------------------- asking

    async def ask(self, worker: Worker, kind: int, request: dict[str, Any]) -> dict[str, Any]:
        """Ask a worker for a report.

        Raises
        ------
        BundleError
            Where it can't give one, hangs or dies.
        """
        self._tickets += 1
        ticket = self._tickets
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._reports[ticket] = (worker, future)
        worker.send(wire.json_frame(kind, ticket, json.dumps(request).encode()))
        try:
            return await asyncio.wait_for(future, self._limits.start_s)
        except asyncio.TimeoutError:
            worker.kill("hang")
            raise BundleError("The model hangs on its golden rows.") from None
        finally:
            self._reports.pop(ticket, None)

    def told(self, worker: Worker, kind: int, ticket: int, told: dict[str, Any]) -> bool:
        """Hear what a worker says beside answers; False where nobody here has waited for it."""
        ready = self._readying.get(worker)
        if ready is not None and not ready.done():
            ready.set_result(told)
            return True
        if ticket not in self._reports:
            return False
        future = self._reports[ticket][1]
        if not future.done():
            if kind == wire.FAILED:
                future.set_exception(BundleError(told["error"]))
            else:
                future.set_result(told)
        return True

    def died(self, worker: Worker) -> None:
        """Tell those who wait for a worker that it is dead."""
        ready = self._readying.get(worker)
        if ready is not None and not ready.done():
            ready.set_result({"died": True})
        for owner, future in list(self._reports.values()):
            if owner is worker and not future.done():
                future.set_exception(WorkerDiedError("The worker died while it checked the model."))
