"""Predicts images with a bundle."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.assemble import CONFIDENCE, LABEL, PREDICTION, PROBABILITIES
from tidemill.bundle.batch import Batch, Piece
from tidemill.bundle.gaps import Gap, OnGap, ignore
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.runner.answers import answer_header
from tidemill.bundle.runner.stacks import MOST_IMAGES, stacks
from tidemill.bundle.runtime import Bundle, whole_file
from tidemill.core.errors import DataError
from tidemill.core.schema import Columns
from tidemill.core.task import TaskKind
from tidemill.data.coerce import encode_target, known_rows, unknown_targets
from tidemill.data.images.pictures import ArrayPictures, Pictures, Unreadable, look
from tidemill.data.images.sent import sent
from tidemill.data.images.source import ImageTable, read_images

FILE = "file"
"""First column of answers: the name of the image."""
_STEP_IMAGES = 256
"""Images for which it is worth to start a session."""
_JUDGED = (LABEL, PROBABILITIES, PREDICTION, CONFIDENCE)


class ImageBundle(Bundle):
    """A bundle whose input is an image; `Bundle.open` gives one where the folder holds such a graph.

    It predicts a folder, a zip archive, an image file, a table that names files, a ``.npy`` file, or arrays of pixels.
    """

    def predict(self, data: Any, *, images: str | Path | None = None) -> NDArray[Any]:
        """Predict labels, in the type that they had in training, or values; one for each image.

        Parameters
        ----------
        data, images
            As in `tidemill.data.images.source.read_images`.

        Raises
        ------
        DataError
            Naming the first image that can't be read; a file that is not there is such an image.
        """
        return self.predict_columns(self.columns(data, images=images))

    def columns(self, data: Any, *, images: str | Path | None = None) -> Columns:
        """Read all images into memory; `to_csv` and `predict_records` read some at a time instead."""
        found = list(look(read_images(data, images=images, keep_missing=True).pictures))
        for each in found:
            if isinstance(each, Unreadable):
                raise DataError(f"The image can't be read: {each.reason}.", where=each.name)
        seen = np.empty(len(found), dtype=object)
        for place, pixels in enumerate(found):  # one by one: numpy would join arrays of one shape
            seen[place] = pixels
        return {IMAGE: seen}

    def chunks(self, columns: Columns) -> Iterator[dict[str, NDArray[Any]]]:
        """Outputs of the graph by name, images of one size at a time, in order."""
        images = columns[IMAGE]
        if not len(images):
            yield self._nothing()
        for _, outputs in self._answers(ArrayPictures(images), []):
            yield outputs

    def to_csv(
        self,
        data: Any,
        out: str | Path | TextIO,
        *,
        images: str | Path | None = None,
        on_unreadable: Callable[[str], None] | None = None,
    ) -> int:
        """Predict into a CSV file: ``file``, ``prediction``, then ``proba_<label>`` for each class.

        Parameters
        ----------
        data, images
            As in `tidemill.data.images.source.read_images`. A table's rows whose files are not there stay.
        out : path or text stream
            Where to write; a file is there as a whole or not at all.
        on_unreadable : callable, optional
            Told the name of each image that can't be read, and why; its cells are empty.

        Returns
        -------
        int
            Number of images.
        """
        pictures = read_images(data, images=images, keep_missing=True).pictures
        unread: list[Unreadable] = []
        if isinstance(out, (str, Path)):
            with whole_file(Path(out)) as file:
                self._write_all(pictures, file, unread)
        else:
            self._write_all(pictures, out, unread)
        _tell(unread, on_unreadable)
        return len(pictures)

    def csv_header(self) -> list[str]:
        """Columns of what `to_csv` writes."""
        return [FILE, *self._header()]

    def batch(self, data: Any, *, images: str | Path | None = None) -> Batch:
        """Cut images into pieces for `write_piece`; each holds the bytes of its files, read when it is asked for.

        Parameters
        ----------
        data, images
            As `to_csv` takes them.
        """
        pictures = read_images(data, images=images, keep_missing=True).pictures
        names = pictures.names

        def cut(start: int, stop: int) -> Piece:
            some = sent(pictures, names, start, stop)
            return Piece(len(some), some, some.size_bytes)

        return Batch(len(pictures), MOST_IMAGES, _STEP_IMAGES, cut)

    def write_piece(self, content: Any, file: TextIO, on_unreadable: Callable[[str], None] | None = None) -> None:
        """Answer a piece of a `batch` as lines of CSV, without header; an image that can't be read has empty cells."""
        unread: list[Unreadable] = []
        self._write(content, file, unread)
        _tell(unread, on_unreadable)

    def predict_records(
        self, data: Any, *, images: str | Path | None = None, on_unreadable: Callable[[str], None] | None = None
    ) -> list[dict[str, Any]]:
        """Predict into one dictionary for each image, with the columns of `to_csv`; None where it can't be read."""
        pictures = read_images(data, images=images, keep_missing=True).pictures
        unread: list[Unreadable] = []
        header = self._header()
        out: list[dict[str, Any]] = [{FILE: str(n), **dict.fromkeys(header)} for n in pictures.names]
        for places, outputs in self._answers(pictures, unread):
            for place, row in zip(places, self._rows(outputs), strict=True):
                out[place].update(zip(header, row, strict=True))
        _tell(unread, on_unreadable)
        return out

    def evaluate(self, data: Any, *, images: str | Path | None = None, on_gap: OnGap = ignore) -> dict[str, float]:
        """Compare predictions with the labels of the data: every metric of the task by name.

        Images that can't be read, and those without a known label, are left out.

        Parameters
        ----------
        data, images
            As in `tidemill.data.images.source.read_images`, with labels.
        on_gap : callable
            Told how many images are left out, why, and which.

        Raises
        ------
        DataError
            If there are no labels, or no image with a label can be read.
        """
        table = read_images(data, self._target(data), images=images, keep_missing=True)
        several = self.task.kind is TaskKind.MULTILABEL  # whose columns may be named one by one
        if not several and self.task.target not in table.table.column_names:
            raise DataError(f"The images have no label {self.task.target!r}.", where=table.source)
        y = encode_target(table.raw, self.task)
        known = known_rows(self.task, y)
        rows, outputs = self._judged(table, known, "No image with a known label can be read.", on_gap)
        if not known.all():
            what = f"have {unknown_targets(table.raw, self.task, known)} and are left out"
            on_gap(Gap.of_names(names_of(table, np.flatnonzero(~known)), len(known), "images", what))
        return self._compared(y[rows], outputs)

    # ------------------------------------------------------------------------------------------------------- inside

    def _judged(
        self, table: ImageTable, known: NDArray[np.bool_], nothing: str, on_gap: OnGap
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Rows with a known truth whose images can be read, and what the graph says of them; tells of the others.

        Raises `DataError` with the words of ``nothing`` where there is no such row.
        """
        rows = np.flatnonzero(known)
        unread: list[Unreadable] = []
        seen: list[int] = []
        found: list[dict[str, NDArray[Any]]] = []
        for places, outputs in self._answers(table.pictures.take(rows), unread):
            seen += places
            found.append({name: outputs[name] for name in _JUDGED if name in outputs})
        if not seen:
            raise DataError(nothing, where=table.source, hint=f"The first: {unread[0]}." if unread else "")
        if unread:
            on_gap(Gap.of_names([str(u) for u in unread], len(rows), "images", "can't be read and are left out"))
        return rows[np.array(seen)], {name: np.concatenate([f[name] for f in found]) for name in found[0]}

    def _header(self) -> list[str]:
        """Columns of an answer."""
        return answer_header(self.task.classes)

    def _target(self, data: Any) -> str | None:
        """A folder's labels take the target's name; a table may lack the column, which is told in better words."""
        is_table = isinstance(data, (str, Path)) and Path(data).expanduser().is_file()
        return None if is_table and Path(data).suffix.lower() != ".zip" else self.task.target

    def _answers(
        self, pictures: Pictures, unread: list[Unreadable]
    ) -> Iterator[tuple[list[int], dict[str, NDArray[Any]]]]:
        """Places and outputs of images that can be read; the others go to ``unread``."""
        run = self.session()
        names = [o.name for o in run.get_outputs()]

        def seen() -> Iterator[Any]:
            for found in look(pictures, threads=self.threads):
                if isinstance(found, Unreadable):
                    unread.append(found)
                    yield None
                else:
                    yield found

        for places, stack in stacks(seen()):
            yield places, dict(zip(names, run.run(None, {IMAGE: stack}), strict=True))

    def _rows(self, outputs: dict[str, NDArray[Any]]) -> list[list[Any]]:
        if LABEL not in outputs:
            return [[value] for value in outputs[PREDICTION].tolist()]
        labels = self.label_values(outputs[LABEL]).tolist()
        return [[label, *row] for label, row in zip(labels, outputs[PROBABILITIES].tolist(), strict=True)]

    def _write_all(self, pictures: Pictures, file: TextIO, unread: list[Unreadable]) -> None:
        csv.writer(file, lineterminator="\n").writerow(self.csv_header())
        self._write(pictures, file, unread)

    def _write(self, pictures: Pictures, file: TextIO, unread: list[Unreadable]) -> None:
        writer = csv.writer(file, lineterminator="\n")
        width, names, done = len(self._header()), pictures.names, 0
        for places, outputs in self._answers(pictures, unread):
            for place, row in zip(places, cells_of(outputs), strict=True):
                _skip(writer, names, done, place, width)
                writer.writerow([names[place], *row])
                done = place + 1
        _skip(writer, names, done, len(pictures), width)


def cells_of(outputs: dict[str, NDArray[Any]]) -> list[list[str]]:
    """Cells of answers as text; a float32 has the fewest digits that give it back.

    Examples
    --------
    >>> cells_of({"prediction": np.float32([0.1])})
    [['0.1']]
    """
    if PREDICTION in outputs:
        shown = [outputs[name] for name in (PREDICTION, CONFIDENCE) if name in outputs]
        return [list(map(str, row)) for row in zip(*shown, strict=True)]
    return [[str(label), *map(str, row)] for label, row in zip(outputs[LABEL], outputs[PROBABILITIES], strict=True)]


def names_of(table: ImageTable, rows: NDArray[np.int64]) -> list[str]:
    """What the images of some rows are called."""
    return [str(table.pictures.names[i]) for i in rows]


def _tell(unread: Sequence[Unreadable], on_unreadable: Callable[[str], None] | None) -> None:
    if on_unreadable is not None:
        for each in unread:
            on_unreadable(str(each))


def _skip(writer: Any, names: Sequence[str], start: int, stop: int, width: int) -> None:
    """Write empty answers for images that can't be read."""
    for place in range(start, stop):
        writer.writerow([names[place], *[""] * width])
