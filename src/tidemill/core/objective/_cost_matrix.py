"""What each kind of mistake costs."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidemill.core.errors import OptionError, nearest_hint


@dataclass(frozen=True)
class CostMatrix:
    """Costs of deciding a class (column) where another is true (row).

    Parameters
    ----------
    values : tuple of tuple of float, shape (K, K)
        ``values[i][j]``: cost of deciding class j for a row of class i. Any finite number; a negative one is a gain.
    labels : tuple of str or None
        The class of each row and column; None means the order of the task's classes.
    source : str or None
        The file it was read from; for messages alone, it plays no part in comparisons.

    Examples
    --------
    >>> c = CostMatrix(((0.0, 5.0), (1.0, 0.0)), ("fraud", "fine"))
    >>> c.aligned(("fine", "fraud")).array
    array([[0., 1.],
           [5., 0.]])
    >>> str(c)
    'cost(["fraud","fine"],[[0,5],[1,0]])'
    """

    values: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...] | None = None
    source: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        size = len(self.values)
        ragged = [i + 1 for i, row in enumerate(self.values) if len(row) != size]
        if size < 2 or ragged:
            shape = f"{size} rows" + (
                f", row {ragged[0]} with {len(self.values[ragged[0] - 1])} values" if ragged else ""
            )
            self._refuse(
                f"A cost matrix must be square with at least 2 classes, but got {shape}.",
                "One row for each true class, one column for each decided class.",
            )
        for i, row in enumerate(self.values):
            for j, value in enumerate(row):
                if not math.isfinite(value):
                    self._refuse(f"A cost must be finite, but row {i + 1}, column {j + 1} is {value}.")
        if self.labels is not None:
            if len(self.labels) != size:
                self._refuse(f"A cost matrix of {size} classes needs {size} labels, but got {len(self.labels)}.")
            twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
            if twice:
                self._refuse(f"The label {twice[0]!r} stands twice in the cost matrix.")

    def _refuse(self, message: str, hint: str | None = None) -> None:
        raise OptionError(message, hint=hint, where=self.source)

    @classmethod
    def of(cls, values: ArrayLike | Sequence[Sequence[float]], labels: Sequence[str] | None = None) -> CostMatrix:
        """Build from a list of lists or an array."""
        rows = tuple(tuple(float(v) for v in row) for row in np.asarray(values, dtype=np.float64).tolist())
        return cls(rows, None if labels is None else tuple(str(v) for v in labels))

    @classmethod
    def read(cls, path: str | Path) -> CostMatrix:
        """Read a CSV file: a header with the decided labels, then one line for each true label.

        ::

            true,no,yes
            no,0,1
            yes,5,0

        The corner may say anything. Lines may stand in another order than the columns.

        Raises
        ------
        OptionError
            With file, line and column of what is wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise OptionError(
                f"The cost matrix is not UTF-8 text (byte {error.start}).", where=str(path), hint="Save it as UTF-8."
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise OptionError(f"The cost matrix can't be read ({reason}).", where=str(path)) from error
        return _from_csv(text, str(path))

    @property
    def array(self) -> NDArray[np.float64]:
        """The costs as an array of shape (K, K)."""
        return np.array(self.values, dtype=np.float64)

    def aligned(self, classes: Sequence[str]) -> CostMatrix:
        """Return the matrix with rows and columns in the order of ``classes``.

        Raises
        ------
        OptionError
            Where the number of classes or a label doesn't fit.
        """
        wanted = tuple(classes)
        if len(wanted) != len(self.values):
            self._refuse(
                f"The cost matrix has {len(self.values)} classes, but the task has {len(wanted)}: {_listed(wanted)}."
            )
        if self.labels is None:
            return CostMatrix(self.values, wanted, self.source)
        for label in self.labels:
            if label not in wanted:
                self._refuse(f"The task has no class {label!r}.", nearest_hint(label, wanted))
        order = [self.labels.index(c) for c in wanted]
        return CostMatrix(tuple(tuple(self.values[i][j] for j in order) for i in order), wanted, self.source)

    def __str__(self) -> str:
        rows = ",".join("[" + ",".join(_number(v) for v in row) + "]" for row in self.values)
        if self.labels is None:
            return f"cost([{rows}])"
        labels = json.dumps(list(self.labels), ensure_ascii=False, separators=(",", ":"))
        return f"cost({labels},[{rows}])"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(n) for n in names[:8]) + (", …" if len(names) > 8 else "")


def _from_csv(text: str, source: str) -> CostMatrix:
    lines = [(i, row) for i, row in enumerate(csv.reader(io.StringIO(text)), start=1) if any(v.strip() for v in row)]
    if len(lines) < 2:
        raise OptionError(
            "The cost matrix is empty.", where=source, hint="Write a header of labels, then one line for each label."
        )
    columns = [v.strip() for v in lines[0][1][1:]]
    rows: dict[str, tuple[float, ...]] = {}
    for number, cells in lines[1:]:
        label = cells[0].strip()
        if label in rows:
            raise OptionError(f"The label {label!r} stands twice in the cost matrix.", where=f"{source}:{number}")
        if label not in columns:
            raise OptionError(
                f"The row {label!r} of the cost matrix has no column.",
                where=f"{source}:{number}",
                hint=nearest_hint(label, columns),
            )
        rows[label] = _costs(cells[1:], columns, f"{source}:{number}")
    missing = [c for c in columns if c not in rows]
    if missing:
        raise OptionError(f"The column {missing[0]!r} of the cost matrix has no row.", where=source)
    return CostMatrix(tuple(rows[c] for c in columns), tuple(columns), source)


def _costs(cells: list[str], columns: list[str], where: str) -> tuple[float, ...]:
    if len(cells) != len(columns):
        raise OptionError(
            f"A line of the cost matrix must have a label and {len(columns)} numbers, but this has {len(cells)}.",
            where=where,
        )
    out = []
    for column, cell in zip(columns, cells, strict=True):
        try:
            out.append(float(cell))
        except ValueError:
            raise OptionError(f"{cell!r} in column {column!r} is not a number.", where=where) from None
    return tuple(out)
