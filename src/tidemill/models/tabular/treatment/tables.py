"""Categories looked up in a table: mean target, frequency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import NumpyOps, Ops, Value
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._columns import Index, beside, of_kind, others, pick
from tidemill.models.tabular.treatment._relevance import target_classes, targets

_SHIFT = 2
"""Row 0 of a feature's part of the table is for missing, row 1 for unseen, row ``code + 2`` for a code."""


@dataclass(frozen=True)
class TargetMean:
    """Replaces a category by the mean target of its rows, drawn to the overall mean where rows are few.

    The encoding of a training row is learned from the other inner folds only, so that no row sees its own target;
    new rows get the encoding learned from all training rows. Means are given in standard deviations of the target
    from the overall mean; a category that training hasn't seen gives 0.

    Parameters
    ----------
    smoothing : float
        Rows that the overall mean counts as (the m of the m-estimate; Micci-Barreca 2001).
    keep : bool
        Whether the codes stay beside the means.
    folds : int
        Inner folds.
    """

    smoothing: float = 10.0
    keep: bool = False
    folds: int = 5

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedTable | None, Matrix]:
        """Learn the means."""
        index = of_kind(features, FeatureKind.CATEGORY)
        if not len(index):
            return None, x
        t = targets(y, task)
        spread = np.sqrt((t**2).mean(axis=0))
        t /= np.where(spread > 0, spread, 1.0)
        starts, size = _layout(features, index)
        spots = _spots(NumpyOps(), x, index, starts, len(features))
        fold = rng.permutation(len(x)) % min(self.folds, len(x))
        n_folds = int(fold.max()) + 1
        # Counts and sums per table row and inner fold; what a row may see is the total less its own fold.
        keyed = spots + size * fold[:, None]
        counts = np.bincount(keyed.ravel(), minlength=size * n_folds).reshape(n_folds, size)
        own = np.empty((*spots.shape, t.shape[1]))
        table = np.empty((size, t.shape[1]))
        for k in range(t.shape[1]):
            weights = np.repeat(t[:, k], len(index))
            sums = np.bincount(keyed.ravel(), weights=weights, minlength=size * n_folds).reshape(n_folds, size)
            table[:, k] = sums.sum(axis=0) / (counts.sum(axis=0) + self.smoothing)
            rest = (sums.sum(axis=0) - sums) / (counts.sum(axis=0) - counts + self.smoothing)
            own[:, :, k] = rest[fold[:, None], spots]
        table[starts - 1] = 0.0
        step = FittedTable(features, index, starts, table.astype(np.float32), self._names(y, task), self.keep)
        kept = _kept(len(features), index, self.keep)
        treated = beside(NumpyOps(), x, kept, len(features), own.reshape(len(x), -1).astype(np.float32))
        return step, treated

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """A column per feature and target."""
        index = of_kind(features, FeatureKind.CATEGORY)
        n = 1 if task.n_classes <= 2 else min(task.n_classes, 10)
        return _features(features, index, tuple(f"mean target {k}" for k in range(n)), self.keep)

    def _names(self, y: NDArray[Any], task: Task) -> tuple[str, ...]:
        if task.n_classes <= 2:
            return ("mean target",)
        return tuple(f"share of {task.classes[k]}" for k in target_classes(y, task))


@dataclass(frozen=True)
class Frequency:
    """Puts the logarithm of a category's training rows beside its code; unseen categories count as none."""

    keep: bool = True

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedTable | None, Matrix]:
        """Count."""
        index = of_kind(features, FeatureKind.CATEGORY)
        if not len(index):
            return None, x
        starts, size = _layout(features, index)
        counts = np.bincount(_spots(NumpyOps(), x, index, starts, len(features)).ravel(), minlength=size)
        table = np.log1p(counts)[:, None].astype(np.float32)
        step = FittedTable(features, index, starts, table, ("frequency",), self.keep)
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """One column more per category."""
        return _features(features, of_kind(features, FeatureKind.CATEGORY), ("frequency",), self.keep)


@dataclass(frozen=True)
class FittedTable(FittedStep):
    """Looks every category up in one joint table."""

    kind: ClassVar[str] = "table"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    index: Index
    """The features that are looked up."""
    starts: Index
    """The table's row for code 0 of each."""
    table: NDArray[np.float32]
    """Shape (rows of all features together, columns per feature)."""
    names: tuple[str, ...]
    """What each column of the table is."""
    keep: bool
    """Whether the codes stay."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The other columns (and the codes, if they stay), then the looked-up ones, feature by feature."""
        return _features(self.inputs, self.index, self.names, self.keep)

    @property
    def cost(self) -> Cost:
        """The table's numbers; four operations per feature."""
        return Cost(self.table.size, 4 * len(self.index), 4 * self.table.size + 8 * len(self.inputs))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Gather."""
        n = len(self.inputs)
        spots = _spots(ops, x, self.index, self.starts, n)
        found = ops.rows(ops.const(self.table, np.float32), spots)
        flat = ops.reshape(found, [0, len(self.index) * len(self.names)])
        return beside(ops, x, _kept(n, self.index, self.keep), n, flat)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "index": self.index,
            "starts": self.starts,
            "table": self.table,
            "names": list(self.names),
            "keep": self.keep,
        }

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedTable:
        """Undo `state`."""
        return cls(inputs, state["index"], state["starts"], state["table"], tuple(state["names"]), state["keep"])


def _layout(features: tuple[Feature, ...], index: Index) -> tuple[Index, int]:
    sizes = np.array([features[i].cardinality + _SHIFT for i in index], dtype=np.int64)
    ends = np.cumsum(sizes)
    return ends - sizes + _SHIFT, int(ends[-1])


def _spots(ops: Ops, x: Value, index: Index, starts: Index, n: int) -> Value:
    """Rows of the table, (n, features)."""
    codes = pick(ops, x, index, n)
    codes = ops.where(ops.isnan(codes), ops.const(-2.0, np.float32), codes)
    return ops.add(ops.cast(codes, np.int64), ops.const(starts[None, :], np.int64))


def _kept(n: int, index: Index, keep: bool) -> Index:
    return np.arange(n, dtype=np.int64) if keep else others(n, index)


def _features(features: tuple[Feature, ...], index: Index, names: tuple[str, ...], keep: bool) -> tuple[Feature, ...]:
    kept = [features[i] for i in _kept(len(features), index, keep)]
    new = [Feature(f"{features[i].name}: {n}", features[i].source, FeatureKind.NUMBER) for i in index for n in names]
    return (*kept, *new)
