"""Reads lines of text with a bundle."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import CONFIDENCE, PREDICTION
from tidemill.bundle.evidence import Evidence, point_values
from tidemill.bundle.images.runtime import ImageBundle
from tidemill.bundle.latency import session
from tidemill.bundle.runner.beams import decoding
from tidemill.core import transcripts
from tidemill.core.errors import DataError
from tidemill.data.images.source import read_images
from tidemill.data.images.transcripts import transcripts_of


class LineBundle(ImageBundle):
    """A bundle that reads the text of an image; `Bundle.open` gives one where the folder holds such a graph.

    It takes what `ImageBundle` takes, and answers ``prediction``, the text, and ``confidence``: the probability of the
    best path through the line, or, where texts are searched for by beams, of all ways to write the text.
    """

    def session(self) -> Any:
        """The session, started on first use; texts are searched for behind it where the bundle says so."""
        if self._session is None:
            self._session = decoding(session(self.model_path))
        return self._session

    def evaluate(self, data: Any) -> dict[str, float]:
        """Compare what is read with the transcripts of the data: every metric of the task by name.

        Images that can't be read, and those without a transcript, are left out.

        Raises
        ------
        DataError
            If there are no transcripts, or no image with one can be read.
        """
        table = read_images(data, self._target(data))
        if self.task.target not in table.table.column_names:
            raise DataError(f"The images have no transcript {self.task.target!r}.", where=table.source)
        texts = transcripts_of(table.table[self.task.target])
        known = np.flatnonzero(texts != "")
        seen: list[int] = []
        found: list[NDArray[np.float32]] = []
        for places, outputs in self._answers(table.pictures.take(known), []):
            seen += places
            found.append(transcripts.to_scores(outputs[CONFIDENCE], outputs[PREDICTION]))
        if not seen:
            raise DataError("No image with a known transcript can be read.", where=table.source)
        truth = transcripts.to_codes(texts[known[np.array(seen)]])
        if self.task.ignores_case:
            truth = transcripts.folded(truth)
        evidence = Evidence("given", truth, transcripts.joined(found))
        return point_values(evidence, self.task, self.spec.decision, None)

    # ------------------------------------------------------------------------------------------------------- inside

    def _nothing(self) -> dict[str, NDArray[Any]]:
        return {PREDICTION: np.empty(0, dtype=object), CONFIDENCE: np.empty(0, dtype=np.float32)}

    def _header(self) -> list[str]:
        return [PREDICTION, CONFIDENCE]

    def _rows(self, outputs: dict[str, NDArray[Any]]) -> list[list[Any]]:
        return [list(row) for row in zip(outputs[PREDICTION].tolist(), outputs[CONFIDENCE].tolist(), strict=True)]
