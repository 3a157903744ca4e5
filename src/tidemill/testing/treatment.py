"""What every treatment step keeps. Subclass `StepSuite` and give it the fixture ``step``."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task, TaskKind
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.treatment import FittedStep, Step
from tidemill.testing.graphs import Run, compile_matrix

KINDS = ("binary", "multiclass", "regression")
FEATURES = (
    Feature("plain", "plain", FeatureKind.NUMBER),
    Feature("few", "few", FeatureKind.CATEGORY, 3),
    Feature("skewed", "skewed", FeatureKind.NUMBER),
    Feature("note: 'red'", "note", FeatureKind.COUNT),
    Feature("rounded", "rounded", FeatureKind.NUMBER),
    Feature("many", "many", FeatureKind.CATEGORY, 12),
    Feature("title: 'sea'", "title", FeatureKind.COUNT),
    Feature("note: 'fox'", "note", FeatureKind.COUNT),
    Feature("constant", "constant", FeatureKind.NUMBER),
    Feature("absent", "absent", FeatureKind.NUMBER),
    Feature("single", "single", FeatureKind.CATEGORY, 1),
)
"""Every kind of column, out of order."""
_STRANGE = np.array([np.nan, 0.0, -0.0, 1.0, -1.0, 1e-42, -1e-38, 3.4e38, -3.4e38, 16777217.0, 0.1], dtype=np.float32)
# One law for many subclasses is what we want; nothing is replayed from a database, so no example is mixed up.
_INHERITED = [HealthCheck.differing_executors, HealthCheck.too_slow, HealthCheck.function_scoped_fixture]


def task_of(kind: str) -> Task:
    """Two classes, three classes, or a number."""
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c")}.get(kind, ())
    return Task(TaskKind(kind), "y", classes)


@cache
def table_of(kind: str, rows: int = 240, seed: int = 0) -> tuple[Matrix, NDArray[Any]]:
    """Training rows and their targets: gaps, equal values, a column of one value and one of none.

    The target follows from the product of two numbers and from a pair of categories, so that every step has work.
    """
    rng = np.random.default_rng(seed)
    x = np.empty((rows, len(FEATURES)), dtype=np.float32)
    x[:, 0] = rng.normal(size=rows)
    x[:, 1] = rng.integers(0, 3, rows)
    x[:, 2] = np.exp(4 * rng.normal(size=rows))
    x[:, 4] = rng.normal(size=rows).round(1)
    x[:, 5] = np.minimum(rng.geometric(0.2, rows) - 1, 11)
    x[:, [3, 6, 7]] = rng.poisson(0.7, (rows, 3))
    z = 2 * x[:, 0] * x[:, 4] + 3.0 * ((x[:, 1] == 1) ^ (x[:, 5] > 3)) + 0.3 * rng.normal(size=rows)
    x[:, [0, 1, 2, 4, 5]] = np.where(rng.random((rows, 5)) < 0.1, np.nan, x[:, [0, 1, 2, 4, 5]])
    x[:, 8], x[:, 9], x[:, 10] = 7.0, np.nan, 0.0
    if kind == "regression":
        return x, 50 + 10 * z.astype(np.float64)
    return x, np.digitize(z, [1.5] if kind == "binary" else [0.5, 2.5]).astype(np.int64)


def strange_rows(seed: int, rows: int = 40, features: tuple[Feature, ...] = FEATURES) -> Matrix:
    """Rows at the limits of what an encoder gives: unseen codes, gaps anywhere, the smallest and largest numbers."""
    rng = np.random.default_rng(seed)
    out = np.empty((rows, len(features)), dtype=np.float32)
    for i, feature in enumerate(features):
        if feature.kind is FeatureKind.NUMBER:
            wild = rng.standard_normal(rows) * 10.0 ** rng.integers(-3, 6, rows)
            out[:, i] = np.where(rng.random(rows) < 0.5, rng.choice(_STRANGE, rows), wild)
        elif feature.kind is FeatureKind.CATEGORY:
            codes = rng.integers(-1, feature.cardinality, rows).astype(np.float32)
            out[:, i] = np.where(rng.random(rows) < 0.1, np.nan, codes)
        else:
            out[:, i] = np.where(rng.random(rows) < 0.1, 512, rng.poisson(0.5, rows))
    return out


class StepSuite:
    """Laws of a treatment step."""

    @pytest.fixture
    def step(self) -> Step:
        """Override: build the step, not fitted."""
        raise AssertionError("Give the fixture `step`.")

    @pytest.fixture(params=KINDS)
    def task(self, request: pytest.FixtureRequest) -> Task:
        """Each kind of task."""
        return task_of(request.param)

    @pytest.fixture
    def fitted(self, step: Step, task: Task) -> FittedStep:
        """The step after training rows."""
        fitted, _ = fit(step, task)
        if fitted is None:
            pytest.skip("the step finds nothing to do here")
        return fitted

    def test_numpy_and_the_graph_agree(self, fitted: FittedStep, task: Task) -> None:
        run = compiled(fitted)
        x, _ = table_of(task.kind.value)
        check_parity(fitted, run, x)
        for seed in range(4):
            check_parity(fitted, run, strange_rows(seed))

    @settings(max_examples=15, suppress_health_check=_INHERITED)
    @given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 25))
    def test_any_small_table_can_be_learned_from(self, step: Step, seed: int, rows: int) -> None:
        rng = np.random.default_rng(seed)
        x = strange_rows(seed, rows)
        x[:, 1], x[:, 5] = np.maximum(x[:, 1], 0), np.maximum(x[:, 5], 0)  # training has no unseen codes
        fitted, treated = step.fit(x, FEATURES, rng.integers(0, 2, rows), task_of("binary"), rng)
        if fitted is None:
            assert treated is x or np.array_equal(treated, x, equal_nan=True)
            return
        assert treated.shape == (rows, len(fitted.features))
        run = compiled(fitted)
        check_parity(fitted, run, x)
        check_parity(fitted, run, strange_rows(seed + 1, 10))

    def test_its_features_are_its_columns(self, step: Step, fitted: FittedStep, task: Task) -> None:
        x, _ = table_of(task.kind.value)
        _, treated = fit(step, task)
        assert fitted.inputs == FEATURES
        for out in (treated, fitted.transform(x)):
            assert out.dtype == np.float32
            assert out.shape == (len(x), len(fitted.features))
        names = [f.name for f in fitted.features]
        assert len(set(names)) == len(names)
        assert {f.source for f in fitted.features} <= {f.source for f in FEATURES}

    def test_codes_stay_within_their_cardinality(self, fitted: FittedStep) -> None:
        out = fitted.transform(strange_rows(0, 200))
        for column, feature in zip(out.T, fitted.features, strict=True):
            if feature.kind is FeatureKind.CATEGORY:
                known = column[~np.isnan(column)]
                assert ((known >= -2) & (known < max(feature.cardinality, 1)) & (known == np.floor(known))).all()

    def test_its_width_is_bounded_before_training(self, step: Step, fitted: FittedStep, task: Task) -> None:
        most = step.width(FEATURES, task)
        assert len(fitted.features) <= len(most)
        for kind in FeatureKind:
            largest = max((f.cardinality for f in fitted.features if f.kind is kind), default=0)
            assert largest <= max((f.cardinality for f in most if f.kind is kind), default=0)

    def test_training_rows_are_treated_like_new_ones_unless_the_target_is_in_them(self, step: Step, task: Task) -> None:
        x, y = table_of(task.kind.value)
        first, treated = fit(step, task)
        other, _ = step.fit(x, FEATURES, np.roll(y, 1), task, np.random.default_rng(0))
        if first is not None and other is not None and pack(first.state()) == pack(other.state()):
            assert np.array_equal(treated, first.transform(x), equal_nan=True)

    def test_a_checkpoint_restores_the_same_step(self, fitted: FittedStep) -> None:
        again = type(fitted).restore(fitted.inputs, unpack(pack(fitted.state())))
        x = strange_rows(7)
        assert np.array_equal(again.transform(x), fitted.transform(x), equal_nan=True)
        assert np.array_equal(compiled(again)(x), compiled(fitted)(x), equal_nan=True)
        assert again.features == fitted.features
        assert again.cost == fitted.cost
        assert pack(again.state()) == pack(fitted.state())

    def test_same_rows_same_step(self, step: Step, fitted: FittedStep, task: Task) -> None:
        again, _ = fit(step, task)
        assert again is not None
        assert pack(again.state()) == pack(fitted.state())

    def test_nothing_that_it_is_given_changes(self, step: Step, task: Task) -> None:
        x, y = table_of(task.kind.value)
        mine, own = x.copy(), y.copy()
        fitted, _ = step.fit(mine, FEATURES, own, task, np.random.default_rng(0))
        if fitted is not None:
            fitted.transform(mine)
        assert np.array_equal(mine, x, equal_nan=True)
        assert np.array_equal(own, y)

    def test_a_row_alone_is_a_row_in_a_batch(self, fitted: FittedStep) -> None:
        x, run = strange_rows(3, 12), compiled(fitted)
        for treat in (fitted.transform, run):
            alone = np.concatenate([treat(x[i : i + 1]) for i in range(len(x))])
            check_close(alone, treat(x), fitted.tolerance)

    def test_no_rows_give_no_rows(self, fitted: FittedStep) -> None:
        none = strange_rows(0, 0)
        for treat in (fitted.transform, compiled(fitted)):
            assert treat(none).shape == (0, len(fitted.features))

    def test_its_cost_is_known(self, fitted: FittedStep) -> None:
        cost = fitted.cost
        assert cost.params is not None
        assert cost.flops is not None
        assert cost.size_bytes is not None
        assert min(cost.params, cost.flops, cost.size_bytes) >= 0

    def test_exact_steps_have_no_tolerance(self, fitted: FittedStep) -> None:
        assert fitted.exact == (fitted.tolerance == 0.0)


def fit(step: Step, task: Task) -> tuple[FittedStep | None, Matrix]:
    """Learn from the training rows."""
    x, y = table_of(task.kind.value)
    return step.fit(x, FEATURES, y, task, np.random.default_rng(0))


def compiled(fitted: FittedStep) -> Run:
    """Give the step's graph as a function."""
    return compile_matrix(fitted.emit, len(fitted.inputs), len(fitted.features))


def check_parity(fitted: FittedStep, run: Run, x: Matrix) -> None:
    """Fail unless numpy and the graph agree as the step promises."""
    check_close(run(x), fitted.transform(x), fitted.tolerance)


def check_close(a: Matrix, b: Matrix, tolerance: float) -> None:
    """Fail unless two arrays agree: to the last bit for a tolerance of 0, else relative to ``max(1, |value|)``."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32
    assert np.array_equal(np.isnan(a), np.isnan(b))
    a, b = np.nan_to_num(a, nan=0.0, posinf=np.inf, neginf=-np.inf), np.nan_to_num(b, posinf=np.inf, neginf=-np.inf)
    if tolerance == 0.0:
        assert np.array_equal(a, b)
        return
    infinite = np.isinf(b)
    assert np.array_equal(a[infinite], b[infinite])
    wide = b[~infinite].astype(np.float64)
    assert np.max(np.abs(a[~infinite] - wide) / np.maximum(1.0, np.abs(wide)), initial=0.0) <= tolerance
