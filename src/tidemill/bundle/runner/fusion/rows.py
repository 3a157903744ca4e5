"""Rows of which some columns hold texts or images: batches, and inputs of the graph.

The proof, `Bundle`, a serving process and the program beside a bundle all go through here. A column is described as in
the graph's metadata: ``{"column": …, "input": …, "type": …, "unit": …}``; what is embedded has the unit "embedded".
Cells of such a column are texts, or pixels of shape (height, width, 3) with None for a missing image; those of the
others are what the graph takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tidemill.bundle.runner.stacks import MOST_STACK_BYTES
from tidemill.bundle.runner.texts.reading import MOST_BATCH, MOST_CHARACTERS, Read

ROWS, IMAGE_ROWS = 256, 8
"""Rows that are read at a time, without images and with them: a photo may take 48 MB until the graph has seen it. They
are the same in the proof and in every program that runs the graph: the same rows, the same bits."""


def rows_at_a_time(inputs: Sequence[Mapping[str, Any]]) -> int:
    """How many rows are read, opened and answered before the next ones are.

    >>> rows_at_a_time([{"column": "photo", "type": "image", "unit": "embedded"}])
    8
    """
    return IMAGE_ROWS if any(each["unit"] == "embedded" and each["type"] == "image" for each in inputs) else ROWS


def row_batches(inputs: Sequence[Mapping[str, Any]], columns: Mapping[str, Any]) -> Iterator[list[int]]:
    """Places of rows that go through a graph together: images of one size, texts of about one length.

    >>> inputs = [{"column": "said", "type": "text", "unit": "embedded"}]
    >>> list(row_batches(inputs, {"said": ["long text", "a"]}))
    [[1, 0]]
    """
    texts = [columns[each["column"]] for each in inputs if each["unit"] == "embedded" and each["type"] == "text"]
    images = [columns[each["column"]] for each in inputs if each["unit"] == "embedded" and each["type"] == "image"]
    most = min(MOST_BATCH, rows_at_a_time(inputs))
    alike: dict[Any, list[int]] = {}
    for place in range(len(columns[inputs[0]["column"]])):
        shapes = tuple(None if cells[place] is None else cells[place].shape for cells in images)
        alike.setdefault(shapes, []).append(place)
    for places in alike.values():
        places.sort(key=lambda place: (sum(min(len(cells[place]), MOST_CHARACTERS) for cells in texts), place))
        row_bytes = sum(cells[places[0]].nbytes for cells in images if cells[places[0]] is not None)
        size = max(1, min(most, MOST_STACK_BYTES // max(1, row_bytes)))
        for start in range(0, len(places), size):
            yield places[start : start + size]


def placed_rows(cells: Sequence[Any]) -> Any:
    """A stack of images of one size, uint8 (n, height, width, 3); a missing one is black, where all are of one pixel.

    >>> placed_rows([None, np.ones((2, 2, 3), np.uint8)]).shape, placed_rows([None]).shape
    ((2, 2, 2, 3), (1, 1, 1, 3))
    """
    shape = next((cell.shape for cell in cells if cell is not None), (1, 1, 3))
    out = np.zeros((len(cells), *shape), dtype=np.uint8)
    for place, cell in enumerate(cells):
        if cell is not None:
            out[place] = cell
    return out


def feed_of_rows(
    inputs: Sequence[Mapping[str, Any]], readers: Mapping[str, Read], columns: Mapping[str, Any], places: Sequence[int]
) -> dict[str, Any]:
    """Inputs of a graph by name for some rows; a reader stands under the name of its column."""
    feed: dict[str, Any] = {}
    for each in inputs:
        cells = columns[each["column"]]
        some = [cells[place] for place in places]
        if each["unit"] != "embedded":
            kind = object if each["type"] in ("category", "text") else np.float64
            feed[each["input"]] = np.array(some, dtype=kind).reshape(-1, 1)
        elif each["type"] == "text":
            (feed[each["input"]],) = readers[each["column"]]([str(cell) for cell in some]).values()
        else:
            feed[each["input"]] = placed_rows(some)
    return feed


def answer_rows(
    session: Any, inputs: Sequence[Mapping[str, Any]], readers: Mapping[str, Read], columns: Mapping[str, Any]
) -> dict[str, Any]:
    """Outputs of a graph by name, in the order of the rows; at least one row."""
    names = [output.name for output in session.get_outputs()]
    rows = len(columns[inputs[0]["column"]])
    out: dict[str, Any] = {}
    for places in row_batches(inputs, columns):
        found = session.run(None, feed_of_rows(inputs, readers, columns, places))
        for name, values in zip(names, found, strict=True):
            if name not in out:
                out[name] = np.empty((rows, *values.shape[1:]), dtype=values.dtype)
            out[name][places] = values
    return out
