"""The newest answers of an endpoint, so that feedback, a slow answer or a shadow's word finds its row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MOST_ROWS = 50_000
MOST_BYTES = 64 << 20


@dataclass(eq=False)
class Batch:
    """One call of a model, as the engine told it.

    Parameters
    ----------
    revision : str
        Who answered.
    columns : mapping
        Inputs by name, first axis: rows.
    outputs : mapping
        ``label`` and ``probabilities``, or ``prediction``, or what another graph calls its outputs.
    request_ids : sequence of str
        One for each row.
    at : float
        When it was told, seconds since 1970.
    parts : mapping of int to int, optional
        Of slices of requests that were divided: by the first row in the batch, which row of the request it is. Without
        it the slices of a request count as they came.
    """

    revision: str
    columns: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[np.generic]]
    request_ids: Sequence[str]
    at: float
    parts: Mapping[int, int] | None = None
    _labels: list[str] | None = field(default=None, init=False, repr=False)
    _texts: list[str] | None = field(default=None, init=False, repr=False)
    _confidence: NDArray[np.float64] | None = field(default=None, init=False, repr=False)

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Several batches of one revision as one, whose columns know how to be joined.

        Raises
        ------
        ValueError
            Where their columns or their answers don't follow each other.
        """
        first = batches[0]
        if len(batches) == 1:
            return first
        names = first.outputs.keys()
        if any(type(b.columns) is not type(first.columns) or b.outputs.keys() != names for b in batches):
            raise ValueError("Batches of different graphs can't be joined.")
        join: Callable[[list[Any]], Any] | None = getattr(type(first.columns), "joined", None)
        if join is None:
            raise ValueError("Columns of this kind can't be joined.")
        outputs = {name: np.concatenate([b.outputs[name] for b in batches]) for name in names}
        ids = [i for b in batches for i in b.request_ids]
        if any(len(values) != len(ids) for values in outputs.values()):
            raise ValueError("Answers that are not by row can't be joined.")
        parts: dict[int, int] | None = {}
        start = 0
        for batch in batches:
            if parts is not None and batch.parts is not None:
                parts.update({start + row: number for row, number in batch.parts.items()})
            else:
                parts = None
            start += batch.rows
        return cls(first.revision, join([b.columns for b in batches]), outputs, ids, batches[-1].at, parts)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.request_ids)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays; of text the places alone, where there are arrays of it.

        The engine's columns become arrays on first use, which is for a side thread: they are asked what they hold.
        """
        held = getattr(self.columns, "nbytes", None)
        if held is None:
            held = sum(a.nbytes for a in self.columns.values())
        return int(held) + sum(a.nbytes for a in self.outputs.values())

    @property
    def labels(self) -> list[str] | None:
        """Predicted labels as text; None for a regression and for graphs without labels."""
        if self._labels is None and "label" in self.outputs:
            values = np.asarray(self.outputs["label"]).reshape(-1)
            if values.dtype.kind in "iub":
                seen, place = np.unique(values, return_inverse=True)
                texts = [str(v) for v in seen.tolist()]
                self._labels = [texts[k] for k in place.reshape(-1).tolist()]
            else:
                told = values.tolist()
                if set(map(type, told)) != {str}:
                    told = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in told]
                self._labels = told
        return self._labels

    @property
    def texts(self) -> list[str] | None:
        """Texts that were read, of a model that reads lines; None for others."""
        found = self.outputs.get("prediction")
        if self._texts is None and found is not None and found.dtype.kind in "OUS" and "label" not in self.outputs:
            told = np.asarray(found).reshape(-1).tolist()
            self._texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in told]
        return self._texts

    @property
    def probabilities(self) -> NDArray[Any] | None:
        """Probabilities of shape (rows, K); None where the graph gives none."""
        found = self.outputs.get("probabilities")
        return None if found is None or found.ndim != 2 or found.shape[1] < 2 else found

    @property
    def confidence(self) -> NDArray[np.float64] | None:
        """Highest probability of each row; None where the graph gives none."""
        if self._confidence is None and self.probabilities is not None:
            self._confidence = np.asarray(self.probabilities.max(axis=1), dtype=np.float64)
        return self._confidence

    @property
    def values(self) -> NDArray[np.float64] | None:
        """Predicted values of a regression; None otherwise, also where texts are read."""
        found = self.outputs.get("prediction")
        if found is None or found.dtype.kind not in "fiub":
            return None
        return np.asarray(found, dtype=np.float64).reshape(-1)


@dataclass(frozen=True)
class Place:
    """A row: its batch, and where it stands in it."""

    batch: Batch
    index: int


class Recent:
    """Bounded memory of answers by request id; the oldest go first.

    Parameters
    ----------
    most_rows, most_bytes : int
        Bounds.

    Examples
    --------
    >>> recent = Recent(most_rows=2)
    >>> recent.add(Batch("r1", {}, {}, ["a", "b"], 0.0))
    >>> recent.find("b")["r1"].index
    1
    >>> recent.add(Batch("r1", {}, {}, ["c"], 1.0))
    >>> recent.find("b")
    {}
    """

    def __init__(self, most_rows: int = MOST_ROWS, most_bytes: int = MOST_BYTES) -> None:
        self._most_rows = most_rows
        self._most_bytes = most_bytes
        self._batches: deque[Batch] = deque()
        # The newest batches, that nobody looked into yet: most are forgotten before anybody does.
        self._unread: deque[Batch] = deque()
        self._runs: dict[str, list[_Run]] = {}
        # Batches that are remembered, by revision.
        self._told: dict[str, int] = {}
        self._rows = 0
        self._bytes = 0
        self._weights: deque[int] = deque()
        # Bytes of a row by revision: looking at the columns of every batch would cost more than what is done with them.
        self._row_bytes: dict[str, float] = {}

    def __len__(self) -> int:
        return self._rows

    def add(self, batch: Batch) -> None:
        """Remember a batch and forget the oldest where it gets too much."""
        self._batches.append(batch)
        self._unread.append(batch)
        self._rows += batch.rows
        weight = self._weight(batch)
        self._weights.append(weight)
        self._bytes += weight
        self._told[batch.revision] = self._told.get(batch.revision, 0) + 1
        while self._batches and (self._rows > self._most_rows or self._bytes > self._most_bytes):
            self._bytes -= self._weights.popleft()
            self._forget(self._batches.popleft())

    def _read(self) -> dict[str, list[_Run]]:
        """Runs by request id, of all batches."""
        runs = self._runs
        while self._unread:
            for run in _runs_of(self._unread.popleft()):
                held = runs.get(run.request_id)
                if held is None:
                    runs[run.request_id] = [run]
                else:
                    held.append(run)
            runs.pop("", None)  # nobody will ask for it
        return runs

    def find(self, request_id: str, row: int = 0) -> dict[str, Place]:
        """Where a row of a request stands, by revision."""
        out: dict[str, Place] = {}
        for run, first in _placed(self._read().get(request_id, ())):
            if run.batch.revision not in out and first <= row < first + run.rows:
                out[run.batch.revision] = Place(run.batch, run.start + row - first)
        return out

    def rows_of(self, request_id: str) -> Iterator[Place]:
        """All rows of a request."""
        for run in self._read().get(request_id, ()):
            for index in range(run.start, run.start + run.rows):
                yield Place(run.batch, index)

    def row_of(self, batch: Batch, index: int) -> int:
        """Place of a batch's row in its request, over all batches that the request was divided into."""
        if batch.parts is not None:
            start, ids = index, batch.request_ids
            while start not in batch.parts and start > 0 and ids[start - 1] == ids[index]:
                start -= 1
            return batch.parts.get(start, 0) + index - start
        for run, first in _placed(self._read().get(batch.request_ids[index], ())):
            if run.batch is batch and run.start <= index < run.start + run.rows:
                return first + index - run.start
        return 0

    def pairs(self, batch: Batch) -> Iterator[tuple[int, Place]]:
        """Rows of a batch beside the same row as another revision answered it before: ``(row in the batch, other)``."""
        if len(self._told) < 2:
            return
        runs = self._read()
        for mine in _runs_of(batch):
            held = runs.get(mine.request_id, ())
            if any(run.batch.revision != batch.revision for run in held):
                first = next((f for run, f in _placed(held) if run.batch is batch and run.start == mine.start), 0)
                for k in range(mine.rows):
                    for revision, place in self.find(mine.request_id, first + k).items():
                        if revision != batch.revision:
                            yield mine.start + k, place

    def _weight(self, batch: Batch) -> int:
        files = getattr(batch.columns, "file_bytes", 0)
        if files:
            return int(files)
        known = self._row_bytes.get(batch.revision)
        if known is None:
            known = self._row_bytes[batch.revision] = batch.nbytes / max(batch.rows, 1)
        return round(known * batch.rows)

    def _forget(self, batch: Batch) -> None:
        self._rows -= batch.rows
        left = self._told[batch.revision] - 1
        if left:
            self._told[batch.revision] = left
        else:
            del self._told[batch.revision]
        if self._unread and self._unread[0] is batch:
            self._unread.popleft()
            return
        for run in _runs_of(batch):
            kept = [held for held in self._runs.get(run.request_id, ()) if held.batch is not batch]
            if kept:
                self._runs[run.request_id] = kept
            else:
                self._runs.pop(run.request_id, None)


class _Run(NamedTuple):
    """Rows of a request that follow each other in a batch; ``first`` is the first one's number where that is known."""

    request_id: str
    batch: Batch
    start: int
    rows: int
    first: int | None


def _runs_of(batch: Batch) -> list[_Run]:
    """Requests of a batch."""
    ids, parts = batch.request_ids, batch.parts
    if len(set(ids)) == len(ids):
        if parts is None:
            return [_Run(request_id, batch, k, 1, None) for k, request_id in enumerate(ids)]
        return [_Run(request_id, batch, k, 1, parts.get(k, 0)) for k, request_id in enumerate(ids)]
    out: list[_Run] = []
    start = 0
    for k in range(1, len(ids) + 1):
        if k == len(ids) or ids[k] != ids[start] or (parts is not None and k in parts):
            out.append(_Run(ids[start], batch, start, k - start, None if parts is None else parts.get(start, 0)))
            start = k
    return out


def _placed(runs: Sequence[_Run]) -> Iterator[tuple[_Run, int]]:
    """Runs of one request, each with the number of its first row: what is not known counts as it came."""
    before: dict[str, int] = {}
    for run in runs:
        revision = run.batch.revision
        if run.first is not None:
            yield run, run.first
        else:
            held = before.get(revision, 0)
            before[revision] = held + run.rows
            yield run, held
