"""Rows as people write them: JSON records by column name, to physical columns and back to labels.

The rules are those of `tidemill.bundle.runtime.Bundle.predict` for a dict of columns, cell for cell; a property test
holds the two together. They stand here once more because that way goes through Arrow, which a serving process does
without: it would take as much memory as all the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from tidemill.core.errors import nearest_hint
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task
from tidemill.data import textforms
from tidemill.deploy.engine.answers import answers_of, labels_of
from tidemill.deploy.engine.completing import Completion
from tidemill.deploy.engine.layout import Layout
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.refusal import bad_request, invalid_input
from tidemill.deploy.engine.wire import join_texts

_EXPECTED = {
    SemanticType.NUMBER: "a number",
    SemanticType.INTEGER: "a number",
    SemanticType.BOOLEAN: "true or false",
    SemanticType.DATETIME: "a date",
}
_WORDY = (SemanticType.CATEGORY, SemanticType.TEXT)
_Tensor = tuple[str, tuple[int, ...], Any]


class RecordCodec:
    """Reads records for one bundle and writes labels and probabilities.

    Parameters
    ----------
    schema, task : Schema, Task
        Of the bundle.
    layout : Layout
        Of its graph.
    inputs : mapping of str to str
        Graph input by column.
    """

    def __init__(self, schema: Schema, task: Task, layout: Layout, inputs: Mapping[str, str]) -> None:
        self.schema = schema
        self.task = task
        self._layout = layout
        self._columns = {inputs[c.name]: c for c in schema.features}
        self._names = [c.name for c in schema.features]
        self._known = set(self._names)

    def read(self, body: bytes, content_type: bytes, completion: Completion | None = None) -> Query:
        """Read a body; whatever type it claims to be of, it is JSON. Raises as `decode` does."""
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise bad_request(f"The body is not JSON: {error}.") from error
        return self.decode(document, completion)

    def decode(self, document: Any, completion: Completion | None = None) -> Query:
        """Read ``[{…}, …]``, one ``{…}``, ``{"records": [{…}, …]}`` or ``{"columns": {name: […]}}``.

        With a completion, columns may be left out that feature groups hold.

        Raises
        ------
        Refusal
            400 with the column, the row and what is expected.
        """
        cells, rows = self._cells(document, completion)
        pieces: list[bytes] = []
        shapes: list[tuple[int, ...]] = []
        for group in self._layout.groups:
            columns = [self._physical(self._columns[name], cells[self._columns[name].name]) for name in group]
            if self._columns[group[0]].type.is_string:
                pieces.append(join_texts([v for row in zip(*columns, strict=True) for v in row]))
            else:
                pieces.append(np.ascontiguousarray(np.array(columns, dtype=np.float64).T).tobytes())
            shapes.append((len(group),))
        return Query(rows, pieces, tuple(shapes))

    def tensors(self, given: Mapping[str, _Tensor], completion: Completion) -> dict[str, _Tensor]:
        """Complete the tensors of a request by graph input; those of entity keys alone go out."""
        absent = {c.name: name for name, c in self._columns.items() if name not in given}
        keys: dict[str, list[Any]] = {}
        for key in completion.entity_keys():
            name = next((n for n, c in self._columns.items() if c.name == key), key)
            if name in given:
                values = given[name][2]
                keys[key] = values if isinstance(values, list) else values.reshape(-1).tolist()
        out = {n: t for n, t in given.items() if n in self._columns or n not in keys}
        if absent:
            for column, cells in completion.columns(list(absent), keys).items():
                out[absent[column]] = self._tensor(self._columns[absent[column]], cells)
        return out

    def _tensor(self, column: Column, cells: list[Any]) -> _Tensor:
        values = self._physical(column, cells)
        if column.type.is_string:
            return "BYTES", (len(cells),), values
        return "FP64", (len(cells),), np.array(values, dtype=np.float64)

    def _completed(self, records: list[dict[str, Any]], completion: Completion) -> list[dict[str, Any]]:
        """Records with what they leave out; a cell that is given stays, also where it is null."""
        absent = [n for n in self._names if any(n not in r for r in records)]
        rows = [i for i, r in enumerate(records) if any(n not in r for n in absent)]
        if not rows:
            return records
        keys = {
            k: [records[i].get(k) for i in rows] for k in completion.entity_keys() if any(k in records[i] for i in rows)
        }
        found = completion.columns(absent, keys)
        out = list(records)
        for at, i in enumerate(rows):
            out[i] = {**{name: cells[at] for name, cells in found.items()}, **records[i]}
        return out

    def _cells(self, document: Any, completion: Completion | None) -> tuple[dict[str, list[Any]], int]:
        if isinstance(document, dict) and isinstance(columns := document.get("columns"), dict):
            return self._from_columns(columns, completion)
        records = document
        if isinstance(document, dict):
            records = document.get("records", document.get("instances", [document]))
        if not isinstance(records, list) or not records or any(not isinstance(r, dict) for r in records):
            raise bad_request('The body must be {"records": [{column: value, …}, …]} with at least one record.')
        if completion is not None:
            records = self._completed(records, completion)
        present: set[str] = set().union(*records) if len(records) > 1 else set(records[0])
        self._require(present)
        return {name: [r.get(name) for r in records] for name in self._names}, len(records)

    def _from_columns(
        self, columns: Mapping[str, Any], completion: Completion | None
    ) -> tuple[dict[str, list[Any]], int]:
        absent = [] if completion is None else [n for n in self._names if n not in columns]
        if completion is not None and absent:
            keys = {k: columns[k] for k in completion.entity_keys() if k in columns}
            columns = {**completion.columns(absent, keys), **columns}
        self._require(set(columns))
        picked = {name: columns[name] for name in self._names}
        for name, cells in picked.items():
            if not isinstance(cells, list):
                raise bad_request(f"The column {name!r} must be a list of cells.")
        sizes = {len(cells) for cells in picked.values()}
        if len(sizes) != 1 or 0 in sizes:
            raise bad_request("All columns must have the same length, at least 1.")
        return picked, sizes.pop()

    def _require(self, present: set[str]) -> None:
        absent = [n for n in self._names if n not in present]
        if not absent:
            return
        free = [n for n in present if n not in self.schema]
        shown = []
        for name in absent[:20]:
            near = nearest_hint(name, free)
            shown.append(f"{name!r} ({near[0].lower() + near[1:-1]}?)" if near.startswith("Did") else repr(name))
        more = f" and {len(absent) - 20} more" if len(absent) > 20 else ""
        noun = "column is" if len(absent) == 1 else "columns are"
        raise invalid_input(
            f"{len(absent)} {noun} missing: {', '.join(shown)}{more}. The model takes {len(self._names)} columns; give "
            "all of them by name, null where unknown."
        )

    def _physical(self, column: Column, cells: list[Any]) -> list[Any]:
        kinds = set(map(type, cells))
        kinds.discard(type(None))
        if kinds <= {float} or kinds == {int}:
            plain = self._from_numbers(column, cells, kinds)
            if plain is not None:
                return plain
        elif kinds == {bool}:
            if not column.type.is_string and column.type is not SemanticType.DATETIME:
                return [math.nan if v is None else float(v) for v in cells]
        elif kinds == {float, int}:
            plain = self._from_numbers(column, cells, kinds)
            if plain is not None:
                return plain
        for row, value in enumerate(cells):
            if isinstance(value, (dict, list)):
                raise _misfit(column, row, value)
        return self._from_texts(column, cells, texts_of(cells, kinds))

    def _from_numbers(self, column: Column, cells: list[Any], kinds: set[type]) -> list[Any] | None:
        """Cells that are numbers or missing; None where they are read as text."""
        if int in kinds and any(type(v) is int and not -(2**63) <= v < 2**63 for v in cells):
            return None
        if kinds == {float, int} and any(type(v) is int and abs(v) > 2**53 for v in cells):
            return None
        if column.type in (SemanticType.NUMBER, SemanticType.INTEGER):
            return [math.nan if v is None else float(v) for v in cells]
        if column.type is SemanticType.BOOLEAN:
            for row, value in enumerate(cells):
                if value is not None and value not in (0, 1):
                    raise _misfit(column, row, value)
            return [math.nan if v is None else float(v) for v in cells]
        return None

    def _from_texts(self, column: Column, cells: list[Any], texts: list[str | None]) -> list[Any]:
        kind, unit = column.type.value, column.unit
        out: list[Any] = []
        for row, text in enumerate(texts):
            if text is None:
                out.append("" if column.type.is_string else math.nan)
                continue
            try:
                out.append(textforms.physical(text, kind, unit))
            except ValueError:
                raise _misfit(column, row, cells[row]) from None
        return out

    def column(self, name: str) -> str:
        """Name of the column behind a graph's input."""
        return self._columns[name].name

    # ------------------------------------------------------------------------------------------------------ answers

    def answers(self, outputs: Outputs, start: int, stop: int) -> list[dict[str, Any]]:
        """Labels and probabilities, or values, for some rows of a batch."""
        return answers_of(self.task, outputs, start, stop)

    def labels(self, texts: NDArray[Any]) -> list[Any]:
        """Labels in the type that they had in the training data, as `Bundle.label_values` gives them."""
        return labels_of(self.task, texts)


def cells_of(document: Any, column: str) -> list[Any]:
    """Cells of the only column of a model, from any form of JSON that `RecordCodec.decode` takes.

    Raises
    ------
    Refusal
        400 where there are none.

    Examples
    --------
    >>> cells_of({"records": [{"a": 1}, {"a": 2}]}, "a"), cells_of({"columns": {"a": [3]}}, "a")
    ([1, 2], [3])
    """
    if isinstance(document, dict) and isinstance(columns := document.get("columns"), dict):
        cells = columns.get(column)
        if not isinstance(cells, list) or not cells:
            raise bad_request(f"The column {column!r} must be a list of cells, with at least one.")
        return cells
    records = document
    if isinstance(document, dict):
        records = document.get("records", document.get("instances", [document]))
    if not isinstance(records, list) or not records or any(not isinstance(r, dict) for r in records):
        raise bad_request('The body must be {"records": [{column: value, …}, …]} with at least one record.')
    absent = next((row for row, record in enumerate(records, start=1) if column not in record), 0)
    if absent:
        near = nearest_hint(column, records[absent - 1]) if records[absent - 1] else ""
        raise invalid_input(f"Row {absent:,} has no column {column!r}. {near}".strip())
    return [record[column] for record in records]


def texts_of(cells: Sequence[Any], kinds: set[type]) -> list[str | None]:
    """Cells as text, as they would stand in a CSV file; numbers of one column in one form."""
    numeric = kinds <= {int, float}
    fits = not any(type(v) is int and not -(2**63) <= v < 2**63 for v in cells)
    floats = numeric and float in kinds and fits
    if floats and int in kinds and any(type(v) is int and abs(v) > 2**53 for v in cells):
        floats = False
    return [_text(v, floats) for v in cells]


def _text(value: Any, floats: bool) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if floats:
        number = float(value)
        return str(int(number)) if abs(number) < 1e15 and number == int(number) else repr(number)
    return repr(value) if isinstance(value, float) else str(value)


def _misfit(column: Column, row: int, value: Any) -> Exception:
    form = ""
    if column.type is SemanticType.DATETIME and column.unit:
        form = f" of the form {textforms.split_unit(column.unit)[0].removeprefix(textforms.DATE_UNIT)}"
    expected = "a text or a number" if column.type in _WORDY else _EXPECTED.get(column.type, column.type.value)
    return invalid_input(f"Column {column.name!r}, row {row + 1:,}: {str(value)[:60]!r} is not {expected}{form}.")
