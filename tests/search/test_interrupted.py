"""Ctrl-C while nets are being trained: they hand over what they have, in time, and go on where the study is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.search.rungs.test_runner import LADDER, Training
from tests.search.rungs.test_runner import make as make_rungs
from tests.search.test_runner import FakeExecutor, answer, make_runner

from tidemill.core.budget import Budget
from tidemill.core.errors import TrialTimeoutError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.protocols import Outcome
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Trial, TrialState
from tidemill.search.board import ASKED, INTERRUPTED, better
from tidemill.search.events import Event
from tidemill.search.runner import HAND_OVER_S, Runner
from tidemill.search.settings import SearchSettings
from tidemill.search.signals import Switchboard
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


@dataclass
class Patient(FakeExecutor):
    """Trains for hours, until somebody asks for what there is; a person interrupts after so many looks.

    ``busy_s`` seconds pass before the asked ones have ended; the first ``free`` ones end by themselves.
    """

    looks: tuple[int, ...] = (3,)
    busy_s: float = 2.0
    free: int = 0
    cancelled: list[int] = field(default_factory=list)
    _looked: int = 0
    _asked_at: float | None = None

    def wait(self, timeout_s: float | None = None) -> list[Outcome]:
        if not self._running:
            return []
        self._looked += 1
        if self._looked in self.looks:
            raise KeyboardInterrupt
        ticket, (_, step) = next(iter(self._running.items()))
        if self._asked_at is None and step.arguments["signals"].asked_to_end():
            self._asked_at = self.clock.now
        self.free -= 1
        if self.free < 0 and (self._asked_at is None or self.clock.now < self._asked_at + self.busy_s):
            self.clock.now += timeout_s or 0.0
            return []
        del self._running[ticket]
        value = self.play(step.arguments)
        return [Outcome(ticket, error=value) if isinstance(value, BaseException) else Outcome(ticket, value=value)]

    def cancel(self, ticket: int) -> None:
        self.cancelled.append(ticket)
        super().cancel(ticket)


def handing_over(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {**answer(arguments), "folds": 1, "fidelity": 0.4, "stopped": ASKED}


def runner_of(workspace: Workspace, executor: FakeExecutor, **words: Any) -> Runner:
    return replace(make_runner(workspace, executor=executor, **words), signals=Switchboard(workspace.path / "signals"))


def test_what_is_being_trained_is_handed_over_as_interrupted(workspace: Workspace) -> None:
    told: list[Event] = []
    executor = Patient(2, Clock(), play=handing_over)
    assert not runner_of(workspace, executor, listener=told.append).run()
    trials = workspace.metadata.trials("s")
    assert [t.state for t in trials] == [TrialState.COMPLETE] * 2
    assert all("checkpoint" in t.artifacts for t in trials)
    assert [(t.fidelity, t.scores[INTERRUPTED], t.error) for t in trials] == [
        (0.4, 0.4, "Interrupted after 40% of its training.")
    ] * 2
    assert executor.cancelled == []
    assert [e.kind for e in told][-4:] == ["notice", "finished", "finished", "notice"]
    assert "at most 15 s" in next(e.message for e in told if e.kind == "notice")


def test_nobody_waits_for_ever_and_the_slow_one_is_run_again_later(workspace: Workspace) -> None:
    executor = Patient(1, Clock(), play=handing_over, busy_s=3600.0)
    runner = runner_of(workspace, executor)
    assert not runner.run()
    assert HAND_OVER_S <= executor.clock.now <= HAND_OVER_S + 3.0
    assert executor.cancelled
    assert [t.state for t in workspace.metadata.trials("s")] == [TrialState.RUNNING]


def test_who_interrupts_once_more_does_not_wait(workspace: Workspace) -> None:
    executor = Patient(1, Clock(), play=handing_over, looks=(3, 5), busy_s=10.0)
    assert not runner_of(workspace, executor).run()
    assert executor.clock.now < 5.0
    assert executor.cancelled


def test_without_anybody_to_ask_it_ends_at_once(workspace: Workspace) -> None:
    executor = FakeExecutor(2, Clock(), interrupt_after=0)
    assert not make_runner(workspace, executor=executor).run()
    assert executor.clock.now < HAND_OVER_S
    assert {t.state for t in workspace.metadata.trials("s")} == {TrialState.RUNNING}


def test_a_training_that_had_nothing_yet_has_not_failed(workspace: Workspace) -> None:
    executor = Patient(1, Clock(), play=lambda arguments: TrialTimeoutError("There was no time for a single step."))
    assert not runner_of(workspace, executor).run()
    assert [t.state for t in workspace.metadata.trials("s")] == [TrialState.RUNNING]


@pytest.mark.parametrize(("again", "kept"), [(0.5, 0.5), (3.0, None)])
def test_a_resumed_study_runs_it_again_and_the_better_one_stands(
    workspace: Workspace, again: float, kept: float | None
) -> None:
    runner_of(workspace, Patient(1, Clock(), play=handing_over)).run()
    before = workspace.metadata.trials("s")[0]
    seen: list[TrialState] = []

    def play(arguments: Mapping[str, Any]) -> dict[str, Any]:
        seen.append(workspace.metadata.trials("s")[0].state)
        return {**answer(arguments), "fold_scores": (again,)}

    assert runner_of(workspace, FakeExecutor(1, Clock(), play=play), trials=1).run()
    (after,) = workspace.metadata.trials("s")
    assert seen == [TrialState.COMPLETE], "what it had stands until there is more"
    assert after.state is TrialState.COMPLETE
    assert INTERRUPTED not in after.scores
    assert after.fold_scores == (before.fold_scores if kept is None else (kept,))
    assert runner_of(workspace, FakeExecutor(1, Clock(), play=play), trials=1).run()
    assert len(seen) == 1, "it is not run a third time"


def test_a_second_run_that_fails_takes_nothing_away(workspace: Workspace) -> None:
    runner_of(workspace, Patient(1, Clock(), play=handing_over)).run()
    before = workspace.metadata.trials("s")
    executor = FakeExecutor(1, Clock(), play=lambda arguments: TrialTimeoutError("Too late."))
    assert runner_of(workspace, executor, trials=1).run()
    assert workspace.metadata.trials("s") == before


def test_of_two_interruptions_the_further_one_counts() -> None:
    def ended(loss: float, share: float) -> Trial:
        return Trial(
            "s", 0, {"family": "f"}, TrialState.COMPLETE, "f", fold_scores=(loss,), scores={INTERRUPTED: share},
            artifacts={"checkpoint": "c"},
        )  # fmt: skip

    metric = get_metric("rmse")
    assert better(ended(2.0, 0.4), ended(1.0, 0.6), metric).scores[INTERRUPTED] == 0.6
    assert better(ended(1.0, 0.4), ended(2.0, 0.1), metric).scores[INTERRUPTED] == 0.4


@dataclass
class Halfway(Training):
    """A leg that is asked to end keeps in its folder how far it came."""

    def __call__(self, arguments: Mapping[str, Any]) -> Any:
        result = super().__call__(arguments)
        if not arguments["signals"].asked_to_end():
            return result
        return {**result, "fidelity": 0.5, "stopped": ASKED}


def test_a_leg_hands_over_too_keeps_its_folder_and_goes_on(workspace: Workspace) -> None:
    signals = Switchboard(workspace.path / "signals")
    runner = replace(make_rungs(workspace, Halfway(), trials=1, time_s=1e6), signals=signals)
    runner.executor = Patient(1, Clock(), play=Halfway())
    runner.clock = runner.executor.clock
    assert not runner.run()
    (trial,) = workspace.metadata.trials("s")
    assert trial.state is TrialState.COMPLETE
    assert trial.scores[INTERRUPTED] == 0.5
    assert not any(name.startswith("valid@") for name in trial.scores), "it came to no rung"
    kept = workspace.path / "rungs" / "s" / "0" / "epochs"
    assert kept.exists()

    kept.write_text("0")  # in the middle of the first leg
    again = Halfway()
    assert replace(make_rungs(workspace, again, trials=1), signals=Switchboard(signals.folder)).run()
    (trial,) = workspace.metadata.trials("s")
    assert [(start, end) for _, start, end in again.trained] == [(0, 1), (1, 3), (3, 9)]
    assert INTERRUPTED not in trial.scores
    assert f"valid@{LADDER.most}" in trial.scores
    assert not kept.exists()


def test_the_best_that_paused_is_there_beside_what_a_leg_handed_over(workspace: Workspace) -> None:
    executor = Patient(1, Clock(), play=Halfway(), free=1)
    runner = make_rungs(workspace, Halfway(), trials=2)
    runner = replace(runner, executor=executor, clock=executor.clock, signals=Switchboard(workspace.path / "signals"))
    assert not runner.run()
    paused, handed = workspace.metadata.trials("s")
    assert (paused.state, paused.error) == (TrialState.COMPLETE, "Its training was not brought to its end.")
    assert (handed.state, INTERRUPTED in handed.scores) == (TrialState.COMPLETE, True)


def test_a_net_that_was_being_trained_is_shipped_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="nets are trained")
    pytest.importorskip("onnxscript", reason="a measured trial exports its net")
    from tests.search.rungs.test_nets import images

    from tidemill.bundle.images.encoder import ImageEncoder
    from tidemill.core.schema import Schema
    from tidemill.models.vision._base import ImageProfile
    from tidemill.search.fit import run_search
    from tidemill.search.images.executor import open_executor
    from tidemill.search.images.material import ImageMaterial

    x, y = images(600)
    material = ImageMaterial(
        encoder=ImageEncoder(12, 12, 1), schema=Schema(()), profile=ImageProfile.of(x, mirrored=False), x=x, y=y,
        rows=np.arange(len(y)), columns={},
    )  # fmt: skip
    monkeypatch.setattr("tidemill.search.runner.HAND_OVER_S", 120.0)  # on busy machines
    settings, budget = SearchSettings(families=("resnet9",)), Budget(trials=3, cpus=1)
    told: list[Event] = []

    def hear(event: Event) -> None:
        told.append(event)
        if [e.kind for e in told].count("point") == 1 and event.kind == "point":
            raise KeyboardInterrupt

    task = Task(TaskKind.BINARY, "y", classes=("a", "b"), positive="b")
    with Workspace.open(tmp_path / "ws") as opened, open_executor(budget, settings) as executor:
        study = run_search(
            opened, "s", material, task, parse_objective("minimize log_loss"), budget, settings, executor=executor,
            on_event=hear,
        )  # fmt: skip
        (trial,) = study.trials()
        assert study.record.state == "interrupted"
        assert 0.0 < trial.fidelity == trial.scores[INTERRUPTED] < 1.0
        assert set(study.best.weights) == {trial.number}
        point = next(e.point for e in told if e.kind == "point")
        assert point is not None
        assert (point.step, point.value) in trial.curve, "what is told live is what is kept"


def test_what_was_handed_over_keeps_its_checkpoints_until_it_was_run_again(workspace: Workspace) -> None:
    folder = workspace.path / "kept"
    (folder / "0").mkdir(parents=True)
    runner = runner_of(workspace, Patient(1, Clock(), play=handing_over))
    runner.checkpoints = folder

    def keeping(event: Event) -> None:
        if event.kind == "started":  # the sweep before it found nothing of this trial
            (folder / "0").mkdir(exist_ok=True)

    runner.on_event = keeping
    assert not runner.run()
    assert (folder / "0").exists()
    failing = FakeExecutor(1, Clock(), play=lambda arguments: TrialTimeoutError("Too late."))
    again = runner_of(workspace, failing, trials=1)
    again.checkpoints = folder
    assert again.run()
    assert not (folder / "0").exists(), "who failed from it is not sent on from it again"
