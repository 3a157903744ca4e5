"""A front: the socket, the endpoints behind it, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import ssl
from collections.abc import Callable
from typing import Any

from tidemill.core.errors import OptionError
from tidemill.deploy.engine.app import App, Authorise
from tidemill.deploy.engine.engine import Engine
from tidemill.deploy.engine.http import Hub
from tidemill.deploy.engine.limits import Limits
from tidemill.deploy.engine.served import Serving
from tidemill.deploy.engine.sources import Source
from tidemill.deploy.types import Observer

_BACKLOG = 2048
_LAST_CALLS_S = 0.1


class Server:
    """One serving process.

    Parameters
    ----------
    source : Source
        Which endpoints there should be.
    observer : Observer, optional
        Told of requests, batches and deaths; default nobody.
    authorise : callable, optional
        ``(key, scope, endpoint)``; raises where the key may not. Scopes: ``predict``, ``feedback``, ``deploy``,
        ``admin``. It may return something to await. Default: everybody may, which is for loopback alone.
    limits : Limits, optional
        Bounds.
    host, port : str, int
        Where to listen; port 0 takes a free one, see `port`.
    sockets : list of socket, optional
        Listening sockets in place of host and port, as a service manager hands them over.
    share_port : bool
        Several fronts may listen on the same port, and the system spreads connections over them.
    certificate, key : str, optional
        Files for TLS.
    provider : str
        ``"cpu"`` or ``"cuda"``.
    slots : int
        Batches that run side by side; 0 means one for each core.
    measure : bool
        Measure the batch curve of each model once more when it is loaded.
    ahead : optional
        A warm process that was launched before; see `tidemill.deploy.engine.launching.launch`.
    """

    def __init__(
        self,
        source: Source,
        observer: Observer | None = None,
        authorise: Authorise | None = None,
        limits: Limits | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 8080,
        sockets: list[socket.socket] | None = None,
        share_port: bool = False,
        certificate: str | None = None,
        key: str | None = None,
        provider: str = "cpu",
        slots: int = 0,
        measure: bool = True,
        ahead: Any = None,
    ) -> None:
        self.source = source
        self.observer = observer
        self.authorise = authorise
        self.limits = limits or Limits()
        self.host = host
        self.port = port
        self._given = sockets
        self._share_port = share_port
        self._tls = _tls(certificate, key)
        self._provider = provider
        self._slots = slots
        self._measure = measure
        self._ahead = ahead
        self._servers: list[asyncio.Server] = []
        self._doors: list[socket.socket] = []
        self._late: set[asyncio.Task[Any]] = set()
        self._engine: Engine | None = None
        self._serving: Serving | None = None
        self._hub: Hub | None = None
        self._app: App | None = None
        self._ended: asyncio.Event | None = None

    @property
    def url(self) -> str:
        """Where it answers."""
        host = "127.0.0.1" if self.host in ("", "0.0.0.0") else "[::1]" if self.host == "::" else self.host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def serving(self) -> Serving:
        """The endpoints; there once it is started."""
        assert self._serving is not None
        return self._serving

    @property
    def engine(self) -> Engine:
        """What runs the models; there once it is started."""
        assert self._engine is not None
        return self._engine

    async def start(self) -> None:
        """Listen, and begin to load models. Requests are held until their model is ready."""
        loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        sockets = self._given or [self._bind()]
        self._engine = Engine(self.limits, self.observer, slots=self._slots, ahead=self._ahead)
        self._engine.start()
        self._serving = Serving(self._engine, self.source, provider=self._provider, measure=self._measure)
        self._app = App(self._serving, self.authorise)
        self._hub = Hub(self._app, self.limits, traced=self._engine.traced)
        await self._serving.start()
        for one in sockets:
            server = await loop.create_server(self._hub, sock=one, ssl=self._tls, backlog=_BACKLOG)
            self._servers.append(server)
            self._doors.append(one)
        self.port = sockets[0].getsockname()[1] if sockets[0].family != socket.AF_UNIX else 0
        self._hub.sweep(loop)

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._share_port:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            one.bind((self.host, self.port))
        except OSError as error:
            one.close()
            raise OptionError(
                f"It is not possible to listen on {self.host}:{self.port} ({error.strerror or error}).",
                hint="Choose another --port, or 0 for a free one.",
            ) from error
        return one

    async def drain(self) -> None:
        """Take nothing new, answer what is under way, let all workers go."""
        assert self._hub is not None
        assert self._app is not None
        self._close_doors()
        self._hub.draining = True  # each connection is told to end with its next answer
        await asyncio.sleep(_LAST_CALLS_S)
        self._hub.drain()
        await self._app.settle(self.limits.drain_s)
        self._app.draining = True
        await self.close()

    def _close_doors(self) -> None:
        """Listen no more, before anybody is told to come again: they would come back to a door that is about to close.

        A connection that was made, and not yet accepted, is lost with the door; so all of them are accepted first.
        """
        assert self._hub is not None
        loop = asyncio.get_running_loop()
        for server, door in zip(self._servers, self._doors, strict=True):
            last: list[socket.socket] = []
            door.setblocking(False)
            with contextlib.suppress(OSError):  # nobody waits any longer
                while True:
                    last.append(door.accept()[0])
            server.close()
            for one in last:
                task = loop.create_task(loop.connect_accepted_socket(self._hub, one, ssl=self._tls))
                self._late.add(task)
                task.add_done_callback(self._late.discard)
        self._doors = []
        self._servers = []

    async def close(self) -> None:
        """End now; what is under way is refused."""
        for server in self._servers:
            server.close()
        if self._serving is not None:
            await self._serving.close()
        if self._engine is not None:
            await self._engine.close()
        await asyncio.sleep(0)
        if self._hub is not None:
            self._hub.close()
        if self._ended is not None:
            self._ended.set()

    async def run(self, on_start: Callable[[Server], None] | None = None) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second signal ends at once."""
        loop = asyncio.get_running_loop()
        await self.start()
        assert self._ended is not None
        asked = 0

        def end() -> None:
            nonlocal asked
            asked += 1
            loop.create_task(self.drain() if asked == 1 else self.close())  # noqa: RUF006  the event below waits for it

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, ValueError):
                loop.add_signal_handler(number, end)
        if on_start is not None:
            on_start(self)
        await self._ended.wait()


def run(server: Server, on_start: Callable[[Server], None] | None = None) -> None:
    """Run a server in a process of its own, on the quickest event loop that there is."""
    # What is loaded by now stays; what a request makes is freed without the collector, which need look rarely.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        import uvloop
    except ImportError:  # not made for Windows: asyncio's own loop does the same, slower
        asyncio.run(server.run(on_start))
        return
    uvloop.run(server.run(on_start))


def _tls(certificate: str | None, key: str | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise OptionError("TLS needs both a certificate and its key.", hint="Give --certificate and --key.")
    context: Any = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise OptionError(f"The certificate can't be used ({error}).", where=certificate) from error
    return context  # type: ignore[no-any-return]
