"""A gate sends back what does harm, lets pass what does none, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import OptionError
from tidemill.deploy.canary import Action, Bars, Gate, Verdict, judge
from tidemill.deploy.seen import Seen
from tidemill.deploy.types import Canary, CanaryStep
from tidemill.deploy.watch.window import LATENCY_BOUNDS_MS

STEPS = (CanaryStep(0.05, 400, 10.0), CanaryStep(1.0))
CANARY = Canary("new", "old", STEPS, 0, 0.0, 0.0)
CELLS = len(LATENCY_BOUNDS_MS) + 1


@dataclass
class Model:
    """A revision that is drawn from: what it does wrong, and how often."""

    errors: float = 0.002
    latency_ms: float = 4.0
    labels: Sequence[float] = (0.7, 0.3)
    wrong: float = 0.1
    deaths: float = 0.0
    counts: Seen = field(default_factory=Seen)

    def answer(self, rng: np.random.Generator, requests: int) -> Seen:
        latency = self.latency_ms * np.exp(0.6 * rng.standard_normal(requests))
        cells = np.bincount(np.searchsorted(LATENCY_BOUNDS_MS, latency), minlength=CELLS)
        labels = rng.multinomial(requests, self.labels)
        told = rng.binomial(requests, 0.3)
        wrong = rng.binomial(told, self.wrong)
        top = rng.beta(5, 2, requests)
        c = self.counts
        self.counts = Seen(
            c.requests + requests,
            c.errors + int(rng.binomial(requests, self.errors)),
            c.deaths + int(rng.poisson(self.deaths)),
            tuple(int(v) for v in np.add(cells, c.latency or np.zeros(CELLS))),
            {str(k): c.labels.get(str(k), 0) + int(n) for k, n in enumerate(labels)},
            tuple(int(v) for v in np.add(np.histogram(top, 20, (0, 1))[0], c.scores or np.zeros(20))),
            0,
            0,
            c.right + told - wrong,
            c.wrong + wrong,
        )
        return self.counts


def run(new: Model, old: Model, seed: int, *, looks: int = 40, bars: Bars | None = None, steps: int = 20) -> Verdict:
    """Watch a canary at 5 % of the traffic; a look each time that the new revision has given 20 answers."""
    rng = np.random.default_rng(seed)
    before = old.answer(rng, 5000)
    gate = Gate.begin(CANARY, new.counts, before, labels=["0", "1"], target_ms=100, bars=bars or Bars())
    verdict = judge(gate, CANARY, new.counts, old.counts, 0.0)
    for look in range(1, looks + 1):
        new.answer(rng, steps)
        old.answer(rng, 19 * steps)
        # A step never ends here by itself, so that every look is one more chance for a false alarm.
        verdict = judge(gate, CANARY, new.counts, old.counts, look * 0.01)
        if verdict.action is Action.BACK:
            return verdict
    return verdict


HARM = {
    "errors": Model(errors=0.08),
    "latency": Model(latency_ms=12.0),
    "drift": Model(labels=(0.3, 0.7)),
    "accuracy": Model(wrong=0.45),
}


@pytest.mark.parametrize("signal", HARM)
@pytest.mark.parametrize("seed", range(5))
def test_harm_is_sent_back_with_its_name(signal: str, seed: int) -> None:
    verdict = run(replace(HARM[signal]), Model(), seed)
    assert verdict.action is Action.BACK
    assert verdict.reason.startswith(signal)
    assert "before" in verdict.reason


def test_a_harmless_revision_is_hardly_ever_sent_back() -> None:
    """At most alpha, looked at all the time, over all signals together; the union bound makes it far fewer."""
    bars = Bars(alpha=0.2, errors=0.0, latency=1.0, drift=0.0, accuracy=0.0)
    runs = 40
    backs = sum(run(Model(), Model(), seed, bars=bars, looks=20).action is Action.BACK for seed in range(runs))
    assert backs <= 0.2 * runs


@pytest.mark.slow
def test_a_harmless_revision_is_hardly_ever_sent_back_in_long_canaries() -> None:
    bars = Bars(alpha=0.05, errors=0.0, latency=1.0, drift=0.0, accuracy=0.0)
    runs = 300
    backs = sum(run(Model(), Model(), s, bars=bars, looks=150).action is Action.BACK for s in range(runs))
    assert backs <= 0.05 * runs


def test_an_incident_that_hits_both_is_not_blamed_on_the_new_one() -> None:
    """Errors come in bursts that both revisions share."""
    backs = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        new, old = Model(), Model()
        old.answer(rng, 5000)
        gate = Gate.begin(CANARY, Seen(), old.counts, labels=["0", "1"], target_ms=100, bars=Bars(errors=0.0))
        for look in range(40):
            new.errors = old.errors = 0.4 if look % 10 in (3, 4) else 0.001
            new.latency_ms = old.latency_ms = 40.0 if look % 10 in (3, 4) else 4.0
            new.answer(rng, 20)
            old.answer(rng, 380)
            backs += judge(gate, CANARY, new.counts, old.counts, 0.0).action is Action.BACK
    assert backs == 0


def test_tolerated_differences_pass() -> None:
    """A little slower, other labels within the bar, a few more errors: that is what bars are for."""
    bars = Bars(errors=0.02, latency=2.0, drift=0.15, accuracy=0.1)
    slight = Model(errors=0.015, latency_ms=5.5, labels=(0.6, 0.4), wrong=0.17)
    for seed in range(5):
        assert run(replace(slight), Model(), seed, bars=bars).action is Action.WAIT


def test_a_step_needs_its_answers_and_its_time() -> None:
    gate = Gate.begin(CANARY, Seen(), Seen(), labels=[], target_ms=100, bars=Bars())
    few, many = Seen(requests=399), Seen(requests=400)
    base = Seen(requests=7600)
    assert judge(gate, CANARY, few, base, 60).action is Action.WAIT
    assert "399 of 400 answers" in judge(gate, CANARY, few, base, 60).reason
    assert judge(gate, CANARY, many, base, 9).action is Action.WAIT
    assert "9 of 10 seconds" in judge(gate, CANARY, many, base, 9).reason
    assert judge(gate, CANARY, many, base, 10).action is Action.STEP


def test_harm_is_sent_back_before_the_step_has_its_answers() -> None:
    gate = Gate.begin(CANARY, Seen(), Seen(), labels=[], target_ms=100, bars=Bars())
    verdict = judge(gate, CANARY, Seen(requests=40, errors=40), Seen(requests=760), 1)
    assert verdict.action is Action.BACK


def test_a_crash_loop_is_sent_back_at_once() -> None:
    gate = Gate.begin(CANARY, Seen(deaths=5), Seen(), labels=[], target_ms=100, bars=Bars())
    assert judge(gate, CANARY, Seen(deaths=7), Seen(), 1).action is Action.WAIT
    verdict = judge(gate, CANARY, Seen(deaths=8), Seen(), 1)
    assert verdict.action is Action.BACK
    assert verdict.reason.startswith("deaths: its workers died 3 times")


def test_a_revision_that_refuses_is_sent_back_and_its_refusals_are_no_answers() -> None:
    """It has no room, or can't start: nothing it says is wrong, and its callers get nothing."""
    gate = Gate.begin(CANARY, Seen(), Seen(), labels=[], target_ms=100, bars=Bars())
    base = Seen(requests=7600)
    verdict = judge(gate, CANARY, Seen(requests=40, refusals=40), base, 60)
    assert verdict.action is Action.BACK
    assert verdict.reason.startswith("refusals: 40 of 40 (100.00%), before 0 of 7,600")
    few = Seen(requests=405, refusals=6)
    assert judge(gate, CANARY, few, base, 60).action is Action.WAIT
    assert "399 of 400 answers" in judge(gate, CANARY, few, base, 60).reason
    crowded = Seen(requests=800, refusals=400)
    assert judge(gate, CANARY, crowded, Seen(requests=7600, refusals=3800), 60).action is Action.STEP


def test_disagreement_is_sent_back() -> None:
    gate = Gate.begin(CANARY, Seen(), Seen(), labels=[], target_ms=100, bars=Bars())
    verdict = judge(gate, CANARY, Seen(requests=100, compared=200, disagreements=90), Seen(requests=1900), 1)
    assert verdict.reason.startswith("disagreement: 90 of 200 (45.00%)")


def test_a_shadow_that_says_other_things_than_both_is_not_blamed_on_the_new_one() -> None:
    gate = Gate.begin(CANARY, Seen(), Seen(), labels=[], target_ms=100, bars=Bars())
    base = Seen(requests=7600, compared=7600, disagreements=3800)
    same = Seen(requests=400, compared=400, disagreements=205)
    assert judge(gate, CANARY, same, base, 60).action is Action.STEP
    verdict = judge(gate, CANARY, Seen(requests=400, compared=400, disagreements=320), base, 60)
    assert verdict.reason.startswith("disagreement: otherwise than the shadow: 320 of 400 (80.00%)")


def test_what_happened_before_the_step_is_not_held_against_it() -> None:
    gate = Gate.begin(CANARY, Seen(requests=50, errors=50), Seen(), labels=[], target_ms=100, bars=Bars())
    assert judge(gate, CANARY, Seen(requests=450, errors=50), Seen(requests=9000), 60).action is Action.STEP


def test_a_baseline_without_history_is_judged_by_the_target() -> None:
    gate = Gate.begin(CANARY, Seen(), Seen(), labels=[], target_ms=100.0, bars=Bars())
    assert len(gate.cells) == 1
    assert LATENCY_BOUNDS_MS[gate.cells[0]] == pytest.approx(100, rel=0.2)


def test_the_usual_latency_is_taken_from_the_history() -> None:
    latency = [0] * CELLS
    latency[10], latency[20], latency[30] = 900, 70, 30
    gate = Gate.begin(CANARY, Seen(), Seen(latency=tuple(latency)), labels=[], target_ms=100, bars=Bars())
    assert gate.cells == (10, 20)


seen = st.builds(
    Seen,
    requests=st.integers(0, 1000),
    errors=st.integers(0, 50),
    deaths=st.integers(0, 2),
    latency=st.lists(st.integers(0, 50), max_size=CELLS).map(tuple),
    labels=st.dictionaries(st.sampled_from(["0", "1", "other"]), st.integers(0, 100)),
    scores=st.lists(st.integers(0, 9), max_size=20).map(tuple),
    compared=st.integers(0, 100),
    right=st.integers(0, 100),
    wrong=st.integers(0, 100),
    refusals=st.integers(0, 50),
)


@given(a=seen, b=seen)
def test_any_counters_have_a_verdict_and_a_gate_survives_its_record(a: Seen, b: Seen) -> None:
    """Counters of a front that restarted or are half written: never an error, never more than a wait."""
    gate = Gate.begin(CANARY, a, b, labels=["0", "1"], target_ms=50, bars=Bars())
    again = Gate.from_json(gate.to_json())
    assert again == gate
    assert judge(again, CANARY, a, b, 0.0).action is Action.WAIT
    assert judge(again, CANARY, b, a, 100.0) == judge(gate, CANARY, b, a, 100.0)


@given(a=seen, b=seen)
def test_differences_are_never_below_zero(a: Seen, b: Seen) -> None:
    difference = a - b
    assert min([difference.requests, *difference.latency, *difference.labels.values(), *difference.scores]) >= 0
    assert (a - Seen()) == replace(a, labels=dict(a.labels))


@pytest.mark.parametrize(
    "values", [{"errors": 1.0}, {"alpha": 0}, {"latency": 0.5}, {"deaths": 0}, {"drift": float("nan")}, {"drift": True}]
)
def test_bars_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="bar"):
        Bars().changed(values)


def test_an_unknown_bar_offers_the_nearest() -> None:
    with pytest.raises(OptionError, match="Did you mean 'latency'"):
        Bars().changed({"latencies": 2})
