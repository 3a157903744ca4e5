"""The rows that a search learns from, encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.parts import EncoderPart
from tidemill.core.budget import Budget
from tidemill.core.metrics import get_metric
from tidemill.core.objective import Objective
from tidemill.core.schema import Columns, Schema
from tidemill.core.space import Space
from tidemill.core.task import Task
from tidemill.core.trial import FREE, Cost
from tidemill.data.splits import make_folds
from tidemill.models import pool
from tidemill.models.tabular._base import Feature, TableProfile
from tidemill.search import board
from tidemill.search.evaluate import CALL, Assignment
from tidemill.search.forecast import Forecast
from tidemill.search.gate import Gate
from tidemill.search.ledger import Truth
from tidemill.search.modality import FUSED, TABLE
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.portfolio import PortfolioSampler, load
from tidemill.search.samplers.tpe import TPESampler
from tidemill.search.settings import SearchSettings
from tidemill.search.splits import Splits, from_pairs, passes


class TableEncoder(EncoderPart, Protocol):
    """From raw columns to a matrix of features: a `tidemill.models.tabular.encode.Encoder`, or one of its kind."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """What the columns of the matrix are."""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values."""


@dataclass(frozen=True)
class SearchTable:
    """Encoded training rows, the truth about them, and the locked test slice where there is one.

    Parameters
    ----------
    encoder : TableEncoder
        Fitted on the training rows.
    schema : Schema
        The columns.
    x, y, rows : ndarray
        Encoded matrix (n, n_features), class codes or targets (n,), and row ids (n,).
    columns : Columns
        Raw columns of the same rows, for slices.
    groups, time : ndarray or None
        Group of each row, and a number that orders the rows; folds respect them.
    weight : ndarray or None
        Row weights with mean 1.
    x_test, y_test, rows_test, columns_test
        The same of the locked test slice. Models predict it, nothing looks at its truth before a report.
    shared : Cost
        What every model costs beside its own: encoders of columns.
    """

    modality: ClassVar[str] = TABLE
    call: ClassVar[str] = CALL

    encoder: TableEncoder
    schema: Schema
    x: NDArray[np.float32]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    columns: Columns
    groups: NDArray[Any] | None = None
    time: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    x_test: NDArray[np.float32] | None = None
    y_test: NDArray[Any] | None = None
    rows_test: NDArray[np.int64] | None = None
    columns_test: Columns | None = None
    shared: Cost = FREE

    @property
    def profile(self) -> TableProfile:
        """What families may know beforehand."""
        return TableProfile(rows=len(self.x), features=self.encoder.features)

    def __len__(self) -> int:
        return len(self.x)

    def settled(self, settings: SearchSettings) -> SearchSettings:
        """Choose folds and repeats by the number of rows."""
        return settings.resolved(len(self.x))

    def splits(self, task: Task, settings: SearchSettings) -> Splits:
        """Deal the folds; groups and time are respected."""
        folds = make_folds(
            task, self.y, k=settings.folds, repeats=settings.repeats, seed=settings.seed, groups=self.groups,
            time=self.time,
        )  # fmt: skip
        return from_pairs(folds, len(self.y))

    def space(self, task: Task, settings: SearchSettings) -> Space:
        """Join the spaces of the families that support the task."""
        return pool.space(task, self.profile, settings.families or None)

    def sampler(self, task: Task, objective: Objective, settings: SearchSettings, budget: Budget) -> ChainSampler:
        """Baselines, then the portfolio, then a model of what is known."""
        return make_sampler(task, objective, settings, budget)

    def gate(self, task: Task, objective: Objective, settings: SearchSettings) -> Gate:
        """Hold configs against the bounds on costs."""
        return Gate(objective, pool.families(settings.families or None), task, self.profile, self.shared)

    def foresight(self, splits: Splits) -> Forecast:
        """Learn the speed of families."""
        return Forecast(len(self.x), self.x.shape[1], passes(splits))

    def encoder_state(self) -> dict[str, Any]:
        """State of the encoder."""
        return self.encoder.checkpoint()

    def truth(self, splits: Splits) -> Truth:
        """What the ledger keeps of it."""
        return Truth(
            y=self.y,
            rows=self.rows,
            splits=splits,
            columns=self.columns,
            weight=self.weight,
            y_test=self.y_test,
            rows_test=self.rows_test,
            columns_test=self.columns_test,
        )

    @contextmanager
    def assigned(self, folder: Path, task: Task, objective: Objective, splits: Splits) -> Iterator[Assignment]:
        """Write the arrays into files in ``folder`` for the workers; it is gone afterwards.

        What a search that was killed left there is removed first.
        """
        rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            arrays: dict[str, Any] = {"x": self.x, "y": self.y, "splits": splits}
            if self.weight is not None:
                arrays["weight"] = self.weight
            if self.x_test is not None:
                arrays["x_test"] = self.x_test
            files = {}
            for name, array in arrays.items():
                files[name] = str(folder / f"{name}.npy")
                np.save(files[name], array)
            matrix = objective.cost_matrix
            yield Assignment(
                task=task.to_json(),
                files=files,
                features=[(f.name, f.source, f.kind.value, f.cardinality) for f in self.encoder.features],
                metric=objective.metric,
                label=objective.label,
                cost_matrix=None if matrix is None else matrix.values,
            )
        finally:
            rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class FusedTable(SearchTable):
    """The same of a table with embedded columns; the encoder is a `tidemill.models.fusion.encoder.FusedEncoder`."""

    modality: ClassVar[str] = FUSED


def make_sampler(task: Task, objective: Objective, settings: SearchSettings, budget: Budget) -> ChainSampler:
    """Baselines, then the portfolio, then a model of what is known."""
    metric = get_metric(objective.metric)
    unlimited = budget.time_s is None and budget.trials is None
    then = None if unlimited else TPESampler(settings.seed, lambda trials: board.losses(trials, metric))
    return ChainSampler([BaselineSampler(), PortfolioSampler(load(task.kind))], then)
