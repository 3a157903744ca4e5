"""Linear models against scikit-learn's, which minimise the same functions."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import ElasticNet, LogisticRegression, Ridge

from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, TabularData
from tidemill.models.tabular.families.linear import FAMILY, STRENGTHS

BINARY = Task(TaskKind.BINARY, "y", ("a", "b"))
THREE = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
NUMBER = Task(TaskKind.REGRESSION, "y")


def table(task: Task, *, rows: int = 300, columns: int = 6, seed: int = 0) -> TabularData:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, columns)).astype(np.float32) + np.float32(2)
    z = (x - 2) @ np.linspace(-1, 1, columns) + 0.5 * rng.normal(size=rows)
    features = tuple(Feature(f"f{i}", f"f{i}", FeatureKind.NUMBER) for i in range(columns))
    if task.kind is TaskKind.REGRESSION:
        return TabularData(x, features, z / z.std())
    return TabularData(x, features, np.digitize(z, [0.2] if task.n_classes == 2 else [-0.7, 0.7]).astype(np.int64))


@pytest.mark.parametrize("task", [BINARY, THREE], ids=["two classes", "three classes"])
def test_logistic_weights_are_those_of_scikit_learn(task: Task) -> None:
    data = table(task)
    model = FAMILY.fit({"linear.l1_ratio": 0.0, "linear.c": 0.3}, task, data, None, FitBudget(), 0)
    reference = LogisticRegression(C=0.3, tol=1e-9, max_iter=2000).fit(data.x.astype(np.float64), data.y)
    assert np.abs(model.predict(data.x) - reference.predict_proba(data.x.astype(np.float64))).max() < 2e-3


def test_ridge_weights_are_those_of_scikit_learn() -> None:
    data = table(NUMBER)
    model = FAMILY.fit({"linear.l1_ratio": 0.0, "linear.c": 0.1}, NUMBER, data, None, FitBudget(), 0)
    reference = Ridge(alpha=10.0).fit(data.x.astype(np.float64), data.y)
    assert model.weights[:, 0] == pytest.approx(reference.coef_, abs=1e-5)
    assert model.bias[0] == pytest.approx(reference.intercept_, abs=1e-5)


def test_elastic_net_drops_the_columns_that_scikit_learn_drops() -> None:
    data = table(NUMBER)
    rows = len(data.x)
    model = FAMILY.fit({"linear.l1_ratio": 0.9, "linear.c": 0.01}, NUMBER, data, None, FitBudget(), 0)
    reference = ElasticNet(alpha=1 / (0.01 * rows), l1_ratio=0.9, tol=1e-9).fit(data.x.astype(np.float64), data.y)
    assert model.weights[:, 0] == pytest.approx(reference.coef_, abs=1e-3)
    assert (np.abs(model.weights[:, 0]) < 1e-5).sum() == (reference.coef_ == 0).sum() > 0


def test_huber_does_not_follow_outliers() -> None:
    data = table(NUMBER)
    wild = np.asarray(data.y).copy()
    wild[::25] += 30
    fits = {
        loss: FAMILY.fit(
            {"linear.l1_ratio": 0.0, "linear.loss": loss, "linear.c": 100.0},
            NUMBER, replace(data, y=wild), None, FitBudget(), 0,
        ).predict(data.x)[:, 0]
        for loss in ("squared", "huber")
    }  # fmt: skip
    error = {loss: float(np.median(np.abs(p - data.y))) for loss, p in fits.items()}
    assert error["huber"] < 0.5 * error["squared"]


@pytest.mark.parametrize("task", [BINARY, THREE, NUMBER], ids=lambda t: t.kind.value)
def test_a_row_that_weighs_two_is_two_rows(task: Task) -> None:
    data = table(task, rows=60)
    weight = np.where(np.arange(60) < 20, 2.0, 1.0)
    twice = data.take(np.repeat(np.arange(60), weight.astype(int)))
    config = {"linear.l1_ratio": 0.0, "linear.loss": "squared"}
    # The penalty is one over C times the rows; weights have mean 1.
    heavy = replace(data, weight=weight / weight.mean())
    a = FAMILY.fit(config | {"linear.c": 0.75}, task, heavy, None, FitBudget(), 0)
    b = FAMILY.fit(config | {"linear.c": 0.75 * 60 / 80}, task, twice, None, FitBudget(), 0)
    assert a.predict(data.x) == pytest.approx(b.predict(data.x), abs=0.02)


def test_the_strength_is_chosen_on_validation_rows() -> None:
    data = table(NUMBER, rows=400, columns=40)
    noise = replace(data, y=np.random.default_rng(1).normal(size=400))
    budget = FitBudget()
    model = FAMILY.fit(
        {"linear.l1_ratio": 0.0}, NUMBER, noise.take(np.arange(200)), noise.take(np.arange(200, 400)), budget, 0
    )
    assert 1 <= len(budget.curve) <= len(STRENGTHS)
    # Nothing is to be learned, so that the strongest is best.
    assert np.abs(model.weights).max() < 0.1


def test_the_deadline_ends_the_path() -> None:
    data = table(THREE, rows=20_000, columns=200)
    budget = FitBudget(deadline=time.monotonic() + 0.2)
    FAMILY.fit({"linear.l1_ratio": 0.5}, THREE, data, data.take(np.arange(100)), budget, 0)
    assert len(budget.curve) < len(STRENGTHS)
