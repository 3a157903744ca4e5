"""The server's HTTP protocol, with a short way for quick routes: answered where the request ends, without a task.

uvicorn makes a task, an event and several messages for each request, which takes longer than such an answer does. All
else goes its usual way, and so does every request to a quick route that is not plain: large or in pieces, behind
another one on the same connection, to a client that does not read what it gets.
"""

from __future__ import annotations

from collections.abc import Mapping

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tidemill.api.quick import Headers, QuickDoor, first_of

_MOST_BYTES = 1 << 16
"""Of a body that is answered so; a larger one is read under flow control."""
_NONE: Headers = {}


class QuickProtocol(HttpToolsProtocol):
    """HTTP/1.1 on one connection; see `quick_protocol`."""

    doors: Mapping[bytes, QuickDoor]
    _door: QuickDoor | None = None
    _known: Headers = _NONE
    _data: bytes = b""
    _keep: bool = True

    def on_headers_complete(self) -> None:
        """Choose the way that this request goes."""
        self._door = self._find()
        if self._door is None:
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
        if door is None:
            super().on_message_complete()
            return
        method, query = self.parser.get_method().decode("ascii"), self.url.partition(b"?")[2]
        status, headers, body = door.reply(method, self._known, query, self._data)
        lines = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"\r\n" if self._keep else b"connection: close\r\n\r\n", body)
        self.transport.write(b"".join(lines))
        if not self._keep:
            self.transport.close()
        self.on_response_complete()

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
