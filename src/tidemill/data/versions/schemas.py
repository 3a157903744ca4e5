"""One schema for rows of several versions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tidemill.core.errors import DataError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.versions.manifest import Field

T = SemanticType
_WIDER = {
    frozenset({T.INTEGER, T.NUMBER}): T.NUMBER,
    frozenset({T.CATEGORY, T.TEXT}): T.TEXT,
    frozenset({T.CATEGORY, T.IDENTIFIER}): T.IDENTIFIER,
}
_HINT = "Add the data again so that the columns agree (`tidemill data add DATA --like DATASET`)"


def unite_fields(versions: Sequence[tuple[str, Sequence[Field]]], *, missing: bool = False) -> tuple[Field, ...]:
    """Find the columns of rows that come from several versions.

    Whole numbers and numbers go together as numbers, categories and texts as texts, categories and identifiers as
    identifiers, and a column that was constant in one takes the type that it has in the other.

    Parameters
    ----------
    versions : sequence of (str, fields)
        How a person names each, and its columns.
    missing : bool
        Columns that only some have are kept, null in the rows of the others; else they are an error.

    Raises
    ------
    DataError
        With every column that differs and its types.
    """
    out: dict[str, Field] = {}
    whose: dict[str, str] = {}
    problems: list[str] = []
    for ref, fields in versions:
        for f in fields:
            if f.name not in out:
                out[f.name], whose[f.name] = f, ref
                continue
            united = _unite(out[f.name], f)
            if united is None:
                known = out[f.name]
                problems.append(
                    f"column {f.name!r} is {known.type.value} ({known.stored}) in {whose[f.name]} and "
                    f"{f.type.value} ({f.stored}) in {ref}"
                )
            else:
                out[f.name] = united
    if not missing:
        for ref, fields in versions:
            lacking = [repr(n) for n in out if n not in {f.name for f in fields}]
            if lacking:
                problems.append(f"{ref} lacks the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}")
    if problems:
        only_missing = all(" lacks " in p for p in problems)
        raise DataError(
            f"The columns don't agree: {'; '.join(problems)}.",
            hint="Allow columns that only some versions have with --missing." if only_missing else f"{_HINT}.",
        )
    return tuple(out.values())


def unite_schemas(schemas: Sequence[tuple[Schema, int]], fields: Sequence[Field]) -> Schema:
    """Describe the columns of united rows; the counts are of the schemas, what was seen is put together from them."""
    return Schema(tuple(_described(f, [(s[f.name], n) for s, n in schemas if f.name in s]) for f in fields))


def _unite(a: Field, b: Field) -> Field | None:
    if a.type is b.type:
        return a if (a.stored, a.blob.partition(":")[0]) == (b.stored, b.blob.partition(":")[0]) else None
    wider = _WIDER.get(frozenset({a.type, b.type}))
    if wider is not None:
        return replace(a, type=wider)
    if T.CONSTANT in (a.type, b.type):
        return b if a.type is T.CONSTANT else a
    return None


def _described(field: Field, seen: Sequence[tuple[Column, int]]) -> Column:
    first = next((c for c, _ in seen if c.type is field.type), seen[0][0])
    rows = sum(n for _, n in seen)
    lows = [c.low for c, _ in seen if c.low is not None]
    highs = [c.high for c, _ in seen if c.high is not None]
    alone = len(seen) == 1
    return replace(
        first,
        type=field.type,
        missing=sum(c.missing * n for c, n in seen) / rows if rows else 0.0,
        distinct=first.distinct if alone else None,
        low=min(lows) if lows else None,
        high=max(highs) if highs else None,
    )
