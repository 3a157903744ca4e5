"""What the model makes of its columns: importance and partial dependence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tidemill.core.schema import SemanticType
from tidemill.report.dependence import Dependence
from tidemill.report.figures._base import ACCENT, INK, Drawing, Easel, label, legend, look, text_inches
from tidemill.report.importance import Importance
from tidemill.report.words import date, metric_words

MOST_BARS = 15
MOST_LINES = 5
PER_ROW = 2
_TURNED: dict[str, Any] = {"rotation": 30.0, "ha": "right", "rotation_mode": "anchor"}


def draw_importance(easel: Easel, columns: Sequence[Importance], metric: str, greater_is_better: bool) -> Drawing:
    """Draw a bar for each column, longest on top, with its interval."""
    shown = list(columns[:MOST_BARS])[::-1]
    names = [label(i.column) for i in shown]
    with easel.canvas(8.6, 0.75 + 0.27 * len(shown), margins=(0.15 + text_inches(names), 0.15, 0.1, 0.48)) as canvas:
        ax = canvas.ax
        at = np.arange(len(shown))
        values = np.array([i.value for i in shown])
        spread = np.maximum(0, np.array([[i.value - i.low for i in shown], [i.high - i.value for i in shown]]))
        ax.barh(at, values, height=0.62, color=ACCENT, alpha=0.8)
        ax.errorbar(values, at, xerr=spread, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
        ax.axvline(0, color=INK, linewidth=0.7)
        ax.set_yticks(at, names, color=INK)
        ax.grid(visible=False, axis="y")
        change = "lost" if greater_is_better else "added"
        ax.set_xlabel(f"{label(metric_words(metric))} {change} when the column is shuffled")
        top = ", ".join(i.column for i in columns[:5])
        return canvas.done(f"Bars of the {len(shown)} most important columns; the first are {top}.")


def draw_dependence(
    easel: Easel, found: Sequence[Dependence], outputs: Sequence[tuple[int, str]], y_label: str
) -> Drawing:
    """Draw a panel for each column; ``outputs`` are the columns of the scores to show and their names."""
    rows = -(-len(found) // PER_ROW)
    words = any(d.column.type.is_string or d.column.type is SemanticType.DATETIME for d in found)
    below = 0.65 if words else 0.3  # room for slanted words
    height = 0.3 + (1.5 + below + 0.3) * rows
    with easel.canvas(
        8.6, height, (rows, PER_ROW), margins=(0.62, 0.12, 0.28, below), gaps=(0.45, below + 0.3)
    ) as canvas:
        for i, ax in enumerate(canvas.axes):
            if i >= len(found):
                ax.remove()
                continue
            _panel(ax, found[i], outputs)
            if i % PER_ROW == 0:
                ax.set_ylabel(label(y_label))
        if len(outputs) > 1:
            legend(canvas.axes[0], loc="best", fontsize=7)
        _share_y(canvas.axes[: len(found)], np.concatenate([d.mean[:, [o for o, _ in outputs]].ravel() for d in found]))
        names = ", ".join(d.column.name for d in found)
        return canvas.done(f"Partial dependence of the answer on {names}.")


def _share_y(axes: Sequence[Any], means: np.ndarray[Any, Any]) -> None:
    """One scale for all panels, so that a flat line looks flat."""
    low = min(ax.get_ylim()[0] for ax in axes)
    high = max(ax.get_ylim()[1] for ax in axes)
    if means.min() >= 0 and means.max() <= 1:
        low, high = max(low, -0.03), min(high, 1.03)
    for ax in axes:
        ax.set_ylim(low, high)


def _panel(ax: Any, found: Dependence, outputs: Sequence[tuple[int, str]]) -> None:
    texts = found.column.type.is_string or found.column.type is SemanticType.BOOLEAN
    x: Any = np.arange(len(found.grid)) if texts else list(found.grid)
    one = len(outputs) == 1
    for i, (output, name) in enumerate(outputs[:MOST_LINES]):
        mean, style = found.mean[:, output], look(i)
        if texts:
            spread = np.array([mean - found.low[:, output], found.high[:, output] - mean]).clip(0)
            ax.errorbar(
                x, mean, yerr=spread if one else None, fmt="o", markersize=4, color=style["color"], alpha=0.95,
                elinewidth=1.0, label=label(name, 16),
            )  # fmt: skip
            continue
        if one:
            ax.fill_between(x, found.low[:, output], found.high[:, output], color=style["color"], alpha=0.13)
        ax.plot(x, mean, label=label(name, 16), **style)
    ax.set_title(label(found.column.name + (f" ({found.column.unit})" if found.column.unit else ""), 40))
    if texts:
        names = [_value_words(found, v) for v in found.grid]
        turn = sum(len(n) for n in names) > 30
        ax.set_xticks(x, names, fontsize=7.5, **(_TURNED if turn else {}))
        ax.margins(x=0.08)
    elif found.column.type is SemanticType.DATETIME:
        # Four dates that are there; matplotlib's own ticks know neither year 1 nor year 9999.
        ticks = np.linspace(found.grid[0], found.grid[-1], 4)  # type: ignore[arg-type]
        day = 86_400.0 if ticks[-1] - ticks[0] > 8 * 86_400 else 1.0
        ticks = np.floor(ticks / day) * day
        ax.set_xticks(ticks, [date(float(t)) for t in ticks], rotation=18, ha="right", fontsize=7.5)
    else:
        ax.plot(x, np.zeros(len(x)), "|", color=INK, alpha=0.5, markersize=5, transform=ax.get_xaxis_transform())
        ax.locator_params(axis="x", nbins=6)


def _value_words(found: Dependence, value: float | str) -> str:
    if found.column.type is SemanticType.BOOLEAN:
        return "yes" if value else "no"
    return label(value if value != "" else "(missing)", 16)
