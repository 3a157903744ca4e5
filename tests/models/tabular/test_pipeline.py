"""Pipelines: every choice of treatment behind a family, targets on their scales, and what goes wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.bundle.parity import FLOOR, MAX_DP, RTOL
from tidemill.core.errors import InternalError, TrialError
from tidemill.core.pack import pack, unpack
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config
from tidemill.models import pool
from tidemill.models.tabular import pipeline
from tidemill.models.tabular._base import Feature, FeatureKind, FitBudget, Matrix, TableProfile, TabularData
from tidemill.models.tabular.target import CURVES, TargetScale
from tidemill.models.tabular.treatment import CHOICES
from tidemill.testing.graphs import compile_matrix

ROWS = 100
FEATURES = (
    Feature("a", "a", FeatureKind.NUMBER),
    Feature("b", "b", FeatureKind.NUMBER),
    Feature("city", "city", FeatureKind.CATEGORY, 4),
    Feature("size", "size", FeatureKind.CATEGORY, 3),
    Feature("note: 'red'", "note", FeatureKind.COUNT),
    Feature("note: 'fox'", "note", FeatureKind.COUNT),
    Feature("note: words", "note", FeatureKind.NUMBER),
    *(Feature(f"noise {i}", f"noise {i}", FeatureKind.NUMBER) for i in range(25)),
)
TASKS = {
    "binary": Task(TaskKind.BINARY, "y", ("no", "yes")),
    "multiclass": Task(TaskKind.MULTICLASS, "y", ("a", "b", "c")),
    "regression": Task(TaskKind.REGRESSION, "y"),
}
SHORT = {"lightgbm.rounds": 5, "mlp.rounds": 2}


def table(kind: str = "binary", *, seed: int = 0, unseen: bool = False) -> TabularData:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, len(FEATURES))).astype(np.float32)
    x[:, 1] = np.exp(x[:, 1] * 2)
    x[:, 2] = rng.integers(-1 if unseen else 0, 4, ROWS)
    x[:, 3] = rng.integers(-1 if unseen else 0, 3, ROWS)
    x[:, 4:6] = rng.poisson(0.6, (ROWS, 2))
    z = x[:, 0] + (x[:, 2] == 1) + x[:, 4] + 0.2 * rng.normal(size=ROWS)
    x[:, :4][rng.random((ROWS, 4)) < 0.1] = np.nan
    x[:, 6] = x[:, 4:6].sum(axis=1)
    if kind == "regression":
        return TabularData(x, FEATURES, np.exp(z.astype(np.float64)))
    return TabularData(x, FEATURES, np.digitize(z, [0.8] if kind == "binary" else [0.3, 1.5]).astype(np.int64))


PROFILE = TableProfile(ROWS, FEATURES)
CASES = [
    (family, kind, name, value)
    for family in ("linear", "lightgbm")
    for kind in ("multiclass", "regression")
    for name, values in pool.families([family])[family].treatment(TASKS[kind], PROFILE).items()
    for value in values
    if kind == "multiclass" or name == "treatment.target"
]


def fit(config: Config, kind: str, *, valid: bool = False) -> pipeline.FittedPipeline:
    rows = np.arange(ROWS)
    train, stop = (rows[:70], rows[70:]) if valid else (rows, None)
    return pipeline.fit({**config, **SHORT}, TASKS[kind], table(kind), train, stop, FitBudget(threads=1), 0)


def check(fitted: pipeline.FittedPipeline, kind: str, x: Matrix) -> None:
    task = TASKS[kind]
    found, expected = compile_matrix(fitted.emit, x.shape[1], task.n_outputs)(x), fitted.predict(x)
    # The bars of a bundle's proof: a value near 0 is held against the spread of all.
    least = FLOOR * float(np.ptp(expected)) if kind == "regression" else 0.0
    np.testing.assert_allclose(found, expected, rtol=RTOL if kind == "regression" else 0.0, atol=least or MAX_DP)


@pytest.mark.parametrize(("family", "kind", "name", "value"), CASES)
def test_every_choice_of_treatment_trains_and_is_exported(family: str, kind: str, name: str, value: str) -> None:
    config = {**pool.default_config(family, TASKS[kind], PROFILE), f"{family}.{name}": value}
    pool.space(TASKS[kind], PROFILE, [family]).check(config)
    fitted = fit(config, kind)
    for x in (table(kind).x, table(kind, seed=1, unseen=True).x):
        check(fitted, kind, x)
    again = pipeline.restore(unpack(pack(fitted.checkpoint())), TASKS[kind])
    assert np.array_equal(again.predict(table(kind).x), fitted.predict(table(kind).x))
    treated = pipeline.treated_profile(config, TASKS[kind], PROFILE)
    assert len(fitted.treatment.features) <= len(treated.features)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_every_registered_choice_can_be_offered(name: str) -> None:
    """Families offer a part of the choices; all of them work before one that takes anything."""
    default = pool.default_config("lightgbm", TASKS["binary"], PROFILE)
    for value in CHOICES[name]:
        if name != "codes":  # follows "missing"
            config = {**default, f"lightgbm.treatment.{name}": value}
            check(fit(config, "binary"), "binary", table(seed=1, unseen=True).x)


@pytest.mark.parametrize("family", ["linear", "lightgbm", "mlp"])
@pytest.mark.parametrize("curve", CURVES)
def test_targets_come_back_in_their_own_units(family: str, curve: str) -> None:
    task, data = TASKS["regression"], table("regression")
    config = {**pool.default_config(family, task, PROFILE), f"{family}.treatment.target": curve}
    fitted = fit(config, "regression", valid=True)
    assert fitted.target is not None
    assert fitted.target.curve == curve
    scores = fitted.predict(data.x)[:, 0]
    assert np.corrcoef(scores, np.asarray(data.y))[0, 1] > 0.3
    check(fitted, "regression", table("regression", seed=1, unseen=True).x)
    assert fitted.cost.params is not None


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    st.sampled_from(CURVES),
    st.lists(st.floats(-50, 50, width=32), max_size=10),
)
def test_a_target_scale_is_undone(targets: list[float], curve: str, scores: list[float]) -> None:
    y = np.array(targets)
    scale = TargetScale.fit(y, curve)
    scaled = scale.scale(y)
    assert np.isfinite(scaled).all()
    assert abs(scaled.mean()) < 1e-3
    back = scale.restore_units(scaled.astype(np.float32)[:, None])[:, 0]
    np.testing.assert_allclose(back, y, rtol=1e-4, atol=1e-5 * max(1.0, np.abs(y).max()))
    any_ = np.array(scores, dtype=np.float32)[:, None]
    found = compile_matrix(scale.emit, 1, 1)(any_)
    np.testing.assert_allclose(found, scale.restore_units(any_), rtol=1e-6, atol=1e-6)
    assert np.isfinite(found).all()
    assert TargetScale.restore(unpack(pack(scale.checkpoint()))) == scale


@pytest.mark.parametrize("curve", CURVES)
def test_a_target_that_never_changes_is_predicted(curve: str) -> None:
    scale = TargetScale.fit(np.full(5, 12.5), curve)
    np.testing.assert_allclose(scale.restore_units(np.float32([[-3], [0], [3]])), 12.5, rtol=1e-6)


def test_infinite_targets_are_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(TrialError, match="missing or infinite"):
            TargetScale.fit(np.array([1.0, bad]), "log")


def test_no_rows_and_no_targets_are_refused() -> None:
    config = pool.default_config("linear", TASKS["binary"], PROFILE)
    with pytest.raises(TrialError, match="no rows"):
        pipeline.fit(config, TASKS["binary"], table(), np.arange(0), None, FitBudget(), 0)
    with pytest.raises(InternalError, match="targets"):
        pipeline.fit(config, TASKS["binary"], replace(table(), y=None), np.arange(5), None, FitBudget(), 0)


def test_rows_may_be_given_by_a_mask() -> None:
    config = pool.default_config("linear", TASKS["binary"], PROFILE)
    rows = np.arange(ROWS)
    by_mask = pipeline.fit(config, TASKS["binary"], table(), rows < 70, rows >= 70, FitBudget(), 0)
    by_index = pipeline.fit(config, TASKS["binary"], table(), rows[:70], rows[70:], FitBudget(), 0)
    assert np.array_equal(by_mask.predict(table().x), by_index.predict(table().x))
