"""A bundle, opened and asked."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.bundle.small import write_csv

from tidemill.bundle.gaps import Gap
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.write import write_bundle
from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.task import Task, TaskKind
from tidemill.data.ingest import RawTable
from tidemill.testing.parts import small_columns, small_recipe

Written = Callable[[str], Path]


def tables(columns: dict[str, np.ndarray], tmp_path: Path) -> dict[str, Any]:
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    lists = {k: [None if v != v or v == "" else v for v in values.tolist()] for k, values in columns.items()}
    return {
        "dict": lists,
        "pandas": pd.DataFrame(lists),
        "polars": pl.DataFrame(lists),
        "arrow": pa.table(lists),
        "csv": write_csv(tmp_path / "in.csv", columns),
        "path text": str(tmp_path / "in.csv"),
    }


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_every_kind_of_table_gives_the_same_answers(written: Written, tmp_path: Path, kind: str) -> None:
    bundle = Bundle.open(written(kind))
    columns = small_columns(200)
    expected = bundle.predict_columns(columns)
    for name, table in tables(columns, tmp_path).items():
        assert (bundle.predict(table) == expected).all(), name


def test_probabilities_are_in_the_order_of_the_classes(written: Written) -> None:
    bundle = Bundle.open(written("multiclass"))
    columns = small_columns(100)
    probabilities = bundle.predict_proba({k: v.tolist() for k, v in columns.items()})
    assert probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    labels = np.array(bundle.task.classes, dtype=object)[probabilities.argmax(axis=1)]
    assert (labels == bundle.predict_columns(columns)).all()


def test_a_regression_has_no_probabilities(written: Written) -> None:
    with pytest.raises(OptionError, match="use `predict`"):
        Bundle.open(written("regression")).predict_proba({})


@pytest.mark.parametrize(
    ("label_type", "classes", "dtype"),
    [
        ("integer", ("0", "1"), np.int64),
        ("boolean", ("False", "True"), np.bool_),
        ("number", ("0.5", "1.5"), np.float64),
        ("string", ("0", "1"), np.object_),
    ],
)
def test_labels_have_the_type_of_the_data(tmp_path: Path, label_type: str, classes: Any, dtype: Any) -> None:
    task = Task(TaskKind.BINARY, "y", classes, positive=classes[1], label_type=label_type)
    bundle = write_bundle(tmp_path / "b", small_recipe(task=task), columns_train=small_columns(40))
    labels = bundle.predict_columns(small_columns(40))
    assert labels.dtype == dtype
    assert {str(v) for v in labels} <= set(classes)


def test_answers_do_not_depend_on_the_neighbours(written: Written) -> None:
    bundle = Bundle.open(written("multiclass"))
    columns = small_columns(4096 + 5)
    together = bundle.answer(columns)["probabilities"]
    for row in (0, 1, 4095, 4096, 4100):
        alone = bundle.answer({k: v[row : row + 1] for k, v in columns.items()})["probabilities"]
        assert np.allclose(alone[0], together[row], atol=1e-6)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_no_rows_give_no_answers(written: Written, kind: str) -> None:
    bundle = Bundle.open(written(kind))
    columns = small_columns(3)
    none, some = bundle.answer({k: v[:0] for k, v in columns.items()}), bundle.answer(columns)
    assert {n: (v.dtype, v.shape) for n, v in none.items()} == {
        n: (v.dtype, (0, *v.shape[1:])) for n, v in some.items()
    }


def test_missing_columns_and_types_that_do_not_fit(written: Written) -> None:
    bundle = Bundle.open(written("binary"))
    with pytest.raises(DataError, match="'weight'"):
        bundle.predict({"size": [1.0], "colour": ["a"]})
    with pytest.raises(DataError, match="'size', row 1: 'big' is not a number"):
        bundle.predict({"size": ["big"], "colour": ["a"], "weight": [1.0]})


def test_a_sample_is_never_taken_for_the_whole(written: Written) -> None:
    raw = RawTable(tables_of(small_columns(3)), "big.csv", rows_total=1000)
    with pytest.raises(DataError, match=r"3 of 1,000 rows fit into memory.*run\.py"):
        Bundle.open(written("binary")).predict(raw)


def tables_of(columns: dict[str, np.ndarray]) -> Any:
    import pyarrow as pa

    return pa.table({k: v.tolist() for k, v in columns.items()})


def test_evaluate_measures_against_the_target(written: Written) -> None:
    bundle = Bundle.open(written("binary"))
    columns = small_columns(400)
    truth = bundle.predict_columns(columns)
    metrics = bundle.evaluate({**{k: v.tolist() for k, v in columns.items()}, "y": truth.tolist()})
    assert metrics["accuracy"] == 1.0
    assert metrics["roc_auc"] == 1.0
    flipped = np.where(truth == "yes", "no", "yes").tolist()
    assert bundle.evaluate({**{k: v.tolist() for k, v in columns.items()}, "y": flipped})["accuracy"] == 0.0


def test_evaluate_leaves_out_rows_without_truth(written: Written) -> None:
    bundle = Bundle.open(written("regression"))
    columns = {k: v.tolist() for k, v in small_columns(4).items()}
    with_gaps = bundle.evaluate({**columns, "y": [1.0, None, 2.0, None]})
    gaps: list[Gap] = []
    bundle.evaluate({**columns, "y": [1.0, None, 2.0, None]}, on_gap=gaps.append)
    assert list(map(str, gaps)) == ["2 of 4 rows have no target 'y' (2) and are left out."]
    without = bundle.evaluate({k: v[::2] for k, v in {**columns, "y": [1.0, None, 2.0, None]}.items()})
    assert with_gaps == without
    with pytest.raises(DataError, match="No row has a known target"):
        bundle.evaluate({**columns, "y": [None, None, None, float("nan")]})
    with pytest.raises(NotFoundError, match="target column 'y'"):
        bundle.evaluate(columns)


def test_records_and_csv_say_the_same(written: Written, tmp_path: Path) -> None:
    bundle = Bundle.open(written("binary"))
    source = write_csv(tmp_path / "in.csv", small_columns(10))
    records = bundle.predict_records(source)
    assert list(records[0]) == ["prediction", "proba_no", "proba_yes"]
    out = io.StringIO()
    assert bundle.to_csv(source, out) == 10
    lines = out.getvalue().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == [r["prediction"] for r in records]


def test_it_shows_what_it_is(written: Written) -> None:
    shown = repr(Bundle.open(written("binary")))
    assert "binary of 'y'" in shown
    assert "3 inputs" in shown


def test_one_row_is_quick(written: Written) -> None:
    from tidemill.bundle.latency import measure_latency_ms

    feed = {k: v.reshape(-1, 1) for k, v in small_columns(1).items()}
    assert measure_latency_ms((written("binary") / "1" / "model.onnx").read_bytes(), feed) < 1.0
