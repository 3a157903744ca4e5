"""What the tests of all tree families share: small tables with gaps, and the laws that each keeps."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config
from tidemill.models.tabular._base import Family, Feature, FeatureKind, FitBudget, Fitted, TableProfile, TabularData

COLUMNS = 6
# One law for many subclasses is what we want; nothing is replayed from a database, so no example is mixed up.
INHERITED = [HealthCheck.differing_executors, HealthCheck.too_slow]
KINDS = ("binary", "3 classes", "19 classes", "regression")


def task_of(kind: str) -> Task:
    if kind == "regression":
        return Task(TaskKind.REGRESSION, "y")
    count = 2 if kind == "binary" else int(kind.split()[0])
    return Task(TaskKind.BINARY if count == 2 else TaskKind.MULTICLASS, "y", tuple(f"class {i}" for i in range(count)))


@cache
def table_of(kind: str, rows: int = 500, seed: int = 0) -> TabularData:
    """Numbers with gaps, codes with unseen values, one column without gaps, one that is constant."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, COLUMNS)).astype(np.float32)
    z = 2 * x[:, 0] + x[:, 1] * x[:, 2] + rng.normal(size=rows) * 0.3
    x[:, 3] = rng.integers(-1, 5, size=rows)
    x[:, 5] = 1
    x[:, :4][rng.random((rows, 4)) < 0.1] = np.nan
    task = task_of(kind)
    y = (z - z.mean()) / z.std()
    if task.kind.is_classification:
        y = np.digitize(z, np.quantile(z, np.linspace(0, 1, task.n_classes + 1)[1:-1]))
    features = tuple(Feature(f"x{i}", f"x{i}", FeatureKind.NUMBER) for i in range(COLUMNS))
    return TabularData(x, features, y)


def profile_of(data: TabularData) -> TableProfile:
    return TableProfile(len(data.x), data.features)


def run_graph(model: Fitted, x: NDArray[np.float32], n_outputs: int) -> NDArray[np.float32]:
    graph = GraphBuilder()
    name = graph.input("x", np.float32, ["N", x.shape[1]])
    graph.output(model.emit(graph, name), "y", np.float32, ["N", n_outputs])
    session = ort.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, {"x": x})[0]
    return out


def check_parity(model: Fitted, x: NDArray[np.float32], task: Task) -> None:
    expected = model.predict(x)
    assert expected.dtype == np.float32
    assert expected.shape == (len(x), task.n_outputs)
    np.testing.assert_allclose(run_graph(model, x, task.n_outputs), expected, rtol=2e-6, atol=2e-6)
    if task.kind.is_classification:
        np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-6)


class TreeLaws:
    """Subclass with ``family``, ``quick`` settings to learn something, and the fewest rounds or trees, ``short``."""

    family: Family
    quick: Config
    short: Config

    def config(self, task: Task, data: TabularData, **changes: Any) -> Config:
        space = self.family.space(task, profile_of(data))
        assert all(p.name.startswith(f"{self.family.name}.") for p in space)
        return {"family": self.family.name, **space.default(), **self.quick, **changes}

    def fit(self, kind: str, *, valid: bool = True, seed: int = 0, **changes: Any) -> tuple[Fitted, TabularData, Task]:
        data, task = table_of(kind), task_of(kind)
        cut = 350 if valid else len(data.x)
        model = self.family.fit(
            self.config(task, data, **changes),
            task,
            data.take(np.arange(cut)),
            data.take(np.arange(cut, len(data.x))) if valid else None,
            FitBudget(threads=1),
            seed,
        )
        return model, data, task

    @pytest.mark.parametrize("kind", KINDS)
    def test_graph_and_library_agree(self, kind: str) -> None:
        model, data, task = self.fit(kind)
        x = data.x.copy()
        x[np.random.default_rng(1).random(x.shape) < 0.2] = np.nan  # gaps where training saw none
        check_parity(model, np.concatenate([data.x, x, -1000 * x]), task)

    @pytest.mark.parametrize("kind", KINDS)
    def test_it_learns(self, kind: str) -> None:
        model, data, task = self.fit(kind, valid=False)
        scores, y = model.predict(data.x), np.asarray(data.y)
        if task.kind.is_classification:
            base = np.bincount(y).max() / len(y)
            assert (scores.argmax(axis=1) == y).mean() > base + 0.2
        else:
            assert np.mean((scores[:, 0] - y) ** 2) < 0.5

    @pytest.mark.parametrize("kind", KINDS)
    def test_checkpoint_restores_the_same_model(self, kind: str) -> None:
        model, data, task = self.fit(kind)
        again = self.family.restore(unpack(pack(model.checkpoint())), task)
        assert np.array_equal(again.predict(data.x), model.predict(data.x))
        assert np.array_equal(run_graph(again, data.x, task.n_outputs), run_graph(model, data.x, task.n_outputs))
        assert again.cost == model.cost
        assert pack(again.checkpoint()) == pack(model.checkpoint())

    def test_same_seed_same_model(self) -> None:
        first, data, _ = self.fit("binary", seed=5)
        again, _, _ = self.fit("binary", seed=5)
        other, _, _ = self.fit("binary", seed=6)
        assert np.array_equal(first.predict(data.x), again.predict(data.x))
        assert not np.array_equal(first.predict(data.x), other.predict(data.x))

    @pytest.mark.parametrize("kind", [k for k in KINDS if "classes" in k])
    def test_class_that_training_lacks(self, kind: str) -> None:
        task, data = task_of(kind), table_of(kind)
        data = data.take(np.asarray(data.y) != 1)
        model = self.family.fit(self.config(task, data), task, data, None, FitBudget(), 0)
        check_parity(model, data.x, task)
        assert model.predict(data.x)[:, 1].max() < 0.05

    def test_class_that_only_validation_has(self) -> None:
        task, data = task_of("3 classes"), table_of("3 classes")
        known = np.asarray(data.y) != 1
        train, valid = data.take(known), data.take(np.arange(350, 500))
        model = self.family.fit(self.config(task, data), task, train, valid, FitBudget(), 0)
        check_parity(model, data.x, task)

    def test_weights_count(self) -> None:
        task, data = task_of("binary"), table_of("binary")
        weight = np.where(data.y == 1, 1.9, 0.1)
        config = self.config(task, data, **{f"{self.family.name}.max_rounds": 5})
        plain = self.family.fit(config, task, data, None, FitBudget(), 0)
        heavy = self.family.fit(config, task, replace(data, weight=weight), None, FitBudget(), 0)
        assert heavy.predict(data.x)[:, 1].mean() > plain.predict(data.x)[:, 1].mean() + 0.05

    def test_deadline_stops_between_rounds_and_leaves_a_model(self) -> None:
        task, data = task_of("3 classes"), table_of("3 classes")
        whole, _, _ = self.fit("3 classes", valid=False)
        budget = FitBudget(deadline=time.monotonic())
        model = self.family.fit(self.config(task, data), task, data, None, budget, 0)
        assert (model.cost.params or 0) < (whole.cost.params or 0)
        check_parity(model, data.x, task)

    def test_curve_tells_the_loss_on_the_way(self) -> None:
        task, data = task_of("regression"), table_of("regression")
        budget = FitBudget()
        config = self.config(task, data)
        self.family.fit(config, task, data.take(np.arange(350)), data.take(np.arange(350, 500)), budget, 0)
        steps, losses = zip(*budget.curve, strict=True)
        assert 1 < len(steps) <= 500
        assert list(steps) == sorted(set(steps))
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize("kind", KINDS)
    def test_cost_is_bounded_before_training(self, kind: str) -> None:
        model, data, task = self.fit(kind, **{f"{self.family.name}.max_rounds": 20})
        config = self.config(task, data, **{f"{self.family.name}.max_rounds": 20})
        limit = self.family.cost(config, task, profile_of(data))
        for known, most in zip(model.cost.to_json().values(), limit.to_json().values(), strict=True):
            assert (known is None) == (most is None)
            if most is not None:
                assert 0 < known <= most

    @settings(max_examples=12, suppress_health_check=INHERITED)
    @given(st.integers(0, 2**32 - 1), st.integers(4, 30))
    def test_tiny_tables(self, seed: int, rows: int) -> None:
        """Any tiny table gives a model that the graph repeats: ties, gaps, columns that are missing altogether."""
        rng = np.random.default_rng(seed)
        x = rng.integers(-2, 3, size=(rows, 3)).astype(np.float32)
        x[rng.random(x.shape) < 0.2] = np.nan
        x[:, 2] = rng.choice([np.nan, 1.0, 3e38, -1e-42])
        x[0, 0], x[1, 0] = 0, 1
        features = tuple(Feature(f"x{i}", f"x{i}", FeatureKind.NUMBER) for i in range(3))
        task = task_of("binary")
        data = TabularData(x, features, (np.arange(rows) % 2).astype(np.int64))
        model = self.family.fit(self.config(task, data), task, data, data, FitBudget(), 0)
        check_parity(model, np.concatenate([x, rng.normal(size=(20, 3)).astype(np.float32)]), task)

    @settings(max_examples=8, suppress_health_check=INHERITED)
    @given(st.integers(0, 2**32 - 1))
    def test_any_point_of_the_space_trains(self, seed: int) -> None:
        task, data = task_of("3 classes"), table_of("3 classes", rows=120)
        config = self.family.space(task, profile_of(data)).sample(np.random.default_rng(seed))
        config = {**config, **self.short, "family": self.family.name}
        train, valid = data.take(np.arange(90)), data.take(np.arange(90, 120))
        check_parity(self.family.fit(config, task, train, valid, FitBudget(), 0), data.x, task)
