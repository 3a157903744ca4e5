"""Requests for predictions, from their bytes to the answer's: read, put into a line, answered or refused.

What most requests are is answered on a short way (`_ask_plainly`): tensors, no wishes, one revision that takes them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from functools import partial
from typing import Any

import orjson

from tidemill.core.errors import TidemillError
from tidemill.deploy.engine.asked import Asked, Part
from tidemill.deploy.engine.exchange import Exchange, refusal_parts
from tidemill.deploy.engine.files import FileCodec
from tidemill.deploy.engine.heads import JSON_BYTES, deadline_ms_of, json_bytes_of, parent_of, request_id_of
from tidemill.deploy.engine.idempotency import Kept
from tidemill.deploy.engine.later import Later
from tidemill.deploy.engine.model import Job, Model, State
from tidemill.deploy.engine.query import Outputs, Query, joined
from tidemill.deploy.engine.refusal import Refusal, as_refusal, bad_request
from tidemill.deploy.engine.served import Served, Serving
from tidemill.deploy.types import RequestEvent

V2, RECORDS = "v2", "records"
"""Forms of requests: tensors by the Open Inference Protocol, rows by column for people."""
_PLAIN = frozenset((JSON_BYTES, b"authorization", b"content-type", b"traceparent", b"x-api-key", b"x-sticky-key"))
"""Headers of a request that change nothing about how tensors are answered where there is one revision."""
_SAME_WORDS_S = 0.05
_OPENING = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: "
_LENGTHS = [b"%d\r\n\r\n" % n for n in range(2048)]


class Predictions:
    """Answers requests for predictions.

    Parameters
    ----------
    serving : Serving
        The endpoints and their models.
    later : Later
        Answers when what a request waits for is there.
    """

    def __init__(self, serving: Serving, later: Later) -> None:
        self._serving = serving
        self._engine = serving.engine
        self._later = later
        self._limits = serving.engine.limits
        self._clock = serving.engine.clock
        self._kept = Kept(self._limits.idempotent_s, self._limits.idempotent_bytes, self._clock)
        self._ids = f"{os.getpid():x}-{time.time_ns() & 0xFFFFFFFFFF:x}-"
        self._count = itertools.count(1)
        self._finish = self._done  # bound once
        self.draining = False
        self.under_way = 0

    # --------------------------------------------------------------------------------------------------------- asking

    def ask(self, exchange: Exchange, form: str, name: str, version: str) -> None:
        """Answer a request that may be made, now or later.

        Raises
        ------
        Refusal
            Where nobody could be asked.
        """
        headers = exchange.headers
        served = self._serving.find(name)
        if self.draining:
            raise Refusal(503, "unavailable", "The server is about to end.", retry_after_s=1)
        plain = served.plain
        if plain is not None and form is V2 and not version and (not headers or headers.keys() <= _PLAIN):
            self._ask_plainly(exchange, served, plain)
            return
        if served.coming and not served.routing:
            self._later(exchange, self._awaited(exchange, served, form, version))
            return
        model = served.version(version) if version else served.pick(headers.get(b"x-sticky-key"))
        request_id = f"{self._ids}{next(self._count):x}"
        if headers:
            request_id = request_id_of(headers) or request_id
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
        deadline = exchange.started + served.deadline_ms / 1e3
        if not self._engine.admits(model, 1, deadline):  # before anything is made of its body
            self._turn_away(exchange, model)
            return
        asked = Asked(exchange, served, model, f"{self._ids}{next(self._count):x}", V2)
        headers = exchange.headers
        assert model.codec is not None
        try:
            head = json_bytes_of(headers) if headers else None
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
                    model.endpoint, model.revision, request_id, 429, 1, 0.0, 0.0, 0.0, 0.0, total, 0, False,
                    "overloaded", parent_of(exchange.headers),
                )
            )  # fmt: skip

    async def _awaited(self, exchange: Exchange, served: Served, form: str, version: str) -> None:
        """The first revision's files are being read: wait for them."""
        end = exchange.started + served.deadline_ms / 1e3
        while served.coming and not served.routing and self._clock() < end:
            await asyncio.sleep(0.005)
        if served.routing:
            self.ask(exchange, form, served.name, version)
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
            self._refused(asked, as_refusal(error, 503))
            return
        try:
            self._start(asked)
        except Refusal as error:
            self._refused(asked, error)

    def _repeated(self, asked: Asked, exchange: Exchange) -> bool:
        """Answer a request that was answered before under the same key; False where it is new."""
        key = (asked.served.name, asked.form, exchange.headers[b"idempotency-key"])
        if len(key[2]) > 255:
            raise bad_request("An idempotency key has at most 255 characters.")
        asked.kept = self._kept.begin(key, exchange.body, exchange)
        return asked.kept is None

    # -------------------------------------------------------------------------------------------------------- reading

    def _start(self, asked: Asked) -> None:
        exchange = asked.exchange
        if asked.model.state is State.GONE:  # it was replaced while the request waited
            asked.model = asked.served.pick(exchange.headers.get(b"x-sticky-key"))
        if not self._quick(asked, len(exchange.body)):
            self._later(exchange, self._read_beside(asked))
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

    @staticmethod
    def _quick(asked: Asked, size: int) -> bool:
        """True where a request may be read on the loop: nothing in it makes others wait."""
        completion = asked.served.completion
        if completion is not None and not completion.quick(size):
            return False
        return asked.model.files is None or FileCodec.quick(size)

    async def _read_beside(self, asked: Asked) -> None:
        """Read a request in a thread, as long as the deadline allows: it is large, or its rows come from a store."""
        loop = asyncio.get_running_loop()
        try:
            deadline = asked.exchange.started + self._deadline_ms(asked) / 1e3
            if not self._engine.admits(asked.model, 1, deadline):
                raise self._engine.overloaded(asked.model)
            reading = loop.run_in_executor(None, self._decode, asked, asked.exchange)
            query = await asyncio.wait_for(reading, max(0.0, deadline - self._clock()))
            if asked.model.state is State.GONE:
                raise Refusal(503, "unavailable", "The revision was replaced in the meantime.", retry_after_s=0)
        except asyncio.TimeoutError:
            self._refused(asked, Refusal(504, "too_late", "The deadline passed while the row was completed."))
        except TidemillError as error:
            self._refused(asked, as_refusal(error))
        else:
            self._submit(asked, query, deadline)

    def _deadline_ms(self, asked: Asked) -> float:
        return deadline_ms_of(asked.exchange.headers, asked.served.deadline_ms)

    def _decode(self, asked: Asked, exchange: Exchange) -> Query:
        model, headers, completion = asked.model, exchange.headers, asked.served.completion
        assert model.codec is not None
        if b"content-encoding" in headers and headers[b"content-encoding"] != b"identity":
            raise Refusal(415, "media_type", "A body must not be compressed.")
        if asked.form is V2:
            complete = None
            if completion is not None and model.records is not None:
                complete = partial(model.records.tensors, completion=completion)
            return model.codec.decode(exchange.body, json_bytes_of(headers), complete)
        reader = model.reader
        if reader is None:
            raise Refusal(
                400,
                "bad_request",
                "This model has no columns with names; it is a bare graph.",
                hint=f"Use POST /v2/models/{asked.served.name}/infer.",
            )
        query = reader.read(exchange.body, headers.get(b"content-type", b""), completion)
        if query.rows > self._limits.rows:
            raise Refusal(413, "too_many_rows", f"A request may have {self._limits.rows:,} rows.")
        return query

    # ------------------------------------------------------------------------------------------------------ answering

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

    def _submit_parts(self, asked: Asked, most: int) -> Refusal | None:
        """A request with many rows goes in slices, so that nobody waits behind all of it."""
        model, query = asked.model, asked.query
        if not self._engine.admits(model, asked.rows, asked.deadline):
            return self._engine.overloaded(model)
        assert model.layout is not None
        pieces = query.split(model.layout.types_of(query.shapes), most)
        asked.parts = [None] * len(pieces)
        asked.waiting = len(pieces)
        for index, piece in enumerate(pieces):
            part = Part(asked, index, index * most, piece, self._part_done)
            why = self._engine.submit(model, part, admitted=True)
            if why is not None:
                self._part_done(part, None, 0, why)
        return None

    def _part_done(self, job: Job, outputs: Outputs | None, start: int, why: Refusal | None) -> None:
        assert isinstance(job, Part)
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
        if asked.form is not V2:
            body = self._people(asked, query, outputs, start)
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

    @staticmethod
    def _people(asked: Asked, query: Query, outputs: Outputs, start: int) -> bytes:
        model = asked.model
        assert model.reader is not None
        return orjson.dumps(
            {
                "model": asked.served.name,
                "revision": model.revision,
                "request_id": asked.request_id,
                "predictions": model.reader.answers(outputs, start, start + query.rows),
            }
        )

    # -------------------------------------------------------------------------------------------------------- telling

    def _tell_divided(self, asked: Asked, model_ms: float) -> None:
        """Tell of a request that went in slices; its last one says how long it waited."""
        model, end = asked.model, self._clock()
        self._engine.observer.request(
            RequestEvent(
                model.endpoint, model.revision, asked.request_id, 200, asked.rows, (asked.sent - asked.queued) * 1e3,
                max(0.0, (asked.landed - asked.sent) * 1e3 - asked.model_ms), model_ms, (end - asked.landed) * 1e3,
                (end - asked.arrived) * 1e3, asked.retries, False, "", asked.traceparent,
            )
        )  # fmt: skip

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
                    asked.retries, False, why.code, asked.traceparent,
                )
            )  # fmt: skip


def _answer(asked: Asked, model: Model, body: bytes, json_bytes: int | None) -> bytes:
    kind = b"application/json" if json_bytes is None else b"application/octet-stream"
    lines = b"" if json_bytes is None else b"inference-header-content-length: %d\r\n" % json_bytes
    if not asked.exchange.keep_alive:
        lines += b"connection: close\r\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%bx-request-id: %b%b%d\r\n\r\n%b" % (
        kind, lines, asked.request_id.encode(), model.head, len(body), body,
    )  # fmt: skip
