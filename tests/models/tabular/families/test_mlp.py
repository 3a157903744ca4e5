"""Networks: slopes against differences, and what training promises."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPRegressor

from tidemill.core.errors import TrialError
from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, TableProfile, TabularData
from tidemill.models.tabular.families._net import Adam, Net, run_layers
from tidemill.models.tabular.families.mlp import FAMILY

NUMBER = Task(TaskKind.REGRESSION, "y")
BINARY = Task(TaskKind.BINARY, "y", ("a", "b"))


def table(rows: int = 600, seed: int = 0) -> TabularData:
    """A product, which no weighted sum can follow."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] + 0.1 * rng.normal(size=rows)).astype(np.float64)
    return TabularData(x, tuple(Feature(f"f{i}", f"f{i}", FeatureKind.NUMBER) for i in range(4)), y)


def config(**given: Any) -> dict[str, Any]:
    space = FAMILY.space(NUMBER, TableProfile(600, table(10).features))
    return space.default() | {f"mlp.{k}": v for k, v in given.items()}


def error(model: Any, data: TabularData) -> float:
    return float(np.mean((model.predict(data.x)[:, 0] - data.y) ** 2))


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_slopes_are_those_of_differences(activation: str) -> None:
    rng = np.random.default_rng(0)
    net = Net(3, 2, (5, 4), 2, activation, rng)
    net.flat += 0.1 * rng.standard_normal(net.flat.shape, dtype=np.float32)
    x = rng.standard_normal((2, 7, 3), dtype=np.float32)
    push = rng.standard_normal((2, 7, 2), dtype=np.float32)

    def loss() -> float:
        return float((net.forward(x, 0.0, rng)[0].astype(np.float64) * push).sum())

    net.backward(push.copy(), net.forward(x, 0.0, rng)[1])
    found = net.grad.copy()
    step = np.float32(1e-2)
    wanted = np.empty_like(found)
    for i, kept in enumerate(net.flat.copy()):
        net.flat[i] = kept + step
        above = loss()
        net.flat[i] = kept - step
        wanted[i] = (above - loss()) / (2 * float(step))
        net.flat[i] = kept
    # A kink of relu within the step makes a difference lie; few are hit.
    close = np.abs(found - wanted) < 1e-2 * np.maximum(1.0, np.abs(wanted))
    assert close.mean() > (0.9 if activation == "relu" else 0.999)


def test_members_do_not_know_each_other() -> None:
    rng = np.random.default_rng(0)
    net = Net(3, 1, (8,), 3, "relu", rng)
    x = rng.standard_normal((3, 6, 3), dtype=np.float32)
    z, tape = net.forward(x, 0.0, rng)
    alone = np.zeros_like(z)
    alone[1] = 1.0
    before = run_layers(net.layers(), x[0], "relu")
    net.backward(alone, tape)
    Adam(net).step(0.1, 0.0)
    after = run_layers(net.layers(), x[0], "relu")
    assert np.array_equal(before[[0, 2]], after[[0, 2]])
    assert not np.array_equal(before[1], after[1])


def test_dropout_keeps_the_mean() -> None:
    rng = np.random.default_rng(0)
    net = Net(4, 1, (512,), 1, "relu", rng)
    x = rng.standard_normal((1, 1, 4), dtype=np.float32)
    plain = net.forward(x, 0.0, rng)[0].item()
    dropped = [net.forward(x, 0.3, rng)[0].item() for _ in range(400)]
    assert np.std(dropped) > 0
    assert abs(np.mean(dropped) - plain) < 4 * np.std(dropped) / 20


def test_it_learns_what_a_sum_cannot_at_least_as_well_as_scikit_learn() -> None:
    train, valid, test = table(), table(seed=1), table(seed=2)
    model = FAMILY.fit(config(), NUMBER, train, valid, FitBudget(), 0)
    reference = MLPRegressor(hidden_layer_sizes=(128, 128), early_stopping=True, max_iter=300, random_state=0).fit(
        train.x, train.y
    )
    assert error(model, test) < 0.12 * float(np.var(test.y))
    assert error(model, test) < 1.1 * float(np.mean((reference.predict(test.x) - test.y) ** 2))


def test_the_epoch_with_the_best_validation_loss_is_kept() -> None:
    train, valid = table(100), table(seed=1)
    budget = FitBudget()
    model = FAMILY.fit(config(dropout=0.0), NUMBER, train, valid, budget, 0)
    steps, losses = zip(*budget.curve, strict=True)
    assert model.rounds == steps[int(np.argmin(losses))]
    assert error(model, valid) == pytest.approx(min(losses))


def test_fixed_rounds_need_no_validation() -> None:
    model = FAMILY.fit(config(rounds=7), NUMBER, table(), None, FitBudget(), 0)
    assert model.rounds == 7


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


def test_gaps_are_refused_with_a_way_out() -> None:
    data = table(50)
    data.x[0, 0] = np.nan
    with pytest.raises(TrialError, match="'impute'"):
        FAMILY.fit(config(), NUMBER, data, None, FitBudget(), 0)
