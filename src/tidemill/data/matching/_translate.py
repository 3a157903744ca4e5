"""From the words of a condition to its nodes; whatever is not on the lists here is refused, with its position."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sqlglot import exp

from tidemill.core.errors import PredicateError, nearest_hint
from tidemill.data.matching import _calendar, _nodes, _vectors
from tidemill.data.matching._allowed import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    NUMERIC,
    PARTS,
    SPAN,
    TIME,
    WORD_TESTS,
    WORDS,
)
from tidemill.data.matching._nodes import Constant, Node, Truth
from tidemill.data.matching._parsing import Text
from tidemill.data.matching._spelling import (
    as_truth,
    chain,
    is_null,
    iso,
    quoted,
    quotes,
    short,
    span_text,
    truncated,
)
from tidemill.data.matching._vectors import KINDS

_LONGEST_SPAN = 2**61  # microseconds
_DEEPEST = 150
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


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


class _Reader(Text):
    def __init__(self, text: str, kinds: Mapping[str, type]) -> None:
        super().__init__(text, kinds)
        self.used: set[str] = set()
        self._folded: dict[str, list[str]] = {}
        for name in kinds:
            self._folded.setdefault(name.casefold(), []).append(name)
        self._depth = 0

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
        self._refuse_gaps(node)
        self._refuse_extras(node)
        if isinstance(node, exp.Paren):
            return self.any(node.this)
        if isinstance(node, (exp.And, exp.Or)):
            parts = tuple(self.truth(p) for p in chain(node, type(node)))
            return _nodes.Every(parts) if isinstance(node, exp.And) else _nodes.Some(parts)
        if isinstance(node, exp.Not):
            return _nodes.Not(self.truth(node.this))
        if type(node) in COMPARISONS:
            return self._compare(node, COMPARISONS[type(node)], node.this, node.expression)
        reader = _READERS.get(type(node))
        if reader is not None:
            return reader(self, node)
        if type(node) in ARITHMETIC:
            return self._arithmetic(node)
        if type(node) in PARTS:
            return self._part(node, PARTS[type(node)], node.this)
        if type(node) in NUMERIC or type(node) in WORDS:
            return self._function(node)
        if type(node) in WORD_TESTS:
            return self._word_test(node)
        raise self._refused(node)

    def _refuse_gaps(self, node: exp.Expression) -> None:
        """Refuse an operator without what it works on, which the parser lets through, such as ``@`` alone."""
        if any(needed and node.args.get(key) is None for key, needed in node.arg_types.items()):
            raise self.fail(node, "Something is missing here.", "Compare with: age > 30 and region = 'north'.")

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
            return self.fail(node, f"There is no function {name!r}.", nearest_hint(name, FUNCTIONS))
        return self.fail(node, f"{node.key.upper()} can't be used in a condition.")

    def _compare(self, node: exp.Expression, op: str, left: exp.Expression, right: exp.Expression) -> Truth:
        a, b = self.any(left), self.any(right)
        return self._compared(node, op, (a, left), (b, right))

    def _compared(
        self, node: exp.Expression, op: str, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]
    ) -> Truth:
        (a, _), (b, _) = left, right
        if is_null(a) or is_null(b):
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
        a, b = as_truth(a, b), as_truth(b, a)
        if isinstance(a, Truth) and isinstance(b, Truth) and op in ("=", "<>"):
            equal = _nodes.Equal(a, b)
            return equal if op == "=" else _nodes.Not(equal)
        if type(first) in COMPARISONS:
            raise self.fail(
                second, "Comparisons can't be chained.", "Write: x between 20 and 30, or: 20 < x and x < 30."
            )
        other = second if isinstance(a, Truth) else first
        raise self.fail(other, "Something true or false can't be compared with this.", "Write `x` or `not x` alone.")

    def _agree(self, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]) -> tuple[Node, Node]:
        """Bring two values to one kind: a text beside a time is read as a time; nothing else is converted."""
        (a, first), (b, second) = left, right
        if a.kind is TIME and isinstance(b, Constant) and b.kind is str:
            b = self._time(second, b.value)
        elif b.kind is TIME and isinstance(a, Constant) and a.kind is str:
            a = self._time(first, a.value)
        for part, node in ((a, first), (b, second)):
            if isinstance(part, _nodes.Months):
                raise self.fail(node, "Months and years have no fixed length.", "Compare with days.")
        if a.kind is not b.kind:
            raise self.fail(
                second, f"{short(first)} is {KINDS[a.kind]}, but {short(second)} is {KINDS[b.kind]}.",
                quotes(a, b, first, second),
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
            if is_null(option):
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
        if is_null(a) or is_null(b):
            same: Truth = _nodes.IsMissing(b if is_null(a) else a)
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
        text = f"{argument} {word} {quoted(pattern)}" + (f" ESCAPE {quoted(escape)}" if escape else "")
        found = _nodes.WordTest(argument, lambda w: _vectors.like(w, pattern, escape, ignore_case=ignore_case), text)
        return _nodes.Not(found) if node.args.get("negate") else found

    def _word_test(self, node: exp.Expression) -> Truth:
        name, test = WORD_TESTS[type(node)]
        argument, part = self._text(node.this), self._written_text(node.expression, "second argument")
        return _nodes.WordTest(
            argument,
            lambda w: np.asarray(test(_vectors.arrow_words(w), part).to_numpy(zero_copy_only=False), dtype=bool),
            f"{name}({argument}, {quoted(part)})",
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
            return Constant(node.this, str, quoted(node.this))
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
        if kind is TIME and isinstance(found, Constant) and found.kind is str:
            return self._time(node, found.value)
        if found.kind is not kind or isinstance(found, Truth):
            raise self.fail(node, f"{KINDS[kind].capitalize()} is wanted here, but this is {KINDS[found.kind]}.")
        return found

    def _written_text(self, node: exp.Expression, what: str) -> str:
        if not isinstance(node, exp.Literal) or not node.is_string:
            raise self.fail(node, f"The {what} must be written in quotes.")
        return str(node.this)

    def _arithmetic(self, node: exp.Expression) -> Node:
        op, (left, right) = ARITHMETIC[type(node)], (node.this, node.expression)
        a, b = self.any(left), self.any(right)
        if SPAN in (a.kind, b.kind) or TIME in (a.kind, b.kind):
            return self._time_arithmetic(node, op, (a, left), (b, right))
        for part, side in ((a, left), (b, right)):
            if part.kind is not float or isinstance(part, Truth):
                raise self.fail(side, f"A number is wanted here, but this is {KINDS[part.kind]}.")
        return _nodes.Arithmetic(op, a, b)

    def _time_arithmetic(
        self, node: exp.Expression, op: str, left: tuple[Node, exp.Expression], right: tuple[Node, exp.Expression]
    ) -> Node:
        if op == "+" and left[0].kind is SPAN:
            left, right = right, left
        (a, first), (b, second) = left, right
        if isinstance(a, Constant) and a.kind is str:
            a = self._time(first, a.value)
        if isinstance(b, Constant) and b.kind is str:
            b = self._time(second, b.value)
        if a.kind is TIME and b.kind is SPAN and op in "+-":
            return _nodes.Arithmetic(op, a, b, TIME)
        if a.kind is TIME and b.kind is TIME and op == "-":
            return _nodes.Arithmetic(op, a, b, SPAN)
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
        return Constant(round(ticks), SPAN, span_text(round(ticks)))

    def _cast(self, node: exp.Expression) -> Node:
        target = node.args["to"].this.name
        if target in ("DOUBLE", "FLOAT"):
            return _nodes.WordCall("number", self._text(node.this), _vectors.numbers_in, float)
        if target not in ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMPNTZ", "DATETIME"):
            hint = "Write DATE '2026-01-31', TIMESTAMP '2026-01-31 12:00', or x::double for a text that is a number."
            raise self.fail(node, "Only times, and texts to numbers, can be converted.", hint)
        value = self._of(node.this, TIME)
        if isinstance(value, Constant):
            return self._time_constant(_calendar.truncate(value.value, "DAY")) if target == "DATE" else value
        return truncated(value, "DAY") if target == "DATE" else value

    def _time(self, node: exp.Expression, text: str) -> Constant:
        try:
            moment = dt.datetime.fromisoformat(iso(text))
        except ValueError:
            raise self.fail(
                node, f"{text!r} is not a time.", "Write it as 2026-01-31 or 2026-01-31 12:00:00."
            ) from None
        if moment.tzinfo is None:  # a time without a zone is UTC, here as everywhere
            moment = moment.replace(tzinfo=dt.timezone.utc)
        return self._time_constant((moment - _EPOCH) // dt.timedelta(microseconds=1))

    def _time_constant(self, ticks: Any) -> Constant:
        moment = _EPOCH + dt.timedelta(microseconds=int(ticks))
        return Constant(int(ticks), TIME, f"CAST('{moment.replace(tzinfo=None).isoformat(' ')}' AS TIMESTAMP)")

    def _part(self, node: exp.Expression, unit: str, argument: exp.Expression) -> Node:
        value = self._of(argument, TIME)
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
        return truncated(self._of(node.this, TIME), unit)

    def _function(self, node: exp.Expression) -> Node:
        if type(node) in NUMERIC:
            name, compute = NUMERIC[type(node)]
            return _nodes.Call(name, self._numeric(node.this), compute)
        name, words, kind = WORDS[type(node)]
        return _nodes.WordCall(name, self._text(node.this), words, kind)

    def _coalesce(self, node: exp.Expression) -> Node:
        first, *rest = [(self.any(n), n) for n in (node.this, *node.expressions)]
        if isinstance(first[0], Truth):
            raise self.fail(first[1], "coalesce takes numbers, texts or times.", "Write: x is true.")
        return _nodes.Coalesce((first[0], *(self._agree(first, other)[1] for other in rest)), first[0].kind)


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
    *_READERS, *COMPARISONS, *ARITHMETIC, *PARTS, *NUMERIC, *WORDS, *WORD_TESTS,
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
