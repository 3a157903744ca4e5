"""The encoder: numpy and onnxruntime bit by bit, over whatever a table may hold."""

from __future__ import annotations

import calendar
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import DataError
from tidemill.core.pack import pack, unpack
from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.models.tabular._base import FeatureKind
from tidemill.models.tabular.encode import Encoder, _categories, _texts
from tidemill.testing.graphs import session

SCHEMA = Schema(
    (
        Column("number", SemanticType.NUMBER),
        Column("note", SemanticType.TEXT),
        Column("when", SemanticType.DATETIME),
        Column("city", SemanticType.CATEGORY),
        Column("flag", SemanticType.BOOLEAN),
        Column("since", SemanticType.DATETIME),
        Column("add_1", SemanticType.INTEGER),
        Column("id", SemanticType.IDENTIFIER),
        Column("y", SemanticType.TARGET),
    )
)
YEAR_1, YEAR_9999 = -62135596800.0, 253402300799.0

numbers = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, -0.0, 1e-46, 3.4028236e38, 16777217.0])
seconds = st.floats(YEAR_1, YEAR_9999) | st.sampled_from(
    [
        np.nan,
        np.inf,
        -np.inf,
        0.0,
        -1.0,
        -0.5,
        951782400.0,
        951868799.0,
        YEAR_1,
        YEAR_9999,
        YEAR_1 - 1,
        YEAR_9999 + 1,
        1e300,
    ]
)
# No NUL: no source of data gives it.
letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
cities = st.sampled_from(["", "Ulm", "Köln", "東京", " ", "a\tb", "nan"]) | st.text(letters, max_size=5)
words = st.sampled_from(["red", "Red", "FOX", "fox", "Ärger", "ärger", "été", "東京", "\t", "\n", "\u00a0", "x\u2003y"])
notes = st.lists(words | st.text(letters, max_size=4), max_size=8).map(" ".join) | st.just("") | st.just("   ")


def strings(values: list[str]) -> NDArray[Any]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


@st.composite
def tables(draw: Callable[..., Any], least: int = 1) -> Columns:
    n = draw(st.integers(least, 12))

    def column(of: st.SearchStrategy[Any]) -> list[Any]:
        values: list[Any] = draw(st.lists(of, min_size=n, max_size=n))
        return values

    return {
        "number": np.array(column(numbers), dtype=np.float64),
        "note": strings(column(notes)),
        "when": np.array(column(seconds), dtype=np.float64),
        "city": strings(column(cities)),
        "flag": np.array(column(st.sampled_from([0.0, 1.0, np.nan])), dtype=np.float64),
        "since": np.array(column(seconds), dtype=np.float64),
        "add_1": np.array(column(st.integers(-(2**53), 2**53)), dtype=np.float64),
    }


def runner(encoder: Encoder, schema: Schema = SCHEMA) -> Callable[[Columns], NDArray[np.float32]]:
    graph = GraphBuilder()
    inputs = {c.name: graph.input(c.name, str if c.type.is_string else np.float64, ["N", 1]) for c in schema.features}
    graph.output(encoder.emit(graph, inputs), "x", np.float32, ["N", len(encoder.features)])
    loaded = session(graph)

    def run(columns: Columns) -> NDArray[np.float32]:
        out: NDArray[np.float32] = loaded.run(None, {name: columns[name][:, None] for name in inputs})[0]
        return out

    return run


def only(kind: SemanticType, values: NDArray[Any], **options: Any) -> tuple[Encoder, Columns, Schema]:
    schema = Schema((Column("c", kind),))
    return Encoder.fit({"c": values}, schema, **options), {"c": values}, schema


def check(encoder: Encoder, columns: Columns, schema: Schema = SCHEMA) -> NDArray[np.float32]:
    x = encoder.transform(columns)
    rows = len(next(iter(columns.values())))
    assert x.dtype == np.float32
    assert x.shape == (rows, len(encoder.features))
    assert not np.isinf(x).any()
    np.testing.assert_array_equal(runner(encoder, schema)(columns), x)
    return x


@settings(max_examples=60)
@given(tables(), tables(least=0))
def test_numpy_and_the_graph_agree_to_the_last_bit(train: Columns, new: Columns) -> None:
    encoder = Encoder.fit(train, SCHEMA)
    run = runner(encoder)
    for columns in (train, new):
        np.testing.assert_array_equal(run(columns), encoder.transform(columns))


@settings(max_examples=20)
@given(tables(), tables())
def test_a_checkpoint_restores_the_same_encoder(train: Columns, new: Columns) -> None:
    encoder = Encoder.fit(train, SCHEMA)
    again = Encoder.restore(unpack(pack(encoder.checkpoint())))
    assert again.features == encoder.features
    np.testing.assert_array_equal(again.transform(new), encoder.transform(new))
    np.testing.assert_array_equal(runner(again)(new), runner(encoder)(new))
    assert pack(again.checkpoint()) == pack(encoder.checkpoint())


@settings(max_examples=20)
@given(tables())
def test_features_say_what_the_columns_are(train: Columns) -> None:
    encoder = Encoder.fit(train, SCHEMA)
    x = encoder.transform(train)
    assert {f.source for f in encoder.features} == {c.name for c in SCHEMA.features}
    assert len({f.name for f in encoder.features}) == len(encoder.features)
    for column, feature in zip(x.T, encoder.features, strict=True):
        known = column[~np.isnan(column)]
        if feature.kind is FeatureKind.CATEGORY:
            assert set(known.tolist()) == set(range(feature.cardinality))
        else:
            assert feature.cardinality == 0
        if feature.kind is FeatureKind.COUNT:
            assert len(known) == len(column)
            assert (known >= 0).all()


@settings(max_examples=20)
@given(tables())
def test_a_row_is_encoded_alone_as_in_a_batch(train: Columns) -> None:
    encoder = Encoder.fit(train, SCHEMA)
    rows = len(train["number"])
    alone = [encoder.transform({k: v[i : i + 1] for k, v in train.items()}) for i in range(rows)]
    np.testing.assert_array_equal(np.concatenate(alone), encoder.transform(train))


def test_numbers_that_float32_cannot_hold_are_missing() -> None:
    values = np.array([1e39, -np.inf, np.nan, 3.4e38, 1e-60])
    x = check(*only(SemanticType.NUMBER, values))
    np.testing.assert_array_equal(np.isnan(x[:, 0]), [True, True, True, False, False])


def test_codes_fall_by_frequency_then_by_name() -> None:
    encoder, columns, schema = only(SemanticType.CATEGORY, strings(["b", "a", "c", "c", "", "d", "d"]))
    x = check(encoder, columns, schema)
    np.testing.assert_array_equal(x[:, 0], [3, 2, 0, 0, np.nan, 1, 1])
    new = {"c": strings(["z", "A", "a ", "", "é", "e\u0301"])}
    np.testing.assert_array_equal(check(encoder, new, schema)[:, 0], [-1, -1, -1, np.nan, -1, -1])


def test_forms_of_unicode_are_values_of_their_own() -> None:
    x = check(*only(SemanticType.CATEGORY, strings(["é", "e\u0301", "é", "\U0001f980", "𝔘"])))
    assert len(set(x[:, 0])) == 4


def test_rare_values_share_a_code_and_the_rarest_are_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_categories, "MAX_CODES", 2)
    monkeypatch.setattr(_categories, "MAX_VALUES", 4)
    values = strings([v for i, v in enumerate("abcdef") for _ in range(6 - i)])
    encoder, columns, schema = only(SemanticType.CATEGORY, values)
    x = check(encoder, columns, schema)
    assert encoder.features[0].cardinality == 3
    assert {v: float(c) for v, c in zip(values, x[:, 0], strict=True)} == dict(
        zip("abcdef", [0, 1, 2, 2, -1, -1], strict=True)
    )


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(1582, 10, 15, 3, 4, 5, tzinfo=timezone.utc),
        datetime(1900, 2, 28, 23, 59, 59, tzinfo=timezone.utc),
        datetime(1900, 3, 1, tzinfo=timezone.utc),
        datetime(1969, 12, 31, 23, 59, 59, 500_000, tzinfo=timezone.utc),
        datetime(1970, 1, 1, tzinfo=timezone.utc),
        datetime(2000, 2, 29, 12, 30, tzinfo=timezone.utc),
        datetime(2024, 2, 29, tzinfo=timezone.utc),
        datetime(2024, 12, 31, 1, tzinfo=timezone.utc),
        datetime(2100, 3, 1, tzinfo=timezone.utc),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone.utc),
    ],
    ids=str,
)
def test_calendar_parts_are_those_of_the_standard_library(moment: datetime) -> None:
    stamp = float(calendar.timegm(moment.timetuple())) + moment.microsecond / 1e6
    # Beside moments that differ in every part, so that no part is left out.
    others = [-1e9, 1.7e9 + 12345, 86399.0]
    encoder, columns, schema = only(SemanticType.DATETIME, np.array([stamp, *others, np.nan]))
    x = check(encoder, columns, schema)
    found = {f.name.removeprefix("c: "): float(v) for f, v in zip(encoder.features, x[0], strict=True)}
    day_of_year = moment.timetuple().tm_yday
    assert found.pop("elapsed days") == np.float32((stamp - min(stamp, *others)) / 86400)
    assert found == {
        "year": moment.year,
        "month": moment.month,
        "day": moment.day,
        "weekday": moment.weekday(),
        "hour": moment.hour,
        "minute": moment.minute,
        "day of year": day_of_year,
    }
    assert np.isnan(x[-1]).all()


@settings(max_examples=60)
@given(st.lists(st.datetimes(timezones=st.just(timezone.utc)), min_size=1, max_size=8))
def test_any_date_is_that_of_the_standard_library(moments: list[datetime]) -> None:
    stamps = np.array([float(calendar.timegm(m.timetuple())) for m in moments])
    encoder, columns, schema = only(SemanticType.DATETIME, stamps)
    x = check(encoder, columns, schema)
    names = [f.name.removeprefix("c: ") for f in encoder.features]
    parts = {"year": lambda m: m.year, "month": lambda m: m.month, "day": lambda m: m.day, "weekday": datetime.weekday}
    for name, part in parts.items():
        values = [part(m) for m in moments]
        if name in names:
            assert x[:, names.index(name)].tolist() == values
        else:
            assert len(set(values)) == 1


def test_a_datetime_that_never_changes_still_gives_a_column() -> None:
    encoder, columns, schema = only(SemanticType.DATETIME, np.full(3, 86400.0))
    assert check(encoder, columns, schema).tolist() == [[1970.0]] * 3
    encoder, columns, schema = only(SemanticType.DATETIME, np.full(3, np.nan))
    assert np.isnan(check(encoder, columns, schema)).all()


def test_words_and_pairs_are_counted() -> None:
    values = strings(["Red fox red FOX", "red  fox", "", "blue", "a fox"])
    encoder, columns, schema = only(SemanticType.TEXT, values)
    x = check(encoder, columns, schema)
    names = [f.name for f in encoder.features]
    assert names == ["c: 'fox'", "c: 'red'", "c: 'red fox'", "c: words"]
    assert x.tolist() == [[2, 2, 2, 4], [1, 1, 1, 2], [0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 2]]


def test_only_so_many_terms_are_kept() -> None:
    values = strings([f"common word{i % 7} tail{i % 3}" for i in range(30)])
    encoder, columns, schema = only(SemanticType.TEXT, values, max_tokens=4)
    check(encoder, columns, schema)
    assert sum(f.kind is FeatureKind.COUNT for f in encoder.features) <= 16


def test_a_long_text_is_read_to_its_limit() -> None:
    long = "fox " * (_texts.MAX_WORDS - 1) + "red red " + "fox " * 5000
    values = strings([long, "red fox", "fox red", "", "owl " * 100_000])
    encoder, columns, schema = only(SemanticType.TEXT, values)
    x = check(encoder, columns, schema)
    counts = dict(zip([f.name for f in encoder.features], x[0], strict=True))
    assert counts["c: words"] == _texts.MAX_WORDS
    assert counts["c: 'fox'"] == _texts.MAX_WORDS - 1
    assert counts["c: 'red'"] == 1


def test_a_text_without_frequent_words_has_its_length() -> None:
    encoder, columns, schema = only(SemanticType.TEXT, strings(["one", "two three", ""]))
    assert check(encoder, columns, schema).tolist() == [[1], [2], [0]]


def test_a_column_that_is_missing_altogether_is_encoded() -> None:
    rows = 4
    columns: Columns = {
        c.name: strings([""] * rows) if c.type.is_string else np.full(rows, np.nan) for c in SCHEMA.features
    }
    encoder = Encoder.fit(columns, SCHEMA)
    x = check(encoder, columns)
    words = [f.name for f in encoder.features].index("note: words")
    assert (x[:, words] == 0).all()
    assert np.isnan(np.delete(x, words, axis=1)).all()


def test_a_schema_without_features_is_refused() -> None:
    with pytest.raises(DataError, match="No column is left"):
        Encoder.fit({}, Schema((Column("y", SemanticType.TARGET),)))
