"""The contract of an online store: packed rows by key, and the one rule by which a row replaces another."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tidemill.core.errors import DataError

Cell = tuple[bytes | None, bytes | None]
"""What stands under one key: the whole row, and the patch of changes since; None where there is none."""

Change = Callable[[bytes, Cell], Cell]
"""Gives the new cell of a key from the old one; called inside a transaction, perhaps twice: it must be pure."""

Span = tuple[int, int]
"""First byte and number of bytes of a piece of a row."""

NOTHING: Cell = (None, None)
STAMP_BYTES = 16
MAX_KEY_BYTES = 500
"""LMDB keeps keys of at most 511 bytes; every store has the same limit, so that rows can move between them."""

_STAMP = struct.Struct(">QQ")
_BIAS = 1 << 63


def stamp(event_ns: int, created_ns: int) -> bytes:
    """Write event time and created time so that bytes compare as the times do.

    Parameters
    ----------
    event_ns, created_ns : int
        Nanoseconds since 1970, UTC; may be negative.

    Examples
    --------
    >>> stamp(-1, 5) < stamp(0, 4) < stamp(0, 5)
    True
    """
    return _STAMP.pack(event_ns + _BIAS, created_ns + _BIAS)


def times_of(row: bytes | memoryview) -> tuple[int, int]:
    """Read event time and created time (nanoseconds since 1970) from the front of a row or a patch."""
    event, created = _STAMP.unpack_from(row)
    return event - _BIAS, created - _BIAS


def newest_stamp(cell: Cell) -> bytes:
    """Give the stamp of the newest value in a cell; empty, which is less than any stamp, for an empty cell."""
    row, patch = cell
    return max(b"" if row is None else bytes(row[:STAMP_BYTES]), b"" if patch is None else bytes(patch[:STAMP_BYTES]))


def check_items(items: Sequence[tuple[bytes, bytes]]) -> None:
    """Refuse keys that are too long and rows without a stamp, before anything is written."""
    for key, row in items:
        check_key(key)
        if len(row) < STAMP_BYTES:
            raise DataError(f"A row begins with a stamp of {STAMP_BYTES} bytes, but got {len(row)} bytes.")


def check_key(key: bytes) -> bytes:
    """Refuse a key that some store could not keep."""
    if not 0 < len(key) <= MAX_KEY_BYTES:
        raise DataError(
            f"A key has 1 to {MAX_KEY_BYTES} bytes, but this one has {len(key)}.",
            hint="Shorten the entity's key, or the name of the group.",
        )
    return key


def cut(row: bytes, spans: Sequence[Span]) -> bytes:
    """Join pieces of a row."""
    return b"".join([row[start : start + size] for start, size in spans])


class OnlineStore(Protocol):
    """Rows and patches by key. Safe for many threads and processes at once.

    A row and a patch begin with a stamp (see `stamp`). What an acknowledged call wrote has reached the disk, as far as
    the store has one. Where the store can't be reached or is full, every method raises `WorkspaceError`; the call may
    then have been done or not, never in part, and can be repeated.
    """

    def put_many(self, items: Sequence[tuple[bytes, bytes]]) -> int:
        """Write whole rows in one transaction; gives how many were written.

        A row whose stamp is less than the newest stamp under its key is left out; with an equal stamp the later one
        wins. A row that is written takes the patch away.
        """

    def get(self, key: bytes) -> Cell:
        """Read the cell of one key, as `get_many` does: the least work for what is asked one by one."""

    def get_many(self, keys: Sequence[bytes]) -> list[Cell]:
        """Read the cells of keys, in their order; ``(None, None)`` where there is nothing."""

    def get_columns(self, keys: Sequence[bytes], spans: Sequence[Span]) -> list[Cell]:
        """Read pieces of rows, joined, with the whole patch beside them; a piece past the row's end is cut short."""

    def update_many(self, keys: Sequence[bytes], change: Change) -> None:
        """Read the cells of keys, change them and write them back, in one transaction; ``(None, None)`` removes."""

    def delete(self, keys: Sequence[bytes]) -> int:
        """Remove rows and patches; gives how many keys had any. Absent ones are fine."""

    def scan(self, prefix: bytes = b"") -> Iterator[tuple[bytes, Cell]]:
        """Go through the keys that begin so, sorted, each once; what is written meanwhile may be seen or not."""

    def close(self) -> None:
        """Let files and connections go; twice is allowed."""
