"""Small things about the parts of a condition: how they are told, written, and taken for one another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

from sqlglot import exp

from tidemill.data.matching import _calendar, _nodes
from tidemill.data.matching._allowed import TIME
from tidemill.data.matching._nodes import Constant, Node
from tidemill.data.textforms import parse_boolean

_DIALECT = "duckdb"


def truncated(value: Node, unit: str) -> Node:
    """Cut a time to a unit."""
    form = f"date_trunc('{unit.lower()}', {{argument}})"
    return _nodes.Call("date_trunc", value, lambda ticks: _calendar.truncate(ticks, unit), TIME, form)


def iso(text: str) -> str:
    """What Python 3.10 reads, too: no ``Z``, two digits of an offset completed."""
    text = text.strip()
    if text[-1:] in "zZ" and text:
        return text[:-1] + "+00:00"
    if len(text) > 16 and text[-3] in "+-" and text[-2:].isdecimal():
        return text + ":00"
    return text


def span_text(ticks: int) -> str:
    """Write a duration in the largest unit of which it is a whole number."""
    unit, size = max(((u, t) for u, t in _calendar.UNITS.items() if ticks % t == 0 and u != "WEEK"), key=lambda p: p[1])
    return f"INTERVAL '{ticks // size}' {unit}"


def as_truth(node: Node, other: Node) -> Node:
    """Read a word or number beside a column of truth values as it would be read in a file: 'yes', 1."""
    if isinstance(other, _nodes.Flag) and isinstance(node, Constant) and node.kind in (str, float):
        with suppress(ValueError):
            value = parse_boolean(str(node.value))
            return node if math.isnan(value) else _nodes.Written(value == 1.0)
    return node


def is_null(node: Node) -> bool:
    """Say whether a part is NULL as it is written."""
    return isinstance(node, _nodes.Written) and node.value is None


def chain(node: exp.Expression, kind: type[exp.Expression]) -> Iterator[exp.Expression]:
    """Parts of a chain of one connective, from left to right, however long."""
    stack = [node]
    while stack:
        part = stack.pop()
        while isinstance(part, exp.Paren) and isinstance(part.this, kind):
            part = part.this
        if isinstance(part, kind):
            stack += [part.expression, part.this]
        else:
            yield part


def quoted(text: str) -> str:
    """Write a text as SQL does."""
    return "'" + text.replace("'", "''") + "'"


def short(node: exp.Expression) -> str:
    """Show a part of a condition in a message."""
    text = node.sql(dialect=_DIALECT)
    return text if len(text) <= 40 else text[:39] + "…"


def quotes(a: Node, b: Node, first: exp.Expression, second: exp.Expression) -> str | None:
    """Offer quotes, or none, where a written value has the wrong kind."""
    for column, value, node, other in ((a, b, second, first), (b, a, first, second)):
        if isinstance(value, Constant) and column.kind is str and value.kind is float:
            return f"Write it in quotes: '{node.name}'; or, if the texts are numbers, {short(other)}::double."
        if isinstance(value, Constant) and column.kind is float and value.kind is str:
            return "Leave out the quotes if it is a number." if _looks_numeric(value.value) else None
    return None


def _looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
