"""Metrics of transcripts: how many characters, and how many whole texts, were read rightly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tidemill.core import transcripts
from tidemill.core.errors import DataError
from tidemill.core.metrics._base import RECOGNITION, Evidence, Metric


@dataclass(frozen=True)
class CharacterErrors:
    """Characters to insert, delete or replace, as a share of the characters that are there; above 1 where more is read.

    Parameters
    ----------
    nocase : bool
        Take upper and lower case for the same.
    """

    nocase: bool = False

    def __call__(self, e: Evidence) -> float:
        """Sum of edit distances over sum of lengths; rows count as often as they weigh."""
        truth, read = _pair(e, self.nocase)
        weight = np.ones(len(truth)) if e.weight is None else e.weight
        characters = float(weight @ transcripts.lengths(truth))
        if characters == 0:
            raise DataError("The character error rate needs a character that is there to be read.")
        return float(weight @ transcripts.edit_distances(truth, read)) / characters


@dataclass(frozen=True)
class WholeTexts:
    """Share of the rows whose whole text is right.

    Parameters
    ----------
    nocase : bool
        Take upper and lower case for the same.
    """

    nocase: bool = False

    def __call__(self, e: Evidence) -> float:
        """Weighted mean over the rows."""
        return e.mean(transcripts.same(*_pair(e, self.nocase)).astype(np.float64))


def _pair(e: Evidence, nocase: bool) -> tuple[transcripts.Codes, transcripts.Codes]:
    truth, read = np.asarray(e.y, dtype=np.int32), transcripts.codes_of(e.scores)
    return (transcripts.folded(truth), transcripts.folded(read)) if nocase else (truth, read)


METRICS = (
    Metric(
        "cer", False, RECOGNITION, "value", CharacterErrors(),
        "Character error rate: edit distances over lengths of the truth, summed over all rows.",
    ),
    Metric("exact", True, RECOGNITION, "value", WholeTexts(), "Share of rows whose whole text is right."),
    Metric(
        "cer_nocase", False, RECOGNITION, "value", CharacterErrors(nocase=True),
        "Character error rate where upper and lower case are the same.",
    ),
    Metric(
        "exact_nocase", True, RECOGNITION, "value", WholeTexts(nocase=True),
        "Share of rows whose whole text is right where upper and lower case are the same.",
    ),
)  # fmt: skip
