"""Arithmetic of times in int64 microseconds since 1970-01-01 UTC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

US = 1_000_000
UNITS: dict[str, int] = {
    "MICROSECOND": 1,
    "MILLISECOND": 1000,
    "SECOND": US,
    "MINUTE": 60 * US,
    "HOUR": 3600 * US,
    "DAY": 86_400 * US,
    "WEEK": 7 * 86_400 * US,
}
MONTHS: dict[str, int] = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
DAY = UNITS["DAY"]


def _months(ticks: Any) -> NDArray[Any]:
    return np.asarray(ticks, dtype=np.int64).view("M8[us]").astype("M8[M]")


def _ticks(times: NDArray[Any]) -> NDArray[np.int64]:
    return times.astype("M8[us]").astype(np.int64)


def add_months(ticks: Any, months: int) -> NDArray[np.int64]:
    """Move by whole months; a day that the month lacks becomes its last (31 January + 1 month: 28 February)."""
    month = _months(ticks)
    within = ticks - _ticks(month)
    day, rest = within // DAY, within % DAY
    moved = month + np.timedelta64(months, "M")
    last = (_ticks(moved + np.timedelta64(1, "M")) - _ticks(moved)) // DAY - 1
    return np.asarray(_ticks(moved) + np.minimum(day, last) * DAY + rest)


def truncate(ticks: Any, unit: str) -> NDArray[np.int64]:
    """Go back to the start of the year, quarter, month, week (Monday), day, hour, minute or second."""
    if unit == "YEAR":
        return _ticks(_months(ticks).astype("M8[Y]"))
    if unit == "QUARTER":
        months = _months(ticks).astype(np.int64)
        return _ticks((months - months % 3).view("M8[M]"))
    if unit == "MONTH":
        return _ticks(_months(ticks))
    shift = 4 * DAY if unit == "WEEK" else 0  # 1970-01-05 was a Monday
    step = UNITS[unit]
    return np.asarray((np.asarray(ticks) - shift) // step * step + shift)


def part(ticks: Any, unit: str) -> NDArray[np.float64]:
    """Year, quarter, month, day of the month, day of the week (Sunday is 0), hour, minute or second of a time."""
    months = _months(ticks)
    ticks = np.asarray(ticks, dtype=np.int64)
    number = months.astype(np.int64)
    parts: dict[str, Callable[[], NDArray[np.int64]]] = {
        "YEAR": lambda: number // 12 + 1970,
        "QUARTER": lambda: number % 12 // 3 + 1,
        "MONTH": lambda: number % 12 + 1,
        "DAY": lambda: (ticks - _ticks(months)) // DAY + 1,
        "DAYOFWEEK": lambda: (ticks // DAY + 4) % 7,
        "HOUR": lambda: ticks // UNITS["HOUR"] % 24,
        "MINUTE": lambda: ticks // UNITS["MINUTE"] % 60,
        "SECOND": lambda: ticks // US % 60,
    }
    return np.asarray(parts[unit](), dtype=np.float64)


PARTS = ("YEAR", "QUARTER", "MONTH", "DAY", "DAYOFWEEK", "HOUR", "MINUTE", "SECOND")
TRUNCATE = ("YEAR", "QUARTER", "MONTH", "WEEK", "DAY", "HOUR", "MINUTE", "SECOND")
