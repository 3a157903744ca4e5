"""Holds predictions against an objective: value, loss, decision, and how the constraints come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.decision import Decision, fit_decision, undecided
from tidemill.core.metrics import get_metric
from tidemill.core.objective import ConstraintResult, Objective, evaluate_constraints, total_gap
from tidemill.core.schema import Columns
from tidemill.core.task import Task
from tidemill.core.trial import Cost

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """How predictions do under an objective.

    Parameters
    ----------
    value : float
        The metric, as it is printed.
    loss : float
        The metric turned so that smaller is better.
    constraints : tuple of ConstraintResult
        In the objective's order.
    decision : Decision
        How labels were decided.
    """

    value: float
    loss: float
    constraints: tuple[ConstraintResult, ...]
    decision: Decision

    @property
    def gap(self) -> float:
        """How far the constraints are from being kept; 0 where they are."""
        return total_gap(self.constraints)

    @property
    def key(self) -> tuple[float, float]:
        """Sort key: what keeps the constraints first, then the smallest loss."""
        return (self.gap, self.loss)


@dataclass(frozen=True)
class Judge:
    """Knows the truth about some rows.

    Parameters
    ----------
    objective : Objective
        Resolved for ``task``.
    task : Task
        The problem.
    y, columns, weight
        Targets, raw columns and weights of the rows.
    seed : int
        Seed of cross-fitted choices.
    """

    objective: Objective
    task: Task
    y: NDArray[Any]
    columns: Columns
    weight: Floats | None = None
    seed: int = 0

    @property
    def needs_decision(self) -> bool:
        """True where labels matter to the objective."""
        if not self.task.kind.has_labels:
            return False
        return get_metric(self.objective.metric).needs == "labels" or bool(self.objective.metric_constraints)

    def decide(self, scores: Floats) -> Decision:
        """Fit how labels are decided."""
        if not self.task.kind.has_labels:
            return Decision()
        return fit_decision(
            self.objective, self.task, self.y, scores, columns=self.columns, weight=self.weight, seed=self.seed
        )

    def judge(self, scores: Floats, cost: Cost, decision: Decision | None = None) -> Verdict:
        """Measure scores; without a decision one is fitted where labels matter."""
        if decision is None:
            decision = self.decide(scores) if self.needs_decision else undecided(self.task)
        codes = decision.apply(scores) if self.needs_decision else None
        value = self.objective.measure(self.task, self.y, scores, codes, self.weight)
        results = evaluate_constraints(
            self.objective, self.task, self.y, scores, codes, self.columns, cost, weight=self.weight
        )
        return Verdict(value, get_metric(self.objective.metric).loss(value), tuple(results), decision)
