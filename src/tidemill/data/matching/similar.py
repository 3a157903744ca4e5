"""Rows like some others: distance to the nearest of them over chosen features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, OptionError
from tidemill.data.matching._vectors import KINDS, Frame
from tidemill.data.matching.predicate import parse
from tidemill.data.matching.sources import Resident

Metric = Literal["l2", "cosine"]
MOST_TARGETS = 2_000
"""Distances are computed to every target; beyond so many it takes long, and the manifest grows large."""
_PART = 1 << 13


@dataclass(frozen=True)
class Similar:
    """What rows should be like.

    Parameters
    ----------
    columns : tuple of str
        Numeric columns over which distance is measured. Each is centred and scaled by the standard deviation over the
        source; a missing value stands at the mean.
    where : str, optional
        Condition that the targets fulfil, such as ``"user_id in (7, 9)"``.
    rows : tuple of int, optional
        The targets by row number.
    metric : str
        ``"l2"`` or ``"cosine"`` (1 - cosine of the angle; 0 is the same direction).
    targets : tuple of tuple of float, optional
        The targets' raw values, NaN for missing: what a manifest keeps, so that a replay has the same targets.
    """

    columns: tuple[str, ...]
    where: str | None = None
    rows: tuple[int, ...] | None = None
    metric: Metric = "l2"
    targets: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        if sum(x is not None for x in (self.where, self.rows, self.targets)) != 1:
            raise OptionError("Say once what rows should be like: by a condition, by row numbers, or by values.")
        if not self.columns:
            raise OptionError("Say over which columns rows should be alike.")
        if self.metric not in ("l2", "cosine"):
            raise OptionError(f"A distance is 'l2' or 'cosine', but got {self.metric!r}.")

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        values = None if self.targets is None else [[None if math.isnan(v) else v for v in t] for t in self.targets]
        return {"columns": list(self.columns), "where": self.where, "metric": self.metric, "targets": values}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Similar:
        """Rebuild from `to_json` of one whose targets were found."""
        columns = tuple(str(c) for c in data["columns"])
        targets = tuple(tuple(math.nan if v is None else float(v) for v in t) for t in data["targets"])
        if any(len(t) != len(columns) for t in targets):
            raise ValueError(f"a target has {len(columns)} values")
        return cls(columns, metric=data["metric"], targets=targets)


def distances(resident: Resident, similar: Similar) -> tuple[NDArray[np.float64], Similar]:
    """Distance of every row to the nearest target, and the question with its targets' values.

    Raises
    ------
    DataError
        Where no row is a target, or too many are.
    """
    frame = resident.frame(similar.columns)
    for name in similar.columns:
        if frame.columns[name].kind is not float:
            raise OptionError(f"Distance needs numbers, but {name!r} is {KINDS[frame.columns[name].kind]}.")
    targets = _targets(resident, similar, frame)
    mean, scale = _scales(frame, similar.columns)
    wanted = _scaled(targets, mean, scale)
    out = np.empty(frame.rows)
    for start, part in frame.parts(_PART):
        rows = _scaled(_matrix(part, similar.columns), mean, scale)
        out[start : start + part.rows] = _nearest(rows, wanted, similar.metric)
    known = Similar(similar.columns, metric=similar.metric, targets=tuple(map(tuple, targets.tolist())))
    return out, known


def _targets(resident: Resident, similar: Similar, frame: Frame) -> NDArray[np.float64]:
    if similar.targets is not None:
        return np.asarray(similar.targets, dtype=np.float64).reshape(-1, len(similar.columns))
    if similar.rows is not None:
        rows = np.asarray(similar.rows, dtype=np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < resident.rows:
            raise OptionError(f"Row numbers must lie between 0 and {resident.rows - 1}.")
    else:
        condition = parse(similar.where or "", resident.types)
        rows = condition.rows_of(resident.frame(condition.columns))
    if not len(rows):
        raise DataError("There is no row to be like.", hint="Loosen the condition, or name rows.")
    if len(rows) > MOST_TARGETS:
        raise DataError(
            f"{len(rows):,} rows to be like are too many; {MOST_TARGETS:,} are allowed.", hint="Tighten the condition."
        )
    return _matrix(frame.take(rows, len(rows)), similar.columns)


def _matrix(frame: Frame, columns: Sequence[str]) -> NDArray[np.float64]:
    """Shape (rows, columns), NaN for missing."""
    out = np.empty((frame.rows, len(columns)))
    for i, name in enumerate(columns):
        vector = frame.columns[name]
        out[:, i] = vector.values if vector.null is None else np.where(vector.null, np.nan, vector.values)
    return out


def _scales(frame: Frame, columns: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    mean, scale = np.zeros(len(columns)), np.ones(len(columns))
    for i, name in enumerate(columns):
        values = _matrix(frame, [name])[:, 0]
        known = values[np.isfinite(values)]
        if len(known):
            mean[i] = known.mean()
            scale[i] = known.std() or 1.0
    return mean, scale


def _scaled(matrix: NDArray[np.float64], mean: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    out = (matrix - mean) / scale
    out[~np.isfinite(out)] = 0.0
    return out


def _nearest(rows: NDArray[np.float64], targets: NDArray[np.float64], metric: Metric) -> NDArray[np.float64]:
    if metric == "cosine":
        rows, targets = _unit(rows), _unit(targets)
        return np.asarray(1.0 - (rows @ targets.T).max(axis=1))
    squared = (rows**2).sum(axis=1)[:, None] - 2 * rows @ targets.T + (targets**2).sum(axis=1)[None, :]
    return np.asarray(np.sqrt(np.maximum(squared.min(axis=1), 0.0)))


def _unit(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(np.divide(matrix, length, out=np.zeros_like(matrix), where=length > 0))
