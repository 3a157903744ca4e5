"""A segment: the rows of one push (or of several, compacted), as Parquet fragments and in packed form.

The fragments are the truth. The packed form beside them is derived: a folder of plain files that are mapped into
memory, made again wherever it is missing or has another size than it should.

::

    features/<group>/<segment>/
        key0.npy | key0.arrow, level1.npy …   the entities (see `entities.EntityIndex`)
        starts.npy                            where each entity's rows begin
        event.npy, created.npy                times of the rows, sorted within the entity
        matrix.npy                            packed features, row-major
        others.arrow                          the other features
        meta.json                             sizes and checksums; the folder gets its name when all of it is on disk
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, WorkspaceError
from tidemill.data.features.arrays import arrow_of, numpy_of
from tidemill.data.features.entities import EntityIndex, index_entities
from tidemill.data.features.intake import Intake, fragment_table, from_fragment
from tidemill.data.features.packing import STORAGE, encode, packing_error
from tidemill.data.features.rows import other_columns, packed_block
from tidemill.data.features.types import FeatureGroup, KeyType, Packing
from tidemill.store.workspace import Workspace

PART_BYTES = 128 << 20
"""About so many bytes of values go into one Parquet fragment."""

_FORMAT = 1
_META = "meta.json"


@dataclass(frozen=True)
class SegmentInfo:
    """What the history says of a segment.

    Parameters
    ----------
    id : str
        Hash over its fragments: names its folder.
    rows : int
        Number of rows.
    schema_version : int
        Of the group when it was written.
    parts : tuple of (str, int)
        Artifact hash and rows of each Parquet fragment; together they hold the rows in the order of the packed form.
    event_low, event_high, created_low, created_high : int
        Range of the times, in nanoseconds.
    """

    id: str
    rows: int
    schema_version: int
    parts: tuple[tuple[str, int], ...]
    event_low: int
    event_high: int
    created_low: int
    created_high: int

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SegmentInfo:
        """Rebuild from `to_json`."""
        return cls(**{**data, "parts": tuple((str(h), int(n)) for h, n in data["parts"])})


class Segment:
    """The packed form of a segment, mapped into memory.

    Parameters
    ----------
    folder : Path
        Where its files are.
    info : SegmentInfo
        What it is.
    group : FeatureGroup
        The group as it was when the segment was written.
    """

    def __init__(self, folder: Path, info: SegmentInfo, group: FeatureGroup) -> None:
        self.folder, self.info, self.group = folder, info, group

    @cached_property
    def entities(self) -> EntityIndex:
        """The entities of the rows."""
        values = tuple(
            arrow_of(self._load(f"key{i}.npy"))
            if key.type is KeyType.INT64
            else _read_ipc(self.folder / f"key{i}.arrow").column(0).combine_chunks()
            for i, key in enumerate(self.group.entity)
        )
        return EntityIndex(values, tuple(self._load(f"level{i}.npy") for i in range(1, len(values))))

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where the rows of each entity begin; one longer than the entities."""
        return self._load("starts.npy")

    @cached_property
    def event(self) -> NDArray[np.int64]:
        """Event times in nanoseconds."""
        return self._load("event.npy")

    @cached_property
    def created(self) -> NDArray[np.int64]:
        """Created times in nanoseconds."""
        return self._load("created.npy")

    @cached_property
    def matrix(self) -> NDArray[Any]:
        """Packed features in their stored form, shape (rows, packed features)."""
        return self._load("matrix.npy")

    @cached_property
    def others(self) -> pa.Table:
        """The other features."""
        return _read_ipc(self.folder / "others.arrow")

    def _load(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
        return np.asarray(array)


def write_segment(workspace: Workspace, group: FeatureGroup, rows: Intake, order: NDArray[np.int64]) -> SegmentInfo:
    """Keep rows: fragments first, then the packed form; what is there already is not written again.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    group : FeatureGroup
        What they are.
    rows : Intake
        What is kept, in any order.
    order : int64 array
        The rows to keep, ordered by entity, event time, created time.
    """
    step = max(1, PART_BYTES // max(1, _row_bytes(rows)))
    parts: list[tuple[str, int]] = []
    packer = _Packer(segments_folder(workspace, group.name), group, len(order))
    try:
        for begin in range(0, len(order), step):
            part = rows.take(order[begin : begin + step])
            parts.append((workspace.artifacts.put(_parquet(fragment_table(group, part))), part.rows))
            packer.add(part)
        info = SegmentInfo(
            id=_segment_id(group.schema_version, parts),
            rows=len(order),
            schema_version=group.schema_version,
            parts=tuple(parts),
            event_low=int(rows.event[order].min()),
            event_high=int(rows.event[order].max()),
            created_low=int(rows.created[order].min()),
            created_high=int(rows.created[order].max()),
        )
        packer.finish(info)
    finally:
        packer.close()
    return info


def open_segment(workspace: Workspace, group: FeatureGroup, info: SegmentInfo) -> Segment:
    """Map a segment into memory; its packed form is made again from the fragments where it is missing or cut short.

    Raises
    ------
    DataError
        Where a fragment is needed and is damaged; names its file.
    """
    then = group.at_version(info.schema_version)
    folder = segments_folder(workspace, group.name) / info.id
    if not _is_whole(folder):
        _rebuild(workspace, then, info, folder)
    return Segment(folder, info, then)


def read_fragments(workspace: Workspace, group: FeatureGroup, info: SegmentInfo) -> Iterator[Intake]:
    """Read the fragments of a segment in order; hashes are checked.

    Raises
    ------
    DataError
        Where one is damaged or missing; names its file.
    """
    for key, rows in info.parts:
        try:
            data = workspace.artifacts.get(key)
        except NotFoundError as error:
            raise DataError(
                f"A fragment of feature group {group.name!r} is missing: {key[:12]}….",
                where=error.where,
                hint="Restore the artifact from a copy, or push its rows again.",
            ) from error
        except DataError as error:
            raise DataError(
                f"A fragment of feature group {group.name!r} with {rows:,} rows is damaged: {error.message}",
                where=error.where,
                hint="Restore the file from a copy, or delete it and push its rows again.",
            ) from error
        yield from_fragment(group, pq.read_table(pa.BufferReader(data)))


def verify_segment(workspace: Workspace, group: FeatureGroup, info: SegmentInfo) -> list[str]:
    """Check every byte of a segment; gives one sentence for each damaged file, naming it."""
    found = []
    for key, _ in info.parts:
        try:
            workspace.artifacts.get(key)
        except (DataError, NotFoundError) as error:
            found.append(str(error))
    folder = segments_folder(workspace, group.name) / info.id
    for name, (size, checksum) in (_read_meta(folder) or {"files": {}})["files"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != size or _checksum(path) != checksum:
            found.append(f"{path}: This derived file is damaged. Delete its folder; it is made again when needed.")
    return found


def segments_folder(workspace: Workspace, name: str) -> Path:
    """Give the folder of a group's packed segments."""
    return workspace.path / "features" / name


class _Packer:
    """Writes the packed form of a segment part by part into a temporary folder that gets its name at the end."""

    def __init__(self, parent: Path, group: FeatureGroup, rows: int) -> None:
        self._group, self._parent, self._rows = group, parent, rows
        header = {
            "descr": STORAGE[group.packing].str,
            "fortran_order": False,
            "shape": (rows, len(group.packed)),
        }
        try:
            parent.mkdir(parents=True, exist_ok=True)
            self._folder = Path(tempfile.mkdtemp(prefix="tmp-", dir=parent))
            self._matrix: BinaryIO = (self._folder / "matrix.npy").open("wb")
            np.lib.format.write_array_header_1_0(self._matrix, header)
        except OSError as error:
            raise _refused(error, parent) from error
        self._keys: list[list[pa.Array]] = []
        self._times: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        self._others: list[pa.Table] = []
        self._error = np.zeros(len(group.packed))

    def add(self, part: Intake) -> None:
        block = packed_block(part.features, self._group)
        stored = encode(block, self._group.packed, self._group.packing)
        if self._group.packing is not Packing.FLOAT32:
            self._error = np.maximum(self._error, packing_error(block, self._group.packed, self._group.packing))
        try:
            self._matrix.write(np.ascontiguousarray(stored).data if stored.size else b"")
        except OSError as error:
            raise _refused(error, self._parent) from error
        self._keys.append(part.keys)
        self._times.append((part.event, part.created))
        self._others.append(other_columns(part.features, self._group))

    def finish(self, info: SegmentInfo) -> None:
        try:
            self._write(info)
        except OSError as error:
            raise _refused(error, self._parent) from error

    def close(self) -> None:
        self._matrix.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, info: SegmentInfo) -> None:
        columns = [pa.concat_arrays([keys[i] for keys in self._keys]) for i in range(len(self._group.entity))]
        entities, codes = index_entities(columns)
        for i, values in enumerate(entities.values):
            if self._group.entity[i].type is KeyType.INT64:
                np.save(self._folder / f"key{i}.npy", numpy_of(values))
            else:
                _write_ipc(self._folder / f"key{i}.arrow", pa.table({"key": values}))
        for i, level in enumerate(entities.levels, start=1):
            np.save(self._folder / f"level{i}.npy", level)
        np.save(self._folder / "starts.npy", np.searchsorted(codes, np.arange(entities.size + 1)).astype(np.int64))
        np.save(self._folder / "event.npy", np.concatenate([t[0] for t in self._times]))
        np.save(self._folder / "created.npy", np.concatenate([t[1] for t in self._times]))
        others = pa.concat_tables(self._others).unify_dictionaries().combine_chunks()
        _write_ipc(self._folder / "others.arrow", others)
        self._matrix.close()
        files = {p.name: (p.stat().st_size, _checksum(p)) for p in sorted(self._folder.iterdir())}
        meta = {
            "format": _FORMAT,
            "rows": self._rows,
            "entities": entities.size,
            "schema_version": info.schema_version,
            "packing_error": float(self._error.max(initial=0.0)),
            "files": files,
        }
        (self._folder / _META).write_text(json.dumps(meta), encoding="utf-8")
        for path in self._folder.iterdir():
            _sync(path)
        _sync(self._folder)
        self._publish(self._parent / info.id)

    def _publish(self, target: Path) -> None:
        if target.exists() and not _is_whole(target):
            shutil.rmtree(target, ignore_errors=True)
        try:
            os.rename(self._folder, target)
        except OSError:
            if not _is_whole(target):  # else another process has made the same segment
                raise
        _sync(self._parent)


def _rebuild(workspace: Workspace, group: FeatureGroup, info: SegmentInfo, folder: Path) -> None:
    packer = _Packer(folder.parent, group, info.rows)
    try:
        for part in read_fragments(workspace, group, info):
            packer.add(part)
        packer.finish(info)
    finally:
        packer.close()


def _is_whole(folder: Path) -> bool:
    meta = _read_meta(folder)
    if meta is None or meta.get("format") != _FORMAT:
        return False
    try:
        return all((folder / name).stat().st_size == size for name, (size, _) in meta["files"].items())
    except FileNotFoundError:
        return False


def _read_meta(folder: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((folder / _META).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def _segment_id(schema_version: int, parts: Iterable[tuple[str, int]]) -> str:
    text = json.dumps([_FORMAT, schema_version, [key for key, _ in parts]])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _row_bytes(rows: Intake) -> int:
    return max(1, int(rows.features.nbytes + 24 * rows.rows) // max(rows.rows, 1))


def _parquet(table: pa.Table) -> bytes:
    # Dictionaries cost time and gain nothing on numbers that hardly repeat; text gains from them.
    words = [f.name for f in table.schema if pa.types.is_large_string(f.type) or pa.types.is_dictionary(f.type)]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="lz4",
        use_dictionary=words or False,
        write_statistics=False,
        row_group_size=max(1, table.num_rows),
        store_schema=True,
    )
    return bytes(sink.getvalue().to_pybytes())


def _write_ipc(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_ipc(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def _checksum(path: Path) -> int:
    total = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            total = zlib.crc32(block, total)
    return total


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refused(error: OSError, folder: Path) -> WorkspaceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return WorkspaceError(
            "The disk is full: packed features can't be written.",
            hint="Free some space; everything that was pushed before is safe.",
            where=str(folder),
        )
    return WorkspaceError(
        f"Packed features can't be written: {error.strerror or error}.",
        hint="Make the folder writable, or choose another workspace.",
        where=str(folder),
    )
