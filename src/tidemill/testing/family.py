"""What every tabular `Family` keeps. Subclass `FamilySuite` and give it the fixture ``family``.

Families are tested as a search uses them: behind their own default treatment, through `pipeline.fit`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from tidemill.core.errors import TrialError
from tidemill.core.pack import pack, unpack
from tidemill.core.space import Space
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import Config
from tidemill.models.tabular import pipeline
from tidemill.models.tabular._base import Family, Feature, FeatureKind, FitBudget, TableProfile, TabularData
from tidemill.models.tabular.pipeline import FittedPipeline
from tidemill.testing.graphs import Run, compile_matrix

KINDS = ("binary", "multiclass", "regression")
PARITY = 1e-5
"""Largest difference between a model and its graph, relative to ``max(1, |value|)``."""
ALIKE = 1e-6
"""The same between a row alone and in a batch."""
_TRAIN, _VALID = 90, 30
_PATIENCE_S = 6.0
"""Processor seconds within which a fit whose time is over has returned."""
_FEATURES = (
    Feature("number", "number", FeatureKind.NUMBER),
    Feature("skewed", "skewed", FeatureKind.NUMBER),
    Feature("constant", "constant", FeatureKind.NUMBER),
    Feature("few", "few", FeatureKind.CATEGORY, 3),
    Feature("many", "many", FeatureKind.CATEGORY, 20),
    Feature("text: 'red'", "text", FeatureKind.COUNT),
    Feature("text: 'fox'", "text", FeatureKind.COUNT),
)


def task_of(kind: str) -> Task:
    """Two classes, three classes, or a number."""
    classes = {"binary": ("no", "yes"), "multiclass": ("a", "b", "c")}.get(kind, ())
    return Task(TaskKind(kind), "y", classes)


@cache
def table_of(kind: str, rows: int = _TRAIN + _VALID, seed: int = 0, *, unseen: bool = False) -> TabularData:
    """Numbers and categories with gaps, one constant, counts of words, and equal rows; ``unseen`` adds codes -1."""
    rng = np.random.default_rng(seed)
    x = np.empty((rows, len(_FEATURES)), dtype=np.float32)
    x[:, 0] = rng.normal(size=rows)
    x[:, 1] = np.exp(2 * rng.normal(size=rows))
    x[:, 2] = 7.0
    x[:, 3] = rng.integers(-1 if unseen else 0, 3, rows)
    x[:, 4] = np.minimum(rng.geometric(0.2, rows) - 1, 19)
    x[:, 5:] = rng.poisson(0.5, (rows, 2))
    x[3] = x[1]
    z = 2 * x[:, 0] + (x[:, 3] == 1) + 0.5 * (x[:, 5] > 0) + 0.3 * rng.normal(size=rows)
    y: NDArray[Any] = 100 + 10 * z
    if kind != "regression":
        y = np.digitize(z, [0.5] if kind == "binary" else [-0.7, 1.2]).astype(np.int64)
    gaps = rng.random((rows, 5)) < 0.08
    gaps[:, 2] = False
    x[:, :5][gaps] = np.nan
    return TabularData(x, _FEATURES, y)


class FamilySuite:
    """Laws of a family."""

    _memo: ClassVar[dict[tuple[str, str], FittedPipeline]]
    """Models that several laws look at, trained once."""

    def __init_subclass__(cls) -> None:
        cls._memo = {}

    @pytest.fixture
    def family(self) -> Family:
        """Override: build the family."""
        raise AssertionError("Give the fixture `family`.")

    @pytest.fixture(params=KINDS)
    def task(self, request: pytest.FixtureRequest, family: Family) -> Task:
        """Each kind of task that the family supports."""
        task = task_of(request.param)
        if not family.supports(task, profile_of(table_of(request.param))):
            pytest.skip(f"{family.name} does not learn {request.param}")
        return task

    @pytest.fixture
    def fitted(self, family: Family, task: Task) -> FittedPipeline:
        """A model with the default config."""
        key = (family.name, task.kind.value)
        if key not in self._memo:
            self._memo[key] = fit(family, task, table_of(task.kind.value))
        return self._memo[key]

    def test_the_space_is_its_own_and_goes_to_json_and_back(self, family: Family, task: Task) -> None:
        profile = profile_of(table_of(task.kind.value))
        space = family.space(task, profile)
        assert all(p.name.startswith(f"{family.name}.") for p in space)
        assert not any(p.name.startswith(f"{family.name}.treatment.") for p in space)
        assert Space.from_json(space.to_json()) == space
        space.check(space.default())
        space.check(space.sample(np.random.default_rng(0)))

    def test_treatment_choices_are_known_and_distinct(self, family: Family, task: Task) -> None:
        data = table_of(task.kind.value)
        choices = family.treatment(task, profile_of(data))
        assert all(name.startswith("treatment.") for name in choices)
        assert all(values and len(set(values)) == len(values) for values in choices.values())
        for name, values in choices.items():
            for value in values:
                config = {**config_of(family, task, data), f"{family.name}.{name}": value}
                assert pipeline.treated_profile(config, task, profile_of(data)).features

    def test_scores_are_what_the_task_asks_for(self, fitted: FittedPipeline, task: Task) -> None:
        for data in (table_of(task.kind.value), new_rows(task)):
            check_scores(fitted.predict(data.x), len(data.x), task)

    def test_it_learns(self, fitted: FittedPipeline, task: Task) -> None:
        new = table_of(task.kind.value, 300, seed=5)
        scores, y = fitted.predict(new.x), np.asarray(new.y)
        if task.kind.is_classification:
            assert (scores.argmax(axis=1) == y).mean() > np.bincount(y).max() / len(y) + 0.1
        else:
            assert np.mean((scores[:, 0] - y) ** 2) < 0.6 * np.var(y)

    def test_graph_and_model_agree(self, fitted: FittedPipeline, task: Task) -> None:
        run = compiled(fitted, task)
        strange = new_rows(task).x.copy()
        strange[:, :2] *= 1e6
        empty = strange[:2].copy()
        empty[:, [f.kind is not FeatureKind.COUNT for f in _FEATURES]] = np.nan
        for x in (table_of(task.kind.value).x, new_rows(task).x, strange, empty):
            check_parity(fitted, run, x)

    def test_a_row_alone_is_a_row_in_a_batch(self, fitted: FittedPipeline, task: Task) -> None:
        x, run = new_rows(task).x[:12], compiled(fitted, task)
        for predict in (fitted.predict, run):
            alone = np.concatenate([predict(x[i : i + 1]) for i in range(len(x))])
            check_close(alone, predict(x), ALIKE)

    def test_no_rows_give_no_scores(self, fitted: FittedPipeline, task: Task) -> None:
        # The graph is not asked: a bundle never does, and older onnxruntimes divide by the number of rows.
        assert fitted.predict(table_of(task.kind.value).x[:0]).shape == (0, task.n_outputs)

    def test_a_checkpoint_restores_the_same_model(self, family: Family, fitted: FittedPipeline, task: Task) -> None:
        state = unpack(pack(fitted.checkpoint()))
        again = pipeline.restore(state, task, family=family)
        x = new_rows(task).x
        assert np.array_equal(again.predict(x), fitted.predict(x))
        assert np.array_equal(compiled(again, task)(x), compiled(fitted, task)(x))
        assert again.cost == fitted.cost
        assert again.best_round == fitted.best_round
        assert pack(again.checkpoint()) == pack(fitted.checkpoint())

    def test_same_seed_same_model(self, family: Family, fitted: FittedPipeline, task: Task) -> None:
        again = fit(family, task, table_of(task.kind.value))
        x = new_rows(task).x
        assert np.array_equal(again.predict(x), fitted.predict(x))

    def test_training_changes_nothing_that_it_was_given(self, family: Family, task: Task) -> None:
        data = table_of(task.kind.value)
        mine = TabularData(data.x.copy(), data.features, np.asarray(data.y).copy())
        config = {**config_of(family, task, data), f"{family.name}.rounds": 2}
        before = dict(config)
        pipeline.fit(config, task, mine, np.arange(_TRAIN), None, FitBudget(), 0, family=family)
        assert config == before
        assert np.array_equal(mine.x, data.x, equal_nan=True)
        assert np.array_equal(np.asarray(mine.y), np.asarray(data.y))

    def test_rounds_are_kept_where_nothing_stops_early(self, family: Family, task: Task) -> None:
        short: Config = {f"{family.name}.rounds": 3}
        fitted = fit(family, task, table_of(task.kind.value), short, valid=False)
        assert fitted.best_round in (None, 3)
        check_parity(fitted, compiled(fitted, task), new_rows(task).x)

    def test_cost_is_bounded_before_training(self, family: Family, task: Task) -> None:
        data = table_of(task.kind.value)
        limited = {f"{family.name}.max_rounds": 8}
        fitted = fit(family, task, data, limited)
        config = {**config_of(family, task, data), **limited}
        most = family.cost(config, task, replace(profile_of(data), rows=_TRAIN)).to_json()
        for name, known in fitted.model.cost.to_json().items():
            if most[name] is not None and known is not None:
                assert 0 < known <= most[name], name

    def test_a_deadline_that_is_over_ends_the_fit(self, family: Family, task: Task) -> None:
        data = table_of(task.kind.value, 1500)
        begin_s = time.process_time()
        budget = FitBudget(deadline=time.monotonic() - 1.0)
        config = config_of(family, task, data)
        try:
            fitted = pipeline.fit(config, task, data, np.arange(1200), np.arange(1200, 1500), budget, 0, family=family)
        except TrialError:
            pass  # a family that can't stop says so before it starts
        else:
            check_scores(fitted.predict(data.x), len(data.x), task)
        assert time.process_time() - begin_s < _PATIENCE_S

    def test_twenty_rows_are_enough(self, family: Family, task: Task) -> None:
        kind = task.kind.value
        data = table_of(kind, 20, seed=2)
        if not family.supports(task, TableProfile(15, data.features)):
            pytest.skip(f"{family.name} does not learn from so few rows")
        config = {**config_of(family, task, data), f"{family.name}.max_rounds": 60}
        fitted = pipeline.fit(config, task, data, np.arange(15), np.arange(15, 20), FitBudget(), 0, family=family)
        check_scores(fitted.predict(new_rows(task).x), len(new_rows(task).x), task)
        check_parity(fitted, compiled(fitted, task), new_rows(task).x)

    def test_a_class_that_training_lacks_is_improbable(self, family: Family, task: Task) -> None:
        if task.kind is not TaskKind.MULTICLASS:
            pytest.skip("this law is about several classes")
        data = table_of(task.kind.value)
        known = np.flatnonzero(np.asarray(data.y)[:_TRAIN] != 0)
        config = {**config_of(family, task, data), f"{family.name}.max_rounds": 60}
        for valid in (None, np.arange(_TRAIN, len(data.x))):
            fitted = pipeline.fit(config, task, data, known, valid, FitBudget(), 0, family=family)
            scores = fitted.predict(data.x)
            check_scores(scores, len(scores), task)
            check_parity(fitted, compiled(fitted, task), new_rows(task).x)
            if valid is None:
                assert scores[:, 0].mean() < 0.05

    def test_one_class_alone_is_a_model_or_a_clear_word(self, family: Family, task: Task) -> None:
        if not task.kind.is_classification:
            pytest.skip("this law is about classes")
        data = table_of(task.kind.value)
        ones = np.flatnonzero(np.asarray(data.y) == 1)
        config = config_of(family, task, data)
        try:
            fitted = pipeline.fit(config, task, data, ones[:-5], ones[-5:], FitBudget(), 0, family=family)
        except TrialError:
            return
        scores = fitted.predict(data.x)
        check_scores(scores, len(scores), task)
        assert (scores.argmax(axis=1) == 1).all()

    def test_heavy_rows_count_more(self, family: Family, task: Task) -> None:
        # The target is shuffled, so that nothing but the weights tells the rows apart.
        data = table_of(task.kind.value)
        y = np.random.default_rng(0).permutation(np.asarray(data.y))
        high = y >= np.median(y) if task.kind is TaskKind.REGRESSION else y == 1
        weight = np.where(high, 1.0, 0.1)
        changes = {f"{family.name}.rounds": 8}
        heavy = fit(family, task, replace(data, y=y, weight=weight / weight.mean()), changes, valid=False)
        plain = fit(family, task, replace(data, y=y), changes, valid=False)
        scores = [m.predict(new_rows(task).x)[:, min(1, task.n_outputs - 1)].mean() for m in (heavy, plain)]
        assert scores[0] > scores[1] + (1.0 if task.kind is TaskKind.REGRESSION else 0.02)

    @pytest.mark.parametrize("seed", range(2))
    def test_other_points_of_the_space_train(self, family: Family, task: Task, seed: int) -> None:
        data = table_of(task.kind.value)
        rng = np.random.default_rng(seed)
        config = {**config_of(family, task, data), **family.space(task, profile_of(data)).sample(rng)}
        for name, values in family.treatment(task, profile_of(data)).items():
            config[f"{family.name}.{name}"] = values[int(rng.integers(len(values)))]
        config |= {f"{family.name}.rounds": 4, f"{family.name}.max_rounds": 20}
        fitted = pipeline.fit(config, task, data, np.arange(_TRAIN), None, FitBudget(), seed, family=family)
        check_parity(fitted, compiled(fitted, task), new_rows(task).x)


def profile_of(data: TabularData) -> TableProfile:
    """Give the sizes of a table."""
    return TableProfile(len(data.x), data.features)


def new_rows(task: Task) -> TabularData:
    """Rows that training hasn't seen, with categories that it hasn't seen."""
    return table_of(task.kind.value, 40, seed=1, unseen=True)


def config_of(family: Family, task: Task, data: TabularData) -> Config:
    """Give the config of all defaults, as the pool would build it."""
    profile = profile_of(data)
    chosen = {f"{family.name}.{name}": values[0] for name, values in family.treatment(task, profile).items()}
    return {"family": family.name, **chosen, **family.space(task, profile).default()}


def fit(
    family: Family, task: Task, data: TabularData, changes: Config | None = None, *, valid: bool = True
) -> FittedPipeline:
    """Train with the defaults and some changes."""
    config = {**config_of(family, task, data), **(changes or {})}
    stop = np.arange(_TRAIN, len(data.x)) if valid else None
    return pipeline.fit(config, task, data, np.arange(_TRAIN), stop, FitBudget(threads=1), 0, family=family)


def compiled(fitted: FittedPipeline, task: Task) -> Run:
    """Give the model's graph as a function."""
    return compile_matrix(fitted.emit, len(_FEATURES), task.n_outputs)


def check_scores(scores: NDArray[np.float32], rows: int, task: Task) -> None:
    """Fail unless they are probabilities that sum to 1, or finite values."""
    assert scores.dtype == np.float32
    assert scores.shape == (rows, task.n_outputs)
    assert np.isfinite(scores).all()
    if task.kind.is_classification:
        assert ((scores >= 0) & (scores <= 1 + 1e-6)).all()
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-5)


def check_parity(fitted: FittedPipeline, run: Run, x: NDArray[np.float32]) -> None:
    """Fail unless model and graph agree."""
    check_close(run(x), fitted.predict(x), PARITY)


def check_close(a: NDArray[np.float32], b: NDArray[np.float32], tolerance: float) -> None:
    """Fail unless two arrays agree, relative to ``max(1, |value|)``."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype == np.float32
    distance = np.abs(a.astype(np.float64) - b) / np.maximum(1.0, np.abs(b))
    assert np.max(distance, initial=0.0) <= tolerance
