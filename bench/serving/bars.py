"""What a part must show, beside what it showed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Report = dict[str, Any]
_KEEPS: dict[str, Callable[[float, float], bool]] = {
    "≤": lambda value, bar: value <= bar,
    "<": lambda value, bar: value < bar,
    "≥": lambda value, bar: value >= bar,
    "=": lambda value, bar: value == bar,
}


def bar(what: str, value: float | None, sign: str, limit: float, unit: str = "") -> Report:
    """One bar; a value that is absent misses it.

    Examples
    --------
    >>> bar("CPU", 19.0, "≤", 25.0, "µs")["kept"]
    True
    """
    kept = value is not None and _KEEPS[sign](value, limit)
    return {"what": what, "value": value, "bar": f"{sign} {limit:g} {unit}".strip(), "kept": kept}


def show(bars: list[Report]) -> None:
    """Print them, one in a line."""
    for one in bars:
        print(f"{'pass' if one['kept'] else 'MISS'}  {one['what']}: {one['value']} (bar {one['bar']})", flush=True)
