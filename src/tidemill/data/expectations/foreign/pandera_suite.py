"""Schemas of pandera, over pandas frames."""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from tidemill.core.errors import DataError, MissingExtraError
from tidemill.data.checks._base import Finding
from tidemill.data.expectations.foreign._base import ForeignSuite
from tidemill.data.expectations.foreign.read import tree_of

CODE = "pandera"
_SHOWN = 5
_HINT = "Mend the data, or edit the schema."
_ABSENT, _NEW = "column_in_dataframe", "column_in_schema"


def findings(frame: Any, suite: ForeignSuite) -> Iterator[Finding]:
    """Validate a frame, all checks at once; what a check only warns of (``raise_warning``) is a warning here, too."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            pandera = import_module("pandera.pandas")
        except ModuleNotFoundError as error:
            raise MissingExtraError.of("pandera", "to run its schemas", extra="pandera") from error
        problems = import_module("pandera.errors")
        schema = _schema(pandera, suite)
        cases = None
        try:
            schema.validate(frame, lazy=True)
        except problems.SchemaErrors as error:
            cases = error.failure_cases
    if cases is not None:
        yield from _failures(cases, len(frame))
    for warning in said:
        if issubclass(warning.category, problems.SchemaWarning):
            yield Finding("warning", CODE, None, _one_line(str(warning.message)), _HINT)


def _schema(pandera: Any, suite: ForeignSuite) -> Any:
    if suite.is_code:
        return _from_code(pandera, suite)
    tree = tree_of(suite)
    kind = tree.get("schema_type", "dataframe")
    if kind != "dataframe":
        raise DataError(f"Schemas over pandas frames are run, but this is a {kind!r}.", where=suite.where)
    try:
        read = import_module("pandera.io.pandas_io").deserialize_schema
    except ImportError as error:
        raise MissingExtraError.of("pandera[io]", "to read its schemas from YAML", extra="pandera") from error
    return read(tree)


def _from_code(pandera: Any, suite: ForeignSuite) -> Any:
    """Run a file and take its schema: the chosen one, or the only one that is made in it."""
    names = runpy.run_path(suite.text, run_name="tidemill_suite")
    found = {name: schema for name, value in names.items() if (schema := _as_schema(pandera, value)) is not None}
    if suite.chosen:
        found = {suite.chosen: found[suite.chosen]} if suite.chosen in found else {}
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        named = f" {suite.chosen!r}" if suite.chosen else ""
        raise DataError(f"There is no pandera schema{named} in it.", where=suite.where)
    raise DataError(
        f"There are {len(found)} schemas in it: {', '.join(sorted(found))}.",
        hint=f"Choose one: pandera:{suite.where}::{min(found)}",
        where=suite.where,
    )


def _as_schema(pandera: Any, value: Any) -> Any:
    model = pandera.DataFrameModel
    if isinstance(value, pandera.DataFrameSchema):
        return value
    is_model = isinstance(value, type) and issubclass(value, model) and value is not model
    return value.to_schema() if is_model else None


def _failures(cases: Any, rows: int) -> Iterator[Finding]:
    """One finding for each check that failed; the cases of pandera are one line for each cell."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for case in cases.to_dict("records"):
        column = _said(case.get("column"))
        if str(case["check"]) in (_ABSENT, _NEW):
            column = _said(case["failure_case"])
        groups.setdefault((column, str(case["check"])), []).append(case)
    for (column, check), found in groups.items():
        yield Finding("error", CODE, column or None, _message(check, found, rows), _HINT)


def _message(check: str, cases: list[Any], rows: int) -> str:
    if check == _ABSENT:
        return "The column is absent."
    if check == _NEW:
        return "The schema knows no such column."
    by_row = [c for c in cases if _said(c.get("index"))]
    if not by_row:
        return f"Fails {check}: {_one_line(_said(cases[0]['failure_case']))}."
    shown = list(dict.fromkeys(repr(c["failure_case"]) for c in by_row))[:_SHOWN]
    return f"{len(by_row):,} of {rows:,} rows fail {check}, such as {', '.join(shown)}."


def _said(value: Any) -> str:
    """Give a cell of the cases as text; nothing where it holds nothing."""
    return "" if value is None or value != value else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
