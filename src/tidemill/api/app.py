"""The application: takes a request through all checks to the function that answers it.

It runs in a process of its own, away from the fronts: a leak or a bug here can't hurt what serves.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as HttpRoute

from tidemill.api import data, endpoints, features, keys
from tidemill.api.context import Context
from tidemill.api.errors import HttpError, body_of, status_of
from tidemill.api.openapi import document
from tidemill.api.route import Call, Route
from tidemill.api.shapes import read, read_text
from tidemill.core.errors import TidemillError

LOCAL = "local"
"""Who asks where no keys are demanded."""

_HERE = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.ASCII | re.IGNORECASE)
_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
_log = logging.getLogger(__name__)


def make_app(context: Context, more: Iterable[Route] = ()) -> Starlette:
    """Make the application.

    Parameters
    ----------
    context : Context
        What the routes work with. Without a ring it answers to nobody but programs on this machine.
    more : iterable of Route
        Routes of other rooms.

    Returns
    -------
    Starlette
        An ASGI application.
    """
    routes = [*features.ROUTES, *endpoints.ROUTES, *keys.ROUTES, *data.ROUTES, *more]  # the hottest first
    about = document(routes, secured=context.ring is not None)
    plain = [
        Route("GET", "/healthz", "", "Whether it answers.", lambda _: {"ok": True}),
        Route("GET", "/openapi.json", "", "This interface.", lambda _: about),
    ]
    by_path: dict[str, dict[str, Route]] = {}
    for route in [*routes, *plain]:
        by_path.setdefault(route.path, {})[route.method] = route
    served = [HttpRoute(p, _Door(context, methods), methods=None) for p, methods in by_path.items()]
    return Starlette(routes=served, exception_handlers={HTTPException: _of_starlette, Exception: _unexpected})


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
        query = read_text(route.query, _once(request))
        if not route.takes_file:
            body = read(route.body, await self._json(request, route))
            accept = request.headers.get("accept", "")
            call = Call(self._context, actor, request.path_params, query, body, accept=accept)
            return _reply(route.answer(call) if route.quick else await run_in_threadpool(route.answer, call), route)
        path = await self._file(request)
        try:
            call = Call(self._context, actor, request.path_params, query, {}, path)
            return _json(await run_in_threadpool(route.answer, call), route.status)
        finally:
            path.unlink(missing_ok=True)

    def _let_in(self, route: Route, request: Request) -> str:
        """Who asks; raises where they may not."""
        if self._context.ring is None:
            # A page from elsewhere, open in a browser on this machine, may send requests here under its own name.
            if not _HERE.fullmatch(request.headers.get("host", "")):
                raise HttpError(403, "Without keys only this machine may ask.", hint="Use the address 127.0.0.1.")
            return LOCAL
        if not route.scope:
            return ""
        endpoint = str(request.path_params.get("endpoint", ""))
        return f"key:{self._context.ring.identify(_token(request), route.scope, endpoint).id}"

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
                _need_type(request, "application/json")
            return {}
        # Pages from elsewhere can send forms and text without being asked, but not this type.
        _need_type(request, "application/json")
        try:
            return json.loads(bytes(data), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise HttpError(400, f"The body is not JSON ({error}).") from error

    async def _file(self, request: Request) -> Path:
        _need_type(request, "application/x-tar")
        most, size = self._context.limits.bundle_bytes, 0
        handle, name = tempfile.mkstemp(prefix=".incoming-", suffix=".tar", dir=self._context.workspace.path)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                async for piece in _pieces(request):
                    size += len(piece)
                    if size > most:
                        raise HttpError(413, f"A bundle may have {most:,} bytes.")
                    await run_in_threadpool(file.write, piece)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise HttpError(507, f"The bundle can't be stored: {error.strerror}.") from error
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


def _once(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise HttpError(400, f"The parameter {name!r} is given twice.")
        found[name] = value
    return found


def _need_type(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise HttpError(415, f"The body must be of the type {wanted}.", hint=f"Send Content-Type: {wanted}.")


def _token(request: Request) -> str | None:
    given = request.headers.get("authorization", "")
    return given[7:].strip() if given[:7].lower() == "bearer " else request.headers.get("x-api-key")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _reply(value: Any, route: Route) -> Response:
    if not isinstance(value, Response):
        return _json(value, route.status)
    value.headers.update(_NO_STORE)
    return value


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    content = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str).encode("utf-8", "backslashreplace")
    return Response(content, status, {**_NO_STORE, **(headers or {})}, "application/json")


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
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    words = "This is a bug in Tidemill; its log says more."
    return _json({"error": words, "hint": "Please report it.", "where": None}, 500)
