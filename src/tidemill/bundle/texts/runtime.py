"""Predicts texts with a bundle."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from tidemill.bundle.batch import Batch, of_columns
from tidemill.bundle.parity import CHUNK
from tidemill.bundle.runner.ordered import in_order
from tidemill.bundle.runner.texts.reading import answer_texts
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.texts.readers import Reader, stored_readers
from tidemill.core.schema import Columns


class TextBundle(Bundle):
    """A bundle whose input is a text; `Bundle.open` gives one where the folder holds such a graph.

    It predicts whatever a bundle for tables predicts: a file or a table with the column of the texts. A text that is
    empty or missing is answered as an empty one; what is longer than its models read is cut.
    """

    @cached_property
    def readers(self) -> list[Reader]:
        """What turns texts into inputs of the graph."""
        return stored_readers(self.session().get_modelmeta().custom_metadata_map, self.path)

    @property
    def column(self) -> str:
        """Name of the column with the texts."""
        return self.schema.features[0].name

    def batch(self, data: Any) -> Batch:
        """Cut as `Bundle.batch`, into fewer rows: an encoder takes a second for some hundred."""
        return of_columns(self.columns(data), CHUNK, CHUNK)

    def chunks(self, columns: Columns) -> Iterator[dict[str, NDArray[Any]]]:
        """Outputs of the graph by name, some texts at a time, in order; no texts give one empty chunk."""
        run, reads = self.session(), [reader.read for reader in self.readers]
        texts = [str(text) for text in columns[self.column]]

        def answer(start: int) -> dict[str, NDArray[Any]]:
            return answer_texts(run, reads, texts[start : start + CHUNK])

        starts = range(0, len(texts), CHUNK)
        return in_order(answer, starts, min(self.threads, len(starts))) if starts else iter([self._nothing()])
