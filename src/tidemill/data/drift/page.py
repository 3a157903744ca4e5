"""One self-contained HTML page: what was expected, what is broken, what has moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from tidemill.data.checks._base import Finding
from tidemill.data.drift.compare import ColumnDrift, Drift
from tidemill.data.drift.grid import MISSING, OTHER
from tidemill.data.drift.sketch import Sketch

_DRAWN = 40
_LISTED = 500


@dataclass(frozen=True)
class Bar:
    """One bin of a picture: where it stands, how high both sides are (0..1), and what it says."""

    x: float
    width: float
    before: float
    after: float
    label: str


@dataclass(frozen=True)
class Picture:
    """Two histograms of one column, to be drawn."""

    column: ColumnDrift
    bars: tuple[Bar, ...]


def render_page(
    title: str,
    *,
    drift: Drift | None = None,
    findings: Sequence[Finding] = (),
    names: tuple[str, str] = ("before", "after"),
) -> str:
    """Write the page.

    Parameters
    ----------
    title : str
        Its heading, such as the name of the version.
    drift : Drift, optional
        What has moved. The 40 columns that moved most are drawn, 500 are listed.
    findings : sequence of Finding
        What is broken: from expectations, splits, skew.
    names : tuple of str
        What the two sides of the drift are called.

    Returns
    -------
    str
        HTML; it asks the network for nothing.
    """
    from jinja2 import Environment, StrictUndefined

    text = files("tidemill.data.drift").joinpath("templates", "page.html").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    counts = {s: sum(f.severity == s for f in findings) for s in ("error", "warning", "info")}
    pictures = [] if drift is None else [_picture(c, drift) for c in drift.columns[:_DRAWN]]
    listed = () if drift is None else drift.columns[:_LISTED]
    return page.from_string(text).render(
        title=title, drift=drift, findings=findings, counts=counts, pictures=pictures, listed=listed, names=names
    )


def _picture(column: ColumnDrift, drift: Drift) -> Picture:
    axis = drift.before.grid.axes[column.column]
    labels = [*axis.labels(), "never seen" if axis.kind is str else "", "missing"]
    p, q = (_shares(s, column.column, axis.bins) for s in (drift.before, drift.after))
    used = [i for i in range(len(labels)) if labels[i] and (i < axis.bins or p[i] + q[i] > 0)][-32:]
    most = max(float(p[used].max(initial=0)), float(q[used].max(initial=0)), 1e-9)
    width = 100 / max(1, len(used))
    bars = tuple(
        Bar(k * width, width, float(p[i]) / most, float(q[i]) / most, f"{labels[i]}: {p[i]:.1%} → {q[i]:.1%}")
        for k, i in enumerate(used)
    )
    return Picture(column, bars)


def _shares(sketch: Sketch, name: str, bins: int) -> NDArray[np.float64]:
    counts = sketch.counts[sketch.names.index(name)]
    short = np.array([*counts[:bins], counts[OTHER], counts[MISSING]], dtype=np.float64)
    return np.asarray(short / max(1.0, short.sum()))
