"""What the shipped model leans on: how much worse it gets when one column is shuffled.

After Breiman, *Random forests* (2001), section 10, with the shipped graph in place of the forest. The interval holds
both kinds of chance: which shuffle (a few repeats) and which rows (each repeat is measured on resampled rows too).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import Columns, take_rows
from tidemill.report._clock import Clock
from tidemill.report.facts import Evidence, Predict
from tidemill.report.intervals import mean_interval
from tidemill.report.measure import Measure

MOST_ROWS = 2000
LEAST_ROWS = 100
REPEATS = 5
WANTED_REPEATS = 3
RESAMPLES = 20
_PROBES = (100, 400)
"""Rows of the calls that are timed, after one that warms up."""
MOST_COLUMNS = 25
"""Only so many columns, the most important ones of the first pass, are shuffled again."""


@dataclass(frozen=True)
class Importance:
    """How much a column is worth, in units of the metric; negative where shuffling helped.

    Parameters
    ----------
    column : str
        Its name.
    value, low, high : float
        Loss of quality when it is shuffled, and the range of 95 % of the resamples.
    repeats : int
        Number of shuffles.
    """

    column: str
    value: float
    low: float
    high: float
    repeats: int


@dataclass(frozen=True)
class Importances:
    """The columns, most important first; how many rows were used; which columns there was no time for."""

    columns: tuple[Importance, ...]
    rows: int
    baseline: float
    untried: tuple[str, ...] = ()

    @property
    def repeats(self) -> int:
        """Shuffles of the columns that were shuffled least among those with the most say."""
        return min((c.repeats for c in self.columns[:MOST_COLUMNS]), default=0)


def permutation_importance(
    predict: Predict,
    evidence: Evidence,
    names: Sequence[str],
    measure: Measure,
    clock: Clock,
    until: float,
    rng: np.random.Generator,
) -> Importances:
    """Shuffle one column after the other and measure what is lost.

    Parameters
    ----------
    predict : callable
        The shipped graph.
    evidence : Evidence
        Rows with their answers; at most 2,000 of them are used.
    names : sequence of str
        Columns to try.
    measure : Measure
        The objective's metric.
    clock, until
        When to stop; the first column is always tried.
    rng : numpy.random.Generator
        Draws rows and shuffles.
    """
    chosen = _choose(len(evidence.y), MOST_ROWS, rng)
    probe = [_seconds(predict, take_rows(evidence.columns, chosen[:n]), clock) for n in (10, *_PROBES)]
    chosen = chosen[: max(LEAST_ROWS, _rows_in_time(probe[1], probe[2], len(names), until - clock.now()))]
    columns, y = take_rows(evidence.columns, chosen), evidence.y[chosen]
    work = _Work(predict, measure, columns, y, predict(columns), rng)
    seen: dict[str, list[float]] = {}
    repeats: dict[str, int] = {}
    for name in names:
        if seen and clock.over(until):
            break
        seen[name], repeats[name] = work.losses(name), 1
    again = sorted(seen, key=lambda name: -float(np.mean(seen[name])))[:MOST_COLUMNS]
    for _ in range(REPEATS - 1):
        for name in again:
            if clock.over(until):
                break
            seen[name] += work.losses(name)
            repeats[name] += 1
    found = [Importance(name, *mean_interval(values), repeats[name]) for name, values in seen.items()]
    found.sort(key=lambda i: -i.value)
    untried = tuple(name for name in names if name not in seen)
    return Importances(tuple(found), len(y), work.baseline, untried)


def _choose(n: int, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.permutation(n)[:most]


def _seconds(predict: Predict, columns: Columns, clock: Clock) -> float:
    began = clock.now()
    predict(columns)
    return clock.now() - began


def _rows_in_time(few_s: float, many_s: float, columns: int, left_s: float) -> int:
    """How many rows can be predicted `WANTED_REPEATS` times for each column in the time that is left.

    A call takes a fixed time and one for each row; two probes tell them apart.
    """
    few, many = _PROBES
    per_row = max((many_s - few_s) / (many - few), 1e-7)
    fixed = max(0.0, few_s - few * per_row)
    one_call = max(0.0, left_s) * 0.6 / (max(1, columns) * WANTED_REPEATS)
    return int(max(0.0, one_call - fixed) / per_row)


class _Work:
    """The rows, their base scores, and the resamples on which losses are measured."""

    def __init__(
        self,
        predict: Predict,
        measure: Measure,
        columns: Columns,
        y: NDArray[Any],
        scores: NDArray[np.floating[Any]],
        rng: np.random.Generator,
    ) -> None:
        self.predict, self.measure, self.columns, self.y, self.rng = predict, measure, columns, y, rng
        drawn = [np.arange(len(y)), *(rng.integers(0, len(y), len(y)) for _ in range(RESAMPLES))]
        # The first are the rows themselves, so that a single repeat has their value among its samples.
        self.draws = [d for i, d in enumerate(drawn) if i == 0 or measure.says_something(y[d])]
        self.base = [self._loss(d, scores) for d in self.draws]
        self.baseline = measure(y, scores)

    def losses(self, name: str) -> list[float]:
        """Shuffle a column once and return what is lost on each resample."""
        shuffled = dict(self.columns)
        shuffled[name] = shuffled[name][self.rng.permutation(len(self.y))]
        scores = self.predict(shuffled)
        return [self._loss(d, scores) - base for d, base in zip(self.draws, self.base, strict=True)]

    def _loss(self, rows: NDArray[np.int64], scores: NDArray[np.floating[Any]]) -> float:
        return self.measure.metric.loss(self.measure(self.y[rows], scores[rows]))
