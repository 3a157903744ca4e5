"""Changes that are never without their line in the audit log, and the log itself.

A change and the line about it are written in one transaction: the line waits in a record of kind ``audit_outbox`` until
it is in the journal. A process killed in between leaves it there, and whoever changes or reads next delivers it. A line
may so be delivered twice; `read_audit` shows it once.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import uuid4

from tidemill.core.errors import OptionError
from tidemill.core.protocols import Change, Entry, Journal, Record, RecordStore

AUDIT = "audit"
"""Stream of every change by a person or a program."""

_OUTBOX = "audit_outbox"
_PAGE = 1000


@dataclass(frozen=True)
class Line:
    """One line of the log: what was done, to what, with which facts.

    Parameters
    ----------
    kind : str
        For example ``"rollback"``.
    subject : str
        Name of what was changed.
    payload : mapping
        Plain JSON; never a secret.
    streams : tuple of str
        Where it is written.
    actor : str
        Who did it.
    """

    kind: str
    subject: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    streams: tuple[str, ...] = (AUDIT,)
    actor: str = ""


class Audit:
    """Writes records and the lines about them.

    Parameters
    ----------
    records, journal : RecordStore, Journal
        Of the workspace.
    clock : callable
        Gives the time in seconds since 1970.
    """

    def __init__(self, records: RecordStore, journal: Journal, *, clock: Callable[[], float] = time.time) -> None:
        self._records = records
        self._journal = journal
        self._clock = clock

    def change(self, changes: Sequence[Change], lines: Sequence[Line]) -> list[Record | None]:
        """Make all changes and log the lines, or do neither.

        Raises
        ------
        ConflictError
            Where a record is not at the version that was expected.
        """
        now = self._clock()
        waiting = [
            Change(_OUTBOX, f"{now:017.6f}-{number:03d}-{uuid4().hex}", {**asdict(line), "at": now}, 0)
            for number, line in enumerate(lines)
        ]
        written = self._records.put_all([*changes, *waiting])
        self.deliver()
        return written[: len(changes)]

    def deliver(self) -> int:
        """Write the lines that wait into the journal; gives how many there were."""
        # By version, as they were written: two changes may fall into one tick of the clock.
        waiting = sorted(self._records.find(_OUTBOX), key=lambda record: (record.version, record.key))
        for record in waiting:
            line = record.body
            for stream in line["streams"]:
                payload = {**line["payload"], "at": line["at"], "line": record.key}
                self._journal.append(stream, line["kind"], payload, actor=line["actor"], subject=line["subject"])
            self._records.delete(_OUTBOX, record.key)
        return len(waiting)


def read_audit(
    journal: Journal,
    *,
    stream: str = AUDIT,
    subject: str | None = None,
    actor: str | None = None,
    since: float = 0.0,
    limit: int = 100,
) -> list[dict[str, Any]]:
    """Read the newest lines of a log, oldest of them first.

    Parameters
    ----------
    journal : Journal
        Of the workspace.
    stream : str
        `AUDIT`, or ``deploy/<endpoint>`` for what happened to one endpoint.
    subject, actor : str, optional
        Of one thing, by one person or program.
    since : float
        Seconds since 1970.
    limit : int
        At most so many.

    Returns
    -------
    list of dict
        ``at`` (UTC), ``actor``, ``what``, ``subject``, ``facts``.
    """
    if limit < 1:
        raise OptionError(f"At least one line must be asked for, but got {limit}.", where="--limit")
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for entry in _entries(journal, stream, subject):
        payload = dict(entry.payload)
        mark = str(payload.pop("line", f"#{entry.seq}"))
        at = float(payload.pop("at", entry.at))
        if mark in seen or at < since or (actor is not None and entry.actor != actor):
            continue
        seen.add(mark)
        when = dt.datetime.fromtimestamp(at, dt.timezone.utc).isoformat(" ", "milliseconds")
        found.append({"at": when, "actor": entry.actor, "what": entry.kind, "subject": entry.subject, "facts": payload})
    return found[-limit:]


def _entries(journal: Journal, stream: str, subject: str | None) -> Iterator[Entry]:
    after = 0
    while page := journal.read(stream, after=after, limit=_PAGE, subject=subject):
        yield from page
        after = page[-1].seq
