"""What an asker gets: values with their age and state, as numbers, as Arrow, or as plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import NotFoundError
from tidemill.data.features.instants import shown
from tidemill.data.features.instants import to_arrow as times_to_arrow
from tidemill.data.features.online._base import Cell, Span, times_of
from tidemill.data.features.online.blocks import default_block, number_column, text_column, word_column
from tidemill.data.features.online.patches import Rows
from tidemill.data.features.online.rows import HEADER_BYTES, Floats, schema_of
from tidemill.data.features.types import DType, Feature

FRESH, STALE, EXPIRED, ABSENT = "fresh", "stale", "expired", "absent"
STATES = (FRESH, STALE, EXPIRED, ABSENT)
"""A value is stale when it is older than the group's ``freshness_s``, expired when it is older than its ``ttl_s``;
an expired value is not answered, but its default. An absent entity has never been written."""

_NO_WORDS, _NONE_MISSING = np.empty((0, 0), np.int64), np.empty((0, 0), np.bool_)
_NO_NUMBERS: Floats = np.empty((0, 0), np.float32)
_FEW = 8
_FEW_RUNS = 64
"""Of features in more runs than this the whole row is read."""


class Selection:
    """Some features of a group, in the order asked for, and where they stand in packed rows.

    Parameters
    ----------
    rows : Rows
        The group's rows.
    names : sequence of str, optional
        Which features; all of them if absent.
    """

    def __init__(self, rows: Rows, names: Sequence[str] | None = None) -> None:
        group, layout = rows.group, rows.layout
        self.rows = rows
        self.features: tuple[Feature, ...] = group.features
        order = {name: i for i, name in enumerate(group.feature_names)}
        if names is not None:
            unknown = [name for name in names if name not in order]
            if unknown:
                raise NotFoundError.of(f"feature in group {group.name!r}:", unknown[0], order)
            self.features = tuple(group.features[order[name]] for name in names)
        indices = [order[f.name] for f in self.features]
        self.number_places = rows.places(indices, 0)
        self.word_places = rows.places(indices, 1)
        self.text_places = rows.places(indices, 2)
        self.missing_places = np.concatenate([self.word_places, len(layout.words) + self.text_places])
        self.whole = names is None
        self.plain = not len(self.missing_places)
        self.all_float32 = all(f.dtype is DType.FLOAT32 for f in self.features)
        self.names = tuple(f.name for f in self.features)
        self.schemas: dict[Any, bytes] = {}  # of Arrow streams, see `wire.to_arrow`
        self._set_defaults()
        self._set_spans()

    @cached_property
    def names_json(self) -> bytes:
        """Names of the features as a list in JSON."""
        return orjson.dumps(self.names)

    @cached_property
    def width(self) -> int:
        """How many packed numbers there are."""
        return len(self.number_places)

    @cached_property
    def front(self) -> bytes:
        """Give the head of a packed answer about one entity, with places for its state and event time."""
        group = self.rows.group
        facts = b'{"group":%s,"schema_version":%d,' % (orjson.dumps(group.name), group.schema_version)
        return facts.replace(b"%", b"%%") + b'"states":["%%s"],"event_time":[%%s],"width":%d}' % self.width

    def _set_defaults(self) -> None:
        block = default_block(self.rows.layout)
        self.defaults: Floats = np.ascontiguousarray(block.numbers[0, self.number_places])
        self.defaults.flags.writeable = False
        self.has_defaults = not bool(np.isnan(self.defaults).all())
        self.word_defaults = block.words[0, self.word_places]
        self.text_defaults = [block.texts[0][i] for i in self.text_places]
        self.missing_defaults = block.missing[0, self.missing_places]

    def _set_spans(self) -> None:
        """Find the pieces of a row that hold the features; None where the whole row is the better choice."""
        self.spans: list[Span] | None = None
        if self.whole or not self.plain or not len(self.number_places):
            return
        self._sorted, self._order = np.unique(self.number_places, return_inverse=True)
        starts = np.flatnonzero(np.diff(self._sorted, prepend=-2) > 1)
        if len(starts) > _FEW_RUNS:
            return
        size = self.rows.layout.dtype.itemsize
        ends = [*starts[1:], len(self._sorted)]
        self.spans = [(0, HEADER_BYTES)] + [
            (HEADER_BYTES + int(self._sorted[a]) * size, int(b - a) * size) for a, b in zip(starts, ends, strict=True)
        ]

    def empty(self, count: int) -> Answer:
        """Make an answer; every row of it is then `put`, or left by `leave`, and `Answer.fill` completes it."""
        layout = self.rows.layout
        return Answer(
            selection=self,
            codes=np.empty((count, len(self.number_places)), layout.dtype),
            words=_NO_WORDS if self.plain else np.zeros((count, len(self.word_places)), np.int64),
            texts=[[""] * len(self.text_places) for _ in range(count)] if len(self.text_places) else [],
            missing=_NONE_MISSING if self.plain else np.ones((count, len(self.missing_places)), np.bool_),
            event_ns=np.zeros(count, np.int64),
            states=[ABSENT] * count,
        )

    def leave(self, answer: Answer, i: int) -> None:
        """Leave row ``i`` of an answer without values."""
        answer.codes[i] = -128 if answer.codes.dtype.kind == "i" else np.nan

    def put(self, answer: Answer, i: int, row: bytes, patch: bytes | None, cut: bool) -> None:
        """Put the values of a cell into row ``i`` of an answer; ``cut`` where the row is made of `spans`."""
        if cut:
            answer.codes[i] = self._from_pieces(row, patch)
            return
        if patch is None and self.whole and self.plain and self.rows.layout.holds(row):
            layout = self.rows.layout
            answer.codes[i] = np.frombuffer(row, layout.dtype, layout.width, HEADER_BYTES)
            return
        parts = self.rows.read((row, patch))
        answer.codes[i] = parts.numbers[self.number_places]
        if self.plain:
            return
        answer.words[i] = parts.words[self.word_places]
        answer.missing[i] = parts.missing[self.missing_places]
        if len(self.text_places):
            answer.texts[i] = [parts.texts[at] for at in self.text_places]

    def _from_pieces(self, row: bytes, patch: bytes | None) -> NDArray[Any]:
        layout = self.rows.layout_at(schema_of(row))
        dtype = layout.dtype
        codes = np.frombuffer(row, dtype, (len(row) - HEADER_BYTES) // dtype.itemsize, HEADER_BYTES)
        if layout is not self.rows.layout:  # a row of an older schema version ends before the newer features
            older = codes
            codes = np.full(len(self._sorted), -128 if dtype.kind == "i" else np.nan, dtype)
            inside = int(np.searchsorted(self._sorted, layout.width))
            codes[:inside] = older[:inside]
        if patch is not None:
            codes = codes.copy()
            places, values = self.rows.patch_numbers(patch)
            at = np.searchsorted(self._sorted, places)
            at[at == len(self._sorted)] = 0
            hit = self._sorted[at] == places
            codes[at[hit]] = values[hit]
        return codes[self._order]

    def filled(self, numbers: Floats) -> Floats:
        """Put defaults where numbers are missing."""
        return np.where(np.isnan(numbers), self.defaults, numbers) if self.has_defaults else numbers


@dataclass
class Answer:
    """The newest values of some entities.

    Parameters
    ----------
    selection : Selection
        Which features.
    codes : array of shape (entities, numbers)
        Packed numbers as stored.
    words, texts, missing
        See `tidemill.data.features.online.rows.Block`.
    event_ns : int64 array of shape (entities,)
        When the values became true, nanoseconds since 1970; 0 for absent entities.
    states : list of str
        ``"fresh"``, ``"stale"``, ``"expired"`` or ``"absent"``, see `STATES`.
    numbers : float32 array of shape (entities, numbers)
        Packed numbers, with defaults; NaN is missing.
    """

    selection: Selection
    codes: NDArray[Any]
    words: NDArray[np.int64]
    texts: list[list[str]]
    missing: NDArray[np.bool_]
    event_ns: NDArray[np.int64]
    states: list[str]
    numbers: Floats = field(default_factory=lambda: _NO_NUMBERS)

    def __len__(self) -> int:
        return len(self.states)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order asked for."""
        return self.selection.names

    def fill(self) -> None:
        """Decode the numbers and put defaults where there is no value."""
        pick = self.selection
        self.numbers = pick.filled(pick.rows.layout.decode(self.codes, pick.number_places))
        if not pick.plain and self.missing.any():
            gone = self.missing[:, : len(pick.word_places)]
            self.words = np.where(gone, pick.word_defaults, self.words)
            for i, texts in enumerate(self.texts):
                absent = self.missing[i, len(pick.word_places) :]
                self.texts[i] = [d if g else t for t, g, d in zip(texts, absent, pick.text_defaults, strict=True)]
            self.missing = self.missing & pick.missing_defaults

    def other_columns(self) -> dict[str, NDArray[Any]]:
        """Give what is no packed number as arrays: float64 with NaN for missing, or objects with None."""
        pick, layout = self.selection, self.selection.rows.layout
        found: dict[str, NDArray[Any]] = {}
        for at, place in enumerate(pick.word_places):
            feature = layout.words[place]
            column = word_column(self.words[:, at], self.missing[:, at], feature)
            if feature.dtype is DType.TIMESTAMP:
                found[feature.name] = np.array(_plain(column, feature), object)
            else:
                found[feature.name] = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        for at, place in enumerate(pick.text_places):
            gone = self.missing[:, len(pick.word_places) + at]
            texts = [None if g else row[at] for row, g in zip(self.texts, gone, strict=True)]
            found[layout.texts[place].name] = np.array(texts, object)
        return found

    def columns(self) -> dict[str, pa.Array]:
        """Give the values as Arrow columns in the features' own types."""
        pick, layout = self.selection, self.selection.rows.layout
        found: dict[str, pa.Array] = {}
        for at, place in enumerate(pick.number_places):
            feature = layout.packed[place]
            found[feature.name] = number_column(self.numbers[:, at], feature)
        for at, place in enumerate(pick.word_places):
            feature = layout.words[place]
            found[feature.name] = word_column(self.words[:, at], self.missing[:, at], feature)
        for at, place in enumerate(pick.text_places):
            gone = self.missing[:, len(pick.word_places) + at]
            feature = layout.texts[place]
            found[feature.name] = text_column([row[at] for row in self.texts], gone, feature)
        return {name: found[name] for name in self.names}

    def to_arrow(self) -> pa.Table:
        """Give the values as an Arrow table, with the columns ``__event_time`` and ``__state`` at its end."""
        absent = np.array([state == ABSENT for state in self.states], np.bool_)
        times = times_to_arrow(self.event_ns)
        known = pa.compute.if_else(pa.array(~absent), times, pa.scalar(None, times.type))
        return pa.table({**self.columns(), "__event_time": known, "__state": pa.array(self.states, pa.string())})

    def to_rows(self) -> list[dict[str, Any]]:
        """Give one dictionary of plain values for each entity; missing is None, times are ISO 8601 text."""
        columns = {
            name: _plain(column, feature)
            for (name, column), feature in zip(self.columns().items(), self.selection.features, strict=True)
        }
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def times(self) -> list[str | None]:
        """Give for each entity the event time of its values as ISO 8601 text; None for absent ones."""
        if len(self) <= _FEW:  # numpy takes its time to begin
            pairs = zip(self.states, self.event_ns.tolist(), strict=True)
            return [None if state == ABSENT else shown(ns) for state, ns in pairs]
        texts = np.datetime_as_string(self.event_ns.view("datetime64[ns]"), unit="ns").tolist()
        return [None if s == ABSENT else f"{text}Z" for s, text in zip(self.states, texts, strict=True)]

    def facts(self, keys: Sequence[Any]) -> list[dict[str, Any]]:
        """Give for each entity its key, state, event time (ISO 8601, or None) and values, for JSON."""
        return [
            {"key": key, "state": state, "event_time": at, "values": values}
            for key, state, at, values in zip(keys, self.states, self.times(), self.to_rows(), strict=True)
        ]


class Row:
    """The newest values of one entity.

    Attributes
    ----------
    numbers : float32 array of shape (packed numbers,)
        In the order of the group's `packed` features, with defaults; NaN is missing. Read-only, and a copy of what is
        stored: it stays as it is whatever is written later.
    state : str
        See `STATES`.
    """

    __slots__ = ("_cell", "_newest", "_selection", "numbers", "state")

    def __init__(
        self, selection: Selection, cell: Cell | None, newest: bytes | None, state: str, numbers: Floats
    ) -> None:
        self._selection = selection
        self._cell = cell
        self._newest = newest
        self.state = state
        self.numbers = numbers

    @property
    def event_ns(self) -> int:
        """When the values became true, nanoseconds since 1970; 0 for an absent entity."""
        return 0 if self._newest is None else times_of(self._newest)[0]

    def __getitem__(self, name: str) -> Any:
        """Give the value of one feature; None where it is missing. Raises `NotFoundError` with the nearest names."""
        self._selection.rows.group.feature(name)
        return self.to_dict()[name]

    def __repr__(self) -> str:
        return f"Row({self._selection.rows.group.name!r}, {self.state})"

    def to_dict(self) -> Mapping[str, Any]:
        """Give all values as plain ones; missing is None, times are ISO 8601 text."""
        answer = self._selection.empty(1)
        if self._cell is not None and self._cell[0] is not None:
            self._selection.put(answer, 0, self._cell[0], self._cell[1], False)
        else:
            self._selection.leave(answer, 0)
        answer.fill()
        return answer.to_rows()[0]


def _plain(column: pa.Array, feature: Feature) -> list[Any]:
    if feature.dtype is DType.TIMESTAMP:
        ticks = column.cast(pa.int64()).to_pylist()
        return [None if t is None else f"{np.datetime64(t, 'ns')}Z" for t in ticks]
    values: list[Any] = column.to_pylist()
    return values
