"""The application: takes a request through all checks to the function that answers it.

It runs in a process of its own, away from the fronts: a leak or a bug here can't hurt what serves.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from tidemill.api import (
    checks,
    data,
    data_changes,
    data_governance,
    data_rows,
    endpoints,
    feature_rows,
    features,
    jobs,
    keys,
)
from tidemill.api.archive import TAR
from tidemill.api.context import Context
from tidemill.api.entry import JSON, file_type, let_in, need_type, once
from tidemill.api.errors import HttpError, body_of, status_of
from tidemill.api.openapi import document
from tidemill.api.quick import QuickApp, QuickDoor
from tidemill.api.route import Call, Content, Route
from tidemill.api.shapes import read, read_text
from tidemill.core.errors import TidemillError

_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_log = logging.getLogger(__name__)
_ROOMS = (  # the hottest first
    features, endpoints, keys, data, data_rows, data_changes, data_governance, checks, feature_rows, jobs,
)  # fmt: skip


def make_app(context: Context, more: Iterable[Route] = ()) -> QuickApp:
    """Make the application.

    Parameters
    ----------
    context : Context
        What the routes work with. Without a ring it answers to nobody but programs on this machine.
    more : iterable of Route
        Routes of other rooms.

    Returns
    -------
    QuickApp
        An ASGI application.
    """
    routes = [*(route for room in _ROOMS for route in room.ROUTES), *more]
    about = document(routes, secured=context.ring is not None)
    plain = [
        Route("GET", "/healthz", "", "Whether it answers.", lambda _: {"ok": True}),
        Route("GET", "/openapi.json", "", "This interface.", lambda _: about),
    ]
    by_path: dict[str, dict[str, Route]] = {}
    for route in [*routes, *plain]:
        by_path.setdefault(route.path, {})[route.method] = route
    handled: dict[Any, Any] = {HTTPException: _of_starlette, Exception: _unexpected}
    quick = {
        path: QuickDoor(context, methods, _refused, _broken)
        for path, methods in by_path.items()
        if all(route.quick for route in methods.values())
    }
    served = [HttpRoute(p, _Door(context, methods), methods=None) for p, methods in by_path.items() if p not in quick]
    return QuickApp(quick, routes=served, exception_handlers=handled)


class _Door:
    """All methods of one path."""

    def __init__(self, context: Context, methods: Mapping[str, Route]) -> None:
        self._context = context
        self._methods = methods

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except TidemillError as error:
            response = _refused(error)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        route = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if route is None:
            allowed = ", ".join(sorted(self._methods))
            raise HttpError(405, f"Only {allowed} goes here.")
        actor = self._let_in(route, request)  # from memory
        query = read_text(route.query, once(request.query_params))
        kind = request.headers.get("content-type", "")
        form = file_type(kind, route.files, json=bool(route.body)) if route.files else ""
        if not form:
            body = read(route.body, await self._json(request, route))
            accept = request.headers.get("accept", "")
            call = Call(self._context, actor, request.path_params, query, body, accept=accept)
            return _reply(await run_in_threadpool(route.answer, call), route)
        path = await self._file(request, form)
        try:
            call = Call(self._context, actor, request.path_params, query, {}, path, form=form)
            return _json(await run_in_threadpool(route.answer, call), route.status)
        finally:
            path.unlink(missing_ok=True)

    def _let_in(self, route: Route, request: Request) -> str:
        """Who asks; raises where they may not."""
        headers = request.headers
        return let_in(
            self._context,
            route.scope,
            str(request.path_params.get("endpoint", "")),
            host=headers.get("host", ""),
            authorization=headers.get("authorization", ""),
            key=headers.get("x-api-key"),
        )

    async def _json(self, request: Request, route: Route) -> Any:
        data = bytearray()
        async for piece in _pieces(request):
            data += piece
            if len(data) > self._context.limits.body_bytes:
                raise HttpError(413, f"A body may have {self._context.limits.body_bytes:,} bytes.")
        if not data and (
            request.method in ("GET", "HEAD", "DELETE") or not any(f.required for f in route.body.values())
        ):
            if request.method == "POST":
                need_type(request.headers.get("content-type", ""), JSON)
            return {}
        # Pages from elsewhere can send forms and text without being asked, but not this type.
        need_type(request.headers.get("content-type", ""), JSON)
        try:
            found = json.loads(bytes(data), parse_constant=_no_constant)
            if b"\\u" in data:  # half a character in an escape is JSON to Python, and text to nobody
                json.dumps(found, ensure_ascii=False).encode()
            return found
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"The body is not JSON ({error}).") from error

    async def _file(self, request: Request, form: str) -> Path:
        limits, size = self._context.limits, 0
        noun, most = ("bundle", limits.bundle_bytes) if form == TAR else ("table", limits.table_bytes)
        handle, name = tempfile.mkstemp(prefix=".incoming-", dir=self._context.workspace.path)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                async for piece in _pieces(request):
                    size += len(piece)
                    if size > most:
                        raise HttpError(413, f"A {noun} may have {most:,} bytes.")
                    await run_in_threadpool(file.write, piece)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise HttpError(507, f"The {noun} can't be stored: {error.strerror}.") from error
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return path


async def _pieces(request: Request) -> Any:
    try:
        async for piece in request.stream():
            yield piece
    except ClientDisconnect as error:
        raise HttpError(400, "The request ended too early.") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _reply(value: Any, route: Route) -> Response:
    if isinstance(value, Content):
        value = Response(value.data, route.status, media_type=value.type)
    if not isinstance(value, Response):
        return _json(value, route.status)
    value.headers.update(_NO_STORE)
    return value


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "backslashreplace")
    return Response(content, status, {**_NO_STORE, **(headers or {})}, JSON)


def _refused(error: TidemillError) -> Response:
    status = status_of(error)
    headers: dict[str, str] = {}
    wait = getattr(error, "retry_after_s", None)
    if wait is not None:
        headers["retry-after"] = str(max(1, round(wait)))
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return _json(body_of(error), status, headers)


async def _of_starlette(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return _json({"error": f"There is nothing at {request.url.path[:200]!r}.", "hint": None, "where": None}, status)


async def _unexpected(request: Request, error: Exception) -> Response:
    return _broken(f"{request.method} {request.url.path}", error)


def _broken(asked: str, error: Exception) -> Response:
    _log.error("%s", asked, exc_info=error)
    words = "This is a bug in Tidemill; its log says more."
    return _json({"error": words, "hint": "Please report it.", "where": None}, 500)
