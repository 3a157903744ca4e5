"""Searches on rungs: trials go on in place, the ledger tells their way, and the same seed gives the same legs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.search.test_runner import TASK, FakeExecutor, ToyFamily

from tidemill.core.errors import TrialError, TrialTimeoutError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.pack import pack
from tidemill.core.space import config_key
from tidemill.core.trial import Cost, StudyRecord, Trial, TrialState
from tidemill.models.tabular._base import TableProfile
from tidemill.search.evaluate import Assignment
from tidemill.search.events import Event
from tidemill.search.forecast import Forecast
from tidemill.search.gate import Gate
from tidemill.search.rungs.ladder import Ladder
from tidemill.search.rungs.losses import rung_losses
from tidemill.search.rungs.runner import RungRunner
from tidemill.search.rungs.schedule import RungSchedule
from tidemill.search.runner import GRACE_S, Limits
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.search.settings import SearchSettings
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock
from tidemill.testing.sampler import example_space

LADDER = Ladder(1, 9)


@dataclass
class Training:
    """Plays trainings that keep how far they have come in their folder."""

    trained: list[tuple[str, int, int]] = field(default_factory=list)
    fails: Callable[[str, int], bool] = lambda key, epochs: False

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        rung, key = arguments["rung"], config_key(arguments["config"])
        kept = Path(rung.folder) / "epochs"
        done = int(kept.read_text()) if kept.exists() else 0
        assert rung.of == LADDER.most
        assert done < rung.epochs, "what is trained already is not trained again"
        if self.fails(key, rung.epochs):
            return TrialError("The loss is no number.")
        self.trained.append((key, done, rung.epochs))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(str(rung.epochs))
        base = np.random.default_rng(sum(ord(c) * (i + 1) for i, c in enumerate(key))).uniform(1, 2)
        value = float(base + 1 / rung.epochs)
        return {
            "oof": np.ones((5, 1), dtype=np.float32),
            "test": None,
            "checkpoint": pack({"models": []}),
            "fold_scores": (value,),
            "scores": {"rmse": value},
            "cost": Cost(params=3, flops=5, size_bytes=100),
            "curve": tuple((10 * e, float(base + 1 / e)) for e in range(done + 1, rung.epochs + 1)),
            "folds": 1,
            "fidelity": 1.0,
            "stopped": None,
            "probe": None,
        }

    @property
    def epochs(self) -> int:
        return sum(end - start for _, start, end in self.trained)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


def make(
    workspace: Workspace,
    training: Training,
    *,
    study: str = "s",
    workers: int = 1,
    seed: int = 0,
    trials: int | None = 12,
    time_s: float | None = None,
    interrupt_after: int = 10**9,
    objective: str = "minimize rmse",
    listener: Callable[[Event], None] = lambda event: None,
    brackets: int = 1,
    losses: Callable[[Sequence[Trial]], Mapping[int, float]] | None = None,
) -> RungRunner:
    if study not in [r.name for r in workspace.metadata.studies()]:
        workspace.metadata.create_study(StudyRecord(study, TASK.to_json(), objective, [], {}, "", {}, "running", 0.0))
    executor = FakeExecutor(workers, Clock(), seed, play=training, interrupt_after=interrupt_after)
    wanted, metric = parse_objective(objective).resolve(TASK), get_metric("rmse")
    sampler = ChainSampler(
        [BaselineSampler(({"family": "linear"}, {"family": "trees"}))],
        TPESampler(0, losses or (lambda known: rung_losses(known, LADDER.levels, metric))),
    )
    return RungRunner(
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
        forecast=Forecast(5, 1, 1),
        rows=np.arange(5),
        on_event=listener,
        clock=executor.clock,
        schedule=RungSchedule(LADDER, brackets=brackets),
        folder=workspace.path / "rungs" / study,
    )


def told(workspace: Workspace, study: str = "s") -> list[tuple[str, str, tuple[str, ...]]]:
    """Config, state and levels of every trial."""
    return [
        (config_key(t.config), t.state.value, tuple(sorted(s for s in t.scores if s.startswith("valid@"))))
        for t in workspace.metadata.trials(study)
    ]


def test_trials_pause_climb_in_place_and_the_best_comes_to_its_end(workspace: Workspace) -> None:
    training, kinds = Training(), []
    runner = make(workspace, training, listener=lambda e: kinds.append(e.kind))
    assert runner.run()
    trials = workspace.metadata.trials("s")
    assert len(trials) == 12
    assert {t.state for t in trials} == {TrialState.PAUSED, TrialState.COMPLETE}
    whole = [t for t in trials if t.state is TrialState.COMPLETE]
    best = min(trials, key=lambda t: t.curve[0][1])
    assert best in whole
    assert best.scores.keys() >= {"valid@1", "valid@3", "valid@9", "rmse"}
    assert [step for step, _ in best.curve] == list(range(10, 100, 10)), "one curve over all legs"
    assert best.usage.wall_s == pytest.approx(3.0), "three legs of a second"
    assert (best.fidelity, trials[0].fidelity in (1 / 9, 1 / 3, 1.0)) == (1.0, True)
    assert training.epochs == runner.epochs < 12 * 9 / 2
    assert kinds.count("finished") == len(whole)
    assert kinds.count("paused") + kinds.count("finished") == len(training.trained)


def test_folders_of_trials_that_came_to_their_end_are_removed_and_others_stay(workspace: Workspace) -> None:
    make(workspace, Training()).run()
    there = {int(p.name) for p in (workspace.path / "rungs" / "s").iterdir()}
    assert there == {t.number for t in workspace.metadata.trials("s") if t.state is TrialState.PAUSED}


def test_folders_that_nobody_can_go_on_from_are_removed(workspace: Workspace) -> None:
    folder = workspace.path / "rungs" / "s"
    make(workspace, Training()).run()
    trials = workspace.metadata.trials("s")
    over = next(t.number for t in trials if t.state is TrialState.COMPLETE)
    paused = next(t.number for t in trials if t.state is TrialState.PAUSED)
    for left in (str(over), "4711", ".part", "odd"):
        (folder / left).mkdir()
    make(workspace, Training()).run()
    there = {p.name for p in folder.iterdir()}
    assert str(paused) in there, "a resumed study may let it go on"
    assert not there & {str(over), "4711", ".part", "odd"}


def test_a_best_one_that_was_taken_as_it_is_can_go_on(workspace: Workspace) -> None:
    make(workspace, Training(fails=lambda key, epochs: epochs == LADDER.most)).run()
    (taken,) = [t for t in workspace.metadata.trials("s") if t.state is TrialState.COMPLETE]
    assert (workspace.path / "rungs" / "s" / str(taken.number)).is_dir()


def test_same_seed_same_legs_at_any_number_of_workers(workspace: Workspace) -> None:
    runs = []
    for workers, seed in [(1, 0), (2, 1), (3, 2), (4, 3), (2, 4)]:
        study = f"s{workers}{seed}"
        training = Training()
        assert make(workspace, training, study=study, workers=workers, seed=seed, trials=20).run()
        runs.append((told(workspace, study), sorted(training.trained)))
    assert len(runs[0][0]) == 20
    assert all(run == runs[0] for run in runs)


@pytest.mark.parametrize("after", [1, 5, 11, 16])
def test_a_search_that_was_killed_goes_on_and_trains_no_epoch_twice(workspace: Workspace, after: int) -> None:
    training = Training()
    make(workspace, training, workers=3, interrupt_after=after).run()
    make(workspace, training, workers=2).run()
    states = [t.state for t in workspace.metadata.trials("s")]
    assert len(states) == 12
    assert TrialState.COMPLETE in states
    assert TrialState.RUNNING not in states
    spans = [(key, epoch) for key, start, end in training.trained for epoch in range(start, end)]
    assert len(spans) == len(set(spans))


def test_a_trial_that_fails_higher_up_keeps_what_it_had(workspace: Workspace) -> None:
    training = Training(fails=lambda key, epochs: epochs == 3)
    assert make(workspace, training).run()
    trials = workspace.metadata.trials("s")
    failed = [t for t in trials if t.error == "The loss is no number."]
    assert failed
    assert {t.state for t in failed} == {TrialState.PAUSED}
    assert all("valid@1" in t.scores for t in failed)


def test_a_trial_that_fails_at_once_has_failed(workspace: Workspace) -> None:
    training = Training(fails=lambda key, epochs: "linear" in key)
    assert make(workspace, training).run()
    trials = workspace.metadata.trials("s")
    assert {t.state for t in trials if t.family == "linear"} == {TrialState.FAILED}
    assert any(t.state is TrialState.COMPLETE for t in trials)


def test_where_nobody_comes_to_the_end_the_best_is_taken_as_it_is(workspace: Workspace) -> None:
    training = Training(fails=lambda key, epochs: epochs == LADDER.most)
    assert make(workspace, training).run()
    trials = workspace.metadata.trials("s")
    whole = [t for t in trials if t.state is TrialState.COMPLETE]
    assert len(whole) == 1
    assert whole[0].error == "Its training was not brought to its end."
    assert "checkpoint" in whole[0].artifacts


def test_under_a_time_limit_the_finals_are_not_forgotten(workspace: Workspace) -> None:
    runner = make(workspace, Training(), workers=2, trials=None, time_s=30.0)
    assert runner.run()
    trials = workspace.metadata.trials("s")
    assert any(t.state is TrialState.COMPLETE and "valid@9" in t.scores for t in trials)
    assert all(t.state is not TrialState.RUNNING for t in trials)
    assert runner.clock() <= 30.0 + 0.5 * GRACE_S + 0.5  # what is about to end may end


@dataclass
class Short(Training):
    """Trainings of which the last leg has to be shortened."""

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        result = super().__call__(arguments)
        return {**result, "fidelity": 0.7} if arguments["rung"].epochs == LADDER.most else result


def test_a_training_that_was_shortened_came_to_its_end_and_says_when(workspace: Workspace) -> None:
    training = Short()
    runner = make(workspace, training, trials=None, time_s=30.0)
    assert runner.run()
    trials = workspace.metadata.trials("s")
    whole = [t for t in trials if t.state is TrialState.COMPLETE]
    assert whole
    for trial in whole:
        assert trial.scores["ended_after"] == pytest.approx(6.3)
        assert "valid@9" not in trial.scores
        assert trial.fidelity == pytest.approx(0.7)
        assert trial.error == "Shortened to the time that was left: 6.3 of 9 epochs."
        assert not (workspace.path / "rungs" / "s" / str(trial.number)).exists()
    ends = [key for key, _, end in training.trained if end == LADDER.most]
    assert len(ends) == len(set(ends)), "nobody is sent to the end twice"
    ended = {t.number for t in whole}
    rest = sum(max(int(n.removeprefix("valid@")) for n in t.scores if n.startswith("valid@"))
               for t in trials if t.number not in ended and t.state is TrialState.PAUSED)  # fmt: skip
    assert runner.epochs == pytest.approx(6.3 * len(whole) + rest)

    again = Short()
    assert make(workspace, again, trials=len(trials)).run()
    assert not {key for key, _, end in again.trained if end == LADDER.most} & set(ends)


def test_in_a_hurry_the_leader_goes_to_its_end_in_one_leg_with_all_the_time_that_is_left(workspace: Workspace) -> None:
    training = Training()
    runner = make(workspace, training, trials=None, time_s=5.0)
    given: list[tuple[int, float, float]] = []
    submit = runner.executor.submit

    def noted(step: Any) -> int:
        given.append((step.arguments["rung"].epochs, step.arguments["time_s"], runner.clock()))
        return submit(step)

    runner.executor.submit = noted  # type: ignore[method-assign]
    assert runner.run()
    assert training.trained[0][1:] == (0, 1)
    assert training.trained[1] == (training.trained[0][0], 1, 9)
    (epochs, time_s, now) = given[1]
    assert epochs == 9
    assert time_s == pytest.approx(5.0 - now)
    assert given[0][1] < 0.5 * 5.0, "others get their share"


@dataclass
class Slow(Training):
    """Trainings that come to no rung in time, and keep what they have; the last leg is shortened."""

    given: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        rung = arguments["rung"]
        self.given.append((rung.epochs, arguments["time_s"]))
        kept = Path(rung.folder) / "steps"
        if rung.epochs < LADDER.most:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text("7")
            return TrialTimeoutError("Its time was over before its rung.")
        assert kept.read_text() == "7", "it goes on from where it was"
        return {**super().__call__(arguments), "fidelity": 0.02}


@pytest.mark.parametrize("workers", [1, 2])
def test_where_no_first_rung_is_reached_in_time_there_is_an_answer_all_the_same(
    workspace: Workspace, workers: int
) -> None:
    training, told_of = Slow(), []
    runner = make(workspace, training, trials=None, time_s=40.0, workers=workers, listener=told_of.append)
    assert runner.run()
    trials = workspace.metadata.trials("s")
    whole = [t for t in trials if t.state is TrialState.COMPLETE]
    assert len(whole) == 1
    assert whole[0].scores["ended_after"] == pytest.approx(0.02 * LADDER.most)
    assert whole[0].error == "Shortened to the time that was left: 0.2 of 9 epochs."
    assert whole[0].usage.wall_s == pytest.approx(2.0), "of both legs"
    notices = [e for e in told_of if e.kind == "notice"]
    assert ["was not on its first rung in time" in e.message for e in notices] == [True]
    assert [e.kind for e in told_of].index("notice") < [e.kind for e in told_of].index("finished")
    ends = [time_s for epochs, time_s in training.given if epochs == LADDER.most]
    assert len(ends) == 1, "others have failed once there is something"
    assert ends[0] > 0.6 * 40.0, "with all the time that is left"
    assert not list((workspace.path / "rungs" / "s").glob("*/steps"))


def test_what_breaks_a_bound_is_rejected_unseen(workspace: Workspace) -> None:
    training = Training()
    make(workspace, training, objective="minimize rmse; params <= 50").run()
    trials = workspace.metadata.trials("s")
    rejected = [config_key(t.config) for t in trials if t.state is TrialState.REJECTED]
    assert not {key for key, _, _ in training.trained} & set(rejected)
    assert sum(t.state is not TrialState.REJECTED for t in trials) == 12


def test_a_trial_comes_back_from_the_ledger_with_its_way(workspace: Workspace) -> None:
    make(workspace, Training()).run()
    kept: list[Trial] = list(workspace.metadata.trials("s"))
    assert all(t.curve and t.scores for t in kept if t.state is TrialState.PAUSED)


def test_what_both_brackets_found_reaches_the_sampler(workspace: Workspace) -> None:
    training, metric = Training(), get_metric("rmse")
    learned: list[Mapping[int, float]] = []

    def losses(known: Sequence[Trial]) -> Mapping[int, float]:
        learned.append(rung_losses(known, LADDER.levels, metric))
        return learned[-1]

    assert make(workspace, training, trials=20, brackets=2, losses=losses).run()
    trials = workspace.metadata.trials("s")
    first = [min(int(name.removeprefix("valid@")) for name in t.scores if name.startswith("valid@")) for t in trials]
    assert {epochs: first.count(epochs) for epochs in set(first)} == {1: 13, 3: 7}, "9 and 5 of 14 begin there"
    seen = {first[number] for number in learned[-1]}
    assert seen == {1, 3}
    assert all(np.isfinite(value) for value in learned[-1].values())
    low = [n for n in learned[-1] if first[n] == 1 and "valid@3" not in trials[n].scores]
    assert low, "whoever stayed on the lowest rung is compared with those that began on the next"
    assert all(learned[-1][n] != trials[n].scores["valid@1"] for n in low)


def test_brackets_change_what_is_asked_for(workspace: Workspace) -> None:
    one, two = Training(), Training()
    assert make(workspace, one, study="one", trials=20).run()
    assert make(workspace, two, study="two", trials=20, brackets=2).run()
    assert {t[1:] for t in one.trained} == {(0, 1), (1, 3), (3, 9)}
    assert (0, 3) in {t[1:] for t in two.trained}
