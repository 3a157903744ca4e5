"""A pipeline: treatment and family, fitted together on the rows of one fold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import InternalError, TrialError
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models import pool
from tidemill.models.tabular._base import Family, FitBudget, Fitted, Matrix, TableProfile, TabularData
from tidemill.models.tabular.target import TargetScale
from tidemill.models.tabular.treatment import Treatment, widest

_TARGET = "target"


@dataclass(frozen=True)
class FittedPipeline:
    """A model from the encoded matrix to scores in target units.

    Parameters
    ----------
    family : str
        Name of the family.
    treatment : Treatment
        What happens to the matrix before.
    model : Fitted
        The family's model.
    target : TargetScale or None
        What happens to the scores after; None for classification.
    """

    family: str
    treatment: Treatment
    model: Fitted
    target: TargetScale | None = None

    def predict(self, x: Matrix) -> NDArray[np.float32]:
        """Raw scores of encoded rows, shape (n, n_outputs).

        Raises
        ------
        TrialError
            If the model gives something that isn't a finite number.
        """
        scores = self.model.predict(self.treatment.transform(x))
        if self.target is not None:
            scores = self.target.restore_units(scores)
        if not np.isfinite(scores).all():
            raise TrialError(f"The model of the family {self.family!r} gives scores that are not finite.")
        return scores

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the pipeline into a graph; ``x`` is the encoded matrix, the result float32 (N, n_outputs)."""
        scores = self.model.emit(graph, self.treatment.emit(graph, x))
        return scores if self.target is None else self.target.emit(graph, scores)

    @property
    def cost(self) -> Cost:
        """Of treatment, model and target scale together."""
        cost = self.treatment.cost + self.model.cost
        return cost if self.target is None else cost + self.target.cost

    @property
    def best_round(self) -> int | None:
        """Rounds, or epochs, that the model kept; None for families that don't train in rounds."""
        return getattr(self.model, "rounds", None)

    def checkpoint(self) -> dict[str, Any]:
        """Plain values and arrays for `tidemill.core.pack`."""
        return {
            "family": self.family,
            "treatment": self.treatment.checkpoint(),
            "model": self.model.checkpoint(),
            "target": None if self.target is None else self.target.checkpoint(),
        }


def fit(
    config: Config,
    task: Task,
    data: TabularData,
    train_rows: NDArray[Any],
    valid_rows: NDArray[Any] | None,
    budget: FitBudget,
    seed: int,
    *,
    family: Family | None = None,
) -> FittedPipeline:
    """Train one pipeline.

    Parameters
    ----------
    config : dict
        A point of `tidemill.models.pool.space`.
    task : Task
        The problem.
    data : TabularData
        Encoded rows with targets.
    train_rows : ndarray
        Index or mask of the rows to learn from.
    valid_rows : ndarray or None
        Index or mask of the rows to stop early on.
    budget : FitBudget
        Deadline and threads; the learning curve is written into it.
    seed : int
        Seed of everything that uses chance.
    family : Family or None
        The family's object where it isn't in the pool.

    Raises
    ------
    TrialError
        For what the data make impossible.
    """
    if data.y is None:
        raise InternalError("A pipeline is fitted on rows with targets.")
    family = family or _family(config)
    choices = treatment_choices(config, family.name)
    curve = str(choices.pop(_TARGET, "raw"))
    train, valid = data.take(train_rows), None if valid_rows is None else data.take(valid_rows)
    if not len(train.x):
        raise TrialError("There are no rows to learn from.")
    scale = None
    if not task.kind.is_classification:
        scale = TargetScale.fit(_targets(train), curve)
        train = replace(train, y=scale.scale(_targets(train)))
        valid = None if valid is None else replace(valid, y=scale.scale(_targets(valid)))
    treatment, train = Treatment.fit(choices, train, task, seed)
    if valid is not None:
        valid = replace(valid, x=treatment.transform(valid.x), features=treatment.features)
    model = family.fit(config, task, train, valid, budget, seed)
    return FittedPipeline(family.name, treatment, model, scale)


def restore(state: Mapping[str, Any], task: Task, *, family: Family | None = None) -> FittedPipeline:
    """Undo `FittedPipeline.checkpoint`."""
    name = state["family"]
    family = family or pool.families([name])[name]
    return FittedPipeline(
        name,
        Treatment.restore(state["treatment"]),
        family.restore(state["model"], task),
        None if state["target"] is None else TargetScale.restore(state["target"]),
    )


def treatment_choices(config: Config, family: str) -> dict[str, Any]:
    """Values of the treatment parameters that a config gives its family, by short name."""
    prefix = f"{family}.treatment."
    return {k.removeprefix(prefix): v for k, v in config.items() if k.startswith(prefix)}


def treated_profile(config: Config, task: Task, profile: TableProfile) -> TableProfile:
    """Give the largest table that a family can see under a config, for bounds on cost before training."""
    choices = treatment_choices(config, str(config["family"]))
    choices.pop(_TARGET, None)
    return TableProfile(profile.rows, widest(choices, profile.features, task))


def _family(config: Config) -> Family:
    name = str(config["family"])
    return pool.families([name])[name]


def _targets(data: TabularData) -> NDArray[np.float64]:
    return np.asarray(data.y, dtype=np.float64)
