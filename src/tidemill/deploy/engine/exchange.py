"""A request over HTTP, and the place of its answer; answers and refusals as the bytes of a response."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from tidemill.deploy.engine.refusal import Refusal

if TYPE_CHECKING:
    from tidemill.deploy.engine.http import Connection

JSON = b"application/json"
NONE: dict[bytes, bytes] = {}
"""Headers of a request that has none that matter; never written to."""
_REASONS = {s.value: s.phrase.encode() for s in HTTPStatus}


class Head:
    """The head of a request as httptools understood it: who sends the same bytes again means the same.

    Parameters
    ----------
    method, target : bytes
        What is wanted.
    headers : dict
        Those that matter; never written to.
    length : int
        Bytes of the body.
    """

    __slots__ = ("headers", "length", "method", "target")

    def __init__(self, method: bytes, target: bytes, headers: dict[bytes, bytes], length: int) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.length = length


class Exchange:
    """A request, and the place of its answer."""

    __slots__ = (
        "body", "connection", "headers", "keep_alive", "left", "method", "out", "started", "target",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        started: float,
        method: bytes = b"",
        target: bytes = b"",
        headers: dict[bytes, bytes] = NONE,
        body: bytes = b"",
    ) -> None:
        self.connection = connection
        self.started = started
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        self.keep_alive = True
        self.out: bytes | None = None
        self.left = False

    def reply(self, status: int, body: bytes, content_type: bytes = JSON, extra: bytes = b"") -> None:
        """Answer; ``extra`` holds further header lines, each with its line end."""
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        shown = b"" if self.method == b"HEAD" else body
        self.send(b"".join((_opening(status, content_type, extra, len(body)), end, shown)))

    def send(self, out: bytes) -> None:
        """Answer with bytes that are a whole HTTP response."""
        self.out = out
        self.connection.flush()

    def refuse(self, why: Refusal, extra: bytes = b"") -> None:
        """Answer with a typed error."""
        body, lines = _told(why)
        self.reply(why.status, body, JSON, extra + lines)


def _opening(status: int, content_type: bytes, extra: bytes, length: int) -> bytes:
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n" % (
        status, _REASONS.get(status, b""), content_type, extra, length,
    )  # fmt: skip


def _told(why: Refusal) -> tuple[bytes, bytes]:
    """Body and header lines of a typed error."""
    body: dict[str, Any] = {"error": why.message if not why.hint else f"{why.message} {why.hint}", "code": why.code}
    lines = b""
    if why.retry_after_s is not None:
        body["retry_after_s"] = round(why.retry_after_s, 3)
        lines += b"retry-after: %d\r\n" % max(1, -(-why.retry_after_s // 1))
    if why.status == 401:
        lines += b'www-authenticate: Bearer realm="tidemill"\r\n'
    return orjson.dumps(body), lines


def refusal_parts(why: Refusal) -> tuple[bytes, bytes]:
    r"""Write a refusal once for many requests: what stands before the request's id, and what stands behind it.

    Examples
    --------
    >>> before, behind = refusal_parts(Refusal(429, "overloaded", "Later.", retry_after_s=0.2))
    >>> (before + b"r1" + behind).split(b"\r\n")[:2]
    [b'HTTP/1.1 429 Too Many Requests', b'content-type: application/json']
    """
    body, lines = _told(why)
    before, _, behind = _opening(why.status, JSON, lines + b"x-request-id: \r\n", len(body)).partition(
        b"x-request-id: "
    )
    return before + b"x-request-id: ", behind + b"\r\n" + body


class Handler(Protocol):
    """What answers requests."""

    def __call__(self, exchange: Exchange) -> None:
        """Called on the loop for each whole request, in order; must see to it that `Exchange.reply` is called once."""
