"""Files for prediction: what fits passes, what doesn't is named."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import DataError
from tidemill.core.schema import SemanticType
from tidemill.data.coerce import group_codes, time_values, to_columns
from tidemill.data.infer import infer_schema
from tidemill.data.ingest import read

TRAIN = pa.table(
    {
        "age": ["31", "28", "NA", "45"] * 5,
        "height": ["1.75", "1.8", "", "1.62"] * 5,
        "member": ["yes", "no", "yes", "?"] * 5,
        "city": ["Ulm", "Köln", " Ulm ", "NA"] * 5,
        "code": ["1.0", "x", "2.0", "3.5"] * 5,
        "born": ["17/5/1990", "1/12/1993", "", "29/2/1976"] * 5,
        "y": ["a", "b", "b", "a"] * 5,
    }
)
SCHEMA = infer_schema(TRAIN, "y")


def test_physical_forms():
    got = to_columns(TRAIN, SCHEMA)
    assert list(got) == ["age", "height", "member", "city", "code", "born"]
    np.testing.assert_array_equal(got["age"][:4], [31, 28, np.nan, 45])
    np.testing.assert_array_equal(got["member"][:4], [1, 0, 1, np.nan])
    assert got["city"][:4].tolist() == ["Ulm", "Köln", "Ulm", ""]
    assert got["code"][:4].tolist() == ["1", "x", "2", "3.5"]
    assert got["born"][0] == dt.datetime(1990, 5, 17, tzinfo=dt.timezone.utc).timestamp()
    for name, values in got.items():
        assert values.shape == (20,)
        assert values.dtype == (object if SCHEMA[name].type.is_string else np.float64)
        assert values.flags.writeable


def test_order_extra_columns_and_the_target_do_not_matter():
    names = TRAIN.column_names[::-1]
    other = TRAIN.select(names).drop_columns(["y"]).append_column("more", pa.array(["z"] * 20))
    got, wanted = to_columns(other, SCHEMA), to_columns(TRAIN, SCHEMA)
    assert list(got) == list(wanted)
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])


def test_native_values_give_the_same_columns():
    native = read(
        {
            "age": [31, 28, None, 45],
            "height": [1.75, 1.8, None, 1.62],
            "member": [True, False, True, None],
            "city": ["Ulm", "Köln", "Ulm", None],
            "code": [1, 2, 3, 4],
            "born": [dt.date(1990, 5, 17), dt.date(1993, 12, 1), None, dt.date(1976, 2, 29)],
        }
    )
    got, wanted = to_columns(native, SCHEMA), to_columns(TRAIN.slice(0, 4), SCHEMA)
    for name in ("age", "height", "member", "city", "born"):
        np.testing.assert_array_equal(got[name], wanted[name])
    assert got["code"].tolist() == ["1", "2", "3", "4"]


def test_missing_columns_are_all_named_with_the_nearest():
    other = TRAIN.drop_columns(["age", "city"]).append_column("Age", TRAIN["age"])
    with pytest.raises(DataError, match=r"2 columns are missing: 'age' \(did you mean 'Age'\?\), 'city'"):
        to_columns(other, SCHEMA)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("age", "old", r"'age', row 2: 'old' is not a number\."),
        ("member", "maybe", r"'member', row 2: 'maybe' is not true or false\."),
        ("born", "5/17/1990", r"'born', row 2: '5/17/1990' is not a date of the form %d/%m/%Y\."),
    ],
)
def test_cells_that_do_not_fit_are_named(name, value, message):
    cells = TRAIN[name].to_pylist()
    cells[1] = value
    other = TRAIN.set_column(TRAIN.column_names.index(name), name, pa.array(cells))
    with pytest.raises(DataError, match=message):
        to_columns(other, SCHEMA)
    assert np.isnan(to_columns(other, SCHEMA, strict=False)[name][1])


def test_all_columns_that_do_not_fit_are_told_together():
    other = pa.table({n: ["bad"] for n in TRAIN.column_names})
    with pytest.raises(DataError, match=r"(?s)'age'.*'height'.*'member'.*'born'"):
        to_columns(other, SCHEMA)


def test_a_number_column_of_dates_does_not_fit():
    other = TRAIN.set_column(0, "age", pa.array([dt.date(2020, 1, 1)] * 20))
    with pytest.raises(DataError, match="'age'"):
        to_columns(other, SCHEMA)


def test_unseen_values_and_columns_of_nulls_pass():
    other = pa.table({n: pa.nulls(2) for n in TRAIN.column_names}).set_column(3, "city", pa.array(["Bonn", "Bonn"]))
    got = to_columns(other, SCHEMA)
    assert got["city"].tolist() == ["Bonn", "Bonn"]
    assert got["code"].tolist() == ["", ""]
    assert np.isnan(got["age"]).all()


def test_chunks_slices_and_dictionaries_make_no_difference():
    chunked = pa.concat_tables([TRAIN.slice(0, 7), TRAIN.slice(7)])
    coded = chunked.set_column(3, "city", chunked["city"].dictionary_encode())
    large = coded.set_column(4, "code", coded["code"].cast(pa.large_string()))
    got, wanted = to_columns(large, SCHEMA), to_columns(TRAIN, SCHEMA)
    for name in wanted:
        np.testing.assert_array_equal(got[name], wanted[name])


def test_group_and_time():
    table = pa.table(
        {"x": [1.5, 2, 3, 4], "g": ["u", "v", None, "u"], "t": ["2/1/2011", "1/1/2011", "3/1/2011", "13/1/2011"]}
    )
    schema = infer_schema(table, group="g", time="t")
    assert group_codes(table, schema).tolist() == [0, 1, 2, 0]
    assert np.diff(time_values(table, schema)).tolist() == [-86400, 2 * 86400, 10 * 86400]
    assert group_codes(table, infer_schema(table)) is None
    assert time_values(table, infer_schema(table)) is None
    bad = table.set_column(2, "t", pa.array(["2/1/2011", None, "3/1/2011", "13/1/2011"]))
    with pytest.raises(DataError, match=r"'t'.*row 2"):
        time_values(bad, schema)
    assert time_values(
        pa.table({"t": [3, 1]}), infer_schema(pa.table({"t": [3, 1], "x": [1.5, 2]}), time="t")
    ).tolist() == [3, 1]
    assert schema["t"].type is SemanticType.TIME
