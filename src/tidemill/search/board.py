"""What is known of the trials of a running study, and the questions that are asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from tidemill.core.metrics import Metric
from tidemill.core.trial import Trial, TrialState
from tidemill.search.rungs.losses import levels_of, rung_losses

MODELS = "models"
"""Under this name the scores of a whole trial say how many models it is made of."""
ASKED = "asked"
"""Why a training stopped that was asked to end, among what a trial answers (``stopped``)."""
INTERRUPTED = "interrupted_at"
"""Under this name the scores of a trial say that its training was asked to end, and what share of it was over then."""
DONE = (TrialState.COMPLETE, TrialState.FAILED, TrialState.REJECTED, TrialState.PAUSED)


def is_whole(trial: Trial) -> bool:
    """True for a trial that went through all folds on all rows: its models can be shipped."""
    return trial.state is TrialState.COMPLETE and "checkpoint" in trial.artifacts


def loss_of(trial: Trial, metric: Metric) -> float | None:
    """Mean loss over the folds of a whole trial."""
    return metric.loss(float(np.mean(trial.fold_scores))) if is_whole(trial) and trial.fold_scores else None


def better(before: Trial, again: Trial, metric: Metric) -> Trial:
    """What counts of a trial that was interrupted and run again: the better one, and the first where the second failed.

    One that was interrupted and is not run again afterwards, for it came off worse, says no longer that it was.
    """
    loss, old = loss_of(again, metric), loss_of(before, metric)
    if loss is None or old is None:
        return before if loss is None else again
    if loss <= old:
        return again
    if INTERRUPTED in again.scores:
        return before
    return replace(before, scores={name: value for name, value in before.scores.items() if name != INTERRUPTED})


def losses(trials: Sequence[Trial], metric: Metric) -> dict[int, float]:
    """Losses by number, for whole trials and, estimated, for those that lost the race or paused on a rung.

    A trial that stopped after its first fold gets that fold's loss, shifted by how much easier or harder the first
    fold is for the others.

    Examples
    --------
    See `tidemill.search.samplers.tpe`, which learns from them.
    """
    levels = levels_of(trials)
    if levels:
        return dict(rung_losses(trials, levels, metric))
    out: dict[int, float] = {}
    shifts: list[float] = []
    for trial in trials:
        loss = loss_of(trial, metric)
        if loss is not None:
            out[trial.number] = loss
            shifts.append(loss - metric.loss(trial.fold_scores[0]))
    shift = float(np.median(shifts)) if shifts else 0.0
    for trial in trials:
        if trial.state is TrialState.COMPLETE and trial.number not in out and trial.fold_scores:
            out[trial.number] = metric.loss(trial.fold_scores[0]) + shift
    return out


class Board:
    """The trials of a study by number.

    Parameters
    ----------
    metric : Metric
        The study's metric.
    trials : iterable of Trial
        Those that are known already.
    """

    def __init__(self, metric: Metric, trials: Iterable[Trial] = ()) -> None:
        self.metric = metric
        self._trials = {t.number: t for t in trials}

    def __contains__(self, number: int) -> bool:
        return number in self._trials

    def __getitem__(self, number: int) -> Trial:
        return self._trials[number]

    def put(self, trial: Trial) -> None:
        """Add or replace a trial."""
        self._trials[trial.number] = trial

    @property
    def trials(self) -> list[Trial]:
        """All trials by number."""
        return [self._trials[n] for n in sorted(self._trials)]

    def count(self, state: TrialState) -> int:
        """Number of trials in a state."""
        return sum(t.state is state for t in self._trials.values())

    def best(self) -> Trial | None:
        """The whole trial with the smallest mean loss over its folds."""
        first = self.leaders(1)
        return first[0] if first else None

    def leaders(self, count: int) -> list[Trial]:
        """The whole trials with the smallest mean losses over their folds, best first."""
        known = [(loss, t.number) for t in self._trials.values() if (loss := loss_of(t, self.metric)) is not None]
        return [self._trials[number] for _, number in sorted(known)[:count]]

    def settled(self, last: int) -> bool:
        """True where no trial up to ``last`` is under way."""
        return all(t.state in DONE for n, t in self._trials.items() if n <= last)

    def seen_by(self, number: int, lag: int | None) -> list[Trial]:
        """The history that trial ``number`` may be chosen from.

        With a lag, trials after ``number - lag`` are shown as running, whether they have ended or not: their configs
        are the same in every run, their results come in another order.
        """
        out = []
        for trial in self.trials:
            if trial.number >= number:
                continue
            if lag is not None and trial.number > number - lag:
                trial = _hidden(trial)
            out.append(trial)
        return out


def _hidden(trial: Trial) -> Trial:
    if trial.state is TrialState.REJECTED:
        return trial
    return replace(
        trial, state=TrialState.RUNNING, fold_scores=(), scores={}, artifacts={}, error=None, traceback=None, folds=0
    )
