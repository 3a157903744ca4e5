"""Feedback that was acknowledged stays: segment files first, Parquet later.

Each serving process appends to files of its own; every process reads those of all, because feedback may come to
another one than the request did. A full or old segment is folded (`folding.py`) into a Parquet file sorted by
request id, whose row groups are its index.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from tidemill.core.errors import OptionError
from tidemill.deploy.types import Feedback
from tidemill.deploy.watch import segments
from tidemill.deploy.watch.segments import Segment

if TYPE_CHECKING:
    import pyarrow as pa

ROLL_BYTES = 4 << 20
ROLL_S = 600.0
MOST_CHARACTERS = 4096
"""Longest request id, label or note."""
_GROUP_ROWS = 4096


class FeedbackLog:
    """Feedback of one endpoint as one process writes it.

    Parameters
    ----------
    folder : Path
        Of the endpoint's feedback; shared by all processes.
    front : str
        Name of this process, its own among all that ever wrote here.
    clock : callable
        Gives the time in seconds since 1970.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = FeedbackLog(Path(folder), "front-1")
    ...     log.append([Feedback("r1", "yes")])
    ...     log.close()
    ...     read_all(Path(folder)).column("label").to_pylist()
    ['"yes"']
    """

    def __init__(self, folder: Path, front: str, *, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._front = front
        self._clock = clock
        self._lock = threading.Lock()
        self._number = 0
        self._segment: Segment | None = None
        self._since = 0.0

    def append(self, items: Sequence[Feedback]) -> None:
        """Keep feedback; when this returns it survives the death of everything.

        Raises
        ------
        OptionError
            If an item can't be feedback; none is kept.
        WorkspaceError
            If the disk refuses; none is kept.
        """
        now = self._clock()
        records = [_record(item, now) for item in items]
        while True:
            try:
                return self._current().append(records)
            except segments.ClosedError:  # rolled in between
                continue

    def roll(self, *, force: bool = False) -> Path | None:
        """Begin a new segment if this one is full, old or broken; gives the finished one, which others fold."""
        with self._lock:
            segment = self._segment
            if segment is None:
                return None
            old = self._clock() - self._since >= ROLL_S or self._clock() < self._since
            if not (force or segment.broken or old or segment.size >= ROLL_BYTES):
                return None
            self._segment = None
        segment.close()
        segments.finish(segment.path)
        return segment.path

    def close(self) -> None:
        """Close the file; what is in it stays there."""
        with self._lock:
            if self._segment is not None:
                self._segment.close()
                segments.finish(self._segment.path)
                self._segment = None

    def _current(self) -> Segment:
        with self._lock:
            if self._segment is None or self._segment.broken:
                self._number += 1
                self._since = self._clock()
                self._segment = Segment(self.folder / f"{self._front}-{self._number:06d}.seg")
            return self._segment


class FeedbackTail:
    """Reads what any process has added since the last look.

    Parameters
    ----------
    folder : Path
        Of the endpoint's feedback.
    """

    def __init__(self, folder: Path, *, from_start: bool = False) -> None:
        self._folder = folder
        self._offsets: dict[str, int] = {}
        if not from_start:
            self.news()

    def news(self) -> list[dict[str, Any]]:
        """Feedback that came since; each is given once."""
        out: list[dict[str, Any]] = []
        present = list(segments.segments_of(self._folder)) if self._folder.is_dir() else []
        for path in present:
            at = self._offsets.get(path.name, 0)
            found = segments.read_from(path, at)
            self._offsets[path.name] = found.end
            out += [orjson.loads(r) for r in found.records]
        names = {p.name for p in present}
        self._offsets = {k: v for k, v in self._offsets.items() if k in names}
        return out


def _record(item: Feedback, now: float) -> bytes:
    if not item.request_id or len(item.request_id) > MOST_CHARACTERS:
        raise OptionError(
            f"Feedback needs a request id of 1 to {MOST_CHARACTERS:,} characters.",
            hint="It is in the answer to the request.",
        )
    if item.label is None:
        raise OptionError(f"The feedback for {item.request_id!r} has no label.")
    row: Any = item.row  # of a caller's JSON
    if not isinstance(row, int) or row < 0:
        raise OptionError(f"The row of feedback must be 0, 1, 2…, but got {item.row!r}.")
    try:
        label = orjson.dumps(item.label, option=orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"The label for {item.request_id!r} is no JSON value.") from error
    if label == b"null" or len(label) > MOST_CHARACTERS or len(item.note) > MOST_CHARACTERS:
        raise OptionError(
            f"Label and note of feedback may have up to {MOST_CHARACTERS:,} characters, and a label is no NaN.",
            where=item.request_id,
        )
    return orjson.dumps(
        {
            "request_id": item.request_id,
            "row": item.row,
            "label": label.decode(),
            "at": item.at or now,
            "note": item.note,
            "got": now,
        }
    )


def fold(path: Path) -> Path | None:
    """Turn a finished segment into a Parquet file sorted by request id, and remove the segment.

    Killed in between, the next call ends the work; nothing is lost and nothing is there twice.
    """
    segments.take(path)
    target = path.with_suffix(".parquet")
    if not target.exists():
        records = segments.read(path)
        if records:
            segments.write_file(target, _parquet(_table(orjson.loads(r) for r in records)))
    path.unlink(missing_ok=True)
    return target if target.exists() else None


def writer_of(path: Path) -> str:
    """Name of the process that wrote a segment."""
    return path.stem.rpartition("-")[0]


def recover(folder: Path, is_dead: Callable[[str], bool]) -> int:
    """Fold segments whose writer is dead; gives how many."""
    count = 0
    for path in segments.segments_of(folder) if folder.is_dir() else ():
        if is_dead(writer_of(path)):
            fold(path)
            count += 1
    return count


def read_all(folder: Path, *, since: float = 0.0, request_ids: Iterable[str] | None = None) -> pa.Table:
    """Feedback of all processes, by request id, row and time of arrival.

    Parameters
    ----------
    folder : Path
        Of the endpoint's feedback.
    since : float
        Only what came at or after this time, seconds since 1970.
    request_ids : iterable of str, optional
        Only of these; Parquet row groups without one of them are not read.

    Returns
    -------
    pyarrow.Table
        ``request_id``, ``row``, ``label`` (JSON), ``at``, ``note``, ``got``.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = None if request_ids is None else sorted(set(request_ids))
    tables = [_table([])]
    # Segments first: one that is folded meanwhile is then in the Parquet files, and seen twice rather than never.
    loose = {p.stem: segments.read(p) for p in segments.segments_of(folder)} if folder.is_dir() else {}
    for path in sorted(folder.glob("*.parquet")) if folder.is_dir() else ():
        loose.pop(path.stem, None)
        chosen = None if wanted is None else [("request_id", "in", wanted)]
        tables.append(pq.read_table(path, filters=chosen))
    for records in loose.values():
        items = [orjson.loads(r) for r in records]
        tables.append(_table(i for i in items if wanted is None or i["request_id"] in set(wanted)))
    table = pa.concat_tables(tables)
    table = table.filter(pc.greater_equal(table["got"], since)) if since else table
    return table.sort_by([("request_id", "ascending"), ("row", "ascending"), ("got", "ascending")])


def prune(folder: Path, before: float) -> int:
    """Remove folded feedback that came before a time; gives the number of files."""
    paths = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not paths:  # nothing to load Arrow for
        return 0
    import pyarrow.parquet as pq

    count = 0
    for path in paths:
        got = pq.read_table(path, columns=["got"])["got"].to_numpy()
        if len(got) and float(got.max()) < before:
            path.unlink(missing_ok=True)
            count += 1
    return count


def _table(items: Iterable[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("request_id", pa.string()),
            ("row", pa.int64()),
            ("label", pa.string()),
            ("at", pa.float64()),
            ("note", pa.string()),
            ("got", pa.float64()),
        ]
    )
    table = pa.Table.from_pylist(list(items), schema=schema)
    return table.sort_by([("request_id", "ascending"), ("row", "ascending"), ("got", "ascending")])


def _parquet(table: pa.Table) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=_GROUP_ROWS)
    return bytes(sink.getvalue().to_pybytes())
