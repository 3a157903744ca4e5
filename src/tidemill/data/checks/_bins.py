"""Columns in a few bins: quantiles of numbers, frequent categories; missing is a bin of its own."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Bins:
    """Bins learned from one set of values and applied to others.

    Parameters
    ----------
    values : ndarray
        float64 with NaN for missing, or object of str with ``""`` for missing.
    most : int
        At most so many bins besides the ones for missing and for what was not seen.
    """

    def __init__(self, values: NDArray[Any], most: int) -> None:
        self._words: dict[str, int] | None = None
        self._edges = np.empty(0)
        if values.dtype == object:
            frequent = Counter(values.tolist()).most_common(most)
            self._words = {word: i for i, (word, _) in enumerate(frequent)}
            self.count = len(self._words) + 1
        else:
            known = np.sort(values[~np.isnan(values)])
            if len(known):
                picks = known[(np.arange(1, most) * len(known)) // most]
                self._edges = np.unique(picks)
            self.count = len(self._edges) + 2

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the bin of each value, ``0..count-1``; the last one is for missing or unseen."""
        if self._words is not None:
            words, other = self._words, self.count - 1
            return np.fromiter((words.get(v, other) for v in values), dtype=np.int64, count=len(values))
        codes = np.searchsorted(self._edges, values, side="right").astype(np.int64)
        codes[np.isnan(values)] = self.count - 1
        return codes
