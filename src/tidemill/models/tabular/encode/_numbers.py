"""Numbers, integers and booleans: float64 to float32, infinities to missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.schema import Columns
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import GraphOps, NumpyOps, Ops, Value


@dataclass(frozen=True)
class NumberBlock:
    """The columns that are numbers already."""

    names: tuple[str, ...]

    @classmethod
    def fit(cls, names: tuple[str, ...], columns: Columns) -> NumberBlock:
        """Nothing is learned."""
        return cls(names)

    @property
    def features(self) -> tuple[Feature, ...]:
        """One per column."""
        return tuple(Feature(n, n, FeatureKind.NUMBER) for n in self.names)

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows with numpy."""
        x: Matrix = _narrow(NumpyOps(), stack(columns, self.names))
        return x

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the same into a graph."""
        out: str = _narrow(GraphOps(graph), graph.concat(*(inputs[n] for n in self.names)))
        return out

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that rebuild the block."""
        return {"names": list(self.names)}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> NumberBlock:
        """Undo `checkpoint`."""
        return cls(tuple(state["names"]))


def stack(columns: Columns, names: tuple[str, ...]) -> Any:
    """Put float64 columns side by side."""
    out = np.empty((len(columns[names[0]]), len(names)), dtype=np.float64)
    for i, name in enumerate(names):
        out[:, i] = columns[name]
    return out


def _narrow(ops: Ops, x: Value) -> Value:
    x = ops.cast(x, np.float32)
    return ops.where(ops.isinf(x), ops.const(np.nan, np.float32), x)
