"""Laws of conditions: they mean what SQL means, read back what they write, and do nothing but ask."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError, PredicateError
from tidemill.data.matching.predicate import PART, column_types, parse

TYPES = {
    "i": float, "f": float, "g": float, "s": str, "r": str, "b": bool, "t": dt.datetime, "u": dt.datetime,
    "user.age": float,
}  # fmt: skip
_WORDS = st.text("abA%_\\é' ", max_size=4)
_EARLY, _LATE = dt.datetime.fromisoformat("1950-01-01"), dt.datetime.fromisoformat("2050-12-31")
_TIMES = st.datetimes(_EARLY, _LATE)


def _table(seed):
    """Make some rows in which values and gaps meet often; from a seed, because drawing cells one by one is slow."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(0, 40))
    words = np.array(
        ["", "a", "b", "A", "ab", "aB", "é", "É", "%", "_", "a%", "\\", "a\\b", "'", " a ", "ba a"], dtype=object
    )
    start = np.datetime64("1950-01-01", "us")

    def gaps(values, kind):
        return pa.array(values, kind, mask=rng.random(n) < 0.25)

    def moments():
        days = start + rng.integers(0, 36_500, n).astype("m8[D]")
        return gaps(
            days + rng.integers(0, 4, n) * rng.integers(0, 7_000_000_000, n).astype("m8[us]"), pa.timestamp("us")
        )

    return pa.table(
        {
            "i": gaps(rng.integers(-5, 6, n).astype(np.int32), pa.int32()),
            "f": gaps(rng.integers(-12, 13, n) / 4, pa.float64()),
            "g": gaps((rng.integers(-12, 13, n) / 4).astype(np.float32), pa.float32()),
            "s": gaps(rng.choice(words, n), pa.string()),
            "r": gaps(rng.choice(words, n), pa.string()),
            "b": gaps(rng.random(n) < 0.5, pa.bool_()),
            "t": moments(),
            "u": moments(),
        }
    )


tables = st.integers(0, 10_000).map(_table)


def _quoted(text):
    return "'" + text.replace("'", "''") + "'"


_compare = st.sampled_from(["=", "<>", "<", "<=", ">", ">=", "!=", "is distinct from", "is not distinct from"])
_units = st.sampled_from(["day", "hour", "minute", "month", "year", "week"])
_parts = st.sampled_from(["year", "quarter", "month", "day", "dayofweek", "hour", "minute", "second"])
_truncs = st.sampled_from(["year", "quarter", "month", "week", "day", "hour", "minute"])

numbers = st.recursive(
    st.sampled_from(["i", "f", "g"]) | st.integers(0, 6).map(str) | st.sampled_from(["0.5", "1.25", "(-2)"]),
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from("+-*"), part).map(lambda p: f"({p[0]} {p[1]} {p[2]})"),
        st.tuples(part, st.sampled_from("/%"), st.sampled_from(["2", "4", "(-4)"])).map(
            lambda p: f"({p[0]} {p[1]} {p[2]})"
        ),
        st.tuples(st.sampled_from(["abs", "floor", "ceil"]), part).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(part, part).map(lambda p: f"coalesce({p[0]}, {p[1]})"),
        part.map(lambda p: f"(-{p})"),
    ),
    max_leaves=4,
)
texts = st.recursive(
    st.sampled_from(["s", "r"]) | _WORDS.map(_quoted),
    lambda part: st.one_of(
        st.tuples(st.sampled_from(["lower", "upper", "trim"]), part).map(lambda p: f"{p[0]}({p[1]})"),
        st.tuples(part, part).map(lambda p: f"coalesce({p[0]}, {p[1]})"),
    ),
    max_leaves=3,
)
times = st.one_of(
    st.sampled_from(["t", "u"]),
    st.tuples(st.sampled_from(["t", "u"]), st.sampled_from("+-"), st.integers(0, 40), _units).map(
        lambda p: f"({p[0]} {p[1]} interval {p[2]} {p[3]})"
    ),
    st.tuples(_truncs, st.sampled_from(["t", "u"])).map(lambda p: f"date_trunc('{p[0]}', {p[1]})"),
    _TIMES.map(lambda d: f"timestamp '{d}'"),
    _TIMES.map(lambda d: f"date '{d.date()}'"),
)
_number_like = st.one_of(
    numbers,
    st.tuples(_parts, st.sampled_from(["t", "u"])).map(lambda p: f"{p[0]}({p[1]})"),
    texts.map(lambda t: f"length({t})"),
)
_LISTED = st.sampled_from(["0", "1", "-2", "0.5", "null", "3"])
_not = st.sampled_from(["", "not "])
_basic = st.one_of(
    st.tuples(_number_like, _compare, _number_like).map(" ".join),
    st.tuples(texts, _compare, texts).map(" ".join),
    st.tuples(times, _compare, times).map(" ".join),
    st.tuples(_number_like, _not, numbers, numbers).map(lambda p: f"{p[0]} {p[1]}between {p[2]} and {p[3]}"),
    st.tuples(
        st.sampled_from(["i", "f", "g"]),
        _not,
        st.lists(_LISTED, min_size=1),
    ).map(lambda p: f"{p[0]} {p[1]}in ({', '.join(p[2])})"),
    st.tuples(texts, _not, st.lists(_WORDS.map(_quoted) | st.just("null"), min_size=1, max_size=4)).map(
        lambda p: f"{p[0]} {p[1]}in ({', '.join(p[2])})"
    ),
    st.tuples(texts, _not, st.sampled_from(["like", "ilike"]), _WORDS.filter(lambda w: not w.endswith("\\"))).map(
        lambda p: f"{p[0]} {p[1]}{p[2]} {_quoted(p[3])}"
    ),
    st.tuples(st.sampled_from(["starts_with", "ends_with", "contains"]), texts, _WORDS).map(
        lambda p: f"{p[0]}({p[1]}, {_quoted(p[2])})"
    ),
    st.tuples(_number_like | texts | times | st.just("b"), st.sampled_from(["is null", "is not null"])).map(" ".join),
    st.sampled_from(["b", "b = true", "b is true", "b is not false", "true", "false", "b is distinct from (i > 0)"]),
)
conditions = st.recursive(
    _basic,
    lambda part: st.one_of(
        st.tuples(part, st.sampled_from(["and", "or"]), part).map(lambda p: f"({p[0]}) {p[1]} ({p[2]})"),
        part.map(lambda p: f"not ({p})"),
        st.tuples(part, st.sampled_from(["is null", "is true", "is not true", "is false"])).map(
            lambda p: f"({p[0]}) {p[1]}"
        ),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def database():
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect(":memory:") as connection:
        connection.execute("set threads = 1")
        yield connection


@settings(max_examples=300)
@given(table=tables, text=conditions)
def test_a_condition_chooses_the_rows_that_sql_chooses(database, table, text):
    database.register("rows", table)
    wanted = [bool(row[0]) for row in database.execute(f"select ({text}) is true from rows").fetchall()]
    assert parse(text, TYPES).mask(table).tolist() == wanted


@given(text=conditions)
def test_the_normal_form_reads_as_itself(text):
    once = parse(text, TYPES)
    again = parse(once.text, TYPES)
    assert (again.text, again.columns) == (once.text, once.columns)


@given(table=tables, text=conditions)
def test_the_normal_form_chooses_the_same_rows(table, text):
    once = parse(text, TYPES)
    assert np.array_equal(parse(once.text, TYPES).mask(table), once.mask(table))


def _mask(text, **columns):
    table = pa.table(columns)
    return parse(text, column_types(table)).mask(table).tolist()


def test_what_is_divided_by_zero_and_nan_are_missing():
    assert _mask("a / b > 0 or a % b = 0", a=[1.0, 4.0, 0.0], b=[0.0, 2.0, 0.0]) == [False, True, False]
    assert _mask("a / 0 is null and ln(a) is null and sqrt(a) is null", a=[-1.0]) == [True]
    assert _mask("a is null", a=[float("nan"), None, 1.0]) == [True, True, False]
    assert _mask("a <> 1", a=[float("nan"), None, 2.0]) == [False, False, True]


def test_texts_that_are_numbers_can_be_compared_as_such():
    assert _mask("s::double > 9", s=["10", "9", "x", None]) == [True, False, False, False]
    assert _mask("cast(s as double) is null", s=["10", "x", None]) == [False, True, True]


def test_halves_are_rounded_away_from_zero():
    assert _mask("round(a) = 3", a=[2.5, 3.4, 3.5]) == [True, True, False]
    assert _mask("round(a) = -3", a=[-2.5]) == [True]


def test_whole_numbers_are_compared_exactly():
    big = 2**60
    assert _mask(f"a > {big}", a=pa.array([big, big + 1])) == [False, True]
    assert _mask("a + a > 0", a=pa.array([100], pa.int8())) == [True]
    assert _mask("a > 300", a=pa.array([100], pa.int8())) == [False]


def test_physical_columns_are_read_as_models_see_them():
    types = {"n": float, "b": bool, "t": dt.datetime, "s": str}
    columns = {
        "n": np.array([1.0, np.nan, 3.0]),
        "b": np.array([1.0, 0.0, np.nan]),
        "t": np.array([0.0, 86_400.0, np.nan]),
        "s": np.array(["x", "", "y"], dtype=object),
    }
    for text, wanted in {
        "n > 1": [False, False, True],
        "b": [True, False, False],
        "not b": [False, True, False],
        "b = 'yes'": [True, False, False],
        "b <> 1": [False, True, False],
        "t >= '1970-01-02'": [False, True, False],
        "t is null": [False, False, True],
        "s is null": [False, True, False],
        "s <> 'x'": [False, False, True],
    }.items():
        assert parse(text, types).mask(columns).tolist() == wanted, text


def test_a_time_with_a_zone_is_brought_to_utc():
    times = pa.array([dt.datetime(2026, 1, 1, 10, tzinfo=dt.timezone.utc)], pa.timestamp("ns", "UTC"))
    assert _mask("t = '2026-01-01 12:00+02'", t=times) == [True]
    assert _mask("t = '2026-01-01T10:00:00Z'", t=times) == [True]
    assert _mask("t + interval 1 month < '2026-02-01'", t=times) == [False]


def test_batches_and_dictionaries_are_understood():
    column = pa.array(["a", "b", None, "a"]).dictionary_encode()
    batch = pa.record_batch({"s": column, "i": pa.array([1, 2, 3, None])})
    assert parse("s = 'a' and i = 1", column_types(batch.schema)).mask(batch).tolist() == [True, False, False, False]


def test_parts_of_many_rows_are_put_together_in_order():
    rng = np.random.default_rng(0)
    x, s = rng.random(3 * PART + 7), rng.choice(["a", "b"], 3 * PART + 7)
    found = parse("x > 0.5 and s = 'a'", {"x": float, "s": str}).mask({"x": x, "s": s.astype(object)})
    assert np.array_equal(found, (x > 0.5) & (s == "a"))


def test_no_rows_give_no_answer():
    assert parse("true", {}).mask({}).tolist() == []
    assert parse("a > 1", {"a": float}).mask(pa.table({"a": pa.array([], pa.float64())})).tolist() == []
    assert _mask("1 = 1", a=[1.0, 2.0]) == [True, True]


def test_names_are_found_in_any_case_and_with_dots():
    assert parse("AGE > 3 and user.age < 2", {"age": float, "user.age": float}).columns == ("age", "user.age")
    assert parse('"odd ""name""" = 1', {'odd "name"': float}).text == '"odd ""name""" = 1'


@pytest.mark.parametrize(
    ("text", "position", "message"),
    [
        ("", 0, "empty"),
        ("  ;", 0, "empty"),
        ("i > 1 and agee > 3", 10, "Did you mean 'user.age'|no column 'agee'"),
        ("ii > 3", 0, "Did you mean 'i'|no column 'ii'"),
        ("i >", 2, "missing after this"),
        ("@", 0, "missing here"),
        ("i = 1 or abs(@) > 2", None, "missing here"),
        ("i = 1)", 5, "can't be read"),
        ("i > 3 and s = 'x", 14, "never closed"),
        ("i = 'x'", 4, "i is a number, but 'x' is a text"),
        ("s = 3", 4, "in quotes: '3'"),
        ("i = '3'", 4, "Leave out the quotes"),
        ("1 < i < 3", 8, "chained"),
        ("i", 0, "true or false is wanted"),
        ("i > 1 and f", 10, "true or false is wanted"),
        ("b = 2", 4, "can't be compared"),
        ("t > 'yesterday'", 4, "not a time"),
        ("t > now()", 4, "same tomorrow"),
        ("foo(i) = 1", 0, "no function 'foo'"),
        ("round(f, 2) = 1", 0, "This form of ROUND"),
        ("i in (select 1)", 0, "list of values"),
        ("i in (f)", 6, "written values"),
        ("i = (select max(i) from x)", None, "query of its own"),
        ("drop table x", 0, "DROP is a statement"),
        ("DELETE from x", 0, "DELETE is a statement"),
        ("update x set i = 3", 0, "UPDATE is a statement"),
        ("insert into x values (1)", 0, "INSERT is a statement"),
        ("select 1", 0, "SELECT is a statement"),
        ("copy x to 'file'", 0, "COPY is a statement"),
        ("i = 1; drop table x", 5, "another statement begins"),
        ("i = 1 union select 2", None, "query of its own|can't be used"),
        ("t > interval 1 month", None, "no fixed length|a duration"),
        ("t + 3 > '2026-01-01'", 0, "can't be computed"),
        ("case when b then i end = 1", None, "no function 'case'|can't be used"),
        ("i = ?", None, "can't be used"),
        ("s similar to 'x'", None, "can't be used|no function"),
        ("(" * 300 + "b" + ")" * 300, None, "nested too deeply"),
        ("count(*) > 1", None, "no function|can't be used"),
        ("i = 1 as x", None, "can't be used|can't be read"),
    ],
)
def test_a_bad_condition_is_told_with_its_position(text, position, message):
    with pytest.raises(PredicateError, match=message) as caught:
        parse(text, TYPES)
    if position is not None:
        assert caught.value.position == position
    assert caught.value.text == text
    assert "^" in str(caught.value) or not text


@given(st.text(max_size=30) | conditions.flatmap(lambda c: st.integers(0, len(c)).map(lambda n: c[:n])))
def test_whatever_is_written_is_read_or_told(text):
    try:
        found = parse(text, TYPES)
    except PredicateError as error:
        place = error.position
    else:
        place = 0
        found.mask(_table(1))
    assert 0 <= place <= len(text)


def test_a_column_that_is_absent_or_of_another_kind_is_told():
    condition = parse("i > 1", TYPES)
    with pytest.raises(DataError, match="'i', which these rows don't have"):
        condition.mask({"f": np.zeros(2)})
    with pytest.raises(DataError, match="as a number, but here its type is string"):
        condition.mask(pa.table({"i": ["a"]}))
