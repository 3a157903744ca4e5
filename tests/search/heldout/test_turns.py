"""Every family shows in a short turn what it can; the best of them gets a long one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.search.test_runner import FakeExecutor, answer, make_runner

from tidemill.core.errors import TrialMemoryError
from tidemill.core.metrics import get_metric
from tidemill.core.space import Categorical, Space
from tidemill.core.trial import Trial
from tidemill.search import board
from tidemill.search.heldout.turns import LEADER, TurnsSampler
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.portfolio import PortfolioSampler
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


def sampler(*families: str, workers: int = 1, times: int = 1) -> TurnsSampler:
    def losses(trials: Sequence[Trial]) -> Mapping[int, float]:
        return board.losses(trials, get_metric("rmse"))

    first = BaselineSampler([{"family": name} for name in families])
    more = PortfolioSampler([{"family": "trees"}, {"family": "trees", "trees.count": 70}, {"family": "linear"}])
    return TurnsSampler(first, [more], None, losses, 0.3, workers, times)


def played(workspace: Workspace, workers: int, asked: TurnsSampler, **losses: float) -> list[dict[str, Any]]:
    """Run a search of 100 s in which families have such losses; gives the arguments of its trials in order."""
    begun: list[dict[str, Any]] = []

    def play(arguments: Mapping[str, Any]) -> Any:
        begun.append(dict(arguments))
        value = losses[arguments["config"]["family"]]
        if math.isnan(value):
            return TrialMemoryError("It wanted 9 GB.")
        return {**answer(arguments), "fold_scores": (value,), "scores": {"rmse": value}}

    runner = make_runner(workspace, executor=FakeExecutor(workers, Clock(), play=play), trials=None, time_s=100.0)
    runner.sampler = asked
    assert runner.run()
    return begun


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("best", ["linear", "trees"])
def test_turns_are_equal_and_the_leader_gets_the_long_one(workspace: Workspace, workers: int, best: str) -> None:
    losses = {"linear": 2.0, "trees": 2.0, best: 1.0}
    begun = played(workspace, workers, sampler("linear", "trees"), **losses)
    assert sorted(step["config"]["family"] for step in begun[:2]) == ["linear", "trees"]
    assert [step["time_s"] for step in begun[:2]] == [pytest.approx(15.0)] * 2
    trials = workspace.metadata.trials("s")
    (long,) = [step for step in begun if step["seed"] == trials[2].seed]
    assert long["config"]["family"] == best
    assert long["time_s"] > 30.0
    assert [t.origin for t in trials] == ["baseline", "baseline", LEADER, "portfolio"]
    assert trials[2].config in (trials[0].config, trials[1].config)
    assert trials[3].config["trees.count"] == 70


def test_where_every_turn_failed_the_list_goes_on(workspace: Workspace) -> None:
    played(workspace, 1, sampler("linear", "trees"), linear=float("nan"), trees=float("nan"))
    assert [t.origin for t in workspace.metadata.trials("s")] == ["baseline", "baseline", "portfolio"]


def test_the_long_turn_may_take_what_the_round_leaves() -> None:
    space = Space([Categorical("family", ("a", "b"), "a")])
    assert sampler("a", "b").turn(space, LEADER, 2) == sampler("a").turn(space, LEADER, 0) == 1.0
    assert sampler("a", "b", times=2).turn(space, LEADER, 2) == pytest.approx(0.35)
    assert sampler("a", "b", times=2).turn(space, LEADER, 3) == 1.0, "the last one may take what is left"
    assert sampler("a", times=2).turn(space, LEADER, 0) == 0.5
    assert sampler("a", "b").turn(space, "portfolio", 5) is None


def test_several_leaders_share_the_long_turn_each_from_a_seed_of_its_own(workspace: Workspace) -> None:
    begun = played(workspace, 2, sampler("linear", "trees", workers=2), linear=2.0, trees=1.0)
    trials = workspace.metadata.trials("s")
    assert [t.origin for t in trials] == ["baseline", "baseline", LEADER, LEADER, "portfolio"]
    assert trials[2].config == trials[3].config == trials[1].config
    assert len({t.seed for t in trials}) == len(trials)
    turns = [step["time_s"] for step in begun if step["seed"] in {t.seed for t in trials[:2]}]
    assert turns == [pytest.approx(15.0)] * 2, "side by side they take half of the round's time"
    space = Space([Categorical("family", ("a", "b", "c"), "a")])
    assert sampler("a", "b", workers=2, times=2).turn(space, LEADER, 3) == pytest.approx(0.425)
    assert sampler("a", "b", "c", workers=2, times=2).turn(space, LEADER, 4) == pytest.approx(0.4)
    assert sampler("a", "b", workers=2, times=2).turn(space, LEADER, 4) == 1.0


def test_a_worker_trains_the_leader_more_than_once(workspace: Workspace) -> None:
    begun = played(workspace, 1, sampler("linear", "trees", times=2), linear=2.0, trees=1.0)
    trials = workspace.metadata.trials("s")
    assert [t.origin for t in trials] == ["baseline", "baseline", LEADER, LEADER, "portfolio"]
    assert begun[2]["time_s"] == pytest.approx(35.0)
    assert begun[3]["time_s"] > 90.0, "what is left, and in a test no time goes by"
    assert trials[2].seed != trials[3].seed


def test_several_leaders_of_a_round_of_one_begin_at_once(workspace: Workspace) -> None:
    played(workspace, 2, sampler("linear", workers=2), linear=1.0, trees=2.0)
    trials = workspace.metadata.trials("s")
    assert [t.origin for t in trials] == [LEADER, LEADER, "portfolio", "portfolio"]
    assert trials[0].config == trials[1].config
    assert [t.config["family"] for t in trials[2:]] == ["trees", "trees"]


@pytest.mark.parametrize("times", [1, 2])
def test_a_leader_that_failed_is_not_tried_again(workspace: Workspace, times: int) -> None:
    trials = 0

    def play(arguments: Mapping[str, Any]) -> Any:
        nonlocal trials
        trials += 1
        return TrialMemoryError("It wanted 9 GB.") if trials == 3 else answer(arguments)

    runner = make_runner(workspace, executor=FakeExecutor(1, Clock(), play=play), trials=None, time_s=100.0)
    runner.sampler = sampler("linear", "trees", times=times)
    assert runner.run()
    origins = [t.origin for t in workspace.metadata.trials("s")]
    assert origins == ["baseline", "baseline", LEADER, "portfolio"]


def test_one_family_alone_needs_no_round(workspace: Workspace) -> None:
    begun = played(workspace, 1, sampler("linear", "absent"), linear=1.0, trees=2.0)
    trials = workspace.metadata.trials("s")
    assert [t.origin for t in trials[:2]] == [LEADER, "portfolio"]
    assert begun[0]["time_s"] > 90.0
    assert trials[0].config != trials[1].config


def test_a_family_that_the_space_lacks_has_no_turn() -> None:
    space = Space([Categorical("family", ("a", "b", "c"), "a")])
    assert sampler("a", "b", "gone").turn(space, "baseline", 0) == pytest.approx(0.15)
    assert sampler("a").turn(space, "baseline", 0) is None
