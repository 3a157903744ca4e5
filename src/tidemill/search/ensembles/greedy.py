"""Greedy selection with replacement: the ensemble that is hard to beat on out-of-fold predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import SearchError
from tidemill.core.protocols import Combination
from tidemill.search.losses import Opaque

Weights = Mapping[int, float]
Penalty = Callable[[Weights], float]


class GreedyEnsembler:
    """Adds, round by round, the trial whose addition lowers loss plus price the most.

    A trial may be added again; its weight is its share of the additions. On few rows such a choice follows noise,
    so it is made several times, on bootstrap samples of the rows and random halves of the trials, and the weights
    are averaged. Last, members that aren't worth their price are dropped.

    Parameters
    ----------
    rounds : int
        Additions at most.
    bags : int
        Repetitions on samples; 0 chooses by the number of rows, 1 chooses once, from everything.
    pool : int
        Only so many of the best trials take part.
    seed : int
        Seed of the samples.

    References
    ----------
    Caruana et al., "Ensemble selection from libraries of models", ICML 2004.
    """

    def __init__(self, rounds: int = 40, *, bags: int = 0, pool: int = 60, seed: int = 0) -> None:
        self._rounds = rounds
        self._bags = bags
        self._pool = pool
        self._seed = seed

    def combine(
        self,
        predictions: Mapping[int, NDArray[np.float32]],
        loss: Callable[[NDArray[np.float64]], float],
        penalty: Penalty,
    ) -> Combination:
        """Choose weights; see `tidemill.core.protocols.Ensembler`.

        Raises
        ------
        SearchError
            Where no single trial satisfies the constraints that ``penalty`` holds.
        """
        fast: Any = loss if hasattr(loss, "of_compact") else Opaque(loss)
        numbers = sorted(n for n in predictions if np.isfinite(penalty({n: 1.0})))
        if not numbers:
            raise SearchError(
                "No trial satisfies the constraints of the objective.", hint="Loosen a constraint or search longer."
            )
        single = {n: fast.of_compact(fast.compact(predictions[n])) + penalty({n: 1.0}) for n in numbers}
        numbers = sorted(numbers, key=lambda n: (single[n], n))[: self._pool]
        members = np.stack([np.asarray(fast.compact(predictions[n]), dtype=np.float32) for n in numbers])
        counts = self._counts(members, fast, numbers, penalty)
        chosen = {n: float(c) for n, c in zip(numbers, counts, strict=True) if c > 0}
        chosen = _prune(chosen, numbers, members, fast, penalty)
        best = numbers[0]
        if len(chosen) > 1 and _value(chosen, numbers, members, fast, penalty) > single[best]:
            chosen = {best: 1.0}
        exact = _average(chosen, predictions)
        return Combination(weights=chosen, loss=float(loss(exact)))

    def _counts(
        self, members: NDArray[np.float32], fast: Any, numbers: list[int], penalty: Penalty
    ) -> NDArray[np.float64]:
        rows = members.shape[1]
        bags = self._bags or (1 if rows >= 10_000 or not hasattr(fast, "take") else 8 if rows >= 2_000 else 48)
        every = np.arange(len(numbers))
        if bags == 1:
            return _select(members, every, fast, numbers, penalty, self._rounds)
        rng = np.random.default_rng(self._seed)
        total = np.zeros(len(numbers))
        for _ in range(bags):
            sample = rng.integers(rows, size=rows)
            # Each bag sees the best trial and a random part of the others.
            pool = every[(rng.random(len(every)) < 0.6) | (every == 0)]
            total += _select(members[:, sample], pool, fast.take(sample), numbers, penalty, self._rounds)
        return total / bags


def _select(
    members: NDArray[np.float32],
    pool: NDArray[np.int64],
    fast: Any,
    numbers: list[int],
    penalty: Penalty,
    rounds: int,
) -> NDArray[np.float64]:
    """Return each trial's share of the additions up to the best round."""
    counts = np.zeros(len(numbers))
    best_counts, best_value, stale = counts, np.inf, 0
    total = np.zeros_like(members[0])
    for turn in range(1, rounds + 1):
        values = np.full(len(pool), np.inf)
        for place, index in enumerate(pool):
            counts[index] += 1
            price = penalty({numbers[i]: counts[i] / turn for i in np.flatnonzero(counts)})
            counts[index] -= 1
            if np.isfinite(price):
                values[place] = fast.of_compact((total + members[index]) / np.float32(turn)) + price
        winner = int(np.argmin(values))
        if not np.isfinite(values[winner]):
            break
        counts[pool[winner]] += 1
        total = total + members[pool[winner]]
        if values[winner] < best_value - 1e-9 * abs(best_value):
            best_counts, best_value, stale = counts.copy(), float(values[winner]), 0
        else:
            stale += 1
            if stale >= 8:
                break
    return np.asarray(best_counts / max(best_counts.sum(), 1))


def _prune(
    chosen: dict[int, float], numbers: list[int], members: NDArray[np.float32], fast: Any, penalty: Penalty
) -> dict[int, float]:
    """Drop the lightest members as long as loss plus price doesn't rise."""
    chosen = _normal(chosen)
    value = _value(chosen, numbers, members, fast, penalty)
    for number in sorted(chosen, key=lambda n: chosen[n]):
        if len(chosen) == 1:
            break
        fewer = _normal({n: w for n, w in chosen.items() if n != number})
        without = _value(fewer, numbers, members, fast, penalty)
        if without <= value or not np.isfinite(value):
            chosen, value = fewer, without
    return chosen


def _value(chosen: Weights, numbers: list[int], members: NDArray[np.float32], fast: Any, penalty: Penalty) -> float:
    price = penalty(chosen)
    if not np.isfinite(price):
        return float("inf")
    place = {n: i for i, n in enumerate(numbers)}
    average = np.zeros_like(members[0])
    for number, weight in chosen.items():
        average = average + np.float32(weight) * members[place[number]]
    return float(fast.of_compact(average)) + price


def _normal(weights: Weights) -> dict[int, float]:
    total = sum(weights.values())
    return {n: w / total for n, w in weights.items()}


def _average(weights: Weights, predictions: Mapping[int, NDArray[np.float32]]) -> NDArray[np.float64]:
    return np.asarray(np.sum([w * predictions[n].astype(np.float64) for n, w in weights.items()], axis=0))
