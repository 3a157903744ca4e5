"""What a net that reads says of every step along some lines, kept by a study so that several nets can read together.

Transcripts of several nets can't be averaged; what the nets say of each step can, for all nets of a study say it of the
same steps: the mean of their logarithms, made probabilities again, which is the product of experts of equal say. Nets
may still set a character a step apart, so that whether it helps is to be seen on lines that were held out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import InternalError

Logs = NDArray[np.float32]
"""Logarithms of probabilities, shape (steps, K + 1); the first output is the blank's."""


@dataclass(frozen=True)
class Frames:
    """What one net says of some lines.

    Parameters
    ----------
    alphabet : str
        The K characters.
    values : ndarray of float16, shape (steps of all lines, K + 1)
        Logarithms of probabilities, lines behind each other; three digits of each are kept.
    steps : ndarray of int64, shape (n,)
        Steps of each line.
    """

    alphabet: str
    values: NDArray[np.float16]
    steps: NDArray[np.int64]

    @classmethod
    def of(cls, lines: Sequence[NDArray[Any]], alphabet: str) -> Frames:
        """Keep what is said of some lines.

        Examples
        --------
        >>> frames = Frames.of([np.log([[0.5, 0.5]]), np.log([[0.25, 0.75], [0.75, 0.25]])], "a")
        >>> len(frames), [np.exp(line).round(2).tolist() for line in frames.lines()]
        (2, [[[0.5, 0.5]], [[0.25, 0.75], [0.75, 0.25]]])
        """
        empty = np.empty((0, len(alphabet) + 1), dtype=np.float16)
        values = np.concatenate([empty, *(np.asarray(line, dtype=np.float16) for line in lines)])
        return cls(alphabet, values, np.array([len(line) for line in lines], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.steps)

    def lines(self) -> list[Logs]:
        """What is said of each line."""
        return [part.astype(np.float32) for part in np.split(self.values, np.cumsum(self.steps)[:-1])[: len(self)]]

    def beside(self, other: Frames) -> bool:
        """Whether both are of the same characters and steps, so that they can be joined."""
        return self.alphabet == other.alphabet and np.array_equal(self.steps, other.steps)

    def to_tree(self) -> dict[str, Any]:
        """Plain values and arrays for `tidemill.core.pack`."""
        return {"alphabet": self.alphabet, "values": self.values, "steps": self.steps}

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Frames:
        """Undo `to_tree`."""
        return cls(tree["alphabet"], tree["values"], tree["steps"])


def joined(several: Sequence[NDArray[Any]], weights: Sequence[float]) -> Logs:
    """Join what several nets say of the same steps: the weighted mean of logarithms, made probabilities again.

    Parameters
    ----------
    several : sequence of ndarray
        Logarithms of probabilities of one shape, outputs on the last axis.
    weights : sequence of float
        One for each net.

    Examples
    --------
    >>> sure, unsure = np.log([[0.9, 0.1]]), np.log([[0.4, 0.6]])
    >>> np.exp(joined([sure, unsure], [0.5, 0.5])).round(3).tolist()
    [[0.71, 0.29]]
    """
    if len(several) != len(weights):
        raise InternalError(f"There are {len(several)} nets, but {len(weights)} weights.")
    mean = np.sum([w * np.asarray(f, dtype=np.float32) for w, f in zip(weights, several, strict=True)], axis=0)
    mean = mean - mean.max(axis=-1, keepdims=True)
    out: Logs = (mean - np.log(np.exp(mean).sum(axis=-1, keepdims=True))).astype(np.float32)
    return out


def read_together(several: Sequence[Frames], weights: Sequence[float]) -> Iterator[tuple[NDArray[np.int64], Logs]]:
    """Join what several nets say of each of the same lines.

    Yields
    ------
    tuple
        Numbers of lines of one length, and what is said of them, shape (lines, steps, K + 1).

    Raises
    ------
    InternalError
        Where they are not of the same characters and steps.
    """
    first = several[0]
    if not all(first.beside(other) for other in several):
        raise InternalError("These nets say what they say of other characters or steps, and can't be joined.")
    begins = np.cumsum(first.steps) - first.steps
    for steps in np.unique(first.steps):
        places = np.flatnonzero(first.steps == steps)
        rows = begins[places][:, None] + np.arange(steps)
        yield places, joined([frames.values[rows] for frames in several], weights)
