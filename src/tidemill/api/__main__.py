"""The program of the API: ``python -m tidemill.api``. `tidemill up` starts it."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from tidemill.api.app import make_app
from tidemill.api.context import Context
from tidemill.core.errors import TidemillError
from tidemill.deploy.keyring import KeyRing
from tidemill.store.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Answer until SIGTERM; gives the exit code."""
    import uvicorn

    from tidemill.api.quick_http import quick_protocol

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s api %(message)s")
    options = _parser().parse_args(arguments)
    try:
        with ExitStack() as held:
            workspace = held.enter_context(Workspace.open(options.workspace))
            ring = None
            if options.keys:
                ring = KeyRing(workspace.records).start()
                held.callback(ring.close)
            listening = held.enter_context(_listen(options.host, options.port))
            app = make_app(Context(workspace, ring))
            config = uvicorn.Config(
                app, http=quick_protocol(app.quick), log_config=None, access_log=False, server_header=False,
                ssl_certfile=options.certificate, ssl_keyfile=options.key, timeout_keep_alive=75,
                limit_concurrency=500, timeout_graceful_shutdown=20, proxy_headers=False,
            )  # fmt: skip
            scheme, port = "https" if options.certificate else "http", listening.getsockname()[1]
            host = f"[{options.host}]" if ":" in options.host else options.host
            sys.stdout.write(json.dumps({"url": f"{scheme}://{host}:{port}"}) + "\n")
            sys.stdout.flush()
            # What is there now stays: the collector needn't walk over it while somebody waits for an answer.
            gc.collect()
            gc.freeze()
            uvicorn.Server(config).run(sockets=[listening])
    except TidemillError as error:
        logging.getLogger(__name__).error("%s", error)
        return error.exit_code
    return 0


def _listen(host: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    one.bind((host, port))
    one.listen(256)
    return one


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidemill-api", description=__doc__)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--keys", action="store_true", help="demand API keys")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
