"""Preparation: which rows are for training, which are locked away, and that a study finds its rows again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.core.task import TaskKind
from tidemill.sdk.options import FitOptions, parse_types
from tidemill.sdk.prepare import DEFAULT_TEST_SHARE, prepare

Table = dict[str, list[Any]]


def table(rows: int = 400) -> Table:
    rng = np.random.default_rng(3)
    x = rng.normal(size=rows)
    return {
        "x": x.round(4).tolist(),
        "who": [f"p{i // 8}" for i in range(rows)],
        "day": [f"2024-{1 + i * 12 // rows:02d}-{1 + i % 28:02d}" for i in range(rows)],
        "y": ["yes" if v > 0.2 else "no" for v in x + 0.3 * rng.normal(size=rows)],
    }


def test_a_share_is_locked_away_by_default() -> None:
    prepared = prepare(table(), "y", FitOptions())
    assert len(prepared.test) == pytest.approx(400 * DEFAULT_TEST_SHARE, abs=2)
    assert set(prepared.train) | set(prepared.test) == set(range(400))
    assert not set(prepared.train) & set(prepared.test)
    yes = [np.mean(prepared.y[rows]) for rows in (prepared.train, prepared.test)]
    assert yes[0] == pytest.approx(yes[1], abs=0.03)  # stratified


def test_a_small_table_keeps_all_its_rows_unless_told_otherwise() -> None:
    assert len(prepare(table(120), "y", FitOptions()).test) == 0
    assert len(prepare(table(120), "y", FitOptions(test_size=0.25)).test) == 30
    assert len(prepare(table(), "y", FitOptions(test_size=0.0)).test) == 0


def test_the_seed_decides_which_rows() -> None:
    first, again, other = (prepare(table(), "y", FitOptions(seed=s)).test for s in (0, 0, 1))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_rows_of_a_test_file_stand_behind_the_others(tmp_path: Path) -> None:
    rows = table()
    path = tmp_path / "test.csv"
    lines = ["y,x,who,day", *(f"{y},{x},{who},{day}" for x, who, day, y in zip(*rows.values(), strict=True))]
    path.write_text("\n".join(lines[:51]) + "\n")
    prepared = prepare(rows, "y", FitOptions(test=path))
    assert prepared.train.tolist() == list(range(400))
    assert prepared.test.tolist() == list(range(400, 450))
    assert prepared.columns_test is not None
    np.testing.assert_array_equal(prepared.columns_test["x"], prepared.columns["x"][:50])


def test_a_test_file_without_the_target_is_refused() -> None:
    rows = table()
    with pytest.raises(DataError, match="no column 'y'"):
        prepare(rows, "y", FitOptions(test={"x": rows["x"]}))


def test_groups_stay_together() -> None:
    prepared = prepare(table(), "y", FitOptions(group="who", test_size=0.25))
    assert prepared.groups is not None
    assert not set(prepared.groups[prepared.train]) & set(prepared.groups[prepared.test])
    assert "who" not in prepared.columns


def test_the_future_is_locked_away() -> None:
    prepared = prepare(table(), "y", FitOptions(time_column="day", test_size=0.25))
    assert prepared.times is not None
    assert prepared.times[prepared.train].max() <= prepared.times[prepared.test].min()


def test_types_overrule_what_is_seen() -> None:
    types = parse_types(["x=category", "who=ignored"])
    prepared = prepare(table(), "y", FitOptions(types=types))
    assert prepared.schema["x"].type is SemanticType.CATEGORY
    assert "who" not in prepared.columns


def test_a_regression_is_seen_in_the_target() -> None:
    rows = table()
    assert prepare({**rows, "y": rows["x"], "x": rows["who"]}, "y", FitOptions()).task.kind is TaskKind.REGRESSION


def test_the_caller_s_own_columns_are_kept() -> None:
    rows = {"id": list(range(60)), "one": [1.0] * 60, "y": [i % 7 / 2 for i in range(60)]}
    prepared = prepare(rows, "y", FitOptions(keep_all_features=True, kind="regression"))
    assert {"id", "one"} <= set(prepared.columns)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"test_size": 0.95}, "between 0 and 0.9"),
        ({"test": "x.csv", "test_size": 0.2}, "exclude each other"),
        ({"in_process": True, "time": "5s"}, "can't be ended"),
    ],
)
def test_options_that_contradict_each_other(words: dict[str, Any], told: str) -> None:
    with pytest.raises(OptionError, match=told):
        FitOptions(**words)


@pytest.mark.parametrize(
    ("word", "told"), [("zip", "form column=type"), ("=number", "form column=type"), ("a=numbr", "number")]
)
def test_words_that_are_no_type(word: str, told: str) -> None:
    with pytest.raises(OptionError, match=told):
        parse_types([word])


def test_without_limits_there_is_a_minute() -> None:
    assert FitOptions().budget().time_s == 60
    assert FitOptions(trials=3).budget().time_s is None
    assert FitOptions(time="2m", trials=3).budget().time_s == 120
