"""One arithmetic with two engines: numpy runs it at once, a graph writes it down.

The encoder and every treatment step state what they compute once, against `Ops`. Training runs it with `NumpyOps`,
the shipped graph gets it from `GraphOps`, so that both do the same operations in the same order. Every method maps to
one numpy function and one ONNX operator that agree to the last bit on float32, float64 and int64, except those listed
under "rounded": there both are correct, but libraries may differ in the last place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder

Value = Any
"""An array for `NumpyOps`, the name of a value for `GraphOps`."""


class Ops(Protocol):
    """What a step may compute with. Operands of one call have one dtype."""

    def const(self, value: Any, dtype: Any) -> Value:
        """Bring in an array."""

    def cast(self, a: Value, dtype: Any) -> Value:
        """Convert the element type; to an integer it truncates, and needs finite values in range."""

    def add(self, a: Value, b: Value) -> Value:
        """``a + b``."""

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""

    def mul(self, a: Value, b: Value) -> Value:
        """``a * b``."""

    def div(self, a: Value, b: Value) -> Value:
        """``a / b``; integers must not be negative."""

    def floor(self, a: Value) -> Value:
        """Largest integer not above, as a float."""

    def less(self, a: Value, b: Value) -> Value:
        """``a < b``; False where one is NaN."""

    def equal(self, a: Value, b: Value) -> Value:
        """``a == b``; False where one is NaN."""

    def any_of(self, a: Value, b: Value) -> Value:
        """``a or b`` of booleans."""

    def all_of(self, a: Value, b: Value) -> Value:
        """``a and b`` of booleans."""

    def isnan(self, a: Value) -> Value:
        """True where a value is missing."""

    def isinf(self, a: Value) -> Value:
        """True where a value is infinite, with either sign."""

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        """``a`` where the condition holds, else ``b``; not for booleans, which onnxruntime can't choose."""

    def columns(self, a: Value, index: Sequence[int] | NDArray[np.int64]) -> Value:
        """Pick columns by position."""

    def rows(self, table: Value, index: Value) -> Value:
        """Pick entries of a table along its first axis; the result has shape ``index.shape + table.shape[1:]``."""

    def concat(self, parts: Sequence[Value]) -> Value:
        """Join columns side by side."""

    def reshape(self, a: Value, shape: Sequence[int]) -> Value:
        """Change the shape; 0 keeps that axis, -1 is what remains."""

    def clip(self, a: Value, low: Any, high: Any) -> Value:
        """Bound by constants of the dtype of ``a``; NaN must not occur."""

    # Rounded: the two engines agree within some units in the last place.

    def sum(self, a: Value, axis: int) -> Value:
        """Sum over one axis, which goes."""

    def sqrt(self, a: Value) -> Value:
        """Square root."""

    def exp(self, a: Value) -> Value:
        """Exponential."""

    def log(self, a: Value) -> Value:
        """Natural logarithm."""

    def tanh(self, a: Value) -> Value:
        """Hyperbolic tangent."""

    def matmul(self, a: Value, b: Value) -> Value:
        """Matrix product."""


class NumpyOps:
    """Computes at once."""

    def const(self, value: Any, dtype: Any) -> Value:
        """Bring in an array."""
        return np.asarray(value, dtype=dtype)

    def cast(self, a: Value, dtype: Any) -> Value:
        """Convert the element type."""
        with np.errstate(over="ignore", invalid="ignore"):
            return a.astype(dtype)

    def add(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return a + b

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return a - b

    def mul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        with np.errstate(over="ignore", invalid="ignore"):
            return a * b

    def div(self, a: Value, b: Value) -> Value:
        """``a / b``."""
        with np.errstate(all="ignore"):
            return a // b if a.dtype.kind in "iu" else a / b

    def floor(self, a: Value) -> Value:
        """Largest integer not above."""
        return np.floor(a)

    def less(self, a: Value, b: Value) -> Value:
        """``a < b``."""
        return a < b

    def equal(self, a: Value, b: Value) -> Value:
        """``a == b``."""
        return a == b

    def any_of(self, a: Value, b: Value) -> Value:
        """``a or b``."""
        return a | b

    def all_of(self, a: Value, b: Value) -> Value:
        """``a and b``."""
        return a & b

    def isnan(self, a: Value) -> Value:
        """True where missing."""
        return np.isnan(a)

    def isinf(self, a: Value) -> Value:
        """True where infinite."""
        return np.isinf(a)

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        """Choose."""
        return np.where(condition, a, b)

    def columns(self, a: Value, index: Sequence[int] | NDArray[np.int64]) -> Value:
        """Pick columns."""
        return np.take(a, np.asarray(index, dtype=np.int64), axis=1)

    def rows(self, table: Value, index: Value) -> Value:
        """Pick entries of a table."""
        return np.take(table, index, axis=0)

    def concat(self, parts: Sequence[Value]) -> Value:
        """Join columns."""
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def reshape(self, a: Value, shape: Sequence[int]) -> Value:
        """Change the shape."""
        target = [a.shape[i] if s == 0 else s for i, s in enumerate(shape)]
        if -1 in target and a.size == 0:  # what remains can't be told from no elements
            target[target.index(-1)] = 0 if 0 in target else -1
        return a.reshape(target)

    def clip(self, a: Value, low: Any, high: Any) -> Value:
        """Bound."""
        return np.clip(a, a.dtype.type(low), a.dtype.type(high))

    def sum(self, a: Value, axis: int) -> Value:
        """Sum over an axis."""
        return a.sum(axis=axis, dtype=a.dtype)

    def sqrt(self, a: Value) -> Value:
        """Square root."""
        return np.sqrt(a)

    def exp(self, a: Value) -> Value:
        """Exponential."""
        with np.errstate(over="ignore"):
            return np.exp(a)

    def log(self, a: Value) -> Value:
        """Natural logarithm."""
        return np.log(a)

    def tanh(self, a: Value) -> Value:
        """Hyperbolic tangent."""
        return np.tanh(a)

    def matmul(self, a: Value, b: Value) -> Value:
        """Matrix product."""
        return a @ b


class GraphOps:
    """Writes nodes into a graph.

    Parameters
    ----------
    graph : GraphBuilder
        Where the nodes go.
    """

    def __init__(self, graph: GraphBuilder) -> None:
        self.graph = graph

    def const(self, value: Any, dtype: Any) -> Value:
        """Bring in an array."""
        return self.graph.const(value, dtype)

    def cast(self, a: Value, dtype: Any) -> Value:
        """Convert the element type."""
        return self.graph.cast(a, dtype)

    def add(self, a: Value, b: Value) -> Value:
        """``a + b``."""
        return self.graph.op("Add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """``a - b``."""
        return self.graph.op("Sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """``a * b``."""
        return self.graph.op("Mul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """``a / b``."""
        return self.graph.op("Div", a, b)

    def floor(self, a: Value) -> Value:
        """Largest integer not above."""
        return self.graph.op("Floor", a)

    def less(self, a: Value, b: Value) -> Value:
        """``a < b``."""
        return self.graph.op("Less", a, b)

    def equal(self, a: Value, b: Value) -> Value:
        """``a == b``."""
        return self.graph.op("Equal", a, b)

    def any_of(self, a: Value, b: Value) -> Value:
        """``a or b``."""
        return self.graph.op("Or", a, b)

    def all_of(self, a: Value, b: Value) -> Value:
        """``a and b``."""
        return self.graph.op("And", a, b)

    def isnan(self, a: Value) -> Value:
        """True where missing."""
        return self.graph.op("IsNaN", a)

    def isinf(self, a: Value) -> Value:
        """True where infinite."""
        return self.graph.op("IsInf", a)

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        """Choose."""
        return self.graph.op("Where", condition, a, b)

    def columns(self, a: Value, index: Sequence[int] | NDArray[np.int64]) -> Value:
        """Pick columns."""
        return self.graph.columns(a, index)

    def rows(self, table: Value, index: Value) -> Value:
        """Pick entries of a table."""
        return self.graph.op("Gather", table, index, axis=0)

    def concat(self, parts: Sequence[Value]) -> Value:
        """Join columns."""
        return self.graph.concat(*parts, axis=1)

    def reshape(self, a: Value, shape: Sequence[int]) -> Value:
        """Change the shape."""
        return self.graph.op("Reshape", a, self.graph.const(list(shape), np.int64))

    def clip(self, a: Value, low: Any, high: Any) -> Value:
        """Bound."""
        kind = np.asarray(low).dtype if isinstance(low, np.generic) else np.float32
        return self.graph.op("Clip", a, self.graph.const(low, kind), self.graph.const(high, kind))

    def sum(self, a: Value, axis: int) -> Value:
        """Sum over an axis."""
        return self.graph.op("ReduceSum", a, self.graph.const([axis], np.int64), keepdims=0)

    def sqrt(self, a: Value) -> Value:
        """Square root."""
        return self.graph.op("Sqrt", a)

    def exp(self, a: Value) -> Value:
        """Exponential."""
        return self.graph.op("Exp", a)

    def log(self, a: Value) -> Value:
        """Natural logarithm."""
        return self.graph.op("Log", a)

    def tanh(self, a: Value) -> Value:
        """Hyperbolic tangent."""
        return self.graph.op("Tanh", a)

    def matmul(self, a: Value, b: Value) -> Value:
        """Matrix product."""
        return self.graph.op("MatMul", a, b)
