"""One column per category."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import Ops, Value
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._columns import Index, beside, of_kind, others


@dataclass(frozen=True)
class OneHot:
    """Gives the most frequent categories a 0/1 column each.

    Parameters
    ----------
    limit : int
        Columns per feature; the rarer categories share one further column.
    largest : int or None
        Features with more categories than this are left to a later step; None leaves none.
    min_rows : int
        A category with fewer training rows belongs to the rarer ones.

    Missing values have a column of their own where training has some; a category that training hasn't seen gives
    zeros everywhere.
    """

    limit: int = 64
    largest: int | None = None
    min_rows: int = 2

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedOneHot | None, Matrix]:
        """Learn which categories have a column."""
        index = self._index(features)
        sources: list[int] = []
        codes: list[float] = []
        rare: list[tuple[int, int]] = []
        for i in index:
            column = x[:, i]
            gaps = bool(np.isnan(column).any())
            counts = np.bincount(column[column >= 0].astype(np.int64), minlength=features[i].cardinality)
            # Codes fall by frequency, so that those with a column of their own are the first ones.
            n_own = min(self.limit, int((counts >= self.min_rows).sum()))
            own = range(n_own)
            if counts[n_own:].any():
                rare.append((int(i), n_own))
            elif n_own == 2 and not gaps:
                own = range(1, 2)  # the first column of two would only say "not the second"
            sources += [int(i)] * (len(own) + gaps)
            codes += [float(c) for c in own] + [float("nan")] * gaps
        if not len(index):
            return None, x
        step = FittedOneHot(
            features,
            index,
            np.array(sources, dtype=np.int64),
            np.array(codes, dtype=np.float32),
            np.array([i for i, _ in rare], dtype=np.int64),
            np.array([k for _, k in rare], dtype=np.float32),
        )
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """A column per category, one for the rare ones, one for missing."""
        index = self._index(features)
        kept = [features[i] for i in others(len(features), index)]
        new = [_column(features[i], j) for i in index for j in range(min(features[i].cardinality, self.limit) + 2)]
        return (*kept, *new)

    def _index(self, features: tuple[Feature, ...]) -> Index:
        index = of_kind(features, FeatureKind.CATEGORY)
        if self.largest is None:
            return index
        return np.array([i for i in index if features[i].cardinality <= self.largest], dtype=np.int64)


@dataclass(frozen=True)
class FittedOneHot(FittedStep):
    """Knows each column's feature and code."""

    kind: ClassVar[str] = "onehot"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    index: Index
    """The features that are replaced."""
    sources: Index
    """The feature of each new column."""
    codes: NDArray[np.float32]
    """The code of each new column, NaN for missing."""
    rare: Index
    """The features that have a column for their rarer categories."""
    first_rare: NDArray[np.float32]
    """The code at which those begin."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """The other columns, then one for each category, then those for rare ones."""
        kept = [self.inputs[i] for i in others(len(self.inputs), self.index)]
        own = [
            _column(self.inputs[i], "missing" if np.isnan(c) else int(c))
            for i, c in zip(self.sources, self.codes, strict=True)
        ]
        return (*kept, *own, *(_column(self.inputs[i], "rare") for i in self.rare))

    @property
    def cost(self) -> Cost:
        """Two operations per new column."""
        n = len(self.sources) + len(self.rare)
        return Cost(0, 2 * n, 24 * n + 8 * len(self.inputs))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Compare each code with that of each column."""
        n = len(self.inputs)
        kept = others(n, self.index)
        parts: list[Value] = []
        missing = np.isnan(self.codes)
        if len(self.sources):
            column = ops.columns(x, self.sources)
            if missing.any():
                # NaN equals nothing, so that gaps get a number that no code has.
                column = ops.where(ops.isnan(column), ops.const(-2.0, np.float32), column)
            codes = np.where(missing, np.float32(-2), self.codes)[None, :]
            parts.append(ops.cast(ops.equal(column, ops.const(codes, np.float32)), np.float32))
        if len(self.rare):
            begin = ops.const(self.first_rare[None, :] - np.float32(0.5), np.float32)
            parts.append(ops.cast(ops.less(begin, ops.columns(x, self.rare)), np.float32))
        if not parts and not len(kept):
            # Nothing to tell apart: a constant column keeps the table a table.
            return ops.cast(ops.isnan(ops.columns(x, self.index[:1])), np.float32)
        return beside(ops, x, kept, n, *parts)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "index": self.index,
            "sources": self.sources,
            "codes": self.codes,
            "rare": self.rare,
            "first_rare": self.first_rare,
        }

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedOneHot:
        """Undo `state`."""
        return cls(inputs, state["index"], state["sources"], state["codes"], state["rare"], state["first_rare"])


def _column(feature: Feature, code: object) -> Feature:
    return Feature(f"{feature.name} = {code}", feature.source, FeatureKind.NUMBER)
