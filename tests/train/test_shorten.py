"""A training whose deadline comes before its end goes through the rest of its schedule in the time that there is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="deep training needs the extra 'deep'")

from tests.train.small import RECIPE, Cloud, accuracy, loss, net

from tidemill.testing.clock import Clock
from tidemill.train import checkpoint
from tidemill.train.place import Group
from tidemill.train.schedule import bent, factor
from tidemill.train.session import Session
from tidemill.train.task import Task
from tidemill.train.types import Event, Limits, Placement, Recipe, Stop, Trained

LONG = replace(RECIPE, epochs=26.0, schedule="linear", warmup=0.1)
"""A hundred steps."""
PEAK = LONG.lr


@dataclass
class Timed(Cloud):
    """A batch takes a second, one that is only looked at a tenth; after so many batches ``slow`` times as long."""

    clock: Clock = field(default_factory=Clock)
    slower_after: int = 10**9
    slow: float = 2.0
    given: int = 0

    def batch(self, indices: Any, *, train: bool, rng: Any) -> Any:
        self.given += train
        slow = self.slow if self.given > self.slower_after else 1.0
        self.clock.now += slow if train else 0.1
        return super().batch(indices, train=train, rng=rng)


def run(
    clock: Clock,
    limits: Limits,
    *,
    folder: Path | None = None,
    slower_after: int = 10**9,
    slow: float = 2.0,
    recipe: Recipe = LONG,
    told: list[Event] | None = None,
) -> Trained:
    samples, checks = Timed(clock=clock, slower_after=slower_after, slow=slow), Timed(30, seed=5, clock=clock)
    task = Task(net(), loss, samples, recipe, checks, accuracy, limits, 0, folder)
    group = Group(torch.device("cpu"), Placement(device="cpu", micro_batch=13))
    return Session(task, group, None if told is None else told.append, clock=clock).run()


def test_it_ends_annealed_within_its_time() -> None:
    clock, told = Clock(), list[Event]()
    trained = run(clock, Limits(deadline=60.0, shorten=True), told=told)
    assert trained.stop is Stop.SHORTENED
    assert 50 <= trained.step < 60
    assert 55.0 < clock.now <= 60.0
    assert trained.curve[-1].step == trained.step
    assert trained.curve[-1].lr < 0.05 * PEAK
    assert [e.message for e in told if e.kind == "warning"] == [
        f"There is no time for all 100 steps: the schedule ends after {trained.step}."
    ]


def test_until_it_is_shortened_it_is_the_training_that_it_was() -> None:
    whole, short = run(Clock(), Limits()), run(Clock(), Limits(deadline=60.0, shorten=True))
    assert short.losses[:7] == whole.losses[:7], "a tenth of the time tells how long steps take"
    assert short.losses[10:20] != whole.losses[10:20]


def test_where_there_is_time_nothing_is_changed() -> None:
    whole, timed = run(Clock(), Limits()), run(Clock(), Limits(deadline=110.0, shorten=True))
    assert timed.stop is Stop.DONE
    assert timed.losses == whole.losses
    assert [p.lr for p in timed.curve] == [p.lr for p in whole.curve]


def test_where_it_gets_slower_on_its_way_it_is_shortened_again() -> None:
    clock = Clock()
    trained = run(clock, Limits(deadline=60.0, shorten=True), slower_after=30)
    assert trained.stop is Stop.SHORTENED
    assert 35 <= trained.step < 50
    assert clock.now <= 60.0
    assert trained.curve[-1].lr < 0.15 * PEAK


def test_where_it_gets_quicker_on_its_way_it_is_lengthened_again() -> None:
    clock = Clock()
    trained = run(clock, Limits(deadline=60.0, shorten=True), slower_after=20, slow=0.5)
    assert trained.stop is Stop.SHORTENED
    assert 75 <= trained.step < 100
    assert 50.0 < clock.now <= 60.0
    assert trained.curve[-1].lr < 0.05 * PEAK


def test_it_is_never_longer_than_it_was_meant_to_be() -> None:
    clock = Clock()
    trained = run(clock, Limits(deadline=60.0, shorten=True), slower_after=20, slow=0.01)
    assert trained.step == 100
    assert clock.now < 30.0


FEW = replace(LONG, epochs=5.2)
"""Twenty steps, which is what seemed to fit."""


def test_where_there_is_more_time_it_is_lengthened_to_fill_it() -> None:
    clock, told = Clock(), list[Event]()
    trained = run(clock, Limits(deadline=60.0, shorten=True, longest=26.0), recipe=FEW, told=told)
    assert (trained.stop, trained.through) == (Stop.DONE, 1.0)
    assert 50 <= trained.step < 60
    assert 50.0 < clock.now <= 60.0
    assert trained.curve[-1].step == trained.step
    assert trained.curve[-1].lr < 0.1 * PEAK
    said = [e.message for e in told if e.kind == "lengthened"]
    assert len(said) == 1
    assert said[0].startswith("There is time for more than 20 steps: the schedule ends after ")


def test_it_is_lengthened_no_further_than_allowed_and_never_unasked() -> None:
    for deadline in (150.0, 1000.0):  # of the longer one not a tenth has passed at the end
        trained = run(Clock(), Limits(deadline=deadline, shorten=True, longest=7.8), recipe=FEW)
        assert (trained.step, trained.stop) == (30, Stop.DONE)
    for limits in (Limits(deadline=60.0, shorten=True), Limits(deadline=60.0, longest=26.0), Limits(longest=26.0)):
        assert run(Clock(), limits, recipe=FEW).step == 20
    pausing = run(Clock(), Limits(deadline=60.0, shorten=True, longest=26.0, epochs=2.6), recipe=FEW)
    assert (pausing.step, pausing.stop, pausing.through) == (10, Stop.PAUSED, 0.5)


def test_what_was_lengthened_is_shortened_where_it_gets_slower() -> None:
    clock = Clock()
    trained = run(clock, Limits(deadline=60.0, shorten=True, longest=26.0), recipe=FEW, slower_after=30)
    assert 35 <= trained.step < 50
    assert clock.now <= 60.0
    assert trained.curve[-1].lr < 0.2 * PEAK


def test_a_lengthened_training_goes_on_and_is_not_done_again(tmp_path: Path) -> None:
    whole = run(Clock(), Limits(deadline=60.0, shorten=True, longest=26.0), recipe=FEW)
    clock = Clock()
    limits = Limits(deadline=60.0, shorten=True, longest=26.0, cancelled=lambda: clock.now > 25)
    first = run(clock, limits, recipe=FEW, folder=tmp_path)
    assert first.stop is Stop.CANCELLED
    assert 0.2 < first.through < 0.6, "of the longer schedule"
    last = Limits(deadline=61.0, shorten=True, longest=26.0)
    second = run(clock, last, recipe=FEW, folder=tmp_path)
    assert (second.step, second.losses) == (whole.step, whole.losses)
    again = run(clock, Limits(deadline=1000.0, shorten=True, longest=26.0), recipe=FEW, folder=tmp_path)
    assert (again.stop, again.step) == (Stop.DONE, whole.step)


def test_nobody_shortens_what_was_not_to_be_shortened() -> None:
    plain = run(Clock(), Limits(deadline=60.0))
    assert plain.stop is Stop.TIME
    assert plain.curve[-1].lr > 0.4 * PEAK
    pausing = run(Clock(), Limits(deadline=40.0, epochs=20.0, shorten=True))
    assert pausing.stop is Stop.TIME, "what pauses has no end yet"
    without = run(Clock(), Limits(shorten=True))
    assert without.stop is Stop.DONE


@pytest.mark.parametrize("after", [3.0, 30.0, 50.0])
def test_a_resume_goes_on_as_if_nothing_had_been(tmp_path: Path, after: float) -> None:
    whole = run(Clock(), Limits(deadline=60.0, shorten=True))
    clock = Clock()
    first = run(clock, Limits(deadline=60.0, shorten=True, cancelled=lambda: clock.now > after), folder=tmp_path)
    assert first.stop is Stop.CANCELLED
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert (found[1].bend is None) == (after < 6)
    second = run(clock, Limits(deadline=61.0, shorten=True), folder=tmp_path)
    assert second.stop is Stop.SHORTENED
    assert clock.now <= 61.0
    if found[1].bend is not None:
        assert second.step == whole.step
        assert second.losses == whole.losses


def test_what_was_shortened_is_not_done_again(tmp_path: Path) -> None:
    clock = Clock()
    first = run(clock, Limits(deadline=60.0, shorten=True), folder=tmp_path)
    again = run(clock, Limits(deadline=1000.0, shorten=True), folder=tmp_path)
    assert (again.stop, again.step) == (Stop.SHORTENED, first.step)


def test_a_checkpoint_from_before_schedules_were_bent_is_read(tmp_path: Path) -> None:
    import json

    run(Clock(), Limits(epochs=2.0), folder=tmp_path)
    (path,) = tmp_path.glob("step-*/training.json")
    values = json.loads(path.read_text())
    assert values.pop("bend") is None
    path.write_text(json.dumps(values))
    assert run(Clock(), Limits(), folder=tmp_path).losses == run(Clock(), Limits()).losses


@example(steps=201, first=0.0, shorter=0.5, second=0.0625, again=1.0)  # between two steps of the warm-up
@given(
    steps=st.integers(3, 500),
    first=st.floats(0, 0.9),
    shorter=st.floats(0.01, 1.0),
    second=st.floats(0.05, 0.9),
    again=st.floats(0.01, 3.0),
)
def test_a_bent_schedule_goes_on_where_it_was_and_comes_to_its_end(
    steps: int, first: float, shorter: float, second: float, again: float
) -> None:
    step = int(first * (steps - 1))
    bend = bent(None, step, steps, step + max(1, int(shorter * (steps - step))))
    assert bend.place_of(step, steps) == step
    middle = step + int(second * (bend.end - step))
    other = bent(bend, middle, steps, middle + max(1, int(again * (bend.end - middle))))
    assert other.place_of(middle, steps) == pytest.approx(bend.place_of(middle, steps))
    assert other.place_of(other.end, steps) == pytest.approx(steps)
    places = [other.place_of(s, steps) for s in range(middle, other.end)]
    assert places == sorted(places)
    recipe = Recipe(schedule="linear", warmup=0.1)
    assert all(0 <= factor(recipe, place, steps) <= 1 for place in places)
    assert np.isfinite(places).all()
