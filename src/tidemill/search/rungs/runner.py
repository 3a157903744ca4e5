"""Conducts a search whose trials pause on rungs and go on in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np

from tidemill.core.errors import TrialTimeoutError
from tidemill.core.protocols import Outcome
from tidemill.core.trial import Trial, TrialState, Usage
from tidemill.search.board import INTERRUPTED, is_whole
from tidemill.search.rungs.ladder import Rung
from tidemill.search.rungs.losses import ENDED_AFTER, VALID_AT, comparable, losses_at, standing_of
from tidemill.search.rungs.schedule import RungSchedule
from tidemill.search.rungs.standing import Climb, Standing, Start
from tidemill.search.runner import Runner

FINALS = 1.3
"""Time for the finals is kept as if they took so many times what the leader's epochs took so far."""


@dataclass(kw_only=True)
class RungRunner(Runner):
    """A `Runner` for families whose trainings can pause; what it calls gets a `Rung` beside the other arguments.

    Every leg of a trial, from one rung to the next, is a step of the executor. The trial's entry in the ledger is
    replaced after each: its scores hold the metric by epochs (``valid@9``), its curve all that was measured, its usage
    the sum. Between two legs it is ``PAUSED``, and goes on from the checkpoint in its folder.

    Without a time limit legs depend on the seed alone: leg ``i`` is chosen from what is known of legs up to
    ``i - lag``, for which it waits. (Legs of a search that was resumed count as known from the beginning.)

    With a time limit the last leg has all the time that is left. Where that is too little, the rest of its schedule is
    shortened, so that its learning rate comes to its end; its scores then say after how many epochs (``ended_after``).
    Where the time was too short for the first rung and nobody has trained anything that could be shipped, that trial
    goes on to such an end at once.

    Parameters
    ----------
    schedule : RungSchedule
        Who goes on.
    folder : Path
        Where trials keep what they go on from; one folder for each, removed when it has come to the end. Those of
        trials that paused stay, for a study that is resumed may let any of them go on.
    pausing : frozenset of str, optional
        Families whose trainings can pause; trials of others are trained to the end at once. Default all.
    """

    schedule: RungSchedule
    folder: Path
    pausing: frozenset[str] | None = None
    _legs: list[tuple[int, int]] = field(default_factory=list, init=False)
    _under_way: dict[int, int] = field(default_factory=dict, init=False)
    _paused: dict[int, Trial] = field(default_factory=dict, init=False)
    _given_up: set[int] = field(default_factory=set, init=False)
    _late: set[int] = field(default_factory=set, init=False)
    _sent_up: set[int] = field(default_factory=set, init=False)
    _dry: bool = field(default=False, init=False)
    _open: int = field(default=0, init=False)

    def run(self) -> bool:
        """Run legs until the limits; where no trial came to the end, the best one is taken as it is.

        A leg that was interrupted counts as no end; what it handed over competes with that best one.
        """
        self._tidy()
        finished = super().run()
        if not any(is_whole(t) and INTERRUPTED not in t.scores for t in self.board.trials):
            self._take_paused()
        self._tidy()
        return finished

    @property
    def epochs(self) -> float:
        """Epochs that all trials have behind them."""
        levels = self.schedule.ladder.levels
        known = ((t, losses_at(t, levels, self.board.metric)) for t in self.board.trials)
        return sum(t.scores.get(ENDED_AFTER, levels[max(found)]) for t, found in known if found)

    # ---------------------------------------------------------------------------------------------------- choosing

    def _choose(self) -> Trial | None:
        if self._again:  # was under way when the search was killed
            return self._take_up(self._again.pop(0))
        if self.limits.deadline is not None and self._left_s() <= 0:
            return None
        if self._strict and any(leg < self._seen() for leg in self._under_way.values()):
            return None
        standings = self._standings()
        hurry = self.limits.deadline is not None and self._left_s() <= self._final_s(standings)
        action = self.schedule.next(standings, not hurry and self._may_start(), hurry=hurry)
        if isinstance(action, Start):
            begun = self._begin(action.level)
            return begun if begun is not None or not self._dry else self._choose()
        if isinstance(action, Climb):  # in a hurry in one leg, for only the last one can be shortened
            return self._take_up(self.board[action.number], self.schedule.ladder.top if hurry else action.level)
        if not self._under_way and self._seen() < len(self._legs):
            self._open = len(self._legs)  # all that is waited for has come, and may be known
            return self._choose()
        return None

    def _take_up(self, trial: Trial, level: int | None = None) -> Trial:
        """Let a trial go on, by default to the level above the last that it has finished."""
        reached = self._losses(trial)
        handed_over = self._handed_over.get(trial.number)
        if handed_over is not None:
            self._paused[trial.number] = handed_over
        elif reached:
            self._paused[trial.number] = replace(trial, state=TrialState.PAUSED)
        top = self.schedule.ladder.top
        if trial.number in self._sent_up:
            level = top
        if level is None:
            level = min(1 + max(reached, default=-1), top) if self._pauses(trial) else top
        return self._leg(replace(trial, state=TrialState.RUNNING), level)

    def _may_start(self) -> bool:
        return not self._dry and (self.limits.trials is None or self._trained() < self.limits.trials)

    def _begin(self, level: int) -> Trial | None:
        """Ask for a new trial; where there is none that may be trained, there will be none."""
        misfits = 0
        while misfits < 24 and self._refused < self.settings.rejections:
            asked = self.sampler.ask(self.space, self._history(), self._next)
            if asked is None:
                break
            number, self._next = self._next, self._next + 1
            config, why = self.gate.pass_or_explain(asked[0])
            trial = self._trial(number, config, asked[1])
            if why is not None:
                self._reject(trial, why)
            elif not self._fits(trial):
                misfits += 1
            else:
                self._refused = 0
                return self._leg(trial, level if self._pauses(trial) else self.schedule.ladder.top)
        self._dry = True
        return None

    def _pauses(self, trial: Trial) -> bool:
        return self.pausing is None or trial.family in self.pausing

    def _leg(self, trial: Trial, level: int) -> Trial:
        self._under_way[trial.number] = len(self._legs)
        self._legs.append((trial.number, level))
        return trial

    def _more(self, trial: Trial) -> dict[str, Any]:
        """The rung that a leg is to reach, for the trial's call."""
        levels = self.schedule.ladder.levels
        _, level = self._legs[self._under_way[trial.number]]
        rung = Rung(levels[level], levels[-1], str(self.folder / str(trial.number)))
        return {**({} if self.signals is None else super()._more(trial)), "rung": rung}

    def _time_s(self, trial: Trial) -> float | None:
        """All that is left, where a trial that paused comes to its end now: nobody carries it on."""
        _, level = self._legs[self._under_way[trial.number]]
        goes_on = bool(self._losses(trial)) or trial.number in self._sent_up
        if self._strict or level < self.schedule.ladder.top or not goes_on:
            return super()._time_s(trial)
        return self._left_s()

    # ------------------------------------------------------------------------------------------------------ looking

    def _seen(self) -> int:
        """How many legs, from the first, the next one is chosen from."""
        return max(self._open, len(self._legs) - self.settings.lag + 1) if self._strict else len(self._legs)

    def _losses(self, trial: Trial) -> dict[int, float]:
        """Losses by level, as far as the next leg may know of them."""
        found = losses_at(trial, self.schedule.ladder.levels, self.board.metric)
        for number, level in self._legs[self._seen() :]:
            if number == trial.number:
                found.pop(level, None)
        return found

    def _standings(self) -> list[Standing]:
        # Who is trained to the end at once takes no part: nobody chose him for it.
        trials = [t for t in self.board.trials if t.state is not TrialState.REJECTED and self._pauses(t)]
        return [self._standing(t) for t in trials]

    def _standing(self, trial: Trial) -> Standing:
        losses = self._losses(trial)
        if ENDED_AFTER in trial.scores:  # it came to its end, if sooner than others
            losses[self.schedule.ladder.top] = self.board.metric.loss(float(np.mean(trial.fold_scores)))
        hidden = [level for number, level in self._legs[self._seen() :] if number == trial.number]
        running = [self._legs[leg][1] for number, leg in self._under_way.items() if number == trial.number]
        aim = max([*hidden, *running], default=None)
        known = standing_of(trial, self.schedule.ladder.levels, self.board.metric)
        failed = trial.state is TrialState.FAILED and not hidden
        return replace(
            known,
            bracket=min([*losses, *([aim] if aim is not None else [])], default=0),
            losses=losses,
            aim=aim,
            over=failed or (trial.number in self._given_up and not hidden),
            curve=known.curve if losses.keys() == known.losses.keys() else (),
        )

    def _history(self) -> Sequence[Trial]:
        """Trials for the sampler, with what the next leg may know of them."""
        levels = self.schedule.ladder.levels
        shown = []
        for trial in self.board.trials:
            losses = self._losses(trial)
            hidden = {f"{VALID_AT}{levels[n]}" for n in range(len(levels)) if n not in losses}
            scores = {name: value for name, value in trial.scores.items() if name not in hidden}
            known = TrialState.PAUSED if losses else TrialState.RUNNING
            open_ = trial.state is not TrialState.REJECTED and trial.number in {
                n for n, _ in self._legs[self._seen() :]
            }
            shown.append(replace(trial, scores=scores, state=known) if open_ else trial)
        return shown

    def _final_s(self, standings: Sequence[Standing]) -> float:
        """Seconds that the finals will take: the leader's epochs that are left, at its own speed."""
        ranked = comparable([s for s in standings if not s.over], enough=1)
        if not ranked or any(s.started == self.schedule.ladder.top and not s.over for s in standings):
            return 0.0
        leader = self.board[min(ranked, key=lambda n: (ranked[n], n))]
        levels = self.schedule.ladder.levels
        done = levels[max(losses_at(leader, levels, self.board.metric))]
        return FINALS * leader.usage.wall_s / done * (levels[-1] - done)

    # ------------------------------------------------------------------------------------------------------ keeping

    def _settle(self, outcome: Outcome) -> None:
        trial = self._running.get(outcome.ticket)
        if trial is not None and isinstance(outcome.error, TrialTimeoutError):
            self._late.add(trial.number)
        super()._settle(outcome)

    def _must_go_on(self, trial: Trial) -> bool:
        """Whether a first leg that was not over in time is all that there is to make an answer of."""
        late = trial.state is TrialState.FAILED and trial.number in self._late
        return late and not self._sent_up and not any("checkpoint" in t.artifacts for t in self.board.trials)

    def _send_up(self, trial: Trial) -> None:
        """Let a trial go on to its end, which comes with the end of the time, from what it has in its folder."""
        self._sent_up.add(trial.number)
        self._again.append(replace(trial, state=TrialState.RUNNING, error=None, traceback=None))
        message = f"{trial.name} was not on its first rung in time: it goes on to an end in the time that is left."
        self._tell("notice", trial, message)

    def _keep(self, trial: Trial) -> None:
        leg = self._under_way.pop(trial.number, None)
        before = self._paused.pop(trial.number, None)
        self._handed_over.pop(trial.number, None)
        if leg is not None and self._must_go_on(trial):
            self._send_up(trial)
            return
        if leg is not None and trial.state is TrialState.COMPLETE:
            trial = self._after_leg(trial, self._legs[leg][1])
        elif before is not None and trial.state is TrialState.FAILED:
            # What it had learnt before stays; it is not sent on a second time.
            self._given_up.add(trial.number)
            trial = replace(before, error=trial.error, traceback=trial.traceback)
        super()._keep(trial)
        if trial.state in (TrialState.COMPLETE, TrialState.FAILED) and INTERRUPTED not in trial.scores:
            rmtree(self.folder / str(trial.number), ignore_errors=True)

    def _after_leg(self, trial: Trial, level: int) -> Trial:
        levels = self.schedule.ladder.levels
        before = self.board[trial.number]
        kept = {name: value for name, value in before.scores.items() if name.startswith(VALID_AT)}
        first = trial.curve[0][0] if trial.curve else math.inf
        value = float(np.mean(trial.fold_scores)) if trial.fold_scores else math.nan
        whole = replace(
            trial,
            scores={**trial.scores, **kept},
            curve=(*(point for point in before.curve if point[0] < first), *trial.curve),
            usage=_sum(before.usage, trial.usage),
        )
        if INTERRUPTED in trial.scores:  # it goes on where the study is resumed
            return whole
        last = level == self.schedule.ladder.top
        ended = trial.fidelity * levels[-1] if last else levels[level]
        short = last and trial.fidelity < 1.0
        said = {ENDED_AFTER: ended} if short else {f"{VALID_AT}{levels[level]}": value}
        return replace(
            whole,
            state=TrialState.COMPLETE if last else TrialState.PAUSED,
            scores={**whole.scores, **said},
            fidelity=ended / levels[-1],
            error=f"Shortened to the time that was left: {ended:.1f} of {levels[-1]} epochs." if short else None,
        )

    def _tidy(self) -> None:
        """Remove folders of trials that can't go on: of those that are over, and whatever a killed search left."""
        for place in self.folder.iterdir() if self.folder.is_dir() else ():
            number = int(place.name) if place.name.isascii() and place.name.isdigit() else -1
            if number not in self.board or not self._may_go_on(self.board[number]):
                rmtree(place, ignore_errors=True)

    def _may_go_on(self, trial: Trial) -> bool:
        """Whether a study that is resumed may let a trial go on."""
        if trial.state in (TrialState.FAILED, TrialState.REJECTED):
            return False
        over = f"{VALID_AT}{self.schedule.ladder.levels[-1]}" in trial.scores or ENDED_AFTER in trial.scores
        return self._pauses(trial) and not over

    def _take_paused(self) -> None:
        """Ship the best of what there is, rather than nothing."""
        levels, metric = self.schedule.ladder.levels, self.board.metric
        # All that is known counts here, also what the next leg may not know of yet.
        standings = [standing_of(t, levels, metric) for t in self.board.trials if "checkpoint" in t.artifacts]
        ranked = comparable(standings, enough=1)
        best = self.board[min(ranked, key=lambda n: (ranked[n], n))] if ranked else None
        if best is not None and best.state is not TrialState.COMPLETE:
            super()._keep(replace(best, state=TrialState.COMPLETE, error="Its training was not brought to its end."))


def _sum(one: Usage, other: Usage) -> Usage:
    return Usage(
        one.wall_s + other.wall_s,
        one.cpu_s + other.cpu_s,
        max(one.peak_memory_bytes, other.peak_memory_bytes),
        other.placement or one.placement,
    )
