"""Two columns made into one: pairs of categories, products and ratios of numbers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import NumpyOps, Ops, Value
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._columns import Index, of_kind
from tidemill.models.tabular.treatment._relevance import relevance, targets

_CANDIDATES = 12
"""Columns among which pairs are sought, the most relevant ones: 66 pairs at most."""
_FIT_ROWS = 10_000
"""Rows on which pairs are compared."""


@dataclass(frozen=True)
class Pairs:
    """Adds the combinations of two categories that say more about the target than both alone.

    A combination is a category of its own: its code falls by frequency, -1 is one that training hasn't seen;
    missing and unseen count as values.

    Parameters
    ----------
    most : int
        Pairs to add.
    largest : int
        Combinations that a pair may have.
    """

    most: int = 8
    largest: int = 1024

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedPairs | None, Matrix]:
        """Choose the pairs."""
        index = of_kind(features, FeatureKind.CATEGORY)
        index = index[[features[i].cardinality > 1 for i in index]]
        rows = _some_rows(len(x), rng)
        t = targets(y[rows], task)
        spots = {int(i): _spot(NumpyOps(), x[:, i]) for i in index}
        single = {i: _explained(spots[i][rows], features[i].cardinality + 2, t) for i in spots}
        best = sorted(spots, key=lambda i: -single[i])[:_CANDIDATES]
        gains: list[tuple[float, int, int]] = []
        for a, b in combinations(sorted(best), 2):
            size = (features[a].cardinality + 2) * (features[b].cardinality + 2)
            if size <= self.largest:
                both = spots[a] * (features[b].cardinality + 2) + spots[b]
                gains.append((_explained(both[rows], size, t) - single[a] - single[b], a, b))
        chosen = [(a, b) for gain, a, b in sorted(gains, key=lambda g: -g[0])[: self.most] if gain > 0]
        if not chosen:
            return None, x
        first = np.array([a for a, _ in chosen], dtype=np.int64)
        second = np.array([b for _, b in chosen], dtype=np.int64)
        tables = [
            _rank(spots[a] * (features[b].cardinality + 2) + spots[b], features[a], features[b]) for a, b in chosen
        ]
        starts = np.cumsum([0, *(len(t) for t in tables[:-1])]).astype(np.int64)
        step = FittedPairs(features, first, second, starts, np.concatenate(tables))
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """As many pairs as may be added, each as large as may be."""
        sizes = sorted((features[i].cardinality for i in of_kind(features, FeatureKind.CATEGORY)), reverse=True)
        n_pairs = min(self.most, len(sizes) * (len(sizes) - 1) // 2)
        size = min(self.largest, (sizes[0] + 2) * (sizes[1] + 2)) if n_pairs else 0
        return (*features, *(Feature(f"pair {k}", "", FeatureKind.CATEGORY, size) for k in range(n_pairs)))


@dataclass(frozen=True)
class FittedPairs(FittedStep):
    """Knows which categories make pairs, and the code of each combination."""

    kind: ClassVar[str] = "pairs"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    first: Index
    second: Index
    starts: Index
    """Where each pair's part of the table begins."""
    table: NDArray[np.float32]

    @property
    def features(self) -> tuple[Feature, ...]:
        """All columns, then the pairs."""
        ends = [*self.starts[1:], len(self.table)]
        new = [
            Feature(
                f"{self.inputs[a].name} and {self.inputs[b].name}",
                self.inputs[a].source,
                FeatureKind.CATEGORY,
                int(self.table[begin:end].max()) + 1,
            )
            for a, b, begin, end in zip(self.first, self.second, self.starts, ends, strict=True)
        ]
        return (*self.inputs, *new)

    @property
    def cost(self) -> Cost:
        """The table; eight operations per pair."""
        return Cost(len(self.table), 8 * len(self.first), 4 * len(self.table) + 32 * len(self.first))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Number the combination, and look its code up."""
        sizes = np.array([self.inputs[b].cardinality + 2 for b in self.second], dtype=np.int64)
        a = _spot(ops, ops.columns(x, self.first))
        b = _spot(ops, ops.columns(x, self.second))
        spot = ops.add(ops.mul(a, ops.const(sizes[None, :], np.int64)), b)
        spot = ops.add(spot, ops.const(self.starts[None, :], np.int64))
        return ops.concat([x, ops.rows(ops.const(self.table, np.float32), spot)])

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"first": self.first, "second": self.second, "starts": self.starts, "table": self.table}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedPairs:
        """Undo `state`."""
        return cls(inputs, state["first"], state["second"], state["starts"], state["table"])


@dataclass(frozen=True)
class Products:
    """Adds products and ratios of two numbers that say more about the target than either.

    Parameters
    ----------
    most : int
        Columns to add.
    """

    most: int = 8

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedProducts | None, Matrix]:
        """Choose the combinations."""
        index = of_kind(features, FeatureKind.NUMBER)
        rows = _some_rows(len(x), rng)
        own = relevance(x[np.ix_(rows, index)], y[rows], task)
        best = np.sort(index[np.argsort(-own, kind="stable")[:_CANDIDATES]])
        score = dict(zip(index.tolist(), own.tolist(), strict=True))
        forms = [(int(a), int(b), 0) for a, b in combinations(best, 2)]
        forms += [(int(a), int(b), 1) for a in best for b in best if a != b]
        if not forms:
            return None, x
        built = FittedProducts(features, *_arrays(forms)).transform(x[rows])[:, len(features) :]
        gain = relevance(built, y[rows], task) - [max(score[a], score[b]) for a, b, _ in forms]
        chosen = [forms[i] for i in np.argsort(-gain, kind="stable")[: self.most] if gain[i] > 1e-3]
        if not chosen:
            return None, x
        step = FittedProducts(features, *_arrays(chosen))
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """As many as may be added."""
        n = len(of_kind(features, FeatureKind.NUMBER))
        most = min(self.most, n * (n - 1) * 3 // 2)
        return (*features, *(Feature(f"product {k}", "", FeatureKind.NUMBER) for k in range(most)))


@dataclass(frozen=True)
class FittedProducts(FittedStep):
    """Knows which numbers to multiply, and which to divide."""

    kind: ClassVar[str] = "products"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    first: Index
    second: Index
    ratio: Index
    """1 where the first is divided by the second, 0 where they are multiplied; all products come first."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """All columns, then the products and ratios."""
        new = [
            Feature(
                f"{self.inputs[a].name} {'/' if r else '×'} {self.inputs[b].name}",
                self.inputs[a].source,
                FeatureKind.NUMBER,
            )
            for a, b, r in zip(self.first, self.second, self.ratio, strict=True)
        ]
        return (*self.inputs, *new)

    @property
    def cost(self) -> Cost:
        """Three operations each."""
        return Cost(0, 3 * len(self.first), 24 * len(self.first))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Multiply and divide; what isn't finite is missing."""
        parts = [x]
        for ratio, combine in ((0, ops.mul), (1, ops.div)):
            mine = self.ratio == ratio
            if mine.any():
                v = combine(ops.columns(x, self.first[mine]), ops.columns(x, self.second[mine]))
                parts.append(ops.where(ops.isinf(v), ops.const(np.nan, np.float32), v))
        return ops.concat(parts)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"first": self.first, "second": self.second, "ratio": self.ratio}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedProducts:
        """Undo `state`."""
        return cls(inputs, state["first"], state["second"], state["ratio"])


def _arrays(forms: list[tuple[int, int, int]]) -> tuple[Index, Index, Index]:
    first, second, ratio = np.array(sorted(forms, key=lambda f: f[2]), dtype=np.int64).T
    return first, second, ratio


def _some_rows(n: int, rng: np.random.Generator) -> Index:
    return np.arange(n) if n <= _FIT_ROWS else np.sort(rng.choice(n, _FIT_ROWS, replace=False))


def _spot(ops: Ops, codes: Value) -> Value:
    """0 for missing, 1 for unseen, ``code + 2`` for a code."""
    known = ops.where(ops.isnan(codes), ops.const(-2.0, np.float32), codes)
    return ops.add(ops.cast(known, np.int64), ops.const(2, np.int64))


def _explained(spots: NDArray[np.int64], size: int, t: NDArray[np.float64]) -> float:
    """Sum of squares that group means explain, less what as many random groups would."""
    counts = np.bincount(spots, minlength=size)
    full = counts > 0
    total = 0.0
    for k in range(t.shape[1]):
        sums = np.bincount(spots, weights=t[:, k], minlength=size)
        total += float((sums[full] ** 2 / counts[full]).sum()) - float((t[:, k] ** 2).mean()) * (int(full.sum()) - 1)
    return total


def _rank(spots: NDArray[np.int64], a: Feature, b: Feature) -> NDArray[np.float32]:
    counts = np.bincount(spots, minlength=(a.cardinality + 2) * (b.cardinality + 2))
    table = np.full(len(counts), -1.0, dtype=np.float32)
    order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
    table[order] = np.arange(len(order), dtype=np.float32)
    return table
