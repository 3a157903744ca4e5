"""Holds predictions and costs against constraints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import ObjectiveError, nearest_hint
from tidemill.core.objective._types import Constraint, Objective, Selector
from tidemill.core.schema import Columns
from tidemill.core.task import Task
from tidemill.core.trial import Cost

_WORDS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "": np.nan}


@dataclass(frozen=True)
class ConstraintResult:
    """How one constraint came out.

    Parameters
    ----------
    constraint : Constraint
        Which one.
    value : float or None
        What was measured; None where it can't be known: a cost that nobody measured, a slice without rows, a class
        without rows.
    satisfied : bool
        True where the bound is kept; what isn't known is not kept.
    gap : float
        Distance to the bound relative to the bound, 0 where it is kept, ``inf`` where the value isn't known. The sum
        over all constraints tells which of several candidates is nearest.
    """

    constraint: Constraint
    value: float | None
    satisfied: bool
    gap: float

    @classmethod
    def of(cls, constraint: Constraint, value: float | None) -> ConstraintResult:
        """Compare a value with its bound."""
        gap = constraint.gap(value)
        return cls(constraint, value, gap == 0, gap)

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.constraint}: not known"
        return f"{self.constraint}: {self.value:.6g}, {'kept' if self.satisfied else 'broken'}"


def evaluate_costs(objective: Objective, cost: Cost) -> list[ConstraintResult]:
    """Check those bounds on costs whose cost is known; for use before training.

    Examples
    --------
    >>> from tidemill.core.objective import parse_objective
    >>> objective = parse_objective("maximize roc_auc; params <= 100; latency_ms <= 3")
    >>> [str(r) for r in evaluate_costs(objective, Cost(params=150))]
    ['params <= 100: 150, broken']
    """
    known = [(c, getattr(cost, c.subject)) for c in objective.cost_constraints]
    return [ConstraintResult.of(c, float(value)) for c, value in known if value is not None]


def evaluate_constraints(
    objective: Objective,
    task: Task,
    y: NDArray[Any],
    scores: NDArray[np.floating],
    decisions: NDArray[np.int64] | None,
    columns: Columns | None,
    cost: Cost,
    *,
    weight: NDArray[np.float64] | None = None,
) -> list[ConstraintResult]:
    """Check every constraint of an objective.

    Parameters
    ----------
    objective : Objective
        Resolved for ``task``.
    task : Task
        The problem.
    y, scores, decisions, weight
        As for a `tidemill.core.metrics.Metric`.
    columns : Columns or None
        Raw columns of the same rows; needed where a constraint is about a slice.
    cost : Cost
        What the candidate costs.

    Returns
    -------
    list of ConstraintResult
        In the order of the constraints.

    Raises
    ------
    ObjectiveError
        Where a slice names a column that isn't there, or a value that such a column can't have.
    """
    out: list[ConstraintResult] = []
    for c in objective.constraints:
        if c.is_cost:
            known = getattr(cost, c.subject)
            out.append(ConstraintResult.of(c, None if known is None else float(known)))
        else:
            out.append(ConstraintResult.of(c, _measure(c, objective, task, y, scores, decisions, columns, weight)))
    return out


def total_gap(results: Sequence[ConstraintResult]) -> float:
    """Sum of the gaps: 0 where all constraints are kept; the least of several is the nearest."""
    return float(sum(r.gap for r in results))


def slice_mask(selector: Selector, columns: Columns) -> NDArray[np.bool_]:
    """Which rows a slice selects.

    Text is compared as it is (``""`` is missing), numbers as numbers; ``true`` and ``false`` are 1 and 0.

    Raises
    ------
    ObjectiveError
        Where the column isn't there, or holds numbers and the value is none.

    Examples
    --------
    >>> slice_mask(Selector(column="age", value="30"), {"age": np.array([30.0, 31.0])})
    array([ True, False])
    """
    if selector.column is None or selector.value is None:
        raise ObjectiveError(f"{selector} selects a class, not rows.")
    if selector.column not in columns:
        raise ObjectiveError(
            f"{selector}: there is no column {selector.column!r}.", hint=nearest_hint(selector.column, columns)
        )
    values = columns[selector.column]
    if values.dtype.kind not in "fiub":
        return np.asarray(values == selector.value, dtype=np.bool_)
    word = selector.value.strip().lower()
    try:
        number = _WORDS[word] if word in _WORDS else float(word)
    except ValueError:
        raise ObjectiveError(
            f"{selector}: the column {selector.column!r} holds numbers, but {selector.value!r} is none."
        ) from None
    return np.isnan(values) if np.isnan(number) else np.asarray(values == number, dtype=np.bool_)


def _measure(
    c: Constraint,
    objective: Objective,
    task: Task,
    y: NDArray[Any],
    scores: NDArray[np.floating],
    decisions: NDArray[np.int64] | None,
    columns: Columns | None,
    weight: NDArray[np.float64] | None,
) -> float | None:
    if c.selector is not None and c.selector.is_slice:
        if columns is None:
            raise ObjectiveError(f"{c}: the columns are needed to find the rows.")
        rows = slice_mask(c.selector, columns)
        y, scores = y[rows], scores[rows]
        decisions = None if decisions is None else decisions[rows]
        weight = None if weight is None else weight[rows]
    if len(y) == 0 or (weight is not None and not weight.any()) or not _class_occurs(c, task, y):
        return None
    matrix = None if objective.cost_matrix is None else objective.cost_matrix.array
    return c.metric(y, scores, decisions, task=task, weight=weight, cost_matrix=matrix, label=c.label)


def _class_occurs(c: Constraint, task: Task, y: NDArray[Any]) -> bool:
    """False where the metric is about a class of which there is no row: then nothing is shown."""
    if not task.kind.is_classification or not c.metric.selectable:
        return True
    if c.label is not None:
        return bool((y == task.classes.index(c.label)).any())
    return task.n_classes != 2 or bool((y == 1).any())
