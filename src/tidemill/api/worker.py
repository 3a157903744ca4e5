"""The program that runs what the API has queued: ``python -m tidemill.api.worker``. `tidemill up` starts some.

It works as ``tidemill worker`` does, at low priority, so that answers come first. It ends with the platform; a job that
runs then goes on, and the next worker of the machine takes it over.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import psutil

from tidemill.core.budget import available_cpus
from tidemill.core.errors import TidemillError

NICE = 10
"""How much lower its priority is than that of the fronts; jobs inherit it."""
MEMORY_SHARE = 0.5
"""Share of the machine's memory for the jobs of all workers together; models that are served want the rest."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run jobs until SIGTERM; gives the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s worker %(message)s")
    options = _parser().parse_args(arguments)
    os.nice(NICE)
    from tidemill.jobs.queue.machine import find_devices
    from tidemill.sdk.jobs import work

    log = logging.getLogger(__name__)

    def hear(what: str, job: dict[str, Any] | None, words: str) -> None:
        log.info("%s%s%s", what, "" if job is None else f" job {job['job']} ({job['name']})", words and f": {words}")

    # Whether a program is ready is said in one line of JSON.
    sys.stdout.write(json.dumps({"url": ""}) + "\n")
    sys.stdout.flush()
    try:
        work(
            cpus=max(1, available_cpus() // options.of),
            memory=int(psutil.virtual_memory().total * MEMORY_SHARE / options.of),
            devices=[device.name for device in find_devices()][options.number - 1 :: options.of],
            workspace=options.workspace,
            tell=hear,
        )
    except TidemillError as error:
        log.error("%s", error)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tidemill-worker", description=__doc__)
    parser.add_argument("--workspace", required=True)
    parser.add_argument("--number", type=int, default=1, help="which of them this is, from 1")
    parser.add_argument("--of", type=int, default=1, help="how many share the machine")
    return parser


if __name__ == "__main__":
    sys.exit(main())
