"""What columns mean: rules on small tables, expectations on real ones."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError
from tidemill.core.schema import SemanticType
from tidemill.data.coerce import to_columns
from tidemill.data.infer import id_like, infer_schema, infer_task
from tidemill.data.ingest import RawTable, read

RNG = np.random.default_rng(0)
N = 400


def kind(values, name="v", **options):
    table = pa.table({name: pa.array(values), "other": pa.array(RNG.random(len(values)))})
    return infer_schema(table, **options)[name]


def texts(values):
    return [str(v) for v in values]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (texts(RNG.random(N)), "number"),
        (texts(RNG.integers(0, 9, N)), "integer"),
        (texts(RNG.integers(1, 5, N)), "integer"),
        (["1.0", "2.0", ""] * 9, "integer"),
        (["1", "2.5", "inf", "NA"] * 9, "number"),
        (["0", "1"] * 9, "integer"),
        (["yes", "no", "NA"] * 9, "boolean"),
        (["TRUE", "False"] * 9, "boolean"),
        (["yes", "no", "maybe"] * 9, "category"),
        (["f", "m"] * 9, "category"),
        ([True, False, None], "boolean"),
        (["1,234.5", "12", "3,000"] * 9, "number"),
        (["3,14", "2,5", "100"] * 9, "number"),
        (["1,2,3", "4,5"] * 9, "category"),
        (["01234", "99999", "00001"] * 9, "category"),
        (["a", "b"] * 9, "category"),
        ([f"name{i}" for i in range(N)], "identifier"),
        ([f"name{i % 300}" for i in range(N)], "category"),
        ([f"the {i} quick brown fox" for i in range(N)], "text"),
        (["never married", "once upon a time married"] * 50, "category"),
        (["2011-11-03", "2012-01-01", None] * 9, "datetime"),
        ([dt.date(2011, 1, i + 1) for i in range(9)], "datetime"),
        ([dt.timedelta(seconds=i) for i in range(9)], "integer"),
        (["x"] * 9, "constant"),
        (["NA"] * 9, "constant"),
        ([None] * 9, "constant"),
        ([3.5] * 9, "constant"),
        ([float("inf")] * 9, "constant"),
        ([3.5, None] * 9, "number"),
        (["x", None] * 9, "category"),
        ([[1], [2]] * 9, "ignored"),
        ([{"a": 1}] * 9, "ignored"),
    ],
)
def test_types(values, wanted):
    column = kind(values)
    assert column.type.value == wanted, column


@pytest.mark.parametrize(
    ("name", "values", "wanted"),
    [
        ("CustomerId", RNG.choice(10**6, N, replace=False), "identifier"),
        ("amount", RNG.choice(10**6, N, replace=False), "integer"),
        ("instant", RNG.permutation(N) + 1, "identifier"),
        ("instant", np.sort(RNG.choice(N * 4 // 3, N, replace=False)) + 1, "identifier"),
        ("day", np.arange(30), "integer"),
        ("id", np.arange(30), "identifier"),
        ("id", np.arange(N) // 2, "integer"),
        ("reading", RNG.permutation(N) + 5000, "integer"),
    ],
)
def test_identifiers(name, values, wanted):
    assert kind(values, name).type.value == wanted
    assert kind(texts(values), name).type.value == wanted


def test_a_counter_stays_where_it_is_the_only_feature():
    table = pa.table({"v": np.arange(N), "y": np.arange(N) % 2})
    assert infer_schema(table, "y")["v"].type is SemanticType.INTEGER


def test_id_names():
    assert all(map(id_like, ["id", "ID", "userID", "order_id", "Row Number", "uuid", "PassengerId", "id_client"]))
    assert not any(map(id_like, ["bid", "humid", "idle", "paid", "column_1", "x", "1"]))


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["3/11/2011", "13/11/2011"], "%d/%m/%Y"),
        (["11/3/2011", "11/13/2011"], "%m/%d/%Y"),
        (["03.11.2011", "04.11.2011"], "%d.%m.%Y"),
        (["2011-11-03 12:00:01", "2011-11-03"], "%Y-%m-%d"),
        (["2011-11-03T12:00:01.5Z", "2011-11-03T12:00:01+02:00"], "%Y-%m-%d"),
        (["3 Nov 2011", "14 December 2012"], "%d %b %Y"),
        (["Nov 3, 2011", "Dec 13, 2012"], "%b %d, %Y"),
        (["03-Nov-11", "04-Nov-11"], "%d-%b-%y"),
        (["31/12/99", "01/01/00"], "%d/%m/%y"),
        # In doubt the order of the rows decides: the same walk, written in two ways.
        ([f"{d}/{m}/2011" for m in (2, 3) for d in range(1, 13)], "%d/%m/%Y"),
        ([f"{m}/{d}/2011" for m in (2, 3) for d in range(1, 13)], "%m/%d/%Y"),
    ],
)
def test_date_formats_are_found_over_the_whole_column(values, unit):
    assert kind(values * 3 if len(values) < 9 else values).unit == "datetime:" + unit


def test_doubt_between_day_and_month_is_said():
    raw = RawTable(pa.table({"d": ["1/2/2011", "2/3/2011"], "x": [1, 2]}), "t")
    infer_schema(raw)
    assert "can be read in two ways" in raw.notices[0]


def test_a_few_bad_cells_are_missing_here_and_later():
    values = [*texts(RNG.random(999)), "n.a."]
    raw = RawTable(pa.table({"v": values}), "t")
    schema = infer_schema(raw)
    assert schema["v"].type is SemanticType.NUMBER
    assert "'n.a.'" in raw.notices[0]
    assert "row 1,000" in raw.notices[0]
    assert np.isnan(to_columns(raw, schema)["v"]).sum() == 1
    assert np.isnan(to_columns(pa.table({"v": ["n.a."]}), schema)["v"]).all()
    with pytest.raises(DataError, match=r"row 2.*'none'"):
        to_columns(pa.table({"v": ["1", "none"]}), schema)
    assert infer_schema(pa.table({"v": values[900:]}))["v"].type is SemanticType.IDENTIFIER


def test_bad_dates_too():
    raw = RawTable(pa.table({"v": ["2011-11-03", "2012-01-01"] * 200 + ["soon"]}), "t")
    schema = infer_schema(raw)
    assert schema["v"].type is SemanticType.DATETIME
    assert np.isnan(to_columns(raw, schema)["v"]).sum() == 1


def test_given_types_win():
    table = pa.table({"a": ["1", "2", "x"], "b": ["1", "2", "3"], "c": ["20200101", "20201231", "NA"], "y": [1, 2, 3]})
    schema = infer_schema(table, "y", types={"b": SemanticType.CATEGORY, "c": SemanticType.DATETIME})
    assert schema["b"].type is SemanticType.CATEGORY
    assert schema["b"].reason == "given"
    assert schema["c"].unit == "datetime:%Y%m%d"
    assert to_columns(table, schema)["c"][0] == dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc).timestamp()
    with pytest.raises(DataError, match="row 3 holds 'x'"):
        infer_schema(table, "y", types={"a": SemanticType.NUMBER})
    with pytest.raises(NotFoundError, match="'a'"):
        infer_schema(table, types={"A": SemanticType.NUMBER})


def test_roles():
    table = pa.table({"a": [1.5, 2], "g": ["u", "v"], "t": ["2011-01-01", "2011-01-02"], "y": [1, 0]})
    schema = infer_schema(table, "y", group="g", time="t")
    assert [c.type.value for c in schema] == ["number", "group", "time", "target"]
    with pytest.raises(NotFoundError, match=r"no group column 'h'.*'g'"):
        infer_schema(table, "y", group="h")
    with pytest.raises(OptionError):
        infer_schema(table, "y", group="y")


def test_no_such_target_offers_the_nearest():
    with pytest.raises(NotFoundError, match="Did you mean 'income'"):
        infer_schema(pa.table({"income": [1], "age": [2]}), "incme")


def test_no_usable_feature_says_why():
    table = pa.table({"a": ["x"] * 30, "id": np.arange(30), "y": np.arange(30) % 2})
    with pytest.raises(DataError, match=r"No usable feature.*'a': every value is 'x'.*'id'"):
        infer_schema(table, "y")


def test_what_was_seen_is_kept():
    column = kind(["1", "2", "NA", "5", "5", "x"][:5])
    assert (column.missing, column.distinct, column.low, column.high) == (0.2, 3, 1.0, 5.0)


def test_five_thousand_columns_and_a_hundred_thousand_categories():
    wide = pa.table({f"c{i}": pa.array(texts(RNG.integers(0, 99, 30))) for i in range(5000)})
    assert len(to_columns(wide, infer_schema(wide))) == 5000
    many = pa.table({"v": [*texts(np.arange(10**5) // 2 * 2 + 10**6 * 3), "x y"], "w": np.zeros(10**5 + 1)})
    many = many.set_column(0, "v", pa.array([f"k{v}" for v in many["v"].to_pylist()]))
    schema = infer_schema(many)
    assert schema["v"].type is SemanticType.CATEGORY
    assert schema["v"].distinct == 50_001


REAL = {
    "abalone": {"category": {"sex"}},
    "adult": {
        "category": {
            "workclass", "education", "marital_status", "occupation", "relationship", "race", "sex", "native_country",
        }
    },
    "bank_churn": {"identifier": {"RowNumber", "CustomerId"}, "category": {"Surname", "Geography", "Gender"}},
    "bike_hour": {"identifier": {"instant"}, "datetime": {"dteday"}},
    "california_housing": {"category": {"ocean_proximity"}},
    "german_credit": {
        "category": {
            "status", "history", "purpose", "savings", "employment", "personal_status", "other_debtors", "property",
            "other_plans", "housing", "job", "telephone", "foreign",
        }
    },
    "horse_colic": {},
    "mammography": {},
    "soybean": {},
    "titanic": {"identifier": {"PassengerId"}, "text": {"Name"}, "category": {"Sex", "Ticket", "Cabin", "Embarked"}},
    "wine_quality": {"category": {"colour"}},
}  # fmt: skip


@pytest.mark.parametrize("name", list(REAL))
def test_real_tables(open_data, name):
    data = open_data(name)
    raw = read(data.train)
    schema = infer_schema(raw, data.target)
    found: dict[str, set[str]] = {}
    for column in schema:
        if column.type.value not in ("number", "integer", "target"):
            found.setdefault(column.type.value, set()).add(column.name)
    assert found == REAL[name]
    assert raw.notices == []
    if name == "bike_hour":
        assert schema["dteday"].unit == "datetime:%m/%d/%Y"
    task = infer_task(raw, schema)
    assert task.kind.value == data.meta["task"]
    if task.positive is not None and name != "horse_colic":  # there, "1" means yes and "2" no: nobody can know
        assert task.positive == str(data.meta["positive"])
    train = to_columns(raw, schema)
    test = to_columns(read(data.test), schema)
    assert list(train) == list(test)
