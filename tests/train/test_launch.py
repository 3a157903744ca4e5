"""Several processes give what one gives, and go on from what any other placement wrote."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, Narrow, accuracy, loss, net

from tidemill.core.errors import OptionError, TrialError, TrialMemoryError
from tidemill.train.planner.choose import decide, learn
from tidemill.train.planner.hardware import preset
from tidemill.train.planner.options import kind_of
from tidemill.train.runtime import train
from tidemill.train.types import Event, Limits, Placement, Recipe, Stop, Trained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PLACES = {
    "one": Placement(device="cpu", micro_batch=5),
    "ddp2": Placement(device="cpu", replicas=2, micro_batch=4),
    "fsdp2": Placement(device="cpu", shards=2, micro_batch=4),
    "fsdp4": Placement(device="cpu", shards=4, micro_batch=3),
}
LAST = replace(RECIPE, keep_best=False)  # a pause is a further evaluation, which may be the best
ONE_STEP_BEFORE_HALF = Limits(epochs=1.9)


def run(place: str, folder: Path | None = None, limits: Limits | None = None, **how: object) -> tuple[Trained, object]:
    module = net()
    trained = train(
        module, loss, Cloud(), LAST, validation=Cloud(21, seed=3), score=accuracy, plan=PLACES[place],
        folder=folder, limits=limits, **how,  # type: ignore[arg-type]
    )  # fmt: skip
    return trained, module


@pytest.fixture(scope="module")
def alone() -> tuple[Trained, object]:
    return run("one")


def crew() -> list[int]:
    """Processes that we have started (not the tracker of Python's own, which stays)."""
    return [c.pid for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]


def agree(other: tuple[Trained, object], alone: tuple[Trained, object]) -> None:
    np.testing.assert_allclose(other[0].losses, alone[0].losses, atol=1e-5)
    ends = [t[0].curve[-1].loss for t in (other, alone)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-5)
    for mine, theirs in zip(other[1].parameters(), alone[1].parameters(), strict=True):  # type: ignore[attr-defined]
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Trainings that each placement began."""
    return _Begun(tmp_path_factory)


class _Begun(dict[str, Path]):
    def __init__(self, factory: pytest.TempPathFactory) -> None:
        super().__init__()
        self._factory = factory

    def __missing__(self, place: str) -> Path:
        self[place] = self._factory.mktemp(place)
        assert run(place, self[place], ONE_STEP_BEFORE_HALF)[0].stop is Stop.PAUSED
        return self[place]


@pytest.mark.parametrize(("first", "second"), itertools.product(PLACES, PLACES))
def test_any_placement_goes_on_from_any_other(
    first: str, second: str, halves: dict[str, Path], alone: tuple[Trained, object], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(halves[first], folder)
    agree(run(second, folder), alone)


@pytest.mark.parametrize(
    "plan",
    [
        Placement(device="cpu", replicas=2, shards=2, micro_batch=2),
        Placement(device="cpu", shards=2, recompute="blocks"),
        Placement(device="cpu", replicas=3, micro_batch=2),
    ],
    ids=lambda plan: plan.describe(),
)
def test_other_placements_are_the_same_without_a_break(plan: Placement, alone: tuple[Trained, object]) -> None:
    module = net()
    trained = train(module, loss, Cloud(), LAST, validation=Cloud(21, seed=3), score=accuracy, plan=plan)
    agree((trained, module), alone)


def test_parameters_without_gradient_don_t_hold_replicas_up() -> None:
    recipe = replace(RECIPE, ema=None, epochs=2)
    one = train(net(unused=True), loss, Cloud(), recipe, plan=PLACES["one"])
    two = train(net(unused=True), loss, Cloud(), recipe, plan=PLACES["ddp2"])
    np.testing.assert_allclose(two.losses, one.losses, atol=1e-5)


def test_more_processes_than_samples_in_a_batch() -> None:
    recipe = Recipe(batch=3, epochs=0.5, lr=0.01)
    one = train(net(), loss, Cloud(), recipe, plan=PLACES["one"])
    four = train(net(), loss, Cloud(), recipe, plan=PLACES["fsdp4"])
    np.testing.assert_allclose(four.losses, one.losses, atol=1e-5)


def test_events_and_a_wish_to_end_cross_processes(tmp_path: Path) -> None:
    heard: list[Event] = []
    limits = Limits(cancelled=lambda: any(e.kind == "point" for e in heard))
    recipe = replace(RECIPE, epochs=10_000)
    trained = train(
        net(), loss, Cloud(), recipe, plan=PLACES["ddp2"], limits=limits, on_event=heard.append, folder=tmp_path
    )
    assert trained.stop is Stop.CANCELLED
    assert {"started", "point", "checkpoint", "ended"} <= {e.kind for e in heard}
    assert not crew()


def test_a_process_that_is_killed_ends_the_others_and_is_named() -> None:
    killed: list[int] = []

    def kill_one(event: Event) -> None:
        if event.kind == "point" and not killed:
            killed.append(max(crew()))
            os.kill(killed[0], signal.SIGKILL)

    began = time.monotonic()
    with pytest.raises(TrialError, match="SIGKILL"):
        train(net(), loss, Cloud(), replace(RECIPE, epochs=100_000), plan=PLACES["ddp2"], on_event=kill_one)
    assert time.monotonic() - began < 60
    assert not crew()


def test_what_can_t_travel_is_said() -> None:
    with pytest.raises(OptionError, match="can't travel to other processes"):
        train(net(), lambda o, t: loss(o, t), Cloud(), RECIPE, plan=PLACES["ddp2"])


def test_an_error_in_a_process_comes_back_as_itself() -> None:
    cloud = Cloud()
    cloud.y = cloud.y + 7
    with pytest.raises(TrialError, match="The module failed at step 1"):
        train(net(), loss, cloud, RECIPE, plan=PLACES["fsdp2"])


def test_out_of_memory_begins_again_with_smaller_pieces() -> None:
    torch.manual_seed(1)
    heard: list[Event] = []
    plan = replace(PLACES["fsdp2"], micro_batch=7)
    trained = train(Narrow(most=4), loss, Cloud(), RECIPE, plan=plan, on_event=heard.append)
    assert trained.placement.micro_batch == 3
    np.testing.assert_allclose(
        trained.losses, train(net(), loss, Cloud(), RECIPE, plan=PLACES["one"]).losses, atol=1e-5
    )


def test_every_kind_of_plan_for_this_machine_gives_the_same(alone: tuple[Trained, object]) -> None:
    """The planner, given four devices of less and less memory, and what it plans, run."""
    example = Cloud().batch(np.arange(2), train=False, rng=np.random.default_rng(0))
    facts = learn(net(), loss, example, LAST, preset("cpu"))
    plans: dict[str, Placement] = {}
    memory = 100_000.0
    while memory > 1000:
        hardware = replace(preset("cpu"), devices=4, memory_bytes=int(memory))
        with contextlib.suppress(TrialMemoryError):
            found = decide(facts, LAST.batch, hardware).placement
            plans.setdefault(kind_of(found), found)
        memory *= 0.95
    assert len(plans) >= 3, plans
    for plan in plans.values():
        module = net()
        trained = train(module, loss, Cloud(), LAST, validation=Cloud(21, seed=3), score=accuracy, plan=plan)
        agree((trained, module), alone)
