"""The parts that only compute: closed forms and laws."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as reference
from sklearn.calibration import calibration_curve

from tidemill.core.metrics import get_metric
from tidemill.core.schema import Column, Columns, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.report._clock import Clock
from tidemill.report.dependence import GRID, grid_of, partial_dependence
from tidemill.report.facts import Evidence
from tidemill.report.figures._base import _for_page
from tidemill.report.figures.calibration import BINS, reliability
from tidemill.report.figures.ranking import curve_of
from tidemill.report.figures.search import frontier
from tidemill.report.importance import permutation_importance
from tidemill.report.intervals import Z, bootstrap
from tidemill.report.measure import Measure, infer_decision
from tidemill.report.slices import parts_of, worst_slices
from tidemill.report.words import label, number, percent

BINARY = Task(TaskKind.BINARY, "y", ("no", "yes"))
REGRESSION = Task(TaskKind.REGRESSION, "y")


class FakeClock(Clock):
    """A clock that moves by hand, or with every look at it."""

    def __init__(self, step: float = 0.0) -> None:
        self.time, self.step = 0.0, step
        super().__init__(None, self.look)

    def look(self) -> float:
        self.time += self.step
        return self.time


def measure(name: str, task: Task = BINARY) -> Measure:
    return Measure(name, get_metric(name), task)


def rows(seed: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    p = np.clip(0.5 + 0.3 * (y - 0.5) + rng.normal(0, 0.2, n), 0, 1)
    return y, np.column_stack([1 - p, p])


def test_the_interval_of_accuracy_is_that_of_a_share() -> None:
    y, scores = rows(0, 2000)
    decisions = scores.argmax(1)
    found = bootstrap({"a": measure("accuracy")}, y, scores, decisions, FakeClock(), 1.0, np.random.default_rng(0))["a"]
    p = (y == decisions).mean()
    half = Z * np.sqrt(p * (1 - p) / len(y))
    assert found.value == pytest.approx(p)
    assert found.low == pytest.approx(p - half, abs=0.1 * half)
    assert found.high == pytest.approx(p + half, abs=0.1 * half)


def test_a_thousand_classes_take_neither_minutes_nor_gigabytes() -> None:
    """A thousand confusion matrices of them would be 8 GB."""
    classes = 900
    rng = np.random.default_rng(0)
    y = rng.integers(0, classes, 2000)
    decisions = np.where(rng.random(2000) < 0.7, y, rng.integers(0, classes, 2000))
    task = Task(TaskKind.MULTICLASS, "y", tuple(str(c) for c in range(classes)))
    tracemalloc.start()
    found = bootstrap(
        {"a": measure("accuracy", task)}, y, np.eye(classes)[decisions], decisions, FakeClock(), 1.0, rng
    )["a"]  # fmt: skip
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    p = (y == decisions).mean()
    half = Z * np.sqrt(p * (1 - p) / len(y))
    assert found.high is not None
    assert found.high - found.value == pytest.approx(half, abs=0.3 * half)
    assert found.resamples < 1000
    assert peak < 300e6


def test_drawing_fewer_of_many_rows_keeps_the_width(monkeypatch: pytest.MonkeyPatch) -> None:
    y, scores = rows(1, 4000)
    whole = bootstrap({"b": measure("brier")}, y, scores, None, FakeClock(), 1.0, np.random.default_rng(0))["b"]
    monkeypatch.setattr("tidemill.report.intervals.MOST_DRAWN", 500)
    part = bootstrap({"b": measure("brier")}, y, scores, None, FakeClock(), 1.0, np.random.default_rng(0))["b"]
    terms = (scores[:, 1] - y) ** 2
    assert whole.high is not None and part.high is not None  # noqa: PT018 (for mypy)
    assert whole.high - whole.value == pytest.approx(Z * terms.std() / np.sqrt(len(y)), rel=0.2)
    assert part.high - part.value == pytest.approx(whole.high - whole.value, rel=0.25)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 80), st.sampled_from(["roc_auc", "log_loss", "ece", "f1", "mcc"]))
def test_an_interval_holds_its_value_and_keeps_its_bounds(seed: int, n: int, name: str) -> None:
    y, scores = rows(seed, n)
    m = measure(name)
    found = bootstrap({"m": m}, y, scores, scores.argmax(1), FakeClock(), -1.0, np.random.default_rng(seed))["m"]
    assert found.value == m(y, scores)
    if found.low is not None and found.high is not None:
        assert m.bounds[0] <= found.low <= found.value <= found.high <= m.bounds[1]
    if n < 20:
        assert found.low is None


def test_resampling_follows_its_seed_and_stops_at_its_time() -> None:
    y, scores = rows(2, 300)

    def run(step: float) -> Any:
        return bootstrap({"m": measure("roc_auc")}, y, scores, None, FakeClock(step), 1.0, np.random.default_rng(3))

    assert run(0.0) == run(0.0)
    assert run(0.0)["m"].resamples == 200
    assert run(0.1)["m"].resamples < 30
    assert run(10)["m"].resamples == 12


def linear(columns: Columns) -> NDArray[np.float32]:
    return np.asarray(3 * columns["a"] + 1 * columns["b"], np.float32)[:, None]


def regression(n: int = 1500) -> Evidence:
    rng = np.random.default_rng(0)
    columns: Columns = {name: rng.normal(size=n) for name in "abc"}
    scores = linear(columns)
    return Evidence("test", scores[:, 0].astype(float) + rng.normal(size=n), scores, None, columns)


def test_importance_of_a_linear_model_is_known() -> None:
    e = regression()
    m = measure("rmse", REGRESSION)
    found = permutation_importance(linear, e, ["c", "b", "a"], m, FakeClock(), 1.0, np.random.default_rng(0))
    assert [i.column for i in found.columns] == ["a", "b", "c"]
    a, b, c = found.columns
    # Shuffling x adds variance 2 · coefficient² · var(x) to the error's 1.
    assert a.value == pytest.approx(np.sqrt(1 + 2 * 9) - 1, rel=0.1)
    assert b.value == pytest.approx(np.sqrt(1 + 2 * 1) - 1, rel=0.15)
    assert (c.value, c.low, c.high) == (0, 0, 0)
    assert a.low < a.value < a.high
    assert (found.repeats, found.rows, found.untried) == (5, 1500, ())


def test_importance_stops_at_its_time_and_says_what_it_left() -> None:
    e, m = regression(), measure("rmse", REGRESSION)
    found = permutation_importance(linear, e, ["a", "b", "c"], m, FakeClock(1.0), 0.5, np.random.default_rng(0))
    assert ([i.column for i in found.columns], found.untried, found.repeats) == (["a"], ("b", "c"), 1)
    assert found.rows == 100


def test_dependence_of_a_linear_model_is_its_slope() -> None:
    e = regression()
    columns = [Column("a", SemanticType.NUMBER), Column("c", SemanticType.NUMBER)]
    a, c = partial_dependence(linear, e, columns, FakeClock(), 1.0, np.random.default_rng(0))
    grid = np.array(a.grid, dtype=float)
    np.testing.assert_allclose(np.diff(a.mean[:, 0]) / np.diff(grid), 3, rtol=1e-3)
    np.testing.assert_allclose(c.mean[:, 0], c.mean[0, 0], rtol=1e-6)
    assert (a.low <= a.mean).all()
    assert (a.mean <= a.high).all()


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60))
def test_a_grid_is_sorted_short_and_from_the_data(values: list[float]) -> None:
    grid = grid_of(Column("a", SemanticType.NUMBER), np.array(values, dtype=float))
    assert list(grid) == sorted(set(grid))
    assert set(grid) <= {v for v in values if np.isfinite(v)}
    assert len(grid) <= GRID


@given(st.lists(st.one_of(st.floats(-100, 100), st.just(float("nan"))), max_size=80))
def test_parts_of_a_number_split_the_rows(values: list[float]) -> None:
    array = np.array(values, dtype=float)
    parts = parts_of(Column("a", SemanticType.NUMBER), array)
    covered = np.sum([p.rows for p in parts], axis=0) if parts else np.zeros(0)
    assert (covered == 1).all()


def test_the_planted_slice_is_found() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    columns: Columns = {
        "region": rng.choice(np.array(["north", "south", "east"], dtype=object), n),
        "age": rng.uniform(0, 100, n),
        "noise": rng.normal(size=n),
    }
    bad = (columns["region"] == "north") & (columns["age"] > 80)
    y = rng.normal(size=n) * np.where(bad, 5, 1)
    e = Evidence("test", y, np.zeros((n, 1), np.float32), None, columns)
    schema = [Column("region", SemanticType.CATEGORY), *(Column(c, SemanticType.NUMBER) for c in ("age", "noise"))]
    found = worst_slices(e, None, schema, measure("rmse", REGRESSION), FakeClock(), 1.0, rng)
    worst = found.worst[0]
    assert {p.column for p in worst.parts} == {"region", "age"}
    assert worst.words.startswith(("region is north and age ≥ 8", "age ≥ 8"))
    assert worst.interval.value == pytest.approx(5, rel=0.15)
    assert worst.rows >= found.least_rows == 40


def test_nothing_is_found_where_all_rows_are_alike() -> None:
    columns: Columns = {"a": np.arange(500.0)}
    e = Evidence("test", np.ones(500), np.zeros((500, 1)), None, columns)
    column = [Column("a", SemanticType.NUMBER)]
    rng = np.random.default_rng(0)
    assert worst_slices(e, None, column, measure("rmse", REGRESSION), FakeClock(), 1.0, rng).worst == ()


@given(st.integers(0, 500), st.integers(4, 60))
def test_curves_agree_with_the_reference(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    hit = np.append([True, False], rng.random(n) < 0.4)
    score = rng.integers(0, 6, n + 2) / 5
    curve = curve_of("yes", hit, score, 0, 0)
    assert np.trapezoid(curve.recall, curve.false_positive_rate) == pytest.approx(reference.roc_auc_score(hit, score))
    steps = np.diff(curve.recall) @ curve.precision[1:]
    assert steps == pytest.approx(reference.average_precision_score(hit, score))


@given(st.integers(0, 500), st.integers(1, 200))
def test_reliability_agrees_with_the_reference_and_the_metric(seed: int, n: int) -> None:
    y, scores = rows(seed, n)
    p = np.clip(scores[:, 1], 0.001, 0.999)
    found = reliability(p, y == 1)
    observed, stated = calibration_curve(y, p, n_bins=BINS) if len(set(y)) == 2 else (found.observed, found.stated)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.stated, stated)
    assert found.error == pytest.approx(measure("ece")(y, np.column_stack([1 - p, p])))
    assert (found.low <= found.observed + 1e-9).all()
    assert (found.observed <= found.high + 1e-9).all()


@given(st.floats(0.01, 0.99), st.integers(0, 100))
def test_a_threshold_is_found_again(threshold: float, seed: int) -> None:
    y, scores = rows(seed, 60)
    decisions = (scores[:, 1] > threshold).astype(np.int64)
    rule = infer_decision(BINARY, Evidence("test", y, scores, decisions, {}))
    np.testing.assert_array_equal(rule.apply(scores), decisions)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20), st.booleans())
def test_no_point_beats_the_frontier(points: list[tuple[int, int]], greater: bool) -> None:
    sign = 1 if greater else -1
    front = frontier([c for c, _ in points], [v for _, v in points], greater)
    for i in front:
        cost, value = points[i]
        assert not any(c <= cost and sign * v >= sign * value and (c, v) != (cost, value) for c, v in points)


@given(st.floats(0, 1))
def test_a_share_is_never_rounded_to_all_or_nothing(share: float) -> None:
    text = percent(share).replace("\xa0", " ")
    assert (text == "0 %") == (share * 100 == 0)
    assert (text == "100 %") == (share * 100 == 100)


@given(st.text(max_size=80))
def test_a_label_is_one_printable_line(text: str) -> None:
    shown = label(text)
    assert shown.isprintable()
    assert 0 < len(shown) <= 28


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_every_number_can_be_written(value: float) -> None:
    assert number(value)


def test_a_drawing_takes_its_colours_and_identifiers_from_the_page() -> None:
    svg = (
        '<?xml?><svg width="1pt" viewBox="0 0"><!-- x --><g id="a" style="fill: #0a0b01"/><use xlink:href="#a"/></svg>'
    )
    made = _for_page(svg, "f3")
    assert 'id="f3-a" style="fill: var(--ink)"' in made
    assert 'href="#f3-a"' in made
    assert "<!--" not in made
    assert "1pt" not in made
