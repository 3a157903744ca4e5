"""Entities as dense codes: the key columns of a segment, sorted, and the way from a key to its code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tidemill.data.features.arrays import arrow_of, nulls_of, numpy_of
from tidemill.data.features.types import EntityKey, KeyType

Codes = NDArray[np.int64]

_DENSE = 8
"""Keys whose range is at most so many times their number are looked up in a table instead of being searched."""


@dataclass(frozen=True)
class EntityIndex:
    """All entities of some rows, and a code 0, 1, 2… for each; the codes follow the order of the keys.

    A key of several columns is coded column by column: the pair (code so far, code of the next column) becomes one
    number, and its rank among those that occur is the code. So no number ever grows beyond rows × values.

    Parameters
    ----------
    values : tuple of pyarrow.Array
        For each key column its different values, sorted.
    levels : tuple of int64 array
        For the second key column and each further one the sorted pair numbers that occur.
    """

    values: tuple[pa.Array, ...]
    levels: tuple[Codes, ...] = ()

    @property
    def size(self) -> int:
        """Number of entities."""
        return len(self.levels[-1]) if self.levels else len(self.values[0])

    def lookup(self, columns: Sequence[pa.Array]) -> Codes:
        """Give the code of each key, -1 where there is no such entity."""
        codes = _positions(self.values[0], columns[0])
        for level, values, column in zip(self.levels, self.values[1:], columns[1:], strict=True):
            further = _positions(values, column)
            codes = _rank(level, np.where((codes < 0) | (further < 0), -1, codes * len(values) + further))
        return codes

    def key_columns(self) -> list[pa.Array]:
        """Give the key columns of all entities, by code."""
        codes = np.arange(self.size)
        found: list[Codes] = []
        for level, values in zip(reversed(self.levels), reversed(self.values[1:]), strict=True):
            codes, further = np.divmod(level[codes], len(values))
            found.append(further)
        positions = [codes, *reversed(found)]
        return [values.take(arrow_of(at)) for values, at in zip(self.values, positions, strict=True)]


def index_entities(columns: Sequence[pa.Array]) -> tuple[EntityIndex, Codes]:
    """Give the index of the entities of some rows, and the code of each row.

    Examples
    --------
    >>> index, codes = index_entities([pa.array([7, 7, 3]), pa.array(["b", "a", "a"])])
    >>> codes.tolist(), [c.to_pylist() for c in index.key_columns()]
    ([2, 1, 0], [[3, 7, 7], ['a', 'a', 'b']])
    """
    values, codes = _sorted_values(columns[0])
    kept, levels = [values], []
    for column in columns[1:]:
        values, further = _sorted_values(column)
        level, codes = np.unique(codes * max(len(values), 1) + further, return_inverse=True)
        kept.append(values)
        levels.append(level)
    return EntityIndex(tuple(kept), tuple(levels)), codes.astype(np.int64, copy=False)


def key_type(key: EntityKey) -> pa.DataType:
    """Give the Arrow type that a key column is kept in."""
    return pa.int64() if key.type is KeyType.INT64 else pa.large_string()


def _sorted_values(column: pa.Array) -> tuple[pa.Array, Codes]:
    if pa.types.is_integer(column.type):
        numbers, codes = np.unique(numpy_of(column), return_inverse=True)
        return arrow_of(numbers, column.type), codes.astype(np.int64, copy=False)
    encoded = column.dictionary_encode()
    order = numpy_of(pc.sort_indices(encoded.dictionary))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order))
    return encoded.dictionary.take(arrow_of(order)), ranks[numpy_of(encoded.indices)]


def _positions(values: pa.Array, column: pa.Array) -> Codes:
    """Give the place of each cell among sorted values, -1 where it is not among them."""
    if pa.types.is_integer(column.type):
        return _rank(numpy_of(values), numpy_of(column))
    found = pc.index_in(column, value_set=values)
    return np.where(nulls_of(found), -1, numpy_of(found)).astype(np.int64)


def _rank(values: Codes, wanted: Codes) -> Codes:
    """Give the place of each number among sorted different ones, -1 where it is not among them."""
    if not len(values):
        return np.full(len(wanted), -1, dtype=np.int64)
    low, high = int(values[0]), int(values[-1])
    if high - low < _DENSE * min(len(values), len(wanted)):
        places = np.full(high - low + 1, -1, dtype=np.int64)
        places[values - low] = np.arange(len(values))
        inside = (wanted >= low) & (wanted <= high)
        return np.where(inside, places[np.where(inside, wanted, low) - low], -1)
    at = np.searchsorted(values, wanted)
    at[at == len(values)] = 0
    return np.where(values[at] == wanted, at, -1)
