from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import TrialMemoryError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.pack import pack
from tidemill.core.protocols import Outcome, Step
from tidemill.core.space import config_key
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost, StudyRecord, Trial, TrialState, Usage
from tidemill.models.tabular._base import TableProfile
from tidemill.search import board
from tidemill.search.evaluate import Assignment
from tidemill.search.events import Event
from tidemill.search.forecast import Forecast
from tidemill.search.gate import Gate
from tidemill.search.runner import Limits, Runner
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.search.settings import SearchSettings
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock
from tidemill.testing.sampler import example_space

TASK = Task(TaskKind.REGRESSION, "y")
Answer = Callable[[Mapping[str, Any]], Any]


def answer(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Play a trial: a loss that depends on the config alone."""
    text = config_key(arguments["config"])
    rng = np.random.default_rng(sum(ord(c) * (i + 1) for i, c in enumerate(text)))
    folds = tuple(rng.uniform(1, 2, size=3).tolist())
    return {
        "oof": np.ones((5, 1), dtype=np.float32),
        "test": None,
        "checkpoint": pack({"models": []}),
        "fold_scores": folds,
        "scores": {"rmse": float(np.mean(folds))},
        "cost": Cost(params=3, flops=5, size_bytes=100),
        "curve": (),
        "folds": 3,
        "fidelity": 1.0,
        "stopped": None,
        "probe": None,
    }


@dataclass
class FakeExecutor:
    """Ends steps in a random order, each after a random time on a fake clock."""

    capacity: int
    clock: Clock
    seed: int = 0
    play: Answer = answer
    interrupt_after: int = 10**9
    _rng: np.random.Generator = field(init=False)
    _running: dict[int, tuple[float, Step]] = field(default_factory=dict)
    _next: int = 0
    _done: int = 0

    def __post_init__(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def ready(self, timeout_s: float | None = None) -> bool:
        return True

    def submit(self, step: Step) -> int:
        ticket, self._next = self._next, self._next + 1
        self._running[ticket] = (self.clock.now + float(self._rng.exponential(1.0)), step)
        assert len(self._running) <= self.capacity
        return ticket

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        if not self._running:
            return []
        ticket = min(self._running, key=lambda t: self._running[t][0])
        end, step = self._running[ticket]
        if timeout_s is not None and end > self.clock.now + timeout_s:
            self.clock.now += timeout_s
            return []
        self.clock.now = max(self.clock.now, end)
        del self._running[ticket]
        self._done += 1
        if self._done > self.interrupt_after:
            raise KeyboardInterrupt
        value = self.play(step.arguments)
        usage = Usage(wall_s=1.0)
        if isinstance(value, BaseException):
            return [Outcome(ticket, error=value, traceback="where it was", usage=usage)]
        return [Outcome(ticket, value=value, usage=usage)]

    def cancel(self, ticket: int) -> None:
        self._running.pop(ticket, None)

    def close(self) -> None:
        self._running.clear()


class ToyFamily:
    """A family of which only the cost is asked."""

    bagged = True

    def __init__(self, name: str) -> None:
        self.name = name

    def cost(self, config: Mapping[str, Any], task: Task, profile: TableProfile) -> Cost:
        return Cost(params=int(config.get("trees.count", 1)))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


def make_runner(
    workspace: Workspace,
    *,
    study: str = "s",
    workers: int = 1,
    seed: int = 0,
    trials: int | None = 12,
    time_s: float | None = None,
    objective: str = "minimize rmse",
    executor: FakeExecutor | None = None,
    listener: Callable[[Event], None] = lambda event: None,
) -> Runner:
    executor = executor or FakeExecutor(workers, Clock(), seed)
    if study not in [r.name for r in workspace.metadata.studies()]:
        workspace.metadata.create_study(StudyRecord(study, TASK.to_json(), objective, [], {}, "", {}, "running", 0.0))
    wanted = parse_objective(objective).resolve(TASK)
    metric = get_metric("rmse")
    sampler = ChainSampler(
        [BaselineSampler(({"family": "linear"}, {"family": "trees"}))],
        TPESampler(0, lambda known: board.losses(known, metric)),
    )
    return Runner(
        study=study,
        metadata=workspace.metadata,
        artifacts=workspace.artifacts,
        executor=executor,
        sampler=sampler,
        space=example_space(),
        gate=Gate(wanted, {n: ToyFamily(n) for n in ("trees", "linear")}, TASK, TableProfile(5, ())),  # type: ignore[dict-item]
        assignment=Assignment(TASK.to_json(), {}, (), "rmse"),
        objective=wanted,
        settings=SearchSettings(lag=4),
        limits=Limits(0.0, time_s, trials),
        forecast=Forecast(5, 1, 3),
        rows=np.arange(5),
        on_event=listener,
        clock=executor.clock,
    )


def configs(workspace: Workspace, study: str = "s") -> list[str]:
    return [config_key(t.config) for t in workspace.metadata.trials(study)]


def test_same_seed_same_trials_at_any_number_of_workers(workspace: Workspace) -> None:
    runs = []
    for workers, seed in [(1, 0), (2, 1), (3, 2), (4, 3), (3, 4)]:
        study = f"s{workers}{seed}"
        assert make_runner(workspace, study=study, workers=workers, seed=seed, trials=24).run()
        runs.append(configs(workspace, study))
    assert len(set(runs[0])) == 24
    assert all(run == runs[0] for run in runs)


def test_a_study_that_is_resumed_asks_the_same_questions_and_repeats_none(workspace: Workspace) -> None:
    make_runner(workspace, study="whole", trials=20).run()
    clock = Clock()
    broken = FakeExecutor(3, clock, interrupt_after=9)
    assert not make_runner(workspace, executor=broken, trials=20).run()
    states = [t.state for t in workspace.metadata.trials("s")]
    assert states.count(TrialState.COMPLETE) == 9
    assert TrialState.RUNNING in states
    played: list[str] = []

    def count(arguments: Mapping[str, Any]) -> dict[str, Any]:
        played.append(config_key(arguments["config"]))
        return answer(arguments)

    make_runner(workspace, executor=FakeExecutor(2, clock, play=count), trials=20).run()
    assert configs(workspace) == configs(workspace, "whole")
    assert len(played) == 11


def test_a_failed_trial_keeps_its_reason_and_the_search_goes_on(workspace: Workspace) -> None:
    def play(arguments: Mapping[str, Any]) -> Any:
        if arguments["config"]["family"] == "linear":
            return TrialMemoryError("It wanted 9 GB.")
        return answer(arguments)

    events: list[str] = []
    executor = FakeExecutor(2, Clock(), play=play)
    make_runner(workspace, executor=executor, listener=lambda e: events.append(e.kind)).run()
    failed = [t for t in workspace.metadata.trials("s") if t.state is TrialState.FAILED]
    assert failed
    assert failed[0].error == "It wanted 9 GB."
    assert failed[0].traceback == "where it was"
    assert events.count("failed") == len(failed)
    assert len(workspace.metadata.trials("s")) == 12


def test_what_breaks_a_bound_is_recorded_and_never_trained(workspace: Workspace) -> None:
    trained: list[int] = []

    def play(arguments: Mapping[str, Any]) -> Any:
        trained.append(arguments["config"].get("trees.count", 1))
        return answer(arguments)

    executor = FakeExecutor(2, Clock(), play=play)
    make_runner(workspace, executor=executor, objective="minimize rmse; params <= 50").run()
    trials = workspace.metadata.trials("s")
    rejected = [t for t in trials if t.state is TrialState.REJECTED]
    assert rejected
    assert "params <= 50" in str(rejected[0].error)
    assert len(trained) == 12
    assert max(trained) <= 50


def test_a_search_that_can_only_reject_ends(workspace: Workspace) -> None:
    assert make_runner(workspace, objective="minimize rmse; params <= 0.5").run()
    assert {t.state for t in workspace.metadata.trials("s")} == {TrialState.REJECTED}


def test_nothing_runs_past_the_time_limit(workspace: Workspace) -> None:
    clock = Clock()
    executor = FakeExecutor(2, clock, seed=5)
    make_runner(workspace, executor=executor, trials=None, time_s=15.0).run()
    assert 10.0 < clock.now <= 15.5
    trials = workspace.metadata.trials("s")
    assert sum(t.state is TrialState.COMPLETE for t in trials) >= 8
    assert all(t.state is not TrialState.RUNNING for t in trials)


def test_the_best_is_told_with_every_trial(workspace: Workspace) -> None:
    events: list[Event] = []
    make_runner(workspace, listener=events.append).run()
    finished = [e for e in events if e.kind == "finished"]
    values = [e.best for e in finished if e.best is not None]
    assert len(finished) == 12
    assert values == sorted(values, reverse=True)
    assert [e.stage for e in events if e.kind == "stage"][:2] == ["baselines", "search"]
    assert finished[-1].to_json()["trial"]["state"] == "complete"


def test_the_board_hides_what_a_lag_must_not_see() -> None:
    known = board.Board(get_metric("rmse"))
    for number in range(6):
        known.put(Trial("s", number, {"family": "f"}, TrialState.COMPLETE, "f", fold_scores=(1.0,)))
    seen = known.seen_by(6, lag=4)
    assert [t.state is TrialState.COMPLETE for t in seen] == [True, True, True, False, False, False]
    assert all(t.fold_scores == () for t in seen[3:])


@dataclass
class Leaving:
    """A trial whose training leaves checkpoints, and ends as it is told."""

    folder: Path
    end: Any = None
    there: list[bool] = field(default_factory=list)

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        place = self.folder / str(len(self.there)) / "net"
        self.there.append(place.exists())
        place.mkdir(parents=True, exist_ok=True)
        return answer(arguments) | {"before_s": 2.5} if self.end is None else self.end


@pytest.mark.parametrize("end", [None, TrialMemoryError("Too large."), RuntimeError("killed by SIGKILL")])
def test_checkpoints_of_a_trial_are_gone_when_it_has_ended_in_whatever_way(workspace: Workspace, end: Any) -> None:
    folder = workspace.path / "kept"
    runner = make_runner(workspace, executor=FakeExecutor(1, Clock(), play=Leaving(folder, end)), trials=2)
    runner.checkpoints = folder
    seen: list[list[str]] = []
    runner.on_event = lambda event: seen.append(sorted(p.name for p in folder.glob("*")))
    assert runner.run()
    assert all(names == [] for names in seen), "none outlives its trial"
    assert not any(folder.iterdir())
    if end is None:
        assert {t.usage.wall_s for t in workspace.metadata.trials("s")} == {3.5}, "what was trained before counts"


def test_of_a_search_that_breaks_off_the_checkpoints_of_what_was_under_way_stay(workspace: Workspace) -> None:
    folder = workspace.path / "kept"
    executor = FakeExecutor(1, Clock(), interrupt_after=1)
    runner = make_runner(workspace, executor=executor, trials=3)
    runner.checkpoints = folder

    def leave(event: Event) -> None:
        if event.kind == "started" and event.trial is not None:
            for number in (event.trial.number, 7):
                (folder / str(number)).mkdir(parents=True, exist_ok=True)

    runner.on_event = leave
    assert not runner.run()
    running = [str(t.number) for t in workspace.metadata.trials("s") if t.state is TrialState.RUNNING]
    assert running == ["1"]
    assert [p.name for p in folder.iterdir()] == running, "7 is of no trial, 0 has ended"
    again = make_runner(workspace, executor=FakeExecutor(1, Clock()), trials=3)
    again.checkpoints = folder
    again._sweep()
    assert [p.name for p in folder.iterdir()] == running
    assert again.run()
    assert not any(folder.iterdir())
