"""Each check finds what it is for, and nothing in clean data."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidemill.data.checks import check
from tidemill.data.checks.drift import stability_index
from tidemill.data.checks.duplicates import row_keys
from tidemill.data.checks.leakage import score_alone
from tidemill.data.coerce import to_columns
from tidemill.data.infer import infer_schema, infer_task
from tidemill.data.ingest import RawTable, read

N = 1000


def clean(n=N, seed=0, **more):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    rows = {"x": x, "z": rng.normal(size=n), "c": rng.choice(["u", "v", "w"], n)}
    rows["y"] = np.where(x + rng.normal(size=n) > 0, "yes", "no")
    return {**rows, **more}


def findings(rows, test=None, target="y", **options):
    raw = RawTable(pa.table(rows), "t")
    schema = infer_schema(raw, target)
    task = infer_task(raw, schema, **options) if target else None
    return check(raw, schema, task, to_columns(raw, schema), None if test is None else RawTable(pa.table(test), "test"))


def codes(*args, **options):
    return {f.code for f in findings(*args, **options)}


def test_clean_data_have_no_findings():
    assert findings(clean(), clean(500, seed=1)) == []
    assert findings(clean(), clean(500, seed=1), target=None) == []


@pytest.mark.parametrize(
    ("y", "leak"),
    [
        (np.arange(N) % 2, lambda y: y * 10 + 3.0),
        (np.arange(N) % 2, lambda y: np.where(y == 1, "paid", "open")),
        (np.arange(N) % 2, lambda y: np.where(y == 1, np.nan, 5.0)),
        (np.arange(N) % 4, lambda y: np.array(list("abcd"))[y]),
        (np.arange(N) * 1.5, lambda y: np.sqrt(y)),
    ],
)
def test_a_column_that_knows_the_answer(y, leak):
    y = np.random.default_rng(0).permutation(y)
    found = [f for f in findings(clean(y=y, leak=leak(y))) if f.code == "leakage"]
    assert [f.column for f in found] == ["leak"]
    assert found[0].severity == "warning"


def test_an_unbalanced_target_accuses_no_column():
    y = (np.arange(5000) % 100 == 0).astype(int)
    assert "leakage" not in codes(clean(5000, y=y))
    many = np.where(y == 1, np.random.default_rng(0).choice(["a", "b"], 5000), "c")
    assert "leakage" not in codes(clean(5000, y=many))


def test_the_score_of_one_column_equals_the_real_auc():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    raw = RawTable(pa.table({"x": [1.5, 2.5], "y": ["0", "1"]}), "t")
    task = infer_task(RawTable(pa.table({"x": [1.5, 2.5] * 2, "y": ["0", "1"] * 2}), "t"), infer_schema(raw, "y"))
    x = rng.integers(0, 20, 4000).astype(float)
    y = (rng.random(4000) < x / 20).astype(int)
    half = np.arange(4000) % 2 == 0
    name, score = score_alone(x, y, half, task)
    assert name == "AUC"
    rates = {v: y[half][x[half] == v].mean() for v in np.unique(x)}
    assert score == pytest.approx(metrics.roc_auc_score(y[~half], [rates[v] for v in x[~half]]))


def test_duplicates_and_contradictions():
    rows = {k: np.concatenate([v, v[:200]]) for k, v in clean().items()}
    found = {f.code: f for f in findings(rows)}
    assert "200 of 1,200 rows (16.7%)" in found["duplicates"].message
    assert found["duplicates"].severity == "warning"
    rows["y"] = np.concatenate([rows["y"][:1000], np.where(rows["y"][:200] == "yes", "no", "yes")])
    found = {f.code: f for f in findings(rows)}
    assert "duplicates" not in found
    assert "200 sets" in found["contradictions"].message


def test_row_keys_are_equal_for_equal_rows_alone():
    values = {"a": np.array([1.0, 1.0, np.nan, np.nan, -0.0, 0.0, 2.0]), "b": np.array(list("xxyyzzx"), dtype=object)}
    (keys,) = row_keys(values)
    assert keys[0] == keys[1]
    assert keys[2] == keys[3]
    assert keys[4] == keys[5]
    assert len(set(keys.tolist())) == 4
    swapped = row_keys({"a": np.array([1.0, 2.0]), "b": np.array([2.0, 1.0])})[0]
    assert swapped[0] != swapped[1]


def test_test_rows_that_stand_in_training():
    train = clean()
    test = {
        k: np.concatenate([v[:50], w[50:200]])
        for (k, v), w in zip(train.items(), clean(200, seed=1).values(), strict=True)
    }
    found = {f.code: f for f in findings(train, test)}
    assert "50 of 200 test rows (25.0%)" in found["overlap"].message


def test_drift():
    test = clean(500, seed=1)
    test["x"] = test["x"] + 1
    test["c"] = np.where(np.arange(500) % 2 == 0, "new", test["c"])
    found = {f.column for f in findings(clean(), test) if f.code == "drift"}
    assert found == {"x", "c"}


def test_stability_of_equal_samples_is_zero():
    rng = np.random.default_rng(0)
    for n in (100, 1000):
        assert stability_index(rng.normal(size=n), rng.normal(size=n)) < 0.1
    assert stability_index(np.full(100, np.nan), np.zeros(100)) > 0.25


def test_findings_about_the_target():
    y = np.array(["no"] * 995 + ["yes"] * 5)
    found = {f.code: f for f in findings(clean(y=y))}
    assert found["imbalance"].severity == "warning"
    assert "'yes' (5)" in found["rare_classes"].message
    found = {f.code: f for f in findings(clean(y=pa.array([None] * 100 + ["a", "b"] * 450)))}
    assert "100 of 1,000" in found["missing_target"].message


def test_a_constant_target_is_an_error_and_stands_first():
    raw = RawTable(pa.table(clean()), "t")
    schema = infer_schema(raw, "y")
    task = infer_task(raw, schema)
    one = RawTable(pa.table(clean(y=np.array(["yes"] * N))), "t")
    found = check(one, schema, task, to_columns(one, schema))
    assert found[0].severity == "error"
    assert found[0].code == "constant_target"


def test_findings_about_values():
    rng = np.random.default_rng(3)
    rows = clean(
        inf=np.where(rng.random(N) < 0.1, np.inf, rng.random(N)),
        hole=np.where(rng.random(N) < 0.8, np.nan, rng.random(N)),
        row_id=np.arange(N),
        same=np.zeros(N),
        tag=[f"t{i % 600}" for i in rng.permutation(N)],
    )
    found = {f.code: f for f in findings(rows)}
    assert found["infinite"].column == "inf"
    assert found["mostly_missing"].column == "hole"
    assert found["dropped_identifier"].column == "row_id"
    assert found["dropped_constant"].column == "same"
    assert found["many_categories"].column == "tag"


def test_small_tables():
    assert "tiny_data" in codes(clean(60))
    assert "more_columns_than_rows" in codes(
        clean(300, **{f"m{i}": np.random.default_rng(i).normal(size=300) for i in range(200)})
    )


@pytest.mark.parametrize(
    ("name", "share"), [("mammography", 0.31), ("wine_quality", 0.25), ("soybean", 0.10), ("adult", 0.0)]
)
def test_known_overlaps_of_real_tables(open_data, name, share):
    data = open_data(name)
    raw, test = read(data.train), read(data.test)
    schema = infer_schema(raw, data.target)
    found = check(raw, schema, infer_task(raw, schema), to_columns(raw, schema), test)
    assert not any(f.code == "leakage" for f in found)
    overlap = [f.message for f in found if f.code == "overlap"]
    if share:
        percent = float(overlap[0].split("(")[1].split("%")[0])
        assert abs(percent / 100 - share) < 0.03
