"""Helpers for steps that treat some columns and hand on the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tidemill.models.tabular._base import Feature, FeatureKind
from tidemill.models.tabular.ops import Ops, Value

Index = NDArray[np.int64]


def of_kind(features: Sequence[Feature], *kinds: FeatureKind) -> Index:
    """Positions of the features of some kinds."""
    return np.array([i for i, f in enumerate(features) if f.kind in kinds], dtype=np.int64)


def others(n: int, used: Index) -> Index:
    """Positions that are not in ``used``."""
    return np.setdiff1d(np.arange(n, dtype=np.int64), used)


def pick(ops: Ops, x: Value, index: Index, n: int) -> Value:
    """Pick columns of a value that has ``n``; all of them in order cost nothing."""
    return x if len(index) == n and bool(np.all(index == np.arange(n))) else ops.columns(x, index)


def beside(ops: Ops, x: Value, kept: Index, n: int, *treated: Value) -> Value:
    """Put treated columns behind those that are kept as they are."""
    parts = ([pick(ops, x, kept, n)] if len(kept) else []) + list(treated)
    return ops.concat(parts)
