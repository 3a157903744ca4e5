"""Whatever happens to an endpoint in whatever order: its weights sum to 1, only ready revisions serve, and there is a
way back."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.deploy import traffic
from tidemill.deploy.registry import Mode, Plan
from tidemill.deploy.types import Canary, CanaryStep, Endpoint, Revision

IDS = [f"{n:012x}" for n in range(5)]
STEPS = (CanaryStep(0.1), CanaryStep(0.5), CanaryStep(1.0))
ids = st.sampled_from(IDS)


class Life(RuleBasedStateMachine):
    """An endpoint in the hands of people, programs and chance."""

    def __init__(self) -> None:
        super().__init__()
        self.endpoint = Endpoint("fraud")
        self.now = 0.0
        self.was_served = False

    def attempt(self, change: Callable[[Endpoint], Endpoint]) -> bool:
        """Make a change that may be refused, but never half made or with another error."""
        before = self.endpoint
        self.now += 1.0
        try:
            after = change(before)
            traffic.check(after)
        except (OptionError, NotFoundError):
            assert self.endpoint == before
            return False
        self.endpoint = after
        return True

    @rule(revision=ids)
    def deploy(self, revision: str) -> None:
        self.attempt(lambda e: traffic.add_revision(e, Revision(revision, revision * 5, self.now)))

    @rule(revision=ids, mode=st.sampled_from(list(Mode)), weight=st.floats(0.01, 1))
    def ready(self, revision: str, mode: Mode, weight: float) -> None:
        plan = Plan(revision, mode, weight, STEPS)
        self.attempt(lambda e: plan.carry_out(traffic.mark_ready(e, revision), self.now))

    @rule(revision=ids)
    def refuse(self, revision: str) -> None:
        self.attempt(lambda e: traffic.mark_refused(e, revision, "golden rows"))

    @rule(weights=st.dictionaries(ids, st.floats(allow_nan=True, allow_infinity=True), max_size=4))
    def shift(self, weights: dict[str, float]) -> None:
        self.attempt(lambda e: traffic.set_traffic(e, weights))

    @rule(weights=st.dictionaries(ids, st.floats(1e-300, 1e300), min_size=1, max_size=4))
    def shift_by_any_size(self, weights: dict[str, float]) -> None:
        self.attempt(lambda e: traffic.set_traffic(e, weights))

    @rule(revision=ids)
    def start_canary(self, revision: str) -> None:
        self.attempt(lambda e: traffic.start_canary(e, revision, STEPS, self.now))

    @rule()
    def step(self) -> None:
        self.attempt(lambda e: traffic.step_canary(e, self.now))

    @rule()
    def send_back(self) -> None:
        baseline = self.endpoint.canary.baseline if self.endpoint.canary else ""
        if self.attempt(lambda e: traffic.stop_canary(e, "slow")):
            assert self.endpoint.traffic == {baseline: 1.0}

    @rule(revision=ids | st.just(""))
    def shadow(self, revision: str) -> None:
        self.attempt(lambda e: traffic.set_shadow(e, revision))

    @rule(revision=ids)
    def drop(self, revision: str) -> None:
        self.attempt(lambda e: traffic.drop_revision(e, revision))

    @rule(to=ids | st.just(""))
    def rollback(self, to: str) -> None:
        left = traffic.main_revision(self.endpoint)
        canary = self.endpoint.canary
        if self.attempt(lambda e: traffic.rollback(e, "by hand", to)):
            assert len(self.endpoint.traffic) == 1
            assert self.endpoint.canary is None
            reached = traffic.main_revision(self.endpoint)
            assert to == "" or reached == to
            assert to != "" or reached == (canary.baseline if canary else reached)
            assert to != "" or canary is not None or reached != left

    @precondition(lambda self: self.endpoint.canary is not None or self.endpoint.previous)
    @rule()
    def a_way_back_is_always_open(self) -> None:
        """During a canary, and where there is a revision before, a rollback never fails."""
        assert self.attempt(lambda e: traffic.rollback(e, "must work"))

    @invariant()
    def weights_sum_to_one(self) -> None:
        weights = self.endpoint.traffic.values()
        assert not weights or math.isclose(math.fsum(weights), 1.0, abs_tol=1e-9)
        assert all(0 < w <= 1 for w in weights)

    @invariant()
    def only_ready_revisions_serve(self) -> None:
        state = {r.id: r.state for r in self.endpoint.revisions}
        named = [*self.endpoint.traffic, *filter(None, (self.endpoint.shadow, self.endpoint.previous))]
        assert all(state[i] == "ready" for i in named)

    @invariant()
    def who_was_served_is_served(self) -> None:
        assert self.endpoint.traffic or not self.was_served
        self.was_served = bool(self.endpoint.traffic)

    @invariant()
    def a_canary_is_what_the_traffic_says(self) -> None:
        canary = self.endpoint.canary
        if canary is not None:
            weight = canary.steps[canary.step].weight
            assert self.endpoint.traffic == {canary.baseline: 1 - weight, canary.revision: weight}

    @invariant()
    def a_shadow_answers_nobody(self) -> None:
        assert self.endpoint.shadow not in self.endpoint.traffic

    @invariant()
    def it_survives_its_record(self) -> None:
        assert Endpoint.from_json(self.endpoint.to_json()) == self.endpoint


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestLife = Life.TestCase


def served(*weights: float) -> Endpoint:
    """An endpoint with ready revisions of these weights."""
    revisions = tuple(Revision(IDS[n], IDS[n] * 5, 0.0, "ready") for n in range(len(weights)))
    return Endpoint("fraud", revisions, {IDS[n]: w for n, w in enumerate(weights) if w})


def test_a_share_leaves_the_others_their_proportions() -> None:
    after = traffic.split(served(0.6, 0.3, 0.1), IDS[2], 0.4)
    assert after.traffic == pytest.approx({IDS[0]: 0.4, IDS[1]: 0.2, IDS[2]: 0.4})


def test_the_way_of_a_canary() -> None:
    endpoint = traffic.start_canary(served(1.0, 0.0), IDS[1], STEPS, 5.0)
    weights = [endpoint.traffic[IDS[1]]]
    while endpoint.canary is not None:
        endpoint = traffic.step_canary(endpoint, 6.0)
        weights.append(endpoint.traffic[IDS[1]])
    assert weights == [0.1, 0.5, 1.0]
    assert endpoint.previous == IDS[0]


def test_a_second_canary_has_to_wait() -> None:
    endpoint = traffic.start_canary(served(1.0, 0.0, 0.0), IDS[1], STEPS, 5.0)
    with pytest.raises(OptionError, match="is under way"):
        traffic.start_canary(endpoint, IDS[2], STEPS, 6.0)


def test_a_revision_is_found_by_the_beginning_of_its_hash() -> None:
    assert traffic.find_revision(served(1.0, 0.0), IDS[1] + "0").id == IDS[1]
    with pytest.raises(NotFoundError):
        traffic.find_revision(served(1.0, 0.0), "0")  # of both
    with pytest.raises(NotFoundError):
        traffic.find_revision(served(1.0, 0.0), "")


@pytest.mark.parametrize("weights", [(), (0.5,), (0.5, 0.5, 1.0), (0.0, 1.0), (1.0, 0.5), (float("nan"), 1.0)])
def test_steps_must_rise_to_one(weights: tuple[float, ...]) -> None:
    with pytest.raises(OptionError):
        traffic.check_steps(tuple(CanaryStep(w) for w in weights))


@pytest.mark.parametrize(
    "broken",
    [
        Endpoint("a b"),
        Endpoint("fraud", traffic={"x": 1.0}),
        Endpoint("fraud", (Revision("x", "x", 0, "ready"),), {"x": 0.5}),
        Endpoint("fraud", previous="x"),
        Endpoint("fraud", canary=Canary("x", "y")),
        Endpoint("fraud", min_replicas=2),
        Endpoint("fraud", max_replicas=0),
        Endpoint("fraud", deadline_ms=0),
        Endpoint("fraud", target_ms=float("nan")),
        Endpoint("fraud", idle_s=float("nan")),
    ],
)
def test_a_broken_endpoint_is_never_written(broken: Endpoint) -> None:
    with pytest.raises(OptionError):
        traffic.check(broken)
