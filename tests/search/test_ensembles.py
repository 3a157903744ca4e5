from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.metrics import get_metric
from tidemill.core.objective import parse_objective
from tidemill.core.protocols import Ensembler
from tidemill.core.task import Task, TaskKind
from tidemill.search.ensembles.greedy import GreedyEnsembler
from tidemill.search.losses import BinaryAuc, LabelLogLoss, LogLoss, RootMeanSquare, of_objective
from tidemill.testing.ensembler import EnsemblerSuite

BINARY = Task(TaskKind.BINARY, "y", ("no", "yes"), positive="yes")
SOME = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))
NUMBER = Task(TaskKind.REGRESSION, "y")


class TestGreedy(EnsemblerSuite):
    @pytest.fixture
    def ensembler(self) -> Ensembler:
        return GreedyEnsembler()


class TestGreedyOnce(EnsemblerSuite):
    @pytest.fixture
    def ensembler(self) -> Ensembler:
        return GreedyEnsembler(bags=1)


def probabilities(n: int, k: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(k, 0.3), size=n)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([30, 500]), st.booleans())
def test_quick_losses_are_those_of_the_metrics(seed: int, n: int, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.uniform(0.5, 2, size=n) if weighted else None
    y2, y3, yr = rng.integers(2, size=n), rng.integers(3, size=n), rng.normal(size=n)
    y2[:2] = 0, 1
    p2, p3, value = probabilities(n, 2, seed), probabilities(n, 3, seed), rng.normal(size=(n, 1))
    cases = [
        (BinaryAuc(y2, weight), "roc_auc", BINARY, y2, p2, 1e-9),
        (LogLoss(y3, weight), "log_loss", SOME, y3, p3, 1e-6),
        (RootMeanSquare(yr, weight), "rmse", NUMBER, yr, value, 1e-9),
    ]
    for loss, name, task, y, scores, tolerance in cases:
        metric = get_metric(name)
        exact = metric.loss(metric(y, scores, task=task, weight=weight))
        assert loss(scores) == pytest.approx(exact, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(
    "text", ["maximize average_precision", "minimize brier", "maximize f1", "minimize cost([[0,1],[5,0]])"]
)
def test_every_objective_has_a_loss_that_prefers_the_truth(text: str) -> None:
    y = np.random.default_rng(0).integers(2, size=300)
    loss = of_objective(parse_objective(text).resolve(BINARY), BINARY, y)
    good = np.eye(2)[y] * 0.8 + 0.1
    poor = probabilities(300, 2, 1)
    assert loss(good) < loss(poor)
    assert loss.of_compact(loss.compact(good.astype(np.float32))) == pytest.approx(loss(good), rel=1e-3)


def test_a_member_has_to_earn_its_price() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=3000)
    predictions = {
        n: (y + rng.normal(size=3000) * s)[:, None].astype(np.float32) for n, s in enumerate((0.5, 0.52, 0.54))
    }
    loss = RootMeanSquare(y)
    free = GreedyEnsembler().combine(predictions, loss, lambda w: 0.0)
    dear = GreedyEnsembler().combine(predictions, loss, lambda w: 10.0 * len(w))
    assert len(free.weights) == 3
    assert len(dear.weights) == 1


def test_forty_trials_of_36k_rows_take_a_second_or_two() -> None:
    rng = np.random.default_rng(0)
    n = 36_000
    y = (rng.random(n) < 0.24).astype(np.int64)
    base = y * 2.5 + rng.normal(size=n)
    predictions = {}
    for number in range(40):
        p = 1 / (1 + np.exp(-(base + rng.normal(size=n) - 1.5)))
        predictions[number] = np.stack([1 - p, p], axis=1).astype(np.float32)
    begun = time.process_time()
    GreedyEnsembler(25).combine(predictions, BinaryAuc(y), lambda w: 1e-6 * len(w))
    assert time.process_time() - begun < 8.0  # half a second, and what a slow machine adds


TAGS = Task(TaskKind.MULTILABEL, "tags", ("a", "b", "c"))


@pytest.mark.parametrize("text", ["minimize log_loss", "maximize f1_macro", "maximize lrap", "minimize hamming_loss"])
def test_every_objective_of_several_labels_has_a_loss_that_prefers_the_truth(text: str) -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((300, 3)) < 0.4).astype(np.int8)
    loss = of_objective(parse_objective(text).resolve(TAGS), TAGS, y)
    good, poor = np.where(y > 0, 0.9, 0.1), rng.random((300, 3))
    assert loss(good) < loss(poor)
    assert loss.of_compact(loss.compact(good.astype(np.float32))) == pytest.approx(loss(good), rel=1e-3)


def test_the_loss_of_labels_is_the_metric_whatever_the_weights() -> None:
    rng = np.random.default_rng(1)
    y, p, weight = (rng.random((200, 3)) < 0.4).astype(np.int8), rng.random((200, 3)), rng.random(200)
    metric = get_metric("log_loss")
    for each in (None, weight):
        loss = LabelLogLoss(y, each)
        wanted = metric(y, p, task=TAGS, weight=each)
        assert loss(p) == pytest.approx(wanted, rel=1e-5)
        assert loss.of_compact(loss.compact(p)) == pytest.approx(wanted, rel=1e-5)
        half = np.arange(0, 600, 2)
        assert np.isfinite(loss.take(half).of_compact(loss.compact(p)[half]))


def test_ensembles_of_many_labels_take_seconds_not_minutes() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((2_000, 200)) < 0.1).astype(np.int8)
    noise = [np.clip(0.6 * y + rng.random(y.shape) * 0.4, 0.01, 0.99).astype(np.float32) for _ in range(8)]
    loss = LabelLogLoss(y)
    begun = time.process_time()
    found = GreedyEnsembler(25).combine(dict(enumerate(noise)), loss, lambda w: 0.0)
    assert time.process_time() - begun < 10.0
    assert len(found.weights) > 1
    assert found.loss < min(loss(p) for p in noise)
