"""Where the model is worst: groups of rows, by one column or two, on which the metric is furthest below all rows.

The groups are found by looking at many, so the worst of them looks worse than it is (regression to the mean). Each is
therefore ranked by what is left of its gap after one standard error, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Column, SemanticType
from tidemill.report._clock import Clock
from tidemill.report.facts import Evidence
from tidemill.report.intervals import Interval, around
from tidemill.report.measure import Measure
from tidemill.report.words import date, number

LEAST_ROWS = 30
LEAST_SHARE = 0.01
LEAST_PER_CLASS = 5
BINS = 5
TOP_VALUES = 12
PAIRED = 5
CLEARLY = 1.25
RESAMPLED = 24
RESAMPLES = 30
SHOWN = 10


@dataclass(frozen=True)
class Part:
    """One value or bin of one column: ``words`` name it, ``rows`` is a mask."""

    column: str
    words: str
    rows: NDArray[np.bool_]


@dataclass(frozen=True)
class Slice:
    """A group of rows and how the metric came out on it; ``gap`` is positive where it is worse than on all rows."""

    parts: tuple[Part, ...]
    rows: int
    interval: Interval
    gap: float

    @property
    def words(self) -> str:
        """Say which rows."""
        return " and ".join(p.words for p in self.parts)


@dataclass(frozen=True)
class Slices:
    """The worst groups, worst first; how many were looked at; the value on all rows; the least rows of a group."""

    worst: tuple[Slice, ...]
    looked_at: int
    overall: float
    least_rows: int


def parts_of(column: Column, values: NDArray[Any]) -> list[Part]:
    """Cut a column into its parts: frequent values, or bins of equal frequency; missing values are a part too.

    Examples
    --------
    >>> column = Column("age", SemanticType.NUMBER)
    >>> [p.words for p in parts_of(column, np.arange(100.0))]
    ['age ≤ 19', '20 ≤ age ≤ 39', '40 ≤ age ≤ 59', '60 ≤ age ≤ 79', 'age ≥ 80']
    """
    if column.type is SemanticType.TEXT:
        return []
    if column.type.is_string:
        return _values(column.name, values)
    return _bins(column, values.astype(np.float64))


def _values(name: str, values: NDArray[Any]) -> list[Part]:
    found, codes, counts = np.unique(values.astype(str), return_inverse=True, return_counts=True)
    order = np.lexsort((found, -counts))[:TOP_VALUES]
    return [Part(name, f"{name} is {found[i]}" if found[i] else f"{name} is missing", codes == i) for i in order]


def _bins(column: Column, values: NDArray[np.float64]) -> list[Part]:
    name, missing = column.name, ~np.isfinite(values)
    out = [Part(name, f"{name} is missing", missing)] if missing.any() else []
    known = values[~missing]
    if not len(known):
        return out
    distinct = np.unique(known)

    def say(value: float) -> str:
        return date(value) if column.type is SemanticType.DATETIME else number(value)

    if len(distinct) <= BINS:
        words = {0.0: "no", 1.0: "yes"} if column.type is SemanticType.BOOLEAN else {}
        return [*(Part(name, f"{name} is {words.get(float(v), say(v))}", values == v) for v in distinct), *out]
    edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1], method="lower"))
    code = np.searchsorted(edges, values, side="left")
    bins: list[Part] = []
    for k in range(len(edges) + 1):
        rows = (code == k) & ~missing
        if not rows.any():
            continue
        low, high = say(values[rows].min()), say(values[rows].max())
        first, last = not bins, k == len(edges)
        text = f"{name} ≤ {high}" if first else f"{name} ≥ {low}" if last else f"{low} ≤ {name} ≤ {high}"
        bins.append(Part(name, f"{name} is {low}" if low == high and not (first or last) else text, rows))
    return [*bins, *out]


def worst_slices(
    evidence: Evidence,
    decisions: NDArray[np.int64] | None,
    columns: Sequence[Column],
    measure: Measure,
    clock: Clock,
    until: float,
    rng: np.random.Generator,
) -> Slices:
    """Search single columns, then pairs of the columns whose parts differ most.

    Parameters
    ----------
    evidence : Evidence
        The rows.
    decisions : ndarray or None
        Their decided codes.
    columns : sequence of Column
        Where to look, most important first.
    measure : Measure
        The objective's metric.
    clock, until
        When to stop looking.
    rng : numpy.random.Generator
        Draws rows for the intervals.
    """
    search = _Search(evidence, decisions, measure, clock, until)
    by_column: dict[str, list[Part]] = {}
    found: list[Slice] = []
    for column in columns:
        if column.name not in evidence.columns or clock.over(until):
            continue
        by_column[column.name] = parts_of(column, evidence.columns[column.name])
        found += [s for p in by_column[column.name] if (s := search.look((p,))) is not None]
    single = {s.parts[0].words: s.gap for s in found}
    found += list(_pairs(search, by_column, found, single))
    found = sorted((s for s in found if s.gap > 0), key=lambda s: -s.gap * np.sqrt(s.rows))[:RESAMPLED]
    ranked = sorted((search.resampled(s, rng) for s in found), key=lambda pair: -pair[1])
    worst = tuple(s for s, sure in ranked if sure > 0)[:SHOWN]
    return Slices(worst, search.looked_at, search.overall, search.least)


def _pairs(
    search: _Search, by_column: dict[str, list[Part]], found: Sequence[Slice], single: dict[str, float]
) -> Iterator[Slice]:
    """Slices of two columns that are clearly worse than each of their two halves."""
    most: dict[str, float] = {}
    for s in found:
        name = s.parts[0].column
        most[name] = max(most.get(name, 0.0), s.gap * float(np.sqrt(s.rows)))
    top = sorted((n for n, gap in most.items() if gap > 0), key=lambda n: -most[n])[:PAIRED]
    for a, b in combinations(top, 2):
        for p, q in product(by_column[a], by_column[b]):
            both = search.look((p, q))
            halves = max(0.0, single.get(p.words, 0.0), single.get(q.words, 0.0))
            if both is not None and both.gap > CLEARLY * halves:
                yield both


class _Search:
    def __init__(
        self,
        evidence: Evidence,
        decisions: NDArray[np.int64] | None,
        measure: Measure,
        clock: Clock,
        until: float,
    ) -> None:
        self.y, self.scores, self.decisions = evidence.y, np.asarray(evidence.scores, np.float64), decisions
        self.measure, self.clock, self.until = measure, clock, until
        self.least = max(LEAST_ROWS, int(np.ceil(LEAST_SHARE * len(self.y))))
        self.overall = measure(self.y, self.scores, decisions)
        self.looked_at = 0

    def look(self, parts: tuple[Part, ...]) -> Slice | None:
        """Measure on the rows of all parts; None where they are too few, or all, or the time is over."""
        mask = parts[0].rows if len(parts) == 1 else parts[0].rows & parts[1].rows
        n = int(mask.sum())
        if n < self.least or n == len(self.y) or self.clock.over(self.until):
            return None
        if not self.measure.says_something(self.y[mask], LEAST_PER_CLASS):
            return None
        self.looked_at += 1
        value = self._value(np.flatnonzero(mask))
        return Slice(
            parts, n, Interval(value), self.measure.metric.loss(value) - self.measure.metric.loss(self.overall)
        )

    def resampled(self, found: Slice, rng: np.random.Generator) -> tuple[Slice, float]:
        """Add the interval, and say how much of the gap is left after one standard error."""
        mask = found.parts[0].rows if len(found.parts) == 1 else found.parts[0].rows & found.parts[1].rows
        rows = np.flatnonzero(mask)
        drawn = min(len(rows), 4000)
        seen: list[float] = []
        for turn in range(RESAMPLES):
            if turn >= 8 and self.clock.over(self.until):
                break
            some = rows[rng.integers(0, len(rows), drawn)]
            if self.measure.says_something(self.y[some]):
                seen.append(self._value(some))
        deviation = float(np.std(seen, ddof=1)) * np.sqrt(drawn / len(rows)) if len(seen) > 1 else 0.0
        interval = around(found.interval.value, deviation, self.measure.bounds, len(seen))
        return Slice(found.parts, found.rows, interval, found.gap), found.gap - deviation

    def _value(self, rows: NDArray[np.int64]) -> float:
        chosen = None if self.decisions is None else self.decisions[rows]
        return self.measure(self.y[rows], self.scores[rows], chosen)
