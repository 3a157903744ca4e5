"""The gRPC server of a front: on the front's event loop, and in front of the same application as HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc

from tidemill.core.errors import OptionError
from tidemill.deploy.asking import HEADERS, Reply, ask
from tidemill.deploy.engine.app import App
from tidemill.deploy.engine.http import Hub
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.refusal import Refusal, bad_request
from tidemill.deploy.grpc import calls, protocol
from tidemill.deploy.grpc.coming import WINDOW_BYTES, Coming, Full, too_much

_MOST_DEADLINE_MS = 600_000.0
_ENVELOPE_BYTES = 1 << 20
"""What a message may have beside its tensors: names, shapes, parameters."""
_STREAMS = 1024
"""Calls of one connection at a time; a client keeps further ones back."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    405: grpc.StatusCode.UNIMPLEMENTED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class _Refused(Refusal):
    """What the application refused."""

    def __init__(self, reply: Reply) -> None:
        told = reply.document()
        super().__init__(reply.status, told["code"], told["error"], retry_after_s=told.get("retry_after_s"))
        self.headers = reply.headers


class Door:
    """Answers calls of ``inference.GRPCInferenceService``.

    Made and used on the front's event loop.

    Parameters
    ----------
    app : App
        What answers.
    limits : Limits
        Size of a message and of metadata, calls at a time, idle time.
    hub : Hub
        Of the HTTP door: bodies under way are counted there, whichever door they came through.
    host, port : str, int
        Where to listen; port 0 takes a free one.
    share_port : bool
        Several fronts may listen on the same port.
    certificate, key : str, optional
        PEM files for TLS.
    """

    def __init__(
        self,
        app: App,
        limits: Limits,
        hub: Hub,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        share_port: bool = False,
        certificate: str | None = None,
        key: str | None = None,
    ) -> None:
        self._app = app
        self._hub = hub
        self._coming = Coming(hub, _refuse)
        self._host = f"[{host}]" if ":" in host and not host.startswith("[") else host or "0.0.0.0"
        self.port = port
        self._tls = None if certificate is None or key is None else _credentials(certificate, key)
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes + _ENVELOPE_BYTES),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", limits.header_bytes),
                ("grpc.max_connection_idle_ms", int(limits.idle_s * 1e3)),
                ("grpc.max_concurrent_streams", _STREAMS),
                ("grpc.http2.lookahead_bytes", WINDOW_BYTES),
                ("grpc.http2.bdp_probe", 0),  # it makes windows of 4 MiB, for messages that nobody reads, too
                ("grpc.so_reuseport", int(share_port)),
            ],
            maximum_concurrent_rpcs=limits.connections,
        )
        self._server.add_generic_rpc_handlers((self._handlers(),))

    async def start(self) -> None:
        """Listen.

        Raises
        ------
        OptionError
            Where that is not possible.
        """
        address = f"{self._host}:{self.port}"
        try:
            if self._tls is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, self._tls)
        except RuntimeError as error:
            raise OptionError(
                f"It is not possible to listen on {address} for gRPC.",
                hint="Choose another --grpc-port, or 0 for a free one.",
            ) from error
        await self._server.start()

    @property
    def address(self) -> str:
        """Where it answers, as clients of gRPC want it."""
        host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(self._host, self._host)
        return f"{host}:{self.port}"

    async def stop(self, grace_s: float | None) -> None:
        """Take no new calls, and wait so long for those under way; None ends them at once."""
        await self._server.stop(grace_s)

    # --------------------------------------------------------------------------------------------------------- calls

    def _handlers(self) -> Any:
        answers: dict[str, Callable[..., Any]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        methods = {
            # As streams, so that the handler comes before the message; on the wire it is the same. It is parsed in the
            # handler: bytes that are no message are the caller's mistake, and are told so.
            name: grpc.stream_unary_rpc_method_handler(
                self._handler(answers[name], protocol.messages()[request], protocol.messages()[response])
            )
            for name, (request, response) in protocol.calls().items()
        }
        return grpc.method_handlers_generic_handler(f"inference.{protocol.SERVICE}", methods)

    def _handler(self, answer: Callable[..., Any], request_type: Any, response_type: Any) -> Callable[..., Any]:
        hub, coming, most = self._hub, self._coming, self._hub.limits.body_bytes

        async def handle(_: Any, context: Any) -> bytes:
            size = 0
            try:
                data = await coming.read(context)
                size = min(len(data), most)  # its envelope is none of the body that may always come
                hub.held += size
                if hub.held > hub.most_held:
                    raise too_much(hub)
                response = await answer(_read(request_type, data), response_type(), context)
                return bytes(response.SerializeToString())
            except Refusal as why:
                refused = why
            finally:
                hub.held -= size
            await _refuse(context, refused)
            return b""

        return handle

    async def _ask(self, context: Any, method: bytes, path: bytes, body: bytes = b"", json_bytes: int = 0) -> Reply:
        """Ask the application as a request over HTTP would."""
        return await ask(self._app, method, path, _headers(context, json_bytes), body, self._hub)

    async def _answered(self, context: Any, *request: Any) -> Reply:
        """Ask, and raise what is refused."""
        reply = await self._ask(context, *request)
        if reply.status != 200:
            raise _Refused(reply)
        return reply

    async def _server_live(self, _: Any, response: Any, context: Any) -> Any:
        response.live = (await self._ask(context, b"GET", b"/v2/health/live")).status == 200
        return response

    async def _server_ready(self, _: Any, response: Any, context: Any) -> Any:
        response.ready = (await self._ask(context, b"GET", b"/v2/health/ready")).status == 200
        return response

    async def _model_ready(self, request: Any, response: Any, context: Any) -> Any:
        path = calls.path_of(request.name, request.version, "ready")
        reply = await self._ask(context, b"GET", path)
        if reply.status not in (200, 503):
            raise _Refused(reply)
        response.ready = reply.status == 200
        return response

    async def _server_metadata(self, _: Any, response: Any, context: Any) -> Any:
        told = (await self._answered(context, b"GET", b"/v2")).document()
        response.name, response.version = told["name"], told["version"]
        response.extensions.extend(told["extensions"])
        return response

    async def _model_metadata(self, request: Any, response: Any, context: Any) -> Any:
        path = calls.path_of(request.name, request.version)
        return calls.fill_metadata(response, (await self._answered(context, b"GET", path)).document())

    async def _infer(self, request: Any, response: Any, context: Any) -> Any:
        path = calls.path_of(request.model_name, request.model_version, "infer")
        reply = await self._answered(context, b"POST", path, *calls.body_of(request))
        context.set_trailing_metadata(_metadata(reply.headers))
        return calls.fill(response, reply, raw=len(request.raw_input_contents) > 0)

    async def _index(self, request: Any, response: Any, context: Any) -> Any:
        reply = await self._answered(context, b"POST", b"/v2/repository/index")
        return calls.fill_index(response, reply.document(), ready=request.ready)

    async def _load(self, request: Any, response: Any, context: Any) -> Any:
        await self._answered(context, b"POST", calls.repository_path(request, "load"))
        return response

    async def _unload(self, request: Any, response: Any, context: Any) -> Any:
        await self._answered(context, b"POST", calls.repository_path(request, "unload"))
        return response


def _read(kind: Any, data: bytes) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no types

    try:
        return kind.FromString(data)
    except DecodeError:
        raise bad_request(f"This is no {kind.DESCRIPTOR.name}.") from None


def _headers(context: Any, json_bytes: int) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}
    for name, value in context.invocation_metadata() or ():
        if name in HEADERS and isinstance(value, str):
            headers[name.encode("ascii")] = value.encode("latin-1", "replace")
    left = context.time_remaining()
    if left is not None:
        headers[b"x-deadline-ms"] = b"%.3f" % min(max(left * 1e3, 0.001), _MOST_DEADLINE_MS)
    if json_bytes:
        headers[b"inference-header-content-length"] = b"%d" % json_bytes
    return headers


async def _refuse(context: Any, why: Refusal) -> None:
    """End a call; one that has ended already is left alone."""
    with contextlib.suppress(grpc.aio.InternalError):
        await context.abort(_status(why), _told(why), _about(why))


def _status(why: Refusal) -> grpc.StatusCode:
    if isinstance(why, Full):
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return _CODES.get(why.status, grpc.StatusCode.INTERNAL)


def _about(why: Refusal) -> tuple[tuple[str, str], ...]:
    """Trailing metadata of a refusal: the code for programs, the time to wait, the request's name."""
    metadata = [("x-code", why.code), *_metadata(why.headers if isinstance(why, _Refused) else {})]
    if why.retry_after_s is not None:
        metadata.append(("grpc-retry-pushback-ms", f"{why.retry_after_s * 1e3:.0f}"))  # clients of gRPC know this one
    return tuple(metadata)


def _metadata(headers: Mapping[bytes, bytes]) -> tuple[tuple[str, str], ...]:
    kept = (b"x-request-id", b"x-revision")
    return tuple((name.decode("ascii"), headers[name].decode("ascii")) for name in kept if name in headers)


def _told(why: Refusal) -> str:
    return why.message if not why.hint else f"{why.message} {why.hint}"


def _credentials(certificate: str, key: str) -> Any:
    try:
        pair = Path(key).read_bytes(), Path(certificate).read_bytes()
    except OSError as error:
        raise OptionError(f"The certificate can't be used ({error.strerror or error}).", where=certificate) from error
    return grpc.ssl_server_credentials([pair])
