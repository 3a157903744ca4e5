"""The program of a front: ``python -m tidemill.deploy.front``. `tidemill up` starts one or several of them.

It serves the endpoints of a workspace, follows their records, and says on standard output in one line of JSON where it
listens. It needs no other process of the platform to go on.
"""

from __future__ import annotations

import argparse
import json
import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from tidemill.core.errors import TidemillError
from tidemill.deploy.engine.launching import end, launch

if TYPE_CHECKING:
    from tidemill.deploy.engine.server import Server


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM, then answer what is under way; gives the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s front %(message)s")
    options = _parser().parse_args(arguments)
    ahead = launch()  # it loads onnxruntime while we load all the rest
    try:
        with ExitStack() as held:
            held.callback(end, ahead)
            from tidemill.deploy.engine.limits import Limits
            from tidemill.deploy.engine.server import run
            from tidemill.deploy.engine.sources import WorkspaceSource
            from tidemill.deploy.grpc.server import server_class
            from tidemill.deploy.otel.observer import telemetry
            from tidemill.deploy.watch.observer import Watch
            from tidemill.store.workspace import Workspace

            workspace = held.enter_context(Workspace.open(options.workspace))
            watch = Watch(workspace)
            held.callback(watch.close)
            ring = None
            if options.keys:
                from tidemill.deploy.keyring import KeyRing

                ring = KeyRing(workspace.records, fronts=options.fronts).start()
                held.callback(ring.close)
            source = WorkspaceSource(workspace, options.provider)
            held.callback(source.close)
            make = server_class(None if options.grpc_port < 0 else options.grpc_port)
            server = make(
                source,
                held.enter_context(telemetry(watch)),
                None if ring is None else ring.authorise,
                replace(
                    Limits(),
                    memory_bytes=options.memory // options.fronts,
                    bodies_bytes=options.bodies or Limits.bodies_bytes,
                ),
                host=options.host,
                port=options.port,
                sockets=None if options.fd < 0 else [socket.socket(fileno=options.fd)],
                share_port=True,
                certificate=options.certificate,
                key=options.key,
                provider=options.provider,
                ahead=ahead,
            )
            run(server, _say)
    except TidemillError as error:
        logging.getLogger(__name__).error("%s", error)
        return error.exit_code
    return 0


def _say(server: Server) -> None:
    sys.stdout.write(json.dumps({"url": server.url}) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidemill-front", description=__doc__)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--grpc-port", type=int, default=-1, help="port for gRPC")
    parser.add_argument("--fd", type=int, default=-1, help="a listening socket that was handed over")
    parser.add_argument("--fronts", type=int, default=1, help="how many share the port")
    parser.add_argument("--keys", action="store_true", help="demand API keys")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--memory", type=int, default=0, help="bytes for the models of all fronts")
    parser.add_argument("--bodies", type=int, default=0, help="bytes for bodies of requests under way, in each front")
    return parser


if __name__ == "__main__":
    sys.exit(main())
