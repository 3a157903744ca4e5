"""The server's HTTP protocol, with a short way for quick routes: answered where the request ends, without a task.

uvicorn makes a task, an event and several messages for each request, which takes longer than such an answer does. All
else goes its usual way, and so does every request to a quick route that is not plain: large or in pieces, behind
another one on the same connection, to a client that does not read what it gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tidemill.api.quick import Headers, QuickDoor, first_of

_MOST_BYTES = 1 << 16
"""Of a body that is answered so; a larger one is read under flow control."""
_MOST_HEADS = 8
"""That a connection keeps: a client's heads differ by the length of the body alone."""
_LONGEST_HEAD = 4096
_HEAD_END = b"\r\n\r\n"
_NONE: Headers = {}


@dataclass(frozen=True)
class Head:
    """What the bytes before a body mean."""

    door: QuickDoor
    method: str
    headers: Headers
    query: bytes
    length: int


class QuickProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection; see `quick_protocol`."""

    doors: Mapping[bytes, QuickDoor]
    _door: QuickDoor | None = None
    _known: Headers = _NONE
    _data: bytes = b""
    _keep: bool = True
    _head: Head | None = None
    _begun: int = 0
    _between: bool = True
    _quiet_since: float | None = None
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the base has it
        """A client is there."""
        self._heads: dict[bytes, Head] = {}  # a head may hold a key: it goes with its connection
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._heads = {}
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        self._quiet_since = None
        between = self._between
        if between:
            end = data.find(_HEAD_END) + 4
            head = self._heads.get(data[:end])
            if head is not None and len(data) - end == head.length and self._free():
                # These bytes were a head before, read from the same state: they mean the same again.
                self._answer(head, data[end:], True)
                return
        self._begun, self._head = 0, None
        super().data_received(data)
        if between:
            self._remember(data)

    def on_message_begin(self) -> None:
        """Wait for the headers: only who goes the usual way needs the rest."""
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._begun += 1
        self._between = False

    def on_headers_complete(self) -> None:
        """Choose the way that this request goes."""
        self._door = self._find()
        if self._door is None:
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers += headers
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._door is None:
            super().on_body(body)
        else:
            self._data += body

    def on_message_complete(self) -> None:
        """Answer."""
        door, self._door = self._door, None
        self._between = True
        if door is None:
            super().on_message_complete()
            return
        method, query = self.parser.get_method().decode("ascii"), self.url.partition(b"?")[2]
        head = Head(door, method, self._known, query, len(self._data))
        if self._keep:
            self._head = head
        self._answer(head, self._data, self._keep)

    def _answer(self, head: Head, data: bytes, keep: bool) -> None:
        status, headers, body = head.door.reply(head.method, head.headers, head.query, data)
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n" if keep else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(lines))
        self.server_state.total_requests += 1
        if not keep:
            self.transport.close()
            return
        self._quiet_since = self.loop.time()
        if self._watch is None:
            self._look()

    def _look(self) -> None:
        """Close the connection where nobody has asked for long; one timer serves all requests on it."""
        left: float = self.timeout_keep_alive
        if self._quiet_since is not None:
            left += self._quiet_since - self.loop.time()
        if left > 0:
            self._watch = self.loop.call_later(left, self._look)
        else:
            self.timeout_keep_alive_handler()

    def _remember(self, data: bytes) -> None:
        """Keep what a head means, where ``data`` was one whole request and nothing else."""
        head, end = self._head, data.find(_HEAD_END) + 4
        if head is None or self._begun != 1 or not self._between:
            return
        if not 4 < end <= _LONGEST_HEAD or data[end:] != self._data:
            return
        if len(self._heads) >= _MOST_HEADS:
            self._heads.clear()
        self._heads[data[:end]] = head

    def _free(self) -> bool:
        """Whether a request that comes now is the only one on its connection, which goes on after it."""
        if self.timeout_keep_alive_task is not None or self.transport.is_closing() or self.flow.write_paused:
            return False  # the timer is of an answer that went the usual way
        if self.pipeline or not getattr(self.cycle, "response_complete", True):
            return False
        return self.limit_concurrency is None or len(self.connections) < self.limit_concurrency

    def _find(self) -> QuickDoor | None:
        """Give the door of a request that can be answered at once; None for the usual way."""
        door = self.doors.get(self.url.partition(b"?")[0])
        if door is None or self.expect_100_continue or self.flow.write_paused or self.parser.should_upgrade():
            return None
        if self.pipeline or not getattr(self.cycle, "response_complete", True):  # before the first request it is None
            return None  # an earlier request is not answered yet
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            return None
        known = first_of(self.headers)
        length = known.get(b"content-length", b"")
        if not length.isdigit() or int(length) > _MOST_BYTES or self.parser.get_method() == b"HEAD":
            return None
        self._known, self._data = known, b""
        self._keep = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        return door


def quick_protocol(doors: Mapping[str, QuickDoor]) -> type[QuickProtocol]:
    """Give a protocol for `uvicorn.Config`.

    Parameters
    ----------
    doors : mapping of str to QuickDoor
        By path, as `tidemill.api.quick.QuickApp.quick` has them.

    Examples
    --------
    >>> quick_protocol({}).doors
    {}
    """
    by_path = {path.encode(): door for path, door in doors.items()}

    class Chosen(QuickProtocol):
        doors = by_path

    return Chosen
