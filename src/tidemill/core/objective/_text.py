"""Reads the text form of an objective.

::

    objective  = part { ";" part }
    part       = aim | bound | "auto"
    aim        = [ "maximize" | "minimize" ] subject
    bound      = subject ( "<=" | ">=" ) number
    subject    = name [ "[" selector "]" ] | "cost" [ "(" matrix ")" ]
    selector   = word | word "=" word | word "," word "=" word
    word       = bare text without []=,;()'" (but <=, >= and != are fine) | text in double quotes, as in JSON
    matrix     = path | path in double quotes | [[…],…] | [labels], [[…],…]
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from tidemill.core.budget import parse_size_bytes
from tidemill.core.errors import InputError, ObjectiveError, OptionError, nearest_hint
from tidemill.core.metrics import get_metric, metric_names
from tidemill.core.objective._cost_matrix import CostMatrix
from tidemill.core.objective._types import AUTO, COSTS, Constraint, Direction, Objective, Operator, Selector

_T = TypeVar("_T")
_NAME = re.compile(r"[A-Za-z_]\w*(?:@[\w.\-]*)?")
_BARE = re.compile(r"(?:[<>!]=|[^\[\]=,\"';()])*")
_NUMBER = re.compile(r"[^\s;]+")
_OPERATOR = re.compile(r"[<>=!≤≥:]+")
_OPERATORS: dict[str, Operator] = {"<=": "<=", ">=": ">=", "≤": "<=", "≥": ">="}
_DIRECTIONS: dict[str, Direction] = {
    "maximize": "maximize",
    "minimize": "minimize",
    "maximise": "maximize",
    "minimise": "minimize",
}


def parse_objective(text: str, base_dir: str | Path | None = None, *, files: bool = True) -> Objective:
    """Read an objective as people write it.

    Parameters
    ----------
    text : str
        Parts with ``;`` between them, in any order: an aim (``maximize roc_auc``; a bare ``roc_auc`` means the same),
        bounds (``params <= 2e5``, ``size_bytes <= 10MB``, ``recall[fraud] >= 0.9``, ``recall[region=north] >= 0.8``),
        a cost matrix (``cost(matrix.csv)``, ``cost([[0,5],[1,0]])``). A cost matrix alone is the aim; beside another
        aim it sets how labels are decided. Without any aim, ``auto``: the task's default metric.
    base_dir : path, optional
        Folder that paths of cost matrices start from; default the current one.
    files : bool
        False refuses cost matrices that are files, for words of somebody who must not name any.

    Returns
    -------
    Objective
        ``str`` of it parses to an equal one, without any file.

    Raises
    ------
    ObjectiveError
        With the position of what is wrong.
    OptionError
        Where a cost matrix is wrong in itself.

    Examples
    --------
    >>> parse_objective("minimize rmse; latency_ms <= 3").constraints
    (Constraint(subject='latency_ms', op='<=', bound=3.0, selector=None),)
    >>> parse_objective("maximize roc_acu")
    Traceback (most recent call last):
    tidemill.core.errors.ObjectiveError: There is no metric 'roc_acu'. Did you mean 'roc_auc'?
      maximize roc_acu
               ^
    """
    return _Parser(text, Path(base_dir) if base_dir is not None else Path(), files).objective()


class _Parser:
    """One pass over the text, from left to right; ``at`` is the next character."""

    def __init__(self, text: str, base_dir: Path, files: bool) -> None:
        self.text, self.base_dir, self.files, self.at = text, base_dir, files, 0
        self.aim: tuple[str, Direction, Selector | None] | None = None
        self.constraints: list[Constraint] = []
        self.matrix: CostMatrix | None = None

    def objective(self) -> Objective:
        if not self.text.strip("; \t\r\n"):
            self.fail("The objective is empty.", 0, "Write for example: maximize roc_auc; params <= 2e5.")
        while self.skip_spaces():
            if self.text[self.at] == ";":
                self.at += 1
                continue
            self.part()
            if self.skip_spaces() and self.text[self.at] != ";":
                self.fail("Expected ';' or the end here.", self.at, "Parts are separated by ';'.")
        nothing: tuple[str, Direction, Selector | None] = (AUTO if self.matrix is None else "cost", AUTO, None)
        metric, direction, selector = self.aim or nothing
        return self.marked(0, lambda: Objective(metric, direction, selector, tuple(self.constraints), self.matrix))

    def part(self) -> None:
        start = self.at
        name = self.name()
        direction: Direction = AUTO
        if name.lower() in _DIRECTIONS:
            direction = _DIRECTIONS[name.lower()]
            if not self.skip_spaces() or self.text[self.at] == ";":
                self.fail(f"{name!r} must be followed by a metric.", self.at, f"For example: {name} roc_auc.")
            start = self.at
            name = self.name()
        if name == AUTO:
            self.set_aim(AUTO, direction, None, start)
            return
        if name not in COSTS:
            self.check_metric(name, start)
        had_matrix = self.matrix_here(name)
        selector = self.selector() if self.peek("[") else None
        operator_at = self.skip_spaces() and self.at
        match = _OPERATOR.match(self.text, self.at)
        if match is None:
            self.without_bound(name, direction, selector, start, bare_matrix=had_matrix and direction == AUTO)
            return
        if direction != AUTO:
            self.fail("An aim has no bound.", int(operator_at), "Write the bound as a part of its own.")
        self.at = match.end()
        op = _OPERATORS.get(match[0])
        if op is None:
            self.fail(f"{match[0]!r} is not an operator here.", match.start(), "Write <= or >=.")
        bound = self.bound(name)
        constraint = self.marked(start, lambda: Constraint(name, op, bound, selector))
        if any((c.subject, c.selector) == (name, selector) for c in self.constraints):
            self.fail(f"{name}{selector or ''} is bounded twice.", start, "Keep the stricter one.")
        self.constraints.append(constraint)

    def without_bound(
        self, name: str, direction: Direction, selector: Selector | None, start: int, *, bare_matrix: bool
    ) -> None:
        if name in COSTS:
            if direction != AUTO:
                self.fail(f"{name!r} can be bounded, but not be the aim.", start, f"Write for example {name} <= 10.")
            self.fail(f"{name!r} needs a bound.", self.at, f"Write for example {name} <= 10.")
        if bare_matrix:  # decides what the aim is at the end: another part may be it
            return
        self.set_aim(name, direction, selector, start)

    def set_aim(self, name: str, direction: Direction, selector: Selector | None, start: int) -> None:
        if self.aim is not None:
            self.fail(f"There are two aims, {self.aim[0]!r} and {name!r}.", start, "Give one of them a bound.")
        if name != "cost":  # whose matrix may stand further on
            self.marked(start, lambda: Objective(name, direction, selector))
        elif selector is not None:
            self.fail("'cost' can't be asked of one class.", start)
        elif direction == "maximize":
            self.fail("'cost' is better when smaller.", start, "Write minimize cost(matrix.csv).")
        self.aim = (name, direction, selector)

    def check_metric(self, name: str, start: int) -> None:
        if name.startswith("pinball@") or name in metric_names():
            self.marked(start, lambda: get_metric(name))
            return
        known = (*metric_names(), *COSTS)
        self.fail(f"There is no metric {name!r}.", start, nearest_hint(name, known))

    def name(self) -> str:
        match = _NAME.match(self.text, self.at)
        if match is None:
            self.fail("Expected a metric or a cost here.", self.at, "For example: maximize roc_auc; params <= 2e5.")
        self.at = match.end()
        return match[0]

    def selector(self) -> Selector:
        open_at = self.at
        self.at += 1
        first = self.word()
        label: str | None = first
        column: str | None = None
        value: str | None = None
        if self.peek(","):
            self.at += 1
            column = self.word()
            self.expect("=", "After the comma stands a slice, for example [fraud,region=north].")
            value = self.word()
        elif self.peek("="):
            self.at += 1
            label, column, value = None, first, self.word()
        if not self.peek("]"):
            if self.at >= len(self.text):
                self.fail("The '[' is never closed.", open_at)
            self.fail(
                f"{self.text[self.at]!r} can't stand here.", self.at, 'Put names with such signs in quotes: ["a=b"].'
            )
        self.at += 1
        return Selector(label, column, value)

    def word(self) -> str:
        self.skip_spaces()
        if self.peek('"'):
            return str(self.json_value("a text in double quotes", str))
        match = _BARE.match(self.text, self.at)
        word = match[0].strip() if match else ""
        if not word:
            self.fail("Expected a class or a column here.", self.at, "Write for example [fraud] or [region=north].")
        self.at = match.end() if match else self.at
        return word

    def bound(self, subject: str) -> float:
        self.skip_spaces()
        match = _NUMBER.match(self.text, self.at)
        if match is None:
            self.fail("The bound is missing.", self.at, f"Write for example {subject} <= 10.")
        try:
            value = float(match[0])
        except ValueError:
            if subject != "size_bytes":
                self.fail(f"{match[0]!r} is not a number.", self.at)
            value = float(self.marked(self.at, lambda: parse_size_bytes(match[0])))
        if not math.isfinite(value):
            self.fail("A bound must be finite.", self.at)
        self.at = match.end()
        return value

    def matrix_here(self, name: str) -> bool:
        """Read the matrix behind ``cost``, where one stands."""
        if not self.peek("("):
            return False
        open_at = self.at
        if name != "cost":
            self.fail(f"{name!r} takes no parentheses.", open_at, "Only cost(…) does.")
        self.at += 1
        self.skip_spaces()
        matrix = self.inline_matrix() if self.peek("[") else self.matrix_file(open_at)
        self.expect(")", "A cost matrix ends with ')'.")
        if self.matrix is not None and self.matrix != matrix:
            self.fail("There are two different cost matrices.", open_at)
        self.matrix = matrix
        return True

    def inline_matrix(self) -> CostMatrix:
        start = self.at
        first = self.json_value("a list", list)
        labels: list[Any] | None = None
        if first and all(isinstance(v, str) for v in first):
            labels = first
            self.expect(",", 'After the labels stands the matrix: cost(["no","yes"],[[0,5],[1,0]]).')
            self.skip_spaces()
            first = self.json_value("a list of lists", list)
        if not all(isinstance(row, list) and all(_is_number(v) for v in row) for row in first):
            self.fail("A cost matrix is a list of lists of numbers.", start, "Write for example [[0,5],[1,0]].")
        rows = tuple(tuple(float(v) + 0.0 for v in row) for row in first)
        return self.marked(start, lambda: CostMatrix(rows, None if labels is None else tuple(labels)))

    def matrix_file(self, open_at: int) -> CostMatrix:
        if not self.files:
            self.fail("A file can't be named here.", self.at, "Write the matrix itself: cost([[0,5],[1,0]]).")
        if self.peek('"'):
            path = str(self.json_value("a path in double quotes", str))
        else:
            end = self.text.find(")", self.at)
            if end < 0:
                self.fail("The '(' is never closed.", open_at)
            path, start = self.text[self.at : end].strip(), self.at
            if not path:
                self.fail("Expected a file or a matrix here.", start, "Write cost(matrix.csv) or cost([[0,5],[1,0]]).")
            self.at = end
        return CostMatrix.read(self.base_dir / path)

    def json_value(self, what: str, kind: type) -> Any:
        try:
            value, end = json.JSONDecoder().raw_decode(self.text, self.at)
        except json.JSONDecodeError as error:
            self.fail(f"Expected {what} here.", min(error.pos, len(self.text)))
        except RecursionError:
            self.fail("This is nested too deeply.", self.at)
        if not isinstance(value, kind):
            self.fail(f"Expected {what} here.", self.at)
        self.at = end
        return value

    def skip_spaces(self) -> bool:
        """Go to the next character that is no space; False at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at < len(self.text)

    def peek(self, sign: str) -> bool:
        return self.skip_spaces() and self.text[self.at] == sign

    def expect(self, sign: str, hint: str) -> None:
        if not self.peek(sign):
            self.fail(f"Expected {sign!r} here.", self.at, hint)
        self.at += 1

    def marked(self, position: int, make: Callable[[], _T]) -> _T:
        """Run ``make``; an error that it raises is marked with the position in the text."""
        try:
            return make()
        except OptionError as error:
            if error.where is not None:  # it has a place of its own: a file and a line
                raise
            self.fail(error.message, position, error.hint, error)
        except InputError as error:
            self.fail(error.message, position, error.hint, error)

    def fail(self, message: str, position: int, hint: str | None = None, cause: Exception | None = None) -> NoReturn:
        raise ObjectiveError(message, text=self.text, position=position, hint=hint) from cause


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
