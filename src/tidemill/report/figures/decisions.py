"""What was decided: the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill.report.figures._base import ACCENT, INK, PAPER, SECOND, Drawing, Easel, label, text_inches
from tidemill.report.words import number

MOST_NUMBERED = 12
MOST_CLASSES = 30


def draw_confusion(easel: Easel, counts: NDArray[np.float64], classes: Sequence[str]) -> Drawing:
    """Draw how often each true class (row) was decided as each class (column), shaded by its share of the row."""
    from matplotlib.patches import Rectangle

    k = len(classes)
    side = float(np.clip(1.2 + 0.45 * k, 2.6, 6.6))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    small = 9.0 if k <= 5 else 7.0 if k <= MOST_NUMBERED else 6.5
    names = [label(c, 14) for c in classes]
    room = text_inches(names, small)
    across = k > 4 or room > 0.8
    below = 0.42 + (0.75 * room if across else 0.15)
    left = room + 0.42
    with easel.canvas(left + side + 0.1, side + below + 0.1, margins=(left, 0.1, 0.1, below)) as canvas:
        ax = canvas.ax
        for i in range(k):
            for j in range(k):
                if not counts[i, j]:
                    continue
                share = float(shares[i, j])
                colour = ACCENT if i == j else SECOND
                ax.add_patch(Rectangle((j - 0.48, i - 0.48), 0.96, 0.96, color=colour, alpha=0.08 + 0.92 * share))
                if k <= MOST_NUMBERED:
                    text = f"{number(counts[i, j])}\n{100 * share:.0f} %" if k <= 6 else number(counts[i, j])
                    ax.text(j, i, text, ha="center", va="center", fontsize=small, color=PAPER if share > 0.55 else INK)
        turned = {"rotation": 45.0, "ha": "right", "rotation_mode": "anchor"} if across else {}
        ax.set_xticks(range(k), names, fontsize=small, **turned)  # type: ignore[arg-type]
        ax.set_yticks(range(k), names, fontsize=small)
        ax.set(xlim=(-0.5, k - 0.5), ylim=(k - 0.5, -0.5), xlabel="Decided", ylabel="True", aspect="equal")
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        right = float(np.trace(counts) / max(1.0, counts.sum()))
        return canvas.done(f"Confusion matrix of {k} classes; {100 * right:.1f} % of the rows are on the diagonal.")
