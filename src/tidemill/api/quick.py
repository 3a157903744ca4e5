"""Routes whose answers take microseconds, served before any routing and after the same checks.

What a framework does around such an answer takes longer than the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
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

Refusal = Callable[[TidemillError], Response]
Door = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class QuickDoor:
    """All methods of one path, each with `Route.quick`.

    Parameters
    ----------
    context : Context
        What the routes work with.
    methods : mapping of str to Route
        By method.
    refused : callable
        Gives the response to an error.
    """

    def __init__(self, context: Context, methods: Mapping[str, Route], refused: Refusal) -> None:
        self._context = context
        self._methods = methods
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        try:
            content = await self._answer(scope, receive)
        except TidemillError as error:
            await self._refused(error)(scope, receive, send)
            return
        length = b"%d" % len(content.data)
        headers = [(b"content-type", content.type.encode()), (b"content-length", length), *_HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content.data})

    async def _answer(self, scope: Scope, receive: Receive) -> Content:
        route = self._methods.get(scope["method"])
        if route is None:
            raise HttpError(405, f"Only {', '.join(sorted(self._methods))} goes here.")
        # The first of a name counts, as it does everywhere else.
        headers = dict(reversed(scope["headers"]))
        key = headers.get(b"x-api-key")
        actor = let_in(
            self._context,
            route.scope,
            "",
            host=headers.get(b"host", b"").decode("latin-1"),
            authorization=headers.get(b"authorization", b"").decode("latin-1"),
            key=None if key is None else key.decode("latin-1"),
        )
        query = read_text(route.query, once(QueryParams(scope["query_string"]))) if scope["query_string"] else {}
        data = await _whole(receive, self._context.limits.body_bytes)
        need_type(headers.get(b"content-type", b"").decode("latin-1"), "application/json")
        body = read(route.body, _parsed(data))
        accept = headers.get(b"accept", b"").decode("latin-1")
        content: Content = route.answer(Call(self._context, actor, {}, query, body, accept=accept))
        return content


class QuickApp(Starlette):
    """An application some of whose paths are served before routing.

    Parameters
    ----------
    quick : mapping of str to callable
        ASGI applications by path.
    **options
        Of `Starlette`.
    """

    def __init__(self, quick: Mapping[str, Door], **options: Any) -> None:
        super().__init__(**options)
        self._quick = quick

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it."""
        door = self._quick.get(scope["path"]) if scope["type"] == "http" else None
        await (super().__call__ if door is None else door)(scope, receive, send)


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
