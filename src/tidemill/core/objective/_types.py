"""What is wanted of a model, as types that print as people write them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import ObjectiveError, nearest_hint
from tidemill.core.metrics import Metric, default_metric, get_metric, metrics_for
from tidemill.core.objective._cost_matrix import CostMatrix
from tidemill.core.task import Task

COSTS = ("params", "flops", "size_bytes", "latency_ms")
"""What a model costs, as it can be limited; the fields of `tidemill.core.trial.Cost`."""
AUTO: Final = "auto"
"""The metric that a task gets when nobody names one."""

Direction = Literal["maximize", "minimize", "auto"]
Operator = Literal["<=", ">="]
_SIGN = r"(?:[<>!]=|[^\s\[\]=,\"';()\x00-\x1f])"
_BARE = re.compile(f"{_SIGN}+(?: +{_SIGN}+)*")
"""What needs no quotes in a selector; the parser's words, without spaces at the ends."""


@dataclass(frozen=True)
class Selector:
    """Which class, or which rows, a metric is asked about.

    Parameters
    ----------
    label : str or None
        A class: ``recall[fraud]``.
    column, value : str or None
        A slice, the rows whose column has a value: ``recall[region=north]``. Both: ``recall[fraud,region=north]``.

    Examples
    --------
    >>> str(Selector(label="fraud")), str(Selector(column="region", value="the [far] north"))
    ('[fraud]', '[region="the [far] north"]')
    """

    label: str | None = None
    column: str | None = None
    value: str | None = None

    def __post_init__(self) -> None:
        if (self.column is None) != (self.value is None) or (self.label is None and self.column is None):
            raise ObjectiveError(
                "A selector names a class, or a column and its value.", hint="Write [fraud] or [region=north]."
            )

    @property
    def is_slice(self) -> bool:
        """True where it selects rows."""
        return self.column is not None

    def __str__(self) -> str:
        parts = [] if self.label is None else [_quoted(self.label)]
        if self.column is not None and self.value is not None:
            parts.append(f"{_quoted(self.column)}={_quoted(self.value)}")
        return f"[{','.join(parts)}]"


def _quoted(text: str) -> str:
    return text if _BARE.fullmatch(text) else json.dumps(text)


@dataclass(frozen=True)
class Constraint:
    """A bound that a model must keep.

    Parameters
    ----------
    subject : str
        A cost (params, flops, size_bytes, latency_ms) or the name of a metric.
    op : {"<=", ">="}
        Costs and errors are bounded from above, scores from below.
    bound : float
        Finite; for a cost positive.
    selector : Selector or None
        A class or a slice, for metrics alone.

    Examples
    --------
    >>> str(Constraint("recall", ">=", 0.9, Selector("fraud")))
    'recall[fraud] >= 0.9'
    """

    subject: str
    op: Operator
    bound: float
    selector: Selector | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", float(self.bound) + 0.0)  # an int prints like a float; no -0.0
        if not math.isfinite(self.bound):
            raise ObjectiveError(f"The bound of {self.subject!r} must be finite, but got {self.bound}.")
        if self.is_cost:
            if self.selector is not None:
                raise ObjectiveError(f"{self.subject!r} is a cost of the whole model: it has no {self.selector}.")
            if self.bound <= 0:
                raise ObjectiveError(f"The bound of {self.subject!r} must be positive, but got {self.bound:g}.")
        right: Operator = "<=" if self.is_cost or not self.metric.greater_is_better else ">="
        if self.op != right:
            nature = "smaller" if right == "<=" else "greater"
            raise ObjectiveError(
                f"{self.subject!r} is better when {nature}, so it can't be asked to be {self.op} {self.bound:g}.",
                hint=f"Write {self.subject}{self.selector or ''} {right} {self.bound:g}.",
            )

    @property
    def is_cost(self) -> bool:
        """True for a cost of the model, False for a metric of its predictions."""
        return self.subject in COSTS

    @property
    def metric(self) -> Metric:
        """The metric that is bounded; only where `is_cost` is False."""
        return get_metric(self.subject)

    @property
    def label(self) -> str | None:
        """The selected class."""
        return self.selector.label if self.selector else None

    def gap(self, value: float | None) -> float:
        """How far ``value`` is from keeping the bound, relative to the bound; 0 where it is kept.

        ``inf`` where the value isn't known. For a bound of 0 the distance itself.

        Examples
        --------
        >>> Constraint("params", "<=", 1000).gap(1500.0)
        0.5
        """
        if value is None:
            return math.inf
        over = value - self.bound if self.op == "<=" else self.bound - value
        return max(0.0, over) / (abs(self.bound) or 1.0)

    def __str__(self) -> str:
        return f"{self.subject}{self.selector or ''} {self.op} {_bound(self.bound)}"


def _bound(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


@dataclass(frozen=True)
class Objective:
    """What is wanted: a metric to optimise, constraints to keep, costs of mistakes to decide by.

    Parameters
    ----------
    metric : str
        Name of the metric; ``"auto"`` becomes the task's default in `resolve`.
    direction : {"maximize", "minimize", "auto"}
        ``"auto"`` becomes the metric's own; another than that is refused.
    selector : Selector or None
        Optimise the metric of one class; never a slice.
    constraints : tuple of Constraint
        Bounds, each subject and selector once.
    cost_matrix : CostMatrix or None
        What mistakes cost. It sets how labels are decided, whatever the metric; the metric ``cost`` needs it.

    Examples
    --------
    >>> from tidemill.core.objective import parse_objective
    >>> objective = parse_objective("maximize roc_auc; params <= 2e5; recall[fraud] >= 0.9")
    >>> objective.metric, [str(c) for c in objective.cost_constraints]
    ('roc_auc', ['params <= 200000'])
    >>> str(objective)
    'maximize roc_auc; params <= 200000; recall[fraud] >= 0.9'
    """

    metric: str = AUTO
    direction: Direction = AUTO
    selector: Selector | None = None
    constraints: tuple[Constraint, ...] = ()
    cost_matrix: CostMatrix | None = None

    def __post_init__(self) -> None:
        self._settle_direction()
        if self.selector is not None and self.selector.is_slice:
            raise ObjectiveError(
                f"A slice can be a constraint, but not the aim: {self.metric}{self.selector}.",
                hint=f"Write for example {self.metric}{self.selector} >= 0.8 beside another aim.",
            )
        seen: set[tuple[str, Selector | None]] = set()
        for c in self.constraints:
            if (c.subject, c.selector) in seen:
                raise ObjectiveError(f"{c.subject}{c.selector or ''} is bounded twice.", hint="Keep the stricter one.")
            seen.add((c.subject, c.selector))
        uses_cost = self.metric == "cost" or any(c.subject == "cost" for c in self.constraints)
        if uses_cost and self.cost_matrix is None:
            raise ObjectiveError("The metric 'cost' needs a cost matrix.", hint="Write cost(matrix.csv).")

    def _settle_direction(self) -> None:
        if self.metric == AUTO:
            if self.direction != AUTO or self.selector is not None:
                raise ObjectiveError("'auto' stands alone, without direction or selector.")
            return
        right: Direction = "maximize" if get_metric(self.metric).greater_is_better else "minimize"
        if self.direction not in (AUTO, right):
            nature = "greater" if right == "maximize" else "smaller"
            raise ObjectiveError(
                f"{self.metric!r} is better when {nature}, so it can't be the aim to {self.direction} it.",
                hint=f"Write {right} {self.metric}.",
            )
        object.__setattr__(self, "direction", right)

    def __str__(self) -> str:
        parts = [AUTO if self.metric == AUTO else f"{self.direction} {self._aim}"]
        parts += [str(c) for c in self.constraints]
        if self.cost_matrix is not None and self.metric != "cost":
            parts.append(str(self.cost_matrix))
        return "; ".join(parts)

    @property
    def _aim(self) -> str:
        return str(self.cost_matrix) if self.metric == "cost" else f"{self.metric}{self.selector or ''}"

    @property
    def cost_constraints(self) -> tuple[Constraint, ...]:
        """Bounds on what the model costs; some can be checked before training."""
        return tuple(c for c in self.constraints if c.is_cost)

    @property
    def metric_constraints(self) -> tuple[Constraint, ...]:
        """Bounds on how good its predictions are."""
        return tuple(c for c in self.constraints if not c.is_cost)

    @property
    def label(self) -> str | None:
        """The class whose metric is optimised, where one is selected."""
        return self.selector.label if self.selector else None

    def measure(
        self,
        task: Task,
        y: NDArray[np.generic],
        scores: NDArray[np.floating],
        decisions: NDArray[np.int64] | None = None,
        weight: NDArray[np.float64] | None = None,
    ) -> float:
        """Value of the metric; the objective must be resolved."""
        matrix = None if self.cost_matrix is None else self.cost_matrix.array
        metric = get_metric(self.metric)
        return metric(y, scores, decisions, task=task, weight=weight, cost_matrix=matrix, label=self.label)

    def resolve(self, task: Task, columns: Collection[str] | None = None) -> Objective:
        """Return the objective as it is meant for a task.

        ``auto`` becomes the task's default metric and the cost matrix stands in the order of the task's classes.

        Parameters
        ----------
        task : Task
            The problem.
        columns : collection of str, optional
            Names that slices may use; checked where given.

        Raises
        ------
        ObjectiveError
            Where a metric doesn't fit the kind of task (those that fit are named), or a class or column isn't there.
        OptionError
            Where the cost matrix doesn't fit the classes.
        """
        metric = default_metric(task.kind).name if self.metric == AUTO else self.metric
        _check_fit(metric, self.selector, task)
        for c in self.metric_constraints:
            _check_fit(c.subject, c.selector, task)
            if c.selector is not None and c.selector.column is not None and columns is not None:
                _check_column(c, c.selector.column, columns)
        matrix = self.cost_matrix
        if matrix is not None:
            if not task.kind.is_classification:
                raise ObjectiveError(f"A cost matrix fits classification, but this is a {task.kind.value} task.")
            matrix = matrix.aligned(task.classes)
        direction: Direction = AUTO if self.metric == AUTO else self.direction
        return replace(self, metric=metric, direction=direction, cost_matrix=matrix)


def _check_fit(name: str, selector: Selector | None, task: Task) -> None:
    metric, label = get_metric(name), selector.label if selector else None
    if label is not None and task.kind.is_classification and label not in task.classes:
        raise ObjectiveError(f"{name}{selector}: there is no class {label!r}.", hint=nearest_hint(label, task.classes))
    if metric.fits(task.kind, label=label):
        return
    fitting = ", ".join(m.name for m in metrics_for(task.kind))
    if label is None and metric.selectable and task.kind.is_classification:
        raise ObjectiveError(
            f"{name!r} needs one class of this {task.kind.value} task.",
            hint=f"Write for example {name}{Selector(task.classes[0])} or {name}_macro.",
        )
    if label is not None and metric.fits(task.kind):
        raise ObjectiveError(f"{name!r} can't be asked of one class.", hint=f"Write {name} without [{label}].")
    raise ObjectiveError(f"{name!r} does not fit a {task.kind.value} task.", hint=f"These fit: {fitting}.")


def _check_column(constraint: Constraint, column: str, columns: Collection[str]) -> None:
    if column not in columns:
        raise ObjectiveError(f"{constraint}: there is no column {column!r}.", hint=nearest_hint(column, columns))
