"""Counts of words, weighed by how rare the words are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.ops import Ops, Value
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._columns import Index, beside, of_kind, others, pick


@dataclass(frozen=True)
class TfIdf:
    """Multiplies word counts by the words' rarity, and brings each text to length 1.

    Rarity is ``log((1 + n) / (1 + df)) + 1``, as in scikit-learn. Length is the Euclidean one, over the words of
    one text column; a text without known words stays 0.
    """

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedTfIdf | None, Matrix]:
        """Count documents."""
        index = of_kind(features, FeatureKind.COUNT)
        if not len(index):
            return None, x
        found = (x[:, index] > 0).sum(axis=0)
        rarity = np.log((1 + len(x)) / (1 + found)) + 1
        step = FittedTfIdf(features, index, rarity.astype(np.float32))
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """The columns stay, in another order; words are quantities now."""
        return tuple(replace(f, kind=FeatureKind.NUMBER) if f.kind is FeatureKind.COUNT else f for f in features)


@dataclass(frozen=True)
class FittedTfIdf(FittedStep):
    """Knows each word's rarity."""

    kind: ClassVar[str] = "tfidf"
    exact: ClassVar[bool] = False
    tolerance: ClassVar[float] = 2e-6

    inputs: tuple[Feature, ...]
    index: Index
    rarity: NDArray[np.float32]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The other columns, then the words, text by text; their numbers are quantities now."""
        kept = [self.inputs[i] for i in others(len(self.inputs), self.index)]
        words = [self.inputs[i] for part in self._texts() for i in self.index[part]]
        return (*kept, *(Feature(f.name, f.source, FeatureKind.NUMBER) for f in words))

    @property
    def cost(self) -> Cost:
        """A number and four operations per word."""
        n = len(self.index)
        return Cost(n, 4 * n, 12 * n + 8 * len(self.inputs))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Weigh, then divide by the length."""
        n = len(self.inputs)
        parts: list[Value] = []
        for part in self._texts():
            v = ops.mul(pick(ops, x, self.index[part], n), ops.const(self.rarity[None, part], np.float32))
            squares = ops.reshape(ops.sum(ops.mul(v, v), 1), [-1, 1])
            empty = ops.less(squares, ops.const(1e-12, np.float32))
            length = ops.sqrt(ops.where(empty, ops.const(1.0, np.float32), squares))
            parts.append(ops.div(v, length))
        return beside(ops, x, others(n, self.index), n, *parts)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"index": self.index, "rarity": self.rarity}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedTfIdf:
        """Undo `state`."""
        return cls(inputs, state["index"], state["rarity"])

    def _texts(self) -> list[Index]:
        """Positions in ``index`` of the words of each text column."""
        sources = [self.inputs[i].source for i in self.index]
        return [
            np.array([j for j, s in enumerate(sources) if s == name], dtype=np.int64) for name in dict.fromkeys(sources)
        ]
