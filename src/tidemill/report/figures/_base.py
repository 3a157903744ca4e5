"""Turns a matplotlib figure into an SVG that takes its colours from the page.

Colours are drawn as stand-ins that are replaced by CSS variables, so that one drawing serves light, dark and paper.
Text stays text, in the font of the page. Figures are objects of their own: pyplot and its global state are not used.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from tidemill.report.words import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
COLOURS = tuple(f"#0a0b{16 + i:x}" for i in range(10))
ACCENT, SECOND = COLOURS[0], COLOURS[1]
DASHES = ("-", "--", "-.", ":")
"""Lines differ by dash too, for print and for eyes that see colours alike."""
MOST_LINES = 10

_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"} | {
    c: f"--c{i}" for i, c in enumerate(COLOURS)
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tidemill",
    "text.parse_math": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "patch.linewidth": 0.0,
}


@dataclass(frozen=True)
class Drawing:
    """One picture: its SVG without a prologue, what it shows in words (for who can't see it), its width in inches."""

    svg: str
    alt: str
    width: float


@dataclass
class Easel:
    """Draws the pictures of one report; gives each its own identifiers."""

    _numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def canvas(
        self,
        width: float,
        height: float,
        panels: tuple[int, int] = (1, 1),
        margins: tuple[float, float, float, float] = (0.62, 0.12, 0.1, 0.48),
        gaps: tuple[float, float] = (0.55, 0.5),
    ) -> Iterator[Canvas]:
        """Give a canvas with (rows, columns) of axes.

        All lengths are inches: ``margins`` are left, right, top and bottom, ``gaps`` between columns and rows. They
        are set by hand, because an automatic layout draws every figure twice.
        """
        import matplotlib
        from matplotlib.figure import Figure

        style: Any = _STYLE
        with matplotlib.rc_context(style), warnings.catch_warnings():
            # The page's font has the glyphs that the layout's font lacks; a stray one can't stop a report.
            warnings.filterwarnings("ignore", message=r"Glyph \d+")
            figure = Figure(figsize=(width, height))
            left, right, top, bottom = margins
            rows, columns = panels
            panel_width = (width - left - right - gaps[0] * (columns - 1)) / columns
            panel_height = (height - top - bottom - gaps[1] * (rows - 1)) / rows
            axes = [
                figure.add_axes(
                    (
                        (left + j * (panel_width + gaps[0])) / width,
                        (bottom + (rows - 1 - i) * (panel_height + gaps[1])) / height,
                        panel_width / width,
                        panel_height / height,
                    )
                )
                for i in range(rows)
                for j in range(columns)
            ]
            yield Canvas(figure, axes, f"f{next(self._numbers)}", width)


@dataclass
class Canvas:
    """A figure under way and its axes, row by row."""

    figure: Figure
    axes: list[Axes]
    prefix: str
    width: float

    @property
    def ax(self) -> Axes:
        """The first axes."""
        return self.axes[0]

    def done(self, alt: str) -> Drawing:
        """Write the SVG; ``alt`` says what is to be seen."""
        buffer = io.StringIO()
        self.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        return Drawing(_for_page(buffer.getvalue(), self.prefix), alt, self.width)


def _for_page(svg: str, prefix: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#", f"url(#{prefix}-", svg)
    svg = re.sub(r'xlink:href="#', f'href="#{prefix}-', svg)
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]+"', head)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box[0] if box else ""} aria-hidden="true" focusable="false">{rest}'
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, f"var({variable})")
    return re.sub(r"\n\s*", "\n", svg)


def look(index: int) -> dict[str, Any]:
    """Colour and dash of the line with this number."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[(index // 3) % len(DASHES)]}


def legend(ax: Axes, **options: Any) -> None:
    """Add a legend in the ink of the page."""
    ax.legend(labelcolor=INK, **options)


def text_inches(texts: Iterable[str], size: float = 9.0, most: float = 2.6) -> float:
    """Room that the longest of some texts needs, roughly.

    Examples
    --------
    >>> text_inches(["a" * 10])
    0.725
    """
    return min(most, max((len(t) for t in texts), default=0) * size * 0.58 / 72)


__all__ = [
    "ACCENT", "COLOURS", "GRID", "INK", "MOST_LINES", "MUTED", "PAPER", "SECOND", "Canvas", "Drawing", "Easel",
    "label", "legend", "look", "text_inches",
]  # fmt: skip
