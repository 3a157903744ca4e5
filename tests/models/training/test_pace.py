"""A training is cut to its time, and no further."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="steps are measured with torch")

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training import pace
from tidemill.models.training.pace import cut, epochs_in_time, measure_step_s, rounded_batch, spread
from tidemill.testing.clock import Clock
from tidemill.train.types import Recipe

SECONDS = st.floats(0.01, 100.0)


@given(st.floats(1.0, 200.0), SECONDS, SECONDS, st.floats(0.0, 1e5))
def test_what_is_planned_fits_into_the_time_and_uses_it(most: float, passes: float, check: float, left: float) -> None:
    recipe = spread(Recipe(epochs=most), 10)
    try:
        planned = cut(recipe, 10, passes, check, left)
    except TrialTimeoutError:
        assert 0.25 * passes + check > 0.9 * left - check, "a fifth of an epoch had not fitted"
        return
    assert planned.epochs <= most
    assert planned.epochs * (passes + check / recipe.evaluate_every) + check <= left
    if planned.epochs < most:
        assert planned.epochs * (1.15 * passes + check / recipe.evaluate_every) + check == pytest.approx(0.94 * left)
    assert planned.epochs / planned.evaluate_every <= 10 * 1.0001


def test_too_little_time_is_told() -> None:
    with pytest.raises(TrialTimeoutError, match=r"An epoch takes 11\.5 s, and there were 0\.9 s"):
        epochs_in_time(5, 10.0, 0.0, 1.0)


@given(st.integers(1, 10**6))
def test_an_epoch_has_forty_steps_where_any_batch_gives_so_many(rows: int) -> None:
    batch = rounded_batch(rows)
    assert batch in (16, 32, 64, 128)
    assert rows / batch >= 40 or batch == 16


class Slow:
    """Rows each of which takes its time to be made; the first batch takes longer."""

    def __init__(self, clock: Clock, row_s: float) -> None:
        self.clock, self.row_s = clock, row_s
        self.batches: list[int] = []

    def __len__(self) -> int:
        return 40

    def batch(
        self, rows: NDArray[np.int64], *, train: bool, rng: np.random.Generator
    ) -> tuple[dict[str, Tensor], Tensor]:
        self.clock.now += self.row_s * len(rows) + (0 if self.batches else 5.0)
        self.batches.append(len(rows))
        return {"input": torch.zeros(len(rows), 1)}, torch.zeros(len(rows))


@pytest.mark.parametrize(
    ("row_s", "steps"), [(0.001, 6), (0.1, 3), (0.2, 2), (1.0, 1)], ids=["quick", "some", "least", "slow"]
)
def test_as_many_steps_are_measured_as_there_is_time_for(
    monkeypatch: pytest.MonkeyPatch, row_s: float, steps: int
) -> None:
    clock = Clock()
    monkeypatch.setattr(pace.time, "perf_counter", clock)
    samples = Slow(clock, row_s)
    step_s = measure_step_s(
        nn.Linear(1, 1), lambda out, y: (out[:, 0] - y) ** 2, samples, 20, torch.device("cpu"), most_s=4.5
    )
    assert samples.batches == [2] + [20] * steps
    assert step_s == pytest.approx(20 * row_s)
