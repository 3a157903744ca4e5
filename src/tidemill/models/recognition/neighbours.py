"""Whether characters that stand side by side know of each other. Nothing here loads torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidemill.core import transcripts

_MOST_LINES = 2000
"""So many lines are enough to tell."""
_LEAST_PAIRS = 200
"""With fewer pairs of neighbours it can't be told."""
_SHUFFLES = 10
_MOST_KNOWN = 0.03
"""Share of what a character tells at all that its neighbour may tell before: a language has a third."""


def independent(y: transcripts.Codes, *, seed: int = 0) -> bool:
    """Tell whether a character says next to nothing of the next one: so in serial numbers, never in a language.

    The mutual information of neighbours is compared with that of transcripts whose characters were shuffled among the
    lines, each at its place: a format like two letters and four digits is kept by that, words are not.

    Parameters
    ----------
    y : ndarray of int32, shape (n, length of the longest)
        Code points; see `tidemill.core.transcripts`.
    seed : int
        Of the shuffles.

    Returns
    -------
    bool
        False also where there are too few pairs to tell.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> independent(transcripts.to_codes(["".join(rng.choice(list("0123456789"), 8)) for _ in range(200)]))
    True
    >>> independent(transcripts.to_codes(["".join(rng.choice(["spring ", "tide "], 4)) for _ in range(200)]))
    False
    """
    y = y[:: max(1, -(-len(y) // _MOST_LINES))]
    known, places = np.unique(y, return_inverse=True)
    numbers = np.where(y == transcripts.END, -1, places.reshape(y.shape))
    if int(((numbers[:, :-1] >= 0) & (numbers[:, 1:] >= 0)).sum()) < _LEAST_PAIRS:
        return False
    rng = np.random.default_rng(seed)
    shuffled = [_information(_shuffled(numbers, rng), len(known)) for _ in range(_SHUFFLES)]
    more = _information(numbers, len(known)) - float(np.mean(shuffled))
    return bool(more <= _MOST_KNOWN * _entropy(numbers))


def _information(numbers: NDArray[np.int64], kinds: int) -> float:
    """Mutual information of neighbours, in nats."""
    left, right = numbers[:, :-1].ravel(), numbers[:, 1:].ravel()
    there = (left >= 0) & (right >= 0)
    counts = np.bincount(left[there] * kinds + right[there], minlength=kinds * kinds).reshape(kinds, kinds)
    shares = counts / counts.sum()
    alone = shares.sum(axis=1, keepdims=True) * shares.sum(axis=0, keepdims=True)
    met = shares > 0
    return float((shares[met] * np.log(shares[met] / alone[met])).sum())


def _entropy(numbers: NDArray[np.int64]) -> float:
    shares = np.bincount(numbers[numbers >= 0]) / (numbers >= 0).sum()
    return float(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())


def _shuffled(numbers: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Give every place its characters in another order of lines; each line keeps its length."""
    out = numbers.copy()
    for column in out.T:
        there = np.flatnonzero(column >= 0)
        column[there] = column[rng.permutation(there)]
    return out
