"""A front that answers over HTTP and over gRPC, from the same models."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tidemill.core.errors import MissingExtraError
from tidemill.deploy.engine.server import Server

if TYPE_CHECKING:
    from tidemill.deploy.grpc.door import Door

_LAST_ANSWERS_S = 1.0
"""How long calls that were answered have to be written."""


def server_class(grpc_port: int | None) -> Callable[..., Server]:
    """What makes a front: with gRPC where there is a port for it.

    Raises
    ------
    MissingExtraError
        Where gRPC is wanted, and its package is absent.

    Examples
    --------
    >>> server_class(None) is Server
    True
    """
    if grpc_port is None or grpc_port < 0:
        return Server
    try:
        import grpc  # noqa: F401  absent packages are told before anything is started
    except ImportError as error:
        raise MissingExtraError.of("grpcio", "to answer over gRPC", extra="grpc") from error
    return partial(GrpcServer, grpc_port=grpc_port)


class GrpcServer(Server):
    """One serving process with two doors.

    Parameters
    ----------
    source, observer, authorise, limits
        As for `Server`.
    grpc_port : int
        Where to listen for gRPC; 0 takes a free one, see `grpc_address`.
    host, share_port, certificate, key
        As for `Server`; they hold for both doors.
    **options
        Further options of `Server`.
    """

    def __init__(
        self,
        *given: Any,
        grpc_port: int = 0,
        host: str = "127.0.0.1",
        share_port: bool = False,
        certificate: str | None = None,
        key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*given, host=host, share_port=share_port, certificate=certificate, key=key, **options)
        self._grpc_port = grpc_port
        self._both: dict[str, Any] = {"host": host, "share_port": share_port, "certificate": certificate, "key": key}
        self._door: Door | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def grpc_address(self) -> str:
        """Where it answers over gRPC, ``host:port``; there once it is started."""
        assert self._door is not None
        return self._door.address

    async def start(self) -> None:
        """Listen on both ports, and begin to load models."""
        from tidemill.deploy.grpc.door import Door

        await super().start()
        assert self._app is not None
        assert self._hub is not None
        try:
            self._door = Door(self._app, self.limits, self._hub, port=self._grpc_port, **self._both)
            await self._door.start()
        except BaseException:
            await super().close()
            raise

    async def drain(self) -> None:
        """Take nothing new, answer what is under way, let all workers go."""
        if self._door is not None:
            self._ending = asyncio.get_running_loop().create_task(self._door.stop(self.limits.drain_s))
        await super().drain()

    async def close(self) -> None:
        """End now; what is under way is refused."""
        if self._ending is not None:
            await asyncio.wait({self._ending}, timeout=_LAST_ANSWERS_S)
        if self._door is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._door.stop(None)
        await super().close()
