"""Whether the test rows look like the training rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.schema import SemanticType
from tidemill.data.checks._base import Examined, Finding, sample_rows
from tidemill.data.checks._bins import Bins

_MODERATE, _STRONG = 0.1, 0.25
"""Usual bars of the population stability index: below 0.1 stable, above 0.25 shifted."""
_LISTED = 20


def drift(table: Examined) -> Iterator[Finding]:
    """Compare each column of training and test by the population stability index over ten bins."""
    if table.test is None or table.rows < 50:
        return
    found = []
    train_rows = sample_rows(table.rows, len(table.columns))
    for column in table.schema.features:
        values, other = table.columns[column.name], table.test[column.name]
        if column.type is SemanticType.TEXT or len(other) < 50:
            continue
        index = stability_index(values[train_rows], other[sample_rows(len(other), len(table.columns))])
        if index > _MODERATE:
            found.append((index, column.name))
    found.sort(reverse=True)
    for index, name in found[:_LISTED]:
        yield Finding(
            "warning" if index > _STRONG else "info", "drift", name,
            f"The test rows are distributed differently (population stability index {index:.2f}).",
            "Expect other scores than in validation; look how the rows were split.",
        )  # fmt: skip


def stability_index(values: NDArray[Any], other: NDArray[Any], *, bins: int = 10) -> float:
    """Population stability index of two samples, less what chance alone would give.

    Zero for equal distributions. With ``p`` and ``q`` the shares of the bins it is the sum of
    ``(p - q) * log(p / q)``; its expectation for two samples of the same distribution is about
    ``(bins - 1) * (1 / n + 1 / m)``, of which the double is taken off.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=2000)
    >>> stability_index(x[:1000], x[1000:]), stability_index(x, x + 1) > 0.25
    (0.0, True)
    """
    cut = Bins(values, bins)
    p, q = (np.bincount(cut(v), minlength=cut.count) + 0.5 for v in (values, other))
    p, q = p / p.sum(), q / q.sum()
    chance = 2 * (cut.count - 1) * (1 / len(values) + 1 / len(other))
    return max(0.0, float(((p - q) * np.log(p / q)).sum()) - chance)
