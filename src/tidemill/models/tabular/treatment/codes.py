"""Missing category codes, for models that take codes but no NaN."""

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
from tidemill.models.tabular.treatment._columns import of_kind

MISSING_CODE = -2.0


@dataclass(frozen=True)
class FillCodes:
    """Gives missing categories a code of their own, -2, next to -1 for unseen ones."""

    def fit(
        self, x: Matrix, features: tuple[Feature, ...], y: NDArray[Any], task: Task, rng: np.random.Generator
    ) -> tuple[FittedFillCodes | None, Matrix]:
        """Nothing is learned."""
        if not len(of_kind(features, FeatureKind.CATEGORY)):
            return None, x
        step = FittedFillCodes(features)
        return step, step.transform(x)

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """The columns stay."""
        return features


@dataclass(frozen=True)
class FittedFillCodes(FittedStep):
    """Fills missing codes."""

    kind: ClassVar[str] = "codes"
    exact: ClassVar[bool] = True

    inputs: tuple[Feature, ...]

    @property
    def features(self) -> tuple[Feature, ...]:
        """The columns stay."""
        return self.inputs

    @property
    def cost(self) -> Cost:
        """Two operations per column."""
        return Cost(0, 2 * len(self.inputs), 4 * len(self.inputs))

    def apply(self, ops: Ops, x: Value) -> Value:
        """Choose the code where a category is missing."""
        fill = np.full((1, len(self.inputs)), np.nan, dtype=np.float32)
        fill[0, of_kind(self.inputs, FeatureKind.CATEGORY)] = MISSING_CODE
        return ops.where(ops.isnan(x), ops.const(fill, np.float32), x)

    def state(self) -> dict[str, Any]:
        """Nothing was learned."""
        return {}

    @classmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedFillCodes:
        """Undo `state`."""
        return cls(inputs)
