"""Targets as conditions see them: stored as text, whatever they were when they came in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.schema import Schema, SemanticType
from tidemill.data.matching._vectors import Frame, Vector, column_types, frame, numbers_in

if TYPE_CHECKING:
    from tidemill.data.versions.reading import Layout


class Targets:
    """The targets of a version that are numbers or truth values to whoever asks.

    Parameters
    ----------
    layout : Layout
        The rows.
    schema : Schema
        What the columns mean: a target in which a range was seen may be a number.
    where : str, optional
        The condition; targets that it does not name are not read.

    Attributes
    ----------
    types : dict
        Kind of every column that a condition can ask for.
    """

    def __init__(self, layout: Layout, schema: Schema, where: str | None = None) -> None:
        self._stored = column_types(layout.manifest.schema)
        maybe = [c.name for c in schema if c.type is SemanticType.TARGET and c.low is not None]
        maybe = [n for n in maybe if where is None or n.casefold() in where.replace('""', '"').casefold()]
        self._kinds = {name: _kind(layout, name) for name in maybe if self._stored.get(name) is str}
        self.types: dict[str, type] = self._stored | self._kinds

    def frame(self, table: pa.Table | pa.RecordBatch, names: Iterable[str]) -> Frame:
        """Bring some columns of rows into vectors of these kinds."""
        found = frame(table, {n: self._stored[n] for n in names})
        columns = {n: _as(v, self._kinds[n]) if n in self._kinds else v for n, v in found.columns.items()}
        return Frame(columns, table.num_rows)


def _kind(layout: Layout, name: str) -> type:
    """Say what the words of a column were: numbers or truth values where all of them are."""
    words = frame(layout.table([name]), {name: str}).columns[name].words
    return str if words is None else _kind_of_words(words)


def _kind_of_words(words: NDArray[np.object_]) -> type:
    if set(words.tolist()) <= {"true", "false"}:
        return bool
    return str if np.isnan(numbers_in(words)).any() else float


def _as(vector: Vector, kind: type) -> Vector:
    if vector.words is None or kind is str:
        return vector
    if kind is bool:
        true = np.append(vector.words == "true", False)
        return Vector(bool, true[vector.values], vector.values < 0)
    return Vector(float, np.append(numbers_in(vector.words), np.nan)[vector.values])
