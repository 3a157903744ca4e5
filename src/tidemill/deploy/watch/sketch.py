"""Counts in cells of what a revision saw and said: small, and any two of them add up exactly.

All sums are whole numbers (probabilities in steps of 2⁻³⁰), so that the order in which periods, processes and machines
are added does not matter, not even in the last bit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.images.properties import seen_in
from tidemill.bundle.reference.answers import CONFIDENCE, confidence
from tidemill.bundle.reference.columns import ColumnReference
from tidemill.bundle.reference.file import Reference
from tidemill.core.errors import DataError
from tidemill.deploy.watch.expected import Expected
from tidemill.deploy.watch.recent import Batch

CHUNK = 1024
"""Rows that are counted at a time, or more; one by one each would cost as much as a hundred."""
IMAGES = 128
"""Images of a chunk whose properties are counted."""
PROBABILITIES = "probabilities"
EXAMPLES = 10
"""New categories that are kept by name for people."""


@dataclass
class Sketch:
    """What was seen in some rows.

    Parameters
    ----------
    rows : int
        Number of rows.
    counts : dict of str to ndarray of int64
        By column of the reference, one count for each of its cells; predictions under ``"→ "`` and their name.
    unreadable : dict of str to int
        Rows whose column was absent or of another kind.
    examples : dict of str to set of str
        Some new categories by column: those whose hashes are lowest, so that they, too, add up exactly.
    expected : Expected or None
        What probabilities say about accuracy.
    """

    rows: int = 0
    counts: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    examples: dict[str, set[str]] = field(default_factory=dict)
    expected: Expected | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_json() == other.to_json()

    def merged(self, other: Sketch) -> Sketch:
        """Both together; neither changes.

        Examples
        --------
        >>> a = Sketch(1, {"age": np.array([1, 0])})
        >>> a.merged(Sketch(2, {"age": np.array([0, 2])})).counts["age"].tolist()
        [1, 2]
        """
        counts = dict(self.counts)
        for name, cells in other.counts.items():
            held = counts.get(name)
            if held is not None and len(held) != len(cells):
                raise DataError(f"Two counts of {name!r} have different cells; they belong to different bundles.")
            counts[name] = cells if held is None else held + cells
        unreadable = dict(self.unreadable)
        for name, count in other.unreadable.items():
            unreadable[name] = unreadable.get(name, 0) + count
        names = self.examples.keys() | other.examples.keys()
        examples = {n: _lowest(self.examples.get(n, set()) | other.examples.get(n, set())) for n in names}
        both = [e for e in (self.expected, other.expected) if e is not None]
        expected = both[0].merged(both[1]) if len(both) == 2 else both[0] if both else None
        return Sketch(self.rows + other.rows, counts, unreadable, examples, expected)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "rows": self.rows,
            "counts": {k: self.counts[k].tolist() for k in sorted(self.counts)},
            "unreadable": {k: self.unreadable[k] for k in sorted(self.unreadable)},
            "examples": {k: sorted(self.examples[k]) for k in sorted(self.examples) if self.examples[k]},
            "expected": None if self.expected is None else self.expected.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Sketch:
        """Rebuild from `to_json`.

        Raises
        ------
        DataError
            If it is no sketch.
        """
        try:
            return cls(
                int(data["rows"]),
                {k: np.asarray(v, dtype=np.int64) for k, v in data["counts"].items()},
                {k: int(v) for k, v in data["unreadable"].items()},
                {k: set(v) for k, v in data["examples"].items()},
                None if data["expected"] is None else Expected.from_json(data["expected"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"This is no sketch ({error}).") from error


def key_of(column: ColumnReference, *, prediction: bool) -> str:
    """Name of a column's counts in a sketch: a prediction may be called like a feature."""
    return f"→ {column.name}" if prediction else column.name


def _lowest(values: set[str]) -> set[str]:
    if len(values) <= EXAMPLES:
        return values
    return set(
        sorted(values, key=lambda v: hashlib.blake2b(v.encode("utf-8", "replace"), digest_size=8).digest())[:EXAMPLES]
    )


class Sketcher:
    """Counts batches in chunks of about a thousand rows.

    Parameters
    ----------
    reference : Reference
        The cells.
    classes : sequence of str
        Labels in the order of their probabilities.
    hidden : sequence of str
        Columns of which no value may be kept.

    Examples
    --------
    >>> age = ColumnReference("age", "age", "number", edges=(0.0, 10.0, 20.0), counts=(0, 0, 5, 5, 0, 0, 0))
    >>> sketcher = Sketcher(Reference((age,), ()))
    >>> _ = sketcher.add(Batch("a1", {"age": np.array([[5.0], [30.0]])}, {}, ["r1", "r2"], 0.0))
    >>> _ = sketcher.flush()
    >>> sketcher.take().counts["age"].tolist()
    [0, 0, 1, 0, 1, 0, 0]
    """

    def __init__(self, reference: Reference, classes: Sequence[str] = (), hidden: Sequence[str] = ()) -> None:
        self._reference = reference
        self._classes = {label: code for code, label in enumerate(classes)}
        self._hidden = frozenset(hidden)
        self._waiting: list[Batch] = []
        self._waiting_rows = 0
        self._sketch = Sketch()

    def add(self, batch: Batch) -> list[tuple[Batch, NDArray[np.intp]]]:
        """Take a batch; gives rows with values that training never saw, by batch, where a chunk was counted."""
        self._waiting.append(batch)
        self._waiting_rows += batch.rows
        return self.flush() if self._waiting_rows >= CHUNK else []

    def flush(self) -> list[tuple[Batch, NDArray[np.intp]]]:
        """Count what waits; gives what `add` gives."""
        batches, self._waiting = self._waiting, []
        rows, self._waiting_rows = self._waiting_rows, 0
        if not rows:
            return []
        odd = np.zeros(rows, dtype=np.bool_)
        columns = _together(batches)
        for column in self._reference.features:
            if column.input:
                self._count(column, column.name, _joined(columns, column), rows, odd)
        self._count_properties(columns)
        answered = _answers(batches)
        for column in self._reference.predictions:
            self._count(column, key_of(column, prediction=True), answered.get(column.name), rows, None)
        if self._classes and "label" in answered and PROBABILITIES in answered:
            self._expect(answered["label"], answered[PROBABILITIES])
        self._sketch.rows += rows
        return _by_batch(batches, odd) if odd.any() else []

    def take(self) -> Sketch:
        """Give what was counted and begin anew; what still waits for its chunk belongs to the next."""
        taken, self._sketch = self._sketch, Sketch()
        return taken

    def _count(
        self,
        column: ColumnReference,
        key: str,
        values: NDArray[Any] | None,
        rows: int,
        odd: NDArray[np.bool_] | None,
    ) -> None:
        sketch = self._sketch
        counts: NDArray[np.int64] | None = None
        if values is not None and len(values) == rows:
            try:
                counts = column.tally(values)
            except (TypeError, ValueError):
                counts = None
        if counts is None or values is None:
            sketch.unreadable[key] = sketch.unreadable.get(key, 0) + rows
            return
        held = sketch.counts.get(key)
        sketch.counts[key] = counts if held is None else held + counts
        if odd is None or not _has_odd(column, counts):
            return
        strange = column.odd(column.cells(values))
        odd |= strange
        if column.kind == "category" and column.name not in self._hidden:
            new = {str(v)[:80] for v in values.reshape(-1)[strange].tolist()}
            sketch.examples[key] = _lowest(sketch.examples.get(key, set()) | new)

    def _count_properties(self, columns: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Count what no input carries: properties of images. Each image has to be unpacked, so it is some of them."""
        derived = [column for column in self._reference.features if not column.input]
        some = columns[:: max(1, len(columns) // IMAGES)] if derived else ()
        for batch in some:
            seen = seen_in(batch, max(1, IMAGES // len(some)))
            for column in derived:
                if len(seen.get(column.name, ())):
                    counts = column.tally(seen[column.name])
                    self._sketch.counts[column.name] = counts + self._sketch.counts.get(column.name, 0)

    def _expect(self, labels: NDArray[Any], p: NDArray[Any]) -> None:
        if p.shape[1] != len(self._classes):
            return
        told = map(self._classes.get, labels.tolist(), repeat(-1))
        codes = np.fromiter(told, dtype=np.int64, count=len(labels))
        if (codes < 0).any():
            p, codes = p[codes >= 0], codes[codes >= 0]
        if self._sketch.expected is None:
            self._sketch.expected = Expected.empty(len(self._classes))
        self._sketch.expected.add(np.asarray(p, dtype=np.float64), codes)


def _together(batches: Sequence[Batch]) -> list[Mapping[str, NDArray[Any]]]:
    """Columns of several batches; as one where they know how to be joined, which is quicker than column by column."""
    columns = [b.columns for b in batches]
    join = getattr(type(columns[0]), "joined", None)
    if join is None or len(columns) == 1 or any(type(c) is not type(columns[0]) for c in columns):
        return columns
    try:
        return [join(columns)]
    except (TypeError, ValueError):  # of different layouts
        return columns


def _joined(columns: Sequence[Mapping[str, NDArray[Any]]], column: ColumnReference) -> NDArray[Any] | None:
    name = column.input if column.input in columns[0] else column.name
    try:
        parts = [c[name] for c in columns]
    except KeyError:
        return None
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return values if values.ndim == 1 else values.reshape(-1)


def _answers(batches: Sequence[Batch]) -> dict[str, NDArray[Any]]:
    """Answers of several batches by the names that the reference has for them; only what all of them have."""
    out: dict[str, NDArray[Any]] = {}
    labels = [b.labels for b in batches]
    if all(part is not None for part in labels):
        out["label"] = np.array([v for part in labels for v in part or ()], dtype=object)
    shown = [p for p in (b.probabilities for b in batches) if p is not None]
    if len(shown) == len(batches) and len({p.shape[1] for p in shown}) == 1:
        out[PROBABILITIES] = np.concatenate(shown)
        out[CONFIDENCE] = confidence(out[PROBABILITIES])
    values = [v for v in (b.values for b in batches) if v is not None]
    if len(values) == len(batches):
        out["prediction"] = np.concatenate(values)
    return out


def _has_odd(column: ColumnReference, counts: NDArray[np.int64]) -> bool:
    if column.kind == "category":
        return bool(counts[-2])
    return column.kind != "date" and bool(counts[:2].any() or counts[-3:-1].any())


def _by_batch(batches: Sequence[Batch], odd: NDArray[np.bool_]) -> list[tuple[Batch, NDArray[np.intp]]]:
    out: list[tuple[Batch, NDArray[np.intp]]] = []
    start = 0
    for batch in batches:
        rows = np.flatnonzero(odd[start : start + batch.rows])
        if len(rows):
            out.append((batch, rows))
        start += batch.rows
    return out
