"""What trained boosting models have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Matrix
from tidemill.models.tabular.families import _links
from tidemill.models.tabular.trees import TreeTable, emit_trees


class FittedBoosting(ABC):
    """A trained boosting model.

    Parameters
    ----------
    model : str or bytes
        The model in the library's own form.
    task : Task
        What it was trained for.
    rounds : int
        Rounds that were kept.
    """

    def __init__(self, model: str | bytes, task: Task, rounds: int) -> None:
        self.rounds = rounds
        self._model = model
        self._task = task
        self._table: TreeTable | None = None

    @abstractmethod
    def _native(self, x: Matrix) -> NDArray[Any]:
        """The library's own prediction: the probability of the second class, of each class, or the value."""

    @abstractmethod
    def _read(self) -> TreeTable:
        """The trees before the link."""

    @property
    def table(self) -> TreeTable:
        """The trees; read when first asked for."""
        if self._table is None:
            self._table = self._read()
        return self._table

    @property
    def cost(self) -> Cost:
        """As `TreeTable.cost` counts."""
        return self.table.cost()

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """The library's own prediction, as raw scores."""
        native = np.asarray(self._native(x), dtype=np.float64)
        if self._task.kind is TaskKind.MULTICLASS:
            # XGBoost and LightGBM forget the classes where there are no rows.
            return native.reshape(-1, self._task.n_classes).astype(np.float32)
        value = native.reshape(-1, 1)
        if self._task.kind is TaskKind.BINARY:
            value = np.concatenate([1 - value, value], axis=1)
        return value.astype(np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Trees, then the link."""
        return _links.emit_scores(graph, emit_trees(graph, x, self.table), self._task)

    def checkpoint(self) -> dict[str, Any]:
        """The model and its rounds."""
        return {"model": self._model, "rounds": self.rounds}
