"""Conducts a search: asks for configs, has them evaluated within the limits, and keeps what comes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.budget import Budget, available_cpus
from tidemill.core.errors import TidemillError, TrialTimeoutError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import Objective
from tidemill.core.protocols import ArtifactStore, Executor, MetadataStore, Outcome, Step
from tidemill.core.space import Space
from tidemill.core.trial import Config, Cost, Trial, TrialState, Usage
from tidemill.search.board import ASKED, INTERRUPTED, MODELS, Board, better
from tidemill.search.evaluate import CALL, Assignment, Race
from tidemill.search.events import Event, Listener, ignore
from tidemill.search.latency import Speed
from tidemill.search.ledger import put_result
from tidemill.search.material import Foresight, Gatekeeper
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.settings import SearchSettings
from tidemill.search.signals import CurvePoint, Switchboard

PROVEN = 2
"""Time for the proof is kept as if the best trials, so many, were shipped together, or the best of so many families."""
ANSWERS = 3.0
"""The proof takes about so many times as long as the graph needs for its rows: the trained models answer them, too."""
BUILDS = 2.25
"""The graph is written once and loaded twice: for the proof and the measurement."""
MOST_PROOF = 0.3
"""Share of the time that the proof may be given at most."""
FIRST_S = 2.0
"""The first trial may take so long, whatever is left: a late answer is worth more than none."""
SHARE = 0.45
"""Share of the time that is left which one trial may take, as long as it isn't the last."""
BONUS = 0.04
"""A trial whose folds took no longer than this share of the time trains them again, dealt anew."""
GRACE_S = 2.0
"""A worker that doesn't stop by itself is ended so much after its limit."""
HAND_OVER_S = 15.0
"""After Ctrl-C trainings have so long to finish their step, to be judged, and to hand over what they have."""
RACE_SLACK = {"portfolio": 4.0, "tpe": 1.5, "random": 1.5}
"""How far behind a trial may be after its first fold; baselines and given configs don't race."""


@dataclass(frozen=True)
class Limits:
    """When a search has to end.

    Parameters
    ----------
    began : float
        `time.monotonic` value at which the job began.
    deadline : float or None
        `time.monotonic` value at which the last trial must have ended; None for no limit.
    trials : int or None
        Number of trials to train.
    memory_bytes : int or None
        Memory of one trial.
    """

    began: float
    deadline: float | None = None
    trials: int | None = None
    memory_bytes: int | None = None

    @classmethod
    def of(cls, budget: Budget, began: float, reserve_s: float, workers: int) -> Limits:
        """Derive limits from a budget, with so many seconds kept for what comes after the trials."""
        return cls(
            began=began,
            deadline=None if budget.time_s is None else began + max(budget.time_s - reserve_s, 0.2 * budget.time_s),
            trials=budget.trials,
            memory_bytes=None if budget.memory_bytes is None else budget.memory_bytes // workers,
        )


@dataclass
class Runner:
    """Runs the trials of one study; `run` returns when a limit is reached or nothing is left to try.

    Without a time limit the trials depend on the seed alone: trial ``i`` is chosen from what is known of trials up to
    ``i - lag``, for which it waits. With a time limit nobody waits, and the machine's speed has its say.

    Parameters
    ----------
    study : str
        Name of the study.
    metadata, artifacts
        Where every trial is kept as soon as it has ended.
    executor : Executor
        Who evaluates.
    sampler : ChainSampler
        Who proposes.
    space : Space
        What may be proposed.
    gate : Gatekeeper
        Who refuses before training.
    assignment : Assignment
        The table and the question, for the workers.
    objective : Objective
        Resolved.
    settings : SearchSettings
        Resolved.
    limits : Limits
        When to end.
    forecast : Foresight
        How long trials take.
    rows, rows_test : ndarray
        Row ids of predictions.
    threads : int
        Threads of one trial.
    on_event : Listener
        Is told of everything.
    call : str
        What the executor runs, with the arguments of `tidemill.search.evaluate.run_trial`.
    proof_rows : int
        Rows that the export after the search is going to be proven on; time is kept for them.
    share : float
        Share of the time that is left which one trial may take, as long as it isn't the last.
    signals : Switchboard, optional
        By which trainings are asked to end, where the trials' call takes `tidemill.models.training.signals.Signals`.
    checkpoints : Path, optional
        Where trainings leave what they go on from when the search is killed, a folder for each trial. It is removed
        when the trial has ended, in whatever way; of those that were under way or handed over it stays.
    """

    study: str
    metadata: MetadataStore
    artifacts: ArtifactStore
    executor: Executor
    sampler: ChainSampler
    space: Space
    gate: Gatekeeper
    assignment: Assignment
    objective: Objective
    settings: SearchSettings
    limits: Limits
    forecast: Foresight
    rows: NDArray[np.int64]
    rows_test: NDArray[np.int64] | None = None
    threads: int = 1
    on_event: Listener = ignore
    call: str = CALL
    clock: Callable[[], float] = time.monotonic
    proof_rows: int = 0
    share: float = SHARE
    signals: Switchboard | None = None
    checkpoints: Path | None = None
    _running: dict[int, Trial] = field(default_factory=dict, init=False)
    _ends: dict[int, float] = field(default_factory=dict, init=False)
    _limits_s: dict[int, float] = field(default_factory=dict, init=False)
    _again: list[Trial] = field(default_factory=list, init=False)
    _handed_over: dict[int, Trial] = field(default_factory=dict, init=False)
    _next: int = field(default=0, init=False)
    _refused: int = field(default=0, init=False)
    _stage: str = field(default="baselines", init=False)
    _probed: dict[str, tuple[Speed, int]] = field(default_factory=dict, init=False)
    _speeds: dict[int, Speed] = field(default_factory=dict, init=False)
    board: Board = field(init=False)

    def __post_init__(self) -> None:
        known = self.metadata.trials(self.study)
        self.board = Board(get_metric(self.objective.metric), known)
        self._handed_over = {t.number: t for t in known if INTERRUPTED in t.scores}
        under_way = [t for t in known if t.state is TrialState.RUNNING or t.number in self._handed_over]
        self._again = [replace(t, state=TrialState.RUNNING) for t in under_way]
        self._next = 1 + max((t.number for t in known), default=-1)
        self.forecast.learn(known)

    def run(self) -> bool:
        """Run trials until the limits; return False where a person interrupted.

        Then trainings that can be asked to end hand over what they have, as trials that were interrupted
        (`tidemill.search.board.INTERRUPTED`); who interrupts once more doesn't wait for them. Other trials that were
        under way stay unfinished in the ledger. A resumed study runs both again.
        """
        self._tell("stage")
        self._sweep()
        try:
            # While modules load no trial can begin, yet its time would run. Of a short time half is left to try one.
            self.executor.ready(None if self.limits.deadline is None else max(0.0, 0.5 * self._left_s()))
            while True:
                self._fill()
                if not self._running:
                    return True
                outcomes = self.executor.wait(self._pause_s())
                self._listen()
                for outcome in outcomes:
                    self._settle(outcome)
                self._end_late()
                self._tell("tick")
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                self._hand_over()
            self._tell("notice", message="Interrupted; going on with what is there.")
            return False
        finally:
            for ticket in list(self._running):
                self.executor.cancel(ticket)
            self._sweep()

    def _sweep(self) -> None:
        """Remove checkpoints of trials that are over, and whatever a killed search left."""
        goes_on = {str(t.number) for t in self.board.trials if t.state is TrialState.RUNNING or INTERRUPTED in t.scores}
        goes_on |= {str(t.number) for t in self._again}
        for place in self.checkpoints.iterdir() if self.checkpoints is not None and self.checkpoints.is_dir() else ():
            if place.name not in goes_on:
                rmtree(place, ignore_errors=True)

    def _hand_over(self) -> None:
        """Ask all trainings to end, and wait some seconds for what they have."""
        if self.signals is None or not self._running:
            return
        self.signals.ask_to_end()
        most = f"at most {HAND_OVER_S:.0f} s; to end at once, interrupt again"
        self._tell("notice", message=f"Interrupted; waiting for what is being trained ({most}).")
        until = self.clock() + HAND_OVER_S
        while self._running and (now := self.clock()) < until:
            pause_s = min(0.5, until - now)
            outcomes = self.executor.wait(pause_s)
            for outcome in outcomes:
                if outcome.error is None:
                    self._settle(outcome)
                else:  # it had nothing yet: a resumed study runs it again
                    self._running.pop(outcome.ticket, None)
            if not outcomes and self.clock() - now < 0.5 * pause_s:  # nothing is under way in this process
                return

    # ------------------------------------------------------------------------------------------------ choosing

    def _fill(self) -> None:
        while len(self._running) < self.executor.capacity:
            trial = self._choose()
            if trial is None:
                return
            self._start(trial)

    def _choose(self) -> Trial | None:
        if self._again:
            return self._again.pop(0)
        if self.limits.trials is not None and self._trained() >= self.limits.trials:
            return None
        if self._next and self._left_s() <= 0:
            return None
        misfits = 0
        while misfits < 24 and self._refused < self.settings.rejections:
            number = self._next
            if self._strict and not self.board.settled(number - self.settings.lag):
                return None
            history = self.board.seen_by(number, self.settings.lag if self._strict else None)
            asked = self.sampler.ask(self.space, history, number)
            if asked is None:
                return None
            self._next += 1
            config, why = self.gate.pass_or_explain(asked[0])
            trial = self._trial(number, config, asked[1])
            if why is not None:
                self._reject(trial, why)
            elif not self._fits(trial):
                misfits += 1
            else:
                self._refused = 0
                return trial
        return None

    @property
    def _strict(self) -> bool:
        return self.limits.deadline is None

    def _trained(self) -> int:
        return sum(t.state is not TrialState.REJECTED for t in self.board.trials)

    def _trial(self, number: int, config: Config, origin: str) -> Trial:
        seed = int(np.random.SeedSequence([self.settings.seed, number]).generate_state(1)[0] >> 1)
        return Trial(self.study, number, config, TrialState.RUNNING, str(config["family"]), origin, seed=seed)

    def _reject(self, trial: Trial, why: str) -> None:
        self._refused += 1
        self._keep(replace(trial, state=TrialState.REJECTED, error=f"It would break a constraint: {why}."))

    def _fits(self, trial: Trial) -> bool:
        # A baseline is always worth a try: without it there may be no answer at all.
        if self.limits.deadline is None or trial.origin == "baseline":
            return True
        return self.forecast.seconds(trial.config) <= self._left_s()

    # ------------------------------------------------------------------------------------------------- running

    def _start(self, trial: Trial) -> None:
        self._enter(trial.origin)
        time_s = self._time_s(trial)
        measured = trial.number in self.board and self.board[trial.number].cost.latency_ms is not None
        probe = self._class(trial.config) not in self._probed and not measured
        step = Step(
            call=self.call,
            arguments={
                "config": trial.config,
                "assignment": self.assignment,
                "seed": trial.seed,
                "threads": self.threads,
                "time_s": time_s,
                "bonus_s": None if time_s is None else BONUS * self._whole_s(),
                "race": self._race(trial),
                "probe": probe,
                **self._more(trial),
            },
            time_s=None if time_s is None else time_s + GRACE_S,
            memory_bytes=self.limits.memory_bytes,
            threads=self.threads,
            name=trial.name,
            files=self.assignment.places,
            scratch=self.assignment.scratch,
        )
        trial = replace(trial, started_at=time.time())
        self.board.put(trial)
        if trial.number not in self._handed_over:  # there, what it had stands until there is more
            self.metadata.put_trial(trial)
        ticket = self.executor.submit(step)
        self._running[ticket] = trial
        if time_s is not None:
            self._limits_s[ticket] = time_s
        self._ends[ticket] = np.inf if time_s is None else self.clock() + time_s + 2 * GRACE_S
        self._tell("started", trial)

    def _more(self, trial: Trial) -> dict[str, Any]:
        """Further arguments of a trial's call, for searches that have some."""
        if self.signals is not None:
            return {"signals": self.signals.line(trial.number)}
        known = self._probed.get(self._class(trial.config))
        return {"measured": known[1]} if known is not None and self.call == CALL else {}

    def _time_s(self, trial: Trial) -> float | None:
        if self.limits.deadline is None:
            return None
        left = self._left_s()
        turn = self.sampler.turn(self.space, trial.origin, trial.number)
        share_s = max(self.share * left, 0.25 * self._whole_s()) if turn is None else turn * self._whole_s()
        return max(min(left, share_s), 0.0 if trial.number else FIRST_S)

    def _whole_s(self) -> float:
        return np.inf if self.limits.deadline is None else self.limits.deadline - self.limits.began

    def _left_s(self) -> float:
        return np.inf if self.limits.deadline is None else self.limits.deadline - self._proof_s() - self.clock()

    def _proof_s(self) -> float:
        """Seconds that the proof of what would be shipped now is going to take.

        Graph and models answer every row, some rows on each core; before, the graph is written and loaded. An ensemble
        is as slow as its members together, and it is rarely slower than the two best trials or the best ones of the two
        best families: a slow one of another kind often adds most.
        """
        if not self.proof_rows:
            return 0.0
        cores = max(1, min(available_cpus(), self.threads * self.executor.capacity))  # it runs here, whoever trains
        leaders = self.board.leaders(len(self.board.trials))
        heads = {trial.family: trial for trial in reversed(leaders)}
        of_families = [trial for trial in leaders if heads[trial.family] is trial]
        slowest = max(self._seconds_of(chosen[:PROVEN], cores) for chosen in (leaders, of_families))
        return min(slowest, MOST_PROOF * self._whole_s())

    def _seconds_of(self, shipped: Sequence[Trial], cores: int) -> float:
        """Seconds for the proof of some trials together."""
        known = [self._speeds[t.number] for t in shipped if t.number in self._speeds]
        row_us = sum(max(s.batch_us + s.model_us, ANSWERS * s.batch_us) for s in known)
        return row_us * 1e-6 * self.proof_rows / cores + BUILDS * sum(s.build_s for s in known)

    def _race(self, trial: Trial) -> Race | None:
        slack = RACE_SLACK.get(trial.origin)
        if slack is None or not self.settings.race:
            return None
        history = self.board.seen_by(trial.number, self.settings.lag if self._strict else None)
        others = [t for t in history if t.state is TrialState.COMPLETE and t.fold_scores and t.fidelity == 1.0]
        if trial.origin != "portfolio":
            # A proposal of the model is worth its time when it is among the good ones of its own family.
            others = [t for t in others if t.family == trial.family] or others
        peers = {"1.0": tuple(self.board.metric.loss(t.fold_scores[0]) for t in others)}
        for t in history:
            for name, value in t.scores.items():
                if name.startswith("fold1@"):
                    share = name.partition("@")[2]
                    peers[share] = (*peers.get(share, ()), self.board.metric.loss(value))
        return Race(self.settings.schedule, slack, peers)

    def _pause_s(self) -> float:
        if self.limits.deadline is None:
            return 1.0
        return float(np.clip(self._left_s(), 0.02, 0.5))

    def _end_late(self) -> None:
        """End what runs past the end of the search, or past its own limit without the executor's noticing."""
        now = self.clock()
        over = self._left_s() <= -0.5 * GRACE_S
        for ticket, trial in list(self._running.items()):
            if over or now > self._ends[ticket]:
                self.executor.cancel(ticket)
                del self._running[ticket]
                self._keep(replace(trial, state=TrialState.FAILED, error="The time was over before it had finished."))

    # ------------------------------------------------------------------------------------------------- keeping

    def _settle(self, outcome: Outcome) -> None:
        trial = self._running.pop(outcome.ticket, None)
        if trial is None:
            return
        trial = replace(trial, usage=outcome.usage, finished_at=time.time())
        if outcome.error is not None:
            if isinstance(outcome.error, TrialTimeoutError) and self._limits_s.get(outcome.ticket):
                self.forecast.learn_late(trial.family, self._limits_s[outcome.ticket])
            self._keep(
                replace(trial, state=TrialState.FAILED, error=in_words(outcome.error), traceback=outcome.traceback)
            )
            return
        result = outcome.value
        artifacts = put_result(self.artifacts, result, self.rows, self.rows_test)
        speed = self._speed(trial.config, result)
        if speed is not None:
            self._speeds[trial.number] = speed
        asked = result["stopped"] == ASKED
        self._keep(
            replace(
                trial,
                state=TrialState.COMPLETE,
                fold_scores=tuple(result["fold_scores"]),
                scores={**result["scores"], **({INTERRUPTED: result["fidelity"]} if asked else {})},
                cost=_with_speed(result["cost"], speed, measured=result["probe"] is not None),
                curve=result["curve"],
                fidelity=result["fidelity"],
                usage=_usage(trial.usage, result),
                folds=result["folds"],
                artifacts=artifacts,
                error=_STOPPED.get(result["stopped"], "").format(result["fidelity"]) or None,
            )
        )

    def _keep(self, trial: Trial) -> None:
        handed_over = trial.state is TrialState.COMPLETE and INTERRUPTED in trial.scores
        if self.checkpoints is not None and not handed_over:
            rmtree(self.checkpoints / str(trial.number), ignore_errors=True)
        before = self._handed_over.pop(trial.number, None)
        if before is not None:
            trial = better(before, trial, self.board.metric)
        self.metadata.put_trial(trial)
        self.board.put(trial)
        self.forecast.learn([trial])
        kind = _KINDS.get(trial.state, "failed")
        self._tell(kind, trial)

    def _speed(self, config: Config, result: Mapping[str, Any]) -> Speed | None:
        """Speed of all models of a trial, from its own measurement or that of a trial of its class."""
        key = self._class(config)
        if result["probe"] is not None and result["probe_flops"]:
            self._probed[key] = (result["probe"], result["probe_flops"])
        cost, models = result["cost"], int(result["scores"].get(MODELS, 1))
        if key not in self._probed or not cost.flops:
            return None
        speed, flops = self._probed[key]
        return speed.times(models, cost.flops / models / flops)

    @staticmethod
    def _class(config: Config) -> str:
        treatment = sorted(f"{k}={v}" for k, v in config.items() if ".treatment." in k)
        return "|".join([str(config["family"]), *treatment])

    # ------------------------------------------------------------------------------------------------- telling

    def _enter(self, origin: str) -> None:
        stage = _STAGES.get(origin, "search")
        if stage != self._stage and self._stage != "search":
            self._stage = stage
            self._tell("stage")

    def _listen(self) -> None:
        """Tell what the trainings that are under way have measured and said since the last time."""
        if self.signals is None:
            return
        for trial in self._running.values():
            for point in self.signals.news(trial.number):
                self._tell("point", trial, point=point)
            for sentence in self.signals.said(trial.number):
                self._tell("notice", trial, f"{trial.name}: {sentence}")

    def _tell(self, kind: str, trial: Trial | None = None, message: str = "", point: CurvePoint | None = None) -> None:
        best = self.board.best()
        self.on_event(
            Event(
                kind=kind,
                stage=self._stage,
                study=self.study,
                metric=self.objective.metric,
                elapsed_s=self.clock() - self.limits.began,
                trial=trial,
                point=point,
                message=message or (trial.error or "" if trial is not None else ""),
                finished=self.board.count(TrialState.COMPLETE),
                failed=self.board.count(TrialState.FAILED),
                rejected=self.board.count(TrialState.REJECTED),
                running=len(self._running),
                best=None if best is None else float(np.mean(best.fold_scores)),
                best_trial=None if best is None else best.name,
                left_s=None if self.limits.deadline is None else max(0.0, self._left_s()),
            )
        )


def _usage(usage: Usage, result: Mapping[str, Any]) -> Usage:
    """What a trial used, with the seconds of its training before the search was killed and resumed."""
    before_s = float(result.get("before_s", 0.0))
    return replace(usage, wall_s=usage.wall_s + before_s, placement=result.get("placement"))


def _with_speed(cost: Cost, speed: Speed | None, *, measured: bool) -> Cost:
    """Add what is known of a trial's speed; its bytes are counted, unless they were measured."""
    if speed is None:
        return cost
    size = speed.size_bytes if measured else cost.size_bytes
    return replace(cost, latency_ms=speed.row_ms, batch_us=speed.batch_us, size_bytes=size)


_STAGES = {"baseline": "baselines", "given": "baselines", "leader": "portfolio", "portfolio": "portfolio"}
_STOPPED = {
    "race": "Stopped after its first fold: clearly behind.",
    ASKED: "Interrupted after {:.0%} of its training.",
}
_KINDS = {TrialState.COMPLETE: "finished", TrialState.PAUSED: "paused", TrialState.REJECTED: "rejected"}


def in_words(error: BaseException) -> str:
    """Say why a trial failed."""
    return str(error) if isinstance(error, TidemillError) else f"{type(error).__name__}: {error}"
