"""What a check sees and what it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Columns, Schema
from tidemill.core.task import Task
from tidemill.data import coerce
from tidemill.data.ingest._base import RawTable

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""Worst first."""
_SEED = 7
_CELLS = 4_000_000
"""Checks that look at every column take a sample of rows, so that they look at about so many cells."""


@dataclass(frozen=True)
class Finding:
    """One thing that may spoil a model.

    Parameters
    ----------
    severity : str
        ``"error"``: training makes no sense; ``"warning"``: results may mislead; ``"info"``: good to know.
    code : str
        Short stable name of the finding, for programs.
    column : str or None
        The column it is about.
    message : str
        What was found, with its number.
    hint : str
        What to do about it.
    """

    severity: Severity
    code: str
    column: str | None
    message: str
    hint: str


@dataclass(frozen=True)
class Examined:
    """A table under examination; ``test`` holds the same features of the test file, where there is one."""

    raw: RawTable
    schema: Schema
    task: Task | None
    columns: Columns
    test: Columns | None = None

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.raw.rows

    @cached_property
    def y(self) -> NDArray[Any] | None:
        """Target of each row: codes (-1 for none) or values (NaN for none); None without a task."""
        return None if self.task is None else coerce.encode_target(self.raw, self.task)

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """Rows with a target, or a uniform sample of them where columns are many."""
        if self.y is None or self.task is None:
            return np.empty(0, dtype=np.int64)
        known = np.flatnonzero(self.y >= 0 if self.task.kind.is_classification else np.isfinite(self.y))
        return _sample(known, len(self.columns))


def _sample(rows: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    most = int(np.clip(_CELLS // max(1, columns), 2000, 50_000))
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(_SEED).choice(rows, most, replace=False))


def sample_rows(n: int, columns: int) -> NDArray[np.int64]:
    """Return all rows, or a uniform sample of them where columns are many."""
    return _sample(np.arange(n), columns)


class Check(Protocol):
    """Looks at a table and yields what it finds; changes nothing, and takes seconds at most."""

    def __call__(self, table: Examined, /) -> Iterator[Finding]:
        """Called once per table. A check that does not apply yields nothing."""
