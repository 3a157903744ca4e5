"""Periods of five minutes on disk, one file for each process and day, so that a report adds up all fronts exactly."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path

import orjson

from tidemill.core.errors import DataError
from tidemill.deploy.watch import segments
from tidemill.deploy.watch.periods import Period
from tidemill.deploy.watch.segments import Segment

DAY_S = 86_400
KEPT_DAYS = 30.0


class History:
    """Writes what one process counted.

    Parameters
    ----------
    folder : Path
        Of the endpoint's drift.
    front : str
        Name of this process.
    """

    def __init__(self, folder: Path, front: str) -> None:
        self._folder = folder
        self._front = front

    def append(self, revision: str, period: Period) -> None:
        """Keep a period; on disk when this returns.

        Raises
        ------
        WorkspaceError
            If the disk refuses.
        """
        segment = Segment(self._folder / f"{int(period.start // DAY_S):06d}-{self._front}.seg")
        try:
            segment.append([orjson.dumps({"revision": revision, **period.to_json()})])
        finally:
            segment.close()


def read_periods(folder: Path, *, since: float = 0.0) -> dict[str, list[Period]]:
    """Periods of five minutes of all processes that ended after a time, by revision, oldest first."""
    out: dict[str, list[Period]] = defaultdict(list)
    for path in segments.segments_of(folder) if folder.is_dir() else ():
        if (_day(path) + 1) * DAY_S < since:
            continue
        for record in segments.read(path):
            with contextlib.suppress(DataError, KeyError, ValueError):  # of another version
                data = orjson.loads(record)
                period = Period.from_json(data)
                if period.start + period.span_s > since:
                    out[str(data["revision"])].append(period)
    return {revision: sorted(periods, key=lambda p: p.number) for revision, periods in out.items()}


def prune(folder: Path, now: float) -> int:
    """Remove days that are older than `KEPT_DAYS`; gives how many files."""
    old = [p for p in (segments.segments_of(folder) if folder.is_dir() else ()) if _day(p) < now / DAY_S - KEPT_DAYS]
    for path in old:
        path.unlink(missing_ok=True)
    return len(old)


def _day(path: Path) -> int:
    first = path.name.partition("-")[0]
    return int(first) if first.isdigit() else 0
