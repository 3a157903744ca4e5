"""Predicts rows of which some columns are embedded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from tidemill.bundle.assemble import about
from tidemill.bundle.fusion.assemble import COLUMNS
from tidemill.bundle.fusion.parity import CHUNK
from tidemill.bundle.parity import count_rows
from tidemill.bundle.runner.fusion.rows import answer_rows
from tidemill.bundle.runner.ordered import in_order
from tidemill.bundle.runner.texts.reading import Read
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.texts.readers import stored_readers
from tidemill.core.schema import Columns


class FusedBundle(Bundle):
    """A bundle of a table with embedded columns; `Bundle.open` gives one where the folder holds such a graph.

    It predicts whatever a bundle for tables predicts. A text that is empty or missing says nothing; what is longer than
    its encoder reads is cut.
    """

    @cached_property
    def readers(self) -> dict[str, Read]:
        """What turns the texts of a column into tokens, by column."""
        stated = self.session().get_modelmeta().custom_metadata_map
        known = {reader.key: reader.read for reader in stored_readers(stated, self.path)}
        return {column: known[key] for column, key in json.loads(stated[COLUMNS]).items()}

    def chunks(self, columns: Columns) -> Iterator[dict[str, NDArray[Any]]]:
        """Outputs of the graph by name, some rows at a time, in order; no rows give one empty chunk."""
        run, readers = self.session(), self.readers
        inputs = json.loads(about(self.task, self.schema)["tidemill.inputs"])

        def answer(start: int) -> dict[str, NDArray[Any]]:
            return answer_rows(run, inputs, readers, {n: v[start : start + CHUNK] for n, v in columns.items()})

        starts = range(0, count_rows(columns), CHUNK)
        return in_order(answer, starts, min(self.threads, len(starts))) if starts else iter([self._nothing()])
