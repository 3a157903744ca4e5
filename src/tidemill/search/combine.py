"""From trials to a candidate: which of them, with which weights, calibrated and decided how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidemill.core.calibration import Calibration, fit_calibration
from tidemill.core.errors import SearchError
from tidemill.core.frames import Frames
from tidemill.core.protocols import Ensembler
from tidemill.core.task import TaskKind
from tidemill.core.trial import FREE, Cost, Trial
from tidemill.search.board import MODELS
from tidemill.search.candidate import Candidate, join
from tidemill.search.ensembles.stack import stack_where_it_pays
from tidemill.search.judge import Judge, Verdict
from tidemill.search.lines.beams import CONSIDERED as SEARCHED
from tidemill.search.lines.beams import BeamReader
from tidemill.search.lines.together import CONSIDERED, choose, choose_first
from tidemill.search.losses import Loss, of_objective
from tidemill.search.prices import Prices, thinness, total, with_models

THIN = 3
"""Models of a thin bag."""

Predicted = Mapping[int, NDArray[np.float32]]


def combine(
    trials: Sequence[Trial],
    predictions: Predicted,
    judge: Judge,
    ensembler: Ensembler,
    most_bytes: int,
    most_us: float = float("inf"),
    shared: Cost = FREE,
    frames: Callable[[Sequence[int]], dict[int, Frames]] | None = None,
    beams: BeamReader | None = None,
) -> Candidate:
    """Choose what serves an objective best, from out-of-fold predictions alone.

    In this order: an ensemble of whole bags, or on a large table, and where time is short, of thin ones if these, being
    quicker with many rows, leave room for members that are worth more; where these break a bound on costs, of thin
    bags, then of single models of the bags; where the ensemble breaks a bound on a metric, the best single trial that
    keeps it; where nothing keeps the bounds, what comes nearest.

    Parameters
    ----------
    trials : sequence of Trial
        Whole trials.
    predictions : mapping
        Their out-of-fold scores by number, rows as the judge has them.
    judge : Judge
        The objective and the truth.
    ensembler : Ensembler
        How they are combined.
    most_bytes : int
        Bound on the size where the objective has none.
    most_us : float
        Bound on the microseconds for a row of many.
    shared : Cost
        What every candidate costs beside its trials: encoders of columns.
    frames : callable, optional
        Gives what stands behind transcripts of some trials: transcripts themselves can't be averaged.
    beams : BeamReader, optional
        How transcripts are searched for, where it isn't the best path that counts.

    Raises
    ------
    SearchError
        Where there is no trial.
    """
    if not trials:
        raise SearchError(
            "No trial came to an end, so there is nothing to choose from.",
            hint="Give the search more time, or look at the failed trials.",
        )
    if judge.task.kind is TaskKind.RECOGNITION:
        costs = {t.number: t.cost for t in trials}
        return _readers(costs, predictions, judge, most_bytes, most_us, shared, frames, beams)
    models = {t.number: int(t.scores.get(MODELS, 1)) for t in trials}
    bags = {t.number: t.cost for t in trials}
    loss = of_objective(judge.objective, judge.task, judge.y, judge.weight, seed=judge.seed)
    size = min(abs(loss(np.asarray(p, dtype=np.float64))) for p in predictions.values())
    found: list[Candidate] = []
    values: list[float] = []
    for most in sorted({max(models.values()), min(max(models.values()), THIN), 1}, reverse=True):
        used = {n: min(m, most) for n, m in models.items()}
        costs = with_models(bags, models, used)
        prices = Prices(costs, judge.objective, size, most_bytes, rows=len(judge.y), most_us=most_us, shared=shared)
        if not any(np.isfinite(prices({n: 1.0})) for n in predictions):
            continue
        combination = ensembler.combine(predictions, loss, prices)
        weights = dict(combination.weights)
        found.append(_candidate(weights, used, costs, predictions, judge, shared, loss))
        values.append(combination.loss + prices(weights) + thinness(weights, used, size))
        if found[-1].verdict.gap == 0 and (most <= THIN or not (prices.for_many or prices.presses(weights))):
            break
    if not found or min(c.verdict.gap for c in found) > 0:
        found += _singles(with_models(bags, models, dict.fromkeys(models, 1)), predictions, judge, shared)
        return min(found, key=lambda c: c.verdict.key)
    kept = [i for i, c in enumerate(found) if c.verdict.gap == 0]
    return found[min(kept, key=lambda i: values[i])]


def _readers(
    costs: Mapping[int, Cost],
    predictions: Predicted,
    judge: Judge,
    most_bytes: int,
    most_us: float,
    shared: Cost,
    frames: Callable[[Sequence[int]], dict[int, Frames]] | None,
    beams: BeamReader | None,
) -> Candidate:
    """The net that reads best, with others where they read better together and can be shipped."""
    singles = sorted(_singles(costs, predictions, judge, shared), key=lambda c: c.verdict.key)
    best = singles[0]
    if frames is None:
        return best
    most = CONSIDERED if beams is None else SEARCHED
    numbers = [number for single in singles[:most] for number in single.weights]
    prices = Prices(costs, judge.objective, 1.0, most_bytes, rows=len(judge.y), most_us=most_us, shared=shared)
    judged: dict[tuple[int, ...], Candidate] = {}

    def loss(weights: Mapping[int, float], scores: NDArray[np.float32]) -> float:
        joined = scores.astype(np.float64)
        cost = total(costs, weights, shared)
        found = Candidate(
            task=judge.task, objective=judge.objective, weights=dict(sorted(weights.items())),
            models=dict.fromkeys(sorted(weights), 1), calibration=Calibration(),
            verdict=judge.judge(joined, cost, judge.decide(joined)), cost=cost,
        )  # fmt: skip
        judged[tuple(found.weights)] = found
        return found.verdict.loss if found.verdict.gap <= best.verdict.gap else float("inf")

    said = frames(numbers)

    def fits(weights: Mapping[int, float]) -> bool:
        return bool(np.isfinite(prices(weights)))

    if beams is None:
        chosen = choose(said, numbers[0], loss, fits)
        return judged.get(tuple(chosen), best) if len(chosen) > 1 else best
    if not said:
        return best
    chosen = choose_first(said, loss, fits, beams)
    return replace(judged[tuple(sorted(chosen))], weights=chosen)  # a graph alone reads by the first


def _singles(costs: Mapping[int, Cost], predictions: Predicted, judge: Judge, shared: Cost) -> list[Candidate]:
    """Every trial alone, with one model of its bag."""
    return [_candidate({n: 1.0}, {n: 1}, costs, predictions, judge, shared) for n in predictions]


def _candidate(
    weights: Mapping[int, float],
    models: Mapping[int, int],
    costs: Mapping[int, Cost],
    predictions: Predicted,
    judge: Judge,
    shared: Cost,
    loss: Loss | None = None,
) -> Candidate:
    weights = dict(sorted(weights.items()))
    stack = None
    if loss is not None and judge.task.kind is not TaskKind.MULTILABEL:  # of several labels there is no stack
        members = [predictions[n] for n in weights]
        stack = stack_where_it_pays(
            judge.task, judge.y, members, list(weights.values()), loss, judge.weight, seed=judge.seed
        )
    scores = join(weights, predictions, stack, judge.task.kind)
    calibration = (
        fit_calibration(judge.y, scores, judge.weight, seed=judge.seed) if _calibrates(judge) else Calibration()
    )
    scores = calibration.apply(scores) if not calibration.is_identity else scores
    cost = total(costs, weights, shared)
    verdict: Verdict = judge.judge(scores, cost, judge.decide(scores))
    return Candidate(
        task=judge.task,
        objective=judge.objective,
        weights=weights,
        stack=stack,
        models={n: models[n] for n in sorted(weights)},
        calibration=calibration,
        verdict=verdict,
        cost=cost,
    )


def _calibrates(judge: Judge) -> bool:
    """One temperature is for classes that exclude each other."""
    return judge.task.kind.is_classification


def renamed(candidate: Candidate, names: Mapping[int, str]) -> Candidate:
    """Return the candidate with the names of its trials."""
    return replace(candidate, names={n: names[n] for n in candidate.weights})
