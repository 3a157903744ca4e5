"""Columns and their semantic types, and the physical form in which each type reaches a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError, NotFoundError

Columns = dict[str, NDArray[Any]]
"""Physical columns by name, each of shape ``(rows,)``: what the exported graph takes as its inputs.

``float64`` with NaN for missing: number, integer, boolean (1/0) and datetime (seconds since
1970-01-01 UTC). ``object`` holding ``str``, the empty string for missing: category and text. Images are ``object``
holding ``uint8`` arrays of shape (height, width, 3), or one array of shape (rows, height, width, 3).
"""


TOKENS = "tokens"
"""Unit of a text column that reaches the graph as numbers, by readers that travel with the bundle."""
EMBEDDED = "embedded"
"""Unit of a column of texts or images beside other columns, which an encoder inside of the graph turns into numbers."""


class SemanticType(str, Enum):
    """What a column means, whatever its storage type."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    CATEGORY = "category"
    DATETIME = "datetime"
    TEXT = "text"
    IMAGE = "image"
    IDENTIFIER = "identifier"
    CONSTANT = "constant"
    TARGET = "target"
    GROUP = "group"
    TIME = "time"
    IGNORED = "ignored"

    @property
    def is_feature(self) -> bool:
        """True where a model may see the column."""
        return self in _FEATURES

    @property
    def is_string(self) -> bool:
        """True where the physical form is a string, False where it is a float64."""
        return self in (SemanticType.CATEGORY, SemanticType.TEXT)


_FEATURES = frozenset(
    {
        SemanticType.NUMBER,
        SemanticType.INTEGER,
        SemanticType.BOOLEAN,
        SemanticType.CATEGORY,
        SemanticType.DATETIME,
        SemanticType.TEXT,
        SemanticType.IMAGE,
    }
)

_EMBEDDABLE = (SemanticType.TEXT, SemanticType.IMAGE)


@dataclass(frozen=True)
class Column:
    """One column: its name, its meaning, and what was seen in it.

    Parameters
    ----------
    name : str
        Name as in the data.
    type : SemanticType
        What it means.
    unit : str or None
        Unit of measure, when known.
    reason : str or None
        Why the type was chosen, in plain words; shown in the report for dropped columns.
    missing : float
        Share of missing values seen, 0..1.
    distinct : int or None
        Number of distinct values seen.
    low, high : float or None
        Range seen, for numeric and datetime columns.
    """

    name: str
    type: SemanticType
    unit: str | None = None
    reason: str | None = None
    missing: float = 0.0
    distinct: int | None = None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "name": self.name,
            "type": self.type.value,
            "unit": self.unit,
            "reason": self.reason,
            "missing": self.missing,
            "distinct": self.distinct,
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Column:
        """Rebuild from `to_json`."""
        return cls(**{**data, "type": SemanticType(data["type"])})


@dataclass(frozen=True)
class Schema:
    """The columns of a dataset, in file order.

    Examples
    --------
    >>> s = Schema((Column("age", SemanticType.NUMBER), Column("y", SemanticType.TARGET)))
    >>> [c.name for c in s.features]
    ['age']
    """

    columns: tuple[Column, ...]
    _index: dict[str, int] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        for i, c in enumerate(self.columns):
            if c.name in self._index:
                raise DataError(f"There are two columns {c.name!r}.", hint="Give each column a name of its own.")
            self._index[c.name] = i

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __getitem__(self, name: str) -> Column:
        try:
            return self.columns[self._index[name]]
        except KeyError:
            raise NotFoundError.of("column", name, self.names) from None

    @property
    def names(self) -> tuple[str, ...]:
        """All column names in file order."""
        return tuple(c.name for c in self.columns)

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that a model may see, in file order: the inputs of the exported graph."""
        return tuple(c for c in self.columns if c.type.is_feature)

    @property
    def has_images(self) -> bool:
        """True where a model sees images, and nothing else."""
        return any(c.type is SemanticType.IMAGE and c.unit != EMBEDDED for c in self.columns)

    @property
    def has_texts(self) -> bool:
        """True where a model sees texts through a reader, and nothing else."""
        return any(c.type is SemanticType.TEXT and c.unit == TOKENS for c in self.columns)

    @property
    def embedded(self) -> tuple[Column, ...]:
        """Columns of texts and images that stand beside others, each behind an encoder inside of the graph."""
        return tuple(c for c in self.columns if c.type in _EMBEDDABLE and c.unit == EMBEDDED)

    def with_types(self, types: dict[str, SemanticType], *, reason: str = "given") -> Schema:
        """Return a copy in which some columns have another meaning.

        Raises
        ------
        NotFoundError
            For a name that is not a column; the nearest name is offered.
        """
        for name in types:
            _ = self[name]
        return Schema(
            tuple(replace(c, type=types[c.name], reason=reason) if c.name in types else c for c in self.columns)
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Plain list for JSON."""
        return [c.to_json() for c in self.columns]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> Schema:
        """Rebuild from `to_json`."""
        return cls(tuple(Column.from_json(c) for c in data))


def take_rows(columns: Columns, rows: NDArray[Any]) -> Columns:
    """Return the given rows (indices or mask) of every column."""
    return {name: np.asarray(values[rows]) for name, values in columns.items()}
