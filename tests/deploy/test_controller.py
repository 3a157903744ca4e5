"""Canaries go from step to step by records alone: whoever looks, and however often they are started again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.deploy.conftest import FakeClock

from tidemill.core.errors import ConflictError, WorkspaceError
from tidemill.deploy.audit import read_audit
from tidemill.deploy.canary import Action
from tidemill.deploy.controller import Controller, read_bars, write_bars
from tidemill.deploy.registry import GATE, Mode, Registry
from tidemill.deploy.types import CanaryStep
from tidemill.deploy.watch.window import DEPLOY_WINDOW, LATENCY_BOUNDS_MS, STAGES, Window
from tidemill.store.workspace import Workspace

Bundles = Callable[[int], Path]
STEPS = (CanaryStep(0.05, 100, 10), CanaryStep(0.25, 100, 10), CanaryStep(1.0))


@pytest.fixture
def canary(registry: Registry, small_bundles: Callable[[int], Path]) -> tuple[str, str]:
    """A canary at its first step: the baseline and the new revision."""
    first = registry.deploy(small_bundles(0), "fraud").id
    registry.mark_ready("fraud", first)
    second = registry.deploy(small_bundles(1), "fraud", mode=Mode.CANARY, steps=STEPS).id
    registry.mark_ready("fraud", second)
    return first, second


def count(workspace: Workspace, revision: str, requests: int, errors: int = 0, front: str = "f1") -> None:
    """Write what a front has counted by now."""
    cells = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    cells[12] = requests
    window = Window(requests=requests, errors=errors, latency_counts={s: list(cells) for s in STAGES})
    workspace.records.put(DEPLOY_WINDOW, f"fraud/{revision}/{front}", window.to_json())


def test_a_good_revision_gets_all_of_the_traffic(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    seen: list[float] = []
    for look in range(1, 9):
        count(workspace, new, 60 * look)
        count(workspace, old, 1000 * look)
        Controller(workspace, clock=clock).tick()  # a new one each time: nothing is kept but in records
        seen.append(registry.get("fraud").traffic[new])
        clock.go(6)
    assert sorted(set(seen)) == [0.05, 0.25, 1.0]
    assert seen == sorted(seen)
    assert registry.get("fraud").canary is None
    assert registry.get("fraud").previous == old
    assert registry.rollback("fraud").traffic == {old: 1.0}


def test_a_bad_revision_goes_back_and_its_reason_is_kept(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    controller = Controller(workspace, clock=clock)
    count(workspace, old, 10_000)
    controller.tick()
    count(workspace, new, 60, errors=30)
    count(workspace, old, 11_000)
    verdict = controller.tick()["fraud"]
    assert verdict.action is Action.BACK
    now = registry.get("fraud")
    assert now.traffic == {old: 1.0}
    assert now.canary is None
    assert next(r for r in now.revisions if r.id == new).reason == verdict.reason
    line = read_audit(workspace.journal, stream="deploy/fraud")[-1]
    assert (line["what"], line["actor"]) == ("canary_rollback", "controller")
    assert line["facts"]["reason"].startswith("errors: 30 of 60 (50.00%)")
    assert line["facts"]["chance"]["errors"] < 0.001


def test_a_front_that_starts_again_loses_no_counts(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    Controller(workspace, clock=clock).tick()
    count(workspace, new, 70, front="f1")
    count(workspace, new, 70, front="f2")  # a new name for each start
    count(workspace, old, 2000)
    clock.go(11)
    assert Controller(workspace, clock=clock).tick()["fraud"].action is Action.STEP
    assert registry.get("fraud").traffic[new] == 0.25


def test_two_controllers_take_a_step_once(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    one, two = Controller(workspace, clock=clock), Controller(workspace, clock=clock)
    one.tick()
    two.tick()
    count(workspace, new, 200)
    count(workspace, old, 4000)
    clock.go(11)
    step_at = registry.get("fraud").canary
    assert step_at is not None
    one.tick()
    with pytest.raises(ConflictError):
        registry.step_canary("fraud", at=step_at.step_at)
    two.tick()
    assert registry.get("fraud").traffic[new] == 0.25


def test_a_canary_that_a_person_ended_is_left_alone(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    controller = Controller(workspace, clock=clock)
    controller.tick()
    registry.rollback("fraud")
    count(workspace, new, 500)
    clock.go(100)
    assert controller.tick() == {}
    assert registry.get("fraud").traffic == {old: 1.0}


def test_a_new_step_begins_to_count_anew(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    controller = Controller(workspace, clock=clock)
    controller.tick()
    count(workspace, new, 200)
    count(workspace, old, 4000)
    clock.go(11)
    controller.tick()
    clock.go(11)
    verdict = controller.tick()["fraud"]
    assert verdict.action is Action.WAIT
    assert verdict.facts["requests"] == 0
    assert workspace.records.get(GATE, "fraud").body["new"]["requests"] == 200


def test_bars_are_kept_and_used(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str]
) -> None:
    old, new = canary
    write_bars(registry, "fraud", {"errors": 0.9})
    assert read_bars(workspace, "fraud").errors == 0.9
    controller = Controller(workspace, clock=clock)
    controller.tick()
    count(workspace, new, 60, errors=30)
    count(workspace, old, 1000)
    assert controller.tick()["fraud"].action is Action.WAIT
    assert read_audit(workspace.journal)[-1]["what"] == "gate"


def test_the_loop_survives_a_database_that_is_away(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    controller, stop, told = Controller(workspace), threading.Event(), []
    looks = 0

    def tick() -> dict[str, object]:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise WorkspaceError("The database server can't be reached.")
        if looks == 3:
            stop.set()
        return {}

    monkeypatch.setattr(controller, "tick", tick)
    thread = threading.Thread(target=controller.run, args=(stop,), kwargs={"every_s": 0.01, "tell": told.append})
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert looks == 3
    assert told == ["The database server can't be reached."]


def test_one_canary_that_can_not_be_judged_holds_no_other_up(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str], small_bundles: Bundles
) -> None:
    """Its records are damaged, or of another version."""
    old, new = canary
    for number, mode in ((0, Mode.ALL), (1, Mode.CANARY)):
        revision = registry.deploy(small_bundles(number), "churn", mode=mode, steps=STEPS).id
        registry.mark_ready("churn", revision)
    controller, told = Controller(workspace, clock=clock), []
    controller.tick()
    for body in ({"step": "odd"}, {"step_at": "x", "new": 3}, {**workspace.records.get(GATE, "churn").body, "bars": 3}):
        workspace.records.put(GATE, "churn", body)
        assert list(controller.tick()) == ["fraud"]
        assert "churn: its canary can't be judged" in controller.problems["churn"]
    count(workspace, old, 9_000)
    count(workspace, new, 60, errors=50)
    assert controller.tick()["fraud"].action is Action.BACK
    stop = threading.Event()
    looking = threading.Thread(target=controller.run, args=(stop,), kwargs={"every_s": 0.01, "tell": told.append})
    looking.start()
    end = time.monotonic() + 60
    while not told and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.3)  # some looks more
    stop.set()
    looking.join(60)
    assert len(told) == 1  # once, however often it looks


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_a_step_takes_its_time_whatever_the_clock_on_the_wall_does(
    registry: Registry, workspace: Workspace, clock: FakeClock, canary: tuple[str, str], jump: float
) -> None:
    old, new = canary
    steady = FakeClock(5.0)
    controller = Controller(workspace, clock=clock, steady=steady)
    controller.tick()
    count(workspace, new, 200)
    count(workspace, old, 4000)
    for seconds, weight in ((4.0, 0.05), (5.0, 0.05), (2.0, 0.25)):
        clock.go(jump)
        steady.go(seconds)
        controller.tick()
        assert registry.get("fraud").traffic[new] == weight
