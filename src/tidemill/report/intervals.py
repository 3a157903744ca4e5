"""How sure a figure is: bootstrap intervals of metrics on the rows of the evidence.

After Efron, *Bootstrap methods* (1979): rows are drawn with replacement, the metric is measured again, and the interval
is the value ± 1.96 standard deviations of what came out, cut at the metric's bounds. (Percentiles would be off for
metrics that resampling biases, such as the calibration error.) Of many rows fewer are drawn, and the deviation is
scaled by the root of their share. Decisions are drawn as confusion matrices, which is the same and takes no time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics import confusion_matrix
from tidemill.report._clock import Clock
from tidemill.report.measure import Measure

Z = 1.959963984540054
"""95 % of a normal distribution lie within so many standard deviations."""
LEAST_ROWS = 20
"""Below so many rows an interval would be a guess itself."""
MOST_DRAWN = 20_000
MOST_RESAMPLES = 200
LEAST_RESAMPLES = 12
CONFUSIONS = 1000
MOST_CELLS, CELLS_AT_ONCE = 100_000_000, 2_000_000
"""Of confusion matrices: a thousand classes have a million cells, so fewer are drawn, and few at a time."""


@dataclass(frozen=True)
class Interval:
    """A value and where it may as well have been: ``low`` and ``high`` are None where that can't be said."""

    value: float
    low: float | None = None
    high: float | None = None
    resamples: int = 0


def around(value: float, deviation: float, bounds: tuple[float, float], resamples: int) -> Interval:
    """Build an interval of 95 % from a standard deviation.

    Examples
    --------
    >>> around(0.5, 0.0, (0, 1), 10)
    Interval(value=0.5, low=None, high=None, resamples=10)
    """
    if not np.isfinite(value) or not np.isfinite(deviation) or deviation <= 0:
        return Interval(value, None, None, resamples)
    low, high = max(bounds[0], value - Z * deviation), min(bounds[1], value + Z * deviation)
    return Interval(value, float(low), float(high), resamples)


def bootstrap(
    measures: Mapping[str, Measure],
    y: NDArray[Any],
    scores: NDArray[np.floating[Any]],
    decisions: NDArray[np.int64] | None,
    clock: Clock,
    until: float,
    rng: np.random.Generator,
) -> dict[str, Interval]:
    """Measure, and measure again on resamples until the time is over.

    Parameters
    ----------
    measures : mapping
        What to measure, by a name of the caller's.
    y, scores, decisions
        The rows.
    clock, until
        When to stop; at least 12 resamples are drawn.
    rng : numpy.random.Generator
        Draws the rows.
    """
    table = np.asarray(scores, dtype=np.float64)
    values = {name: m(y, table, decisions) for name, m in measures.items()}
    if len(y) < LEAST_ROWS:
        return {name: Interval(value) for name, value in values.items()}
    out: dict[str, Interval] = {}
    rest: dict[str, Measure] = {}
    for name, measure in measures.items():
        if measure.metric.of_confusion is not None and decisions is not None and decisions.ndim == 1:
            out[name] = _by_confusion(measure, values[name], y, decisions, rng)
        else:
            rest[name] = measure
    drawn = min(len(y), MOST_DRAWN)
    samples = _resample(rest, y, table, decisions, drawn, clock, until, rng)
    for name, seen in samples.items():
        deviation = float(np.std(seen, ddof=1)) * np.sqrt(drawn / len(y)) if len(seen) > 1 else np.nan
        out[name] = around(values[name], deviation, rest[name].bounds, len(seen))
    return {name: out[name] for name in measures}


def _by_confusion(
    measure: Measure, value: float, y: NDArray[Any], decisions: NDArray[np.int64], rng: np.random.Generator
) -> Interval:
    k = measure.task.n_classes
    positive = measure.task.classes.index(measure.label) if measure.label is not None else (1 if k == 2 else None)
    if positive is None and measure.cost is None:  # then classes that don't occur change nothing
        occurring, codes = np.unique(np.concatenate([y, decisions]), return_inverse=True)
        (y, decisions), k = np.split(codes, 2), len(occurring)
    cells = confusion_matrix(y, decisions, k).ravel()
    met = np.flatnonzero(cells)  # at most as many as rows, however many classes there are
    n, shares = len(y), cells[met] / cells.sum()
    assert measure.metric.of_confusion is not None
    seen: list[float] = []
    resamples = int(np.clip(MOST_CELLS // k**2, LEAST_RESAMPLES, CONFUSIONS))
    while len(seen) < resamples:
        size = min(resamples - len(seen), max(1, CELLS_AT_ONCE // k**2))
        draws = np.zeros((size, k * k))
        draws[:, met] = rng.multinomial(n, shares, size=size)
        found = measure.metric.of_confusion(draws.reshape(size, k, k), positive, measure.cost)
        seen.extend(np.asarray(found, dtype=np.float64).tolist())
    return around(value, float(np.std(seen, ddof=1)), measure.bounds, resamples)


def _resample(
    measures: Mapping[str, Measure],
    y: NDArray[Any],
    scores: NDArray[np.float64],
    decisions: NDArray[np.int64] | None,
    drawn: int,
    clock: Clock,
    until: float,
    rng: np.random.Generator,
) -> dict[str, list[float]]:
    seen: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(MOST_RESAMPLES if measures else 0):
        if turn >= LEAST_RESAMPLES and clock.over(until):
            break
        rows = rng.integers(0, len(y), drawn)
        truth, table = y[rows], scores[rows]
        chosen = None if decisions is None else decisions[rows]
        for name, measure in measures.items():
            if measure.says_something(truth):
                seen[name].append(measure(truth, table, chosen))
    return seen


def mean_interval(samples: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the 2.5 % and 97.5 % quantiles, of samples that are there already.

    Examples
    --------
    >>> mean_interval([1.0, 1.0])
    (1.0, 1.0, 1.0)
    """
    values = np.asarray(samples, dtype=np.float64)
    low, high = np.quantile(values, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
