"""Which request means what: the v2 protocol, rows for people, feedback, and the pages about them."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote

import orjson

from tidemill import __version__
from tidemill.core.errors import InputError, NotFoundError, TidemillError
from tidemill.deploy.engine import openapi, page
from tidemill.deploy.engine.http import Exchange, refusal_parts
from tidemill.deploy.engine.idempotency import Entry, Kept
from tidemill.deploy.engine.model import Done, Job, Model, State
from tidemill.deploy.engine.query import Outputs, Query, joined
from tidemill.deploy.engine.refusal import Refusal, bad_request
from tidemill.deploy.engine.served import Served, Serving
from tidemill.deploy.types import Feedback, RequestEvent

Authorise = Callable[["str | None", str, str], "Awaitable[None] | None"]
"""Checks a key (None where there is none) for a scope and an endpoint; raises where it may not."""

_SERVER = {"name": "tidemill", "version": __version__, "extensions": ["binary_tensor_data", "model_repository"]}
_MOST_ROUTES = 4096
_MOST_DEADLINE_MS = 600_000.0
_MOST_ITEMS = 10_000
_CODES = {401: "unauthorised", 403: "forbidden", 404: "not_found", 429: "overloaded", 503: "unavailable"}
_TEXT = b"text/plain; version=0.0.4; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
_V2, _RECORDS = "v2", "records"
_JSON_BYTES = b"inference-header-content-length"
_PLAIN = frozenset((_JSON_BYTES, b"authorization", b"x-api-key", b"x-sticky-key"))
"""Headers of a request that changes nothing about how it is answered where there is one revision."""
_SAME_WORDS_S = 0.05
_OPENING = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: "
_LENGTHS = [b"%d\r\n\r\n" % n for n in range(2048)]
_NO_FLOAT = float("nan")


class Asked(Job):
    """A request for predictions under way: its job, and whom the answer goes to."""

    kept: Entry | None = None
    parts: list[Outputs | None] | None = None
    waiting: int = 0
    rows: int = 0
    landed: float = 0.0
    model_ms: float = 0.0

    def __init__(self, exchange: Exchange, served: Served, model: Model, request_id: str, form: str) -> None:
        # Not the parent's: it knows its rows only when they are read.
        self.exchange = exchange
        self.served = served
        self.model = model
        self.request_id = request_id
        self.form = form
        self.arrived = exchange.started

    def read(self, query: Query, deadline: float, done: Done, now: float) -> None:
        """Its rows are there."""
        self.query = query
        self.rows = query.rows
        self.key = query.shapes
        self.deadline = deadline
        self.done = done
        self.queued = now


class _Part(Job):
    """One slice of a request."""

    def __init__(self, asked: Asked, index: int, first: int, query: Query, done: Done) -> None:
        super().__init__(query, asked.arrived, asked.deadline, done)
        self.asked = asked
        self.index = index
        self.first = first
        self.request_id = asked.request_id


class App:
    """Answers requests.

    Parameters
    ----------
    serving : Serving
        The endpoints and their models.
    authorise : callable, optional
        Checks keys; None lets everybody in.
    """

    def __init__(self, serving: Serving, authorise: Authorise | None = None) -> None:
        self._serving = serving
        self._engine = serving.engine
        self._authorise = authorise
        self._limits = serving.engine.limits
        self._clock = serving.engine.clock
        self._routes: dict[bytes, tuple[Callable[..., None], tuple[Any, ...]]] = {}
        self._kept = Kept(self._limits.idempotent_s, self._limits.idempotent_bytes, self._clock)
        self._ids = f"{os.getpid():x}-{time.time_ns() & 0xFFFFFFFFFF:x}-"
        self._count = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked = self._predict  # one bound method, told apart by identity
        self._finish = self._done
        self.draining = False
        self.under_way = 0

    # ------------------------------------------------------------------------------------------------------- routing

    def __call__(self, exchange: Exchange) -> None:
        """Answer one request, now or later."""
        try:
            found = self._routes.get(exchange.target) or self._route(exchange.target)
            if found[0] is self._asked and exchange.method == b"POST" and self._authorise is None:
                self._ask(exchange, *found[1])
            else:
                found[0](exchange, *found[1])
        except Refusal as error:
            exchange.refuse(error)
        except TidemillError as error:
            exchange.refuse(_as_refusal(error))

    def _route(self, target: bytes) -> tuple[Callable[..., None], tuple[Any, ...]]:
        path = target.partition(b"?")[0]
        try:
            parts = [unquote(p.decode("ascii"), errors="strict") for p in path.split(b"/")[1:]]
        except (UnicodeDecodeError, ValueError):
            raise bad_request("The path can't be read.") from None
        found = self._find(parts)
        if found is None:
            raise Refusal(404, "not_found", f"There is nothing at {path.decode('ascii', 'replace')[:200]!r}.")
        if len(self._routes) >= _MOST_ROUTES:
            self._routes.clear()
        self._routes[target] = found
        return found

    def _find(self, parts: list[str]) -> tuple[Callable[..., None], tuple[Any, ...]] | None:
        match parts:
            case ["v2"] | ["v2", ""]:
                return self._get, (self._server,)
            case ["v2", "health", "live"] | ["healthz"]:
                return self._get, (self._live,)
            case ["v2", "health", "ready"]:
                return self._get, (self._ready,)
            case ["v2", "models", name]:
                return self._get, (self._metadata, name, "")
            case ["v2", "models", name, "versions", version]:
                return self._get, (self._metadata, name, version)
            case ["v2", "models", name, "ready"]:
                return self._get, (self._model_ready, name, "")
            case ["v2", "models", name, "versions", version, "ready"]:
                return self._get, (self._model_ready, name, version)
            case ["v2", "models", name, "infer"]:
                return self._asked, (_V2, name, "")
            case ["v2", "models", name, "versions", version, "infer"]:
                return self._asked, (_V2, name, version)
            case ["v1", "predict", name]:
                return self._asked, (_RECORDS, name, "")
            case ["v2", "models", name, "feedback"] | ["v1", "feedback", name]:
                return self._post, ("feedback", self._feedback, name)
            case ["v2", "repository", "index"]:
                return self._post, ("predict", self._index, "")
            case ["v2", "repository", "models", name, ("load" | "unload") as verb]:
                return self._post, ("deploy", self._load if verb == "load" else self._unload, name)
            case ["openapi.json"]:
                return self._get, (self._openapi,)
            case ["metrics"]:
                return self._get, (self._metrics,)
            case [""] | ["try"]:
                return self._get, (self._page,)
        return None

    def _get(self, exchange: Exchange, answer: Callable[..., None], *arguments: Any) -> None:
        if exchange.method not in (b"GET", b"HEAD"):
            _wrong_method(exchange, b"GET, HEAD")
            return
        if self._authorise is None or answer in (self._live, self._ready, self._page):
            answer(exchange, *arguments)
            return
        scope = "admin" if answer == self._metrics else "predict"
        name = str(arguments[0]) if arguments else ""
        self._guarded(exchange, scope, name, lambda: answer(exchange, *arguments))

    def _post(self, exchange: Exchange, scope: str, answer: Callable[..., None], name: str) -> None:
        if exchange.method != b"POST":
            _wrong_method(exchange, b"POST")
            return
        self._guarded(exchange, scope, name, lambda: answer(exchange, name))

    def _guarded(self, exchange: Exchange, scope: str, name: str, go_on: Callable[[], None]) -> None:
        """Go on where the key allows it; what is asked of a database is awaited beside the loop's other work."""
        if self._authorise is None:
            go_on()
            return
        waiting = self._authorise(_key(exchange.headers), scope, name)
        if waiting is None:
            go_on()
            return
        self._later(exchange, self._checked(waiting, go_on))

    @staticmethod
    async def _checked(waiting: Awaitable[None], go_on: Callable[[], None]) -> None:
        await waiting
        go_on()

    def _later(self, exchange: Exchange, work: Any) -> None:
        async def run() -> None:
            try:
                await work
            except Refusal as error:
                exchange.refuse(error)
            except TidemillError as error:
                exchange.refuse(_as_refusal(error))

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --------------------------------------------------------------------------------------------------- predictions

    def _predict(self, exchange: Exchange, form: str, name: str, version: str) -> None:
        if exchange.method != b"POST":
            _wrong_method(exchange, b"POST")
            return
        if self._authorise is not None:
            waiting = self._authorise(_key(exchange.headers), "predict", name)
            if inspect.isawaitable(waiting):
                self._later(exchange, self._checked(waiting, lambda: self._ask(exchange, form, name, version)))
                return
        self._ask(exchange, form, name, version)

    def _ask(self, exchange: Exchange, form: str, name: str, version: str) -> None:
        headers = exchange.headers
        served = self._serving.find(name)
        if self.draining:
            raise Refusal(503, "unavailable", "The server is about to end.", retry_after_s=1)
        plain = served.plain
        if plain is not None and form is _V2 and not version and (not headers or headers.keys() <= _PLAIN):
            self._ask_plainly(exchange, served, plain)
            return
        if served.coming and not served.routing:
            self._later(exchange, self._awaited(exchange, served, form, version))
            return
        model = served.version(version) if version else served.pick(headers.get(b"x-sticky-key"))
        request_id = f"{self._ids}{next(self._count):x}"
        if headers:
            request_id = _request_id(headers) or request_id
            asked = Asked(exchange, served, model, request_id, form)
            if b"idempotency-key" in headers and self._repeated(asked, exchange):
                return
        else:
            asked = Asked(exchange, served, model, request_id, form)
        if model.codec is None or model.state is not State.READY:
            self._later(exchange, self._held(asked))
            return
        self._start(asked)

    def _ask_plainly(self, exchange: Exchange, served: Served, model: Model) -> None:
        """The common case: tensors, no wishes, and one revision that takes them."""
        deadline = exchange.started + served.deadline_ms / 1e3
        if not self._engine.admits(model, 1, deadline):  # before anything is made of its body
            self._turn_away(exchange, model)
            return
        asked = Asked(exchange, served, model, f"{self._ids}{next(self._count):x}", _V2)
        headers = exchange.headers
        assert model.codec is not None
        try:
            head = _json_bytes(headers) if headers else None
            query = model.codec.decode(exchange.body, head)
        except Refusal as error:
            self._refused(asked, error)
            return
        self._submit(asked, query, deadline, admitted=query.rows == 1)

    def _turn_away(self, exchange: Exchange, model: Model) -> None:
        """Refuse what can't be answered in time, at next to no cost: the words are those of the last moments."""
        now = self._clock()
        until, before, behind = model.refusal
        if now > until:
            before, behind = refusal_parts(self._engine.overloaded(model))
            model.refusal = now + _SAME_WORDS_S, before, behind
        request_id = f"{self._ids}{next(self._count):x}"
        if exchange.keep_alive:
            exchange.send(b"".join((before, request_id.encode(), behind)))
        else:
            exchange.refuse(self._engine.overloaded(model), b"x-request-id: %b\r\n" % request_id.encode())
        if not self._engine.quiet:
            total = (self._clock() - exchange.started) * 1e3
            self._engine.observer.request(
                RequestEvent(
                    model.endpoint,
                    model.revision,
                    request_id,
                    429,
                    1,
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                    total,
                    0,
                    False,
                    "overloaded",
                )
            )

    async def _awaited(self, exchange: Exchange, served: Served, form: str, version: str) -> None:
        """The first revision's files are being read: wait for them."""
        end = exchange.started + served.deadline_ms / 1e3
        while served.coming and not served.routing and self._clock() < end:
            await asyncio.sleep(0.005)
        if served.routing:
            self._ask(exchange, form, served.name, version)
        else:
            raise Refusal(503, "unavailable", f"No revision of {served.name!r} is ready.", retry_after_s=1)

    async def _held(self, asked: Asked) -> None:
        """The model is loaded for the first time: wait for it, as long as the deadline allows."""
        left = asked.exchange.started + self._deadline_ms(asked) / 1e3 - self._clock()
        try:
            await asyncio.wait_for(asyncio.shield(self._serving.prepared(asked.model)), max(0.0, left))
        except asyncio.TimeoutError:
            self._refused(asked, Refusal(503, "unavailable", "The model is not ready yet.", retry_after_s=1))
            return
        except TidemillError as error:
            self._refused(asked, _as_refusal(error, 503))
            return
        try:
            self._start(asked)
        except Refusal as error:
            self._refused(asked, error)

    def _deadline_ms(self, asked: Asked) -> float:
        given = asked.exchange.headers.get(b"x-deadline-ms")
        if given is None:
            return asked.served.deadline_ms
        try:
            ms = float(given)
        except ValueError:
            ms = _NO_FLOAT
        if not 0 < ms <= _MOST_DEADLINE_MS:
            raise bad_request(f"X-Deadline-Ms must be a number above 0 and at most {_MOST_DEADLINE_MS:,.0f}.")
        return ms

    def _start(self, asked: Asked) -> None:
        exchange = asked.exchange
        if asked.model.state is State.GONE:  # it was replaced while the request waited
            asked.model = asked.served.pick(exchange.headers.get(b"x-sticky-key"))
        completion = asked.served.completion
        if completion is not None and not completion.quick(len(exchange.body)):
            self._later(exchange, self._completed(asked))
            return
        try:
            deadline = exchange.started + self._deadline_ms(asked) / 1e3
            if not self._engine.admits(asked.model, 1, deadline):
                raise self._engine.overloaded(asked.model)
            query = self._decode(asked, exchange)
        except Refusal as error:
            self._refused(asked, error)
            return
        self._submit(asked, query, deadline)

    async def _completed(self, asked: Asked) -> None:
        """Rows are completed from a store that makes one wait: in a thread, as long as the deadline allows."""
        loop = asyncio.get_running_loop()
        try:
            deadline = asked.exchange.started + self._deadline_ms(asked) / 1e3
            reading = loop.run_in_executor(None, self._decode, asked, asked.exchange)
            query = await asyncio.wait_for(reading, max(0.0, deadline - self._clock()))
            if asked.model.state is State.GONE:
                raise Refusal(503, "unavailable", "The revision was replaced in the meantime.", retry_after_s=0)
        except asyncio.TimeoutError:
            self._refused(asked, Refusal(504, "too_late", "The deadline passed while the row was completed."))
        except TidemillError as error:
            self._refused(asked, _as_refusal(error))
        else:
            self._submit(asked, query, deadline)

    def _submit(self, asked: Asked, query: Query, deadline: float, *, admitted: bool = False) -> None:
        model, engine = asked.model, self._engine
        asked.read(query, deadline, self._finish, self._clock())
        self.under_way += 1
        if query.rows == 1 or not model.line.together or query.rows <= (most := engine.most_rows(model)):
            why = engine.submit(model, asked, admitted=admitted)
        else:
            why = self._submit_parts(asked, most)
        if why is not None:
            self.under_way -= 1
            self._refused(asked, why)
        elif asked.served.shadow is not None:
            self._serving.shadow(asked.served, model, asked.request_id, query)

    def _decode(self, asked: Asked, exchange: Exchange) -> Query:
        model, headers, completion = asked.model, exchange.headers, asked.served.completion
        assert model.codec is not None
        if b"content-encoding" in headers and headers[b"content-encoding"] != b"identity":
            raise Refusal(415, "media_type", "A body must not be compressed.")
        if asked.form is _V2:
            complete = None
            if completion is not None and model.records is not None:
                complete = partial(model.records.tensors, completion=completion)
            return model.codec.decode(exchange.body, _json_bytes(headers), complete)
        if model.records is None:
            raise Refusal(
                400,
                "bad_request",
                "This model has no columns with names; it is a bare graph.",
                hint=f"Use POST /v2/models/{asked.served.name}/infer.",
            )
        try:
            document = orjson.loads(exchange.body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        query = model.records.decode(document, completion)
        if query.rows > self._limits.rows:
            raise Refusal(413, "too_many_rows", f"A request may have {self._limits.rows:,} rows.")
        return query

    def _submit_parts(self, asked: Asked, most: int) -> Refusal | None:
        """A request with many rows goes in slices, so that nobody waits behind all of it."""
        model = asked.model
        if not self._engine.admits(model, asked.rows, asked.deadline):
            return self._engine.overloaded(model)
        pieces = asked.query.split(model.wire_types, most)
        asked.parts = [None] * len(pieces)
        asked.waiting = len(pieces)
        for index, piece in enumerate(pieces):
            part = _Part(asked, index, index * most, piece, self._part_done)
            why = self._engine.submit(model, part, admitted=True)
            if why is not None:
                self._part_done(part, None, 0, why)
        return None

    def _part_done(self, job: Job, outputs: Outputs | None, start: int, why: Refusal | None) -> None:
        assert isinstance(job, _Part)
        asked = job.asked
        if asked.parts is None:  # another slice has failed before
            return
        asked.retries = max(asked.retries, job.retries)
        if outputs is None:
            asked.parts = None
            self._done(asked, None, 0, why)
            return
        asked.sent, asked.landed = job.sent, self._clock()
        asked.model_ms = outputs.model_ms
        asked.parts[job.index] = outputs.rows(start, start + job.rows)
        asked.waiting -= 1
        if not asked.waiting:
            self._done(asked, joined([p for p in asked.parts if p is not None]), 0, None)

    def _done(self, asked: Any, outputs: Outputs | None, start: int, why: Refusal | None) -> None:
        self.under_way -= 1
        if outputs is None:
            assert why is not None
            self._refused(asked, why)
            return
        exchange, query, model = asked.exchange, asked.query, asked.model
        codec = model.codec
        json_bytes = None
        if asked.form is not _V2:
            body = self._records(asked, query, outputs, start)
        elif query.rows == 1 and codec.gives_rows and query.outputs is None and query.id is None:
            body = codec.rows(outputs)[start]
        else:
            body, json_bytes = codec.encode(query, outputs, start)
        if json_bytes is None and exchange.keep_alive:
            size = len(body)
            end = _LENGTHS[size] if size < len(_LENGTHS) else b"%d\r\n\r\n" % size
            out = b"".join((_OPENING, asked.request_id.encode(), model.head, end, body))
        else:
            out = _answer(asked, model, body, json_bytes)
        exchange.send(out)
        if asked.kept is not None:
            asked.kept.answered(out, 200)
        if not self._engine.quiet:
            if asked.parts is None:
                asked.ended = self._clock()  # the batch tells of it
            else:
                self._tell_divided(asked, outputs.model_ms)

    def _tell_divided(self, asked: Asked, model_ms: float) -> None:
        """Tell of a request that went in slices; its last one says how long it waited."""
        model, end = asked.model, self._clock()
        self._engine.observer.request(
            RequestEvent(
                model.endpoint, model.revision, asked.request_id, 200, asked.rows, (asked.sent - asked.queued) * 1e3,
                max(0.0, (asked.landed - asked.sent) * 1e3 - asked.model_ms), model_ms, (end - asked.landed) * 1e3,
                (end - asked.arrived) * 1e3, asked.retries,
            )
        )  # fmt: skip

    def _records(self, asked: Asked, query: Query, outputs: Outputs, start: int) -> bytes:
        model = asked.model
        assert model.records is not None
        return orjson.dumps(
            {
                "model": asked.served.name,
                "revision": model.revision,
                "request_id": asked.request_id,
                "predictions": model.records.answers(outputs, start, start + query.rows),
            }
        )

    def _refused(self, asked: Asked, why: Refusal) -> None:
        exchange = asked.exchange
        exchange.refuse(why, b"x-request-id: %b\r\n" % asked.request_id.encode())
        if asked.kept is not None:
            asked.kept.answered(exchange.out or b"", why.status)
        if not self._engine.quiet:
            total = (self._clock() - exchange.started) * 1e3
            model = asked.model
            self._engine.observer.request(
                RequestEvent(
                    model.endpoint, model.revision, asked.request_id, why.status, asked.rows, 0.0, 0.0, 0.0, 0.0, total,
                    asked.retries, False, why.code,
                )
            )  # fmt: skip

    def _repeated(self, asked: Asked, exchange: Exchange) -> bool:
        """Answer a request that was answered before under the same key; False where it is new."""
        key = (asked.served.name, asked.form, exchange.headers[b"idempotency-key"])
        if len(key[2]) > 255:
            raise bad_request("An idempotency key has at most 255 characters.")
        asked.kept = self._kept.begin(key, exchange.body, exchange)
        return asked.kept is None

    # ------------------------------------------------------------------------------------------------------ feedback

    def _feedback(self, exchange: Exchange, name: str) -> None:
        served = self._serving.find(name)
        try:
            document = orjson.loads(exchange.body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        items = _feedback_items(document)
        self._later(exchange, self._keep(exchange, served.name, items))

    async def _keep(self, exchange: Exchange, name: str, items: list[Feedback]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(None, self._engine.observer.feedback, name, items)
        except NotImplementedError:
            raise Refusal(
                501, "not_kept", "This server keeps no feedback.", hint="Serve on the platform: tidemill up."
            ) from None
        except InputError:
            raise
        except TidemillError as error:
            raise Refusal(503, "unavailable", str(error), retry_after_s=5) from error
        except OSError as error:
            why = f"The feedback could not be kept ({error.strerror or error})."
            raise Refusal(503, "unavailable", why, retry_after_s=5) from error
        exchange.reply(200, orjson.dumps({"kept": len(items)}))

    # -------------------------------------------------------------------------------------------- models and servers

    def _server(self, exchange: Exchange) -> None:
        exchange.reply(200, orjson.dumps(_SERVER))

    def _live(self, exchange: Exchange) -> None:
        exchange.reply(200, b'{"live":true}')

    def _ready(self, exchange: Exchange) -> None:
        ready = not self.draining and self._serving.ready
        exchange.reply(200 if ready else 503, b'{"ready":true}' if ready else b'{"ready":false}')

    def _metadata(self, exchange: Exchange, name: str, version: str) -> None:
        served = self._serving.find(name)
        model = served.version(version) if version else served.main
        if model.codec is None:
            self._later(exchange, self._metadata_later(exchange, served, model))
            return
        exchange.reply(200, orjson.dumps(model.codec.metadata(served.versions)))

    async def _metadata_later(self, exchange: Exchange, served: Served, model: Model) -> None:
        await self._serving.prepared(model)
        assert model.codec is not None
        exchange.reply(200, orjson.dumps(model.codec.metadata(served.versions)))

    def _model_ready(self, exchange: Exchange, name: str, version: str) -> None:
        served = self._serving.find(name)
        model = served.version(version) if version else served.main
        ready = model.state is State.READY and model.on
        body = {"name": name, "ready": ready} | ({"reason": model.problem} if model.problem else {})
        exchange.reply(200 if ready else 503, orjson.dumps(body))

    def _index(self, exchange: Exchange, _: str) -> None:
        rows = []
        for served in self._serving.all():
            for model in served.models:
                ready = model.state is State.READY and model.on
                rows.append(
                    {
                        "name": served.name,
                        "version": model.revision,
                        "state": "READY" if ready else "LOADING" if model.state is State.CHECKING else "UNAVAILABLE",
                        "reason": model.problem,
                    }
                )
        exchange.reply(200, orjson.dumps(rows))

    def _load(self, exchange: Exchange, name: str) -> None:
        self._later(exchange, self._turn(exchange, name, True))

    def _unload(self, exchange: Exchange, name: str) -> None:
        self._later(exchange, self._turn(exchange, name, False))

    async def _turn(self, exchange: Exchange, name: str, on: bool) -> None:
        served = self._serving.find(name)
        await (self._serving.load(served) if on else self._serving.unload(served))
        exchange.reply(200, b"{}")

    def _openapi(self, exchange: Exchange) -> None:
        exchange.reply(200, orjson.dumps(openapi.document(self._serving.all(), secured=self._authorise is not None)))

    def _page(self, exchange: Exchange) -> None:
        exchange.reply(200, page.read(), _HTML, page.HEADERS)

    def _metrics(self, exchange: Exchange) -> None:
        self._later(exchange, self._render(exchange))

    async def _render(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        text = await loop.run_in_executor(None, self._engine.observer.render_metrics)
        exchange.reply(200, (text + self._serving.metrics()).encode(), _TEXT)

    async def settle(self, seconds: float) -> None:
        """Wait until nothing is under way, at most so long."""
        end = self._clock() + seconds
        while (self.under_way or self._tasks) and self._clock() < end:
            await asyncio.sleep(0.01)


def _answer(asked: Asked, model: Model, body: bytes, json_bytes: int | None) -> bytes:
    kind = b"application/json" if json_bytes is None else b"application/octet-stream"
    lines = b"" if json_bytes is None else b"inference-header-content-length: %d\r\n" % json_bytes
    if not asked.exchange.keep_alive:
        lines += b"connection: close\r\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%bx-request-id: %b%b%d\r\n\r\n%b" % (
        kind, lines, asked.request_id.encode(), model.head, len(body), body,
    )  # fmt: skip


def _as_refusal(error: TidemillError, status: int = 400) -> Refusal:
    if isinstance(error, Refusal):
        return error
    status = int(getattr(error, "status", 404 if isinstance(error, NotFoundError) else status))
    code = str(getattr(error, "code", _CODES.get(status, "failed")))
    return Refusal(status, code, str(error), retry_after_s=getattr(error, "retry_after_s", None))


def _wrong_method(exchange: Exchange, allowed: bytes) -> None:
    why = Refusal(405, "method_not_allowed", f"Only {allowed.decode()} goes here.")
    exchange.refuse(why, b"allow: %b\r\n" % allowed)


def _key(headers: Mapping[bytes, bytes]) -> str | None:
    given = headers.get(b"authorization", b"")
    if given[:7].lower() == b"bearer ":
        return given[7:].strip().decode("latin-1")
    key = headers.get(b"x-api-key")
    return None if key is None else key.decode("latin-1")


def _json_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    given = headers.get(_JSON_BYTES)
    if given is None:
        return None
    if not given.isdigit() or len(given) > 12:
        raise bad_request("Inference-Header-Content-Length must be a whole number.")
    return int(given)


def _request_id(headers: Mapping[bytes, bytes]) -> str | None:
    given = headers.get(b"x-request-id")
    if given is None:
        return None
    if not 0 < len(given) <= 128 or any(not 33 <= c <= 126 for c in given):
        raise bad_request("X-Request-Id must have 1 to 128 visible ASCII characters.")
    return given.decode("ascii")


def _feedback_items(document: Any) -> list[Feedback]:
    rows = document
    if isinstance(document, dict):
        rows = document.get("items", [document])
    if not isinstance(rows, list) or not 0 < len(rows) <= _MOST_ITEMS:
        raise bad_request(
            f'The body must be {{"items": [{{"request_id", "label"}}, …]}} with 1 to {_MOST_ITEMS:,} items.'
        )
    return [_feedback_item(n, row) for n, row in enumerate(rows, start=1)]


def _feedback_item(number: int, row: Any) -> Feedback:
    where = f"Item {number}"
    if not isinstance(row, dict) or not isinstance(row.get("request_id"), str) or not row["request_id"]:
        raise bad_request(f'{where} needs a text "request_id": the header X-Request-Id of the answer.')
    if "label" not in row or isinstance(row["label"], (dict, list)):
        raise bad_request(f'{where} needs a "label": a text, a number, true or false.')
    index, note, at = row.get("row", 0), row.get("note", ""), row.get("at", 0.0)
    if type(index) is not int or index < 0:
        raise bad_request(f'"row" of {where.lower()} must be a whole number, 0 or more.')
    if not isinstance(note, str) or len(note) > 10_000:
        raise bad_request(f'"note" of {where.lower()} must be a text of at most 10,000 characters.')
    if not isinstance(at, (int, float)) or isinstance(at, bool):
        raise bad_request(f'"at" of {where.lower()} must be seconds since 1970.')
    return Feedback(row["request_id"], row["label"], index, float(at) or time.time(), note)
