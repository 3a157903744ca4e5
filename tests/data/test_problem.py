"""Which problem a target poses, and targets that pose none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.task import TaskKind
from tidemill.data.coerce import drop_unlabelled, encode_target
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import RawTable


def table(y):
    return RawTable(pa.table({"x": np.linspace(0, 1, len(y)), "y": pa.array(y)}), "t.csv")


def task_of(y, **options):
    raw = table(y)
    return infer_task(raw, infer_schema(raw, "y"), **options)


@pytest.mark.parametrize(
    ("y", "kind", "classes", "label_type"),
    [
        (["0", "1"] * 9, "binary", ("0", "1"), "integer"),
        ([-1, 1] * 9, "binary", ("-1", "1"), "integer"),
        ([1.0, 0.0] * 9, "binary", ("0", "1"), "integer"),
        ([True, False] * 9, "binary", ("false", "true"), "boolean"),
        (["no", "yes"] * 9, "binary", ("no", "yes"), "string"),
        (["<=50K", ">50K", ">50K"] * 9, "binary", ("<=50K", ">50K"), "string"),
        (["good", "bad", "good"] * 9, "binary", ("good", "bad"), "string"),
        ([" a", "b "] * 9, "binary", ("a", "b"), "string"),
        (["10", "9", "8"] * 9, "multiclass", ("8", "9", "10"), "integer"),
        ([0.5, 1.5] * 9, "binary", ("0.5", "1.5"), "number"),
        (["b", "c", "a"] * 9, "multiclass", ("a", "b", "c"), "string"),
        ([0.5, 1.5, 2.5] * 9, "regression", (), "number"),
        (list(range(25)) * 9, "regression", (), "integer"),
        (list(range(8)), "regression", (), "integer"),
        (["1,5", "2,5", "3"] * 9, "regression", (), "number"),
        (list(range(3, 10)) * 9, "multiclass", tuple("3456789"), "integer"),
    ],
)
def test_kinds(y, kind, classes, label_type):
    task = task_of(y)
    assert (task.kind.value, task.classes, task.label_type) == (kind, classes, label_type)
    codes = encode_target(table(y), task)
    if classes:
        assert codes.dtype == np.int64
        assert set(codes) == set(range(len(classes)))
    else:
        assert codes.dtype == np.float64
        assert np.isfinite(codes).all()


def test_what_is_given_wins():
    assert task_of([1, 2, 3] * 9, kind="regression").kind is TaskKind.REGRESSION
    assert len(task_of(list(range(30)) * 2, kind=TaskKind.MULTICLASS).classes) == 30
    assert task_of(["good", "bad", "good"] * 9, positive="good").classes == ("bad", "good")
    assert task_of([0, 1] * 9, positive=0).classes == ("1", "0")
    with pytest.raises(OptionError, match="binary, multiclass, regression"):
        task_of([0, 1] * 9, kind="clasification")
    with pytest.raises(NotFoundError, match="'good'"):
        task_of(["good", "bad"] * 9, positive="god")
    with pytest.raises(OptionError, match="two classes"):
        task_of(["a", "b", "c"] * 9, positive="a")
    with pytest.raises(DataError, match="two classes"):
        task_of(["a", "b", "c"] * 9, kind="binary")
    with pytest.raises(DataError, match="'b' in row 2"):
        task_of(["1", "b", "c"] * 9, kind="regression")


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([None, "NA"] * 9, "missing in every row"),
        (["a", None] * 9, "one class only"),
        ([5, 5] * 9, "one class only"),
        (["a"] * 9 + ["b"], "one row: 'b'"),
        ([f"k{i // 2}" for i in range(2010)], "1,005 classes"),
    ],
)
def test_targets_that_teach_nothing(y, message):
    with pytest.raises(DataError, match=message) as caught:
        task_of(y)
    assert "t.csv" in str(caught.value)


def test_one_value_is_no_regression():
    with pytest.raises(DataError, match=r"one value only \(5\)"):
        task_of([5, 5, 5], kind="regression")
    with pytest.raises(DataError, match="one value only"):
        task_of([5.5, float("inf"), 5.5], kind="regression")


def test_rows_that_can_not_be_learned_from_are_dropped_with_a_notice():
    raw = table(["a", "b", None, "c", "a", "b", "?"])
    task = infer_task(raw, infer_schema(raw, "y"))
    assert task.classes == ("a", "b")
    assert "single row" in raw.notices[0]
    assert "'c'" in raw.notices[0]
    kept = drop_unlabelled(raw, task)
    assert (
        kept.notices[1]
        == "3 of 7 rows have no target 'y' (2) or a target that is no known class (1: 'c'); they are left out."
    )
    assert encode_target(kept, task).tolist() == [0, 1, 0, 1]
    assert drop_unlabelled(kept, task) is kept
    assert encode_target(raw, task).tolist() == [0, 1, -1, -1, 0, 1, -1]


def test_infinite_targets_are_dropped_with_a_notice():
    raw = table([0.5, 1.5, float("inf"), None, 2.5])
    task = infer_task(raw, infer_schema(raw, "y"))
    kept = drop_unlabelled(raw, task)
    assert kept.rows == 3
    assert "no finite number (1: 'inf')" in kept.notices[0]


def test_labels_of_another_storage_type_are_recognised():
    task = task_of(["0", "1"] * 9)
    assert encode_target(table([1.0, 0.0, None]), task).tolist() == [1, 0, -1]
    assert encode_target(table([True, False]), task_of(["True", "False"] * 9)).tolist() == [1, 0]
    with pytest.raises(DataError, match="No label"):
        encode_target(table(["x", "y"]), task)


def test_a_table_without_target_offers_the_nearest():
    task = task_of(["0", "1"] * 9)
    with pytest.raises(NotFoundError, match="target column"):
        encode_target(pa.table({"x": [1], "yy": [1]}), task)
    with pytest.raises(DataError, match="no target"):
        infer_task(table([1, 2]), infer_schema(table([1, 2])))
