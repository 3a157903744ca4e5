"""What samples are matched from: the rows of a dataset version, or the newest row of each entity of a feature group."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.data.features.history import read_history
from tidemill.data.features.instants import instant_nanos
from tidemill.data.features.latest import Latest, latest
from tidemill.data.features.registry import get_group
from tidemill.data.features.types import DType, Feature, FeatureGroup
from tidemill.data.matching._targets import Targets
from tidemill.data.matching._vectors import Frame, Vector, column_types, frame, from_numpy, words_of
from tidemill.data.matching.mistakes import ANSWERED, captured
from tidemill.data.versions import find_version, layout_of
from tidemill.data.versions.origin import Origins, label_sources
from tidemill.store.workspace import Workspace

GROUP = "group:"
"""A source that begins so is a feature group; any other is a dataset version."""
LINEAGE = ("_dataset", "_version", "_operation")
"""Columns beside those of a dataset version: where each row was first brought in, and by which operation."""
LABEL: dict[str, type] = {"_annotator": str, "_labelled": dt.datetime}
"""Columns about the label of each row: who gave it (missing where nobody was named), and when."""
_BATCH = 1 << 14


class Source(Protocol):
    """Rows with columns that are read when they are first asked for."""

    @property
    def ref(self) -> str:
        """How a person names it."""

    @property
    def hash(self) -> str:
        """Of its content: equal hashes, equal rows."""

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def types(self) -> dict[str, type]:
        """Kind of every column that a condition can ask for."""

    @property
    def names(self) -> list[str]:
        """Columns of a sample, in order."""

    @property
    def time(self) -> str | None:
        """Column that says when a row became true."""

    def load(self, names: Sequence[str]) -> dict[str, Vector]:
        """Read some columns of all rows."""


class VersionSource:
    """The rows of a dataset version.

    Beside its own columns it has `LINEAGE`; where it has a target, `LABEL`; and where its rows were captured in service
    the columns of `tidemill.data.matching.mistakes.captured`. A version's own column of such a name goes first, but for
    `LINEAGE`.
    """

    def __init__(self, workspace: Workspace, ref: str) -> None:
        self.workspace = workspace
        self.version = find_version(workspace, ref)
        self._layout = layout_of(workspace, self.version)
        self.schema: pa.Schema = self._layout.manifest.schema
        self._targets = Targets(self._layout, self.version.schema)
        self._label = next((c.name for c in self.version.schema if c.type is SemanticType.TARGET), None)
        self._answers = self._captured()
        beside = (LABEL if self._label is not None else {}) | {n: v.kind for n, v in self._answers.items()}
        self.types = beside | self._targets.types | dict.fromkeys(LINEAGE, str)
        self.ref, self.hash, self.rows = self.version.ref, self.version.hash, self._layout.rows
        self.names: list[str] = list(self.schema.names)
        self.time = self._time()

    def _time(self) -> str | None:
        """Find the column of type ``time``, else the only one that holds times."""
        found = [c.name for c in self.version.schema if c.type is SemanticType.TIME]
        times = [name for name in self.names if self.types.get(name) is dt.datetime]
        if found:
            return found[0] if found[0] in times else None
        return times[0] if len(times) == 1 else None

    def _captured(self) -> dict[str, Vector]:
        if self._label is None or not set(ANSWERED) <= set(self.schema.names):
            return {}
        return captured(self._layout.table([*ANSWERED, self._label]), self._label)

    def load(self, names: Sequence[str]) -> dict[str, Vector]:
        """Read some columns of all rows."""
        plain = [n for n in names if n in self.schema.names and n not in LINEAGE]
        out = dict(self._targets.frame(self._layout.table(plain), plain).columns) if plain else {}
        beside = [n for n in names if n not in plain and n not in LINEAGE]
        about = self._about_label() if any(n in LABEL for n in beside) else {}
        out |= {n: about[n] if n in LABEL else self._answers[n] for n in beside}
        return out | self._lineage([n for n in names if n in LINEAGE])

    def _about_label(self) -> dict[str, Vector]:
        found = label_sources(self._layout, str(self._label), Origins.of(self.workspace))
        names = pa.array(found.annotators, pa.string())
        named = words_of(pc.if_else(pc.equal(names, ""), pa.scalar(None, pa.string()), names))
        return {"_annotator": named, "_labelled": Vector(dt.datetime, found.at)}

    def _lineage(self, names: Sequence[str]) -> dict[str, Vector]:
        if not names:
            return {}
        origins, pieces = Origins.of(self.workspace), self._layout.pieces
        found = [origins[p.part.fragment].version for p in pieces]
        said = {"_dataset": [v.dataset for v in found], "_version": [v.hash for v in found]}
        said["_operation"] = [v.operation for v in found]
        counts = [p.count for p in pieces]
        return {name: _repeated(said[name], counts) for name in names}


def _repeated(words: Sequence[str], counts: Sequence[int]) -> Vector:
    short = words_of(pa.array(words, pa.string()))
    return Vector(str, np.repeat(short.values, counts), None, short.words)


class GroupSource:
    """The newest row of every entity of a feature group as of a time; defaults stand where a value is missing.

    Columns are those of the group: entity keys, the event time, features. All that fits a packed row is float32.
    """

    def __init__(self, workspace: Workspace, name: str, as_of: Any = None) -> None:
        self.group: FeatureGroup = get_group(workspace, name)
        self.history = history = read_history(workspace, name)
        self.as_of = at = None if as_of is None else instant_nanos(as_of, "as_of")
        said = {"group": self.group.to_json(), "segments": [s.to_json() for s in history.segments], "as_of": at}
        self.hash = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
        self._latest: Latest = latest(workspace, name, at=as_of)
        self.types = self._types()
        self.ref, self.rows, self.names = GROUP + name, len(self._latest), list(self.types)
        self.time: str | None = self.group.event_time

    def _types(self) -> dict[str, type]:
        keys = column_types(self._latest.entities)
        return keys | {self.group.event_time: dt.datetime} | {f.name: _kind(f) for f in self.group.features}

    def load(self, names: Sequence[str]) -> dict[str, Vector]:
        """Read some columns of all rows."""
        out: dict[str, Vector] = {}
        keys = [n for n in names if n in self.group.entity_names]
        if keys:
            out |= frame(self._latest.entities, {n: self.types[n] for n in keys}).columns
        if self.group.event_time in names:
            out[self.group.event_time] = Vector(dt.datetime, self._latest.event_time // 1000)
        out |= self._packed([n for n in names if n not in out])
        rest = [n for n in names if n not in out]
        if rest:
            others = self._latest.others()
            for feature in (self.group.feature(n) for n in rest):
                found = frame(others, {feature.name: self.types[feature.name]}).columns[feature.name]
                out[feature.name] = _with_default(found, feature)
        return out

    def _packed(self, names: Sequence[str]) -> dict[str, Vector]:
        place = {f.name: i for i, f in enumerate(self.group.packed)}
        wanted = [n for n in names if n in place]
        if not wanted:
            return {}
        at = np.array([place[n] for n in wanted])
        columns = np.empty((len(wanted), self.rows), dtype=np.float32)
        for begin in range(0, self.rows, _BATCH):
            end = min(begin + _BATCH, self.rows)
            columns[:, begin:end] = self._latest.packed(begin, end)[:, at].T
        features = {n: self.group.feature(n) for n in wanted}
        return {n: _with_default(from_numpy(columns[i], n, self.types[n]), features[n]) for i, n in enumerate(wanted)}


def _kind(feature: Feature) -> type:
    if feature.dtype.is_text:
        return str
    if feature.dtype is DType.TIMESTAMP:
        return dt.datetime
    return bool if feature.dtype is DType.BOOL else float


def _with_default(vector: Vector, feature: Feature) -> Vector:
    """Put the default where there is no value, as training and serving do."""
    if feature.default is None:
        return vector
    if vector.words is not None:
        words = np.empty(len(vector.words) + 1, dtype=object)
        words[:-1], words[-1] = vector.words, feature.default
        return Vector(str, np.where(vector.values < 0, len(words) - 1, vector.values), None, words)
    gone = np.isnan(vector.values) if vector.values.dtype.kind == "f" else vector.null
    if gone is None or not np.any(gone):
        return vector
    default = instant_nanos(feature.default, "default") // 1000 if vector.kind is dt.datetime else feature.default
    values: NDArray[Any] = vector.values.copy()
    values[gone] = default
    return Vector(vector.kind, values)


def open_source(workspace: Workspace, source: str, *, as_of: Any = None) -> Source:
    """Find what a sample is matched from.

    Parameters
    ----------
    workspace : Workspace
        Where from.
    source : str
        A dataset version as `find_version` takes it, or ``group:NAME`` for a feature group.
    as_of : datetime or str, optional
        For a group: later events are not seen. For a version it is a condition on its time column, see `match`.

    Raises
    ------
    NotFoundError
        With the nearest names.
    """
    if not source.strip():
        raise OptionError("Say what to match from: a dataset, or group:NAME.")
    if source.startswith(GROUP):
        return GroupSource(workspace, source[len(GROUP) :], as_of)
    return VersionSource(workspace, source)


class Resident:
    """Columns of a source, kept in memory once they were asked for.

    Not for several threads that load columns at the same time; reading is safe.

    Parameters
    ----------
    source : Source
        The rows.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.rows = source.rows
        self.types: dict[str, type] = dict(source.types)
        self._vectors: dict[str, Vector] = {}

    def add(self, columns: dict[str, Vector]) -> None:
        """Put columns beside those of the source, such as the errors of a model."""
        for name, vector in columns.items():
            if len(vector) != self.rows:
                raise OptionError(f"The column {name!r} has {len(vector):,} values for {self.rows:,} rows.")
            self._vectors[name] = vector
            self.types[name] = vector.kind

    def frame(self, names: Sequence[str]) -> Frame:
        """Give some columns; those that are not resident yet are read."""
        for name in names:
            if name not in self.types:
                raise NotFoundError.of("column", name, self.types)
        absent = [n for n in names if n not in self._vectors]
        if absent:
            self._vectors |= self.source.load(absent)
        return Frame({n: self._vectors[n] for n in names}, self.rows)

    def take(self, rows: NDArray[np.int64], names: Sequence[str] | None = None) -> pa.Table:
        """Return some rows as a table of the source's columns, or of those that are named."""
        chosen = self.source.names if names is None else list(names)
        columns = self.frame(chosen).columns
        return pa.Table.from_arrays([_arrow(columns[n], rows) for n in chosen], names=chosen)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the resident columns, words apart."""
        return sum(v.values.nbytes + (0 if v.null is None else v.null.nbytes) for v in self._vectors.values())


def _arrow(vector: Vector, rows: NDArray[np.int64]) -> pa.Array:
    values = vector.values[rows]
    if vector.words is not None:
        codes = pa.array(values, pa.int32(), mask=values < 0)
        words = pa.array(vector.words.tolist(), pa.string())
        return pa.DictionaryArray.from_arrays(codes, words).cast(pa.string()) if len(words) else codes.cast(pa.string())
    null = None if vector.null is None else vector.null[rows]
    if vector.kind is dt.datetime:
        return pa.array(values, pa.int64(), mask=null).cast(pa.timestamp("us", "UTC"))
    if values.dtype.kind == "f":
        return pa.array(values, from_pandas=True)  # NaN is missing
    return pa.array(values, mask=null)
