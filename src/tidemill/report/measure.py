"""The objective's metric, ready to be asked of any rows, with labels decided as the shipped model decides them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.decision import Decision, undecided
from tidemill.core.errors import DataError, InputError
from tidemill.core.metrics import Metric, get_metric
from tidemill.core.objective import Objective, parse_objective
from tidemill.core.task import Task, TaskKind
from tidemill.report.facts import Evidence, ReportFacts

Floats = NDArray[np.float64]
_MOST_PROBABLE = Decision()
_NEEDS_TWO_CLASSES = frozenset({"roc_auc", "average_precision", "mcc"})


@dataclass(frozen=True)
class Measure:
    """A metric with its class, its costs and its rule of decision.

    Parameters
    ----------
    name : str
        As in the objective, ``"recall[fraud]"``.
    metric : Metric
        What is measured.
    task : Task
        What the codes mean.
    label : str or None
        The class that it is asked about.
    cost : ndarray of float64, shape (K, K), or None
        Costs of decisions.
    decision : Decision
        How labels are decided where only scores are known.
    """

    name: str
    metric: Metric
    task: Task
    label: str | None = None
    cost: Floats | None = None
    decision: Decision = _MOST_PROBABLE

    def __call__(
        self, y: NDArray[Any], scores: NDArray[np.floating[Any]], decisions: NDArray[np.int64] | None = None
    ) -> float:
        """Measure; where nobody has decided, the rule does."""
        table = np.asarray(scores, dtype=np.float64)
        if decisions is None and self.metric.needs == "labels":
            decisions = self.decision.apply(table)
        return self.metric(y, table, decisions, task=self.task, cost_matrix=self.cost, label=self.label)

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest value that the metric can have."""
        if self.metric.name == "cost":
            return -np.inf, np.inf
        if self.metric.name in ("r2", "mcc"):
            return (-1.0 if self.metric.name == "mcc" else -np.inf), 1.0
        return 0.0, 1.0 if self.metric.greater_is_better or self.metric.name in ("ece", "hamming_loss") else np.inf

    def says_something(self, y: NDArray[Any], least: int = 1) -> bool:
        """True where the rows hold enough of what the metric is about: two classes to tell apart, or the one class.

        Examples
        --------
        >>> from tidemill.core.task import TaskKind
        >>> task = Task(TaskKind.BINARY, "y", ("no", "yes"))
        >>> Measure("roc_auc", get_metric("roc_auc"), task).says_something(np.array([1, 1]))
        False
        """
        if self.task.kind is TaskKind.MULTILABEL:
            stands = np.asarray(y).sum(axis=0)
            ranked = self.metric.name in _NEEDS_TWO_CLASSES
            return len(y) >= least and (not ranked or bool(((stands >= least) & (stands < len(y))).any()))
        if not self.task.kind.is_classification:
            return len(y) >= max(least, 2 if self.metric.name == "r2" else 1)
        counts = np.bincount(np.asarray(y, dtype=np.int64), minlength=self.task.n_classes)
        if self.metric.name in _NEEDS_TWO_CLASSES and int((counts >= least).sum()) < 2:
            return False
        if self.metric.selectable and self.label is not None:
            return bool(counts[self.task.classes.index(self.label)] >= least)
        if self.metric.selectable and self.task.n_classes == 2:
            return bool(counts[1] >= least)
        return len(y) >= least


def objective_measure(facts: ReportFacts) -> Measure:
    """Build the measure of a report's objective.

    The text of the objective tells class and costs. Where it can't be read here (a cost matrix in a file that isn't at
    hand) the metric alone counts.
    """
    objective = _parsed(facts)
    costs = objective.cost_matrix.array if objective and objective.cost_matrix is not None else None
    decision = infer_decision(facts.task, facts.evidence[0], costs) if facts.evidence else Decision()
    if objective is not None and facts.metric.partition("[")[0] == objective.metric:
        name = f"{objective.metric}{objective.selector or ''}"
        return Measure(name, get_metric(objective.metric), facts.task, objective.label, costs, decision)
    return Measure(facts.metric, get_metric(facts.metric), facts.task, None, costs, decision)


def _parsed(facts: ReportFacts) -> Objective | None:
    try:
        return parse_objective(facts.objective).resolve(facts.task)
    except InputError:
        return None


def infer_decision(task: Task, evidence: Evidence, cost: Floats | None = None) -> Decision:
    """Find the rule that turned the evidence's scores into its decisions.

    For two classes a threshold that separates the decisions; else the cheapest, or the most probable class.

    Examples
    --------
    >>> from tidemill.core.task import TaskKind
    >>> task = Task(TaskKind.BINARY, "y", ("no", "yes"))
    >>> p = np.array([0.1, 0.3, 0.5])
    >>> evidence = Evidence("test", np.array([0, 0, 1]), np.column_stack([1 - p, p]), np.array([0, 1, 1]), {})
    >>> infer_decision(task, evidence).threshold
    0.2
    """
    decisions = evidence.decisions
    if not task.kind.has_labels or decisions is None or not len(decisions):
        return undecided(task)
    scores = np.asarray(evidence.scores, dtype=np.float64)
    if task.kind is TaskKind.MULTILABEL:
        return _between(scores, decisions)
    rules = [Decision()] + ([Decision.by_cost(cost)] if cost is not None else [])
    for rule in rules:
        if np.array_equal(rule.apply(scores), decisions):
            return rule
    if task.n_classes == 2:
        p = scores[:, 1]
        low, high = p[decisions == 0].max(initial=0.0), p[decisions == 1].min(initial=1.0)
        if low < high:
            return Decision.by_threshold(float((low + high) / 2))
    return max(rules, key=lambda rule: float((rule.apply(scores) == decisions).mean()))


def _between(scores: Floats, decisions: NDArray[np.int64]) -> Decision:
    """Thresholds between what was decided and what was not, label by label; one half where it does not contradict."""
    given = decisions > 0
    low = np.where(given, 0.0, scores).max(axis=0)
    high = np.where(given, scores, 1.0).min(axis=0)
    half = (low <= 0.5) & (high > 0.5)
    return Decision.by_thresholds(np.where(half, 0.5, np.clip((low + high) / 2, 0.0, 1.0)))


def check_evidence(task: Task, evidence: Evidence) -> None:
    """Refuse evidence that can't be drawn.

    Raises
    ------
    DataError
        Where shapes differ, or a score or target is NaN or infinite, or a code is no class.
    """
    y, scores = np.asarray(evidence.y), np.asarray(evidence.scores)
    if task.kind is TaskKind.RECOGNITION:
        if y.ndim != 2 or scores.ndim != 2 or len(y) != len(scores) or not np.isfinite(scores).all():
            raise DataError("Transcripts must be rows of code points, one for each line.", where=evidence.name)
        return
    several = task.kind is TaskKind.MULTILABEL
    if y.shape != ((len(y), task.n_outputs) if several else (len(y),)) or scores.shape != (len(y), task.n_outputs):
        raise DataError(
            f"Scores must have the shape ({len(y)}, {task.n_outputs}), but got {scores.shape}.", where=evidence.name
        )
    broken = int((~np.isfinite(scores).all(axis=1)).sum())
    if broken:
        raise DataError(f"{broken:,} rows have a score that is NaN or infinite.", where=evidence.name)
    if not task.kind.has_labels:
        broken = int((~np.isfinite(y.astype(np.float64))).sum())
        if broken:
            raise DataError(f"{broken:,} rows have a target that is NaN or infinite.", where=evidence.name)
        return
    for name, codes in (("answer", y), ("decision", evidence.decisions)):
        if codes is None:
            continue
        most = 2 if several else task.n_classes
        if codes.shape != y.shape or (len(codes) and not (codes.min() >= 0 and codes.max() < most)):
            if several:
                raise DataError(f"Every {name} must be 0 or 1 for each label.", where=evidence.name)
            raise DataError(f"Every {name} must be one code of {task.n_classes} classes.", where=evidence.name)


def decided(evidence: Evidence, decision: Decision) -> NDArray[np.int64]:
    """Return the evidence's decisions; where it has none, those of the rule."""
    if evidence.decisions is not None:
        return np.asarray(evidence.decisions, dtype=np.int64)
    return decision.apply(np.asarray(evidence.scores, dtype=np.float64))
