"""Which nets of a study read best together where texts are searched for by beams."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.parts import TIE_MARGIN
from tidemill.bundle.runner.beams import WEIGHED, Ids, beams, handicap, probabilities, proposed
from tidemill.core import transcripts
from tidemill.core.frames import Frames, Logs

CONSIDERED = 6
"""So many of the nets that read best alone may read together; each has to be searched through on all lines."""


@dataclass
class BeamReader:
    """Reads lines as a bundle does that searches by beams, by any nets of a study; what each finds is kept.

    Parameters
    ----------
    width : int
        Prefixes that are followed.
    lengths : collection of int
        Only texts of so many characters; empty allows all.
    """

    width: int
    lengths: Collection[int] = ()
    _said: dict[int, list[Logs]] = field(default_factory=dict, init=False, repr=False)
    _found: dict[int, list[list[Ids]]] = field(default_factory=dict, init=False, repr=False)
    _weighed: dict[tuple[int, int], dict[Ids, float]] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, weights: Mapping[int, float], frames: Mapping[int, Frames]) -> NDArray[np.float32]:
        """Read lines by several trials: scores as `tidemill.core.transcripts` has them.

        Raises
        ------
        KeyError
            Where nothing is kept of a trial.
        """
        numbers = list(weights)
        for number in numbers:
            self._hear(number, frames[number])
        first = frames[numbers[0]]
        read = [self._read(numbers, line) for line in range(len(first))]
        texts = ["".join(first.alphabet[output - 1] for output in ids) for ids, _ in read]
        return transcripts.to_scores(np.exp(np.minimum(0.0, [log for _, log in read])).astype(np.float32), texts)

    def _hear(self, number: int, frames: Frames) -> None:
        if number not in self._said:
            taken = handicap(len(frames.alphabet), TIE_MARGIN)
            self._said[number] = [line - taken for line in frames.lines()]
            self._found[number] = [
                [ids for ids, _ in beams(line, self.width, self.lengths)[:WEIGHED]] for line in self._said[number]
            ]

    def _read(self, numbers: Sequence[int], line: int) -> tuple[Ids, float]:
        """The text of a line, and the mean of the logarithms that nets give it."""
        found = [self._found[number][line] for number in numbers]
        same = all(texts[0] == found[0][0] for texts in found)
        texts = [found[0][0]] if same else proposed(found, self.lengths)
        logs = np.mean([self._logs(number, line, texts) for number in numbers], axis=0)
        best = int(np.argmax(logs))
        return texts[best], float(logs[best])

    def _logs(self, number: int, line: int, texts: Sequence[Ids]) -> list[float]:
        known = self._weighed.setdefault((number, line), {})
        new = [text for text in texts if text not in known]
        if new:
            known.update(zip(new, probabilities(self._said[number][line], new).tolist(), strict=True))
        return [known[text] for text in texts]
