"""Rows that the next turn of the loop wants: kept by reason, within bounds, as Parquet.

Each process holds reservoirs: for every reason, revision and hour a uniform sample of at most ``per_hour`` of the rows
that qualified. Every change of a reservoir is appended to the hour's segment file; when the hour is over, what the
reservoirs hold becomes one Parquet file (`tidemill.deploy.watch.folding`, in a process of its own).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tidemill.core.errors import OptionError, WorkspaceError
from tidemill.deploy.types import CapturePolicy
from tidemill.deploy.watch import feedback, segments
from tidemill.deploy.watch.blobs import BlobFolder
from tidemill.deploy.watch.recent import Batch, Place
from tidemill.deploy.watch.segments import Segment
from tidemill.deploy.watch.sources import folder_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill.store.workspace import Workspace

REASONS = (
    "wrong", "feedback", "error", "low_confidence", "out_of_range", "disagreement", "slow", "sample",
)  # fmt: skip
"""Why a row was kept: its truth came and was another one, its truth came, its request failed, the model was unsure,
training never saw such values, another revision said something else, the answer was late, chance."""

META = "capture."
"""Begins the names of the columns that are about a row rather than of it."""
HOUR_S = 3600
_TRIES = 4
LONGEST = 2048
"""Characters of a text beyond which it is kept as a blob."""


@dataclass
class _Reservoir:
    """A uniform sample of what qualified in one hour."""

    seen: int = 0
    slots: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)


class Capture:
    """Keeps rows of one endpoint for one process; used from the watch's side thread.

    Parameters
    ----------
    folder : Path
        Where to.
    front : str
        Name of this process.
    rng : numpy.random.Generator
        For the samples.
    row_of : callable
        Gives the place of a batch's row in its request.
    names : callable
        Gives, for a revision, columns by the graph's inputs that have other names.
    clock : callable
        Gives the time in seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        front: str,
        *,
        rng: np.random.Generator,
        row_of: Callable[[Batch, int], int],
        names: Callable[[str], Mapping[str, str]] = lambda revision: {},
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.dropped = 0
        """Rows that a full disk refused."""
        self._front = front
        self._rng = rng
        self._clock = clock
        self._row_of = row_of
        self._names = names
        self._blobs = BlobFolder(folder / "blobs")
        self._hour = 0
        self._reservoirs: dict[tuple[str, str], _Reservoir] = {}
        self._segment: Segment | None = None
        self._pending: list[bytes] = []

    def batch(self, batch: Batch, policy: CapturePolicy) -> None:
        """Look for unsure rows, and draw the uniform sample."""
        if policy.sample > 0:
            self._offer("sample", batch, np.flatnonzero(self._rng.random(batch.rows) < policy.sample), policy)
        if batch.confidence is not None and policy.confidence > 0:
            self._offer("low_confidence", batch, np.flatnonzero(batch.confidence < policy.confidence), policy)

    def rows(self, reason: str, batch: Batch, rows: NDArray[np.intp], policy: CapturePolicy) -> None:
        """Rows of a batch that qualify for a reason."""
        self._offer(reason, batch, rows, policy)

    def place(self, reason: str, place: Place, policy: CapturePolicy, **facts: Any) -> None:
        """One row that qualifies for a reason."""
        self._offer(reason, place.batch, np.array([place.index]), policy, **facts)

    def failure(self, revision: str, request_id: str, error: str, policy: CapturePolicy, **facts: Any) -> None:
        """A request that failed before a model answered: there is no row, but what is known is kept."""
        kept = error[:500] if not policy.redact else "redacted"  # a message may quote a value
        if not self._drawn("error", revision, 1, policy):
            return
        digest = _hash({"id": request_id})
        place = self._place("error", revision, digest, policy)
        if place is not None:
            facts = {"error": kept, "request_id": request_id, **facts}
            self._put("error", revision, place, {}, {"hash": digest, "at": self._clock(), **facts})

    def flush(self) -> None:
        """Write what was taken since the last call, synced; what the disk refuses is counted and let go."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        try:
            if self._segment is None or self._segment.broken:
                self._segment = Segment(self._path())
            self._segment.append(pending)
        except (WorkspaceError, OSError):
            self.dropped += len(pending)

    def tick(self, now: float, policy: CapturePolicy) -> bool:
        """End the hour when it is over: others fold it into Parquet. Remove what is older than the policy allows.

        Returns
        -------
        bool
            True where an hour ended.
        """
        hour = int(now // HOUR_S)
        if hour <= self._hour:
            return False
        self.flush()
        self._end()
        self._hour = hour
        prune(self.folder, now - policy.days * 86_400)
        return True

    def close(self) -> None:
        """Write what is pending; the hour stays open for whoever folds it."""
        self.flush()
        self._end()

    def _end(self) -> None:
        if self._segment is not None:
            self._segment.close()
            segments.finish(self._segment.path)
            self._segment = None
        self._reservoirs = {}

    def _path(self) -> Path:
        # A second segment of the same hour (after a failure, or a closed one) has a name of its own.
        number = 0
        while True:
            path = self.folder / f"{self._hour:08d}-{number:03d}-{self._front}.seg"
            if not path.exists() and not path.with_suffix(".parquet").exists():
                return path
            number += 1

    def _offer(self, reason: str, batch: Batch, rows: NDArray[np.intp], policy: CapturePolicy, **facts: Any) -> None:
        for k in self._drawn(reason, batch.revision, len(rows), policy):
            self._keep(reason, batch, int(rows[k]), policy, facts)

    def _drawn(self, reason: str, revision: str, count: int, policy: CapturePolicy) -> list[int]:
        """Which of so many rows that qualify are drawn for the reservoir (Vitter's algorithm R)."""
        if not count:
            return []
        held = self._reservoirs.setdefault((reason, revision), _Reservoir())
        before, held.seen = held.seen, held.seen + count
        # What came before may have been the same content: fill up, but do not look at every row for it.
        chance = policy.per_hour * (_TRIES if len(held.slots) < policy.per_hour else 1)
        if held.seen <= chance:
            return list(range(count))
        numbers = before + np.arange(1, count + 1)
        return np.flatnonzero(self._rng.random(count) * numbers < chance).tolist()

    def _place(self, reason: str, revision: str, digest: str, policy: CapturePolicy) -> int | None:
        """Put a content that was drawn into its reservoir; gives its slot, None where the same content is there."""
        held = self._reservoirs[reason, revision]
        if digest in held.held or not policy.per_hour:
            return None
        if not self._hour:
            self._hour = int(self._clock() // HOUR_S)
        slot = len(held.slots) if len(held.slots) < policy.per_hour else int(self._rng.integers(policy.per_hour))
        held.held.add(digest)
        if slot < len(held.slots):
            held.held.discard(held.slots[slot])
            held.slots[slot] = digest
            return slot
        held.slots.append(digest)
        return len(held.slots) - 1

    def _keep(self, reason: str, batch: Batch, row: int, policy: CapturePolicy, facts: Mapping[str, Any]) -> None:
        names = self._names(batch.revision)
        values: dict[str, Any] = {}
        for carrier, array in batch.columns.items():
            name = names.get(carrier, carrier)
            hidden = name in policy.redact or carrier in policy.redact
            values[name] = None if hidden else self._plain(array[row])
        digest = _hash(values)
        place = self._place(reason, batch.revision, digest, policy)
        if place is None:
            return
        labels = batch.labels if batch.labels is not None else batch.texts
        confidence, numbers = batch.confidence, batch.values
        about: dict[str, Any] = {
            "request_id": batch.request_ids[row],
            "row": self._row_of(batch, row),
            "at": batch.at,
            "hash": digest,
            "label": None if labels is None else labels[row],
            "confidence": None if confidence is None else float(confidence[row]),
            "value": None if numbers is None else float(numbers[row]),
            **facts,
        }
        self._put(reason, batch.revision, place, values, about)

    def _put(self, reason: str, revision: str, slot: int, values: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        record = {"reason": reason, "revision": revision, "slot": slot, "values": values, "about": about}
        self._pending.append(orjson.dumps(record))

    def _plain(self, value: Any) -> Any:
        """A cell as JSON; arrays, bytes and long texts become blobs."""
        if isinstance(value, np.floating):
            number = float(value)
            return number if math.isfinite(number) else None
        if isinstance(value, bytes):
            return self._blobs.put_bytes(value)
        array = np.asarray(value)
        if array.size != 1:
            return self._blobs.put_array(array)
        single = array.reshape(-1)[0]
        found = single.item() if isinstance(single, np.generic) else single
        if isinstance(found, bytes):
            found = found.decode("utf-8", "replace")
        if isinstance(found, str) and len(found) > LONGEST:
            return self._blobs.put(found.encode())
        if isinstance(found, float) and not math.isfinite(found):
            return None
        return found if isinstance(found, (str, int, float, bool)) or found is None else str(found)


def _hash(values: Mapping[str, Any]) -> str:
    data = orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# ------------------------------------------------------------------------------------------------------------- files


def fold(path: Path) -> Path | None:
    """Turn a finished segment into a Parquet file of what its reservoirs hold at the end, and remove the segment."""
    segments.take(path)
    target = path.with_suffix(".parquet")
    if not target.exists():
        rows = _final(segments.read(path))
        if rows:
            segments.write_file(target, _parquet(rows))
    path.unlink(missing_ok=True)
    return target if target.exists() else None


def writer_of(path: Path) -> str:
    """Name of the process that wrote a segment."""
    return path.stem.split("-", 2)[-1]


def recover(folder: Path, is_dead: Callable[[str], bool]) -> int:
    """Fold segments whose writer is dead; gives how many."""
    count = 0
    for path in segments.segments_of(folder) if folder.is_dir() else ():
        if is_dead(writer_of(path)):
            fold(path)
            count += 1
    return count


def prune(folder: Path, before: float) -> int:
    """Remove captured rows, and their blobs, that were kept before a time; gives the number of files."""
    count = 0
    # Segments, too, where nobody has folded them: one of an hour that is over gets no more rows.
    paths = sorted([*folder.glob("*.parquet"), *folder.glob("*.seg")]) if folder.is_dir() else []
    for path in paths:
        hour = path.name.partition("-")[0]
        if hour.isdigit() and (int(hour) + 1) * HOUR_S < before:
            segments.take(path)
            path.unlink(missing_ok=True)
            count += 1
    return count + BlobFolder(folder / "blobs").prune(before)


def _final(records: Iterable[bytes]) -> list[dict[str, Any]]:
    """What stands in each slot in the end, flat."""
    slots: dict[tuple[str, str, int], dict[str, Any]] = {}
    for record in records:
        item = orjson.loads(record)
        about = {f"{META}{k}": v for k, v in item["about"].items()}
        named = {f"{META}reason": item["reason"], f"{META}revision": item["revision"]}
        slots[item["reason"], item["revision"], item["slot"]] = {**named, **about, **item["values"]}
    return list(slots.values())


_TYPES = {
    "reason": "string", "revision": "string", "request_id": "string", "row": "int64", "at": "double", "hash": "string",
    "label": "string", "confidence": "double", "value": "double", "total_ms": "double", "error": "string",
    "truth": "string", "other_revision": "string", "other": "string",
}  # fmt: skip
"""Types of the columns about a row, by name without `META`."""


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    types = {f"{META}{k}": pa.type_for_alias(v) for k, v in _TYPES.items()}
    names = [*types, *dict.fromkeys(k for row in rows for k in row if k not in types)]
    arrays = [_array([row.get(n) for row in rows], types.get(n)) for n in names]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _array(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    import pyarrow as pa

    if kind is not None:
        return pa.array(values, kind)
    if any(isinstance(v, str) for v in values):
        return pa.array([v if v is None or isinstance(v, str) else str(v) for v in values], pa.string())
    known = [v for v in values if v is not None]
    if known and all(isinstance(v, bool) for v in known):
        return pa.array(values, pa.bool_())
    return pa.array([None if v is None else float(v) for v in values], pa.float64())


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(_table(rows), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


# ------------------------------------------------------------------------------------------------------------ reading


def collect(
    workspace: Workspace,
    endpoint: str,
    *,
    since: float = 0.0,
    reasons: Sequence[str] = (),
) -> pa.Table:
    """Rows that were captured, each content once, with the truth where it came.

    Parameters
    ----------
    workspace : Workspace
        Where they are.
    endpoint : str
        Of which endpoint.
    since : float
        Only rows that were answered at or after this time, seconds since 1970.
    reasons : sequence of str
        Only those that were kept for one of these; all without.

    Returns
    -------
    pyarrow.Table
        The inputs by their names, and columns that begin with ``capture.``: ``reason`` (several joined by ``", "``),
        ``revision``, ``request_id``, ``row``, ``at``, ``label``, ``confidence``, ``value``, ``truth``, ``hash``…
        A cell ``blob:…`` is read with `tidemill.deploy.watch.blobs.BlobFolder`.

    Raises
    ------
    OptionError
        For a reason that is not known.
    """
    import pyarrow.parquet as pq

    unknown = sorted(set(reasons) - set(REASONS))
    if unknown:
        raise OptionError(f"There is no reason {unknown[0]!r}.", hint=f"Known: {', '.join(REASONS)}.")
    folder = folder_of(workspace, endpoint)
    captured = folder / "captured"
    rows: list[dict[str, Any]] = []
    # Segments first: one that is folded meanwhile is then seen twice, and what is twice is joined below.
    for path in segments.segments_of(captured) if captured.is_dir() else ():
        rows += _final(segments.read(path))
    for path in sorted(captured.glob("*.parquet")) if captured.is_dir() else ():
        rows += pq.read_table(path).to_pylist()
    rows = [r for r in rows if (r.get(f"{META}at") or 0.0) >= since]
    rows = [r for r in _once(rows) if not reasons or set(r[f"{META}reason"].split(", ")) & set(reasons)]
    _add_truth(rows, folder / "feedback")
    return _table(rows)


def _once(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each content once for each revision: the newest answer, all reasons."""
    out: dict[tuple[str, str], dict[str, Any]] = {}
    reasons: dict[tuple[str, str], set[str]] = {}
    for row in sorted(rows, key=lambda r: r.get(f"{META}at") or 0.0):
        key = (str(row[f"{META}revision"]), str(row[f"{META}hash"]))
        held = out.pop(key, {})
        known = {k: v for k, v in row.items() if v is not None}
        out[key] = {**held, **row, **{k: v for k, v in held.items() if k not in known}}
        reasons.setdefault(key, set()).add(str(row[f"{META}reason"]))
    for key, row in out.items():
        row[f"{META}reason"] = ", ".join(r for r in REASONS if r in reasons[key])
    return list(out.values())


def _add_truth(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Add what is known by now, however late it came; the last word on a row holds."""
    ids = {str(r[f"{META}request_id"]) for r in rows if r.get(f"{META}request_id")}
    if not ids:
        return
    told: dict[tuple[str, int], str] = {}
    for item in feedback.read_all(folder, request_ids=ids).to_pylist():
        value = orjson.loads(item["label"])
        told[item["request_id"], item["row"]] = value if isinstance(value, str) else item["label"]
    for row in rows:
        found = told.get((str(row.get(f"{META}request_id")), int(row.get(f"{META}row") or 0)))
        if found is not None:
            row[f"{META}truth"] = found
