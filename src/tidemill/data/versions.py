"""Immutable versions of datasets: rows in one canonical form, found by the hash of what they say."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data import coerce, vector
from tidemill.data.ingest._base import RawTable
from tidemill.data.profile import profile
from tidemill.store.workspace import Workspace

_HASH = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True)
class DatasetVersion:
    """One snapshot of a dataset.

    Parameters
    ----------
    hash : str
        SHA-256 over names, types and values, 64 hex digits: the same rows and meanings give the same hash, whatever
        the format they were read from.
    dataset : str
        Name of the dataset.
    rows : int
        Number of rows.
    schema : Schema
        What the columns mean.
    created_at : float
        Seconds since 1970.
    parents : tuple of str
        Hashes of the versions that it was made from.
    operation : str
        How it was made: ``"ingest"``, ``"merge"``, ``"sample"``…
    parameters : mapping
        Of the operation.
    artifacts : mapping
        Artifact hash by name: ``"table"`` (Parquet) and ``"profile"`` (JSON).
    """

    hash: str
    dataset: str
    rows: int
    schema: Schema
    created_at: float
    parents: tuple[str, ...] = ()
    operation: str = "ingest"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    artifacts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DatasetVersion:
        """Rebuild from a record of the metadata store."""
        return cls(
            hash=record["hash"],
            dataset=record["dataset"],
            rows=record["rows"],
            schema=Schema.from_json(record["schema"]),
            created_at=record["created_at"],
            parents=tuple(record["parents"]),
            operation=record["operation"],
            parameters=dict(record["parameters"]),
            artifacts=dict(record["artifacts"]),
        )


def write_version(
    workspace: Workspace,
    name: str,
    raw: RawTable | pa.Table,
    schema: Schema,
    *,
    parents: Sequence[str] = (),
    operation: str = "ingest",
    parameters: Mapping[str, Any] | None = None,
    clock: Callable[[], float] = time.time,
) -> DatasetVersion:
    """Keep a snapshot of a table; one that is there already is returned as it is.

    Parameters
    ----------
    workspace : Workspace
        Where to.
    name : str
        Name of the dataset.
    raw : RawTable or pyarrow.Table
        The rows.
    schema : Schema
        What its columns mean.
    parents, operation, parameters : optional
        Lineage.
    clock : callable
        Gives the time.
    """
    if not name.strip():
        raise OptionError("A dataset needs a name.")
    table = canonical(raw, schema)
    digest = content_hash(table, schema)
    found = [r for r in workspace.metadata.dataset_versions(name) if r["hash"] == digest]
    if found:
        return DatasetVersion.from_record(found[0])
    summary = profile(coerce.to_columns(raw, schema, strict=False), schema)
    record = {
        "hash": digest,
        "dataset": name,
        "created_at": clock(),
        "rows": table.num_rows,
        "schema": schema.to_json(),
        "parents": list(parents),
        "operation": operation,
        "parameters": dict(parameters or {}),
        "artifacts": {
            "table": workspace.artifacts.put(_parquet(table)),
            "profile": workspace.artifacts.put(json.dumps(summary, allow_nan=False).encode()),
        },
    }
    workspace.metadata.put_dataset_version(record)
    # Another process may have been first; what stands in the store is the version.
    return find_version(workspace, f"{name}@{digest}")


def list_versions(workspace: Workspace, dataset: str | None = None) -> list[DatasetVersion]:
    """Return the versions of one dataset, or of all, oldest first."""
    return [DatasetVersion.from_record(r) for r in workspace.metadata.dataset_versions(dataset)]


def find_version(workspace: Workspace, ref: str) -> DatasetVersion:
    """Find a version by dataset name (its newest), by ``name@hash`` or by hash; a hash may be cut to 4 digits.

    Raises
    ------
    NotFoundError
        With the nearest names.
    """
    name, _, prefix = ref.rpartition("@")
    if name and _HASH.fullmatch(prefix):
        found = [v for v in list_versions(workspace, name) if v.hash.startswith(prefix)]
    else:
        found = list_versions(workspace, ref)[-1:]
        if not found and _HASH.fullmatch(ref):
            found = [v for v in list_versions(workspace) if v.hash.startswith(ref)]
    if not found:
        raise NotFoundError.of("dataset", ref, {v.dataset for v in list_versions(workspace)})
    if len({v.hash for v in found}) > 1:
        raise NotFoundError(
            f"{len(found)} dataset versions begin with {ref!r}.",
            hint="Give more digits: " + ", ".join(v.hash[:12] for v in found),
        )
    return found[-1]


def load_version(workspace: Workspace, ref: str) -> tuple[pa.Table, Schema]:
    """Read a version back: a table whose columns give the same physical columns and target as when it was written."""
    version = find_version(workspace, ref)
    data = workspace.artifacts.get(version.artifacts["table"])
    return pq.read_table(pa.BufferReader(data)), version.schema


def load_profile(workspace: Workspace, ref: str) -> dict[str, Any]:
    """Read the profile of a version."""
    version = find_version(workspace, ref)
    return dict(json.loads(workspace.artifacts.get(version.artifacts["profile"])))


def canonical(raw: RawTable | pa.Table, schema: Schema) -> pa.Table:
    """Bring a table into the form that is kept: typed features, and text for all that no model sees."""
    table = raw.table if isinstance(raw, RawTable) else raw
    columns = [_canonical(table[c.name], c) for c in schema]
    return pa.Table.from_arrays(columns, names=list(schema.names))


def _canonical(values: pa.ChunkedArray, column: Column) -> pa.Array:
    if not column.type.is_feature:
        return _kept(values, column)
    physical, bad = vector.physical(values, column.type, column.unit)
    if column.type.is_string:
        return pa.array(physical, pa.string(), mask=physical == "")
    gone = np.isnan(physical)
    if column.type is SemanticType.BOOLEAN:
        return pa.array(physical == 1, pa.bool_(), mask=gone | bad)
    if column.type is SemanticType.DATETIME:
        ticks = np.round(np.nan_to_num(physical) * 1e6).astype(np.int64)
        return pa.array(ticks, pa.timestamp("us", "UTC"), mask=gone)
    return pa.array(physical + 0.0, pa.float64(), mask=gone)


def _kept(values: pa.ChunkedArray, column: Column) -> pa.Array:
    """Text of a column that is no feature; numbers of a numeric target in their shortest form."""
    if column.type is SemanticType.IGNORED:  # nested values, bytes, unusual types: text is what they have in common
        cells = [v.hex() if isinstance(v, bytes) else v for v in values.to_pylist()]
        return pa.array(
            [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in cells], pa.string()
        )
    values = vector.plain(values)
    kind = values.type
    if column.type is SemanticType.TARGET and vector.is_text(kind):
        numbers, bad = coerce.target_numbers(values)
        if not bad.any():
            values = pa.chunked_array([pa.array(numbers, pa.float64(), mask=np.isnan(numbers))])
    if column.type is SemanticType.TIME and (column.unit or "").startswith("datetime:"):
        seconds, _ = vector.physical(values, SemanticType.DATETIME, column.unit)
        ticks = np.round(np.nan_to_num(seconds) * 1e6).astype(np.int64)
        return pa.array(ticks, pa.timestamp("us", "UTC"), mask=np.isnan(seconds))
    texts = vector.strings(vector.native_text(values), category=True)
    return pa.array(texts, pa.string(), mask=texts == "")


def content_hash(table: pa.Table, schema: Schema) -> str:
    """SHA-256 over names, types and values of a canonical table."""
    digest = hashlib.sha256(b"tidemill dataset 1\n")
    digest.update(json.dumps([[c.name, c.type.value] for c in schema]).encode())
    digest.update(str(table.num_rows).encode())
    for column in table.columns:
        for part in _bytes(column):
            digest.update(part)
    return digest.hexdigest()


def _bytes(column: pa.ChunkedArray) -> list[bytes]:
    """Bytes that say the values: independent of chunks, slices and what stands under a null."""
    gone = vector.missing(column)
    if vector.is_text(column.type):
        words = [w.encode() for w in column.to_pylist() if w is not None]
        lengths = np.fromiter(map(len, words), dtype="<i8", count=len(words))
        return [np.packbits(gone).tobytes(), lengths.tobytes(), b"".join(words)]
    if pa.types.is_boolean(column.type):
        values: NDArray[Any] = vector.to_numpy(column.cast(pa.uint8()).fill_null(0)).astype("<u1")
    elif pa.types.is_timestamp(column.type):
        values = vector.to_numpy(column.cast(pa.int64()).fill_null(0)).astype("<i8")
    else:
        values = vector.to_numpy(column.fill_null(0.0)).astype("<f8")
    return [np.packbits(gone).tobytes(), values.tobytes()]


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())
