"""What a condition may say: signs, functions and parts of times, and how each is computed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray
from sqlglot import exp

from tidemill.data.matching import _vectors

TIME, SPAN = dt.datetime, dt.timedelta

COMPARISONS: dict[type[exp.Expression], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
ARITHMETIC: dict[type[exp.Expression], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
}  # fmt: skip


def _round(x: Any) -> Any:
    """Halves go away from zero, as in SQL."""
    return np.trunc(x + np.copysign(0.5, x))


NUMERIC: dict[type[exp.Expression], tuple[str, Callable[[Any], Any]]] = {
    exp.Abs: ("abs", np.abs),
    exp.Floor: ("floor", np.floor),
    exp.Ceil: ("ceil", np.ceil),
    exp.Sqrt: ("sqrt", np.sqrt),
    exp.Ln: ("ln", lambda x: np.where(np.greater(x, 0), np.log(x), np.nan)),
    exp.Exp: ("exp", np.exp),
    exp.Round: ("round", _round),
}
WORDS: dict[type[exp.Expression], tuple[str, Callable[[NDArray[Any]], NDArray[Any]], type]] = {
    exp.Lower: ("lower", lambda w: _objects(pc.utf8_lower(_vectors.arrow_words(w))), str),
    exp.Upper: ("upper", lambda w: _objects(pc.utf8_upper(_vectors.arrow_words(w))), str),
    exp.Trim: ("trim", lambda w: _objects(pc.utf8_trim(_vectors.arrow_words(w), " ")), str),
    exp.Length: ("length", lambda w: pc.utf8_length(_vectors.arrow_words(w)).to_numpy(zero_copy_only=False), float),
}
WORD_TESTS: dict[type[exp.Expression], tuple[str, Callable[..., Any]]] = {
    exp.StartsWith: ("starts_with", pc.starts_with),
    exp.EndsWith: ("ends_with", pc.ends_with),
    exp.Contains: ("contains", pc.match_substring),
}
PARTS: dict[type[exp.Expression], str] = {
    exp.Year: "YEAR", exp.Quarter: "QUARTER", exp.Month: "MONTH", exp.Day: "DAY", exp.DayOfWeek: "DAYOFWEEK",
    exp.Hour: "HOUR", exp.Minute: "MINUTE", exp.Second: "SECOND",
}  # fmt: skip
FUNCTIONS = (
    "abs", "ceil", "coalesce", "contains", "date_trunc", "day", "dayofweek", "ends_with", "exp", "extract", "floor",
    "hour", "length", "ln", "lower", "minute", "month", "quarter", "round", "second", "sqrt", "starts_with", "trim",
    "upper", "year",
)  # fmt: skip


def _objects(words: Any) -> NDArray[Any]:
    out = np.empty(len(words), dtype=object)
    out[:] = words.to_pylist()
    return out
