"""A training within its budget: what it leaves on the curve, and what it says when the time was too short."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="nets are trained with torch")

from tidemill.core.errors import TrialTimeoutError
from tidemill.models.training.budget import TrainBudget
from tidemill.models.training.losses import CrossEntropy
from tidemill.models.training.run import limits_of, train
from tidemill.models.training.signals import END, Signals
from tidemill.train import runtime
from tidemill.train.types import Placement, Recipe, Stop


class Rows:
    """Two classes that a line parts."""

    def __len__(self) -> int:
        return 32

    def batch(self, rows: np.ndarray, *, train: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Any]:
        x = torch.from_numpy((rows.astype(np.float32) - 15.5)[:, None] / 16)
        return {"input": x}, (x[:, 0] > 0).long()


class FewestWrong:
    """The error rate, turned around."""

    def __call__(self, outputs: np.ndarray, targets: np.ndarray) -> float:
        return -float((outputs.argmax(axis=1) != targets).mean())


def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Linear(1, 2)


RECIPE = Recipe(epochs=4.0, batch=8, evaluate_every=1.0, lr=0.5)


def test_the_curve_gets_losses_and_with_a_score_its_errors() -> None:
    losses, errors = TrainBudget(device="cpu"), TrainBudget(device="cpu")
    train(net(), CrossEntropy(), Rows(), RECIPE, losses, 0, checks=Rows())
    train(net(), CrossEntropy(), Rows(), RECIPE, errors, 0, checks=Rows(), score=FewestWrong())
    assert [step for step, _ in losses.curve] == [step for step, _ in errors.curve] == [4, 8, 12, 16]
    assert losses.curve[-1][1] < losses.curve[0][1]
    assert all(0.0 <= value <= 1.0 for _, value in errors.curve)
    nothing = TrainBudget(device="cpu")
    train(net(), CrossEntropy(), Rows(), RECIPE, nothing, 0)
    assert nothing.curve == []


def test_a_training_that_pauses_comes_to_its_rung_or_says_that_it_did_not(tmp_path: Path) -> None:
    budget = TrainBudget(device="cpu", epochs=2, of=4, folder=str(tmp_path))
    assert limits_of(budget).epochs == 2
    assert limits_of(budget).deadline is None
    train(net(), CrossEntropy(), Rows(), RECIPE, budget, 0, checks=Rows())
    assert budget.curve[-1][0] == 8
    late = TrainBudget(device="cpu", deadline=time.monotonic() - 1.0, epochs=2, of=4)
    with pytest.raises(TrialTimeoutError, match="before its rung"):
        train(net(), CrossEntropy(), Rows(), RECIPE, late, 0)
    whole = TrainBudget(device="cpu", deadline=time.monotonic() - 1.0)
    train(net(), CrossEntropy(), Rows(), RECIPE, whole, 0)  # without a rung it keeps what it has


def test_before_the_last_rung_no_schedule_may_be_shortened() -> None:
    assert limits_of(TrainBudget(epochs=4, of=4)).shorten
    assert not limits_of(TrainBudget(epochs=2, of=4)).shorten
    assert limits_of(TrainBudget()).shorten


def test_a_training_that_is_asked_to_end_hands_over_what_it_has(tmp_path: Path) -> None:
    signals = Signals(str(tmp_path), 3)

    class Ending(Rows):
        """Somebody asks after some steps."""

        steps = 0

        def batch(self, rows: np.ndarray, *, train: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Any]:
            self.steps += train
            if self.steps == 6:
                (tmp_path / END).touch()
            return super().batch(rows, train=train, rng=rng)

    before, after = net(), net()
    budget = TrainBudget(device="cpu", placement=Placement(), signals=signals)
    train(after, CrossEntropy(), Ending(), replace(RECIPE, epochs=1000.0), budget, 0, checks=Rows())
    assert budget.interrupted is not None
    assert 1 <= 4000 * budget.interrupted <= 9, "in steps, of which the loader is some ahead"
    assert budget.curve
    assert not torch.equal(before.weight, after.weight)
    (tmp_path / END).unlink()
    train(net(), CrossEntropy(), Rows(), RECIPE, budget, 0, checks=Rows())
    assert budget.interrupted is None


@pytest.mark.parametrize("score", [None, FewestWrong()])
def test_points_are_told_as_they_stand_on_the_curve(tmp_path: Path, score: Any) -> None:
    budget = TrainBudget(device="cpu", signals=Signals(str(tmp_path), 3), before=100)
    train(net(), CrossEntropy(), Rows(), RECIPE, budget, 0, checks=Rows(), score=score)
    told = [json.loads(line) for line in (tmp_path / "3.points").read_text().splitlines()]
    assert [(step - 100, value) for step, _, value in told] == budget.curve
    assert [epoch for _, epoch, _ in told] == [1.0, 2.0, 3.0, 4.0]


class Sleepy(Rows):
    """Each batch takes its time."""

    def batch(self, rows: np.ndarray, *, train: bool, rng: np.random.Generator) -> tuple[dict[str, Any], Any]:
        time.sleep(0.005)
        return super().batch(rows, train=train, rng=rng)


def test_a_training_without_rungs_is_shortened_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, ends = runtime.train, []

    def watched(*given: Any, **more: Any) -> Any:
        ends.append(whole(*given, **more))
        return ends[-1]

    monkeypatch.setattr(runtime, "train", watched)
    begun = time.monotonic()
    budget = TrainBudget(device="cpu", deadline=begun + 2.5, placement=Placement())
    train(net(), CrossEntropy(), Sleepy(), replace(RECIPE, epochs=1000.0), budget, 0)
    assert 1.0 < time.monotonic() - begun < 10, "4,000 steps of 5 ms would take 20 s"
    assert ends[0].stop is Stop.SHORTENED
    assert ends[0].curve[-1].lr < 0.1 * RECIPE.lr, "its learning rate came to its end"
    assert budget.reached is None, "that is asked of rungs"


def test_one_whose_epochs_were_cut_too_short_is_lengthened_to_its_time() -> None:
    begun = time.monotonic()
    budget = TrainBudget(device="cpu", deadline=begun + 2.5, placement=Placement())
    train(net(), CrossEntropy(), Sleepy(), replace(RECIPE, epochs=8.0), budget, 0, checks=Rows(), longest=1000.0)
    assert 1.0 < time.monotonic() - begun < 10, "32 steps of 5 ms take 0.2 s"
    assert budget.curve[-1][0] > 64
    assert limits_of(TrainBudget(epochs=4, of=4), 1000.0).longest is None, "rungs are of one length"


@pytest.mark.parametrize(("stop", "reached"), [(Stop.SHORTENED, 4.0), (Stop.DONE, None)])
def test_a_training_that_was_shortened_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, stop: Stop, reached: float | None
) -> None:
    whole = runtime.train

    def ended(*given: Any, **more: Any) -> Any:
        return replace(whole(*given, **more), stop=stop)

    monkeypatch.setattr(runtime, "train", ended)
    budget = TrainBudget(device="cpu", deadline=time.monotonic() + 600.0, epochs=4, of=4)
    train(net(), CrossEntropy(), Rows(), RECIPE, budget, 0, checks=Rows())
    assert budget.reached == reached
