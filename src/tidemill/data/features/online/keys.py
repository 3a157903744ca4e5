"""Keys of rows: virtual shard, group, entity. Every store uses the same ones, so that rows can move between stores."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.core.errors import DataError
from tidemill.data.features.online._base import check_key
from tidemill.data.features.types import EntityKey, FeatureGroup, KeyType

SHARDS = 1024
"""Virtual shards. An entity's shard follows from its key alone and never changes; where a shard lies may."""

_SHARD = struct.Struct(">H")
_INT = struct.Struct(">Q")
_BIAS = 1 << 63


def shard_of(entity: bytes) -> int:
    """Give the virtual shard of an entity, 0 to 1023; all groups of an entity share it.

    Examples
    --------
    >>> shard_of(b"user 7") == shard_of(b"user 7")
    True
    """
    return zlib.crc32(entity) % SHARDS


def shard_prefix(shard: int) -> bytes:
    """Give the first bytes of every key in a virtual shard."""
    return _SHARD.pack(shard)


def group_prefix(shard: int, group: str) -> bytes:
    """Give the first bytes of every key of a group in a virtual shard."""
    name = group.encode("ascii")
    return _SHARD.pack(shard) + bytes((len(name),)) + name


def key_maker(group: FeatureGroup) -> Callable[[Any], bytes]:
    """Give the function that turns an entity's key into the key of its row.

    The function takes one value for a group with one key, else a tuple of values in the group's order or a mapping by
    name, and raises `DataError` for a null or a value of the wrong type.

    Examples
    --------
    >>> from tidemill.data.features.types import Feature
    >>> make = key_maker(FeatureGroup("user", (EntityKey("user_id"),), (Feature("age"),)))
    >>> make(7) == make({"user_id": 7}), len(make(7))
    (True, 15)
    """
    fronts = [group_prefix(shard, group.name) for shard in range(SHARDS)]
    parts = group.entity
    crc32 = zlib.crc32

    def several(value: Any) -> bytes:
        entity = encode_entity(parts, value)
        return check_key(fronts[crc32(entity) % SHARDS] + entity)

    def one_number(value: Any) -> bytes:
        if type(value) is not int:
            return several(value)
        try:
            entity = _INT.pack(value + _BIAS)
        except struct.error:
            raise _wrong(parts[0], value) from None
        return fronts[crc32(entity) % SHARDS] + entity

    return one_number if len(parts) == 1 and parts[0].type is KeyType.INT64 else several


def encode_entity(parts: Sequence[EntityKey], value: Any) -> bytes:
    """Write an entity's key as bytes: different entities give different bytes, and their order is kept."""
    values = _values(parts, value)
    last = len(parts) - 1
    return b"".join([_encode(part, v, i == last) for i, (part, v) in enumerate(zip(parts, values, strict=True))])


def decode_entity(parts: Sequence[EntityKey], entity: bytes) -> tuple[Any, ...]:
    """Read the values back.

    Examples
    --------
    >>> parts = (EntityKey("shop", KeyType.STRING), EntityKey("user"))
    >>> decode_entity(parts, encode_entity(parts, ("Ulm", -3)))
    ('Ulm', -3)
    """
    values: list[Any] = []
    rest = entity
    try:
        for i, part in enumerate(parts):
            value, rest = _decode(part, rest, i == len(parts) - 1)
            values.append(value)
    except (struct.error, ValueError) as error:
        raise DataError(f"These bytes are no entity key: {entity[:40]!r}.") from error
    if rest:
        raise DataError(f"These bytes are no entity key: {entity[:40]!r}.")
    return tuple(values)


def split_key(key: bytes) -> tuple[int, str, bytes]:
    """Read shard, name of the group and entity bytes from the key of a row."""
    end = 3 + key[2] if len(key) > 2 else 0
    if len(key) < max(end, 4):
        raise DataError(f"These bytes are no key of a row: {key[:40]!r}.")
    return int.from_bytes(key[:2], "big"), key[3:end].decode("ascii", "replace"), key[end:]


def _values(parts: Sequence[EntityKey], value: Any) -> Sequence[Any]:
    if isinstance(value, Mapping):
        absent = [p.name for p in parts if p.name not in value]
        if absent:
            raise DataError(f"The entity key has no {absent[0]!r}.", hint=f"Give {_names(parts)}.")
        return [value[p.name] for p in parts]
    if len(parts) == 1 and not isinstance(value, (tuple, list)):
        return (value,)
    if not isinstance(value, (tuple, list)) or len(value) != len(parts):
        raise DataError(f"An entity key has the parts {_names(parts)}, but got {value!r:.80}.")
    return value


def _names(parts: Sequence[EntityKey]) -> str:
    return ", ".join(repr(p.name) for p in parts)


def _encode(part: EntityKey, value: Any, last: bool) -> bytes:
    if part.type is KeyType.INT64:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
            raise _wrong(part, value)
        try:
            return _INT.pack(int(value) + _BIAS)
        except struct.error:
            raise _wrong(part, value) from None
    if not isinstance(value, str):
        raise _wrong(part, value)
    try:
        data = value.encode()
    except UnicodeEncodeError:
        raise _wrong(part, value) from None
    # Only the last part may end without a mark; a zero byte inside is told from the mark by what follows it.
    return data if last else data.replace(b"\0", b"\0\xff") + b"\0\1"


def _decode(part: EntityKey, data: bytes, last: bool) -> tuple[Any, bytes]:
    if part.type is KeyType.INT64:
        return _INT.unpack_from(data)[0] - _BIAS, data[8:]
    if last:
        return data.decode(), b""
    end = data.index(b"\0\1")
    return data[:end].replace(b"\0\xff", b"\0").decode(), data[end + 2 :]


def _wrong(part: EntityKey, value: Any) -> DataError:
    if value is None:
        return DataError(f"The entity key {part.name!r} is missing.", hint="Every row needs its whole key.")
    kind = "a whole number of 64 bits" if part.type is KeyType.INT64 else "a text"
    return DataError(f"The entity key {part.name!r} must be {kind}, but got {value!r:.80} ({type(value).__name__}).")
