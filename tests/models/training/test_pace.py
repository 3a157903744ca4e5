"""A training is cut to its time, and no further."""

from __future__ import annotations

from dataclasses import replace

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
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.pace import (
    cut,
    epochs_in_time,
    in_quicker_precision,
    measure_step_s,
    rounded_batch,
    spread,
)
from tidemill.testing.clock import Clock
from tidemill.train.types import Recipe

SECONDS = st.floats(0.01, 100.0)


@given(st.floats(1.0, 200.0), SECONDS, SECONDS, st.floats(0.0, 1e5))
def test_what_is_planned_fills_the_time_and_some_more(most: float, passes: float, check: float, left: float) -> None:
    recipe = spread(Recipe(epochs=most), 10)
    try:
        planned = cut(recipe, 10, passes, check, left)
    except TrialTimeoutError:
        assert 0.25 * passes + check > left - check, "a fifth of an epoch had not fitted"
        return
    assert planned.epochs <= most
    needed = planned.epochs * (passes + check / recipe.evaluate_every)
    assert needed <= 1.3001 * (left - check)
    if planned.epochs < most:
        assert needed == pytest.approx(1.3 * (left - check))
    assert planned.epochs / planned.evaluate_every <= 10 * 1.0001


def test_too_little_time_is_told() -> None:
    with pytest.raises(TrialTimeoutError, match=r"An epoch takes 10\.0 s, and there were 1\.0 s"):
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


@pytest.mark.parametrize(
    ("bf16", "budget", "there", "chosen"),
    [
        (0.5, TrainBudget(deadline=1e12), True, "bf16"),
        (0.9, TrainBudget(deadline=1e12), True, "fp32"),
        (0.5, TrainBudget(deadline=1e12), False, "auto"),
        (0.5, TrainBudget(), True, "auto"),
        (0.5, TrainBudget(deadline=1e12, epochs=1, of=3), True, "auto"),
    ],
    ids=["quicker", "hardly quicker", "no instructions", "no deadline", "rungs"],
)
def test_trainings_that_are_limited_in_time_compute_as_is_quickest(
    monkeypatch: pytest.MonkeyPatch, bf16: float, budget: TrainBudget, there: bool, chosen: str
) -> None:
    monkeypatch.setattr(pace, "computes_bf16", lambda device: there)
    seconds = {"fp32": 1.0, "bf16": bf16}
    recipe = in_quicker_precision(Recipe(batch=20), replace(budget, device="cpu"), seconds.__getitem__)
    assert recipe == Recipe(batch=20, precision=chosen)


def test_a_precision_that_somebody_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "computes_bf16", lambda device: True)
    budget = TrainBudget(deadline=1e12, device="cpu")
    recipe = in_quicker_precision(Recipe(precision="fp32"), budget, {"fp32": 1.0, "bf16": 0.1}.__getitem__)
    assert recipe.precision == "fp32"


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_steps_are_measured_in_the_precision_that_is_asked_for(precision: str, dtype: torch.dtype) -> None:
    computed = []
    net = nn.Linear(1, 1)
    net.register_forward_hook(lambda _, __, out: computed.append(out.dtype))  # a copy has it, too
    samples = Slow(Clock(), 0.0)
    measure_step_s(net, lambda out, y: (out[:, 0] - y) ** 2, samples, 20, torch.device("cpu"), 1.0, precision)
    assert set(computed) == {dtype}
