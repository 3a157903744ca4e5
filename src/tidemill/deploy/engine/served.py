"""Endpoints as they are, on their way to what they should be.

A new revision is loaded beside the old one and must pass its golden rows; then the traffic is swapped by one pointer,
and the old one goes when nothing waits for it any longer. What can't be read or loaded changes nothing: the traffic
stays where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tidemill.core.errors import BundleError, NotFoundError, TidemillError, WorkspaceError
from tidemill.deploy.engine.completing import Completion
from tidemill.deploy.engine.engine import Engine
from tidemill.deploy.engine.model import Done, Job, Model, State
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.sources import Source
from tidemill.deploy.types import Endpoint, Priority, RequestEvent, Revision

POLL_S = 0.15
_ROOM_S = 1.0
"""How often a revision that found no room is tried again."""
_GRACE_S = 1.0
"""How long a revision stays after the traffic left it: requests that chose it may still be read."""
_SHADOW_S = 30.0
_log = logging.getLogger(__name__)


class Served:
    """One endpoint.

    Parameters
    ----------
    wanted : Endpoint
        What it should be.
    """

    def __init__(self, wanted: Endpoint) -> None:
        self.wanted = wanted
        self.name = wanted.name
        self.deadline_ms = wanted.deadline_ms
        self.by_id: dict[str, Model] = {}
        self.routing: tuple[tuple[float, Model], ...] = ()
        self.shadow: Model | None = None
        self.plain: Model | None = None
        """The only revision that answers, where nothing else is to be done: no shadow, nothing to complete."""
        self.completion: Completion | None = None
        self.coming: set[str] = set()
        self.shortage = ""

    @property
    def models(self) -> Sequence[Model]:
        """All revisions that are here."""
        return list(self.by_id.values())

    @property
    def versions(self) -> list[str]:
        """Their ids, oldest first."""
        return list(self.by_id)

    @property
    def main(self) -> Model:
        """The revision with most of the traffic."""
        if not self.routing:
            raise self._nobody()
        shares, below = [], 0.0
        for upto, model in self.routing:
            shares.append((upto - below, model))
            below = upto
        return max(shares, key=lambda s: s[0])[1]

    def pick(self, sticky: bytes | None = None) -> Model:
        """Choose a revision by weight: by chance, or by a caller's key, which then always meets the same one.

        As the weight of a new revision grows, callers only move towards it.
        """
        routing = self.routing
        if len(routing) == 1:
            return routing[0][1]
        if not routing:
            raise self._nobody()
        if sticky is None:
            point = random.random()
        else:
            point = int.from_bytes(hashlib.blake2b(sticky, digest_size=7).digest(), "big") / 2**56
        return next((model for upto, model in routing if point < upto), routing[-1][1])

    def _nobody(self) -> Refusal:
        """Why no revision can answer."""
        if self.shortage:
            return Refusal(507, "no_room", self.shortage, retry_after_s=5)
        return Refusal(503, "unavailable", f"No revision of {self.name!r} is ready.", retry_after_s=1)

    def version(self, name: str) -> Model:
        """A revision by its id."""
        model = self.by_id.get(name)
        if model is None:
            missing = NotFoundError.of("version", name, self.by_id)
            raise Refusal(404, "not_found", missing.message, hint=missing.hint)
        return model


class Serving:
    """All endpoints of a front, kept as their source says.

    Parameters
    ----------
    engine : Engine
        Runs the models.
    source : Source
        Says what should be.
    provider : str
        ``"cpu"`` or ``"cuda"``.
    measure : bool
        Measure the batch curve of each new revision once more, finely.
    """

    def __init__(self, engine: Engine, source: Source, *, provider: str = "cpu", measure: bool = True) -> None:
        self.engine = engine
        self._source = source
        self._provider = provider
        self._measure = measure
        self._served: dict[str, Served] = {}
        self._seen = -1
        self._asleep: set[str] = set()
        self._preparing: dict[Model, asyncio.Task[None]] = {}
        self._leaving: dict[Model, float] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._poller: asyncio.Task[None] | None = None
        self._first = asyncio.get_running_loop().create_future()
        self.problem = ""

    # ------------------------------------------------------------------------------------------------------ looking

    def find(self, name: str) -> Served:
        """An endpoint by name; raises 404 with the nearest names."""
        served = self._served.get(name)
        if served is None:
            missing = NotFoundError.of("model", name, self._served)
            raise Refusal(404, "not_found", missing.message, hint=missing.hint)
        return served

    def all(self) -> list[Served]:
        """All endpoints by name."""
        return [self._served[n] for n in sorted(self._served)]

    @property
    def ready(self) -> bool:
        """True where every endpoint that has traffic can answer."""
        if not self._first.done():
            return False
        wanting = [s for s in self._served.values() if s.wanted.traffic]
        return all(s.routing and all(m.state is State.READY for _, m in s.routing) for s in wanting)

    async def prepared(self, model: Model) -> None:
        """Wait until a model was loaded for the first time; raises why it can't be."""
        if model.state is State.READY:
            return
        task = self._preparing.get(model)
        if task is None or task.done():
            if model.state is State.FAILED:
                raise Refusal(503, "unavailable", f"The model can't serve: {model.problem}")
            task = self._prepare(model)
        await asyncio.shield(task)

    # ------------------------------------------------------------------------------------------------------ following

    async def start(self) -> None:
        """Read what should be, and follow it from now on."""
        await self._follow()
        self._poller = asyncio.get_running_loop().create_task(self._poll())

    async def close(self) -> None:
        """Stop following."""
        for task in (self._poller, *self._tasks):
            if task is not None:
                task.cancel()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            await self._follow()
            self._let_go()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            number = await loop.run_in_executor(None, self._source.change_number)
            if number == self._seen:
                return
            wanted = await loop.run_in_executor(None, self._source.endpoints)
        except Exception as error:  # noqa: BLE001  without its source a front goes on as it is
            self.problem = f"The endpoints can't be read ({error})."
            _log.warning("%s", self.problem)
            return
        self.problem = ""
        self._seen = number
        self.apply(wanted)
        if not self._first.done():
            self._first.set_result(None)

    def apply(self, wanted: Sequence[Endpoint]) -> None:
        """Begin to bring about what should be."""
        names = {e.name for e in wanted}
        for name in [n for n in self._served if n not in names]:
            for model in self._served.pop(name).models:
                self._leave(model)
        for endpoint in wanted:
            served = self._served.get(endpoint.name)
            if served is None:
                served = self._served[endpoint.name] = Served(endpoint)
            served.wanted = endpoint
            served.deadline_ms = endpoint.deadline_ms
            served.completion = None
            if endpoint.features:
                served.completion = Completion(endpoint.name, endpoint.features, self._source.online)
            for revision in endpoint.revisions:
                missing = revision.id not in served.by_id and revision.id not in served.coming
                if missing and revision.id in _needed(endpoint):
                    served.coming.add(revision.id)
                    self._spawn(self._bring(served, revision))
            self._settle(served)

    async def _bring(self, served: Served, revision: Revision) -> None:
        """Load a revision beside those that serve."""
        loop = asyncio.get_running_loop()
        endpoint = served.wanted
        try:
            facts = await loop.run_in_executor(None, self._source.facts, revision)
            curve = await loop.run_in_executor(None, self._source.curve, revision) if self._measure else None
        except TidemillError as error:
            self.problem = str(error)
            _log.error("%s of %s: %s", revision.id, endpoint.name, error)
            self._tell(self._source.refused, endpoint.name, revision.id, str(error))
            return
        finally:
            served.coming.discard(revision.id)
        model = Model(endpoint.name, revision.id, facts, self.engine.limits, provider=self._provider)
        if curve is not None:
            model.measure_is(curve)
        served.by_id[revision.id] = model
        _configure(model, served.wanted)
        self.engine.add(model)
        self._settle(served)
        try:
            await self._loaded(served, model)
        except TidemillError as error:
            self.problem = f"{endpoint.name}: {error}"
            _log.error("%s of %s can't serve: %s", revision.id, endpoint.name, error)
            self._tell(self._source.refused, endpoint.name, revision.id, str(error))
            return
        if model.state is not State.READY:  # nobody wants it any longer
            return
        self._settle(served)
        self._tell(self._source.ready, endpoint.name, revision.id)
        if self._measure and not model.deterministic and not model.measured:
            found = await self.engine.measure(model)
            if found is not None:
                await loop.run_in_executor(None, self._source.keep_curve, revision, found)

    async def _loaded(self, served: Served, model: Model) -> None:
        """Load a revision for the first time; while there is no room for it, it is tried again and again."""
        while served.by_id.get(model.revision) is model:
            try:
                await self.prepared(model)
                served.shortage = ""
                return
            except Refusal as error:
                if model.state is State.FAILED:
                    raise BundleError(model.problem) from error
                self.problem = served.shortage = error.message
            await asyncio.sleep(_ROOM_S)

    def _prepare(self, model: Model) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self.engine.prepare(model))
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        self._preparing[model] = task
        return task

    def _settle(self, served: Served) -> None:
        """Swap the traffic if all that should get some is ready."""
        wanted = served.wanted
        for model in served.by_id.values():
            _configure(model, wanted)
        order = [r.id for r in wanted.revisions if wanted.traffic.get(r.id, 0) > 0]
        models = [served.by_id.get(i) for i in order]
        whole = bool(models) and all(m is not None for m in models)
        if whole and (not served.routing or all(m is not None and m.state is State.READY for m in models)):
            total, upto, routing = sum(wanted.traffic[i] for i in order), 0.0, []
            for i in order:
                upto += wanted.traffic[i] / total
                routing.append((upto, served.by_id[i]))
            served.routing = tuple(routing)
        elif not wanted.traffic:
            served.routing = ()
        shadow = served.by_id.get(wanted.shadow) if wanted.shadow else None
        served.shadow = shadow if shadow is not None and shadow.state is State.READY else None
        only = served.routing[0][1] if len(served.routing) == 1 else None
        plain = only is not None and only.state is State.READY and served.shadow is None and served.completion is None
        served.plain = only if plain else None
        kept = _needed(wanted) | {m.revision for _, m in served.routing}
        for i in [i for i in served.by_id if i not in kept]:
            self._leave(served.by_id.pop(i))

    def _leave(self, model: Model) -> None:
        self._leaving[model] = self.engine.clock() + _GRACE_S
        self._preparing.pop(model, None)

    def _let_go(self) -> None:
        for served in self._served.values():
            self._settle(served)
        now = self.engine.clock()
        for model, at in list(self._leaving.items()):
            if model.idle and now > at:
                del self._leaving[model]
                self.engine.remove(model)

    def _tell(self, tell: Any, *arguments: str) -> None:
        async def run() -> None:
            loop = asyncio.get_running_loop()
            try:
                await loop.run_in_executor(None, tell, *arguments)
            except Exception as error:  # noqa: BLE001  the next front, or the next start, tells it again
                _log.warning("%s", error)
            await self._follow()  # who waits for what was told asks at once

        self._spawn(run())

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---------------------------------------------------------------------------------------------- load and unload

    async def turn(self, served: Served, actor: str, *, on: bool) -> None:
        """Load or unload an endpoint, on every front that follows the same source; returns when this one has done it.

        Parameters
        ----------
        served : Served
            Which.
        actor : str
            Who asks, for the audit log.
        on : bool
            True to load.

        Raises
        ------
        Refusal
            503 where it can't be written down: then nothing changes.
        """
        loop = asyncio.get_running_loop()
        try:
            shared = await loop.run_in_executor(None, self._source.turn, served.name, on, actor)
        except WorkspaceError as error:
            raise Refusal(503, "unavailable", str(error), retry_after_s=1) from error
        if shared:
            await self._follow()
        else:
            served.wanted = replace(served.wanted, loaded=on)
            self._settle(served)
        await (self.load(served) if on else self.unload(served))

    async def load(self, served: Served) -> None:
        """Let an unloaded endpoint answer again, and wait until it can."""
        for model in served.models:
            model.on = True
        for _, model in served.routing:
            await self.prepared(model)
            await self.engine.warm(model)

    async def unload(self, served: Served) -> None:
        """Answer nothing more from an endpoint, and let its workers go when they are done."""
        for model in served.models:
            model.on = False
        for model in served.models:
            while not model.idle:
                await asyncio.sleep(0.01)
            self.engine.cool(model)

    # -------------------------------------------------------------------------------------------------------- shadow

    def shadow(self, served: Served, model: Model, request_id: str, query: Query) -> None:
        """Send a copy of a request to the shadow; whoever watches compares the answers by the request's id."""
        other = served.shadow
        if other is None or other is model or other.layout is None or model.layout is None:
            return
        mine, its = model.layout, other.layout
        if (its.groups, its.inputs, its.encoded) != (mine.groups, mine.inputs, mine.encoded):
            return
        now = self.engine.clock()
        copy = Query(query.rows, query.pieces, query.shapes)
        self.engine.submit(other, _Copy(copy, now, now + _SHADOW_S, self._shadow_done, other, request_id))

    def _shadow_done(self, job: Job, outputs: Outputs | None, start: int, why: Refusal | None) -> None:
        assert isinstance(job, _Copy)
        now = self.engine.clock()
        queue = wait = 0.0
        if outputs is not None:
            queue = (job.sent - job.arrived) * 1e3
            wait = max(0.0, (now - job.sent) * 1e3 - outputs.model_ms)
        self.engine.observer.request(
            RequestEvent(
                job.model.endpoint, job.model.revision, job.request_id, 200 if why is None else why.status, job.rows,
                queue, wait, 0.0 if outputs is None else outputs.model_ms, 0.0, (now - job.arrived) * 1e3,
                job.retries, True, "" if why is None else why.code,
            )
        )  # fmt: skip

    def metrics(self) -> str:
        """What the engine itself knows, as Prometheus text."""
        lines = [
            "# HELP tidemill_engine_workers Workers that run a model.",
            "# TYPE tidemill_engine_workers gauge",
            *(_gauge("tidemill_engine_workers", m, len(m.workers)) for m in self.engine.models),
            "# HELP tidemill_engine_waiting_rows Rows that wait for a model.",
            "# TYPE tidemill_engine_waiting_rows gauge",
            *(_gauge("tidemill_engine_waiting_rows", m, m.line.waiting_rows) for m in self.engine.models),
            "# HELP tidemill_engine_best_batch Largest batch that is formed, as measured.",
            "# TYPE tidemill_engine_best_batch gauge",
            *(_gauge("tidemill_engine_best_batch", m, m.line.best) for m in self.engine.models),
            "# HELP tidemill_engine_memory_bytes Memory that is given to workers.",
            "# TYPE tidemill_engine_memory_bytes gauge",
            f"tidemill_engine_memory_bytes {self.engine.memory_in_use()}",
        ]
        return "\n".join(lines) + "\n"


class _Copy(Job):
    """The copy of a request that a shadow gets."""

    __slots__ = ("model", "request_id")

    def __init__(
        self, query: Query, arrived: float, deadline: float, done: Done, model: Model, request_id: str
    ) -> None:
        super().__init__(query, arrived, deadline, done)
        self.model = model
        self.request_id = request_id


def _gauge(name: str, model: Model, value: float) -> str:
    return f'{name}{{endpoint="{model.endpoint}",revision="{model.revision}"}} {value}'


def _needed(endpoint: Endpoint) -> set[str]:
    """Revisions that must be at hand: those with traffic, those next to get some, and the way back."""
    needed = {i for i, weight in endpoint.traffic.items() if weight > 0}
    needed |= {endpoint.shadow, endpoint.previous}
    if endpoint.canary is not None:
        needed |= {endpoint.canary.revision, endpoint.canary.baseline}
    needed |= {r.id for r in endpoint.revisions if r.state == "checking"}
    return needed - {""}


def _configure(model: Model, endpoint: Endpoint) -> None:
    """Let settings that were changed hold from now on."""
    share = endpoint.traffic.get(model.revision, 0.0)
    alone = share == 0 and model.revision == endpoint.shadow
    model.configure(endpoint.priority is Priority.BULK or alone, endpoint.target_ms, endpoint.deterministic)
    model.idle_s = endpoint.idle_s
    model.on = endpoint.loaded
    least = endpoint.min_replicas if share > 0 else 0
    model.replicas = (least, max(1, endpoint.max_replicas, least))
