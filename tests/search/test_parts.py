from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import NotFoundError
from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Cost, Trial, TrialState, Usage
from tidemill.search import evaluate, ranking, schedules, splits
from tidemill.search.ensembles.stack import LinearStack, fit_stack, stack_where_it_pays
from tidemill.search.forecast import Forecast
from tidemill.search.ledger import Truth
from tidemill.search.losses import LogLoss, RootMeanSquare
from tidemill.search.prices import Prices, with_models

MULTICLASS = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
NUMBER = Task(TaskKind.REGRESSION, "y")


def test_a_race_keeps_whoever_is_near_the_best() -> None:
    race = schedules.make("full", slack=1.0)
    peers = [1.0, 1.1, 1.2, 1.3, 1.4]
    assert race.promote(1.15, peers, 0)
    assert not race.promote(1.35, peers, 0)
    assert schedules.make("full", slack=4.0).promote(1.35, peers, 0)
    assert race.promote(9.0, peers[:3], 0), "with few peers nobody is out"
    assert list(race.rungs(100)) == [1.0]


def test_rungs_rise_to_all_rows() -> None:
    schedule = schedules.make("rows")
    assert list(schedule.rungs(5_000)) == [1.0]
    assert list(schedule.rungs(20_000)) == [0.25, 1.0]
    assert list(schedule.rungs(10_000_000))[-1] == 1.0
    with pytest.raises(NotFoundError, match="rows"):
        schedules.make("row")


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 5), st.integers(10, 40), st.integers(1, 3))
def test_splits_survive_the_trip_into_one_array(folds: int, rows: int, repeats: int) -> None:
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(repeats):
        part = rng.permutation(rows) % folds
        pairs += [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(folds)]
    lines = splits.from_pairs(pairs, rows)
    assert splits.covered(lines).all()
    assert splits.passes(lines) == folds
    for line, (train, valid) in zip(lines, pairs, strict=True):
        assert (np.flatnonzero(line == splits.TRAIN) == train).all()
        assert (np.flatnonzero(line == splits.VALID) == valid).all()


def test_the_truth_survives_the_trip_into_the_store() -> None:
    columns = {
        "$odd": np.array(["x", "", "x"], dtype=object),
        "n": np.array([1.0, np.nan, 2.0]),
    }
    truth = Truth(np.array([0, 1, 0]), np.arange(3), np.array([[1, 2, 1]], dtype=np.int8), columns)
    back = Truth.unpack(truth.pack())
    assert back.columns["$odd"].tolist() == ["x", "", "x"]
    np.testing.assert_array_equal(back.columns["n"], columns["n"])
    assert back.y_test is None


def test_a_row_that_is_beaten_everywhere_is_not_on_the_front() -> None:
    rows = [
        {"trial": "a", "loss": 1.0, "latency_ms": 1.0, "size_bytes": 9, "params": 9},
        {"trial": "b", "loss": 1.0, "latency_ms": 2.0, "size_bytes": 9, "params": 9},
        {"trial": "c", "loss": 2.0, "latency_ms": None, "size_bytes": 1, "params": 1},
    ]
    assert [r["trial"] for r in ranking.pareto(rows)] == ["a", "c"]
    assert ranking.pareto([]) == []


def test_prices_know_the_bounds() -> None:
    costs = {0: Cost(params=100, flops=10, size_bytes=2_000_000, latency_ms=0.3), 1: Cost(params=900, size_bytes=10**8)}
    plain = Prices(costs, parse_objective("minimize rmse"), 2.0, 40_000_000)
    assert 0 < plain({0: 1.0}) < 1e-3
    assert plain({0: 0.5, 1: 0.5}) == np.inf
    strict = Prices(costs, parse_objective("minimize rmse; params <= 500"), 2.0, 10**9)
    assert np.isfinite(strict({0: 1.0}))
    assert strict({0: 0.5, 1: 0.5}) == np.inf
    shared = Cost(params=400, flops=7, size_bytes=10**6, latency_ms=9.0)
    beside = Prices(costs, parse_objective("minimize rmse; params <= 500"), 2.0, 10**9, shared=shared)
    assert beside({0: 1.0}) == strict({0: 1.0}), "what is there anyway has no price"
    tight = Prices(costs, parse_objective("minimize rmse; params <= 499"), 2.0, 10**9, shared=shared)
    assert tight({0: 1.0}) == np.inf
    assert with_models(costs, {0: 4, 1: 1}, {0: 1, 1: 1})[0].params == 25
    assert with_models(costs, {0: 4, 1: 1}, {0: 3, 1: 1})[0].params == 75


def test_forecasts_come_from_trials_of_the_family() -> None:
    forecast = Forecast(rows=1000, features=10, models=5)
    before = forecast.seconds({"family": "mlp"})
    trial = Trial("s", 0, {"family": "mlp"}, TrialState.COMPLETE, "mlp", folds=5, usage=Usage(wall_s=77.0))
    forecast.learn([trial])
    assert before != 77.0
    assert forecast.seconds({"family": "mlp"}) == 77.0
    forecast.learn_late("catboost", 100.0)
    assert forecast.seconds({"family": "catboost"}) > 100.0


def noisy(seed: int, n: int = 1500) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(3, size=n)
    members = []
    for strength in (1.0, 1.3):
        logits = np.eye(3)[y] * strength + rng.normal(size=(n, 3))
        p = np.exp(logits)
        members.append((p / p.sum(axis=1, keepdims=True)).astype(np.float32))
    return y, members


def test_a_stack_of_independent_members_pays_and_one_of_copies_does_not() -> None:
    y, members = noisy(0)
    loss = LogLoss(y)
    stack = stack_where_it_pays(MULTICLASS, y, members, [0.5, 0.5], loss)
    assert stack is not None
    assert loss(stack.predict(members).astype(np.float64)) < loss((members[0] + members[1]).astype(np.float64) / 2)
    rng = np.random.default_rng(0)
    target = rng.normal(size=1500)
    value = (target + rng.normal(size=1500))[:, None].astype(np.float32) * np.float32(0.5)
    assert stack_where_it_pays(NUMBER, target, [value, value], [0.5, 0.5], RootMeanSquare(target)) is None


def test_weights_of_a_stack_are_never_negative() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=500)
    members = [(y + rng.normal(size=500))[:, None].astype(np.float32), (-y)[:, None].astype(np.float32)]
    assert min(fit_stack(NUMBER, y, members, [0.5, 0.5]).weights) >= 0


@pytest.mark.parametrize("classification", [True, False])
def test_a_stack_answers_in_the_graph_as_in_numpy(classification: bool) -> None:
    _, members = noisy(1, 50)
    if not classification:
        members = [m[:, :1] * 100 for m in members]
    stack = LinearStack((0.7, 0.6), 0.0 if classification else 3.5, classification)
    graph = GraphBuilder()
    names = [graph.input(f"m{i}", np.float32, ["N", m.shape[1]]) for i, m in enumerate(members)]
    graph.output(stack.emit(graph, names), "out", np.float32, ["N", members[0].shape[1]])
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run(None, dict(zip(names, members, strict=True)))
    np.testing.assert_allclose(found, stack.predict(members), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fold_s", "value", "goes_on"),
    [
        (0.1, 9.0, True),  # quick: it may yet be of use in an ensemble
        (10.0, 2.1, True),  # slow, and hardly worse than the best
        (10.0, 2.3, False),  # slow and far behind
    ],
)
def test_a_slow_trial_has_to_promise_more_after_its_first_fold(fold_s: float, value: float, goes_on: bool) -> None:
    trial = evaluate._Evaluation.__new__(evaluate._Evaluation)
    trial.end = time.monotonic() + 60
    trial.seconds, trial.fold_scores = [fold_s], [value]
    trial.metric = get_metric("rmse")
    trial.family = SimpleNamespace(bagged=True)
    race = evaluate.Race("full", slack=4.0, peers={"1.0": (2.0, 5.0)})
    assert trial._goes_on(race, one_pass=5) is goes_on
    assert trial._goes_on(evaluate.Race("full", slack=4.0, peers={}), one_pass=5), "nobody to be compared with"
