"""What a condition is made of: each node computes itself on the rows of a frame and writes itself as SQL.

SQL has three truth values. A truth node therefore answers two questions, each with one array: where it *holds* and
where it *fails*; elsewhere it is unknown. ``NOT`` swaps them, ``AND`` and ``OR`` combine them, and no third array is
needed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tidemill.data.matching import _calendar, _vectors
from tidemill.data.matching._vectors import US, Frame

Mask: TypeAlias = Any
"""``NDArray[np.bool_]`` over the rows of the frame, or one ``bool`` for all of them."""


@dataclass(frozen=True)
class Cells:
    """Values of some rows: an array, or one value for all of them; times and durations are int64 microseconds."""

    values: Any
    null: Any = None
    words: NDArray[Any] | None = None

    def missing(self) -> Mask:
        """Where there is no value."""
        if self.words is not None:
            return self.values < 0
        gone = False if self.null is None else self.null
        kind = getattr(np.asarray(self.values).dtype, "kind", "")
        return np.isnan(self.values) | gone if kind == "f" else gone


class Node:
    """A part of a condition; ``kind`` is ``float``, ``str``, ``bool``, ``datetime`` or ``timedelta``."""

    kind: type

    def cells(self, frame: Frame) -> Cells:
        """Values on the rows of a frame."""
        raise NotImplementedError


class Truth(Node):
    """A node that is true, false or unknown on each row."""

    kind = bool

    def holds(self, frame: Frame) -> Mask:
        """Where it is true."""
        raise NotImplementedError

    def fails(self, frame: Frame) -> Mask:
        """Where it is false."""
        raise NotImplementedError


# ------------------------------------------------------------------------------------------------------------- values


@dataclass(frozen=True)
class Name(Node):
    """A column."""

    name: str
    kind: type = float

    def cells(self, frame: Frame) -> Cells:
        vector = frame.columns[self.name]
        return Cells(vector.values, vector.null, vector.words)

    def __str__(self) -> str:
        return '"' + self.name.replace('"', '""') + '"'


@dataclass(frozen=True)
class Constant(Node):
    """A value that is written in the condition; ``text`` is how."""

    value: Any
    kind: type
    text: str

    def cells(self, frame: Frame) -> Cells:
        if self.kind is str:
            return Cells(np.zeros((), dtype=np.int32), None, np.array([self.value], dtype=object))
        return Cells(self.value)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Months(Node):
    """A duration in months, which can only be added to a time."""

    months: int
    kind: type = dt.timedelta

    def __str__(self) -> str:
        return f"INTERVAL '{self.months}' MONTH"


@dataclass(frozen=True)
class Arithmetic(Node):
    """``+ - * / %`` of numbers, sums and differences of times; what is divided by zero is missing."""

    op: str
    left: Node
    right: Node
    kind: type = float
    _ops: ClassVar[dict[str, Callable[[Any, Any], Any]]] = {
        "+": np.add,
        "-": np.subtract,
        "*": np.multiply,
        "/": np.true_divide,
        "%": np.fmod,
    }

    def cells(self, frame: Frame) -> Cells:
        if isinstance(self.right, Months):
            left = self.left.cells(frame)
            months = self.right.months if self.op == "+" else -self.right.months
            return Cells(_calendar.add_months(left.values, months), left.null)
        left, right = self.left.cells(frame), self.right.cells(frame)
        null = _either(left.null, right.null)
        if self.kind is not float:
            return Cells(self._ops[self.op](left.values, right.values), null)
        a, b = _real(left.values), _real(right.values)
        values = self._ops[self.op](a, b)
        if self.op in "/%":
            values = np.where(np.equal(b, 0), np.nan, values)
        return Cells(values, null)

    def __str__(self) -> str:
        return f"({self.left} {self.op} {self.right})"


def _real(values: Any) -> Any:
    """Whole numbers as float64, so that they can't run over; written numbers stay as wide as their partner."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return values.astype(np.float64)
    return float(values) if isinstance(values, int) else values


def _either(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return b if a is None else a
    return a | b


@dataclass(frozen=True)
class Call(Node):
    """A function of numbers or times, value by value."""

    name: str
    argument: Node
    compute: Callable[[Any], Any]
    kind: type = float
    form: str = "{name}({argument})"

    def cells(self, frame: Frame) -> Cells:
        cells = self.argument.cells(frame)
        values = _real(cells.values) if self.argument.kind is float else cells.values
        return Cells(self.compute(values), cells.null)

    def __str__(self) -> str:
        return self.form.format(name=self.name, argument=self.argument)


@dataclass(frozen=True)
class WordCall(Node):
    """A function of texts; computed once for each distinct word."""

    name: str
    argument: Node
    compute: Callable[[NDArray[Any]], NDArray[Any]]
    kind: type = str

    def cells(self, frame: Frame) -> Cells:
        cells = self.argument.cells(frame)
        out = _remember(frame, self, "words", lambda: self.compute(_words(cells)))
        if self.kind is str:
            return Cells(cells.values, None, out)
        return Cells(np.append(out.astype(np.float64), np.nan)[cells.values])

    def __str__(self) -> str:
        return f"CAST({self.argument} AS DOUBLE)" if self.name == "number" else f"{self.name}({self.argument})"


def _words(cells: Cells) -> NDArray[Any]:
    if cells.words is None:
        raise AssertionError("a text without words")
    return cells.words


def _remember(frame: Frame, node: Node, what: str, compute: Callable[[], Any]) -> Any:
    # By identity: the nodes of one condition live as long as the frame's memo is used for it.
    key = (id(node), what)
    if key not in frame.memo:
        frame.memo[key] = compute()
    return frame.memo[key]


@dataclass(frozen=True)
class Coalesce(Node):
    """The first value that is there."""

    parts: tuple[Node, ...]
    kind: type = float

    def cells(self, frame: Frame) -> Cells:
        out = self.parts[0].cells(frame)
        for part in self.parts[1:]:
            out = self._fill(frame, part, out, part.cells(frame))
        return out

    def _fill(self, frame: Frame, part: Node, out: Cells, other: Cells) -> Cells:
        gone = out.missing()
        if self.kind is str:
            words = _remember(frame, part, "joined", lambda: np.concatenate([_words(out), _words(other)]))
            shifted = np.where(np.less(other.values, 0), -1, other.values + len(_words(out)))
            return Cells(np.where(gone, shifted, out.values), None, words)
        values, still = np.where(gone, _real(other.values), _real(out.values)), np.logical_and(gone, other.missing())
        return Cells(np.where(still, np.nan, values)) if self.kind is float else Cells(values, still)

    def __str__(self) -> str:
        return f"coalesce({', '.join(map(str, self.parts))})"


# -------------------------------------------------------------------------------------------------------------- truth

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": np.equal,
    "<>": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
MIRROR = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


@dataclass(frozen=True)
class Compare(Truth):
    """``= <> < <= > >=`` of two values of one kind."""

    op: str
    left: Node
    right: Node

    def holds(self, frame: Frame) -> Mask:
        return self._where(frame, self.op)

    def fails(self, frame: Frame) -> Mask:
        return self._where(frame, OPPOSITE[self.op])

    def _where(self, frame: Frame, op: str) -> Mask:
        left, right = self.left.cells(frame), self.right.cells(frame)
        if left.words is not None:
            return self._words_where(frame, op, left, right)
        found = _COMPARE[op](left.values, right.values)
        if op == "<>":  # the one comparison that NaN passes
            return _without(found, left.missing(), right.missing())
        return _without(found, left.null, right.null)

    def _words_where(self, frame: Frame, op: str, left: Cells, right: Cells) -> Mask:
        if isinstance(self.right, Constant):
            value = self.right.value
            flags = _remember(
                frame, self, op, lambda: _vectors.flags_where(_words(left), _COMPARE[op](left.words, value))
            )
            return flags[left.values]
        ranks = _remember(frame, self, "ranks", lambda: _ranks(_words(left), _words(right)))
        found = _COMPARE[op](ranks[0][left.values], ranks[1][right.values])
        return _without(found, left.missing(), right.missing())

    def __str__(self) -> str:
        return f"{self.left} {self.op} {self.right}"


def _ranks(a: NDArray[Any], b: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    _, rank = np.unique(np.concatenate([a, b]), return_inverse=True)
    return np.append(rank[: len(a)], -1), np.append(rank[len(a) :], -1)


def _without(found: Mask, *gone: Any) -> Mask:
    for mask in gone:
        if mask is not None and mask is not False:
            found = found & ~np.asarray(mask)
    return found


@dataclass(frozen=True)
class Among(Truth):
    """``IN`` a list of written values; ``unknown`` where NULL is among them."""

    value: Node
    options: tuple[Constant, ...]
    unknown: bool = False

    def holds(self, frame: Frame) -> Mask:
        cells = self.value.cells(frame)
        return _without(self._within(frame, cells), cells.missing())

    def fails(self, frame: Frame) -> Mask:
        if self.unknown:
            return False
        cells = self.value.cells(frame)
        return _without(~np.asarray(self._within(frame, cells)), cells.missing())

    def _within(self, frame: Frame, cells: Cells) -> Mask:
        options = [o.value for o in self.options]
        if cells.words is not None:
            chosen = set(options)
            flags = _remember(
                frame, self, "flags", lambda: _vectors.flags_where(_words(cells), [w in chosen for w in _words(cells)])
            )
            return flags[cells.values]
        kind = np.asarray(cells.values).dtype
        return np.isin(cells.values, np.asarray(options, dtype=kind if kind.kind == "f" else None))

    def __str__(self) -> str:
        options = [str(o) for o in self.options] + ["NULL"] * self.unknown
        return f"{self.value} IN ({', '.join(options)})"


@dataclass(frozen=True)
class WordTest(Truth):
    """A test of texts (``LIKE``, ``starts_with``…); computed once for each distinct word."""

    argument: Node
    test: Callable[[NDArray[Any]], NDArray[np.bool_]]
    text: str

    def holds(self, frame: Frame) -> Mask:
        cells = self.argument.cells(frame)
        return self._flags(frame, cells)[cells.values]

    def fails(self, frame: Frame) -> Mask:
        cells = self.argument.cells(frame)
        return _without(~self._flags(frame, cells)[cells.values], cells.missing())

    def _flags(self, frame: Frame, cells: Cells) -> NDArray[np.bool_]:
        flags: NDArray[np.bool_] = _remember(
            frame, self, "flags", lambda: _vectors.flags_where(_words(cells), self.test(_words(cells)))
        )
        return flags

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class IsMissing(Truth):
    """``IS NULL``; never unknown."""

    argument: Node

    def holds(self, frame: Frame) -> Mask:
        if isinstance(self.argument, Truth):
            return ~np.asarray(self.argument.holds(frame) | self.argument.fails(frame))
        return self.argument.cells(frame).missing()

    def fails(self, frame: Frame) -> Mask:
        return ~np.asarray(self.holds(frame))

    def __str__(self) -> str:
        return f"({self.argument}) IS NULL" if isinstance(self.argument, Truth) else f"{self.argument} IS NULL"


@dataclass(frozen=True)
class IsTruth(Truth):
    """``IS TRUE`` and ``IS FALSE``; never unknown."""

    argument: Truth
    value: bool

    def holds(self, frame: Frame) -> Mask:
        return self.argument.holds(frame) if self.value else self.argument.fails(frame)

    def fails(self, frame: Frame) -> Mask:
        return ~np.asarray(self.holds(frame))

    def __str__(self) -> str:
        return f"({self.argument}) IS {str(self.value).upper()}"


@dataclass(frozen=True)
class Same(Truth):
    """``IS NOT DISTINCT FROM``: equal, or both missing; never unknown."""

    equal: Truth
    left: Node
    right: Node

    def holds(self, frame: Frame) -> Mask:
        both = IsMissing(self.left).holds(frame) & np.asarray(IsMissing(self.right).holds(frame))
        return self.equal.holds(frame) | both

    def fails(self, frame: Frame) -> Mask:
        return ~np.asarray(self.holds(frame))

    def __str__(self) -> str:
        return f"{self.left} IS NOT DISTINCT FROM {self.right}"


@dataclass(frozen=True)
class Flag(Truth):
    """A column of truth values."""

    name: Name

    def holds(self, frame: Frame) -> Mask:
        cells = self.name.cells(frame)
        return _without(cells.values, cells.null)

    def fails(self, frame: Frame) -> Mask:
        cells = self.name.cells(frame)
        return _without(~cells.values, cells.null)

    def __str__(self) -> str:
        return str(self.name)


@dataclass(frozen=True)
class Written(Truth):
    """``TRUE``, ``FALSE`` or ``NULL`` (None)."""

    value: bool | None

    def holds(self, frame: Frame) -> Mask:
        return self.value is True

    def fails(self, frame: Frame) -> Mask:
        return self.value is False

    def __str__(self) -> str:
        return "NULL" if self.value is None else str(self.value).upper()


@dataclass(frozen=True)
class Not(Truth):
    """``NOT``."""

    argument: Truth

    def holds(self, frame: Frame) -> Mask:
        return self.argument.fails(frame)

    def fails(self, frame: Frame) -> Mask:
        return self.argument.holds(frame)

    def __str__(self) -> str:
        return f"NOT ({self.argument})"


@dataclass(frozen=True)
class Every(Truth):
    """``AND``; parts that can't change the answer of these rows any more are not computed."""

    parts: tuple[Truth, ...]

    def holds(self, frame: Frame) -> Mask:
        out: Mask = True
        for part in self.parts:
            if not np.any(out):
                break
            out = out & np.asarray(part.holds(frame))
        return out

    def fails(self, frame: Frame) -> Mask:
        out: Mask = False
        for part in self.parts:
            if np.all(out):
                break
            out = out | np.asarray(part.fails(frame))
        return out

    def __str__(self) -> str:
        return " AND ".join(f"({p})" if isinstance(p, Some) else str(p) for p in self.parts)


@dataclass(frozen=True)
class Some(Truth):
    """``OR``."""

    parts: tuple[Truth, ...]

    def holds(self, frame: Frame) -> Mask:
        return Every(tuple(Not(p) for p in self.parts)).fails(frame)

    def fails(self, frame: Frame) -> Mask:
        return Every(tuple(Not(p) for p in self.parts)).holds(frame)

    def __str__(self) -> str:
        return " OR ".join(map(str, self.parts))


@dataclass(frozen=True)
class Equal(Truth):
    """``=`` of two truth values."""

    left: Truth
    right: Truth

    def holds(self, frame: Frame) -> Mask:
        both = self.left.holds(frame) & np.asarray(self.right.holds(frame))
        return both | (self.left.fails(frame) & np.asarray(self.right.fails(frame)))

    def fails(self, frame: Frame) -> Mask:
        one = self.left.holds(frame) & np.asarray(self.right.fails(frame))
        return one | (self.left.fails(frame) & np.asarray(self.right.holds(frame)))

    def __str__(self) -> str:
        return f"({self.left}) = ({self.right})"


__all__ = [
    "MIRROR", "OPPOSITE", "US", "Among", "Arithmetic", "Call", "Cells", "Coalesce", "Compare", "Constant", "Equal",
    "Every", "Flag", "IsMissing", "IsTruth", "Months", "Name", "Node", "Not", "Same", "Some", "Truth", "WordCall",
    "WordTest", "Written",
]  # fmt: skip
