"""From the words of a condition to its nodes; whatever is not on the lists here is refused, with its position."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import numpy as np
import pyarrow.compute as pc
import sqlglot
from numpy.typing import NDArray
from sqlglot import Token, TokenType, exp
from sqlglot.errors import ParseError, TokenError

from tidemill.core.errors import PredicateError, nearest_hint
from tidemill.data.matching import _calendar, _nodes, _vectors
from tidemill.data.matching._nodes import Constant, Node, Truth
from tidemill.data.matching._vectors import KINDS
from tidemill.data.textforms import parse_boolean

_DIALECT = "duckdb"
_LONGEST = 200_000
_LONGEST_SPAN = 2**61  # microseconds
_DEEPEST = 150
_STATEMENTS = frozenset({
    "ALTER", "ANALYZE", "ATTACH", "BEGIN", "CALL", "CHECKPOINT", "COMMENT", "COMMIT", "COPY", "CREATE", "DELETE",
    "DESCRIBE", "DETACH", "DROP", "EXECUTE", "EXPLAIN", "EXPORT", "FROM", "GRANT", "IMPORT", "INSERT", "INSTALL",
    "KILL", "LOAD", "MERGE", "PIVOT", "PRAGMA", "PREPARE", "REFRESH", "RENAME", "REPLACE", "RESET", "REVOKE",
    "ROLLBACK", "SELECT", "SET", "SHOW", "SUMMARIZE", "TRUNCATE", "UPDATE", "UPSERT", "USE", "VACUUM", "VALUES",
    "WITH",
})  # fmt: skip
_NUMBER, _TEXT, _TIME, _SPAN = float, str, dt.datetime, dt.timedelta

_COMPARISONS: dict[type[exp.Expression], str] = {
    exp.EQ: "=", exp.NEQ: "<>", exp.LT: "<", exp.LTE: "<=", exp.GT: ">", exp.GTE: ">=",
}  # fmt: skip
_ARITHMETIC: dict[type[exp.Expression], str] = {
    exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%",
}  # fmt: skip


def _round(x: Any) -> Any:
    """Halves go away from zero, as in SQL."""
    return np.trunc(x + np.copysign(0.5, x))


_NUMERIC: dict[type[exp.Expression], tuple[str, Callable[[Any], Any]]] = {
    exp.Abs: ("abs", np.abs),
    exp.Floor: ("floor", np.floor),
    exp.Ceil: ("ceil", np.ceil),
    exp.Sqrt: ("sqrt", np.sqrt),
    exp.Ln: ("ln", lambda x: np.where(np.greater(x, 0), np.log(x), np.nan)),
    exp.Exp: ("exp", np.exp),
    exp.Round: ("round", _round),
}
_WORDS: dict[type[exp.Expression], tuple[str, Callable[[NDArray[Any]], NDArray[Any]], type]] = {
    exp.Lower: ("lower", lambda w: _objects(pc.utf8_lower(_vectors.arrow_words(w))), str),
    exp.Upper: ("upper", lambda w: _objects(pc.utf8_upper(_vectors.arrow_words(w))), str),
    exp.Trim: ("trim", lambda w: _objects(pc.utf8_trim(_vectors.arrow_words(w), " ")), str),
    exp.Length: ("length", lambda w: pc.utf8_length(_vectors.arrow_words(w)).to_numpy(zero_copy_only=False), float),
}
_WORD_TESTS: dict[type[exp.Expression], tuple[str, Callable[..., Any]]] = {
    exp.StartsWith: ("starts_with", pc.starts_with),
    exp.EndsWith: ("ends_with", pc.ends_with),
    exp.Contains: ("contains", pc.match_substring),
}
_PARTS: dict[type[exp.Expression], str] = {
    exp.Year: "YEAR", exp.Quarter: "QUARTER", exp.Month: "MONTH", exp.Day: "DAY", exp.DayOfWeek: "DAYOFWEEK",
    exp.Hour: "HOUR", exp.Minute: "MINUTE", exp.Second: "SECOND",
}  # fmt: skip
_FUNCTIONS = (
    "abs", "ceil", "coalesce", "contains", "date_trunc", "day", "dayofweek", "ends_with", "exp", "extract", "floor",
    "hour", "length", "ln", "lower", "minute", "month", "quarter", "round", "second", "sqrt", "starts_with", "trim",
    "upper", "year",
)  # fmt: skip


def _objects(words: Any) -> NDArray[Any]:
    out = np.empty(len(words), dtype=object)
    out[:] = words.to_pylist()
    return out


def translate(text: str, columns: Mapping[str, type]) -> tuple[Truth, tuple[str, ...]]:
    """Read a condition; return its root and the columns that it asks for, in the order of their names.

    Raises
    ------
    PredicateError
        With the position of what can't be read, is unknown, doesn't fit, or is more than a question.
    """
    kinds = {name: float if kind is int else kind for name, kind in columns.items()}
    reader = _Reader(text, kinds)
    try:
        root = reader.truth(reader.parse())
    except RecursionError:
        raise PredicateError(
            "The condition is nested too deeply.", text=text, hint=f"Use at most {_DEEPEST} levels of parentheses."
        ) from None
    return root, tuple(sorted(reader.used))


class _Reader:
    def __init__(self, text: str, kinds: Mapping[str, type]) -> None:
        self.text = text
        self.kinds = kinds
        self.used: set[str] = set()
        self._folded: dict[str, list[str]] = {}
        for name in kinds:
            self._folded.setdefault(name.casefold(), []).append(name)
        self._depth = 0

    # ------------------------------------------------------------------------------------------------------- parsing

    def parse(self) -> exp.Expression:
        """Let sqlglot read the text, once it is sure that it is one question."""
        if not self.text.strip():
            raise self.error("The condition is empty.", 0, hint="Write one, such as: age between 20 and 30.")
        if len(self.text) > _LONGEST:
            raise PredicateError(f"The condition has {len(self.text):,} characters; {_LONGEST:,} are allowed.")
        tokens = self._tokens()
        self._refuse_statements(tokens)
        try:
            found = sqlglot.parse(self.text, dialect=_DIALECT)
        except ParseError as error:
            raise self._unreadable(error) from None
        if len(found) != 1 or found[0] is None:
            raise self.error("The condition is empty.", 0, hint="Write one, such as: age between 20 and 30.")
        return cast(exp.Expression, found[0])

    def _tokens(self) -> list[Token]:
        try:
            return list(sqlglot.tokenize(self.text, dialect=_DIALECT))
        except TokenError:
            # The tokenizer doesn't say where: a quote that is opened and never closed is all that it refuses.
            at = _open_quote(self.text)
            raise self.error("A quote is opened here and never closed.", at, hint="Close it.") from None

    def _refuse_statements(self, tokens: list[Token]) -> None:
        for i, token in enumerate(tokens):
            if token.token_type == TokenType.SEMICOLON and i + 1 < len(tokens):
                raise self.error("A condition is one question; after `;` another statement begins.", token.start)
        first = tokens[0]
        word = first.text.upper()
        if word in _STATEMENTS and first.token_type != TokenType.IDENTIFIER:
            if first.text in self.kinds:
                hint = f'Write the column in double quotes: "{first.text}".'
                raise self.error(f"{word} begins a statement.", first.start, hint=hint)
            raise self.error(
                f"A condition only asks which rows; {word} is a statement.", first.start,
                hint="Write only what follows WHERE, such as: age > 30.",
            )  # fmt: skip

    def _unreadable(self, error: ParseError) -> PredicateError:
        told = error.errors[0] if error.errors else {}
        at = self._offset(told.get("line") or 1, told.get("col") or 1)
        what = str(told.get("description") or error).split(" for <class", maxsplit=1)[0].rstrip(".")
        if what.startswith("Required keyword"):
            what = "Something is missing after this"
        return self.error(
            f"The condition can't be read: {what}.", at, hint="Compare with: age > 30 and region = 'north'."
        )

    def _offset(self, line: int, column: int) -> int:
        """Offset of the last character of a token from its line and column (both from 1)."""
        before = sum(len(text) + 1 for text in self.text.split("\n")[: line - 1])
        return max(0, min(before + column - 1, len(self.text)))

    # -------------------------------------------------------------------------------------------------------- errors

    def error(self, message: str, at: int, *, hint: str | None = None) -> PredicateError:
        return PredicateError(message, text=self.text, position=at, hint=hint)

    def at(self, node: exp.Expression) -> int:
        """Offset of the first character of a part of the condition."""
        starts = [n.meta["start"] for n in node.walk() if "start" in n.meta]
        return min(starts, default=0)

    def fail(self, node: exp.Expression, message: str, hint: str | None = None) -> PredicateError:
        return self.error(message, self.at(node), hint=hint)

    # --------------------------------------------------------------------------------------------------------- truth

    def truth(self, node: exp.Expression) -> Truth:
        """Read a part that must be true or false."""
        found = self.any(node)
        if isinstance(found, Truth):
            return found
        raise self.fail(
            node, f"Something true or false is wanted here, but this is {KINDS[found.kind]}.",
            "Compare it with a value, such as: age > 30.",
        )  # fmt: skip

    def any(self, node: exp.Expression) -> Node:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise RecursionError
        try:
            return self._any(node)
        finally:
            self._depth -= 1

    def _any(self, node: exp.Expression) -> Node:
        self._refuse_extras(node)
        if isinstance(node, exp.Paren):
            return self.any(node.this)
        if isinstance(node, (exp.And, exp.Or)):
            parts = tuple(self.truth(p) for p in _chain(node, type(node)))
            return _nodes.Every(parts) if isinstance(node, exp.And) else _nodes.Some(parts)
        if isinstance(node, exp.Not):
            return _nodes.Not(self.truth(node.this))
        if type(node) in _COMPARISONS:
            return self._compare(node, _COMPARISONS[type(node)], node.this, node.expression)
        reader = _READERS.get(type(node))
        if reader is not None:
            return reader(self, node)
        if type(node) in _ARITHMETIC:
            return self._arithmetic(node)
        if type(node) in _PARTS:
            return self._part(node, _PARTS[type(node)], node.this)
        if type(node) in _NUMERIC or type(node) in _WORDS:
            return self._function(node)
        if type(node) in _WORD_TESTS:
            return self._word_test(node)
        raise self._refused(node)

    def _refuse_extras(self, node: exp.Expression) -> None:
        """Refuse what the reader of this kind of node does not look at, so that nothing is passed over."""
        known = _LOOKED_AT | _MORE.get(type(node), frozenset())
        extra = [key for key, value in node.args.items() if key not in known and value not in (None, [], False)]
        if extra and type(node) in _KNOWN:
            raise self.fail(node, f"This form of {node.key.upper()} can't be used in a condition ({extra[0]}).")

    def _refused(self, node: exp.Expression) -> PredicateError:
        if isinstance(node, (exp.Query, exp.Subquery)):
            return self.fail(node, "A condition can't contain a query of its own.", "List the values instead.")
        if isinstance(node, (exp.DDL, exp.DML, exp.Command)):
            return self.fail(node, f"A condition only asks which rows; {node.key.upper()} is a statement.")
        name = node.name if isinstance(node, exp.Anonymous) else node.key
        if isinstance(node, exp.Func):
            if name.lower() in ("now", "currentdate", "currenttimestamp", "today"):
                return self.fail(node, "A condition must mean the same tomorrow.", "Write the date: DATE '2026-01-31'.")
            return self.fail(node, f"There is no function {name!r}.", nearest_hint(name, _FUNCTIONS))
        return self.fail(node, f"{node.key.upper()} can't be used in a condition.")

    def _compare(self, node: exp.Expression, op: str, left: exp.Expression, right: exp.Expression) -> Truth:
        a, b = self.any(left), self.any(right)
        return self._compared(node, op, (a, left), (b, right))

    def _compared(
        self, node: exp.Expression, op: str, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]
    ) -> Truth:
        (a, _), (b, _) = left, right
        if _is_null(a) or _is_null(b):
            return _nodes.Written(None)
        if isinstance(a, Truth) or isinstance(b, Truth):
            return self._compared_truth(node, op, left, right)
        a, b = self._agree(left, right)
        if isinstance(a, Constant) and not isinstance(b, Constant):
            return _nodes.Compare(_nodes.MIRROR[op], b, a)
        return _nodes.Compare(op, a, b)

    def _compared_truth(
        self, node: exp.Expression, op: str, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]
    ) -> Truth:
        (a, first), (b, second) = left, right
        a, b = _as_truth(a, b), _as_truth(b, a)
        if isinstance(a, Truth) and isinstance(b, Truth) and op in ("=", "<>"):
            equal = _nodes.Equal(a, b)
            return equal if op == "=" else _nodes.Not(equal)
        if type(first) in _COMPARISONS:
            raise self.fail(
                second, "Comparisons can't be chained.", "Write: x between 20 and 30, or: 20 < x and x < 30."
            )
        other = second if isinstance(a, Truth) else first
        raise self.fail(other, "Something true or false can't be compared with this.", "Write `x` or `not x` alone.")

    def _agree(self, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]) -> tuple[Node, Node]:
        """Bring two values to one kind: a text beside a time is read as a time; nothing else is converted."""
        (a, first), (b, second) = left, right
        if a.kind is _TIME and isinstance(b, Constant) and b.kind is str:
            b = self._time(second, b.value)
        elif b.kind is _TIME and isinstance(a, Constant) and a.kind is str:
            a = self._time(first, a.value)
        for part, node in ((a, first), (b, second)):
            if isinstance(part, _nodes.Months):
                raise self.fail(node, "Months and years have no fixed length.", "Compare with days.")
        if a.kind is not b.kind:
            raise self.fail(
                second, f"{_short(first)} is {KINDS[a.kind]}, but {_short(second)} is {KINDS[b.kind]}.",
                _quotes(a, b, first, second),
            )  # fmt: skip
        return a, b

    def _between(self, node: exp.Expression) -> Truth:
        value, low, high = node.this, node.args["low"], node.args["high"]
        return _nodes.Every((self._compare(node, ">=", value, low), self._compare(node, "<=", value, high)))

    def _in(self, node: exp.Expression) -> Truth:
        if node.args.get("query") or node.args.get("unnest") or node.args.get("field"):
            raise self.fail(node, "IN takes a list of values.", "Write: x in (1, 2, 3).")
        value = self.any(node.this)
        options: list[Constant] = []
        unknown = False
        for item in node.expressions:
            option = self.any(item)
            if _is_null(option):
                unknown = True
                continue
            _, fitting = self._agree((value, node.this), (option, item))
            if not isinstance(fitting, Constant):
                raise self.fail(item, "IN takes written values only.", "Write: x = a or x = b.")
            options.append(fitting)
        if not options and not unknown:
            raise self.fail(node.this, "The list after IN is empty.", "List at least one value.")
        if isinstance(value, Constant) or not options:
            return _nodes.Some(tuple(_nodes.Compare("=", value, o) for o in options) or (_nodes.Written(None),))
        return _nodes.Among(value, tuple(options), unknown)

    def _is(self, node: exp.Expression) -> Truth:
        value = self.any(node.this)
        if isinstance(node.expression, exp.Null):
            return _nodes.IsMissing(value)
        if isinstance(node.expression, exp.Boolean):
            return _nodes.IsTruth(self.truth(node.this), bool(node.expression.this))
        raise self.fail(node.expression, "After IS stands NULL, TRUE or FALSE.")

    def _same(self, node: exp.Expression) -> Truth:
        a, b = self.any(node.this), self.any(node.expression)
        if _is_null(a) or _is_null(b):
            same: Truth = _nodes.IsMissing(b if _is_null(a) else a)
        else:
            equal = self._compared(node, "=", (a, node.this), (b, node.expression))
            if isinstance(equal, _nodes.Compare):
                a, b = equal.left, equal.right
            same = _nodes.Same(equal, a, b)
        return _nodes.Not(same) if isinstance(node, exp.NullSafeNEQ) else same

    def _like(self, node: exp.Expression) -> Truth:
        escape = None
        if isinstance(node, exp.Escape):
            escape = node.expression.name
            if not isinstance(node.expression, exp.Literal) or len(escape) != 1:
                raise self.fail(node.expression, "ESCAPE takes one character in quotes.")
            node = node.this
        if not isinstance(node, (exp.Like, exp.ILike)):
            raise self.fail(node, "ESCAPE belongs to LIKE.")
        ignore_case = isinstance(node, exp.ILike)
        argument, pattern = self._text(node.this), self._written_text(node.expression, "pattern")
        word = "ILIKE" if ignore_case else "LIKE"
        text = f"{argument} {word} {_quoted(pattern)}" + (f" ESCAPE {_quoted(escape)}" if escape else "")
        found = _nodes.WordTest(argument, lambda w: _vectors.like(w, pattern, escape, ignore_case=ignore_case), text)
        return _nodes.Not(found) if node.args.get("negate") else found

    def _word_test(self, node: exp.Expression) -> Truth:
        name, test = _WORD_TESTS[type(node)]
        argument, part = self._text(node.this), self._written_text(node.expression, "second argument")
        return _nodes.WordTest(
            argument,
            lambda w: np.asarray(test(_vectors.arrow_words(w), part).to_numpy(zero_copy_only=False), dtype=bool),
            f"{name}({argument}, {_quoted(part)})",
        )

    # -------------------------------------------------------------------------------------------------------- values

    def _column(self, node: exp.Expression) -> Node:
        name = ".".join(part.name for part in node.parts) if isinstance(node, exp.Column) else node.name
        if isinstance(node.this, exp.Star):
            raise self.fail(node, "`*` can't be used in a condition.")
        if name not in self.kinds:
            near = self._folded.get(name.casefold(), [])
            if len(near) != 1:
                raise self.fail(node, f"There is no column {name!r}.", nearest_hint(name, self.kinds))
            name = near[0]
        self.used.add(name)
        found = _nodes.Name(name, self.kinds[name])
        return _nodes.Flag(found) if found.kind is bool else found

    def _literal(self, node: exp.Expression) -> Node:
        if node.is_string:
            return Constant(node.this, str, _quoted(node.this))
        return self._number(node, node.this)

    def _number(self, node: exp.Expression, text: str) -> Constant:
        try:
            whole = text.isdecimal() and len(text) < 20 and int(text) < 2**63
            value: int | float = int(text) if whole else float(text)
        except ValueError:
            raise self.fail(node, f"{text!r} is not a number.") from None
        if math.isinf(value):
            raise self.fail(node, f"{text!r} is too large.")
        return Constant(value, float, repr(value))

    def _negative(self, node: exp.Expression) -> Node:
        value = self._numeric(node.this)
        if isinstance(value, Constant):
            return Constant(-value.value, float, repr(-value.value))
        return _nodes.Arithmetic("*", value, Constant(-1, float, "-1"))

    def _numeric(self, node: exp.Expression) -> Node:
        return self._of(node, float)

    def _text(self, node: exp.Expression) -> Node:
        return self._of(node, str)

    def _of(self, node: exp.Expression, kind: type) -> Node:
        found = self.any(node)
        if kind is _TIME and isinstance(found, Constant) and found.kind is str:
            return self._time(node, found.value)
        if found.kind is not kind or isinstance(found, Truth):
            raise self.fail(node, f"{KINDS[kind].capitalize()} is wanted here, but this is {KINDS[found.kind]}.")
        return found

    def _written_text(self, node: exp.Expression, what: str) -> str:
        if not isinstance(node, exp.Literal) or not node.is_string:
            raise self.fail(node, f"The {what} must be written in quotes.")
        return str(node.this)

    def _arithmetic(self, node: exp.Expression) -> Node:
        op, (left, right) = _ARITHMETIC[type(node)], (node.this, node.expression)
        a, b = self.any(left), self.any(right)
        if _SPAN in (a.kind, b.kind) or _TIME in (a.kind, b.kind):
            return self._time_arithmetic(node, op, (a, left), (b, right))
        for part, side in ((a, left), (b, right)):
            if part.kind is not float or isinstance(part, Truth):
                raise self.fail(side, f"A number is wanted here, but this is {KINDS[part.kind]}.")
        return _nodes.Arithmetic(op, a, b)

    def _time_arithmetic(
        self, node: exp.Expression, op: str, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]
    ) -> Node:
        if op == "+" and left[0].kind is _SPAN:
            left, right = right, left
        (a, first), (b, second) = left, right
        if isinstance(a, Constant) and a.kind is str:
            a = self._time(first, a.value)
        if isinstance(b, Constant) and b.kind is str:
            b = self._time(second, b.value)
        if a.kind is _TIME and b.kind is _SPAN and op in "+-":
            return _nodes.Arithmetic(op, a, b, _TIME)
        if a.kind is _TIME and b.kind is _TIME and op == "-":
            return _nodes.Arithmetic(op, a, b, _SPAN)
        raise self.fail(
            node, f"{KINDS[a.kind].capitalize()} {op} {KINDS[b.kind]} can't be computed.",
            "Write: time + interval 3 day, or: time - time.",
        )  # fmt: skip

    def _interval(self, node: exp.Expression) -> Node:
        unit = (node.args["unit"].name if node.args.get("unit") else "").upper().rstrip("S")
        sign, amount = 1, node.this
        while isinstance(amount, (exp.Neg, exp.Paren)):
            sign, amount = (-sign if isinstance(amount, exp.Neg) else sign), amount.this
        try:
            number = sign * float(amount.this) if isinstance(amount, exp.Literal) else math.nan
        except ValueError:
            number = math.nan
        ticks = number * (_calendar.UNITS.get(unit) or 0)
        if not (abs(number) < 1e5 or abs(ticks) < _LONGEST_SPAN) or unit not in _calendar.UNITS | _calendar.MONTHS:
            raise self.fail(node, "This interval can't be read.", "Write one number and a unit: interval 3 day.")
        if unit in _calendar.MONTHS:
            if number != int(number):
                raise self.fail(node, "Months and years come whole.", "Use days.")
            return _nodes.Months(int(number) * _calendar.MONTHS[unit])
        return Constant(round(ticks), _SPAN, _span_text(round(ticks)))

    def _cast(self, node: exp.Expression) -> Node:
        target = node.args["to"].this.name
        if target in ("DOUBLE", "FLOAT"):
            return _nodes.WordCall("number", self._text(node.this), _vectors.numbers_in, float)
        if target not in ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPNTZ", "DATETIME"):
            hint = "Write DATE '2026-01-31', TIMESTAMP '2026-01-31 12:00', or x::double for a text that is a number."
            raise self.fail(node, "Only times, and texts to numbers, can be converted.", hint)
        value = self._of(node.this, _TIME)
        if isinstance(value, Constant):
            return self._time_constant(_calendar.truncate(value.value, "DAY")) if target == "DATE" else value
        return _truncated(value, "DAY") if target == "DATE" else value

    def _time(self, node: exp.Expression, text: str) -> Constant:
        try:
            moment = dt.datetime.fromisoformat(_iso(text))
        except ValueError:
            raise self.fail(
                node, f"{text!r} is not a time.", "Write it as 2026-01-31 or 2026-01-31 12:00:00."
            ) from None
        if moment.tzinfo is None:  # a time without a zone is UTC, here as everywhere
            moment = moment.replace(tzinfo=dt.timezone.utc)
        return self._time_constant((moment - _EPOCH) // dt.timedelta(microseconds=1))

    def _time_constant(self, ticks: Any) -> Constant:
        moment = _EPOCH + dt.timedelta(microseconds=int(ticks))
        return Constant(int(ticks), _TIME, f"CAST('{moment.replace(tzinfo=None).isoformat(' ')}' AS TIMESTAMP)")

    def _part(self, node: exp.Expression, unit: str, argument: exp.Expression) -> Node:
        value = self._of(argument, _TIME)
        return _nodes.Call(unit.lower(), value, lambda ticks: _calendar.part(ticks, unit))

    def _extract(self, node: exp.Expression) -> Node:
        unit = node.this.name.upper()
        unit = {"DOW": "DAYOFWEEK"}.get(unit, unit)
        if unit not in _calendar.PARTS:
            raise self.fail(node, f"{unit.lower()!r} can't be extracted.", nearest_hint(unit, _calendar.PARTS))
        return self._part(node, unit, node.expression)

    def _trunc(self, node: exp.Expression) -> Node:
        unit = node.args["unit"].name.upper()
        if unit not in _calendar.TRUNCATE:
            raise self.fail(node, f"A time can't be cut to {unit.lower()!r}.", nearest_hint(unit, _calendar.TRUNCATE))
        return _truncated(self._of(node.this, _TIME), unit)

    def _function(self, node: exp.Expression) -> Node:
        if type(node) in _NUMERIC:
            name, compute = _NUMERIC[type(node)]
            return _nodes.Call(name, self._numeric(node.this), compute)
        name, words, kind = _WORDS[type(node)]
        return _nodes.WordCall(name, self._text(node.this), words, kind)

    def _coalesce(self, node: exp.Expression) -> Node:
        first, *rest = [(self.any(n), n) for n in (node.this, *node.expressions)]
        if isinstance(first[0], Truth):
            raise self.fail(first[1], "coalesce takes numbers, texts or times.", "Write: x is true.")
        return _nodes.Coalesce((first[0], *(self._agree(first, other)[1] for other in rest)), first[0].kind)


def _truncated(value: Node, unit: str) -> Node:
    form = f"date_trunc('{unit.lower()}', {{argument}})"
    return _nodes.Call("date_trunc", value, lambda ticks: _calendar.truncate(ticks, unit), _TIME, form)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def _iso(text: str) -> str:
    """What Python 3.10 reads, too: no ``Z``, two digits of an offset completed."""
    text = text.strip()
    if text[-1:] in "zZ" and text:
        return text[:-1] + "+00:00"
    if len(text) > 16 and text[-3] in "+-" and text[-2:].isdecimal():
        return text + ":00"
    return text


def _span_text(ticks: int) -> str:
    """Write a duration in the largest unit of which it is a whole number."""
    unit, size = max(((u, t) for u, t in _calendar.UNITS.items() if ticks % t == 0 and u != "WEEK"), key=lambda p: p[1])
    return f"INTERVAL '{ticks // size}' {unit}"


def _as_truth(node: Node, other: Node) -> Node:
    """Read a word or number beside a column of truth values as it would be read in a file: 'yes', 1."""
    if isinstance(other, _nodes.Flag) and isinstance(node, Constant) and node.kind in (str, float):
        with suppress(ValueError):
            value = parse_boolean(str(node.value))
            return node if math.isnan(value) else _nodes.Written(value == 1.0)
    return node


def _is_null(node: Node) -> bool:
    return isinstance(node, _nodes.Written) and node.value is None


def _chain(node: exp.Expression, kind: type[exp.Expression]) -> Iterator[exp.Expression]:
    """Parts of a chain of one connective, from left to right, however long."""
    stack = [node]
    while stack:
        part = stack.pop()
        while isinstance(part, exp.Paren) and isinstance(part.this, kind):
            part = part.this
        if isinstance(part, kind):
            stack += [part.expression, part.this]
        else:
            yield part


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _short(node: exp.Expression) -> str:
    text = node.sql(dialect=_DIALECT)
    return text if len(text) <= 40 else text[:39] + "…"


def _quotes(a: Node, b: Node, first: exp.Expression, second: exp.Expression) -> str | None:
    """Offer quotes, or none, where a written value has the wrong kind."""
    for column, value, node, other in ((a, b, second, first), (b, a, first, second)):
        if isinstance(value, Constant) and column.kind is str and value.kind is float:
            return f"Write it in quotes: '{node.name}'; or, if the texts are numbers, {_short(other)}::double."
        if isinstance(value, Constant) and column.kind is float and value.kind is str:
            return "Leave out the quotes if it is a number." if _looks_numeric(value.value) else None
    return None


def _looks_numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _open_quote(text: str) -> int:
    """Offset of the quote that is never closed."""
    opened, quote = 0, ""
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            opened, quote = i, letter
    return opened


_READERS: dict[type[exp.Expression], Callable[[_Reader, exp.Expression], Node]] = {
    exp.Between: _Reader._between,
    exp.In: _Reader._in,
    exp.Is: _Reader._is,
    exp.NullSafeEQ: _Reader._same,
    exp.NullSafeNEQ: _Reader._same,
    exp.Like: _Reader._like,
    exp.ILike: _Reader._like,
    exp.Escape: _Reader._like,
    exp.Column: _Reader._column,
    exp.Literal: _Reader._literal,
    exp.Boolean: lambda _, node: _nodes.Written(bool(node.this)),
    exp.Null: lambda _, node: _nodes.Written(None),
    exp.Neg: _Reader._negative,
    exp.Interval: _Reader._interval,
    exp.Cast: _Reader._cast,
    exp.Extract: _Reader._extract,
    exp.TimestampTrunc: _Reader._trunc,
    exp.DateTrunc: _Reader._trunc,
    exp.Coalesce: _Reader._coalesce,
}
_KNOWN = frozenset({
    *_READERS, *_COMPARISONS, *_ARITHMETIC, *_PARTS, *_NUMERIC, *_WORDS, *_WORD_TESTS,
    exp.And, exp.Or, exp.Not, exp.Paren,
})  # fmt: skip
_LOOKED_AT = frozenset({"this", "expression", "expressions"})
_MORE: dict[type[exp.Expression], frozenset[str]] = {
    exp.Between: frozenset({"low", "high"}),
    exp.In: frozenset({"query", "unnest", "field"}),  # refused with words of their own
    exp.Like: frozenset({"negate"}),
    exp.ILike: frozenset({"negate"}),
    exp.Column: frozenset({"table", "db", "catalog"}),
    exp.Literal: frozenset({"is_string"}),
    exp.Interval: frozenset({"unit"}),
    exp.Cast: frozenset({"to"}),
    exp.TimestampTrunc: frozenset({"unit"}),
    exp.DateTrunc: frozenset({"unit"}),
}
