"""Rows of which some columns hold texts or images, which encoders inside of the graph read.

The front knows such a bundle as it knows one of a plain table: a text or the Base64 of an image file is a cell like any
other. Here cells become what the graph takes, by the code and the files that were there in training.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.runner.fusion.rows import answer_rows, rows_at_a_time
from tidemill.bundle.runner.texts.reading import Read
from tidemill.deploy.engine.encoders.base import Encoding, UnreadableError
from tidemill.deploy.engine.encoders.images import MOST_PIXELS
from tidemill.deploy.engine.encoders.readers import explained, open_readers, warm
from tidemill.deploy.engine.layout import TensorSpec

__all__ = ["ColumnCells", "make", "warm"]

_INPUTS, _COLUMNS = "tidemill.inputs", "tidemill.columns"
"""Keys of the graph's metadata; as in `tidemill.bundle.fusion.assemble`, which loads onnx."""


class ColumnCells:
    """From rows as people send them to the graph's answers.

    Parameters
    ----------
    inputs : sequence of mapping
        Inputs of the graph, as its metadata describe them.
    readers : mapping
        What reads the texts of a column, by its name.
    most_pixels : int
        Larger images are refused before they are unpacked.
    """

    def __init__(
        self, inputs: Sequence[Mapping[str, Any]], readers: Mapping[str, Read], most_pixels: int = MOST_PIXELS
    ) -> None:
        self._inputs = inputs
        self._readers = readers
        self._most = most_pixels

    def shown(self, inputs: Sequence[TensorSpec]) -> list[TensorSpec]:
        """Inputs of the graph as a caller sees them: a cell of text in place of tokens and pixels."""
        hidden = {each["input"] for each in self._inputs if each["unit"] == "embedded"}
        return [TensorSpec(i.name, "BYTES", (None, 1)) if i.name in hidden else i for i in inputs]

    def answer(self, session: Any, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run the graph on rows, some at a time; outputs in its order.

        Raises
        ------
        UnreadableError
            With the first image that can't be read.
        """
        given = {each["column"]: feed[each["input"]][:, 0] for each in self._inputs}
        rows, size = len(next(iter(given.values()))), rows_at_a_time(self._inputs)
        parts = []
        for start in range(0, rows, size):
            columns = {
                each["column"]: self._cells(each, given[each["column"]][start : start + size], start)
                for each in self._inputs
            }
            parts.append(answer_rows(session, self._inputs, self._readers, columns).values())
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _cells(self, each: Mapping[str, Any], cells: NDArray[Any], start: int) -> NDArray[Any]:
        if each["unit"] != "embedded" or each["type"] != "image":
            return cells
        out = np.empty(len(cells), dtype=object)
        for place, cell in enumerate(cells):
            if str(cell).strip():
                out[place] = self._pixels(str(each["column"]), start + place, str(cell))
        return out

    def _pixels(self, column: str, place: int, cell: str) -> NDArray[np.uint8]:
        from tidemill.data.images.decode import decode

        try:
            return decode(base64.b64decode(cell, validate=True), self._most)
        except binascii.Error:
            reason = "it is no Base64 of a file"
        except ValueError as error:
            reason = str(error)
        except MemoryError:
            reason = "there is not enough memory for it"
        raise UnreadableError(place, f"the image in column {column!r}: {reason}") from None


def make(encoding: Encoding, inputs: Sequence[str], stated: Mapping[str, str]) -> ColumnCells:
    """Make the encoder of a bundle.

    Raises
    ------
    BundleError
        Where a reader's file is not the one that the graph was proven with.
    MissingExtraError
        Where a package is absent that reads tokens.
    """
    known = open_readers(encoding, stated)
    with explained(encoding):
        readers = {column: known[key] for column, key in json.loads(stated[_COLUMNS]).items()}
        described = json.loads(stated[_INPUTS])
    return ColumnCells(described, readers, int(encoding.options.get("most_pixels", MOST_PIXELS)))
