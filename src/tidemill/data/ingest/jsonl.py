"""JSON lines (one object per line), and a JSON array of objects; both may be compressed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.core.errors import DataError
from tidemill.data.ingest._base import RawTable, cells_to_array, finish
from tidemill.data.ingest._bytes import read_up_to, to_utf8

_SUFFIXES = (".jsonl", ".ndjson", ".json")
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def is_json(name: str) -> bool:
    """Say whether a file is JSON by its name.

    Examples
    --------
    >>> is_json("a.jsonl.gz"), is_json("a.csv")
    (True, False)
    """
    for suffix in _COMPRESSED:
        name = name.removesuffix(suffix)
    return name.endswith(_SUFFIXES)


def read(path: Path, *, max_rows: int | None = None) -> RawTable:
    """Read objects; keys that some of them lack are missing there, nested values stay nested."""
    where = str(path)
    data, _ = read_up_to(path, 1 << 62)
    data, notice = to_utf8(data, where)
    if not data.strip():
        raise DataError("The file is empty.", where=where, hint="Give one JSON object per line.")
    records = _array(data, where) if data.lstrip()[:1] == b"[" else list(_lines(data, where))
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record))
    if not names:
        raise DataError("The objects have no keys.", where=where)
    table = pa.table({name: cells_to_array([r.get(name) for r in records]) for name in names})
    return finish(table, where, [notice] if notice else [], max_rows=max_rows)


def _array(data: bytes, where: str) -> list[dict[str, Any]]:
    try:
        records = json.loads(data)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"This is not valid JSON ({error}).", where=where) from error
    for place, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise DataError(f"Element {place:,} is {_kind(record)} where an object is expected.", where=where)
    return list(records)


def _lines(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise DataError(
                f"Line {number:,} is not valid JSON ({error}).", where=where, hint="Give one JSON object per line."
            ) from error
        if not isinstance(record, dict):
            raise DataError(
                f"Line {number:,} is {_kind(record)} where an object is expected.",
                where=where, hint='Write each row as {"column": value, …}.',
            )  # fmt: skip
        yield record


def _kind(value: object) -> str:
    return {list: "an array", str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
