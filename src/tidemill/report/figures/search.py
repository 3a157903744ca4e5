"""How the search went: quality against cost, and quality over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.report.figures._base import (
    ACCENT,
    INK,
    MOST_LINES,
    MUTED,
    SECOND,
    Drawing,
    Easel,
    label,
    legend,
    look,
)
from tidemill.report.words import metric_words, score

Floats = NDArray[np.float64]

_UNITS = {"latency_ms": ("Latency of one row, ms", 1.0), "size_bytes": ("Size, MB", 1e-6)}


def usable(rows: Sequence[Mapping[str, Any]], cost: str) -> list[Mapping[str, Any]]:
    """Rows of the leaderboard that have both a value and this cost."""
    return [r for r in rows if _finite(r.get("value")) and _finite(r.get(cost)) and r[cost] > 0]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def frontier(costs: Sequence[float], values: Sequence[float], greater_is_better: bool) -> list[int]:
    """Indices of the points that no other point beats in both, cheapest first.

    Examples
    --------
    >>> frontier([1, 2, 3], [0.5, 0.4, 0.9], greater_is_better=True)
    [0, 2]
    """
    sign = 1.0 if greater_is_better else -1.0
    out: list[int] = []
    best = -np.inf
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -sign * values[i])):
        if sign * values[i] > best:
            best = sign * values[i]
            out.append(i)
    return out


def draw_pareto(
    easel: Easel,
    rows: Sequence[Mapping[str, Any]],
    costs: Sequence[str],
    metric: str,
    greater_is_better: bool,
    on_front: Sequence[str],
) -> Drawing:
    """Draw quality against each cost, the trials that nobody beats joined by a line."""
    with easel.canvas(0.4 + 4.1 * len(costs), 3.4, (1, len(costs))) as canvas:
        for ax, cost in zip(canvas.axes, costs, strict=True):
            shown = usable(rows, cost)
            words, scale = _UNITS[cost]
            x = np.array([r[cost] * scale for r in shown], dtype=np.float64)
            v = np.array([r["value"] for r in shown], dtype=np.float64)
            shipped = np.array([bool(r.get("weight")) for r in shown])
            ax.scatter(x[~shipped], v[~shipped], s=22, color=MUTED, alpha=0.55, linewidths=0, label="trial")
            ax.scatter(x[shipped], v[shipped], s=44, color=SECOND, linewidths=0, marker="D", label="in the model")
            front = (
                [i for i, r in enumerate(shown) if str(r.get("trial")) in set(on_front)]
                if cost == "latency_ms" and on_front
                else frontier(x.tolist(), v.tolist(), greater_is_better)
            )
            front.sort(key=lambda i: x[i])
            ax.plot(x[front], v[front], color=ACCENT, drawstyle="steps-post", linewidth=1.2, label="not beaten")
            for i in _apart(front[::-1], np.log(x), v):
                ax.annotate(
                    label(shown[i].get("trial"), 20), (x[i], v[i]), xytext=(4, -10 if greater_is_better else 6),
                    textcoords="offset points", fontsize=7.5, color=INK,
                )  # fmt: skip
            ax.set_xscale("log")
            _clip_outliers(ax, v, greater_is_better)
            ax.margins(x=0.18)
            _plain_log_ticks(ax)
            ax.set_xlabel(words)
        canvas.ax.set_ylabel(label(metric_words(metric)))
        legend(canvas.axes[-1], loc="best")
        return canvas.done(f"Points of {len(rows)} trials: {metric} against {' and '.join(costs)}.")


def draw_history(easel: Easel, history: Sequence[tuple[float, float]], metric: str, greater_is_better: bool) -> Drawing:
    """Draw each finished trial and the best so far against time."""
    times, values = (np.array(side, dtype=np.float64) for side in zip(*history, strict=True))
    best = np.maximum.accumulate(values) if greater_is_better else np.minimum.accumulate(values)
    with easel.canvas(8.6, 2.9) as canvas:
        ax = canvas.ax
        ax.scatter(times, values, s=20, color=MUTED, alpha=0.6, linewidths=0, label="trial")
        ax.step(times, best, where="post", color=ACCENT, label="best so far")
        _clip_outliers(ax, values, greater_is_better)
        ax.set_xlabel("Seconds since the start")
        ax.set_ylabel(label(metric_words(metric)))
        ax.set_xlim(left=0)
        legend(ax, loc="lower right" if greater_is_better else "upper right")
        return canvas.done(
            f"{len(values)} trials over {times[-1]:.0f} seconds; {metric} from {score(values[0])} to {score(best[-1])}."
        )


def draw_curves(easel: Easel, curves: Mapping[str, Sequence[tuple[float, float]]]) -> Drawing:
    """Draw the learning curves of trials; the first ones have colours and names."""
    named = list(curves)[:MOST_LINES]
    with easel.canvas(8.6, 3.2) as canvas:
        ax = canvas.ax
        for name in list(curves)[MOST_LINES:]:
            ax.plot(*zip(*curves[name], strict=True), color=MUTED, alpha=0.45, linewidth=0.9)
        for i, name in enumerate(named):
            ax.plot(*zip(*curves[name], strict=True), label=label(name, 24), **look(i))
        _clip_outliers(ax, np.array([v for some in curves.values() for _, v in some]), greater_is_better=False)
        ax.set_xlabel("Steps")
        ax.set_ylabel("Validation loss or error")
        ax.set_xlim(left=0)
        legend(ax, loc="upper right")
        ends = ", ".join(f"{name} from {score(curves[name][0][1])} to {score(curves[name][-1][1])}" for name in named)
        return canvas.done(f"Learning curves of {len(curves)} trials: {ends}.")


def _apart(order: Sequence[int], x: Floats, y: Floats, most: int = 3) -> list[int]:
    """Those points of an order whose names would not be written over one another."""
    wide, high = float(np.ptp(x)) or 1.0, float(np.ptp(y)) or 1.0
    out: list[int] = []
    for i in order:
        if all(abs(x[i] - x[j]) > 0.3 * wide or abs(y[i] - y[j]) > 0.1 * high for j in out):
            out.append(i)
    return out[:most]


def _clip_outliers(ax: Any, values: Floats, greater_is_better: bool) -> None:
    """Keep a few very bad trials from pressing all others into one line."""
    if len(values) < 5:
        return
    near, far = np.quantile(values, [0.9, 0.2] if greater_is_better else [0.1, 0.8])
    best = values.max() if greater_is_better else values.min()
    reach = max(3 * abs(near - far), abs(best - far) * 1.5)
    pad = 0.08 * reach
    if not reach > 0:
        return
    if greater_is_better and values.min() < best - reach:
        ax.set_ylim(best - reach, best + pad)
    elif not greater_is_better and values.max() > best + reach:
        ax.set_ylim(best - pad, best + reach)


def _plain_log_ticks(ax: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if high / low < 100 else (1.0,)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
