"""A treatment: fitted steps, one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import InternalError
from tidemill.core.task import Task
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix, TabularData
from tidemill.models.tabular.treatment._base import FittedStep
from tidemill.models.tabular.treatment._registry import FITTED, steps_of


@dataclass(frozen=True)
class Treatment:
    """What stands between the encoded matrix and a family.

    Parameters
    ----------
    inputs : tuple of Feature
        Columns of the encoded matrix.
    steps : tuple of FittedStep
        In the order in which they run; none for a family that takes the matrix as it is.
    """

    inputs: tuple[Feature, ...]
    steps: tuple[FittedStep, ...]

    @classmethod
    def fit(cls, choices: Mapping[str, Any], data: TabularData, task: Task, seed: int) -> tuple[Treatment, TabularData]:
        """Learn the steps that ``choices`` stand for, from training rows.

        Parameters
        ----------
        choices : mapping
            Value of each treatment parameter; those left out have their defaults.
        data : TabularData
            Encoded training rows with targets.
        task : Task
            The problem.
        seed : int
            Seed of the steps that use chance.

        Returns
        -------
        treatment : Treatment
            To treat other rows with.
        data : TabularData
            The training rows as the family must see them: target encodings are out-of-fold here.
        """
        if data.y is None:
            raise InternalError("A treatment is fitted on rows with targets.")
        x, features, fitted = data.x, data.features, []
        for number, step in enumerate(steps_of(choices)):
            learned, x = step.fit(x, features, data.y, task, np.random.default_rng([seed, number]))
            if learned is not None:
                fitted.append(learned)
                features = learned.features
        return cls(data.features, tuple(fitted)), TabularData(x, features, data.y, data.weight)

    @property
    def features(self) -> tuple[Feature, ...]:
        """What the columns of the treated matrix are."""
        return self.steps[-1].features if self.steps else self.inputs

    @property
    def exact(self) -> bool:
        """True where numpy and the graph agree bit by bit."""
        return all(s.exact for s in self.steps)

    @property
    def cost(self) -> Cost:
        """Sum over the steps."""
        return sum((s.cost for s in self.steps), Cost(0, 0, 0, 0.0))

    def transform(self, x: Matrix) -> Matrix:
        """Treat encoded rows."""
        for step in self.steps:
            x = step.transform(x)
        return x

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the steps into a graph."""
        for step in self.steps:
            x = step.emit(graph, x)
        return x

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that `restore` understands."""
        return {
            "inputs": [[f.name, f.source, f.kind.value, f.cardinality] for f in self.inputs],
            "steps": [{"kind": s.kind, "state": s.state()} for s in self.steps],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Treatment:
        """Undo `checkpoint`."""
        inputs = tuple(Feature(n, s, FeatureKind(k), c) for n, s, k, c in state["inputs"])
        features, steps = inputs, []
        for item in state["steps"]:
            step = FITTED[item["kind"]].restore(features, item["state"])
            features = step.features
            steps.append(step)
        return cls(inputs, tuple(steps))


def widest(choices: Mapping[str, Any], features: tuple[Feature, ...], task: Task) -> tuple[Feature, ...]:
    """Largest set of columns that a treatment may give; for bounds on cost before training."""
    for step in steps_of(choices):
        features = step.width(features, task)
    return features
