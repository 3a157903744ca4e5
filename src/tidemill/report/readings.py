"""What was read beside what stands there: the worst lines, and the characters that are taken for each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tidemill.core import transcripts
from tidemill.report.facts import Evidence

MOST_ALIGNED = 200
"""So many of the lines that were read wrongly are looked at character by character."""


@dataclass(frozen=True)
class Reading:
    """One line: its place, what stands there, what was read, characters that differ, and how sure the model was."""

    place: int
    truth: str
    read: str
    errors: int
    confidence: float


@dataclass(frozen=True)
class Readings:
    """All lines of an evidence.

    Parameters
    ----------
    errors : ndarray of int64
        Characters of each line to insert, delete or replace.
    characters : int
        That stand there.
    worst : tuple of Reading
        Lines with errors, the most errors for each character first.
    """

    errors: NDArray[np.int64]
    characters: int
    worst: tuple[Reading, ...]

    @property
    def right(self) -> int:
        """Lines without an error."""
        return int((self.errors == 0).sum())


def look(evidence: Evidence) -> Readings:
    """Compare every line."""
    truth, read = np.asarray(evidence.y, dtype=np.int32), transcripts.codes_of(evidence.scores)
    errors, lengths = transcripts.edit_distances(truth, read), transcripts.lengths(truth)
    order = np.lexsort((-errors, -errors / np.maximum(lengths, 1)))
    wrong = [int(i) for i in order if errors[i]]
    texts, said = transcripts.to_texts(truth[wrong]), transcripts.to_texts(read[wrong])
    sure = transcripts.confidence_of(evidence.scores)
    worst = tuple(
        Reading(i, text, other, int(errors[i]), float(sure[i]))
        for i, text, other in zip(wrong, texts, said, strict=True)
    )
    return Readings(errors, int(lengths.sum()), worst)


def confusions(readings: Readings) -> list[tuple[str, str, int]]:
    """Characters that were taken for others, left out or added, most frequent first.

    Returns
    -------
    list of (str, str, int)
        What stands there, what was read (the empty text for nothing), and how often.
    """
    step = max(1, -(-len(readings.worst) // MOST_ALIGNED))
    found: Counter[tuple[str, str]] = Counter()
    for reading in readings.worst[::step]:
        found.update(pair for pair in aligned(reading.truth, reading.read) if pair[0] != pair[1])
    return [(a, b, n) for (a, b), n in sorted(found.items(), key=lambda item: (-item[1], item[0]))]


def aligned(truth: str, read: str) -> list[tuple[str, str]]:
    """Put two texts side by side with the fewest differences; the empty text stands for a character that lacks.

    Examples
    --------
    >>> aligned("cat", "ct")
    [('c', 'c'), ('a', ''), ('t', 't')]
    """
    table = [list(range(len(read) + 1))]
    for i, a in enumerate(truth, start=1):
        above, row = table[-1], [i]
        for j, b in enumerate(read, start=1):
            row.append(min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b)))
        table.append(row)
    i, j, pairs = len(truth), len(read), []
    while i or j:
        if i and j and table[i][j] == table[i - 1][j - 1] + (truth[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((truth[i], read[j]))
        elif i and table[i][j] == table[i - 1][j] + 1:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", read[j]))
    return pairs[::-1]
