"""How results look on a terminal: tables for people, JSON for programs, never both."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def emit_json(value: Any) -> None:
    """Write one JSON document on standard output; NaN and infinities become null."""
    print(json.dumps(finite(value), indent=2, default=str))


def emit_json_line(value: Any) -> None:
    """Write one JSON document on a line of its own, for streams of events."""
    print(json.dumps(finite(value), default=str), flush=True)


def finite(value: Any) -> Any:
    """Replace NaN and infinities by None, for JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value


def table(rows: Sequence[Mapping[str, Any]], *, title: str | None = None, columns: Sequence[str] | None = None) -> None:
    """Write rows as a table that fits the terminal."""
    from rich.console import Console
    from rich.table import Table

    names = list(columns) if columns is not None else list(rows[0]) if rows else []
    out = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in names:
        numeric = any(isinstance(r.get(name), (int, float)) for r in rows)
        out.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        out.add_row(*(cell(row.get(n)) for n in names))
    Console(file=sys.stdout, soft_wrap=False, width=None if sys.stdout.isatty() else 140).print(out)


def cell(value: Any) -> str:
    """Write one value the way a person reads it.

    Examples
    --------
    >>> cell(0.931234), cell(None), cell(1234567), cell(True)
    ('0.9312', '–', '1,234,567', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "–" if math.isnan(value) else number(value)
    return str(value)


def number(value: float) -> str:
    """Four significant digits, without an exponent where that is readable.

    Examples
    --------
    >>> number(0.000123456), number(43850.7), number(2.10612)
    ('0.0001235', '43,851', '2.106')
    """
    if value == 0 or not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if size >= 1e-4 else f"{value:.3e}"


def duration(seconds: float) -> str:
    """Write seconds as people say them.

    Examples
    --------
    >>> duration(0.4), duration(59.6), duration(3723)
    ('0.4 s', '60 s', '1 h 02 min')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, _ = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


def size(n_bytes: float | None) -> str:
    """Write bytes as people say them.

    Examples
    --------
    >>> size(512), size(2_345_678)
    ('512 B', '2.3 MB')
    """
    if n_bytes is None:
        return "–"
    value = float(n_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draw a small curve with block characters.

    Examples
    --------
    >>> sparkline([1.0, 2.0, 3.0])
    '▁▅█'
    """
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    step = max(1, math.ceil(len(finite) / width))
    picked = finite[::step]
    low, high = min(picked), max(picked)
    blocks = "▁▂▃▄▅▆▇█"
    if high == low:
        return blocks[0] * len(picked)
    return "".join(blocks[min(7, int((v - low) / (high - low) * 7 + 0.5))] for v in picked)
