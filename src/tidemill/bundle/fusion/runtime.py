"""Predicts rows of which some columns are embedded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import about
from tidemill.bundle.batch import Batch, Piece, of_columns
from tidemill.bundle.fusion.assemble import COLUMNS
from tidemill.bundle.gaps import Gap, OnGap, ignore
from tidemill.bundle.parity import count_rows
from tidemill.bundle.runner.fusion.rows import answer_rows, rows_at_a_time
from tidemill.bundle.runner.ordered import in_order
from tidemill.bundle.runner.texts.reading import Read
from tidemill.bundle.runtime import Bundle, whole_file
from tidemill.bundle.texts.readers import stored_readers
from tidemill.core.errors import DataError
from tidemill.core.schema import Columns, SemanticType
from tidemill.data.coerce import to_columns
from tidemill.data.images.files import Files
from tidemill.data.images.named import file_name
from tidemill.data.images.sent import content_of, size_of, unpacked
from tidemill.data.images.source import files_of
from tidemill.data.ingest import RawTable

_STEP_ROWS = 256
"""Rows for which it is worth to start a session."""


@dataclass(frozen=True)
class _Image:
    """A cell that names an image, until it is read: where its file lies, or once it travels, what was found there."""

    source: Files | bytes | str
    name: str
    tell: Callable[[str], None] | None

    def packed(self) -> _Image:
        """The same with all that it needs elsewhere."""
        return replace(self, source=self._content(), tell=None)

    def _content(self) -> bytes | str:
        return self.source if isinstance(self.source, (bytes, str)) else content_of(self.source, self.name)

    def read(self) -> NDArray[np.uint8] | None:
        """Pixels; None where somebody was told that it can't be read."""
        try:
            return unpacked(self._content())
        except ValueError as error:
            if self.tell is None:
                raise DataError(f"The image can't be read: {error}.", where=self.name) from error
            self.tell(f"{self.name}: {error}")
        return None


class FusedBundle(Bundle):
    """A bundle of a table with embedded columns; `Bundle.open` gives one where the folder holds such a graph.

    It predicts whatever a bundle for tables predicts. A text that is empty or missing says nothing; what is longer than
    its encoder reads is cut. An image is a file that its column names, beside the table; for a table in memory in the
    present folder.
    """

    @cached_property
    def readers(self) -> dict[str, Read]:
        """What turns the texts of a column into tokens, by column."""
        stated = self.session().get_modelmeta().custom_metadata_map
        known = {reader.key: reader.read for reader in stored_readers(stated, self.path)}
        return {column: known[key] for column, key in json.loads(stated[COLUMNS]).items()}

    @property
    def _images(self) -> list[str]:
        return [c.name for c in self.schema.embedded if c.type is SemanticType.IMAGE]

    def predict(self, data: Any, *, images: str | Path | None = None) -> NDArray[Any]:
        """Predict labels, in the type that they had in training, or values.

        Parameters
        ----------
        data
            As `Bundle.predict` takes it.
        images : path, optional
            Folder or archive in which the files lie that its columns name.

        Raises
        ------
        DataError
            Naming the first image that can't be read; a cell that names none is missing.
        """
        return self.predict_columns(self._physical(self._read(data), data, images=images))

    def predict_records(
        self, data: Any, *, images: str | Path | None = None, on_unreadable: Callable[[str], None] | None = None
    ) -> list[dict[str, Any]]:
        """Predict into one dictionary for each row; the parameters are those of `to_csv`."""
        return self._records(self.answer(self._physical(self._read(data), data, on_unreadable, images)))

    def evaluate(self, data: Any, *, images: str | Path | None = None, on_gap: OnGap = ignore) -> dict[str, float]:
        """Compare predictions with the truth in the data; images that can't be read count as missing.

        Parameters
        ----------
        data, images
            As `predict` takes them, with the target.
        on_gap : callable
            Told which images can't be read, and how many rows are left out, and why.

        Raises
        ------
        DataError
            As `Bundle.evaluate`.
        """
        raw, y = self._with_truth(self._read(data), on_gap)
        unread: list[str] = []
        outputs = self.answer(self._physical(raw, data, unread.append, images))
        if unread:
            cells = len(y) * len(self._images)
            on_gap(Gap.of_names(sorted(unread), cells, "images", "can't be read and count as missing"))
        return self._compared(y, outputs)

    def to_csv(
        self,
        data: Any,
        out: str | Path | TextIO,
        *,
        images: str | Path | None = None,
        on_unreadable: Callable[[str], None] | None = None,
    ) -> int:
        """Predict into a CSV file, byte for byte as the bundle's ``run.py`` does.

        Parameters
        ----------
        data, out
            As `Bundle.to_csv` takes them.
        images : path, optional
            Folder or archive in which the files lie that its columns name; default beside the table.
        on_unreadable : callable, optional
            Told the name of each image that can't be read, and why; it counts as missing. Without it such an image is
            an error.

        Returns
        -------
        int
            Number of rows.
        """
        columns = self._physical(self._read(data), data, on_unreadable, images)
        if not isinstance(out, (str, Path)):
            self._write_csv(columns, out)
        else:
            with whole_file(Path(out)) as file:
                self._write_csv(columns, file)
        return count_rows(columns)

    def batch(self, data: Any, *, images: str | Path | None = None) -> Batch:
        """Cut rows into pieces for `write_piece`; each holds the bytes of its images, read when it is asked for.

        Parameters
        ----------
        data, images
            As `to_csv` takes them.
        """
        whole = of_columns(self._physical(self._read(data), data, images=images), self._chunk, _STEP_ROWS)

        def cut(start: int, stop: int) -> Piece:
            piece = whole.cut(start, stop)
            packed = {name: _each(piece.content[name], _Image.packed) for name in self._images}
            sizes = [size_of(cell.source) for cells in packed.values() for cell in cells if cell is not None]
            return Piece(piece.rows, {**piece.content, **packed}, sum(sizes))

        return replace(whole, cut=cut)

    def write_piece(self, content: Any, file: TextIO, on_unreadable: Callable[[str], None] | None = None) -> None:
        """Answer a piece of a `batch` as lines of CSV, without header; who is told of images is said here."""

        def listening(image: _Image) -> _Image:
            return replace(image, tell=on_unreadable)

        heard = {name: _each(content[name], listening) for name in self._images}
        super().write_piece({**content, **heard}, file)

    @property
    def _inputs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(about(self.task, self.schema)["tidemill.inputs"])
        return found

    @property
    def _chunk(self) -> int:
        """Rows that are read and answered together."""
        return rows_at_a_time(self._inputs)

    def _physical(
        self,
        raw: RawTable,
        data: Any,
        tell: Callable[[str], None] | None = None,
        images: str | Path | None = None,
    ) -> Columns:
        """Physical columns; images are read when they are answered."""
        pictured = self._images
        plain = self.schema.with_types(dict.fromkeys(pictured, SemanticType.TEXT)) if pictured else self.schema
        columns = to_columns(raw, plain)
        for name in pictured:
            names = [file_name(cell) for cell in columns[name]]
            files = files_of(data, [each for each in names if each], images)
            cells = np.empty(len(names), dtype=object)
            for place, each in enumerate(names):
                cells[place] = _Image(files, each, tell) if each else None
            columns[name] = cells
        return columns

    def chunks(self, columns: Columns) -> Iterator[dict[str, NDArray[Any]]]:
        """Outputs of the graph by name, some rows at a time, in order; no rows give one empty chunk."""
        run, readers = self.session(), self.readers
        inputs, size = self._inputs, self._chunk

        def answer(start: int) -> dict[str, NDArray[Any]]:
            part = {name: values[start : start + size] for name, values in columns.items()}
            part |= {name: _opened(part[name]) for name in self._images}
            return answer_rows(run, inputs, readers, part)

        starts = range(0, count_rows(columns), size)
        return in_order(answer, starts, min(self.threads, len(starts))) if starts else iter([self._nothing()])


def _opened(cells: NDArray[Any]) -> NDArray[Any]:
    """Read images that are still files."""
    return _each(cells, _Image.read)


def _each(cells: NDArray[Any], change: Callable[[_Image], Any]) -> NDArray[Any]:
    """Change the cells that are still files."""
    out = np.empty(len(cells), dtype=object)
    for place, cell in enumerate(cells):  # one by one: numpy would join images of one shape
        out[place] = change(cell) if isinstance(cell, _Image) else cell
    return out
