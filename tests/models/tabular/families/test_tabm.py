"""TabM: what training promises, and what the members' shared weights cost."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neural_network import MLPRegressor

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.task import Task, TaskKind
from tidemill.models import pool
from tidemill.models.tabular import pipeline
from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, TableProfile, TabularData
from tidemill.models.tabular.families.tabm import FAMILY
from tidemill.testing.family import config_of, profile_of, table_of, task_of
from tidemill.testing.graphs import compile_matrix

NUMBER = Task(TaskKind.REGRESSION, "y")
BINARY = Task(TaskKind.BINARY, "y", ("a", "b"))


def table(rows: int = 600, seed: int = 0) -> TabularData:
    """A product, which no weighted sum can follow."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.1 * rng.normal(size=rows)).astype(np.float64)
    return TabularData(x, tuple(Feature(f"f{i}", f"f{i}", FeatureKind.NUMBER) for i in range(4)), y)


def wave(seed: int) -> TabularData:
    """Some periods of a sine."""
    data = table(seed=seed)
    return replace(data, y=np.sin(2 * np.pi * data.x[:, 0].astype(np.float64)))


def config(**given: Any) -> dict[str, Any]:
    space = FAMILY.space(NUMBER, TableProfile(600, table(10).features))
    return space.default() | {f"tabm.{k}": v for k, v in given.items()}


def error(model: Any, data: TabularData) -> float:
    return float(np.mean((model.predict(data.x)[:, 0] - data.y) ** 2))


def test_it_learns_what_a_sum_cannot_at_least_as_well_as_scikit_learn() -> None:
    train, valid, test = table(), table(seed=1), table(seed=2)
    model = FAMILY.fit(config(), NUMBER, train, valid, FitBudget(), 0)
    reference = MLPRegressor(hidden_layer_sizes=(128, 128), early_stopping=True, max_iter=300, random_state=0).fit(
        train.x, train.y
    )
    assert error(model, test) < 0.12 * float(np.var(test.y))
    assert error(model, test) < 1.1 * float(np.mean((reference.predict(test.x) - test.y) ** 2))


def test_waves_are_followed_by_waves() -> None:
    with_waves, without = (
        FAMILY.fit(config(embedding=kind, frequency=1.0), NUMBER, wave(0), wave(1), FitBudget(), 0)
        for kind in ("periodic", "none")
    )
    assert error(with_waves, wave(2)) < 0.5 * error(without, wave(2))


def test_the_epoch_with_the_best_validation_loss_is_kept() -> None:
    train, valid = table(100), table(seed=1)
    budget = FitBudget()
    model = FAMILY.fit(config(dropout=0.0), NUMBER, train, valid, budget, 0)
    steps, losses = zip(*budget.curve, strict=True)
    assert model.rounds == steps[int(np.argmin(losses))]
    assert error(model, valid) == pytest.approx(min(losses))


def test_fixed_rounds_need_no_validation() -> None:
    assert FAMILY.fit(config(rounds=7), NUMBER, table(), None, FitBudget(), 0).rounds == 7


def test_effort_is_paid_in_epochs() -> None:
    usual, double = (FAMILY.fit(config(effort=e), NUMBER, table(100), None, FitBudget(), 0).rounds for e in (1, 2))
    assert double == 2 * usual


def test_a_short_deadline_shortens_the_schedule() -> None:
    data = table(20_000)
    budget = FitBudget(deadline=time.monotonic() + 0.8)
    model = FAMILY.fit(config(shape="wide"), NUMBER, data, data.take(np.arange(500)), budget, 0)
    assert len(budget.curve) < 10
    assert np.isfinite(model.predict(data.x[:10])).all()


def test_rows_without_weight_are_not_learned_from() -> None:
    good, other = table(200), table(200, seed=5)
    both = TabularData(
        np.concatenate([good.x, other.x]),
        good.features,
        np.concatenate([good.y, -10 - np.abs(other.y)]),
        np.repeat([2.0, 0.0], 200),
    )
    model = FAMILY.fit(config(rounds=40), NUMBER, both, None, FitBudget(), 0)
    assert error(model, good) < 0.3


def test_smoothed_labels_make_it_less_sure() -> None:
    data = table()
    data = replace(data, y=(data.x[:, 0] > 0).astype(np.int64))
    sure, careful = (
        FAMILY.fit(config(rounds=10, label_smoothing=s), BINARY, data, None, FitBudget(), 0) for s in (0.0, 0.1)
    )
    assert careful.predict(data.x).max(axis=1).mean() < sure.predict(data.x).max(axis=1).mean()


def test_a_regression_has_no_labels_to_smooth() -> None:
    names = {
        task.kind: [p.name for p in FAMILY.space(task, TableProfile(600, table(10).features))]
        for task in (NUMBER, BINARY)
    }
    assert set(names[TaskKind.BINARY]) - set(names[TaskKind.REGRESSION]) == {"tabm.label_smoothing"}


@pytest.mark.parametrize("kind", ["periodic", "pieces", "none"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_every_form_goes_into_a_graph(kind: str, activation: str) -> None:
    data = table(120)
    wanted = config(embedding=kind, activation=activation, rounds=3)
    model = FAMILY.fit(wanted, NUMBER, data, None, FitBudget(), 0)
    run = compile_matrix(model.emit, 4, 1)
    for x in (data.x, data.x[:1], 3 * data.x):
        np.testing.assert_allclose(run(x), model.predict(x), rtol=1e-5, atol=1e-5)


def test_a_table_without_numbers_has_nothing_to_embed() -> None:
    data = table(120)
    flags = replace(data, x=(data.x > 0).astype(np.float32))
    model = FAMILY.fit(config(rounds=2), NUMBER, flags, None, FitBudget(), 0)
    assert model.network.embedding is None
    run = compile_matrix(model.emit, 4, 1)
    np.testing.assert_allclose(run(flags.x), model.predict(flags.x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["periodic", "pieces", "none"])
def test_all_that_is_learned_is_counted(kind: str) -> None:
    model = FAMILY.fit(config(embedding=kind, rounds=1), NUMBER, table(100), None, FitBudget(), 0)

    def count(state: Any) -> int:
        if isinstance(state, dict):
            return sum(count(v) for k, v in state.items() if k != "columns")
        if isinstance(state, list):
            return sum(count(v) for v in state)
        return state.size if isinstance(state, np.ndarray) else 0

    assert model.cost.params == count(model.checkpoint())


def test_members_are_cheap_to_keep() -> None:
    few, many = (
        FAMILY.fit(config(members=m, rounds=1), NUMBER, table(100), None, FitBudget(), 0).cost for m in (4, 16)
    )
    assert few.params is not None
    assert many.params is not None
    assert many.params < 2 * few.params


def test_a_graph_is_as_small_as_is_said() -> None:
    model = FAMILY.fit(config(rounds=1, shape="small"), NUMBER, table(100), None, FitBudget(), 0)
    graph = GraphBuilder()
    x = graph.input("x", np.float32, ["N", 4])
    graph.output(model.emit(graph, x), "y", np.float32, ["N", 1])
    assert model.cost.size_bytes is not None
    assert graph.model().ByteSize() <= model.cost.size_bytes
    assert len(graph.nodes) <= 25


@pytest.mark.parametrize("category", ["onehot", "mixed", "full"])
def test_columns_of_categories_are_not_counted_as_numbers_before_training(category: str) -> None:
    task, data = task_of("binary"), table_of("binary")
    wanted = config_of(FAMILY, task, data) | {"tabm.treatment.category": category}
    bound = FAMILY.cost(wanted, task, profile_of(data))
    free = FAMILY.cost(wanted | {"tabm.embedding": "none"}, task, profile_of(data))
    fitted = pipeline.fit(wanted | {"tabm.rounds": 1}, task, data, np.arange(90), None, FitBudget(), 0, family=FAMILY)
    assert bound.params is not None
    assert free.params is not None
    assert fitted.model.cost.params is not None
    assert free.params < bound.params
    assert fitted.model.cost.params <= bound.params < 2 * fitted.model.cost.params


@settings(max_examples=8, deadline=None)
@given(st.integers(-20, 20), st.sampled_from(["quantile", "robust"]))
def test_units_of_the_numbers_do_not_matter(power: int, number: str) -> None:
    task, data = task_of("regression"), table_of("regression")
    wanted = config_of(FAMILY, task, data) | {"tabm.treatment.number": number, "tabm.rounds": 2}
    x = data.x.copy()
    x[:, :3] *= np.float32(2.0**power)
    models = [
        pipeline.fit(wanted, task, replace(data, x=rows), np.arange(90), None, FitBudget(), 0, family=FAMILY)
        for rows in (data.x, x)
    ]
    assert np.array_equal(models[0].predict(data.x), models[1].predict(x))


def test_it_is_in_the_pool_without_an_extra() -> None:
    entry = next(e for e in pool.entries() if e.name == "tabm")
    assert entry.package is None
    assert entry.absent is None
