"""Whether a version is what was expected."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tidemill.core.errors import NotFoundError
from tidemill.data.checks._base import SEVERITIES, Finding
from tidemill.data.expectations.infer import KIND_NAMES, known
from tidemill.data.expectations.suite import ColumnExpectation, Suite
from tidemill.data.matching._vectors import US, Vector
from tidemill.data.matching.sources import LINEAGE, VersionSource
from tidemill.store.workspace import Workspace

_GROUP = 64
_SHOWN = 5


def check_version(
    workspace: Workspace, ref: str, suite: Suite, *, clock: Callable[[], float] = time.time
) -> list[Finding]:
    """Hold a version against a suite.

    Parameters
    ----------
    workspace : Workspace
        Where the version is.
    ref : str
        The version.
    suite : Suite
        What is expected.
    clock : callable
        Gives the time, for freshness.

    Returns
    -------
    list of Finding
        What is broken, worst first; empty where all holds.
    """
    source = VersionSource(workspace, ref)
    found = [*_table(source, suite), *_freshness(source, suite, clock)]
    names = [n for n in suite.columns if n in source.types and n not in LINEAGE]
    for start in range(0, len(names), _GROUP):
        for name, vector in source.load(names[start : start + _GROUP]).items():
            found += _column(workspace, name, vector, suite.columns[name])
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def _table(source: VersionSource, suite: Suite) -> Iterator[Finding]:
    if source.rows < suite.rows_at_least:
        yield Finding(
            "error", "rows", None, f"There are {source.rows:,} rows; at least {suite.rows_at_least:,} are expected.",
            "Look whether the source was read to its end.",
        )  # fmt: skip
    for name in suite.columns:
        if name not in source.names:
            yield Finding("error", "column_absent", name, "The column is absent.", "Bring it back, or edit the suite.")
    if suite.other_columns == "allow":
        return
    for name in source.names:
        if name not in suite.columns:
            severity: Any = suite.other_columns
            yield Finding(severity, "column_new", name, "The column is new.", "Add it to the suite if it is to stay.")


def _freshness(source: VersionSource, suite: Suite, clock: Callable[[], float]) -> Iterator[Finding]:
    fresh = suite.fresh
    if fresh is None:
        return
    if source.types.get(fresh.column) is not dt.datetime:
        yield Finding("error", "freshness", fresh.column, "There is no such column of times.", "Name a time column.")
        return
    values = known(source.load([fresh.column])[fresh.column])
    age = clock() - float(values.max()) / US if len(values) else float("inf")
    if age > fresh.within_s:
        yield Finding(
            fresh.severity, "freshness", fresh.column,
            f"The newest row is {_span(age)} old; {_span(fresh.within_s)} are allowed.",
            "Look whether the source still delivers.",
        )  # fmt: skip


def _column(workspace: Workspace, name: str, vector: Vector, wanted: ColumnExpectation) -> Iterator[Finding]:
    kind = KIND_NAMES[vector.kind]
    if kind != wanted.type:
        yield Finding(
            "error", "type", name, f"The column is of type {kind}; {wanted.type} is expected.",
            "Convert it at its source, or edit the suite.",
        )  # fmt: skip
        return
    values = known(vector)
    missing = 1 - len(values) / len(vector) if len(vector) else 0.0
    if missing > wanted.missing_at_most + 1e-12:
        yield Finding(
            wanted.severity, "missing", name,
            f"{missing:.2%} of the values are missing; {wanted.missing_at_most:.2%} are allowed.",
            "Look where the gaps come from.",
        )  # fmt: skip
    yield from _range(name, vector, values, wanted)
    yield from _words(name, vector, values, wanted)
    if wanted.unique and len(np.unique(values)) < len(values):
        copies = len(values) - len(np.unique(values))
        yield Finding(
            wanted.severity, "unique", name, f"{copies:,} values stand more than once.", "Drop the duplicates."
        )
    if wanted.refers_to is not None:
        yield from _reference(workspace, name, vector, values, wanted)


def _range(name: str, vector: Vector, values: Any, wanted: ColumnExpectation) -> Iterator[Finding]:
    if vector.words is not None or not len(values) or (wanted.low is None and wanted.high is None):
        return
    numbers = values / US if vector.kind is dt.datetime else values
    out = np.zeros(len(numbers), dtype=bool)
    if wanted.low is not None:
        out |= numbers < wanted.low
    if wanted.high is not None:
        out |= numbers > wanted.high
    share = float(out.mean())
    if share > wanted.unseen_at_most:
        yield Finding(
            wanted.severity, "range", name,
            f"{int(out.sum()):,} values ({share:.2%}) lie outside {_bounds(wanted)}: from {numbers.min():g} to "
            f"{numbers.max():g}; {wanted.unseen_at_most:.2%} are allowed.",
            "Look for a change of unit, or widen the range.",
        )  # fmt: skip


def _bounds(wanted: ColumnExpectation) -> str:
    low = "-∞" if wanted.low is None else f"{wanted.low:g}"
    return f"{low} … {'∞' if wanted.high is None else f'{wanted.high:g}'}"


def _words(name: str, vector: Vector, values: Any, wanted: ColumnExpectation) -> Iterator[Finding]:
    if wanted.values is None or vector.words is None or not len(values):
        return
    allowed = set(wanted.values)
    new = np.array([w not in allowed for w in vector.words], dtype=bool)
    counts = np.bincount(values, minlength=len(vector.words))
    share = float(counts[new].sum() / counts.sum())
    if share > wanted.unseen_at_most:
        shown = [
            repr(str(vector.words[i])) for i in np.argsort(-counts * new, kind="stable")[:_SHOWN] if counts[i] * new[i]
        ]
        yield Finding(
            wanted.severity, "values", name,
            f"{share:.2%} of the values are none of those expected, such as {', '.join(shown)}; "
            f"{wanted.unseen_at_most:.2%} are allowed.",
            "Add them to the suite, or mend the spelling.",
        )  # fmt: skip


def _reference(
    workspace: Workspace, name: str, vector: Vector, values: Any, wanted: ColumnExpectation
) -> Iterator[Finding]:
    dataset, _, column = (wanted.refers_to or "").rpartition(".")
    try:
        source = VersionSource(workspace, dataset)
        if column not in source.types:
            raise NotFoundError.of("column", column, source.types)
        there = source.load([column])[column]
    except NotFoundError as error:
        yield Finding("error", "reference", name, str(error), "Name another dataset.column in `refers_to`.")
        return
    mine, theirs = _plain(vector, values), set(_plain(there, known(there)).tolist())
    lonely = [v for v in np.unique(mine).tolist() if v not in theirs]
    if lonely:
        rows = int(np.isin(mine, np.array(lonely, dtype=mine.dtype)).sum())
        yield Finding(
            wanted.severity, "reference", name,
            f"{rows:,} rows name {len(lonely):,} values that {wanted.refers_to} lacks, such as "
            f"{', '.join(map(repr, lonely[:_SHOWN]))}.",
            "Bring the other dataset up to date first.",
        )  # fmt: skip


def _plain(vector: Vector, values: Any) -> Any:
    """Values that can be compared between two columns: texts as such, numbers as float64."""
    if vector.words is not None:
        return np.array([str(vector.words[i]) for i in np.unique(values)], dtype=str)[
            np.unique(values, return_inverse=True)[1]
        ]
    return values.astype(np.float64)


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
