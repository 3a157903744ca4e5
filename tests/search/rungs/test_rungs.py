"""The laws of rungs: who climbs, in what order, how far, and at what price."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import OptionError
from tidemill.core.metrics import get_metric
from tidemill.core.trial import Config, Trial, TrialState
from tidemill.search.rungs.brackets import next_bracket, shares
from tidemill.search.rungs.ladder import Ladder
from tidemill.search.rungs.losses import by_epoch, comparable, losses_at, rung_losses
from tidemill.search.rungs.promotion import agrees, cap_of, noise, promotable
from tidemill.search.rungs.schedule import RungSchedule
from tidemill.search.rungs.standing import Climb, Standing, Start, Stop, Wait
from tidemill.search.samplers.random_ import RandomSampler
from tidemill.testing.curves import SPACE, Curves, simulate


def ask(seed: int) -> object:
    sampler = RandomSampler(seed)

    def propose(history: object, number: int) -> Config:
        asked = sampler.ask(SPACE, (), number)
        assert asked is not None
        return asked[0]

    return propose


# -------------------------------------------------------------------------------------------------------------- ladder


@given(st.integers(1, 50), st.integers(0, 500), st.integers(2, 6))
def test_a_ladder_rises_to_its_top_by_steps_that_tell_something(least: int, more: int, factor: int) -> None:
    ladder = Ladder(least, least + more, factor)
    levels = ladder.levels
    assert levels[-1] == ladder.most
    assert ladder.top == len(levels) - 1
    for low, high in itertools.pairwise(levels):
        assert math.sqrt(factor) <= high / low < factor**1.5 + 1e-9
    assert levels[0] == least or len(levels) == 1


@pytest.mark.parametrize(("least", "most", "factor"), [(0, 3, 3), (4, 3, 3), (1, 3, 1)])
def test_a_ladder_that_leads_nowhere_is_refused(least: int, most: int, factor: int) -> None:
    with pytest.raises(OptionError, match="must hold"):
        Ladder(least, most, factor)


# ----------------------------------------------------------------------------------------------------------- promotion


def test_one_of_every_three_goes_on_as_soon_as_that_is_known() -> None:
    two = [Standing(n, losses={0: float(n)}) for n in range(2)]
    assert promotable(two, 3, 2) is None
    three = [*two, Standing(2, losses={0: -1.0})]
    assert promotable(three, 3, 2) == Climb(2, 1)
    climbing = [*two, Standing(2, losses={0: -1.0}, aim=1)]
    assert promotable(climbing, 3, 2) is None
    six = [*climbing, *(Standing(n, losses={0: float(n)}) for n in range(3, 6))]
    assert promotable(six, 3, 2) == Climb(0, 1)


def test_higher_levels_go_first_and_what_failed_goes_nowhere() -> None:
    many = [Standing(n, losses={0: float(n), 1: float(n)}) for n in range(3)]
    many += [Standing(n, losses={0: float(n)}) for n in range(3, 18)]
    assert promotable(many, 3, 2) == Climb(0, 2)
    assert promotable(many, 3, 1) == Climb(3, 1)
    failed = [Standing(n, losses={0: float(n)}, over=n == 0) for n in range(3)]
    assert promotable(failed, 3, 2) is None


def test_a_loss_that_is_no_number_is_the_worst() -> None:
    three = [Standing(0, losses={0: math.nan}), Standing(1, losses={0: 9.0}), Standing(2, losses={0: math.inf})]
    assert promotable(three, 3, 1) == Climb(1, 1)


def test_trials_are_compared_within_their_bracket() -> None:
    mixed = [Standing(n, losses={0: float(n)}) for n in range(3)]
    mixed += [Standing(n, bracket=1, losses={1: 100.0 + n}) for n in range(3, 6)]
    assert promotable(mixed, 3, 2) == Climb(3, 2)
    assert promotable(mixed, 3, 1) == Climb(0, 1)


# ----------------------------------------------------------------------------------------------------------------- cap


def on(number: int, *losses: float, curve: tuple[tuple[float, float], ...] = ()) -> Standing:
    return Standing(number, losses=dict(enumerate(losses)), curve=curve)


def test_a_level_is_opened_only_when_the_one_below_it_changed_the_order() -> None:
    same = [on(0, 3.0, 1.0), on(1, 4.0, 2.0), on(2, 5.0)]
    assert agrees(same, 1)
    assert cap_of(same, 3) == 1
    changed = [on(0, 3.0, 2.0), on(1, 4.0, 1.0), on(2, 5.0)]
    assert not agrees(changed, 1)
    assert cap_of(changed, 3) == 2
    assert cap_of(changed, 1) == 1
    assert cap_of([], 3) == 1
    assert cap_of([], 0) == 0


def test_a_final_opens_no_level_and_a_bracket_does() -> None:
    assert cap_of([on(0, 3.0, 2.0, 1.0), on(1, 4.0, 3.0)], 3) == 1
    assert cap_of([Standing(0, bracket=1, losses={1: 1.0})], 3) == 2
    assert cap_of([Standing(0, bracket=3, losses={3: 1.0})], 3) == 3


def test_trials_that_cross_again_and_again_are_a_tie() -> None:
    first = tuple((float(e), v) for e, v in enumerate([1.0, 0.8, 0.6, 0.4], start=1))
    second = tuple((float(e), v) for e, v in enumerate([0.9, 0.9, 0.5, 0.45], start=1))
    pair = [on(0, 0.60, 0.40, curve=first), on(1, 0.55, 0.45, curve=second)]
    assert noise(pair, 0) == pytest.approx(0.05)
    assert agrees(pair, 1)
    assert not agrees([on(0, 0.60, 0.40), on(1, 0.55, 0.45)], 1)


# ------------------------------------------------------------------------------------------------------------ brackets


@given(st.integers(1, 6), st.integers(2, 5), st.integers(1, 6))
def test_shares_of_brackets_sum_to_one_and_the_lowest_has_most(levels: int, factor: int, brackets: int) -> None:
    found = shares(levels, factor, brackets)
    assert len(found) == min(levels, brackets)
    assert sum(found) == pytest.approx(1.0)
    assert list(found) == sorted(found, reverse=True)


@given(st.integers(1, 4), st.integers(1, 200))
def test_brackets_get_their_shares_up_to_one_trial(brackets: int, trials: int) -> None:
    wanted = shares(4, 3, brackets)
    standings: list[Standing] = []
    for n in range(trials):
        standings.append(Standing(n, bracket=next_bracket(standings, wanted)))
    for bracket, share in enumerate(wanted):
        assert abs(sum(s.bracket == bracket for s in standings) - share * trials) <= brackets


# ------------------------------------------------------------------------------------------------------------ schedule

SCHEDULES = st.builds(
    RungSchedule,
    st.builds(Ladder, st.integers(1, 3), st.integers(3, 30), st.integers(2, 4)),
    brackets=st.integers(1, 3),
    growing=st.booleans(),
    finals=st.integers(1, 3),
)


@given(SCHEDULES, st.integers(0, 10), st.integers(1, 25), st.integers(1, 4))
def test_every_search_ends_with_its_finals_and_costs_no_more_than_training_all(
    schedule: RungSchedule, seed: int, trials: int, workers: int
) -> None:
    done = simulate(schedule, Curves(seed), ask(seed), trials, workers)  # type: ignore[arg-type]  # a plain function
    ladder = schedule.ladder
    assert done.trials == trials
    assert done.epochs <= trials * ladder.most
    assert len(set(done.legs)) == len(done.legs), "no leg is trained twice"
    by_trial: dict[int, list[int]] = {}
    for number, level in done.legs:
        by_trial.setdefault(number, []).append(level)
    for levels in by_trial.values():
        assert levels == list(range(levels[0], levels[-1] + 1)), "one level after the other"
    tops = sum(levels[-1] == ladder.top for levels in by_trial.values())
    assert tops >= 1
    assert math.isfinite(done.best)
    assert by_trial[done.winner][-1] == ladder.top


@given(SCHEDULES, st.integers(0, 10), st.integers(1, 20), st.integers(1, 4))
def test_the_same_search_is_made_twice(schedule: RungSchedule, seed: int, trials: int, workers: int) -> None:
    first, second = (
        simulate(schedule, Curves(seed), ask(seed), trials, workers)  # type: ignore[arg-type]  # a plain function
        for _ in range(2)
    )
    assert first == second


class Parallel(Curves):
    """Curves that never cross, without noise: what is ahead stays ahead."""

    def loss(self, config: Config, epochs: float) -> float:
        return self.end(config) + 1.0 / (1.0 + epochs)


@given(st.integers(0, 30), st.integers(3, 30), st.integers(1, 4), st.booleans())
def test_where_curves_never_cross_the_best_trial_wins(seed: int, trials: int, workers: int, growing: bool) -> None:
    curves = Parallel(seed)
    done = simulate(RungSchedule(Ladder(1, 27), growing=growing), curves, ask(seed), trials, workers)  # type: ignore[arg-type]  # a plain function
    configs = [ask(seed)((), n) for n in range(trials)]  # type: ignore[operator]  # a plain function
    assert done.winner == int(np.argmin([curves.end(c) for c in configs]))


def test_nothing_climbs_beyond_the_second_level_before_the_finals_where_the_order_never_changes() -> None:
    done = simulate(RungSchedule(Ladder(1, 81)), Parallel(3), ask(3), 27, 1)  # type: ignore[arg-type]  # a plain function
    high = [leg for leg in done.legs if leg[1] > 1]
    assert {number for number, _ in high} == {done.winner}


def test_finals_wait_for_what_may_still_lead() -> None:
    schedule = RungSchedule(Ladder(1, 9))
    running = [on(0, 3.0), Standing(1, aim=0)]
    assert schedule.next(running, False) == Wait()
    assert schedule.next(running, True) == Start(0)
    assert schedule.next(running, False, hurry=True) == Climb(0, 1)
    assert schedule.next([on(0, 3.0, 2.0), on(1, 1.0)], False) == Climb(0, 2)
    assert schedule.next([Standing(0, losses={0: 3.0, 1: 2.0}, aim=2), on(1, 1.0)], False) == Wait()
    assert schedule.next([on(0, 3.0, 2.0, 1.0), on(1, 1.0)], False) == Stop()
    failed = Standing(0, losses={0: 3.0, 1: 2.0}, over=True)
    assert schedule.next([failed, on(1, 4.0)], False) == Climb(1, 1)
    assert schedule.next([], False) == Stop()


# -------------------------------------------------------------------------------------------------------------- losses


def test_losses_of_a_trial_are_those_of_its_levels() -> None:
    trial = Trial("s", 0, {}, TrialState.PAUSED, "f", scores={"valid@1": 0.7, "valid@9": 0.9, "accuracy": 1.0})
    metric = get_metric("accuracy")
    assert losses_at(trial, (1, 3, 9), metric) == {0: metric.loss(0.7), 2: metric.loss(0.9)}


def test_trials_of_lower_levels_are_judged_by_what_others_became() -> None:
    standings = [on(n, 1.0 + n, 0.5 + n) for n in range(6)] + [on(6, 1.2), Standing(7), on(8, math.nan)]
    found = comparable(standings)
    assert found == pytest.approx({**{n: 0.5 + n for n in range(6)}, 6: 0.7})
    few = comparable(standings[:3] + standings[6:7])
    assert few == pytest.approx({0: 1.0, 1: 2.0, 2: 3.0, 6: 1.2}), "a level with few trials is no yardstick"


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), max_size=12))
def test_every_trial_that_was_measured_has_one_finite_loss(rows: list[list[float]]) -> None:
    found = comparable([on(n, *row) for n, row in enumerate(rows)])
    assert found.keys() == set(range(len(rows)))
    assert all(math.isfinite(v) for v in found.values())


def test_a_sampler_learns_from_the_ledger() -> None:
    trials = [Trial("s", n, {}, TrialState.PAUSED, "f", scores={"valid@1": 1.0 + n}) for n in range(3)]
    assert rung_losses(trials, (1, 3), get_metric("rmse")) == {0: 1.0, 1: 2.0, 2: 3.0}


@given(st.integers(1, 40), st.integers(1, 12))
def test_a_curve_by_epochs_ends_with_the_last_epoch(points: int, epochs: int) -> None:
    curve = [(10 * (n + 1), 1.0 / (n + 1)) for n in range(points)]
    found = by_epoch(curve, epochs)
    assert found[-1] == (float(epochs), curve[-1][1])
    assert [e for e, _ in found] == sorted({e for e, _ in found})
    assert by_epoch([], 3) == ()
