"""A version as files that other tools read: Parquet, CSV, JSON lines, the layout of Hugging Face data sets, Delta."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from tidemill.core.errors import MissingExtraError, OptionError, WorkspaceError
from tidemill.data.versions.ledger import DatasetVersion, find_version, layout_of
from tidemill.data.versions.manifest import BLOB
from tidemill.data.versions.operations._base import target_of
from tidemill.data.versions.reading import Layout
from tidemill.store.workspace import Workspace

FORMATS = ("parquet", "csv", "jsonl", "huggingface", "delta")


def export(
    workspace: Workspace,
    ref: str,
    out: str | Path,
    *,
    form: str | None = None,
    without: Sequence[str] = (),
    most_bytes: int | None = None,
) -> Path:
    """Write a version; memory stays bounded, and a file that fails half-way is not left behind.

    Parameters
    ----------
    workspace : Workspace
        Where from.
    ref : str
        The version.
    out : path
        File to write; a folder for ``"huggingface"`` and ``"delta"``, which must not exist yet.
    form : str, optional
        ``"parquet"``, ``"csv"``, ``"jsonl"``, ``"huggingface"`` or ``"delta"``; default by the file's ending.
    without : sequence of str
        Columns to leave out.
    most_bytes : int, optional
        A file that grows beyond this is given up; not for folders.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    OptionError
        For an unknown format, a folder that exists, or a file that would be too large.
    WorkspaceError
        Where the place can't be written.
    """
    path = Path(out)
    form = form or _by_ending(path)
    if form not in FORMATS:
        raise OptionError(f"There is no format {form!r}.", hint=f"Formats are {', '.join(FORMATS)}.", where="--to")
    version = find_version(workspace, ref)
    layout = layout_of(workspace, version)
    for name in without:
        _ = version.schema[name]
    columns = [c for c in layout.manifest.schema.names if c not in set(without)]
    if not columns:
        raise OptionError("Every column would be left out.")
    try:
        if form == "huggingface":
            _into_folder(path, lambda folder: _huggingface(workspace, version, layout, columns, folder))
        elif form == "delta":
            _delta(layout, columns, path)
        else:
            writer = {"parquet": _parquet, "csv": _csv, "jsonl": _jsonl}[form]
            schema = _schema(layout, columns)
            _into_file(path, lambda file: writer(_bounded(_batches(layout, columns), file, most_bytes), schema, file))
    except OSError as error:
        raise WorkspaceError(
            f"The export can't be written: {error.strerror or error}.",
            hint="Choose another place, or free some space.",
            where=str(path),
        ) from error
    return path


def _by_ending(path: Path) -> str:
    found = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    form = found.get(path.suffix.lower())
    if form is None:
        raise OptionError(
            f"The ending {path.suffix!r} tells no format.", hint=f"Say one of {', '.join(FORMATS)}.", where="--to"
        )
    return form


def _into_file(path: Path, write: Callable[[Path], None]) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(name))
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _into_folder(path: Path, write: Callable[[Path], None]) -> None:
    if path.exists():
        raise OptionError(
            "There is something already.", where=str(path), hint="Choose a folder that doesn't exist yet."
        )
    name = tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        write(Path(name))
        os.chmod(name, 0o755)
        os.replace(name, path)
    except BaseException:
        shutil.rmtree(name, ignore_errors=True)
        raise


def _batches(layout: Layout, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return layout.batches(columns)


def _bounded(batches: Iterator[pa.RecordBatch], path: Path, most_bytes: int | None) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        yield batch
        if most_bytes is not None and path.stat().st_size > most_bytes:
            raise OptionError(
                f"The export is larger than {most_bytes:,} bytes.", hint="Sample or filter the version first."
            )


def _schema(layout: Layout, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([layout.manifest.schema.field(c) for c in columns])


def _parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _csv(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    with pacsv.CSVWriter(path, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _jsonl(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        for batch in batches:
            for row in batch.to_pylist():
                plain = {k: _plain(v) for k, v in row.items()}
                file.write(json.dumps(plain, ensure_ascii=False, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return None  # JSON has no such numbers
        return int(value) if value == int(value) and abs(value) < 1e15 else value
    return value.isoformat() if hasattr(value, "isoformat") else value


def _huggingface(
    workspace: Workspace, version: DatasetVersion, layout: Layout, columns: Sequence[str], folder: Path
) -> None:
    """``data/train-00000-of-00001.parquet`` and a card; images as structs of bytes and path, as `datasets` has them."""
    data = folder / "data"
    data.mkdir()
    media = {f.name: f.blob.removeprefix(BLOB).partition(":")[0] for f in layout.manifest.fields if f.blob}
    images = [name for name in media if name in columns]
    schema = pa.schema([_hf_field(f, f.name in images) for f in _schema(layout, columns)])
    told = {"info": {"features": {f.name: _hf_feature(f, media.get(f.name, "")) for f in schema}}}
    schema = schema.with_metadata({"huggingface": json.dumps(told)})
    with pq.ParquetWriter(data / "train-00000-of-00001.parquet", schema, compression="zstd") as writer:
        for batch in layout.batches(columns, most=1 << 8 if images else 1 << 16):
            arrays = [
                _with_bytes(workspace, batch.column(i)) if c in images else batch.column(i)
                for i, c in enumerate(columns)
            ]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    (folder / "README.md").write_text(_card(version, layout, columns), encoding="utf-8")


def _hf_field(field: pa.Field, image: bool) -> pa.Field:
    return pa.field(field.name, pa.struct([("bytes", pa.binary()), ("path", pa.string())])) if image else field


def _hf_feature(field: pa.Field, medium: str) -> dict[str, Any]:
    if medium in ("image", "audio"):
        return {"_type": medium.capitalize()}
    if medium:
        return {"bytes": {"dtype": "binary", "_type": "Value"}, "path": {"dtype": "string", "_type": "Value"}}
    names = {"double": "float64", "bool": "bool", "string": "string"}
    return {"dtype": names.get(str(field.type), str(field.type)), "_type": "Value"}


def _with_bytes(workspace: Workspace, column: pa.Array) -> pa.Array:
    cells = [
        None if key is None else {"bytes": workspace.artifacts.get(key), "path": key} for key in column.to_pylist()
    ]
    return pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _card(version: DatasetVersion, layout: Layout, columns: Sequence[str]) -> str:
    target = target_of(version.schema)
    kept = [c for c in version.schema if c.name in set(columns)]
    lines = [
        "---",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: data/train-*.parquet",
        "---",
        "",
        f"# {version.dataset}",
        "",
        f"{layout.rows:,} rows, {len(columns)} columns; version `{version.hash}`, made by {version.operation}.",
        "",
        "| column | meaning |",
        "|---|---|",
        *(f"| {c.name} | {c.type.value}{' (the label)' if c.name == target else ''} |" for c in kept),
        "",
    ]
    return "\n".join(lines)


def _delta(layout: Layout, columns: Sequence[str], path: Path) -> None:
    try:
        delta = importlib.import_module("deltalake")
    except ModuleNotFoundError as error:
        raise MissingExtraError.of("deltalake", "to export as a Delta table", extra="delta") from error
    problem = importlib.import_module("deltalake.exceptions").DeltaError

    def write(folder: Path) -> None:
        reader = pa.RecordBatchReader.from_batches(_schema(layout, columns), _batches(layout, columns))
        try:
            delta.write_deltalake(str(folder), reader)
        except problem as error:
            raise WorkspaceError(f"The Delta table can't be written: {error}", where=str(path)) from error

    _into_folder(path, write)
