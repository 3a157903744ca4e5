"""Opens a bundle and predicts with it."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle import manifest
from tidemill.bundle.assemble import LABEL, PREDICTION, PROBABILITIES, input_names
from tidemill.bundle.batch import Batch, of_columns
from tidemill.bundle.evidence import Evidence, point_values
from tidemill.bundle.gaps import Gap, OnGap, ignore
from tidemill.bundle.latency import session
from tidemill.bundle.parity import CHUNK, count_rows, feed_of
from tidemill.bundle.runner.answers import answer_header, write_answers
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.bundle.spec import NAME, BundleInfo, BundleSpec
from tidemill.core.decision import codes_of, lists_of
from tidemill.core.errors import BundleError, DataError, NotFoundError, OptionError
from tidemill.core.schema import Columns, Schema
from tidemill.core.task import Task, TaskKind
from tidemill.data.coerce import encode_target, known_rows, to_columns, unknown_targets
from tidemill.data.ingest import RawTable, read

_CHECKED = (NAME, "1/model.onnx")
"""Files whose hash is checked when a bundle is opened; `tidemill.bundle.verify` checks all."""
_STEP_CHUNKS = 32
"""Chunks of a table for which it is worth to start a session."""


class Bundle:
    """A shipped model: one folder, one graph.

    Open one with `Bundle.open` (or ``tidemill.load``). The session starts with the first prediction. A bundle may be
    used from several threads at once.

    Parameters
    ----------
    path : Path
        The folder.
    spec : BundleSpec
        What the bundle says of itself.
    threads : int
        Calls that run at the same time where there are many rows; 0 means as many as this process has cores.
    """

    def __init__(self, path: Path, spec: BundleSpec, *, threads: int = 0) -> None:
        self.path = path
        self.spec = spec
        self.threads = threads or cores()
        self._names = input_names(spec.schema)
        self._session: Any = None

    @classmethod
    def open(cls, path: str | Path, *, threads: int = 0) -> Bundle:
        """Open a bundle's folder.

        Raises
        ------
        NotFoundError
            If there is no such folder.
        BundleError
            If it is no bundle, a damaged one, or one of a newer version.
        """
        folder = Path(path).expanduser()
        if not folder.exists():
            names = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.is_dir() else []
            raise NotFoundError.of("bundle", folder.name, names)
        if not folder.is_dir() or not (folder / manifest.NAME).is_file():
            raise BundleError("This is not a bundle: it has no manifest.json.", where=str(folder))
        try:
            listed = manifest.parse((folder / manifest.NAME).read_bytes(), where=str(folder / manifest.NAME))
            for name in _CHECKED:
                if name not in listed or manifest.entry_of(folder / name) != listed[name]:
                    raise BundleError(
                        "The file is damaged: its hash is not the one in the manifest.",
                        where=str(folder / name),
                        hint="Export the bundle again.",
                    )
            description = json.loads((folder / NAME).read_bytes())
        except (OSError, ValueError) as error:
            raise BundleError(f"The bundle can't be read ({error}).", where=str(folder)) from error
        spec = BundleSpec.from_json(description)
        return _kind_of(spec, cls)(folder, spec, threads=threads)

    @property
    def task(self) -> Task:
        """The problem that it answers."""
        return self.spec.task

    @property
    def schema(self) -> Schema:
        """All columns of the training data; its features are the inputs."""
        return self.spec.schema

    @property
    def info(self) -> BundleInfo:
        """Name, objective, lineage, cost and notes."""
        return self.spec.info

    @property
    def model_path(self) -> Path:
        """The ONNX file."""
        return self.path / "1" / "model.onnx"

    def __repr__(self) -> str:
        kind, target = self.task.kind.value, self.task.target
        return f"Bundle({self.info.name!r}, {kind} of {target!r}, {len(self._names)} inputs, {str(self.path)!r})"

    # ------------------------------------------------------------------------------------------------ predictions

    def predict(self, data: Any) -> NDArray[Any]:
        """Predict labels, in the type that they had in the training data, or values.

        Parameters
        ----------
        data : path, table, or dict of columns
            Whatever `tidemill.data.ingest.read` takes.

        Returns
        -------
        ndarray of shape (n,)
            Labels as text, integers, numbers or booleans; float32 values for a regression; where a row has several
            labels, lists of them.
        """
        return self.predict_columns(self.columns(data))

    def predict_proba(self, data: Any) -> NDArray[np.float32]:
        """Predict probabilities of shape (n, K), in the order of ``task.classes``.

        Raises
        ------
        OptionError
            For a regression.
        """
        if not self.task.kind.has_labels:
            raise OptionError(f"A {self.task.kind.value} has no probabilities; use `predict`.")
        return np.asarray(self.answer(self.columns(data))[PROBABILITIES], dtype=np.float32)

    def predict_columns(self, columns: Columns) -> NDArray[Any]:
        """Predict from physical columns, as `columns` gives them: the quick way for few rows."""
        outputs = self.answer(columns)
        return self.label_values(outputs[LABEL]) if LABEL in outputs else outputs[PREDICTION]

    def columns(self, data: Any) -> Columns:
        """Read data and turn it into physical columns.

        Raises
        ------
        DataError
            If a column is missing, a cell does not fit its type, or the data do not fit into memory.
        """
        return self._physical(self._read(data), data)

    def _physical(self, raw: RawTable, data: Any) -> Columns:
        """Physical columns of rows that were read; ``data`` is where they come from."""
        return to_columns(raw, self.schema)

    def answer(self, columns: Columns) -> dict[str, NDArray[Any]]:
        """Outputs of the graph by name for physical columns."""
        chunks = list(self.chunks(columns))
        return {name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]}

    def chunks(self, columns: Columns) -> Iterator[dict[str, NDArray[Any]]]:
        """Outputs of the graph by name, some rows at a time, in order; no rows give one empty chunk."""
        run = self.session()
        outputs = [o.name for o in run.get_outputs()]

        def answer(start: int) -> dict[str, NDArray[Any]]:
            part = {name: columns[name][start : start + CHUNK] for name in self._names}
            return dict(zip(outputs, run.run(None, feed_of(self._names, part)), strict=True))

        starts = range(0, count_rows(columns), CHUNK)
        return in_order(answer, starts, min(self.threads, len(starts))) if starts else iter([self._nothing()])

    def _nothing(self) -> dict[str, NDArray[Any]]:
        """Answers to no rows; some operators of onnxruntime lose a dimension there."""
        if not self.task.kind.has_labels:
            return {PREDICTION: np.empty(0, dtype=np.float32)}
        return {LABEL: np.empty(0, dtype=object), PROBABILITIES: np.empty((0, self.task.n_classes), dtype=np.float32)}

    def session(self) -> Any:
        """The onnxruntime session, started on first use."""
        if self._session is None:
            self._session = session(self.model_path)
        return self._session

    def label_values(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Turn labels as text into the type that they had in the training data; several of a row become a list."""
        if self.task.kind is TaskKind.MULTILABEL:
            return lists_of(labels)
        kind = self.task.label_type
        if kind == "integer":
            return np.array([int(v) for v in labels], dtype=np.int64)
        if kind == "number":
            return np.array([float(v) for v in labels], dtype=np.float64)
        if kind == "boolean":
            return np.array([str(v).lower() == "true" for v in labels], dtype=np.bool_)
        return np.asarray(labels, dtype=object)

    # ------------------------------------------------------------------------------------------------- tables out

    def to_csv(self, data: Any, out: str | Path | TextIO) -> int:
        """Predict into a CSV file, byte for byte as the bundle's ``run.py`` does.

        Parameters
        ----------
        data : path, table, or dict of columns
            What to predict.
        out : path or text stream
            Where to write; a file is there as a whole or not at all.

        Returns
        -------
        int
            Number of rows.
        """
        columns = self.columns(data)
        if not isinstance(out, (str, Path)):
            self._write_csv(columns, out)
        else:
            with whole_file(Path(out)) as file:
                self._write_csv(columns, file)
        return count_rows(columns)

    def _write_csv(self, columns: Columns, file: TextIO) -> None:
        csv.writer(file, lineterminator="\n").writerow(self.csv_header())
        for chunk in self.chunks(columns):
            write_answers(file, chunk)

    def csv_header(self) -> list[str]:
        """Columns of what `to_csv` writes."""
        return answer_header(self.task.classes)

    def batch(self, data: Any) -> Batch:
        """Cut what is to be predicted into pieces for `write_piece`, which other processes may answer.

        The header and what `write_piece` writes for all pieces, in order, are what `to_csv` writes.

        Parameters
        ----------
        data : path, table, or dict of columns
            What to predict.
        """
        return of_columns(self.columns(data), CHUNK, _STEP_CHUNKS * CHUNK)

    def write_piece(self, content: Any, file: TextIO, on_unreadable: Callable[[str], None] | None = None) -> None:
        """Answer a piece of a `batch` as lines of CSV, without header.

        Parameters
        ----------
        content
            Of the piece.
        file : text stream
            Where to write.
        on_unreadable : callable, optional
            As `to_csv` takes it, where a bundle looks at images.
        """
        for chunk in self.chunks(content):
            write_answers(file, chunk)

    def predict_records(self, data: Any) -> list[dict[str, Any]]:
        """Predict into one dictionary for each row: ``prediction``, then ``proba_<label>`` for each class."""
        return self._records(self.answer(self.columns(data)))

    def _records(self, outputs: dict[str, NDArray[Any]]) -> list[dict[str, Any]]:
        if LABEL not in outputs:
            return [{"prediction": value} for value in outputs[PREDICTION].tolist()]
        names = answer_header(self.task.classes)
        labels = self.label_values(outputs[LABEL]).tolist()
        return [
            dict(zip(names, [label, *row], strict=True))
            for label, row in zip(labels, outputs[PROBABILITIES].tolist(), strict=True)
        ]

    def evaluate(self, data: Any, *, on_gap: OnGap = ignore) -> dict[str, float]:
        """Compare predictions with the truth in the data: every metric of the task by name.

        Rows whose target is missing or is no class of the task are left out. A metric that has no value on these
        rows (ROC AUC where there is one class) is absent.

        Parameters
        ----------
        data
            As `predict` takes it, with the target.
        on_gap : callable
            Told how many rows are left out, and why.

        Raises
        ------
        DataError
            If the target column is absent, or no row has a target.
        """
        raw, y = self._with_truth(self._read(data), on_gap)
        return self._compared(y, self.answer(self._physical(raw, data)))

    def _with_truth(self, raw: RawTable, on_gap: OnGap) -> tuple[RawTable, NDArray[Any]]:
        """Rows with a known target, and their encoded target."""
        y = encode_target(raw, self.task)
        known = known_rows(self.task, y)
        if not known.any():
            raise DataError(f"No row has a known target {self.task.target!r}.", where=raw.source)
        if known.all():
            return raw, y
        what = f"have {unknown_targets(raw, self.task, known)} and are left out"
        on_gap(Gap(int((~known).sum()), len(known), "rows", what))
        return raw.take(known), y[known]

    def _compared(self, y: NDArray[Any], outputs: dict[str, NDArray[Any]]) -> dict[str, float]:
        """Every metric of the task by name, for outputs of the graph."""
        if LABEL not in outputs:
            evidence = Evidence("given", y, outputs[PREDICTION].reshape(-1, 1))
            return point_values(evidence, self.task, self.spec.decision, None)
        decided = codes_of(self.task, outputs[LABEL])
        return point_values(Evidence("given", y, outputs[PROBABILITIES]), self.task, self.spec.decision, decided)

    def _read(self, data: Any) -> RawTable:
        raw = read(data)
        if raw.rows_total is not None and raw.rows_total > raw.rows:
            raise DataError(
                f"Only {raw.rows:,} of {raw.rows_total:,} rows fit into memory.",
                where=raw.source,
                hint="Predict it in pieces, or with the bundle's run.py, which reads row by row.",
            )
        return raw


def _kind_of(spec: BundleSpec, asked: type[Bundle]) -> type[Bundle]:
    """The class that reads what the bundle takes."""
    if spec.task.kind is TaskKind.RECOGNITION:
        from tidemill.bundle.lines.runtime import LineBundle  # stands on this module

        return LineBundle
    if spec.schema.has_images:
        from tidemill.bundle.images.runtime import ImageBundle  # so does this one

        return ImageBundle
    if spec.schema.has_texts:
        from tidemill.bundle.texts.runtime import TextBundle  # so does this one

        return TextBundle
    if spec.schema.embedded:
        from tidemill.bundle.fusion.runtime import FusedBundle  # so does this one

        return FusedBundle
    return asked


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that is there as a whole or not at all."""
    if path.exists() and not path.is_file():  # a pipe or a device: there is nothing to replace
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise BundleError(f"The file could not be written: {error.strerror or error}.", where=str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
