"""Laws of steps and learning rates."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tidemill.train.schedule import factor, is_due, steps_of
from tidemill.train.types import SCHEDULES, Recipe


@given(
    schedule=st.sampled_from(SCHEDULES),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
    steps=st.integers(1, 300),
)
def test_a_rate_grows_to_its_peak_and_never_again(schedule, warmup, floor, steps) -> None:
    recipe = Recipe(schedule=schedule, warmup=warmup, floor=floor)
    course = [factor(recipe, step, steps) for step in range(steps)]
    assert all(0 <= f <= 1 + 1e-12 for f in course)
    warm = math.ceil(warmup * steps)
    assert course[:warm] == sorted(course[:warm])
    assert course[warm:] == sorted(course[warm:], reverse=True)
    if warm < steps:
        assert course[warm] == 1.0


def test_the_first_step_moves_and_a_floor_is_kept() -> None:
    assert factor(Recipe(warmup=0.5), 0, 1000) > 0
    assert factor(Recipe(warmup=0, floor=0.25), 10**6 - 1, 10**6) >= 0.25


@given(
    epochs=st.integers(1, 20),
    every=st.sampled_from([0.5, 1.0, 2.0]),
    samples=st.integers(1, 500),
    batch=st.integers(1, 64),
)
def test_something_due_every_epoch_happens_once_in_each_that_is_whole(epochs, every, samples, batch) -> None:
    steps = steps_of(epochs, samples, batch)
    happened = sum(is_due(step, every, samples, batch) for step in range(1, steps + 1))
    crossed = math.floor(steps * batch / samples / every + 1e-9)
    # A step that is longer than an epoch crosses several at once, and counts once.
    assert happened == crossed or (batch > every * samples and happened <= crossed)
