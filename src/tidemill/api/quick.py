"""Routes whose answers take microseconds, served before any routing and after the same checks.

What a framework does around such an answer takes longer than the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tidemill.api.context import Context
from tidemill.api.entry import let_in, need_type, once
from tidemill.api.errors import HttpError
from tidemill.api.route import Call, Content, Route
from tidemill.api.shapes import read, read_text
from tidemill.core.errors import TidemillError

Headers = Mapping[bytes, bytes]
"""By name in small letters; of several with one name the first."""
Reply = tuple[int, Sequence[tuple[bytes, bytes]], bytes]
"""Status, headers and body of an answer."""
Refusal = Callable[[TidemillError], Response]
Failure = Callable[[str, Exception], Response]

_HEADERS = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


class QuickDoor:
    """All methods of one path, each with `Route.quick`; never raises.

    Parameters
    ----------
    context : Context
        What the routes work with.
    methods : mapping of str to Route
        By method.
    refused : callable
        Gives the response to an error.
    broken : callable
        Gives the response to a bug, from what was asked and what was raised.
    """

    def __init__(self, context: Context, methods: Mapping[str, Route], refused: Refusal, broken: Failure) -> None:
        self._context = context
        self._methods = methods
        self._refused = refused
        self._broken = broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        method = scope["method"]
        try:
            headers = first_of(scope["headers"])
            route, actor = self._admit(method, headers)
            data = await _whole(receive, self._context.limits.body_bytes)
            status, lines, body = self._answer(route, actor, headers, scope["query_string"], data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the asker gets an answer, and no traceback
            status, lines, body = self._failed(method, error)
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": body})

    def reply(self, method: str, headers: Headers, query: bytes, data: bytes) -> Reply:
        """Answer one request that is there as a whole."""
        try:
            route, actor = self._admit(method, headers)
            return self._answer(route, actor, headers, query, data)
        except Exception as error:  # noqa: BLE001 - as above
            return self._failed(method, error)

    def _admit(self, method: str, headers: Headers) -> tuple[Route, str]:
        """Find the route, and say who asks; nothing of the body is read before."""
        route = self._methods.get(method)
        if route is None:
            raise HttpError(405, f"Only {', '.join(sorted(self._methods))} goes here.")
        key = headers.get(b"x-api-key")
        return route, let_in(
            self._context,
            route.scope,
            "",
            host=headers.get(b"host", b"").decode("latin-1"),
            authorization=headers.get(b"authorization", b"").decode("latin-1"),
            key=None if key is None else key.decode("latin-1"),
        )

    def _answer(self, route: Route, actor: str, headers: Headers, query: bytes, data: bytes) -> Reply:
        asked = read_text(route.query, once(QueryParams(query))) if query else {}
        need_type(headers.get(b"content-type", b"").decode("latin-1"), "application/json")
        body = read(route.body, _parsed(data))
        accept = headers.get(b"accept", b"").decode("latin-1")
        content: Content = route.answer(Call(self._context, actor, {}, asked, body, accept=accept))
        length = b"%d" % len(content.data)
        return 200, ((b"content-type", content.type.encode()), (b"content-length", length), *_HEADERS), content.data

    def _failed(self, method: str, error: Exception) -> Reply:
        if isinstance(error, TidemillError):
            response = self._refused(error)
        else:
            path = next(iter(self._methods.values())).path
            response = self._broken(f"{method} {path}", error)
        return response.status_code, response.raw_headers, bytes(response.body)


class QuickApp(Starlette):
    """An application some of whose paths are served before routing.

    Parameters
    ----------
    quick : mapping of str to QuickDoor
        By path.
    **options
        Of `Starlette`.
    """

    def __init__(self, quick: Mapping[str, QuickDoor], **options: Any) -> None:
        super().__init__(**options)
        self.quick = quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        door = self.quick.get(scope["path"]) if scope["type"] == "http" else None
        await (super().__call__ if door is None else door)(scope, receive, send)


def first_of(headers: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Give headers by name; the first of a name counts, as it does everywhere else."""
    return dict(reversed(headers))


async def _whole(receive: Receive, most: int) -> bytes:
    """Read a body, bounded while it arrives."""
    data = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise HttpError(400, "The request ended too early.")
        piece: bytes = message.get("body", b"")
        data += piece
        if len(data) > most:
            raise HttpError(413, f"A body may have {most:,} bytes.")
        if not message.get("more_body", False):
            return data


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise HttpError(400, f"The body is not JSON ({error}).") from error
