"""Turns segments that get no more records into Parquet: ``python -m tidemill.deploy.watch.folding``.

Arrow takes a hundred megabytes and half a second. Fronts do without it, and so does the control process, which starts
this program when there is something to fold. What is not folded is read all the same.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tidemill.core.errors import TidemillError
from tidemill.deploy.watch import capture, feedback, segments
from tidemill.deploy.watch.observer import is_dead
from tidemill.deploy.watch.sources import RecordSources
from tidemill.store.workspace import Workspace

EVERY_S = 15.0
"""How often somebody looks whether there is something to fold."""
_PRUNE_S = 3600.0
_MOST_S = 1800.0
_log = logging.getLogger(__name__)


def is_due(workspace: Path) -> bool:
    """True where a segment gets no more records; costs a look into some folders."""
    return next(_ended(workspace), None) is not None


def _ended(workspace: Path) -> Iterator[tuple[Path, Callable[[Path], Path | None]]]:
    """Segments that get no more records, each with what folds it."""
    for folder in sorted((workspace / "watch").glob("*")):
        for kind, room in (("feedback", feedback), ("captured", capture)):
            place = folder / kind
            over = set(segments.finished(place))
            for path in segments.segments_of(place) if place.is_dir() else ():
                if path in over or is_dead(room.writer_of(path)):
                    yield path, room.fold


def fold_ended(workspace: Path) -> int:
    """Fold what gets no more records; gives how many segments. One that can't be folded stays, and is told."""
    count = 0
    for path, fold in list(_ended(workspace)):
        try:
            fold(path)
            count += 1
        except (TidemillError, OSError, ValueError) as error:
            _log.warning("%s can't be folded: %s", path.name, error)
    return count


def prune(workspace: Workspace, now: float) -> int:
    """Remove folded feedback that is older than its endpoint keeps it; gives the number of files."""
    sources = RecordSources(workspace)
    sources.refresh()
    count = 0
    for folder in sorted((workspace.path / "watch").glob("*")):
        described = sources.endpoint(folder.name)
        if described is not None:
            count += feedback.prune(folder / "feedback", now - described.capture.days * 86_400)
    return count


def keep_folding(workspace: Path, stop: threading.Event, *, every_s: float = EVERY_S) -> None:
    """Start the program again and again when there is something to do, until told to stop.

    Parameters
    ----------
    workspace : Path
        Whose segments.
    stop : threading.Event
        Ends it, and the program.
    every_s : float
        Seconds between two looks.
    """
    prune_at = time.monotonic() + _PRUNE_S
    while not stop.wait(every_s):
        if time.monotonic() < prune_at and not is_due(workspace):
            continue
        prune_at = time.monotonic() + _PRUNE_S
        command = [sys.executable, "-m", __name__, "--workspace", str(workspace)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + _MOST_S
        while process.poll() is None and not stop.wait(0.2) and time.monotonic() < end:
            pass
        if process.poll() is None:  # killed in between, the next one ends its work
            process.kill()
            process.wait()


def main(arguments: Sequence[str] | None = None, clock: Callable[[], float] = time.time) -> int:
    """Fold and prune once; gives the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s folding %(message)s")
    parser = argparse.ArgumentParser(prog="tidemill-folding", description=__doc__)
    parser.add_argument("--workspace", required=True)
    options = parser.parse_args(arguments)
    try:
        with Workspace.open(options.workspace) as workspace:
            fold_ended(workspace.path)
            prune(workspace, clock())
    except TidemillError as error:
        _log.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
