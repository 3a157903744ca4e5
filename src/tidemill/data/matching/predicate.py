"""Conditions on rows, written as in SQL after WHERE, computed on plain arrays.

::

    age between 20 and 30 and region = 'north'
    (score > 0.9 or label is null) and joined >= '2026-01-01' - interval 30 day
    lower(city) like 'san %' and not flagged

There are comparisons, ``BETWEEN``, ``IN`` (a list), ``LIKE`` and ``ILIKE``, ``IS NULL``, ``IS [NOT] DISTINCT FROM``,
``AND``, ``OR``, ``NOT``, arithmetic, times with intervals, and the functions ``abs ceil coalesce contains date_trunc
day dayofweek ends_with exp extract floor hour length ln lower minute month quarter round second sqrt starts_with trim
upper year``. A missing value makes a comparison unknown, and a row on which the whole is unknown is not chosen, as in
SQL. NaN is missing; so is what is divided by zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.data.matching import _vectors
from tidemill.data.matching._nodes import Not, Truth
from tidemill.data.matching._translate import translate
from tidemill.data.matching._vectors import Frame, column_types

__all__ = ["Predicate", "column_types", "parse"]

PART = 1 << 16
"""Rows that are computed at a time: a few columns of them fit the processor's cache."""


@dataclass(frozen=True)
class Predicate:
    """A condition that was read and fits its columns; made by `parse`.

    Parameters
    ----------
    text : str
        The condition in one normal form: reading it again gives the same text. Kept for replay.
    columns : tuple of str
        Names of the columns that it asks for, sorted.
    types : mapping
        Kind of each of them.
    root : Truth
        The tree.
    """

    text: str
    columns: tuple[str, ...]
    types: Mapping[str, type]
    root: Truth

    def mask(self, table: pa.Table | pa.RecordBatch | Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Say for each row whether the condition is true (not false, not unknown).

        Parameters
        ----------
        table : pyarrow.Table, pyarrow.RecordBatch or mapping of ndarray
            The rows; other columns than `columns` are not touched. Arrays may have the physical form
            (`tidemill.core.schema.Columns`).

        Returns
        -------
        ndarray of bool, shape (rows,)

        Raises
        ------
        DataError
            Where a column is absent or of another kind.

        Examples
        --------
        >>> import numpy as np
        >>> parse("age > 30 or age is null", {"age": float}).mask({"age": np.array([25, 40, np.nan])})
        array([False,  True,  True])
        """
        rows = None if isinstance(table, (pa.Table, pa.RecordBatch)) or table else 0
        if rows == 0 and self.columns == ():
            return np.zeros(0, dtype=bool)
        found = _vectors.frame(table, self.types)
        return self.mask_of(Frame(found.columns, _rows(table)))

    def opposite(self) -> Predicate:
        """Return the condition that holds where this one fails; where this one is unknown, so is that."""
        root = Not(self.root)
        return Predicate(str(root), self.columns, self.types, root)

    def mask_of(self, frame: Frame) -> NDArray[np.bool_]:
        """Do as `mask` on columns that were brought into vectors before."""
        out = np.empty(frame.rows, dtype=bool)
        with np.errstate(all="ignore"):
            for start, part in Frame(frame.columns, frame.rows).parts(PART):
                out[start : start + part.rows] = self.root.holds(part)
        return out

    def rows_of(self, frame: Frame) -> NDArray[np.int64]:
        """Return the numbers of the rows on which the condition is true, rising."""
        return np.flatnonzero(self.mask_of(frame))


def _rows(table: pa.Table | pa.RecordBatch | Mapping[str, NDArray[Any]]) -> int:
    if isinstance(table, (pa.Table, pa.RecordBatch)):
        return int(table.num_rows)
    return len(next(iter(table.values())))


def parse(text: str, columns: Mapping[str, type]) -> Predicate:
    """Read a condition.

    Parameters
    ----------
    text : str
        What stands after WHERE in SQL.
    columns : mapping
        Kind of each column: ``float`` (or ``int``), ``str``, ``bool`` or ``datetime`` (`column_types` tells it).
        Names may hold dots (``profile.age``) and, in double quotes, anything.

    Raises
    ------
    PredicateError
        What can't be read, with its position; an unknown column or function, with the nearest; values that don't
        fit together; a statement, or anything else that does more than ask.

    Examples
    --------
    >>> parse("Age BETWEEN 20 and 30", {"age": int}).text
    '"age" >= 20 AND "age" <= 30'
    >>> parse("agee > 3", {"age": int})
    Traceback (most recent call last):
        ...
    tidemill.core.errors.PredicateError: There is no column 'agee'. Did you mean 'age'?
      agee > 3
      ^
    """
    root, used = translate(text, columns)
    types = {name: float if columns[name] is int else columns[name] for name in used}
    return Predicate(str(root), used, types, root)
