"""Datetimes: calendar parts by integer arithmetic, and days elapsed since the first training row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.schema import Columns
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.encode._numbers import stack
from tidemill.models.tabular.ops import GraphOps, NumpyOps, Ops, Value

PARTS = ("year", "month", "day", "weekday", "hour", "minute", "day of year", "elapsed days")
_DAY_S = 86400
_EARLIEST_S = -62135596800.0  # 0001-01-01
_LATEST_S = 253402300799.0  # 9999-12-31 23:59:59
_SHIFT_DAYS = 719468  # from 0000-03-01 to 1970-01-01: all day numbers become positive, years begin in March


@dataclass(frozen=True)
class CalendarBlock:
    """The datetime columns; parts that never change in training are left out."""

    names: tuple[str, ...]
    origins: tuple[float, ...]
    parts: tuple[tuple[int, ...], ...]
    """For each column the positions in `PARTS` that it keeps."""

    @classmethod
    def fit(cls, names: tuple[str, ...], columns: Columns) -> CalendarBlock:
        """Learn where time begins and which parts change."""
        seconds = stack(columns, names)
        known = np.where((seconds >= _EARLIEST_S) & (seconds <= _LATEST_S), seconds, np.inf)
        first = known.min(axis=0, initial=np.inf)
        origins = tuple(float(v) if np.isfinite(v) else 0.0 for v in first)
        x: NDArray[np.float32] = _calendar(NumpyOps(), seconds, origins).reshape(len(seconds), len(PARTS), len(names))
        low = np.fmin.reduce(x, axis=0, initial=np.inf)
        high = np.fmax.reduce(x, axis=0, initial=-np.inf)
        parts = tuple(tuple(int(p) for p in np.flatnonzero(high[:, i] > low[:, i])) for i in range(len(names)))
        # A column without any change still gives its years: a model needs at least one column.
        return cls(names, origins, tuple(p or (0,) for p in parts))

    @property
    def features(self) -> tuple[Feature, ...]:
        """One per kept part."""
        return tuple(
            Feature(f"{n}: {PARTS[p]}", n, FeatureKind.NUMBER)
            for n, parts in zip(self.names, self.parts, strict=True)
            for p in parts
        )

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows with numpy."""
        ops = NumpyOps()
        x: Matrix = ops.columns(_calendar(ops, stack(columns, self.names), self.origins), self._kept())
        return x

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the same into a graph."""
        ops = GraphOps(graph)
        seconds = graph.concat(*(inputs[n] for n in self.names))
        out: str = ops.columns(_calendar(ops, seconds, self.origins), self._kept())
        return out

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that rebuild the block."""
        return {"names": list(self.names), "origins": list(self.origins), "parts": [list(p) for p in self.parts]}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> CalendarBlock:
        """Undo `checkpoint`."""
        return cls(tuple(state["names"]), tuple(state["origins"]), tuple(tuple(p) for p in state["parts"]))

    def _kept(self) -> list[int]:
        width = len(self.names)
        return [p * width + i for i, parts in enumerate(self.parts) for p in parts]


def _calendar(ops: Ops, seconds: Value, origins: tuple[float, ...]) -> Value:
    """All parts of all columns, part by part: (N, k) float64 to (N, 8 k) float32.

    The conversion of day numbers is H. Hinnant's ``civil_from_days``; nothing negative is ever divided, so that
    numpy's floor division and the graph's truncating one are the same.
    """
    # NaN fails both comparisons; infinities and dates outside of years 1..9999 are missing too.
    inside = ops.all_of(
        ops.less(seconds, ops.const(_LATEST_S + 1, np.float64)),
        ops.less(ops.const(_EARLIEST_S - 1, np.float64), seconds),
    )
    safe = ops.where(inside, seconds, ops.const(0.0, np.float64))

    def int_(value: int) -> Value:
        return ops.const(value, np.int64)

    whole = ops.add(ops.cast(ops.floor(safe), np.int64), int_(_SHIFT_DAYS * _DAY_S))
    day = ops.div(whole, int_(_DAY_S))
    clock = ops.sub(whole, ops.mul(day, int_(_DAY_S)))
    year, month, day_of_month, day_of_year = _civil(ops, day)
    hour = ops.div(clock, int_(3600))
    minute = ops.div(ops.sub(clock, ops.mul(hour, int_(3600))), int_(60))
    since_monday = ops.add(day, int_(2))  # 0000-03-01 was a Wednesday
    weekday = ops.sub(since_monday, ops.mul(ops.div(since_monday, int_(7)), int_(7)))
    elapsed = ops.div(ops.sub(safe, ops.const([origins], np.float64)), ops.const(float(_DAY_S), np.float64))
    missing = ops.const(np.nan, np.float32)
    parts = [year, month, day_of_month, weekday, hour, minute, day_of_year, elapsed]
    return ops.concat([ops.where(inside, ops.cast(p, np.float32), missing) for p in parts])


def _civil(ops: Ops, day: Value) -> tuple[Value, Value, Value, Value]:
    """Year, month, day of month and day of year from the number of days since 0000-03-01."""

    def int_(value: int) -> Value:
        return ops.const(value, np.int64)

    def over(a: Value, by: int) -> Value:
        return ops.div(a, int_(by))

    era = over(day, 146097)
    of_era = ops.sub(day, ops.mul(era, int_(146097)))
    # (of_era - of_era/1460 + of_era/36524 - of_era/146096) / 365
    straight = ops.sub(ops.add(ops.sub(of_era, over(of_era, 1460)), over(of_era, 36524)), over(of_era, 146096))
    year_of_era = over(straight, 365)
    leaps = ops.sub(over(year_of_era, 4), over(year_of_era, 100))
    since_march = ops.sub(of_era, ops.add(ops.mul(year_of_era, int_(365)), leaps))
    shifted = over(ops.add(ops.mul(since_march, int_(5)), int_(2)), 153)  # 0 is March
    begin = over(ops.add(ops.mul(shifted, int_(153)), int_(2)), 5)
    day_of_month = ops.add(ops.sub(since_march, begin), int_(1))
    late = ops.less(shifted, int_(10))  # March to December
    month = ops.where(late, ops.add(shifted, int_(3)), ops.sub(shifted, int_(9)))
    march_year = ops.add(year_of_era, ops.mul(era, int_(400)))
    year = ops.where(late, march_year, ops.add(march_year, int_(1)))

    def rest(by: int) -> Value:
        return ops.sub(year, ops.mul(over(year, by), int_(by)))

    ordinary = ops.all_of(ops.equal(rest(4), int_(0)), ops.less(int_(0), rest(100)))
    leap = ops.any_of(ordinary, ops.equal(rest(400), int_(0)))
    from_march = ops.add(since_march, ops.where(leap, int_(61), int_(60)))
    day_of_year = ops.where(late, from_march, ops.sub(since_march, int_(305)))
    return year, month, day_of_month, day_of_year
