"""One trial, as a worker runs it: a config on all folds, within its time, from files to plain values."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import InputError, TrialTimeoutError
from tidemill.core.metrics import get_metric, metrics_for
from tidemill.core.pack import pack
from tidemill.core.task import Task
from tidemill.core.trial import Config, Cost
from tidemill.models import pool
from tidemill.models.tabular import pipeline
from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, TabularData
from tidemill.search import latency, schedules
from tidemill.search.board import MODELS
from tidemill.search.latency import Speed
from tidemill.search.splits import TRAIN, VALID, Splits, passes

CALL = "tidemill.search.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""
MARGIN = 0.85
"""Share of a fold's part of the time after which a family that trains in rounds stops with what it has."""
SLACK = 1.5
"""The folds may seem to need so much more than the time that is left before a trial gives up."""
COSTLY = 0.25
"""A trial is slow when the folds after its first need more than this share of the time that it has."""
BEHIND = 0.1
"""A slow trial stops when its first fold is worse than the best peer's by more than this share of the loss."""
AGAIN = 4
"""A model that does so many times the work of the measured one of its class is measured, too: what is fixed in the
measurement of a small one would be multiplied."""
REFIT = 1.25
"""A fit on all rows takes about so many times as long as one on a fold's rows."""

Score = Callable[[NDArray[Any], NDArray[np.float64]], float]


@dataclass(frozen=True)
class Race:
    """When to stop a trial after its first fold.

    Parameters
    ----------
    schedule : str
        Name of the schedule.
    slack : float
        Its slack.
    peers : mapping of str to tuple of float
        Losses of other trials on the first fold by share of the rows (``"1.0"`` for all).
    """

    schedule: str
    slack: float
    peers: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Assignment:
    """All that a worker needs to know of the study; small, and the same for every trial.

    Parameters
    ----------
    task : mapping
        `Task.to_json`.
    files : mapping
        Paths of ``.npy`` files: ``x``, ``y``, ``splits``, and where they exist ``weight`` and ``x_test``.
    features : sequence of tuple
        Name, source, kind and cardinality of the columns of ``x``.
    metric : str
        Name of the study's metric, for the fold scores.
    label : str or None
        The class that the metric asks about.
    cost_matrix : sequence or None
        For the metric ``cost``.
    """

    task: Mapping[str, Any]
    files: Mapping[str, str]
    features: Sequence[tuple[str, str, str, int]]
    metric: str
    label: str | None = None
    cost_matrix: Sequence[Sequence[float]] | None = None

    @property
    def places(self) -> tuple[str, ...]:
        """Files and folders of this machine that a trial reads; they go along where it runs on another one."""
        return tuple(self.files.values())

    @property
    def scratch(self) -> tuple[str, ...]:
        """Folders in which trials leave things for one another; every machine has its own."""
        return ()


def run_trial(
    *,
    config: Config,
    assignment: Assignment,
    seed: int,
    threads: int = 1,
    time_s: float | None = None,
    bonus_s: float | None = None,
    race: Race | None = None,
    probe: bool = False,
    measured: int | None = None,
) -> dict[str, Any]:
    """Train a config on all folds and say what came of it.

    Parameters
    ----------
    config : Config
        A complete config.
    assignment : Assignment
        The table and the question.
    seed : int
        Seed of the trial.
    threads : int
        Threads that it may use.
    time_s : float, optional
        Seconds that it may take. A trial that can't finish a pass over the folds within them stops as soon as
        that is clear.
    bonus_s : float, optional
        Further passes over the folds are trained only where the first took no longer than this.
    race : Race, optional
        When to stop after the first fold.
    probe : bool
        Export the first fold's model and measure its speed and size.
    measured : int, optional
        FLOPs of a model that was measured instead; where this one has `AGAIN` times as many, it is measured, too.

    Returns
    -------
    dict
        ``oof`` (n, n_outputs) with NaN where no fold predicted, ``test``, ``checkpoint`` (bytes, or None for a trial
        that was stopped), ``fold_scores``, ``scores``, ``cost``, ``curve``, ``folds``, ``fidelity``, ``stopped``
        (why it ended early, or None), ``fold_s``, ``probe`` (`Speed` of one model, or None), ``probe_flops`` (its
        operations for a row).

    Raises
    ------
    TrialTimeoutError
        Where no pass over the folds fits into ``time_s``.
    """
    return _Evaluation(config, assignment, seed, threads, time_s, bonus_s).run(race, 0 if probe else measured)


class _Evaluation:
    def __init__(
        self,
        config: Config,
        assignment: Assignment,
        seed: int,
        threads: int,
        time_s: float | None,
        bonus_s: float | None,
    ) -> None:
        self.bonus_s = bonus_s
        self.started = time.monotonic()
        self.end = np.inf if time_s is None else self.started + time_s
        self.config = config
        self.seed = seed
        self.threads = threads
        self.task = Task.from_json(dict(assignment.task))
        self.family = pool.families([config["family"]])[config["family"]]
        self.data, self.splits, self.x_test = load_table(assignment)
        self.score = scorer(self.task, assignment)
        self.metric = get_metric(assignment.metric)
        self.oof = np.zeros((len(self.data.x), self.task.n_outputs))
        self.times = np.zeros(len(self.data.x), dtype=np.int64)
        self.test: list[NDArray[np.float32]] = []
        self.models: list[dict[str, Any]] = []
        self.costs: list[Cost] = []
        self.fold_scores: list[float] = []
        self.seconds: list[float] = []
        self.rounds: list[int] = []
        self.curve: list[tuple[int, float]] = []
        self.scores: dict[str, float] = {}
        self.probed: Speed | None = None
        self.probe_flops: int | None = None

    def run(self, race: Race | None, measured: int | None) -> dict[str, Any]:
        if race is not None:
            share = self._climb(race)
            if share < 1.0:
                return self._result(share, "race")
        one_pass = passes(self.splits)
        for index in range(len(self.splits)):
            if not self._fits(index, one_pass):
                break
            self._fold(index, one_pass, measured if index == 0 else None)
            if index == 0 and race is not None and len(self.splits) > 1 and not self._goes_on(race, one_pass):
                return self._result(1.0, "race")
        if not self.family.bagged:
            self._refit()
        return self._result(1.0, None)

    def _ahead(self, index: int, one_pass: int) -> float:
        """Folds that are still to be trained for a result, in units of one fold."""
        return max(one_pass - index, 1) + (0.0 if self.family.bagged else REFIT)

    def _fits(self, index: int, one_pass: int) -> bool:
        now = time.monotonic()
        if index >= one_pass and self.bonus_s is not None and sum(self.seconds[:one_pass]) > self.bonus_s:
            return False
        estimate = float(np.mean(self.seconds)) if self.seconds else 0.0
        slack = SLACK if index < one_pass else 1.0
        if estimate * self._ahead(index, one_pass) <= slack * (self.end - now):
            return True
        if index >= one_pass:  # a whole pass is there, repetitions are a bonus
            return False
        raise TrialTimeoutError(
            f"{index} of {one_pass} folds took {now - self.started:.1f} s; the others don't fit into the "
            f"{self.end - self.started:.1f} s that there were.",
            hint="Give the search more time, or fewer rows.",
        )

    def _fit(self, train: NDArray[np.int64], valid: NDArray[np.int64] | None, ahead: float, seed: int) -> Any:
        now = time.monotonic()
        deadline = min(self.end, now + MARGIN * (self.end - now) / max(ahead, 1.0))
        budget = FitBudget(deadline=deadline, threads=self.threads)
        fitted = pipeline.fit(self.config, self.task, self.data, train, valid, budget, seed)
        if not self.curve:
            self.curve = _thin(budget.curve)
        return fitted

    def _fold(self, index: int, one_pass: int, measured: int | None) -> None:
        begun = time.monotonic()
        split = self.splits[index]
        valid = np.flatnonzero(split == VALID)
        fitted = self._fit(np.flatnonzero(split == TRAIN), valid, self._ahead(index, one_pass), self.seed + index)
        predicted = np.asarray(fitted.predict(self.data.x[valid]), dtype=np.float64)
        self.oof[valid] += predicted
        self.times[valid] += 1
        self.fold_scores.append(self.score(self._y[valid], predicted))
        if fitted.best_round is not None:
            self.rounds.append(fitted.best_round)
        if self.family.bagged:
            self._keep(fitted)
        self.seconds.append(time.monotonic() - begun)
        if measured is not None and (fitted.cost.flops or 0) >= AGAIN * measured:
            self.probed = latency.measure(fitted, self.data.x, self.task.n_outputs)
            self.probe_flops = fitted.cost.flops

    def _keep(self, fitted: Any) -> None:
        if self.x_test is not None:
            self.test.append(np.asarray(fitted.predict(self.x_test), dtype=np.float32))
        self.models.append(fitted.checkpoint())
        self.costs.append(fitted.cost)

    def _refit(self) -> None:
        """Train on all rows, for as many rounds as the folds needed on average."""
        rows = np.flatnonzero((self.splits != 0).any(axis=0))
        if self.rounds:
            self.config = {**self.config, f"{self.family.name}.rounds": max(1, round(float(np.mean(self.rounds))))}
        self._keep(self._fit(rows, None, REFIT, self.seed))

    def _climb(self, race: Race) -> float:
        """Train the first fold on rising shares of its rows; return the share on which the race was lost, or 1."""
        rng = np.random.default_rng(self.seed)
        train = np.flatnonzero(self.splits[0] == TRAIN)
        valid = np.flatnonzero(self.splits[0] == VALID)
        for share in schedules.make(race.schedule, race.slack).rungs(len(train))[:-1]:
            rows = np.sort(rng.permutation(train)[: max(2, int(share * len(train)))])
            fitted = self._fit(rows, valid, float(len(self.splits)) / share, self.seed)
            value = self.score(self._y[valid], np.asarray(fitted.predict(self.data.x[valid]), dtype=np.float64))
            self.scores[f"fold1@{share}"] = value
            if not self._promoted(race, share):
                self.fold_scores.append(value)
                return float(share)
        return 1.0

    def _goes_on(self, race: Race, one_pass: int) -> bool:
        return self._promoted(race, 1.0) and self._is_worth_it(race, one_pass)

    def _is_worth_it(self, race: Race, one_pass: int) -> bool:
        """Decide whether a slow trial promises enough; a quick one may be tried for the ensemble's sake."""
        peers = race.peers.get("1.0", ())
        left_s = self.end - time.monotonic()
        if not peers or self.seconds[0] * self._ahead(1, one_pass) <= COSTLY * left_s:
            return True
        best = min(peers)
        return self.metric.loss(self.fold_scores[0]) <= best + BEHIND * abs(best)

    def _promoted(self, race: Race, share: float) -> bool:
        value = self.fold_scores[0] if share == 1.0 else self.scores[f"fold1@{share}"]
        peers = race.peers.get(str(float(share)), ())
        loss = self.metric.loss(value)
        return schedules.make(race.schedule, race.slack).promote(loss, (*peers, loss), 0)

    def _result(self, fidelity: float, stopped: str | None) -> dict[str, Any]:
        seen = self.times > 0
        oof = np.full(self.oof.shape, np.nan, dtype=np.float32)
        oof[seen] = (self.oof[seen] / self.times[seen, None]).astype(np.float32)
        scores = dict(self.scores)
        if stopped is None:
            scores |= all_scores(self.task, self._y[seen], oof[seen].astype(np.float64))
            scores[MODELS] = float(len(self.models))
        return {
            "oof": oof,
            "test": np.mean(self.test, axis=0, dtype=np.float64).astype(np.float32) if self.test else None,
            "checkpoint": pack({"models": self.models}) if stopped is None else None,
            "fold_scores": tuple(self.fold_scores),
            "scores": scores,
            "cost": self._cost(),
            "curve": tuple(self.curve),
            "folds": len(self.fold_scores),
            "fidelity": fidelity,
            "stopped": stopped,
            "fold_s": tuple(self.seconds),
            "probe": self.probed,
            "probe_flops": self.probe_flops,
        }

    def _cost(self) -> Cost:
        if not self.costs:
            return Cost()
        total = self.costs[0]
        for cost in self.costs[1:]:
            total = total + cost
        return total

    @property
    def _y(self) -> NDArray[Any]:
        if self.data.y is None:
            raise AssertionError("training data have a target")
        return self.data.y


def load_table(assignment: Assignment) -> tuple[TabularData, Splits, NDArray[np.float32] | None]:
    """Open the files of an assignment; the matrix stays on disk until rows of it are taken."""
    files = assignment.files
    features = tuple(Feature(n, s, FeatureKind(k), c) for n, s, k, c in assignment.features)
    data = TabularData(
        x=np.load(files["x"], mmap_mode="r"),
        features=features,
        y=np.load(files["y"]),
        weight=np.load(files["weight"]) if "weight" in files else None,
    )
    x_test = np.load(files["x_test"], mmap_mode="r") if "x_test" in files else None
    return data, np.load(files["splits"]), x_test


def scorer(task: Task, assignment: Assignment) -> Score:
    """The study's metric as a function of true answers and scores."""
    metric = get_metric(assignment.metric)

    def score(y: NDArray[Any], scores: NDArray[np.float64]) -> float:
        return metric(y, scores, task=task, cost_matrix=assignment.cost_matrix, label=assignment.label)

    return score


def all_scores(task: Task, y: NDArray[Any], scores: NDArray[np.float64]) -> dict[str, float]:
    """Every metric of the task that needs nothing but the scores; those that don't suit the target are left out."""
    found: dict[str, float] = {}
    for metric in metrics_for(task.kind):
        try:
            value = metric(y, scores, task=task)
        except InputError:  # a logarithm of a negative target, a class that doesn't occur
            continue
        if np.isfinite(value):
            found[metric.name] = value
    return found


def _thin(curve: Sequence[tuple[int, float]], points: int = 100) -> list[tuple[int, float]]:
    step = max(1, -(-len(curve) // points))
    return [(int(i), float(v)) for i, v in curve[::step]]
