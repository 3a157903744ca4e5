"""Speed: measured once for a class of configs, scaled for the others, paid for by members and kept time for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tests.search.test_runner import FakeExecutor, answer, make_runner, workspace

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.objective import parse_objective
from tidemill.core.protocols import Step
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost, Trial, TrialState
from tidemill.search.combine import combine
from tidemill.search.ensembles.greedy import GreedyEnsembler
from tidemill.search.judge import Judge
from tidemill.search.latency import Speed, measure
from tidemill.search.prices import BATCH_US, MANY_ROWS, SHARED, UNIT, Prices
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock

__all__ = ["workspace"]

ONE = Speed(row_ms=0.1, batch_us=10.0, model_us=30.0, build_s=0.2, size_bytes=1_000)
shares = st.floats(0.01, 100)


@dataclass
class Doubler:
    """A model that is a product."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        return graph.op("Mul", x, graph.const(np.float32(2)))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return x * np.float32(2)


def test_a_model_is_timed_in_the_graph_and_in_its_library() -> None:
    speed = measure(Doubler(), np.zeros((7, 1), dtype=np.float32), 1)
    assert 0 < speed.batch_us * 1e-3 < speed.row_ms, "many rows at once are quicker than one by one"
    assert speed.model_us > 0
    assert speed.build_s > 0
    assert 50 < speed.size_bytes < 500


@given(st.integers(1, 20), shares)
def test_twice_the_models_take_twice_the_time(models: int, work: float) -> None:
    once, twice = ONE.times(models, work), ONE.times(2 * models, work)
    assert twice.batch_us == pytest.approx(2 * once.batch_us)
    assert twice.row_ms == pytest.approx(2 * once.row_ms)
    assert ONE.times(models, 2 * work).row_ms <= 2 * once.row_ms


def price(batch_us: float, rows: int = MANY_ROWS) -> float:
    costs = {0: Cost(params=0, flops=0, size_bytes=0, latency_ms=0.0, batch_us=batch_us)}
    return Prices(costs, parse_objective("maximize roc_auc"), 1.0, 40_000_000, rows=rows)({0: 1.0})


@given(st.floats(1, 10), st.floats(1, 10))
def test_each_doubling_of_a_slow_batch_costs_two_units(share: float, more: float) -> None:
    slow = price(share * BATCH_US)
    assert price(2 * share * BATCH_US) == pytest.approx(slow + 2 * UNIT)
    assert price(share * more * BATCH_US) >= slow
    assert price(BATCH_US / 2) < 0.1 * UNIT


def test_a_small_table_does_not_pay_for_batches_and_a_guess_stands_for_what_nobody_measured() -> None:
    assert price(1_000, rows=0) == 0
    guessed = Cost(params=100_000, flops=60_000, size_bytes=0, latency_ms=0.0)
    prices = Prices({0: guessed}, parse_objective("maximize roc_auc"), 1.0, 40_000_000, rows=MANY_ROWS)
    assert prices({0: 1.0}) > UNIT


def bags(count: int, rows: int, batch_us: float) -> tuple[list[Trial], dict[int, NDArray[np.float32]], Judge]:
    """Trials that are far better together than alone, each with a bag of five models."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=rows)
    predictions = {n: (y + rng.normal(size=rows)).astype(np.float32)[:, None] for n in range(count)}
    cost = Cost(params=50, flops=50, size_bytes=5_000, latency_ms=0.05, batch_us=batch_us)
    trials = [
        Trial("s", n, {"family": "f"}, TrialState.COMPLETE, "f", scores={"models": 5.0}, cost=cost)
        for n in range(count)
    ]
    return trials, predictions, Judge(parse_objective("minimize rmse"), Task(TaskKind.REGRESSION, "y"), y, {})


@pytest.mark.parametrize(("rows", "models"), [(2_000, 5), (MANY_ROWS, 3)])
def test_bags_are_thinned_where_many_rows_would_be_slow(rows: int, models: int) -> None:
    trials, predictions, judge = bags(2, rows, 25.0)
    chosen = combine(trials, predictions, judge, GreedyEnsembler(10), 40_000_000)
    assert set(chosen.weights) == {0, 1}, "together they are far better than alone"
    assert chosen.models == {0: models, 1: models}
    assert chosen.cost.batch_us == pytest.approx(float(SHARED.batch_us or 0) + 10 * models)


@pytest.mark.parametrize(("most_us", "members", "models"), [(np.inf, 3, 5), (200.0, 3, 5), (100.0, 3, 3), (16.0, 1, 1)])
def test_where_time_is_short_bags_are_thinned_before_members_are_lost(
    most_us: float, members: int, models: int
) -> None:
    trials, predictions, judge = bags(3, 2_000, 50.0)
    chosen = combine(trials, predictions, judge, GreedyEnsembler(12), 40_000_000, most_us)
    assert len(chosen.weights) == members
    assert set(chosen.models.values()) == {models}


def test_where_nothing_can_be_proven_in_time_a_single_model_is_taken() -> None:
    trials, predictions, judge = bags(2, 500, 50.0)
    chosen = combine(trials, predictions, judge, GreedyEnsembler(12), 40_000_000, 1.0)
    assert len(chosen.weights) == 1
    assert set(chosen.models.values()) == {1}


def play(build_s: float = 0.0, slowness: float = 1.0) -> Callable[[Any], dict[str, Any]]:
    def trial(arguments: Any) -> dict[str, Any]:
        result = answer(arguments)
        scores = {**result["scores"], "models": 3.0}
        if not arguments["probe"]:
            return result | {"scores": scores, "cost": replace(result["cost"], flops=30), "probe_flops": None}
        probe = replace(ONE, build_s=build_s, batch_us=slowness * ONE.batch_us)
        return result | {"scores": scores, "cost": replace(result["cost"], flops=15), "probe": probe, "probe_flops": 5}

    return trial


def test_a_class_of_configs_is_measured_once_and_the_others_are_scaled(workspace: Workspace) -> None:
    executor = FakeExecutor(1, Clock(), play=play())
    make_runner(workspace, executor=executor, trials=20).run()
    trials = workspace.metadata.trials("s")
    for family in ("linear", "trees"):
        speeds = [t.cost.batch_us for t in trials if t.family == family]
        assert speeds[0] == pytest.approx(30), "three models as measured"
        assert speeds[1:] == pytest.approx([60.0] * len(speeds[1:])), "three models with twice the operations"


def test_the_slower_the_leaders_the_earlier_a_search_ends(workspace: Workspace) -> None:
    ends = []
    for study, slowness in (("quick", 0.0), ("slow", 50.0)):
        executor = FakeExecutor(2, Clock(), play=play(slowness=slowness))
        runner = make_runner(workspace, study=study, executor=executor, trials=None, time_s=30.0)
        runner.proof_rows = 3_000
        runner.run()
        ends.append(executor.clock.now)
    quick, slow = ends
    assert 24 < quick <= 30.5
    assert 30 * 0.7 - 0.5 <= slow < quick - 2, "at most the allowed share is kept"


@dataclass
class Loading(FakeExecutor):
    """Takes its time before a step can begin."""

    loads_s: float = 12.0
    asked: tuple[float, ...] = ()

    def ready(self, timeout_s: float | None = None) -> bool:
        self.clock.now += min(self.loads_s, np.inf if timeout_s is None else timeout_s)
        return True

    def submit(self, step: Step) -> int:
        self.asked += (self.clock.now + float(step.arguments["time_s"]),)
        return super().submit(step)


def test_no_trial_is_given_time_in_which_modules_were_loaded(workspace: Workspace) -> None:
    executor = Loading(1, Clock(), play=play())
    make_runner(workspace, executor=executor, trials=None, time_s=30.0).run()
    assert executor.asked
    assert max(executor.asked) <= 30.0


def test_a_trial_is_tried_in_half_of_a_short_time_whatever_loads(workspace: Workspace) -> None:
    executor = Loading(1, Clock(), play=play(), loads_s=100.0)
    make_runner(workspace, executor=executor, trials=None, time_s=6.0).run()
    assert executor.asked
    assert executor.asked[0] <= 6.0


def test_where_no_time_is_left_one_trial_is_tried(workspace: Workspace) -> None:
    executor = Loading(1, Clock(7.0), play=play(), loads_s=0.0)
    make_runner(workspace, executor=executor, trials=None, time_s=6.0).run()
    assert executor.asked == (9.0,)
    assert [t.origin for t in workspace.metadata.trials("s")] == ["baseline"]


def test_time_is_kept_for_the_best_of_a_slow_family_that_is_behind(workspace: Workspace) -> None:
    ends = []
    for study, slowness in (("quick", 0.0), ("slow", 50.0)):
        paths = {"linear": play(slowness=0.0), "trees": play(slowness=slowness)}

        def one(arguments: Any, paths: Mapping[str, Any] = paths) -> dict[str, Any]:
            family = arguments["config"]["family"]
            result = paths[family](arguments)
            behind = 1.0 if family == "trees" else 0.0
            return result | {"fold_scores": tuple(f + behind for f in result["fold_scores"])}

        executor = FakeExecutor(2, Clock(), play=one)
        runner = make_runner(workspace, study=study, executor=executor, trials=None, time_s=30.0)
        runner.proof_rows = 3_000
        runner.run()
        assert {t.family for t in runner.board.leaders(2)} == {"linear"}
        ends.append(executor.clock.now)
    quick, slow = ends
    assert slow < quick - 2, "an ensemble of both kinds can be proven"
