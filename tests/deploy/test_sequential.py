"""The evidence may be looked at after every request: its false alarms are counted exactly, not only simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from math import comb, exp, inf, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.deploy.sequential import chance, evidence_above, evidence_of_excess, interval

ALPHA = 0.1


def ever_alarms(
    arrivals: Iterator[int], shares: tuple[float, float], alarm: Callable[[tuple[int, ...]], bool]
) -> float:
    """Chance that an alarm is ever raised: all paths at once, by dynamic programming over the counts.

    ``arrivals`` says which arm each request goes to; a look is taken after every one of them.
    """
    alive, alarmed = {(0, 0, 0, 0): 1.0}, 0.0
    for arm in arrivals:
        after: dict[tuple[int, ...], float] = {}
        for (bad_new, n_new, bad_old, n_old), weight in alive.items():
            for bad, share in ((1, shares[arm]), (0, 1 - shares[arm])):
                new = (bad_new + bad, n_new + 1, bad_old, n_old)
                old = (bad_new, n_new, bad_old + bad, n_old + 1)
                state = new if arm == 0 else old
                after[state] = after.get(state, 0.0) + weight * share
        alive = {}
        for state, weight in after.items():
            if alarm(state):
                alarmed += weight
            else:
                alive[state] = weight
    return alarmed


@cache
def two_arms(margin: float, history: tuple[int, int]) -> Callable[[tuple[int, ...]], bool]:
    @cache
    def alarm(state: tuple[int, ...]) -> bool:
        return evidence_of_excess(*state, margin, history) >= log(1 / ALPHA)

    return alarm


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("history", [(0, 0), (3, 30), (50, 60)])
def test_peeking_after_every_request_keeps_the_level_exactly(share: float, history: tuple[int, int]) -> None:
    arrivals = iter([0, 1, 1] * 25)
    assert ever_alarms(arrivals, (share, share), two_arms(0.0, history)) <= ALPHA


@pytest.mark.parametrize(("new", "old"), [(0.3, 0.2), (0.1, 0.0), (0.25, 0.2)])
def test_an_excess_within_the_margin_keeps_the_level(new: float, old: float) -> None:
    assert ever_alarms(iter([0, 1] * 35), (new, old), two_arms(0.1, (0, 0))) <= ALPHA


@pytest.mark.parametrize("share", [0.1, 0.05])
def test_one_arm_against_a_limit_keeps_the_level(share: float) -> None:
    def alarm(state: tuple[int, ...]) -> bool:
        return evidence_above(state[0], state[1], 0.1) >= log(1 / ALPHA)

    assert ever_alarms(iter([0] * 150), (share, 0.0), alarm) <= ALPHA


def test_a_fixed_test_looked_at_after_every_request_does_not_keep_it() -> None:
    """The trap that the evidence is for: a two-sided test at 10 % that is looked at 75 times alarms far more often."""

    def alarm(state: tuple[int, ...]) -> bool:
        bad_new, n_new, bad_old, n_old = state
        if not (n_new and n_old):
            return False
        pooled = (bad_new + bad_old) / (n_new + n_old)
        spread = (pooled * (1 - pooled) * (1 / n_new + 1 / n_old)) ** 0.5
        return spread > 0 and (bad_new / n_new - bad_old / n_old) / spread > 1.2816

    assert ever_alarms(iter([0, 1, 1] * 25), (0.5, 0.5), alarm) > 2 * ALPHA


def test_many_seeds_of_a_long_canary_keep_the_level() -> None:
    rng = np.random.default_rng(3)
    alarms = 0
    runs = 200
    for _ in range(runs):
        new, old = rng.binomial(5, 0.05, 200).cumsum(), rng.binomial(95, 0.05, 200).cumsum()
        looks = (
            evidence_of_excess(int(a), 5 * (i + 1), int(b), 95 * (i + 1))
            for i, (a, b) in enumerate(zip(new, old, strict=True))
        )
        alarms += any(look >= log(1 / ALPHA) for look in looks)
    assert alarms / runs <= ALPHA


@pytest.mark.parametrize(("share", "most"), [(0.05, 1500), (0.02, 8000), (0.2, 250)])
def test_a_real_excess_is_found_soon(share: float, most: int) -> None:
    """The old revision fails once in a hundred; requests of the new one until it is found at a chance of 1 in 1,000."""
    needed = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        new = rng.binomial(10, share, 1000).cumsum()
        old = rng.binomial(190, 0.01, 1000).cumsum()
        found = (
            10 * (i + 1)
            for i in range(1000)
            if evidence_of_excess(int(new[i]), 10 * (i + 1), int(old[i]), 190 * (i + 1), 0.001, (1000, 100_000))
            >= log(1000)
        )
        needed.append(next(found, 10**9))
    assert np.quantile(needed, 0.9) <= most


def test_history_sharpens_the_test() -> None:
    plain = evidence_of_excess(6, 200, 2, 2000)
    assert evidence_of_excess(6, 200, 2, 2000, 0.0, (100, 100_000)) > plain
    assert evidence_of_excess(6, 200, 2, 2000, 0.0, (50_000, 100_000)) > plain - log(2) - 1e-9


counts = st.tuples(st.integers(0, 500), st.integers(0, 500))


@given(new=counts, old=counts, margin=st.sampled_from([0.0, 0.001, 0.1, 0.5]))
def test_the_border_of_the_null_is_its_largest_likelihood(
    new: tuple[int, int], old: tuple[int, int], margin: float
) -> None:
    """No pair of shares within the null explains the counts better than the one that was divided by."""
    from tidemill.deploy.sequential import _largest_under_null, _likelihood

    largest = _largest_under_null(new, old, margin)
    shares = np.linspace(0, 1, 41)
    for share in shares:
        for other in shares[shares <= share + margin + 1e-12]:
            found = _likelihood(new, float(other)) + _likelihood(old, float(share))
            assert found <= largest + 1e-6 * max(1.0, abs(largest))


@given(new=counts, old=counts, margin=st.floats(0, 0.9))
def test_no_more_bad_answers_than_before_is_no_evidence(
    new: tuple[int, int], old: tuple[int, int], margin: float
) -> None:
    n_new, n_old = sum(new), sum(old)
    value = evidence_of_excess(new[0], n_new, old[0], n_old, margin)
    assert value < inf
    if not n_new or (n_old and new[0] / n_new <= old[0] / n_old):
        assert value <= 1e-9


@given(counts=counts, alpha=st.sampled_from([0.01, 0.05, 0.5]))
def test_an_interval_holds_the_share_that_was_seen(counts: tuple[int, int], alpha: float) -> None:
    n = sum(counts)
    low, high = interval(counts[0], n, alpha)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= counts[0] / n <= high


def test_an_interval_covers_at_all_times_at_once() -> None:
    """Exactly: the chance that a share of 0.3 is ever outside in 120 looks."""

    def outside(state: tuple[int, ...]) -> bool:
        low, high = interval(state[0], state[1], ALPHA)
        return not low <= 0.3 <= high

    assert ever_alarms(iter([0] * 120), (0.3, 0.0), outside) <= ALPHA


def test_the_mixture_is_the_beta_binomial() -> None:
    """Closed form for a uniform prior: each number of bad answers is as likely as any other."""
    from tidemill.deploy.sequential import _mixture

    for bad in range(6):
        assert exp(_mixture((bad, 5 - bad), (1.0, 1.0))) * comb(5, bad) == pytest.approx(1 / 6)


def test_chance_is_a_bound() -> None:
    assert chance(-5) == 1.0
    assert chance(log(100)) == pytest.approx(0.01)
