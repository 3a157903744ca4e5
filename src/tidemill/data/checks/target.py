"""Whether there is enough to learn from in the target."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tidemill.data.checks._base import Examined, Finding

_RARE = 10


def missing_target(table: Examined) -> Iterator[Finding]:
    """Rows without a usable target are left out of training."""
    if table.y is None or table.task is None:
        return
    gone = int((table.y < 0).sum() if table.task.kind.is_classification else np.isnan(table.y).sum())
    if gone:
        share = gone / len(table.y)
        yield Finding(
            "warning" if share > 0.05 else "info", "missing_target", table.task.target,
            f"{gone:,} of {len(table.y):,} rows ({share:.1%}) have no usable target.",
            "They are left out; label them if they matter.",
        )  # fmt: skip


def constant_target(table: Examined) -> Iterator[Finding]:
    """A target with one value has nothing to teach."""
    if table.y is None or table.task is None:
        return
    known = table.y[table.y >= 0] if table.task.kind.is_classification else table.y[np.isfinite(table.y)]
    if len(np.unique(known)) < 2:
        yield Finding(
            "error", "constant_target", table.task.target, "The target has the same value in every row.",
            "Name another target, or give rows with other values.",
        )  # fmt: skip


def imbalance(table: Examined) -> Iterator[Finding]:
    """Two classes of very different size make accuracy a poor guide."""
    if table.y is None or table.task is None or table.task.n_classes != 2:
        return
    known = table.y[table.y >= 0]
    counts = np.bincount(known, minlength=2)
    share = counts.min() / max(1, counts.sum())
    if 0 < share < 0.1:
        label = table.task.classes[int(counts.argmin())]
        yield Finding(
            "warning" if share < 0.01 else "info", "imbalance", table.task.target,
            f"Only {share:.2%} of the rows ({counts.min():,}) are {label!r}.",
            "Judge the model by average precision or a cost matrix rather than by accuracy.",
        )  # fmt: skip


def rare_classes(table: Examined) -> Iterator[Finding]:
    """Classes with a few rows can hardly be learned, and not be measured at all."""
    if table.y is None or table.task is None or not table.task.kind.is_classification:
        return
    counts = np.bincount(table.y[table.y >= 0], minlength=table.task.n_classes)
    rare = [(table.task.classes[i], int(c)) for i, c in enumerate(counts) if c < _RARE]
    if rare:
        shown = ", ".join(f"{label!r} ({count})" for label, count in rare[:8]) + (", …" if len(rare) > 8 else "")
        yield Finding(
            "warning", "rare_classes", table.task.target,
            f"{len(rare)} of {table.task.n_classes} classes have fewer than {_RARE} rows: {shown}.",
            "Gather more rows of them, or join them with others.",
        )  # fmt: skip
