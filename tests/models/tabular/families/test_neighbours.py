from __future__ import annotations

import numpy as np
import pytest

from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, TabularData
from tidemill.models.tabular.families.neighbours import FAMILY, FittedNeighbours

TASK = Task(TaskKind.BINARY, "y", ("no", "yes"), positive="yes")


def fit(core: float, rows: int = 400) -> tuple[FittedNeighbours, TabularData]:
    """Fit labels that nothing but the row itself tells."""
    rng = np.random.default_rng(0)
    features = tuple(Feature(n, n, FeatureKind.NUMBER) for n in "ab")
    data = TabularData(rng.normal(size=(rows, 2)).astype(np.float32), features, rng.integers(2, size=rows))
    config = {"family": "neighbours", "neighbours.k": 20, "neighbours.prior": 0.2, "neighbours.core": core}
    return FAMILY.fit(config, TASK, data, None, FitBudget(), 0), data


def test_a_narrow_core_knows_a_row_that_comes_again() -> None:
    truth = []
    for core in (1000.0, 0.1, 0.001):
        model, data = fit(core)
        assert data.y is not None
        truth.append(float(model.predict(data.x)[np.arange(400), data.y].mean()))
    assert truth[0] < truth[1] < truth[2]
    assert truth[0] < 0.65
    assert truth[2] > 0.85


def test_a_wide_core_is_the_plain_kernel() -> None:
    model, data = fit(1000.0)
    distances = ((data.x[:1].astype(float) - model.points) ** 2).sum(axis=1)
    near = np.sort(distances)[: model.k]
    order = np.argsort(distances)[: model.k]
    kernel = near[-1] - near
    prior = 0.2 * model.width
    total = kernel @ model.totals[order] + prior * np.append(model.prior, 1.0)
    assert model.predict(data.x[:1])[0] == pytest.approx(total[:-1] / total[-1], rel=2e-3)
