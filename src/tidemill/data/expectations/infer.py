"""Expectations from what one version looks like."""

from __future__ import annotations

import datetime as dt

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import SemanticType
from tidemill.data.expectations.suite import ColumnExpectation, Suite
from tidemill.data.matching._vectors import US, Vector
from tidemill.data.matching.sources import LINEAGE, VersionSource
from tidemill.store.workspace import Workspace

KIND_NAMES = {float: "number", str: "text", bool: "truth", dt.datetime: "time"}
_MOST_VALUES = 100
"""A text column with more different words is free text: its words are no expectation."""
_SLACK = 0.02
"""Share by which gaps may grow, and by which rows may lie outside what was seen."""
_GROUP = 64


def infer_suite(workspace: Workspace, ref: str) -> Suite:
    """Expect of the next version what holds for this one.

    Types and the presence of columns are errors where broken; ranges, words and gaps are warnings, because what was
    seen so far is seldom all there is. A person raises to an error what must hold.

    Parameters
    ----------
    workspace : Workspace
        Where the version is.
    ref : str
        The version.
    """
    source = VersionSource(workspace, ref)
    columns: dict[str, ColumnExpectation] = {}
    names = [n for n in source.names if n in source.types and n not in LINEAGE]
    keys = {c.name for c in source.version.schema if c.type is SemanticType.IDENTIFIER}
    for start in range(0, len(names), _GROUP):
        part = names[start : start + _GROUP]
        for name, vector in source.load(part).items():
            columns[name] = _expect(vector, name in keys)
    return Suite(source.version.dataset, {n: columns[n] for n in names}, rows_at_least=max(1, source.rows // 2))


def _expect(vector: Vector, key: bool) -> ColumnExpectation:
    kind = KIND_NAMES[vector.kind]
    values = known(vector)
    missing = 1 - len(values) / len(vector) if len(vector) else 0.0
    unique = key and bool(len(values)) and len(np.unique(values)) == len(values)
    most = 0.0 if missing == 0 else float(min(1.0, round(missing + _SLACK, 4)))
    if vector.words is not None:
        present = np.unique(values)
        few = len(present) <= _MOST_VALUES and not unique and len(present) * 2 <= max(1, len(values))
        words = tuple(sorted(str(vector.words[i]) for i in present)) if few else None
        return ColumnExpectation(kind, most, values=words, unseen_at_most=_SLACK if few else 0.0, unique=unique)
    if vector.kind is bool or not len(values):
        return ColumnExpectation(kind, most, unique=unique)
    low, high = float(values.min()), float(values.max())
    if vector.kind is dt.datetime:
        return ColumnExpectation(kind, most, low=low / US, unseen_at_most=_SLACK, unique=unique)
    return ColumnExpectation(kind, most, low, high, unseen_at_most=_SLACK, unique=unique)


def known(vector: Vector) -> NDArray[np.generic]:
    """Values that are there (of texts, their codes)."""
    if vector.words is not None:
        return np.asarray(vector.values[vector.values >= 0])
    values = vector.values if vector.null is None else vector.values[~vector.null]
    return np.asarray(values[~np.isnan(values)] if values.dtype.kind == "f" else values)
