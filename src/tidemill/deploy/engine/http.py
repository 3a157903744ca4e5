"""HTTP/1.1 on one connection: httptools reads the grammar, this module keeps the limits and the order of answers.

What two readers could understand in different ways is refused: a body with both a length and an encoding, a length
that stands twice, an encoding other than ``chunked``, a request without exactly one ``Host``.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from tidemill.deploy.engine.exchange import JSON, NONE, Exchange, Handler, Head
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.refusal import Refusal

_KEPT = frozenset(
    (
        b"authorization",
        b"content-encoding",
        b"idempotency-key",
        b"inference-header-content-length",
        b"x-api-key",
        b"x-deadline-ms",
        b"x-request-id",
        b"x-sticky-key",
    )
)
_MEANING = dict.fromkeys(_KEPT, "kept") | {
    b"content-type": "type",
    b"traceparent": "trace",
    b"tracestate": "passing",
    b"host": "host",
    b"content-length": "length",
    b"transfer-encoding": "encoding",
    b"expect": "expect",
}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_URL_BYTES = 8192
_UNREAD = 1 << 20
"""Bytes of answers that a client has not read, above which nothing more is read from it."""
_LONGEST_PARENT = 128
_TURN_BYTES = 1 << 17
"""A client that sends so much at once waits until the others had their turn."""
_MOST_HEADS = 32
"""That a connection keeps: a client's heads differ by the length of the body alone."""
_LONGEST_HEAD = 4096
_PASSING = frozenset((b"idempotency-key", b"x-request-id", b"x-sticky-key"))
"""Headers that differ from request to request: a head that has one is not worth remembering."""


class Hub:
    """All connections of a front, with what they share.

    Parameters
    ----------
    handler : Handler
        Answers requests.
    limits : Limits
        Bounds.
    traced : bool
        Somebody follows the spans of callers: their headers ``traceparent`` are kept.
    """

    def __init__(self, handler: Handler, limits: Limits, *, traced: bool = False) -> None:
        self.handler = handler
        self.limits = limits
        self.traced = traced
        self.most_held = max(limits.bodies_bytes, limits.body_bytes)
        self.held = 0
        """Bytes of the bodies of all requests that are under way, or still coming."""
        self.clock: Callable[[], float] = time.perf_counter
        self.connections: set[Connection] = set()
        self.draining = False
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> Connection:
        """Make the connection of a new client."""
        return Connection(self)

    def sweep(self, loop: asyncio.AbstractEventLoop, every_s: float = 0.5) -> None:
        """Look after connections that are slow, idle or stalled, again and again."""
        now = self.clock()
        for connection in list(self.connections):
            connection.look(now)
        self._timer = loop.call_later(every_s, self.sweep, loop, every_s)

    def drain(self) -> None:
        """Let every connection end after the answers that it waits for."""
        self.draining = True
        for connection in list(self.connections):
            connection.end_when_idle()

    def close(self) -> None:
        """End all connections now."""
        if self._timer is not None:
            self._timer.cancel()
        for connection in list(self.connections):
            connection.abort()


_IDLE, _HEAD, _BODY = range(3)


class Connection(asyncio.Protocol):
    """One client."""

    __slots__ = (
        "_begun", "_body", "_close", "_declared", "_exchange", "_expects", "_fed", "_hosts", "_hub", "_lengths",
        "_line", "_parser", "_paused", "_phase", "_plain", "_refused", "_resting", "_since", "_size", "_te",
        "_transport", "_unread_since", "_upload", "_url", "heads",
    )  # fmt: skip

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._line: deque[Exchange] = deque()
        self._exchange: Exchange | None = None
        self._phase = _HEAD
        self._since = hub.clock()
        self._fed = 0
        self._size = 0
        self._url = b""
        self._body: list[bytes] = []
        self._upload = 0
        self._hosts = self._lengths = self._declared = 0
        self._te: bytes | None = None
        self._expects = False
        self._plain = True
        self._begun = 0
        self._resting = False
        self._refused = False
        self._close = False
        self._paused = False
        self._unread_since = 0.0
        self.heads: dict[bytes, Head] = {}
        """What was read before; a head may hold a key, so it goes with its connection."""

    # -------------------------------------------------------------------------------------------------- from asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = transport
        hub = self._hub
        if len(hub.connections) >= hub.limits.connections:
            self._exchange = Exchange(self, hub.clock())
            self._line.append(self._exchange)
            self._stop(Refusal(503, "unavailable", "No connection is free.", retry_after_s=1))
            return
        hub.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The client is gone; what it asked for is thrown away when it is ready, and counts until then."""
        self._transport = None
        self.heads = {}
        self._hub.connections.discard(self)
        self._forget_upload()
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._refused:
            return
        fresh = self._phase == _IDLE or (self._exchange is None and not self._fed)
        if fresh:
            hub = self._hub
            end = data.find(_HEAD_END) + 4
            head = self.heads.get(data[:end])
            if (
                head is not None
                and len(data) - end == head.length
                and not self._close
                and not hub.draining
                and hub.held + head.length <= hub.most_held
            ):
                # These bytes were a whole request before, read by httptools from the same state: they are it again.
                hub.held += head.length
                exchange = Exchange(self, hub.clock(), head.method, head.target, head.headers, data[end:])
                self._phase = _IDLE
                line = self._line
                line.append(exchange)
                if len(line) >= hub.limits.pipelined:
                    self._pause()
                hub.handler(exchange)
                return
            if self._phase == _IDLE:
                self._since = hub.clock()
            self._phase = _HEAD
            self._fed = 0
        if self._phase != _BODY:
            self._fed += len(data)
        if self._read(data):
            if fresh and self._phase == _IDLE:
                self._remember(data)
            if len(data) >= _TURN_BYTES:
                self._rest()

    def _read(self, data: bytes) -> bool:
        """Let httptools read; False where nothing more will be."""
        self._begun = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:  # the wish is ignored, and nothing after it can be read
            self._refused = True
            return False
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, Refusal):
                self._stop(cause)
                return False
            raise
        except httptools.HttpParserError:
            self._broken("This is not HTTP/1.1.")
            return False
        if self._phase == _HEAD and self._fed > self._hub.limits.header_bytes + _URL_BYTES:
            self._stop(Refusal(431, "head_too_large", "The head of the request is too large."))
            return False
        return True

    def _remember(self, data: bytes) -> None:
        """Keep what a head means, where ``data`` was one whole request and nothing else."""
        exchange = self._exchange
        if exchange is None or self._begun != 1 or not self._plain or not exchange.keep_alive or exchange.left:
            return
        end = data.find(_HEAD_END) + 4
        if not 4 < end <= _LONGEST_HEAD or data[end:] != exchange.body or not _PASSING.isdisjoint(exchange.headers):
            return
        if len(self.heads) >= _MOST_HEADS:
            self.heads.clear()
        self.heads[data[:end]] = Head(exchange.method, exchange.target, exchange.headers, len(data) - end)

    def eof_received(self) -> bool:
        """The client says no more; what is under way is still answered."""
        if not self._line or (len(self._line) == 1 and self._phase == _BODY):
            return False
        self._close = True
        return True

    def pause_writing(self) -> None:
        """The client does not read: read no more from it."""
        self._unread_since = self._hub.clock()
        self._pause()

    def resume_writing(self) -> None:
        """It reads again."""
        self._unread_since = 0.0
        self._resume()

    # ----------------------------------------------------------------------------------------------- from httptools

    def on_message_begin(self) -> None:
        """A request begins."""
        exchange = self._exchange = Exchange(self, self._hub.clock())
        if self._close:  # the answer before it is the last one
            exchange.left = True
        else:
            self._line.append(exchange)
        if self._phase == _IDLE:
            self._phase, self._since = _HEAD, exchange.started
        self._size = 0
        self._url = b""
        self._hosts = self._lengths = self._declared = 0
        self._te = None
        self._expects = False
        self._plain = True
        self._begun += 1

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._url += url
        if len(self._url) > _URL_BYTES:
            raise Refusal(414, "target_too_long", "The path of the request is too long.")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header line."""
        self._size += len(name) + len(value)
        if self._size > self._hub.limits.header_bytes:
            raise Refusal(431, "head_too_large", "The head of the request is too large.")
        name = name.lower()
        kind = _MEANING.get(name)
        if kind is None or self._phase == _BODY:  # what stands behind a body in chunks, no proxy has looked at
            return
        if kind == "host":
            self._hosts += 1
        elif kind == "length":
            self._lengths += 1
            if not value.isdigit() or self._lengths > 1:
                raise Refusal(400, "bad_request", "The length of the body is not stated clearly.")
            if len(value) > 18 or int(value) > self._hub.limits.body_bytes:
                raise self._too_large()
            self._declared = int(value)
        elif kind == "kept":
            self._keep(name, value)
        elif kind == "type":
            # That it is JSON need not be told: without a word about it, a body is.
            if not value.startswith(JSON):
                self._keep(name, value)
        elif kind == "trace":
            self._plain = False
            if self._hub.traced and len(value) <= _LONGEST_PARENT:
                self._keep(name, value)
        elif kind == "passing":
            self._plain = False
        elif kind == "encoding":
            if self._te is not None or value.strip().lower() != b"chunked":
                raise Refusal(400, "bad_request", "The only transfer encoding that is taken is: chunked.")
            self._te = value
            self._plain = False
        else:
            self._plain = False
            self._expects = value.lower() == b"100-continue"

    def _keep(self, name: bytes, value: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if exchange.headers is NONE:
            exchange.headers = {}
        exchange.headers[name] = value

    def on_headers_complete(self) -> None:
        """The head is there."""
        exchange = self._exchange
        assert exchange is not None
        parser = self._parser
        exchange.method = parser.get_method()
        exchange.target = self._url
        version = parser.get_http_version()
        if self._te is not None and (self._lengths or version != "1.1"):
            raise Refusal(400, "bad_request", "The length of the body is stated in two ways.")
        if version not in ("1.1", "1.0"):
            raise Refusal(505, "http_version", "This server speaks HTTP/1.1.")
        if self._hosts != 1 and (version == "1.1" or self._hosts > 1):
            raise Refusal(400, "bad_request", "A request needs exactly one Host.")
        if self._hub.held + self._declared > self._hub.most_held:
            raise self._too_much()  # before any of it is read
        if self._expects and len(self._line) == 1 and self._transport:
            self._transport.write(_CONTINUE)
        exchange.keep_alive = parser.should_keep_alive() and not parser.should_upgrade() and not self._hub.draining
        self._phase = _BODY
        self._since = exchange.started if exchange.started > self._since else self._since

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        hub = self._hub
        self._upload += len(data)
        hub.held += len(data)
        if self._upload > hub.limits.body_bytes:
            raise self._too_large()
        if hub.held > hub.most_held:
            raise self._too_much()
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The request is whole."""
        exchange = self._exchange
        assert exchange is not None
        body = self._body
        if body:
            exchange.body = body[0] if len(body) == 1 else b"".join(body)
            self._body = []
            self._upload = 0
        self._phase = _IDLE
        self._fed = 0
        if exchange.left:
            self._hub.held -= len(exchange.body)
            return
        if not exchange.keep_alive:
            self._close = True
        if len(self._line) >= self._hub.limits.pipelined:
            self._pause()
        self._hub.handler(exchange)

    # ------------------------------------------------------------------------------------------------------- answers

    def flush(self) -> None:
        """Write the answers that are ready, in the order of their requests."""
        line, transport = self._line, self._transport
        hub = self._hub
        if transport is None:
            while line and line[0].out is not None:
                hub.held -= len(line.popleft().body)
            return
        while line and line[0].out is not None:
            exchange = line.popleft()
            hub.held -= len(exchange.body)
            transport.write(exchange.out)
            if not exchange.keep_alive:
                self._refused = True
                hub.held -= sum(len(e.body) for e in line)
                line.clear()
                transport.close()
                return
        if not line:
            self._since = self._hub.clock()
            if self._close:
                transport.close()
        if self._paused and not self._unread_since and len(line) < self._hub.limits.pipelined // 2 + 1:
            self._resume()

    def _too_large(self) -> Refusal:
        return Refusal(
            413, "body_too_large", f"A body may have {self._hub.limits.body_bytes:,} bytes; send it in parts."
        )

    def _too_much(self) -> Refusal:
        most = self._hub.most_held
        return Refusal(
            503, "unavailable", f"The bodies of all requests together may have {most:,} bytes.", retry_after_s=1
        )

    def _forget_upload(self) -> None:
        """What came of a body that will never be whole is let go."""
        self._hub.held -= self._upload
        self._upload = 0
        self._body = []

    def _broken(self, message: str) -> None:
        self._stop(Refusal(400, "bad_request", message))

    def _stop(self, why: Refusal) -> None:
        """Answer, and read no more: where one request ends and the next begins is not certain any longer."""
        self._refused = True
        self._forget_upload()
        exchange = self._exchange
        if exchange is not None and exchange.left:
            return
        if exchange is None or exchange.out is not None or self._phase == _IDLE:
            exchange = Exchange(self, self._hub.clock())
            self._line.append(exchange)
        exchange.keep_alive = False
        exchange.refuse(why)

    def _rest(self) -> None:
        """Read no more in this turn of the loop: others come first."""
        if not self._resting and self._transport is not None and not self._transport.is_closing():
            self._resting = True
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        self._resting = False
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # --------------------------------------------------------------------------------------------------------- watch

    def look(self, now: float) -> None:
        """End it where it is too slow."""
        limits, transport = self._hub.limits, self._transport
        if transport is None:
            return
        waited = now - self._since
        if self._unread_since and now - self._unread_since > limits.stalled_s:
            transport.abort()
        elif self._refused:
            if waited > limits.stalled_s:
                transport.abort()
        elif self._phase == _HEAD:
            if waited > limits.header_s:
                if self._fed:
                    self._stop(Refusal(408, "too_slow", "The head of the request did not come in time."))
                else:
                    transport.close()
        elif self._phase == _BODY:
            if waited > limits.body_s:
                self._stop(Refusal(408, "too_slow", "The body of the request did not come in time."))
        elif not self._line and waited > limits.idle_s:
            transport.close()

    def end_when_idle(self) -> None:
        """Close after the last answer. Who has asked nothing yet may still do so, as long as others wait."""
        if self._line:
            self._close = True
        elif self._transport is not None and (self._phase != _HEAD or self._exchange is not None):
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()
