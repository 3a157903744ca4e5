"""Whether two revisions say the same."""

from __future__ import annotations

import numpy as np

from tidemill.deploy.watch.recent import Batch

TOLERANCE = 0.01
"""Two values agree where they differ by less than this share of the larger."""


def agree(a: Batch, i: int, b: Batch, j: int) -> bool:
    """True where two answers say the same: the same label, or values within one percent.

    Answers of another kind (tensors of a graph that is not ours) agree where all their numbers do.

    Examples
    --------
    >>> one = Batch("a", {}, {"prediction": np.array([100.0])}, ["r"], 0.0)
    >>> other = Batch("b", {}, {"prediction": np.array([100.5])}, ["r"], 0.0)
    >>> agree(one, 0, other, 0)
    True
    """
    if a.labels is not None and b.labels is not None:
        return a.labels[i] == b.labels[j]
    for name in a.outputs.keys() & b.outputs.keys():
        x, y = np.asarray(a.outputs[name][i]), np.asarray(b.outputs[name][j])
        if x.dtype.kind in "fiub" and y.dtype.kind in "fiub" and x.shape == y.shape:
            room = TOLERANCE * np.maximum(np.abs(x), np.abs(y)) + 1e-9
            if not np.all((np.abs(x - y) <= room) | (np.isnan(x) & np.isnan(y))):
                return False
        elif x.tolist() != y.tolist():
            return False
    return True
