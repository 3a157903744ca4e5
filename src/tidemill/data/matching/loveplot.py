"""The picture of a balance: each column's standardised mean difference before and after (a "Love plot")."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tidemill.data.matching.balance import ALIKE, Balance

_MOST = 40
"""Columns that are drawn; those that differed most before pairing."""


def love_plot(found: Sequence[Balance], *, form: Literal["svg", "png"] = "svg") -> bytes:
    """Draw a balance.

    Parameters
    ----------
    found : sequence of Balance
        Columns; the 40 that differed most before are drawn.
    form : str
        ``"svg"`` or ``"png"``.

    Returns
    -------
    bytes
        The file.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted(found, key=lambda b: -abs(b.difference_before))[:_MOST][::-1]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "tidemill", "font.family": "sans-serif", "font.size": 9}):
        figure = Figure(figsize=(6.4, 1.1 + 0.24 * max(1, len(shown))), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        y = np.arange(len(shown))
        before = [_finite(b.difference_before) for b in shown]
        after = [_finite(b.difference_after) for b in shown]
        axes.hlines(y, before, after, color="#c8ccd0", linewidth=1.5, zorder=1)
        axes.scatter(before, y, facecolor="white", edgecolor="#b3541e", s=28, label="before", zorder=2)
        axes.scatter(after, y, color="#1f6f8b", s=28, label="after", zorder=3)
        axes.axvspan(-ALIKE, ALIKE, color="#1f6f8b", alpha=0.08, linewidth=0, zorder=0)
        axes.axvline(0, color="#6b7280", linewidth=0.8, zorder=0)
        axes.set_yticks(y, [b.column.replace("$", r"\$")[:40] for b in shown])
        axes.set_ylim(-0.6, max(0.6, len(shown) - 0.4))
        axes.set_xlabel("standardised mean difference, treated − control")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=2)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=144, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def _finite(value: float) -> float:
    return float(np.clip(value, -5, 5))
