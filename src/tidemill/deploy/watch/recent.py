"""The newest answers of an endpoint, so that feedback, a slow answer or a shadow's word finds its row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

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
    """

    revision: str
    columns: Mapping[str, NDArray[Any]]
    outputs: Mapping[str, NDArray[np.generic]]
    request_ids: Sequence[str]
    at: float
    _labels: list[str] | None = field(default=None, init=False, repr=False)
    _confidence: NDArray[np.float64] | None = field(default=None, init=False, repr=False)

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
            values = np.asarray(self.outputs["label"]).reshape(-1).tolist()
            self._labels = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
        return self._labels

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
        """Predicted values of a regression; None otherwise."""
        found = self.outputs.get("prediction")
        return None if found is None else np.asarray(found, dtype=np.float64).reshape(-1)


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
        # Runs (batch, first row in the batch, rows): a request's rows follow each other.
        self._runs: dict[str, list[tuple[Batch, int, int]]] = {}
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
        self._rows += batch.rows
        weight = self._weight(batch)
        self._weights.append(weight)
        self._bytes += weight
        self._told[batch.revision] = self._told.get(batch.revision, 0) + 1
        runs = self._runs
        for request_id, start, count in _runs_of(batch.request_ids):
            held = runs.get(request_id)
            if held is None:
                runs[request_id] = [(batch, start, count)]
            else:
                held.append((batch, start, count))
        runs.pop("", None)  # nobody will ask for it
        while self._batches and (self._rows > self._most_rows or self._bytes > self._most_bytes):
            self._bytes -= self._weights.popleft()
            self._forget(self._batches.popleft())

    def find(self, request_id: str, row: int = 0) -> dict[str, Place]:
        """Where a row of a request stands, by revision."""
        out: dict[str, Place] = {}
        skipped: dict[str, int] = {}
        for batch, start, count in self._runs.get(request_id, ()):
            if batch.revision in out:
                continue
            before = skipped.get(batch.revision, 0)
            if row < before + count:
                out[batch.revision] = Place(batch, start + row - before)
            else:
                skipped[batch.revision] = before + count
        return out

    def rows_of(self, request_id: str) -> Iterator[Place]:
        """All rows of a request."""
        for batch, start, count in self._runs.get(request_id, ()):
            for index in range(start, start + count):
                yield Place(batch, index)

    def row_of(self, batch: Batch, index: int) -> int:
        """Place of a batch's row in its request, over all batches that the request was divided into."""
        row = 0
        for other, start, count in self._runs.get(batch.request_ids[index], ()):
            if other is batch and start <= index < start + count:
                return row + index - start
            row += count if other.revision == batch.revision else 0
        return 0

    def pairs(self, batch: Batch) -> Iterator[tuple[int, Place]]:
        """Rows of a batch beside the same row as another revision answered it before: ``(row in the batch, other)``."""
        if len(self._told) < 2:
            return
        for request_id, start, count in _runs_of(batch.request_ids):
            held = self._runs.get(request_id, ())
            if any(other.revision != batch.revision for other, *_ in held):
                before = sum(n for other, _, n in held if other.revision == batch.revision and other is not batch)
                for k in range(count):
                    for revision, place in self.find(request_id, before + k).items():
                        if revision != batch.revision:
                            yield start + k, place

    def _weight(self, batch: Batch) -> int:
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
        for request_id, *_ in _runs_of(batch.request_ids):
            kept = [run for run in self._runs.get(request_id, ()) if run[0] is not batch]
            if kept:
                self._runs[request_id] = kept
            else:
                self._runs.pop(request_id, None)


def _runs_of(ids: Sequence[str]) -> list[tuple[str, int, int]]:
    """Requests of a batch, each with its first row and the number of rows that follow each other."""
    if len(set(ids)) == len(ids):
        return [(request_id, k, 1) for k, request_id in enumerate(ids)]
    out: list[tuple[str, int, int]] = []
    start = 0
    for request_id, group in groupby(ids):
        count = sum(1 for _ in group)
        out.append((request_id, start, count))
        start += count
    return out
