"""Lines joined at their characters: the beginning of one with the end of another, as many new texts as one likes.

A net that reads already tells where each character stands: the likeliest way of CTC through the known text. Lines are
cut there, in the room between two characters, and put together anew. Where neighbours are independent of each other
(`tidemill.models.recognition.neighbours`), the texts that come out are as likely as those that went in, so that a net
can't learn them by heart; in a language it would be taught words that aren't there. A net that looks far along the line
may know a character without knowing where it stands: lines are joined only where the net reads what comes out.

References
----------
Graves, Fernández, Gomez and Schmidhuber, ICML 2006: section 4.1, the ways through a text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.lines.decode import BLANK, best_path
from tidemill.core import transcripts
from tidemill.models.recognition._base import STRIDE, steps_needed
from tidemill.models.recognition.nets.parts import Recogniser
from tidemill.models.recognition.reading import error_rate, logs_of
from tidemill.models.recognition.samples import PADDING, LineSamples, numbers_of

_BATCH = 32
_MOST_WRONG = 0.25
"""A line is cut where at most this share of its characters is read wrongly: else it isn't known where they stand."""
_LEAST_CUT = 0.5
"""With a smaller share of lines that are cut, none is: the net reads too little."""
_MOST_WORSE = 0.1
"""Joined lines may have so many more errors for each character than the whole ones."""
_TRIED = 256
"""So many joined lines are read."""
_MOST_CONTRAST = 2.0
"""An end takes the contrast of the beginning, by a factor of at most so much."""

Cuts = Mapping[int, NDArray[np.int64]]
"""For rows of the data: the columns at which a line can be cut, one between each two characters."""


@dataclass(frozen=True)
class JoinedSamples(LineSamples):
    """Lines as they are and joined ones; implements `tidemill.train.types.Samples`.

    Parameters
    ----------
    cuts : mapping of int to ndarray
        See `Cuts`; lines that are not there stay whole.
    share : float
        Of those that are trained on, so many are joined; 0 to 1.
    """

    cuts: Cuts
    share: float

    @cached_property
    def _others(self) -> NDArray[np.int64]:
        return np.fromiter(self.cuts, dtype=np.int64)

    def taken(
        self, rows: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[list[NDArray[np.uint8]], transcripts.Codes]:
        """Give the lines of these rows with their transcripts; some go on as another one does."""
        lines, codes = super().taken(rows, train=train, rng=rng)
        if not train or not self.cuts:
            return lines, codes
        for place in np.flatnonzero(rng.random(len(rows)) < self.share):
            row, other = int(rows[place]), int(rng.choice(self._others))
            most = min(len(self.cuts.get(row, ())), len(self.cuts[other]))
            if most:
                number = int(rng.integers(most))
                at, of = int(self.cuts[row][number]), int(self.cuts[other][number])
                lines[place] = joined(lines[place], at, self.data.x[other], of)
                codes[place, number + 1 :] = self.data.y[other, number + 1 :]
        return lines, codes


def joined(first: NDArray[np.uint8], at: int, second: NDArray[np.uint8], of: int) -> NDArray[np.uint8]:
    """Put the beginning of a line, up to a column, before the end of another, whose ground and contrast follow.

    Examples
    --------
    >>> joined(np.full((1, 4), 200, np.uint8), 3, np.full((1, 4), 90, np.uint8), 2).tolist()
    [[200, 200, 200, 200, 200]]
    """
    contrast = float(np.clip(first.std() / max(float(second.std()), 1.0), 1 / _MOST_CONTRAST, _MOST_CONTRAST))
    end = np.median(first) + (second[:, of:] - np.median(second)) * contrast
    return np.concatenate([first[:, :at], np.rint(end).clip(0, 255).astype(np.uint8)], axis=1)


def cuts_of(net: Recogniser, samples: LineSamples) -> Cuts:
    """Find the columns at which lines can be cut, by a net that reads them.

    Parameters
    ----------
    net : Recogniser
        In evaluation mode afterwards.
    samples : LineSamples
        Lines with their transcripts.

    Returns
    -------
    mapping of int to ndarray
        For rows of the data; empty where the net reads too few of them, or not what they give when joined.
    """
    net.eval()
    cuts: dict[int, NDArray[np.int64]] = {}
    data = samples.data
    rows = data.rows[transcripts.lengths(data.y[data.rows]) > 1]
    widths = np.array([data.x[row].shape[1] for row in rows], dtype=np.int64)
    for width in np.unique(widths):
        same = rows[widths == width]
        for start in range(0, len(same), _BATCH):
            batch = same[start : start + _BATCH]
            logs = logs_of(net, [data.x[row] for row in batch])
            numbers = numbers_of(data.y[batch], samples.alphabet)
            kept = _nearly_read(logs, numbers)
            for row, steps, text in zip(batch[kept], between(logs[kept], numbers[kept]), numbers[kept], strict=True):
                cuts[int(row)] = steps[: int((text != PADDING).sum()) - 1] * STRIDE
    if len(cuts) < _LEAST_CUT * len(samples):
        return {}
    whole, new = (_error(net, samples, cuts, share) for share in (0.0, 1.0))
    return cuts if new <= whole + _MOST_WORSE else {}


def between(logs: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find the steps between characters on the likeliest way through texts that are known.

    Parameters
    ----------
    logs : ndarray of float32, shape (n, T, K + 1)
        Logarithms of probabilities.
    numbers : ndarray of int64, shape (n, L)
        Of characters from 1, `PADDING` behind the last; at least two in each row, and a row has the steps for them.

    Returns
    -------
    ndarray of int64, shape (n, L - 1)
        The middle of the room between each character and the next; T behind the last one.

    Examples
    --------
    >>> sure = np.full((1, 6, 3), -9.0, np.float32)
    >>> sure[0, np.arange(6), [1, 1, 0, 0, 2, 0]] = 0.0
    >>> between(sure, np.array([[1, 2]])).tolist()
    [[3]]
    """
    states = np.full((len(numbers), 2 * numbers.shape[1] + 1), BLANK, dtype=np.int64)
    states[:, 1::2] = numbers.clip(min=BLANK)
    path = _likeliest(logs, states, 2 * (numbers != PADDING).sum(axis=1))
    odd = 2 * np.arange(1, numbers.shape[1]) + 1  # the states of characters but the first
    begins = (path[:, :, None] < odd).sum(axis=1)
    ends = (path[:, :, None] <= odd - 2).sum(axis=1)
    return np.asarray((begins + ends + 1) // 2, dtype=np.int64)


def _likeliest(logs: NDArray[np.float32], states: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """States (n, T) of the likeliest way: each step stays, goes on, or leaps over the blank between two letters."""
    rows, said = np.arange(len(logs)), np.take_along_axis(logs, states[:, None, :], axis=2)
    leap = np.zeros(states.shape, dtype=bool)
    leap[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    best = np.full(states.shape, -np.inf)
    best[:, :2] = said[:, 0, :2]
    came = np.zeros((logs.shape[1], *states.shape), dtype=np.int8)
    for step in range(1, logs.shape[1]):
        ways = np.full((3, *states.shape), -np.inf)
        ways[0], ways[1, :, 1:] = best, best[:, :-1]
        ways[2, :, 2:] = np.where(leap[:, 2:], best[:, :-2], -np.inf)
        came[step] = ways.argmax(axis=0)
        best = ways.max(axis=0) + said[:, step]
    state = np.where(best[rows, last] >= best[rows, last - 1], last, last - 1)
    path = np.empty(logs.shape[:2], dtype=np.int64)
    for step in range(logs.shape[1] - 1, -1, -1):
        path[:, step] = state
        state = state - came[step, rows, state]
    return path


def _error(net: Recogniser, samples: LineSamples, cuts: Cuts, share: float) -> float:
    """Character error rate of the net for lines of which so many are joined."""
    rows = np.fromiter(cuts, dtype=np.int64)[:_TRIED]
    some = JoinedSamples(samples.data, samples.alphabet, samples.distortion, cuts, share)
    lines, codes = some.taken(rows, train=True, rng=np.random.default_rng(0))
    return error_rate(net, lines, numbers_of(codes, samples.alphabet))


def _nearly_read(logs: NDArray[np.float32], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which lines the net reads nearly as they are, by the best path."""
    read = best_path(logs.argmax(axis=2))
    wrong = transcripts.edit_distances(numbers, read)
    nearly = wrong <= _MOST_WRONG * (numbers != PADDING).sum(axis=1)
    return np.asarray(nearly & (steps_needed(numbers) <= logs.shape[1]))
