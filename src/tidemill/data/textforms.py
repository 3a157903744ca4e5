"""How the text of one cell becomes the value that a model sees; the one place where these rules stand.

Only the standard library is used: the shipped ``run.py`` carries a copy of this source, so that a file is read there
exactly as it was read for training. `tidemill.data.vector` does the same for whole columns with Arrow, and a property
test holds the two against each other.

==============  =====================================================================================================
type            value
==============  =====================================================================================================
any             surrounding spaces are cut; a cell in `MISSING` (exact spelling) is missing
number,         ``float``; NaN where missing. Plain and exponent notation, ``inf``, thousands as ``1,234,567.8``;
integer         with the unit ``decimal:,`` the comma is the decimal mark and the point groups thousands
boolean         1.0 for true, yes, t, y, on, 1; 0.0 for false, no, f, n, off, 0; any case; NaN where missing
datetime        seconds since 1970-01-01 UTC, NaN where missing; the date as the unit says (``datetime:%d/%m/%Y``) or
                as ISO 8601, then optionally the time of day and a zone; without a zone it is UTC
category        the text, ``""`` where missing; whole numbers lose a point with zeros (``3.0`` is ``3``)
text            the text, ``""`` where missing
==============  =====================================================================================================

A unit may end in ``;missing=["n.a."]``: a JSON list of further cells that mean that nothing is known in this column.
"""

import datetime
import json
import math
import re
from collections.abc import Sequence

SPACES = " \t\r\n\f\v\u00a0\ufeff"
"""Characters that are cut from both ends of a cell."""

MISSING = frozenset(
    (
        "", "?", "NA", "N/A", "n/a", "<NA>", "#N/A", "#N/A N/A", "#NA", "NaN", "nan", "NAN", "-NaN", "-nan",
        "NULL", "Null", "null", "None", "NaT", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN",
    )
)  # fmt: skip
"""Cells that mean that nothing is known. Spelling counts: ``NA`` is missing, ``na`` and ``none`` are values."""

TRUE = frozenset(("true", "yes", "t", "y", "on", "1", "1.0"))
FALSE = frozenset(("false", "no", "f", "n", "off", "0", "0.0"))

_INFINITY = r"[+-]?[iI][nN][fF](?:[iI][nN][iI][tT][yY])?"
NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|" + _INFINITY
GROUPED = r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?"
COMMA = r"[+-]?(?:[0-9]+|[0-9]{1,3}(?:\.[0-9]{3})+)(?:,[0-9]*)?(?:[eE][+-]?[0-9]+)?|" + _INFINITY
WHOLE = r"-?(?:0|[1-9][0-9]*)\.0+"

DECIMAL_COMMA = "decimal:,"
"""Unit of a number column whose decimal mark is a comma."""
DATE_UNIT = "datetime:"
"""Start of the unit of a datetime column; the date format follows."""
EXTRA_MISSING = ";missing="
"""Part of a unit before the list of the column's own cells for missing."""

ISO = "%Y-%m-%d"
DATES = (
    ISO, "%Y/%m/%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d.%m.%Y", "%m/%d/%y", "%d/%m/%y",
    "%d.%m.%y", "%d %b %Y", "%d-%b-%Y", "%b %d %Y", "%b %d, %Y", "%d-%b-%y", "%Y%m%d",
)  # fmt: skip
"""Date formats that are known; in doubt the earlier one is taken. The time of day may follow in each of them."""

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_PARTS = {
    "%Y": "(?P<year>[0-9]{4})",
    "%y": "(?P<year>[0-9]{2})",
    "%m": "(?P<month>[0-9]{1,2})",
    "%d": "(?P<day>[0-9]{1,2})",
    "%b": r"(?P<month>[A-Za-z]{3,9})\.?",
}
_TIME = (
    r"(?:(?:T| +)(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<fraction>\.[0-9]{1,9})?)?"
    r"(?: ?(?P<half>[AaPp][Mm]))?)?(?: ?(?P<zone>Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?"
)

_number = re.compile(NUMBER)
_grouped = re.compile(GROUPED)
_comma = re.compile(COMMA)
_whole = re.compile(WHOLE)
_dates = {}  # type: dict[str, re.Pattern[str]]
_units = {}  # type: dict[str, tuple[str, frozenset[str]]]


def clean(text: str) -> str:
    """Cut surrounding spaces; the empty string where the cell is missing.

    >>> clean(" ? "), clean(" Private")
    ('', 'Private')
    """
    text = text.strip(SPACES)
    return "" if text in MISSING else text


def split_unit(unit: "str | None") -> "tuple[str, frozenset[str]]":
    """Take a column's unit apart: how its text is read, and which further cells are missing.

    >>> split_unit('datetime:%d/%m/%Y;missing=["unknown"]')
    ('datetime:%d/%m/%Y', frozenset({'unknown'}))
    """
    key = unit or ""
    if key not in _units:
        form, _, extra = key.partition(EXTRA_MISSING)
        _units[key] = (form, frozenset(json.loads(extra)) if extra else frozenset())
    return _units[key]


def header_names(cells: Sequence[str]) -> list[str]:
    """Column names from the cells of a header; a nameless column is called after its place.

    >>> header_names(["", " age "])
    ['column_1', 'age']
    """
    return [cell.strip(SPACES) or f"column_{i}" for i, cell in enumerate(cells, start=1)]


def parse_number(text: str, unit: "str | None" = None) -> float:
    """Read a number; ``ValueError`` where it is none.

    >>> parse_number("1,234.5"), parse_number("1.234,5", "decimal:,")
    (1234.5, 1234.5)
    """
    text = clean(text)
    form, extra = split_unit(unit)
    if not text or text in extra:
        return math.nan
    if form == DECIMAL_COMMA:
        if _comma.fullmatch(text):
            return float(text.replace(".", "").replace(",", "."))
    elif _grouped.fullmatch(text):
        return float(text.replace(",", ""))
    elif _number.fullmatch(text):
        return float(text)
    raise ValueError(f"{text!r} is not a number")


def parse_boolean(text: str) -> float:
    """Read true or false as 1.0 or 0.0; ``ValueError`` where it is neither.

    >>> parse_boolean("Yes"), parse_boolean("0")
    (1.0, 0.0)
    """
    text = clean(text)
    if not text:
        return math.nan
    word = text.lower()
    if word in TRUE:
        return 1.0
    if word in FALSE:
        return 0.0
    raise ValueError(f"{text!r} is neither true nor false")


def date_pattern(form: str) -> str:
    """Build the regular expression of a date format, with the optional time of day; for `re` and for RE2."""
    return re.sub(r"%[a-zA-Z]", lambda m: _PARTS[m.group()], form.replace(".", r"\.")) + _TIME


def parse_datetime(text: str, unit: "str | None" = None) -> float:
    """Read a date as seconds since 1970-01-01 UTC; ``ValueError`` where it is none.

    >>> parse_datetime("3/11/2011 12:30", "datetime:%d/%m/%Y") == parse_datetime("2011-11-03T12:30Z")
    True
    """
    text = clean(text)
    form, extra = split_unit(unit)
    if not text or text in extra:
        return math.nan
    form = form[len(DATE_UNIT) :] if form.startswith(DATE_UNIT) else ISO
    for each in (form, ISO):
        if each not in _dates:
            _dates[each] = re.compile(date_pattern(each))
        found = _dates[each].fullmatch(text)
        if found:
            return _epoch_s(each, found.groupdict())
    raise ValueError(f"{text!r} is not a date of the form {form}")


def _epoch_s(form: str, parts: "dict[str, str | None]") -> float:
    year, month, day = parts["year"] or "", parts["month"] or "", parts["day"] or ""
    y = int(year)
    if "%y" in form:
        y += 2000 if y < 69 else 1900
    if "%b" in form:
        if month[:3].lower() not in MONTHS:
            raise ValueError(f"{month!r} is not a month")
        m = MONTHS.index(month[:3].lower()) + 1
    else:
        m = int(month)
    days = datetime.date(y, m, int(day)).toordinal() - 719163  # the ordinal of 1970-01-01
    hour, minute, second = (int(parts[k] or 0) for k in ("hour", "minute", "second"))
    half = parts["half"]
    if half:
        if not 1 <= hour <= 12:
            raise ValueError(f"{hour} is not an hour before or after noon")
        hour = hour % 12 + (12 if half in ("PM", "pm", "Pm", "pM") else 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("there is no such time of day")
    zone = parts["zone"] or "Z"
    shift = 0
    if zone not in ("Z", "UTC"):
        shift = (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60) * (-1 if zone[0] == "-" else 1)
    return float(days * 86400 + hour * 3600 + minute * 60 + second - shift) + float(parts["fraction"] or 0)


def category_text(text: str) -> str:
    """Return the text of a category: cleaned, and whole numbers without a point.

    >>> category_text(" 3.0 "), category_text("3.5"), category_text("NA")
    ('3', '3.5', '')
    """
    text = clean(text)
    return str(int(text.partition(".")[0])) if _whole.fullmatch(text) else text


def physical(text: str, kind: str, unit: "str | None" = None) -> "float | str":
    """Return what the model sees for one cell of a column of semantic type ``kind``.

    >>> physical("7", "integer"), physical("a ", "category")
    (7.0, 'a')
    """
    if kind in ("number", "integer"):
        return parse_number(text, unit)
    if kind == "boolean":
        return parse_boolean(text)
    if kind == "datetime":
        return parse_datetime(text, unit)
    return category_text(text) if kind == "category" else clean(text)
