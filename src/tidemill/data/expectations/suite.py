"""What is expected of the next version of a dataset, as plain types and as YAML that a person edits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidemill.core.errors import DataError, nearest_hint

Severity = Literal["info", "warning", "error"]
SEVERITIES = ("error", "warning", "info")
KINDS = ("number", "text", "truth", "time")
_COLUMN_KEYS = ("type", "missing_at_most", "low", "high", "values", "unseen_at_most", "unique", "refers_to", "severity")
_TOP_KEYS = ("dataset", "rows_at_least", "fresh", "columns", "other_columns")


@dataclass(frozen=True)
class ColumnExpectation:
    """What is expected of one column; what is None is not looked at.

    Parameters
    ----------
    type : str
        ``"number"``, ``"text"``, ``"truth"`` or ``"time"``.
    missing_at_most : float
        Share of missing values, 0..1.
    low, high : float, optional
        Smallest and largest number (seconds since 1970 for times).
    values : tuple of str, optional
        The only texts.
    unseen_at_most : float
        Share of rows that may have another text or lie outside of the range.
    unique : bool
        Whether no value stands twice.
    refers_to : str, optional
        ``dataset.column`` in which every value must stand (a foreign key).
    severity : str
        Of what is broken: ``"error"`` blocks the version.
    """

    type: str
    missing_at_most: float = 1.0
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] | None = None
    unseen_at_most: float = 0.0
    unique: bool = False
    refers_to: str | None = None
    severity: Severity = "warning"


@dataclass(frozen=True)
class Freshness:
    """The newest time in a column is at most so old, in seconds, when the version is checked."""

    column: str
    within_s: float
    severity: Severity = "warning"


@dataclass(frozen=True)
class Suite:
    """All that is expected.

    Parameters
    ----------
    dataset : str
        Name of the dataset.
    columns : mapping
        Expectation by column.
    rows_at_least : int
        Number of rows.
    fresh : Freshness, optional
        How old the newest row may be.
    other_columns : str
        Severity of columns that are not named here; ``"allow"`` takes them.
    """

    dataset: str
    columns: Mapping[str, ColumnExpectation]
    rows_at_least: int = 1
    fresh: Freshness | None = None
    other_columns: str = "info"
    lines: Mapping[str, int] = field(default_factory=dict, compare=False, repr=False)

    def to_yaml(self) -> str:
        """Write it for a person; defaults are left out, but for the severity."""
        import yaml

        tree: dict[str, Any] = {"dataset": self.dataset, "rows_at_least": self.rows_at_least}
        tree["other_columns"] = self.other_columns
        if self.fresh is not None:
            tree["fresh"] = {
                "column": self.fresh.column, "within_s": self.fresh.within_s, "severity": self.fresh.severity,
            }  # fmt: skip
        tree["columns"] = {name: _column_tree(c) for name, c in self.columns.items()}
        # Letters of any script stand as they are; PyYAML loses line separators unless they are escaped.
        words = [v for c in self.columns.values() for v in (*(c.values or ()), c.refers_to or "")]
        plain = "".join([self.dataset, *self.columns, *words, self.fresh.column if self.fresh else ""])
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=plain.isprintable(), width=110)

    @classmethod
    def from_yaml(cls, text: str, *, where: str = "expectations") -> Suite:
        r"""Read what a person wrote.

        Raises
        ------
        DataError
            What is wrong, with its line.

        Examples
        --------
        >>> suite = Suite.from_yaml("dataset: people\ncolumns:\n  age: {type: number, low: 0, severity: error}\n")
        >>> suite.columns["age"].low, Suite.from_yaml(suite.to_yaml()) == suite
        (0.0, True)
        """
        tree, lines = _load(text, where)
        return _Reader(lines, where).suite(tree)


def _column_tree(column: ColumnExpectation) -> dict[str, Any]:
    plain = ColumnExpectation(column.type)
    out: dict[str, Any] = {"type": column.type}
    for key in _COLUMN_KEYS[1:-1]:
        value = getattr(column, key)
        if value != getattr(plain, key):
            out[key] = list(value) if isinstance(value, tuple) else value
    return out | {"severity": column.severity}


def _load(text: str, where: str) -> tuple[Any, dict[tuple[Any, ...], int]]:
    """Plain values, and the line of each by its path."""
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        loader = yaml.SafeLoader(text)
        try:
            tree = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}" if mark is not None else "somewhere"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise DataError(f"The YAML can't be read in {line}: {problem}.", where=where) from None
    except RecursionError:
        raise DataError("The YAML is nested too deeply.", where=where) from None
    lines: dict[tuple[Any, ...], int] = {}
    stack: list[tuple[tuple[Any, ...], Any]] = [((), node)]
    while stack:
        path, at = stack.pop()
        if at is None:
            continue
        lines.setdefault(path, at.start_mark.line + 1)
        if isinstance(at, yaml.MappingNode) and len(path) < 4:
            for key, value in at.value:
                stack.append(((*path, key.value), value))
                lines[(*path, key.value)] = key.start_mark.line + 1  # a person looks for the name
    return tree, lines


class _Reader:
    def __init__(self, lines: Mapping[tuple[Any, ...], int], where: str) -> None:
        self.lines = lines
        self.where = where

    def error(self, path: tuple[Any, ...], message: str, hint: str | None = None) -> DataError:
        while path and path not in self.lines:
            path = path[:-1]
        return DataError(message, where=f"{self.where}, line {self.lines.get(path, 1)}", hint=hint)

    def suite(self, tree: Any) -> Suite:
        top = self.mapping(tree, ())
        self.known(top, (), _TOP_KEYS)
        if not isinstance(top.get("dataset"), str):
            raise self.error(("dataset",), "The name of the dataset is missing.", "Begin with: dataset: NAME.")
        columns = self.mapping(top.get("columns") or {}, ("columns",))
        other = top.get("other_columns", "info")
        if other not in (*SEVERITIES, "allow"):
            raise self.error(("other_columns",), f"other_columns is one of info, warning, error, allow; not {other!r}.")
        fresh = top.get("fresh")
        return Suite(
            dataset=top["dataset"],
            columns={str(name): self.column(c, ("columns", name)) for name, c in columns.items()},
            rows_at_least=int(self.number(top.get("rows_at_least", 1), ("rows_at_least",), 0)),
            fresh=None if fresh is None else self.freshness(self.mapping(fresh, ("fresh",))),
            other_columns=other,
            lines={str(name): self.lines.get(("columns", name), 1) for name in columns},
        )

    def freshness(self, tree: Mapping[str, Any]) -> Freshness:
        self.known(tree, ("fresh",), ("column", "within_s", "severity"))
        if not isinstance(tree.get("column"), str):
            raise self.error(("fresh",), "Freshness needs the name of a time column.", "Write: column: NAME.")
        within = self.number(tree.get("within_s"), ("fresh", "within_s"), 0)
        return Freshness(tree["column"], within, self.severity(tree, ("fresh",)))

    def column(self, tree: Any, path: tuple[Any, ...]) -> ColumnExpectation:
        found = self.mapping(tree, path)
        self.known(found, path, _COLUMN_KEYS)
        if found.get("type") not in KINDS:
            raise self.error((*path, "type"), f"A type is one of {', '.join(KINDS)}; not {found.get('type')!r}.")
        low, high = (self.optional(found, path, key) for key in ("low", "high"))
        if low is not None and high is not None and not low <= high:
            raise self.error(path, f"`low <= high` must hold, but got (low={low:g}, high={high:g}).")
        values = found.get("values")
        if values is not None and not (
            isinstance(values, list) and all(isinstance(v, (str, int, float)) for v in values)
        ):
            raise self.error((*path, "values"), "`values` is a list of texts.", "Write: values: [north, south].")
        unique = found.get("unique", False)
        if not isinstance(unique, bool):
            raise self.error((*path, "unique"), f"`unique` is true or false; not {unique!r}.")
        refers = found.get("refers_to")
        if refers is not None and (not isinstance(refers, str) or "." not in refers):
            raise self.error((*path, "refers_to"), f"`refers_to` is dataset.column; not {refers!r}.")
        return ColumnExpectation(
            found["type"],
            self.share(found, path, "missing_at_most", 1.0),
            low,
            high,
            None if values is None else tuple(str(v) for v in values),
            self.share(found, path, "unseen_at_most", 0.0),
            unique,
            refers,
            self.severity(found, path),
        )

    def mapping(self, tree: Any, path: tuple[Any, ...]) -> dict[Any, Any]:
        if not isinstance(tree, dict):
            raise self.error(path, f"Names with values are wanted here, but got {tree!r}.", "Write: name: value.")
        return tree

    def known(self, tree: Mapping[Any, Any], path: tuple[Any, ...], keys: tuple[str, ...]) -> None:
        for key in tree:
            if key not in keys:
                raise self.error((*path, key), f"There is no expectation {key!r}.", nearest_hint(str(key), keys))

    def severity(self, tree: Mapping[str, Any], path: tuple[Any, ...]) -> Severity:
        found = tree.get("severity", "warning")
        if found not in SEVERITIES:
            raise self.error((*path, "severity"), f"A severity is info, warning or error; not {found!r}.")
        severity: Severity = found
        return severity

    def number(self, value: Any, path: tuple[Any, ...], least: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
            raise self.error(path, f"A number of at least {least:g} is wanted, but got {value!r}.")
        return float(value)

    def optional(self, tree: Mapping[str, Any], path: tuple[Any, ...], key: str) -> float | None:
        return None if tree.get(key) is None else self.number(tree[key], (*path, key), float("-inf"))

    def share(self, tree: Mapping[str, Any], path: tuple[Any, ...], key: str, default: float) -> float:
        found = self.number(tree.get(key, default), (*path, key), 0.0)
        if found > 1:
            raise self.error((*path, key), f"`{key}` is a share between 0 and 1, but got {found:g}.")
        return found
