"""The rules for one cell, and that whole columns follow the same rules."""

from __future__ import annotations

import datetime as dt
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidemill.core.schema import SemanticType
from tidemill.data import textforms, vector

UNITS = {
    SemanticType.NUMBER: [None, textforms.DECIMAL_COMMA, ';missing=["n.a.", "-"]'],
    SemanticType.BOOLEAN: [None],
    SemanticType.DATETIME: [textforms.DATE_UNIT + f for f in textforms.DATES] + [None],
    SemanticType.CATEGORY: [None],
    SemanticType.TEXT: [None],
}

digits = st.text(alphabet="0123456789.,+-eE ", max_size=9)
moment = dt.datetime.fromisoformat
dates = st.builds(
    lambda day, mark, month, year, tail: f"{day}{mark}{month}{mark}{year}{tail}",
    st.integers(0, 32),
    st.sampled_from("/-. "),
    st.sampled_from([*range(14), "Nov", "march", "Foo"]),
    st.sampled_from([1970, 1999, 2011, 2024, 69, 24]),
    st.sampled_from(["", " 12:30", "T23:59:59.125", " 9:05 PM", " 13:00 am", " 25:00", "Z", " 00:00:00+02:00"]),
)
iso = st.datetimes(moment("0001-01-03"), moment("9999-12-28")).map(lambda d: d.isoformat())
words = st.sampled_from(
    [*sorted(textforms.MISSING), *sorted(textforms.TRUE | textforms.FALSE), "3.0", "-0.0", "n.a.", "-"]
)
others = st.sampled_from(
    ["1,234.5", "nan(1)", "0x10", "1_000", "inf", "-Infinity", "٣", "2 Jan 2020", "Feb 30, 2020", "20200229"]
)
cells = st.one_of(digits, dates, iso, words, others, st.text(max_size=6)).filter(lambda t: "\0" not in t)


@given(st.lists(cells, min_size=1, max_size=8), st.sampled_from(list(UNITS)), st.data())
@example(["1,234.5", " 3 ", "?", "abc", "nan(a)"], SemanticType.NUMBER, None)
def test_a_column_is_read_like_its_cells(texts, kind, data):
    unit = None if data is None else data.draw(st.sampled_from(UNITS[kind]))
    values, bad = vector.physical(pa.chunked_array([pa.array(texts, pa.string())]), kind, unit)
    for text, value, wrong in zip(texts, values, bad, strict=True):
        try:
            wanted = textforms.physical(text, kind.value, unit)
        except ValueError:
            assert wrong
            assert math.isnan(value)
        else:
            assert not wrong
            assert value == wanted or (math.isnan(value) and math.isnan(wanted))


@given(st.datetimes(moment("1900-01-01"), moment("2200-01-01")))
def test_a_native_timestamp_equals_its_text(when):
    native = vector.physical(pa.chunked_array([[when]]), SemanticType.DATETIME)[0]
    assert native[0] == textforms.parse_datetime(when.isoformat())


@given(st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False)))
def test_a_native_number_equals_its_text(number):
    native = pa.chunked_array([[number]])
    assert vector.physical(native, SemanticType.NUMBER)[0][0] == textforms.parse_number(repr(number))
    assert vector.strings(vector.native_text(native), category=True)[0] == textforms.category_text(
        str(int(number)) if abs(number) < 1e15 and number == int(number) else repr(number)
    )


@pytest.mark.parametrize(
    ("text", "form", "wanted"),
    [
        ("11/3/2011", "%m/%d/%Y", "2011-11-03T00:00:00+00:00"),
        ("11/3/2011 7:05 pm", "%d/%m/%Y", "2011-03-11T19:05:00+00:00"),
        ("3-Nov-11", "%d-%b-%y", "2011-11-03T00:00:00+00:00"),
        ("November 3, 2011", "%b %d, %Y", "2011-11-03T00:00:00+00:00"),
        ("2011-11-03 10:00:00.5+02:30", "%Y-%m-%d", "2011-11-03T07:30:00.500000+00:00"),
        ("1/1/69", "%d/%m/%y", "1969-01-01T00:00:00+00:00"),
        ("2011-11-03", "%d.%m.%Y", "2011-11-03T00:00:00+00:00"),
    ],
)
def test_dates_are_read_as_written(text, form, wanted):
    assert textforms.parse_datetime(text, textforms.DATE_UNIT + form) == dt.datetime.fromisoformat(wanted).timestamp()


@pytest.mark.parametrize("text", ["30/2/2011", "1/13/2011", "1/1/2011 24:00", "1/1/2011 13:00 PM", "soon"])
def test_dates_that_do_not_exist_are_refused(text):
    with pytest.raises(ValueError):
        textforms.parse_datetime(text, "datetime:%d/%m/%Y")


def test_every_missing_token_is_missing_in_every_type():
    for text in textforms.MISSING:
        for kind in ("number", "integer", "boolean", "datetime"):
            assert math.isnan(textforms.physical(f" {text} ", kind))
        assert textforms.physical(text, "category") == textforms.physical(text, "text") == ""


def test_the_source_runs_without_anything_installed(tmp_path):
    # The shipped program carries a copy of this file.
    copy = tmp_path / "forms.py"
    copy.write_bytes(Path(textforms.__file__).read_bytes())
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import forms; print(forms.physical('1,234.5', 'number'))"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "1234.5\n"


def test_equal_strings_share_one_object():
    values = vector.strings(pa.chunked_array([["ab cd"] * 3 + ["x"]]), category=False)
    assert values[0] is values[2]
    assert values.dtype == object
    assert isinstance(values[0], str)
    assert not np.shares_memory(values[:1], values[1:2])
