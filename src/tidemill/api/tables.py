"""Rows that arrive in a request: as JSON, or as a file that another process reads."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.api.errors import HttpError
from tidemill.api.route import Call
from tidemill.api.shapes import Field
from tidemill.core.errors import DataError, TidemillError, TrialError, TrialMemoryError, TrialTimeoutError
from tidemill.data.ingest.sent import FORMS, TEXTS, mapped, of_rows

if TYPE_CHECKING:
    from tidemill.core.protocols import Executor, Outcome, Step
    from tidemill.data.ingest import RawTable

ROWS = {
    "rows": Field(
        "array", "Rows as objects, a value by each column's name. Larger tables are sent as files.",
        required=True, items="object", low=1, high=10_000,
    )
}  # fmt: skip
"""What a body holds where rows are sent as JSON."""
FILES = FORMS
"""As what files rows may be sent."""

_UNFOLDED = 4
"""How many times what was sent the rows of a file may take; so much does text take in Arrow and while it is read."""
_LOADED = 512 << 20
"""Memory of the process that reads, before it does."""
_SECONDS = 600.0
_PATIENCE_S = 20.0
"""How long a table waits for another one that is being read: the thread that waits could answer something else."""
_READERS = tuple(f"tidemill.data.ingest.{name}" for name in ("sent", "delimited", "jsonl", "parquet", "arrow"))
_log = logging.getLogger(__name__)


class Reader:
    """Runs one step after the other away from here; what they need is loaded once, with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executor: Executor | None = None

    def run(self, step: Step) -> Outcome:
        """Run a step.

        Raises
        ------
        HttpError
            503 where another one is under way for too long.
        """
        from tidemill.jobs.executors.pool import ProcessExecutor

        if not self._lock.acquire(timeout=_PATIENCE_S):
            raise HttpError(503, "Another table is being read.", hint="Send it again in a while.", retry_after_s=30)
        try:
            executor, self._executor = self._executor or ProcessExecutor(1, _READERS), None
            executor.submit(step)
            outcome = executor.wait()[0]
            self._executor = executor  # not where this was interrupted: it might tell of this step later
            return outcome
        finally:
            self._lock.release()


READER = Reader()


def table_of(call: Call) -> RawTable:
    """Give the rows of a request as a table.

    Raises
    ------
    HttpError
        413 for a file that unfolds to too much.
    DataError
        For a body that is no table.
    """
    return of_rows(call.body["rows"]) if call.file is None else _read(call, call.file)


def rows_of(call: Call) -> Any:
    """Give the rows of a request as a feature group takes them; cells of text files are still texts."""
    if call.file is None:
        return call.body["rows"]
    raw = _read(call, call.file)
    return raw if call.form in TEXTS else raw.table


def _read(call: Call, path: Path) -> RawTable:
    from tidemill.core.protocols import Step
    from tidemill.data.ingest._base import memory_limit

    if not path.stat().st_size:
        raise DataError("The body is empty.", hint="Send a header and rows.")
    most = _UNFOLDED * call.context.limits.table_bytes
    out = path.with_suffix(".arrow")
    arguments = {"path": str(path), "form": call.form, "out": str(out), "most_bytes": most}
    try:
        memory = min(_UNFOLDED * most + _LOADED, 2 * memory_limit(None))  # half of the machine's at most
        step = Step("tidemill.data.ingest.sent:unpack", arguments, time_s=_SECONDS, memory_bytes=memory)
        outcome = READER.run(step)
        if isinstance(outcome.error, (TrialMemoryError, TrialTimeoutError)):
            raise _too_large(call)
        if isinstance(outcome.error, TidemillError) and not isinstance(outcome.error, TrialError):
            raise outcome.error
        if outcome.error is not None:
            _log.warning("a table of the type %s: %s", call.form, outcome.traceback or outcome.error)
            raise HttpError(400, "The table can't be read.", hint="Write the file again.") from outcome.error
        if not outcome.value["fits"]:
            raise _too_large(call)
        return mapped(out, outcome.value["notices"])
    finally:
        out.unlink(missing_ok=True)


def _too_large(call: Call) -> HttpError:
    most = _UNFOLDED * call.context.limits.table_bytes
    return HttpError(413, f"The rows of a table may take {most:,} bytes.", hint="Send it in several parts.")
