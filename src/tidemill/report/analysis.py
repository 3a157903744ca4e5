"""Everything that a report computes, before anything is drawn or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tidemill.core.metrics import get_metric, metrics_for
from tidemill.core.schema import Column
from tidemill.core.task import TaskKind
from tidemill.report._clock import Clock
from tidemill.report.dependence import Dependence, partial_dependence
from tidemill.report.facts import Evidence, ReportFacts
from tidemill.report.importance import Importances, permutation_importance
from tidemill.report.intervals import Interval, bootstrap
from tidemill.report.measure import Measure, check_evidence, decided, objective_measure
from tidemill.report.slices import Slices, worst_slices

_HEADLINES: dict[TaskKind, tuple[str, ...]] = {
    TaskKind.BINARY: (
        "roc_auc", "average_precision", "log_loss", "brier", "ece", "accuracy", "balanced_accuracy", "precision",
        "recall", "f1", "mcc",
    ),
    TaskKind.MULTICLASS: ("accuracy", "balanced_accuracy", "f1_macro", "mcc", "log_loss", "roc_auc", "brier", "ece"),
    TaskKind.REGRESSION: ("rmse", "mae", "r2", "mape", "rmsle"),
    TaskKind.MULTILABEL: (
        "f1_micro", "f1_macro", "subset_accuracy", "hamming_loss", "average_precision", "roc_auc", "lrap", "log_loss",
    ),
    TaskKind.RECOGNITION: ("cer", "exact", "cer_nocase", "exact_nocase"),
}  # fmt: skip
_SHARES = {"intervals": 0.3, "importance": 0.5, "dependence": 0.5, "slices": 1.0}
"""Of what is left when a part begins."""


@dataclass(frozen=True)
class Headline:
    """One metric on each body of evidence, in the evidence's order."""

    measure: Measure
    intervals: tuple[Interval | None, ...]


@dataclass(frozen=True)
class Analysis:
    """What was computed; a part that is None has its reason in ``left_out``.

    Parameters
    ----------
    facts : ReportFacts
        Where it came from.
    measure : Measure
        The objective's metric.
    headlines : tuple of Headline
        The objective first.
    decisions : ndarray or None
        Decided codes of the first evidence, of several labels a row 0 and 1 for each.
    importances, dependences, slices
        See their modules.
    left_out : mapping
        One sentence for each part that is missing: ``evidence``, ``importance``, ``dependence``, ``slices``.
    hurried : bool
        True where a deadline made the report draw fewer resamples.
    """

    facts: ReportFacts
    measure: Measure
    headlines: tuple[Headline, ...]
    decisions: NDArray[np.int64] | None
    importances: Importances | None = None
    dependences: tuple[Dependence, ...] = ()
    slices: Slices | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    hurried: bool = False

    @property
    def evidence(self) -> Evidence | None:
        """The evidence that figures are drawn from; None where there is no row."""
        first = self.facts.evidence[0] if self.facts.evidence else None
        return first if first is not None and len(first.y) else None

    @property
    def value(self) -> Interval | None:
        """The objective's metric on the first evidence."""
        return self.headlines[0].intervals[0] if self.headlines and self.headlines[0].intervals else None


def analyse(facts: ReportFacts, clock: Clock) -> Analysis:
    """Compute the numbers of a report within the clock's time."""
    for evidence in facts.evidence:
        check_evidence(facts.task, evidence)
    measure = objective_measure(facts)
    rng = np.random.default_rng(facts.seed)
    first = facts.evidence[0] if facts.evidence and len(facts.evidence[0].y) else None
    if first is None:
        why = "There are no rows with a known answer to measure on."
        missing = dict.fromkeys(("evidence", "importance", "dependence", "slices"), why)
        return Analysis(facts, measure, (), None, left_out=missing, hurried=clock.hurried)
    decisions = decided(first, measure.decision) if facts.task.kind.has_labels else None
    headlines = _headlines(facts, measure, clock, rng)
    if not measure.says_something(first.y):
        why = f"{measure.name} says nothing on these rows, because they lack the classes that it is about."
        missing = {"importance": why, "slices": why}
    else:
        missing = {}
    importances = _importance(facts, first, measure, clock, rng, missing)
    ordered = _by_importance(facts, importances)
    dependences = _dependence(facts, first, ordered, clock, rng, missing)
    slices = None
    if "slices" not in missing:
        until = clock.until(_SHARES["slices"]) if not clock.hurried else clock.now() + max(0.3, clock.end - clock.now())
        slices = worst_slices(first, decisions, ordered, measure, clock, until, rng)
    return Analysis(
        facts, measure, headlines, decisions, importances, tuple(dependences), slices, missing, clock.hurried
    )


def _headlines(facts: ReportFacts, measure: Measure, clock: Clock, rng: np.random.Generator) -> tuple[Headline, ...]:
    measures = {measure.name: measure}
    known = {m.name for m in metrics_for(facts.task.kind)}
    for name in _HEADLINES[facts.task.kind]:
        if name in known and name not in measures:
            measures[name] = Measure(name, get_metric(name), facts.task, None, measure.cost, measure.decision)
    if measure.cost is not None and "cost" not in measures:
        measures["cost"] = Measure("cost", get_metric("cost"), facts.task, None, measure.cost, measure.decision)
    columns: list[Mapping[str, Interval]] = []
    until = clock.until(_SHARES["intervals"])
    start = clock.now()
    for i, evidence in enumerate(facts.evidence):
        sensible = {n: m for n, m in measures.items() if len(evidence.y) and _fits(m, evidence)}
        decisions = decided(evidence, measure.decision) if facts.task.kind.has_labels else None
        stop = start + (until - start) * (i + 1) / len(facts.evidence)
        columns.append(bootstrap(sensible, evidence.y, evidence.scores, decisions, clock, stop, rng))
    rows = [Headline(m, tuple(c.get(n) for c in columns)) for n, m in measures.items()]
    return tuple(h for h in rows if any(i is not None for i in h.intervals))


def _fits(measure: Measure, evidence: Evidence) -> bool:
    """Leave out what has no meaning on these rows: relative errors of 0, logarithms of negative values, one class."""
    if measure.metric.name == "mape" and float(np.abs(evidence.y).min()) < 1e-9:
        return False
    if measure.metric.name == "rmsle" and float(np.min(evidence.y)) < 0:
        return False
    return measure.says_something(evidence.y)


def _names(facts: ReportFacts, evidence: Evidence) -> list[str]:
    return [c.name for c in facts.schema.features if c.name in evidence.columns]


def _importance(
    facts: ReportFacts,
    evidence: Evidence,
    measure: Measure,
    clock: Clock,
    rng: np.random.Generator,
    missing: dict[str, str],
) -> Importances | None:
    names = _names(facts, evidence)
    if facts.predict is None or not names:
        missing.setdefault("importance", _no_model(facts))
    elif len(evidence.y) < 2:
        missing.setdefault("importance", "One row can't be shuffled.")
    if "importance" in missing or facts.predict is None:
        return None
    until = clock.until(_SHARES["importance"])
    return permutation_importance(facts.predict, evidence, names, measure, clock, until, rng)


def _by_importance(facts: ReportFacts, importances: Importances | None) -> list[Column]:
    features = list(facts.schema.features)
    if importances is None:
        return features
    rank = {i.column: n for n, i in enumerate(importances.columns)}
    return sorted(features, key=lambda c: rank.get(c.name, len(rank)))


def _dependence(
    facts: ReportFacts,
    evidence: Evidence,
    ordered: list[Column],
    clock: Clock,
    rng: np.random.Generator,
    missing: dict[str, str],
) -> list[Dependence]:
    if facts.predict is None or not _names(facts, evidence):
        missing["dependence"] = _no_model(facts)
        return []
    until = clock.until(_SHARES["dependence"])
    found = partial_dependence(facts.predict, evidence, ordered, clock, until, rng)
    if not found:
        missing["dependence"] = "No column has two values to compare."
    return found


def _no_model(facts: ReportFacts) -> str:
    if facts.schema.has_images:
        return "The model sees pixels, and a single one says nothing: there is no column to shuffle or to move."
    if facts.schema.has_texts:
        return "The model sees a text as a whole: there is no column to shuffle or to move."
    if facts.predict is None:
        return "The shipped model was not at hand when this report was written, so that nothing could be tried on it."
    return "The raw columns of the rows were not at hand when this report was written."
