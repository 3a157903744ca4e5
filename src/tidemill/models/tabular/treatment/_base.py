"""The contract of a treatment step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, Matrix
from tidemill.models.tabular.ops import GraphOps, NumpyOps, Ops, Value


class FittedStep(ABC):
    """A step that has learned what it needs: tables, means, knots.

    A subclass says what it computes once, in `apply`; numpy and the graph both run that.
    """

    kind: ClassVar[str]
    """Unique name in the registry; stands in checkpoints."""
    exact: ClassVar[bool]
    """True: numpy and onnxruntime agree to the last bit, so that the step may stand before trees. False: they
    agree to `tolerance`, which smooth models don't mind."""
    tolerance: ClassVar[float] = 0.0
    """Largest difference between the two, relative to ``max(1, |value|)``; 0 for exact steps."""

    inputs: tuple[Feature, ...]
    """What the columns that it was fitted on are."""

    @property
    @abstractmethod
    def features(self) -> tuple[Feature, ...]:
        """What the columns of the result are."""

    @property
    @abstractmethod
    def cost(self) -> Cost:
        """Learned numbers, arithmetic per row, and bytes in the graph."""

    @abstractmethod
    def apply(self, ops: Ops, x: Value) -> Value:
        """Say the computation: float32 (n, n_in) to float32 (n, n_out)."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Plain values and arrays that rebuild the step."""

    @classmethod
    @abstractmethod
    def restore(cls, inputs: tuple[Feature, ...], state: dict[str, Any]) -> FittedStep:
        """Undo `state`; ``inputs`` are the features that the step was fitted on."""

    def transform(self, x: Matrix) -> Matrix:
        """Treat rows with numpy."""
        out: Matrix = self.apply(NumpyOps(), x)
        return out

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the step into a graph."""
        out: str = self.apply(GraphOps(graph), x)
        return out


class Step(Protocol):
    """A step before it is fitted: its settings, nothing else."""

    def fit(
        self,
        x: Matrix,
        features: tuple[Feature, ...],
        y: NDArray[Any],
        task: Task,
        rng: np.random.Generator,
    ) -> tuple[FittedStep | None, Matrix]:
        """Learn from training rows.

        Called once per fold. None of the arguments but ``rng`` may be changed.

        Parameters
        ----------
        x : ndarray of float32, shape (n, n_in)
            What the step before gave.
        features : tuple of Feature
            What its columns are.
        y : ndarray, shape (n,)
            int64 class codes, or float64 targets.
        task : Task
            The problem.
        rng : Generator
            Source of chance.

        Returns
        -------
        step : FittedStep or None
            None where there is nothing to do for such columns.
        x : ndarray of float32, shape (n, n_out)
            The training rows, treated. Equal to ``step.transform(x)``, except for a step that looks at the target:
            that one must show a row nothing of its own target.
        """

    def width(self, features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
        """Largest set of columns that the fitted step may give, known before training; for bounds on cost."""
