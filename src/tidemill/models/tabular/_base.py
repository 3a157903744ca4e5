"""The contract of a tabular family, and the table that it sees.

A table goes through two stages. The **encoder** (once per dataset version, blind to the target) turns raw columns
into one float32 matrix: numbers, category codes, calendar parts, token counts. The **treatment** (once per fold, may
look at the target) turns that matrix into what the family eats: imputed, one-hot, target-encoded, scaled, crossed,
selected. Both are made of steps that can be run with numpy and written to ONNX, and a conformance suite holds the
two against each other bit by bit; so a model is trained on exactly the numbers that the shipped graph will compute.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost

Matrix = NDArray[np.float32]


class FeatureKind(str, Enum):
    """How the numbers in a column of the encoded matrix are to be read."""

    NUMBER = "number"
    """A quantity; NaN is missing."""
    CATEGORY = "category"
    """A code ``0..cardinality-1`` by falling frequency; NaN is missing, -1 is a value not seen in training."""
    COUNT = "count"
    """How often a token stands in a text; never missing."""


@dataclass(frozen=True)
class Feature:
    """One column of an encoded or treated matrix.

    Parameters
    ----------
    name : str
        Readable name, ``"dteday: weekday"`` for parts.
    source : str
        The raw column it comes from.
    kind : FeatureKind
        How to read it.
    cardinality : int
        Number of codes of a category, else 0.
    """

    name: str
    source: str
    kind: FeatureKind
    cardinality: int = 0


@dataclass(frozen=True)
class TableProfile:
    """What a family may know of a table before it is trained: sizes only.

    Parameters
    ----------
    rows : int
        Training rows.
    features : tuple of Feature
        Columns of the encoded matrix.
    """

    rows: int
    features: tuple[Feature, ...]

    def count(self, kind: FeatureKind) -> int:
        """Number of features of one kind."""
        return sum(f.kind is kind for f in self.features)


@dataclass(frozen=True)
class TabularData:
    """Rows for training or prediction.

    Parameters
    ----------
    x : ndarray of float32, shape (n, n_features)
        Encoded (before treatment) or treated (at a family's door) matrix.
    features : tuple of Feature
        One for each column of ``x``.
    y : ndarray or None
        int64 class codes, or float64 targets; shape (n,).
    weight : ndarray of float64 or None
        Row weights with mean 1, shape (n,).
    """

    x: Matrix
    features: tuple[Feature, ...]
    y: NDArray[Any] | None = None
    weight: NDArray[np.float64] | None = None

    def take(self, rows: NDArray[Any]) -> TabularData:
        """Return some rows, by index or mask."""
        return TabularData(
            self.x[rows],
            self.features,
            None if self.y is None else self.y[rows],
            None if self.weight is None else self.weight[rows],
        )


@dataclass
class FitBudget:
    """What one fit may spend.

    Parameters
    ----------
    deadline : float
        `time.monotonic` value at which the fit must have returned; ``inf`` for none. A family that trains in
        rounds looks at it between rounds and stops with what it has; one that can't stop estimates first.
    threads : int
        Threads it may use.
    """

    deadline: float = float("inf")
    threads: int = 1
    curve: list[tuple[int, float]] = field(default_factory=list)
    """The family appends ``(step, validation loss)`` here as it trains, at most some hundred points."""

    def left_s(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.deadline - time.monotonic())


class Fitted(Protocol):
    """A trained model of a family, or a fitted step's model part."""

    @property
    def cost(self) -> Cost:
        """Parameters, FLOPs per row, and estimated bytes in the graph."""

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Raw scores of shape (n, n_outputs): probabilities that sum to 1, or the value in target units.

        Computed by the training library itself, never by the exported graph: this is the reference that the
        graph is held against.
        """

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the model into ``graph``.

        ``x`` names a float32 (n, n_features) value, the result a float32 (n, n_outputs) value with the same meaning
        as `predict`, within 1e-6.
        """

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays for `tidemill.core.pack`; no pickle."""


class Family(Protocol):
    """One kind of model in the pool."""

    name: ClassVar[str]
    """Short lower-case name, the value of the config's ``family`` and the prefix of its parameters."""
    bagged: ClassVar[bool]
    """True: a candidate averages the fold models. False: one model fitted on all rows (folds only give
    out-of-fold predictions), for models whose size grows with the rows."""

    def supports(self, task: Task, profile: TableProfile) -> bool:
        """True where the family can be trained in reasonable time on such a task."""

    def space(self, task: Task, profile: TableProfile) -> Space:
        """The family's own hyper-parameters, names prefixed ``"<family>."``.

        Without a condition on ``family``, which the pool adds, and without the treatment.
        """

    def treatment(self, task: Task, profile: TableProfile) -> Mapping[str, tuple[Any, ...]]:
        """Choices of treatment parameters that make sense for the family, by parameter name, first = default."""

    def cost(self, config: Config, task: Task, profile: TableProfile) -> Cost:
        """Upper bound of the cost of one model, before training, where it is computable; else fields are None."""

    def fit(
        self,
        config: Config,
        task: Task,
        train: TabularData,
        valid: TabularData | None,
        budget: FitBudget,
        seed: int,
    ) -> Fitted:
        """Train on treated rows; early-stop on ``valid`` where given.

        Called from a worker's process. Same seed and threads, same model. Raise `TrialError` for what the data make
        impossible.
        """

    def restore(self, state: dict[str, Any], task: Task) -> Fitted:
        """Undo `Fitted.checkpoint`."""
