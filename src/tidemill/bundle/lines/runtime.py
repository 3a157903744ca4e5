"""Reads lines of text with a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import CONFIDENCE, PREDICTION
from tidemill.bundle.evidence import Evidence, point_values
from tidemill.bundle.gaps import Gap, OnGap, ignore
from tidemill.bundle.images.runtime import ImageBundle, names_of
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

    def evaluate(self, data: Any, *, images: str | Path | None = None, on_gap: OnGap = ignore) -> dict[str, float]:
        """Compare what is read with the transcripts of the data: every metric of the task by name.

        Images that can't be read, and those without a transcript, are left out.

        Parameters
        ----------
        data, images
            As in `tidemill.data.images.source.read_images`, with transcripts.
        on_gap : callable
            Told how many lines are left out, why, and which.

        Raises
        ------
        DataError
            If there are no transcripts, or no image with one can be read.
        """
        table = read_images(data, self._target(data), images=images, keep_missing=True)
        if self.task.target not in table.table.column_names:
            raise DataError(f"The images have no transcript {self.task.target!r}.", where=table.source)
        texts = transcripts_of(table.table[self.task.target])
        known = np.asarray(texts != "", dtype=np.bool_)
        rows, outputs = self._judged(table, known, "No image with a known transcript can be read.", on_gap)
        if not known.all():
            bare = names_of(table, np.flatnonzero(~known))
            on_gap(Gap.of_names(bare, len(known), "lines", "have no transcript and are left out"))
        truth = transcripts.to_codes(texts[rows])
        if self.task.ignores_case:
            truth = transcripts.folded(truth)
        evidence = Evidence("given", truth, transcripts.to_scores(outputs[CONFIDENCE], outputs[PREDICTION]))
        return point_values(evidence, self.task, self.spec.decision, None)

    # ------------------------------------------------------------------------------------------------------- inside

    def _nothing(self) -> dict[str, NDArray[Any]]:
        return {PREDICTION: np.empty(0, dtype=object), CONFIDENCE: np.empty(0, dtype=np.float32)}

    def _header(self) -> list[str]:
        return [PREDICTION, CONFIDENCE]

    def _rows(self, outputs: dict[str, NDArray[Any]]) -> list[list[Any]]:
        return [list(row) for row in zip(outputs[PREDICTION].tolist(), outputs[CONFIDENCE].tolist(), strict=True)]
