"""What a model of the configs learns from trials that have come differently far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tidemill.core.metrics import Metric
from tidemill.core.trial import Trial
from tidemill.search.rungs.standing import Standing

VALID_AT = "valid@"
"""Scores of a trial under ``valid@<epochs>`` are the study's metric after so many epochs."""
ENDED_AFTER = "ended_after"
"""Under this name the scores of a trial say after how many epochs its schedule, shortened to the time, was through."""
ENOUGH = 6
"""A level is the yardstick when so many trials have finished it."""


def losses_at(trial: Trial, levels: Sequence[int], metric: Metric) -> dict[int, float]:
    """Losses of a trial by level.

    Parameters
    ----------
    trial : Trial
        Of the ledger.
    levels : sequence of int
        Epochs by level.
    metric : Metric
        The study's.
    """
    found = {}
    for level, epochs in enumerate(levels):
        value = trial.scores.get(f"{VALID_AT}{epochs}")
        if value is not None:
            found[level] = metric.loss(value)
    return found


def comparable(standings: Sequence[Standing], enough: int = ENOUGH) -> Mapping[int, float]:
    """Give one loss for each trial that has finished a level, all as if on one level.

    The yardstick is the highest level that enough trials have finished, or the lowest that any has. A trial that has
    not come so far gets its loss on the highest level that it has, changed by how much others changed from there to the
    yardstick: a new trial is compared with what it may become. One that began higher is taken as it is.

    Parameters
    ----------
    standings : sequence of Standing
        All trials.
    enough : int
        See `ENOUGH`.

    References
    ----------
    Falkner et al., "BOHB", ICML 2018: its model learns from the highest budget with enough results.
    """
    levels = sorted({level for s in standings for level in s.losses})
    known = {level: [s for s in standings if math.isfinite(s.losses.get(level, math.nan))] for level in levels}
    rich = [level for level in levels if len(known[level]) >= enough]
    if not levels:
        return {}
    yardstick = rich[-1] if rich else levels[0]
    found: dict[int, float] = {}
    for one in standings:
        mine = [level for level in one.losses if math.isfinite(one.losses[level])]
        if not mine:
            continue
        level = yardstick if yardstick in mine else min(mine, key=lambda n: (abs(n - yardstick), n))
        found[one.number] = one.losses[level] + _change(known, level, yardstick)
    return found


def _change(known: Mapping[int, Sequence[Standing]], start: int, end: int) -> float:
    """How much trials that have finished both levels changed from one to the other, in the middle."""
    if start == end:
        return 0.0
    both = [s.losses[end] - s.losses[start] for s in known[start] if math.isfinite(s.losses.get(end, math.nan))]
    return float(np.median(both)) if both else 0.0


def standing_of(trial: Trial, levels: Sequence[int], metric: Metric) -> Standing:
    """Give how far a trial of the ledger has come; what runs and what failed is for the caller to know."""
    found = losses_at(trial, levels, metric)
    reached = levels[max(found)] if found else 0
    return Standing(trial.number, min(found, default=0), found, curve=by_epoch(trial.curve, reached))


def by_epoch(curve: Sequence[tuple[int, float]], epochs: int) -> tuple[tuple[float, float], ...]:
    """Give the last point of every epoch of a curve by steps, which spans so many epochs.

    Examples
    --------
    >>> by_epoch([(5, 0.9), (10, 0.7), (15, 0.6), (20, 0.5)], 2)
    ((1.0, 0.7), (2.0, 0.5))
    """
    if not curve or epochs < 1:
        return ()
    last = curve[-1][0]
    found = {float(max(1, math.ceil(step * epochs / last - 1e-9))): value for step, value in curve if step > 0}
    return tuple(sorted(found.items()))


def rung_losses(trials: Sequence[Trial], levels: Sequence[int], metric: Metric) -> Mapping[int, float]:
    """Losses by trial for a sampler, see `comparable`.

    Parameters
    ----------
    trials : sequence of Trial
        The history that a sampler sees.
    levels : sequence of int
        Epochs by level, `tidemill.search.rungs.ladder.Ladder.levels`.
    metric : Metric
        The study's.
    """
    return comparable([standing_of(trial, levels, metric) for trial in trials])


def levels_of(trials: Sequence[Trial]) -> tuple[int, ...]:
    """Epochs of all rungs that any trial has reached, rising; none where nothing was trained on rungs.

    Examples
    --------
    >>> from tidemill.core.trial import TrialState
    >>> levels_of([Trial("s", 0, {}, TrialState.PAUSED, "f", scores={"valid@3": 0.5, "rmse": 0.5})])
    (3,)
    """
    names = {name for trial in trials for name in trial.scores if name.startswith(VALID_AT)}
    return tuple(sorted(int(name.removeprefix(VALID_AT)) for name in names))
