"""`tidemill serve --engine ray`: a deployment on a cluster of Ray, or on a Ray of this machine."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tidemill.core.errors import MissingExtraError, OptionError
from tidemill.deploy.ray.parcel import Parcel, pack
from tidemill.deploy.types import Endpoint

APPLICATION = "tidemill"
_ONGOING = 256
"""Requests that one replica works on; further ones wait at Ray's proxies."""
_QUEUED = 4096
"""Requests that wait at one proxy; Ray refuses further ones with 503."""


class RayServer:
    """A deployment that runs.

    Parameters
    ----------
    url : str
        Where its proxies answer.
    names : list of str
        Of the models.
    files : optional
        What keeps the models' files in Ray's object store, for replicas that start later.
    """

    def __init__(self, url: str, names: list[str], files: Any = None) -> None:
        self.url = url
        self.names = names
        self._files = files


def deploy(
    models: Mapping[str, str | Path],
    settings: Endpoint,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    replicas: int = 1,
    cpus: float = 1.0,
) -> RayServer:
    """Put bundles on the Ray that this process is connected to; connects to one, or starts one, where it is not.

    Parameters
    ----------
    models : mapping of str to path
        Bundles, or ONNX files, by name; every replica holds all of them.
    settings : Endpoint
        Deadline and determinism.
    host, port : str, int
        Where Ray's proxies listen; port 0 takes a free one.
    replicas : int
        How many; Ray spreads them over the nodes that have room.
    cpus : float
        Cores that each is given.

    Returns
    -------
    RayServer
        To be kept as long as replicas may start: they fetch the models' files from this process.

    Raises
    ------
    MissingExtraError
        Where the package is absent.
    OptionError
        Where the deployment does not start.
    """
    port = port or _free_port(host)
    ray, serve = _packages()
    parcels = {name: pack(Path(path)) for name, path in models.items()}
    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False)  # RAY_ADDRESS names a cluster
    serve.start(http_options={"host": host, "port": port})
    # The files lie in Ray's object store once, however many replicas fetch them.
    files = ray.put(parcels)
    application = _deployment(serve, replicas, cpus).bind(files, settings.to_json())
    try:
        serve.run(application, name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise OptionError(f"Ray could not start the deployment ({str(error).splitlines()[0]}).") from error
    return RayServer(f"http://{host}:{port}", list(models), files)


def withdraw() -> None:
    """Take the deployment away again; a cluster stays as it is."""
    _, serve = _packages()
    serve.delete(APPLICATION)


def run(
    models: Mapping[str, str | Path], settings: Endpoint, on_start: Callable[[Any], None] | None = None, **options: Any
) -> None:
    """Deploy, and wait until the process is told to end (SIGTERM, Ctrl-C); then take it away again."""
    ended = threading.Event()
    server = deploy(models, settings, **options)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ended.set())
        if on_start is not None:
            on_start(server)
        ended.wait()
    finally:
        ray, _ = _packages()
        with contextlib.suppress(Exception):
            withdraw()
        ray.shutdown()


def _deployment(serve: ModuleType, replicas: int, cpus: float) -> Any:
    @serve.deployment(
        name="Tidemill", num_replicas=replicas, max_ongoing_requests=_ONGOING, max_queued_requests=_QUEUED,
        ray_actor_options={"num_cpus": cpus}, health_check_period_s=2, graceful_shutdown_timeout_s=30,
    )  # fmt: skip
    class Tidemill:
        """One replica; Ray sends this class to its nodes, so it names what it needs inside."""

        async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
            self, parcels: Awaitable[dict[str, Parcel]], settings: dict[str, Any]
        ) -> None:
            from tidemill.deploy.ray.replica import Replica
            from tidemill.deploy.types import Endpoint as Wanted

            self.replica = Replica(await parcels, Wanted.from_json(settings), slots=max(1, int(cpus)))
            await self.replica.start()

        async def __call__(self, request: Any) -> Any:
            from tidemill.deploy.ray.replica import as_response

            scope = request.scope
            target = scope.get("raw_path") or scope["path"].encode()
            reply = await self.replica.answer(scope["method"], target, scope["headers"], await request.body())
            return as_response(reply)

        async def check_health(self) -> None:
            if not self.replica.ready:
                raise RuntimeError("A model is not ready.")

    return Tidemill


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])


def _packages() -> tuple[ModuleType, ModuleType]:
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise MissingExtraError.of("ray[serve]", "to serve on Ray", extra="ray") from error
    return ray, serve
