"""The way to a cluster of Ray, or to a Ray of this machine."""

from __future__ import annotations

import logging
import os
import socket
import warnings
from types import ModuleType, TracebackType
from typing import Any

from tidemill.core.errors import MissingExtraError, OptionError

OPTION = "--ray-address"
_REACH_S = 5.0


class Cluster:
    """A connection; this process has one at most. Made by `connect`.

    Parameters
    ----------
    ray : module
        The package, connected.
    owned : bool
        Whether closing ends the connection, and the Ray of this machine where one was started for it.
    """

    def __init__(self, ray: ModuleType, *, owned: bool) -> None:
        self.ray: Any = ray
        self._owned = owned

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def node(self) -> str:
        """Ray's name of the node that this process is on."""
        return str(self.ray.get_runtime_context().get_node_id())

    @property
    def cores(self) -> int:
        """Cores of the largest node."""
        return max((int(node.get("CPU", 0)) for node in self._nodes()), default=0)

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(int(node.get("GPU", 0)) for node in self._nodes())

    def room(self, threads: int, gpus: int = 0) -> int:
        """How many workers with so many cores and GPUs the nodes have room for, where nobody else uses them."""
        by_cores = (int(node.get("CPU", 0)) // threads for node in self._nodes())
        by_gpus = (int(node.get("GPU", 0)) // gpus if gpus else None for node in self._nodes())
        return sum(a if b is None else min(a, b) for a, b in zip(by_cores, by_gpus, strict=True))

    def _nodes(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self.ray.nodes() if node["Alive"]]

    def close(self) -> None:
        """Let go. Twice is allowed."""
        if self._owned and self.ray.is_initialized():
            self.ray.shutdown()


def connect(address: str | None = None, *, cores: int | None = None) -> Cluster:
    """Connect to a cluster. What this process is connected to already is used, and stays connected afterwards.

    Parameters
    ----------
    address : str, optional
        ``host:port`` of the cluster's head, or ``"auto"`` for the one that runs on this machine. Default: what
        ``RAY_ADDRESS`` names, else a Ray of this machine is started and ends with the connection.
    cores : int, optional
        Cores of a Ray that is started; default all.

    Returns
    -------
    Cluster
        To be closed.

    Raises
    ------
    MissingExtraError
        Where Ray is not installed.
    OptionError
        Where no cluster can be reached.

    Examples
    --------
    >>> with connect("head:6379") as cluster:  # doctest: +SKIP
    ...     cluster.room(threads=1)
    """
    ray = package()
    if ray.is_initialized():
        return Cluster(ray, owned=False)
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("local", "auto"):
        _reach(address)
    ours = {"num_cpus": cores, "include_dashboard": False} if address == "local" else {}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        with warnings.catch_warnings():  # of Ray about its own future
            warnings.simplefilter("ignore")
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **ours)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise OptionError(f"Ray can't be reached: {why}", where=OPTION, hint=_HINT) from error
    return Cluster(ray, owned=True)


_HINT = "Name the cluster's head as host:port, on a machine that is part of the cluster."


def package() -> ModuleType:
    """Load Ray.

    Raises
    ------
    MissingExtraError
        Where it is not installed.
    """
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise MissingExtraError.of("ray", "to run steps on a cluster", extra="ray") from error
    found: ModuleType = ray
    return found


def _reach(address: str) -> None:
    """Knock: Ray itself takes a minute to say that nobody answers, and then ends the process."""
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        raise OptionError(f"{address!r} is not of the form host:port.", where=OPTION, hint=_HINT)
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACH_S).close()
    except (OSError, OverflowError) as error:
        raise OptionError(
            f"No Ray answers at {address} ({getattr(error, 'strerror', None) or error}).", where=OPTION, hint=_HINT
        ) from error
