"""Answers on the way to another program: JSON, an Arrow stream, or packed numbers."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.data.features.instants import ARROW_TIME
from tidemill.data.features.online import stream
from tidemill.data.features.online.answer import ABSENT, Answer, Selection
from tidemill.data.features.online.features import OnlineFeatures, entities_of

JSON, ARROW, PACKED = "application/json", "application/vnd.apache.arrow.stream", "application/vnd.tidemill.features"
TYPES = (JSON, ARROW, PACKED)

MAX_ENTITIES = 1000
"""Entities of one question."""
MAX_VALUES = 5_000_000
"""Entities × features of one question."""

_MARK = b"tidemill features 1\n"
_SIZE = struct.Struct("<I")


@dataclass(frozen=True)
class Found:
    """Answers to one question, by group.

    Parameters
    ----------
    keys : mapping of str to sequence
        What was asked for, by key column.
    answers : mapping of str to Answer
        By name of the group, in the order asked for.
    """

    keys: Mapping[str, Sequence[Any]]
    answers: Mapping[str, Answer]


def ask(online: OnlineFeatures, features: Sequence[str], keys: Mapping[str, Sequence[Any]]) -> Found:
    """Read features of several groups for the same entities.

    Parameters
    ----------
    online : OnlineFeatures
        The workspace's online features.
    features : sequence of str
        ``"user"`` for all features of a group, ``"user:age"`` for one.
    keys : mapping of str to sequence
        Key columns by name, all of one length.

    Raises
    ------
    NotFoundError
        For an unknown group, feature or key column, with the nearest names.
    DataError
        For keys that are missing, of the wrong type, or of different lengths.
    OptionError
        Where too much is asked for at once.
    """
    if not features:
        raise OptionError("Ask for at least one feature or group.")
    lengths = {len(column) for column in keys.values()}
    if len(lengths) != 1:
        shown = {name: len(column) for name, column in keys.items()}
        raise DataError(f"Key columns must have one length, but have {shown}.", hint="Give at least one entity.")
    (count,) = lengths
    if not 0 < count <= MAX_ENTITIES:
        raise OptionError(f"A question is about 1 to {MAX_ENTITIES:,} entities, but got {count:,}.", hint="Split it.")
    asked = [(name, online.group(name), columns) for name, columns in _wanted(tuple(features))]
    for name in keys:
        if not any(name in group.entity_names for _, group, _ in asked):
            known = {key for _, group, _ in asked for key in group.entity_names}
            raise NotFoundError.of("entity key in these groups:", name, known)
    values = count * sum([len(group.all.names if columns is None else columns) for _, group, columns in asked])
    if values > MAX_VALUES:
        raise OptionError(f"A question is about {MAX_VALUES:,} values, but this is about {values:,}.", hint="Split it.")
    return Found(keys, {name: group.read(entities_of(group, keys), columns) for name, group, columns in asked})


@lru_cache(maxsize=256)
def _wanted(features: tuple[str, ...]) -> tuple[tuple[str, tuple[str, ...] | None], ...]:
    """Give groups in the order asked for, each with its features, or None for all of them."""
    wanted: dict[str, dict[str, None] | None] = {}
    for reference in features:
        name, _, feature = reference.partition(":")
        columns = wanted.setdefault(name, {})
        if not feature:
            wanted[name] = None
        elif columns is not None:
            columns[feature] = None
    return tuple((name, None if columns is None else tuple(columns)) for name, columns in wanted.items())


def to_json(found: Found, *, names: bool = True) -> bytes:
    """Write JSON: for each group its features, and for each entity values, state and event time (ISO 8601)."""
    groups = [_head(name, a, names) | {"values": _rows(a)} for name, a in found.answers.items()]
    return orjson.dumps({"groups": groups}, option=orjson.OPT_SERIALIZE_NUMPY)


def to_arrow(found: Found, *, names: bool = True) -> bytes:
    """Write an Arrow stream: the keys, the features, and for each group ``group__event_time`` and ``group__state``.

    Features are called ``group__feature`` where more than one group was asked for. Without names, all features of a
    group are one column ``group__values`` of float32 lists (NaN is missing): of thousands of columns the names and
    places alone take many times the bytes of a row.

    Raises
    ------
    OptionError
        Without names, where a feature is no packed number.
    """
    if not names:
        _need_numbers(found)
    elif not all(answer.selection.all_float32 for answer in found.answers.values()):
        return _table_stream(found)
    sections = [
        stream.texts(column) if _is_text(column) else stream.words(np.array(column, np.int64))
        for column in found.keys.values()
    ]
    for answer in found.answers.values():
        absent = [state == ABSENT for state in answer.states]
        sections.append(stream.numbers(answer.numbers) if names else stream.lists(answer.numbers))
        sections += [stream.words(answer.event_ns, absent), stream.texts(answer.states)]
    return stream.write(_schema(found, names), len(next(iter(found.answers.values()))), sections)


def to_packed(found: Found, *, names: bool = False) -> bytes:
    """Write numbers as they are used: a short JSON head, then one float32 matrix for each group (NaN is missing).

    Raises
    ------
    OptionError
        Where a feature is no packed number: text, times and 64-bit numbers need JSON or Arrow.
    """
    _need_numbers(found)
    heads = [_head(name, a, names) | {"width": a.numbers.shape[1]} for name, a in found.answers.items()]
    head = orjson.dumps({"rows": len(next(iter(found.answers.values()))), "groups": heads})
    return packed(head, [np.ascontiguousarray(a.numbers, "<f4").data for a in found.answers.values()])


def packed(head: bytes, matrices: Sequence[memoryview]) -> bytes:
    """Put a head and the bytes of matrices together as `to_packed` promises."""
    size = len(_MARK) + _SIZE.size + len(head)
    return b"".join([_MARK, _SIZE.pack(len(head)), head, bytes(-size % 8), *matrices])


def read_packed(data: bytes) -> dict[str, tuple[NDArray[np.float32], dict[str, Any]]]:
    """Read what `to_packed` wrote: for each group the matrix (a view of ``data``) and its head.

    Raises
    ------
    DataError
        Where it was not written so.
    """
    try:
        if not data.startswith(_MARK):
            raise ValueError("it begins otherwise")
        (size,) = _SIZE.unpack_from(data, len(_MARK))
        at = len(_MARK) + _SIZE.size
        head = json.loads(data[at : at + size])
        at += size
        at += -at % 8
        found = {}
        for group in head["groups"]:
            count = head["rows"] * group["width"]
            if count < 0 or group["width"] < 0:
                raise ValueError("a size is negative")
            matrix = np.frombuffer(data, "<f4", count, at).reshape(head["rows"], group["width"])
            found[str(group["group"])] = (matrix, group)
            at += 4 * count
        if at != len(data):
            raise ValueError("it has another length than it says")
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise DataError(f"This is no packed answer: {error}.") from error
    return found


def _need_numbers(found: Found) -> None:
    for name, answer in found.answers.items():
        if not answer.selection.plain:
            packed = {f.name for f in answer.selection.rows.layout.packed}
            other = next(n for n in answer.names if n not in packed)
            raise OptionError(
                f"The feature {other!r} of group {name!r} is no packed number.",
                hint=f"Accept {JSON}, or {ARROW} with names.",
            )


def _head(name: str, answer: Answer, names: bool) -> dict[str, Any]:
    head: dict[str, Any] = {
        "group": name,
        "schema_version": answer.selection.rows.group.schema_version,
        "states": answer.states,
        "event_time": answer.times(),
    }
    return head | {"features": orjson.Fragment(answer.selection.names_json)} if names else head


def _rows(answer: Answer) -> Any:
    """Give values for JSON: a float32 matrix where all are float32, else lists of plain values."""
    if answer.selection.all_float32:
        return np.ascontiguousarray(answer.numbers)
    return [list(row.values()) for row in answer.to_rows()]


def _schema(found: Found, names: bool) -> bytes:
    """Give the message that says which columns a stream has; kept, because it is larger than the numbers of a row."""
    keys = tuple((name, _is_text(column)) for name, column in found.keys.items())
    asked = tuple((name, answer.selection) for name, answer in found.answers.items())
    kept = asked[0][1].schemas
    schema = kept.get((names, keys, asked))
    if schema is None:
        if len(kept) > 64:  # askers who never repeat themselves must not fill the memory
            kept.clear()
        schema = kept[names, keys, asked] = _write_schema(keys, asked, names)
    return schema


def _write_schema(keys: Sequence[tuple[str, bool]], asked: Sequence[tuple[str, Selection]], names: bool) -> bytes:
    fields = [(name, pa.string() if text else pa.int64()) for name, text in keys]
    for name, selection in asked:
        front = f"{name}__" if len(asked) > 1 else ""
        if names:
            fields += [(front + feature, pa.float32()) for feature in selection.names]
        else:
            fields.append((f"{name}__values", pa.list_(pa.float32(), len(selection.names))))
        fields += [(f"{name}__event_time", ARROW_TIME), (f"{name}__state", pa.string())]
    return bytes(pa.schema(fields).serialize().to_pybytes())


def _table_stream(found: Found) -> bytes:
    """Write an Arrow stream of features of any types."""
    columns: dict[str, Any] = {name: pa.array(values) for name, values in found.keys.items()}
    several = len(found.answers) > 1
    for name, answer in found.answers.items():
        table = answer.to_arrow()
        for column in answer.names:
            columns[f"{name}__{column}" if several else column] = table[column]
        columns |= {f"{name}{c}": table[c] for c in ("__event_time", "__state")}
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _is_text(column: Sequence[Any]) -> bool:
    return isinstance(column[0], str)
