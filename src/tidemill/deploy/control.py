"""The program that takes canaries from step to step: ``python -m tidemill.deploy.control``. `tidemill up` starts it.

It also sees to it that what fronts have written becomes Parquet; see `tidemill.deploy.watch.folding`.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
import threading
from collections.abc import Sequence

from tidemill.core.errors import TidemillError
from tidemill.deploy.controller import Controller
from tidemill.deploy.watch.folding import keep_folding
from tidemill.store.workspace import Workspace


def main(arguments: Sequence[str] | None = None) -> int:
    """Look at the gates until SIGTERM; gives the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s control %(message)s")
    parser = argparse.ArgumentParser(prog="tidemill-control", description=__doc__)
    parser.add_argument("--workspace", required=True)
    options = parser.parse_args(arguments)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log = logging.getLogger(__name__)
    try:
        with Workspace.open(options.workspace) as workspace:
            sys.stdout.write(json.dumps({"url": ""}) + "\n")
            sys.stdout.flush()
            folding = threading.Thread(target=keep_folding, args=(workspace.path, stop), name="folding")
            folding.start()
            try:
                Controller(workspace).run(stop, tell=lambda line: log.info("%s", line))
            finally:
                stop.set()
                folding.join()
    except TidemillError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
