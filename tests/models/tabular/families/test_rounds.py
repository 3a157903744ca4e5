from __future__ import annotations

import time

import pytest

from tidemill.models.tabular._base import FitBudget
from tidemill.models.tabular.families._rounds import MOST_SPLITS, Rounds, Watch, known_rounds, own_params, plan, train
from tidemill.testing.clock import Clock


def losses(*values: float) -> tuple[Watch, FitBudget]:
    """Show a watch some losses until it says stop."""
    budget = FitBudget()
    watch = Watch(Rounds(limit=20, patience=3, fixed=7), budget, validated=True)
    left = list(values)
    train(watch, lambda _: False, lambda: left.pop(0))
    return watch, budget


def test_the_round_with_the_least_loss_is_kept() -> None:
    watch, budget = losses(5, 4, 3, 3.5, 2.9, 3, 3, 3, 0)
    assert watch.keep == 5
    assert [step for step, _ in budget.curve] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_training_ends_at_the_limit() -> None:
    watch, _ = losses(*range(100, 0, -1))
    assert watch.keep == 20


def test_without_validation_rows_the_number_of_rounds_is_fixed() -> None:
    steps: list[int] = []
    watch = Watch(Rounds(limit=20, patience=3, fixed=7), FitBudget(), validated=False)
    train(watch, lambda number: bool(steps.append(number)), None)
    assert (watch.keep, steps) == (7, list(range(7)))


def test_nothing_left_to_learn_ends_training() -> None:
    watch = Watch(Rounds(limit=20, patience=3, fixed=7), FitBudget(), validated=False)
    train(watch, lambda number: number == 2, None)
    assert watch.keep == 3


def test_the_deadline_is_kept_but_one_round_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(Rounds(limit=20, patience=3, fixed=7), FitBudget(deadline=time.monotonic()), validated=False)
    train(watch, lambda _: False, None)
    assert watch.keep == 1
    clock = Clock(100.0)
    monkeypatch.setattr(time, "monotonic", clock)
    watch = Watch(Rounds(limit=10_000, patience=3, fixed=10_000), FitBudget(deadline=100.2), validated=False)

    def step(_: int) -> bool:
        clock.now += 0.01
        return False

    train(watch, step, None)
    assert 1 < watch.keep < 25


def test_a_long_curve_is_thinned() -> None:
    budget = FitBudget()
    watch = Watch(Rounds(limit=10_000, patience=10_000, fixed=1), budget, validated=True)
    train(watch, lambda _: False, lambda: 1.0)
    assert len(budget.curve) == 200


@pytest.mark.parametrize(("rate", "limit"), [(0.3, 500), (0.1, 1000), (0.005, 10_000)])
def test_small_steps_get_more_rounds(rate: float, limit: int) -> None:
    assert plan("a", {}, rate, splits_per_round=1).limit == limit


def test_a_model_is_limited_in_size_and_by_the_config() -> None:
    assert plan("a", {}, 0.01, splits_per_round=MOST_SPLITS // 100).limit == 100
    assert plan("a", {"a.max_rounds": 30, "a.rounds": 50}, 0.01, 1) == Rounds(30, 300, 30)
    assert plan("a", {"a.rounds": 50}, 0.01, 1).fixed == 50
    assert known_rounds("a", {"a.rounds": 50, "a.max_rounds": 30}) == 30
    assert known_rounds("a", {"b.rounds": 50}) is None


def test_a_family_sees_its_own_parameters_only() -> None:
    config = {"family": "a", "a.depth": 3, "a.treatment.category": "code", "a.rounds": 5, "b.depth": 4}
    assert own_params("a", config) == {"depth": 3}
