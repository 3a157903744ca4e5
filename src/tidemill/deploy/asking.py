"""Asks the application of a front without a connection: for doors other than HTTP.

A door (gRPC, a replica of Ray Serve) makes a request, the application answers it like any other, and the door reads the
answer. So every door has the same keys, checks, deadlines, batches and refusals.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import orjson

from tidemill.deploy.engine.app import App
from tidemill.deploy.engine.exchange import Exchange
from tidemill.deploy.engine.http import Hub

HEADERS = (
    "authorization", "idempotency-key", "traceparent", "tracestate", "x-api-key", "x-deadline-ms", "x-request-id",
    "x-sticky-key",
)  # fmt: skip
"""Headers that a caller may send through any door, in lower case."""


@dataclass(frozen=True)
class Reply:
    """An answer of the application, taken apart."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @classmethod
    def read(cls, out: bytes) -> Reply:
        r"""Take apart what the application wrote as one HTTP response.

        Examples
        --------
        >>> Reply.read(b"HTTP/1.1 200 OK\r\nx-revision: a1\r\ncontent-length: 2\r\n\r\n{}").headers[b"x-revision"]
        b'a1'
        """
        head, _, body = out.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        pairs = (line.partition(b": ") for line in lines)
        return cls(int(first.split(b" ", 2)[1]), {name: value for name, _, value in pairs}, body)

    def document(self) -> Any:
        """Its JSON, without binary tensors that follow."""
        return orjson.loads(self.body[: self._json_bytes()])

    def tensors(self) -> bytes:
        """What follows the JSON."""
        return self.body[self._json_bytes() :]

    def _json_bytes(self) -> int:
        return int(self.headers.get(b"inference-header-content-length", len(self.body)))


class _Waiter:
    """Stands where HTTP has a connection: hears that an answer is there."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._left: tuple[Hub, int] | None = None

    def flush(self) -> None:
        if self._left is not None:
            hub, size = self._left
            hub.held -= size
        elif not self.answered.done():  # the caller may be gone
            self.answered.set_result(None)

    def leave(self, hub: Hub, size: int) -> None:
        """The caller is gone; what was asked is still held, and counts until it is answered."""
        hub.held += size
        self._left = hub, size


async def ask(
    app: App, method: bytes, target: bytes, headers: Mapping[bytes, bytes], body: bytes = b"", hub: Hub | None = None
) -> Reply:
    """Ask the application, on its event loop.

    Parameters
    ----------
    app : App
        What answers.
    method, target : bytes
        As in a request line.
    headers : mapping of bytes to bytes
        Names in lower case.
    body : bytes
        All of it.
    hub : Hub, optional
        Where the door counts bodies under way: where its caller leaves, this one counts until it is answered.
    """
    waiter = _Waiter()
    exchange = Exchange(cast(Any, waiter), time.perf_counter())
    exchange.method, exchange.target, exchange.body = method, target, body
    exchange.headers = dict(headers)
    app(exchange)
    try:
        await waiter.answered
    except asyncio.CancelledError:
        if hub is not None and exchange.out is None:
            waiter.leave(hub, len(body))
        raise
    return Reply.read(exchange.out or b"")
