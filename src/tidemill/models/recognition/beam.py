"""From what a net says of every step along a line to the most probable text: prefix beam search.

The best path is one way of writing a text; a text is as probable as all its ways together. Bundles decode by the best
path, which a graph can hold; this search is for those who look into what a net says of doubtful lines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.lines.decode import BLANK

Ids = tuple[int, ...]
_NEVER = -np.inf


def beam_search(frames: NDArray[Any], width: int = 16) -> tuple[Ids, float]:
    """Search for the most probable sequence of outputs (Graves, 2012, section 7.5.3; Hannun et al., 2014).

    Parameters
    ----------
    frames : ndarray, shape (steps, K + 1)
        Logarithms of probabilities; the first output is the blank.
    width : int
        Prefixes that are followed side by side. One follows the most probable prefix of every step; so many that none
        is dropped give the most probable sequence of all.

    Returns
    -------
    (tuple of int, float)
        Outputs without blanks, and the logarithm of the probability that the search has found for them: all of it where
        no prefix was dropped, else a lower bound.

    Examples
    --------
    >>> p = np.array([[0.6, 0.4], [0.6, 0.4]])  # nothing twice has 0.36, the best path; "a" has 0.64
    >>> ids, log = beam_search(np.log(p))
    >>> ids, round(float(np.exp(log)), 2)
    ((1,), 0.64)
    """
    beams: dict[Ids, tuple[float, float]] = {(): (0.0, _NEVER)}  # ends in a blank, ends in its last character
    for step in np.asarray(frames, dtype=np.float64):
        grown: dict[Ids, tuple[float, float]] = {}
        for prefix, (blank, last) in beams.items():
            both = float(np.logaddexp(blank, last))
            _add(grown, prefix, both + float(step[BLANK]), _NEVER)
            if prefix:
                _add(grown, prefix, _NEVER, last + float(step[prefix[-1]]))
            for output in range(1, len(step)):
                before = blank if prefix and output == prefix[-1] else both
                _add(grown, (*prefix, output), _NEVER, before + float(step[output]))
        ranked = sorted(grown.items(), key=lambda item: (-np.logaddexp(*item[1]), item[0]))
        beams = dict(ranked[:width])
    best = max(beams, key=lambda prefix: np.logaddexp(*beams[prefix]))
    return best, float(np.logaddexp(*beams[best]))


def probability_of(frames: NDArray[Any], ids: Ids) -> float:
    """Logarithm of the probability of a sequence: all ways to write it along the line together (Graves et al., 2006).

    Examples
    --------
    >>> round(float(np.exp(probability_of(np.log([[0.6, 0.4], [0.6, 0.4]]), (1,)))), 2)
    0.64
    """
    logs = np.asarray(frames, dtype=np.float64)
    states = [BLANK, *(state for output in ids for state in (output, BLANK))]
    now = np.full(len(states), _NEVER)
    now[0] = 0.0
    for number, step in enumerate(logs):
        before = now
        now = np.full(len(states), _NEVER)
        for place, output in enumerate(states):
            ways = [before[place]] if number or place == 0 else []
            if place and (number or place == 1):
                ways.append(before[place - 1])
            if number and place > 1 and output not in (BLANK, states[place - 2]):
                ways.append(before[place - 2])
            now[place] = np.logaddexp.reduce(ways) + step[output] if ways else _NEVER
    return float(np.logaddexp(now[-1], now[-2]) if len(states) > 1 else now[-1])


def _add(beams: dict[Ids, tuple[float, float]], prefix: Ids, blank: float, last: float) -> None:
    known = beams.get(prefix, (_NEVER, _NEVER))
    beams[prefix] = float(np.logaddexp(known[0], blank)), float(np.logaddexp(known[1], last))
