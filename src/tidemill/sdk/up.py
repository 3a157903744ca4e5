"""The platform on one machine: fronts, API, controller and workers, kept running until they are told to end."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.core.errors import OptionError, TidemillError
from tidemill.deploy.handover import handed_over
from tidemill.deploy.presence import BEAT_S, beat, end
from tidemill.deploy.supervisor import Program, Supervisor, find_orphans
from tidemill.store.workspace import Workspace

Tell = Callable[[str, str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class UpOptions:
    """Where and how the platform runs.

    Parameters
    ----------
    host : str
        Address to listen on; any other than loopback demands keys.
    port, api_port : int
        Of the endpoints, and of the API; 0 takes a free one.
    fronts : int
        Serving processes that share the port.
    keys : bool or None
        Demand API keys; default only where ``host`` is not loopback.
    certificate, key : str, optional
        PEM files for TLS.
    provider : str
        ``"cpu"`` or ``"cuda"``.
    memory_bytes : int
        For all models; 0 means four fifths of the machine.
    grpc_port : int, optional
        Answer over gRPC, too (extra ``grpc``); 0 takes a free port.
    bodies_bytes : int
        What the bodies of all requests under way may hold in each front; 0 means 256 MiB.
    workers : int
        Processes that run the queue's jobs, at low priority and with half of the memory for all of them together; 0
        leaves the queue to others.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_port: int = 8081
    fronts: int = 1
    keys: bool | None = None
    certificate: str | None = None
    key: str | None = None
    provider: str = "cpu"
    memory_bytes: int = 0
    grpc_port: int | None = None
    bodies_bytes: int = 0
    workers: int = 1


def up(workspace: str | Path | None, options: UpOptions, tell: Tell, stop: threading.Event | None = None) -> None:
    """Run the platform until SIGTERM, SIGINT, or ``stop``; then requests under way are answered and all ends.

    Parameters
    ----------
    workspace : path, optional
        Whose endpoints.
    options : UpOptions
        Where and how.
    tell : callable
        Gets ``(program, what, facts)`` for people.
    stop : threading.Event, optional
        Ends it, where there are no signals.

    Raises
    ------
    OptionError
        For options that can't be used: keys switched off where others can reach it, a port that is taken.
    MissingExtraError
        Where gRPC is wanted and its package is absent.
    WorkspaceError
        Where a platform runs on the workspace already.
    """
    if options.grpc_port is not None:
        from tidemill.deploy.grpc.server import server_class

        server_class(options.grpc_port)  # an absent package is told here, not by a front that ends again and again
    keys = _keys(options)
    ended = stop or threading.Event()
    with Workspace.open(workspace) as opened, contextlib.ExitStack() as held:
        file = opened.path / "up.json"
        shared = bool(find_orphans(file))  # their successors listen beside them until they have ended
        port, fd = _place(options, held, shared)
        api_port = _free_port(options.host, options.api_port, held, shared)
        grpc_port = None if options.grpc_port is None else _free_port(options.host, options.grpc_port, held, shared)
        common = ["--workspace", str(opened.path), "--host", options.host, *(["--keys"] if keys else [])]
        if options.certificate:
            common += ["--certificate", options.certificate, "--key", options.key or options.certificate]
        front = [
            *_module("tidemill.deploy.front"), *common, "--port", str(port), "--fd", str(fd), "--fronts",
            str(options.fronts), "--provider", options.provider, "--memory", str(options.memory_bytes),
            "--bodies", str(options.bodies_bytes),
            *([] if grpc_port is None else ["--grpc-port", str(grpc_port)]),
        ]  # fmt: skip
        programs = [
            Program(f"front-{n}", tuple(front), fds=() if fd < 0 else (fd,)) for n in range(1, options.fronts + 1)
        ]
        programs.append(Program("api", (*_module("tidemill.api"), *common, "--port", str(api_port)), alone=True))
        programs.append(
            Program("control", (*_module("tidemill.deploy.control"), "--workspace", str(opened.path)), alone=True)
        )
        worker = (*_module("tidemill.api.worker"), "--workspace", str(opened.path), "--of", str(options.workers))
        programs += [
            Program(f"worker-{n}", (*worker, "--number", str(n)), alone=True) for n in range(1, options.workers + 1)
        ]
        supervisor = Supervisor(
            programs, file, tell if grpc_port is None else _tell_grpc(tell, options.host, grpc_port)
        )
        held.callback(_say_goodbye, opened)
        if stop is None:
            _listen_to_signals(ended)
        facts: dict[str, Any] = {"pid": os.getpid(), "port": port, "api_port": api_port, "keys": keys}
        if grpc_port is not None:
            facts["grpc_port"] = grpc_port
        supervisor.run(ended, beat=_beats(opened, facts, supervisor))


def _tell_grpc(tell: Tell, host: str, port: int) -> Tell:
    """Tell with each front that is ready where it answers over gRPC, too."""

    def told(name: str, what: str, facts: Mapping[str, Any]) -> None:
        ready = what == "ready" and name.startswith("front-")
        tell(name, what, {**facts, "grpc": f"{host}:{port}"} if ready else facts)

    return told


def is_loopback(host: str) -> bool:
    """True where only this machine can reach the address.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _keys(options: UpOptions) -> bool:
    loopback = is_loopback(options.host)
    if options.keys is False and not loopback:
        raise OptionError(
            f"Without keys everybody who reaches {options.host} could change and use the models.",
            where="--no-keys",
            hint="Leave it out, or listen on 127.0.0.1 behind a proxy that checks who asks.",
        )
    if not 1 <= options.fronts <= 64:
        raise OptionError(f"There may be 1 to 64 fronts, but got {options.fronts}.", where="--fronts")
    if not 0 <= options.workers <= 64:
        raise OptionError(f"There may be 0 to 64 workers, but got {options.workers}.", where="--workers")
    return options.keys if options.keys is not None else not loopback


def _place(options: UpOptions, held: contextlib.ExitStack, shared: bool) -> tuple[int, int]:
    """Port of the endpoints, and the socket that a service manager handed over, or -1."""
    given = handed_over()
    if given:
        with socket.socket(fileno=os.dup(given[0])) as one:
            return int(one.getsockname()[1]), given[0]
    return _free_port(options.host, options.port, held, shared), -1


def _free_port(host: str, port: int, held: contextlib.ExitStack, shared: bool) -> int:
    """Take a port, so that it is the same for all fronts; a bound socket that does not listen gets no connections."""
    try:
        if port and not shared:
            _bind(host, port, reuse=False).close()  # the ports of two platforms would be mixed up silently
        one = held.enter_context(_bind(host, port, reuse=True))
    except OSError as error:
        raise OptionError(
            f"It is not possible to listen on {host}:{port} ({error.strerror or error}).",
            hint="Choose another --port or --api-port, or 0 for a free one.",
        ) from error
    return int(one.getsockname()[1])


def _bind(host: str, port: int, *, reuse: bool) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        one.bind((host, port))
    except OSError:
        one.close()
        raise
    return one


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _listen_to_signals(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


def _beats(workspace: Workspace, facts: Mapping[str, Any], supervisor: Supervisor) -> Callable[[], None]:
    due = 0.0

    def tick() -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due and supervisor.ready:
            due = now + BEAT_S
            with contextlib.suppress(TidemillError):  # a database that is away for a moment: the next beat tells
                beat(workspace.records, facts)

    return tick


def _say_goodbye(workspace: Workspace) -> None:
    with contextlib.suppress(TidemillError):
        end(workspace.records)
