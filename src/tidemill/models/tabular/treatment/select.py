"""Fewer columns."""

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
from tidemill.models.tabular.treatment._columns import Index
from tidemill.models.tabular.treatment._relevance import relevance

_FIT_ROWS = 10_000


@dataclass(frozen=True)
class Select:
    """Keeps the columns that say most about the target on their own.

    Parameters
    ----------
    share : float
        Share of the columns to keep, of those that vary.
    most : int or None
        Columns to keep at most.
    kind : FeatureKind or None
        Only columns of this kind may go; None for any.
    """

    share: float = 1.0
    most: int | None = None
    kind: FeatureKind | None = None

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedSelect | None, Matrix]:
        """Rank the columns."""
        open_ = np.array([self.kind in (None, f.kind) for f in features])
        varies = np.array([_varies(x[:, i]) for i in range(x.shape[1])], dtype=bool)
        candidates = np.flatnonzero(open_ & varies)
        wanted = self._wanted(len(candidates))
        if wanted < len(candidates):
            rows = np.arange(len(x)) if len(x) <= _FIT_ROWS else np.sort(rng.choice(len(x), _FIT_ROWS, replace=False))
            score = relevance(x[np.ix_(rows, candidates)], y[rows], task)
            candidates = candidates[np.argsort(-score, kind="stable")[:wanted]]
        kept = np.sort(np.concatenate([np.flatnonzero(~open_), candidates])).astype(np.int64)
        if not len(kept):
            kept = np.zeros(1, dtype=np.int64)  # a model needs a column, if only a constant one
        if len(kept) == len(features):
            return None, x
        step = FittedSelect(features, kept)
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """As many as may be kept, the first ones."""
        closed = [f for f in features if self.kind not in (None, f.kind)]
        opened = [f for f in features if self.kind in (None, f.kind)]
        kept = (*closed, *opened[: self._wanted(len(opened))])
        return kept or features[:1]

    def _wanted(self, n: int) -> int:
        wanted = int(np.ceil(n * self.share))
        return wanted if self.most is None else min(wanted, self.most)


@dataclass(frozen=True)
class FittedSelect(FittedStep):
    """Knows which columns stay."""

    kind: ClassVar[str] = "select"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]
    kept: Index

    @property
    def features(self) -> tuple[Feature, ...]:
        """Those that stay."""
        return tuple(self.inputs[i] for i in self.kept)

    @property
    def cost(self) -> Cost:
        """The list."""
        return Cost(0, 0, 8 * len(self.kept))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Gather."""
        return ops.columns(x, self.kept)

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"kept": self.kept}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedSelect:
        """Undo `state`."""
        return cls(inputs, state["kept"])


def _varies(column: NDArray[np.float32]) -> bool:
    gaps = np.isnan(column)
    if gaps.any():
        return not gaps.all()
    return bool(column.size) and bool((column != column[0]).any())
