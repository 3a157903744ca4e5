"""What a version is, as bytes that hash to its name: which rows of which fragments, and how they came about."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from tidemill.core.errors import DataError, OptionError
from tidemill.core.schema import Schema, SemanticType

FORMAT = "tidemill dataset 2"
BLOB = "blob:"
"""A column whose unit begins so holds names of blobs (images, audio, documents) in the artifact store."""


@dataclass(frozen=True)
class Selection:
    """Some rows of a fragment: a stretch of one stored array of row numbers.

    Parameters
    ----------
    hash : str
        Artifact with the row numbers, ``.npy``; parts of one version share it.
    start, stop : int
        The stretch; its numbers rise.
    """

    hash: str
    start: int
    stop: int


@dataclass(frozen=True)
class Part:
    """Rows of one fragment, in the fragment's order.

    Parameters
    ----------
    fragment : str
        Artifact hash of a Parquet file.
    rows : int
        Rows in the file.
    selection : Selection or None
        Which of them; None is all.
    labels : tuple of (str, str)
        Column and artifact hash of the label overlays that lie over it, oldest first.
    """

    fragment: str
    rows: int
    selection: Selection | None = None
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def count(self) -> int:
        """Rows that belong to the version."""
        return self.rows if self.selection is None else self.selection.stop - self.selection.start

    def to_json(self) -> list[Any]:
        """Plain list for JSON."""
        chosen = None if self.selection is None else [self.selection.hash, self.selection.start, self.selection.stop]
        return [self.fragment, self.rows, chosen, [list(pair) for pair in self.labels]]

    @classmethod
    def from_json(cls, data: list[Any]) -> Part:
        """Rebuild from `to_json`."""
        fragment, rows, chosen, labels = data
        selection = None if chosen is None else Selection(*chosen)
        return cls(fragment, rows, selection, tuple((column, overlay) for column, overlay in labels))


@dataclass(frozen=True)
class Field:
    """A column as it is kept.

    Parameters
    ----------
    name : str
        Its name.
    type : SemanticType
        Its meaning.
    stored : str
        Arrow type of its values: a key of `STORED`.
    blob : str
        ``"blob:…"`` where its values name blobs, else empty.
    """

    name: str
    type: SemanticType
    stored: str
    blob: str = ""


STORED: Mapping[str, pa.DataType] = {
    "double": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp[us, tz=UTC]": pa.timestamp("us", "UTC"),
}
"""The Arrow types that rows are kept in."""


@dataclass(frozen=True)
class Manifest:
    """The content of a version and its lineage.

    Parameters
    ----------
    fields : tuple of Field
        Its columns.
    parts : tuple of Part
        Its rows.
    parents : tuple of str
        Hashes of the versions that it was made from.
    operation : str
        How it was made: ``"ingest"``, ``"merge"``, ``"sample"``…
    parameters : mapping
        Of the operation; plain JSON.
    code : str
        SHA-256 of the code of the operation.

    Examples
    --------
    >>> m = Manifest((Field("x", SemanticType.NUMBER, "double"),), (Part("ab" * 32, 3),))
    >>> Manifest.parse(m.render()) == m, m.rows
    (True, 3)
    """

    fields: tuple[Field, ...]
    parts: tuple[Part, ...]
    parents: tuple[str, ...] = ()
    operation: str = "ingest"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    @property
    def rows(self) -> int:
        """Number of rows, those of forgotten entities included."""
        return sum(part.count for part in self.parts)

    @property
    def hash(self) -> str:
        """SHA-256 of the bytes: the name of the version."""
        return hashlib.sha256(self.render()).hexdigest()

    @property
    def content(self) -> str:
        """SHA-256 of columns and rows alone, however they came about."""
        return hashlib.sha256(_bytes({"parts": self._parts(), "schema": self._schema()})).hexdigest()

    @property
    def schema(self) -> pa.Schema:
        """The columns as an Arrow schema."""
        return pa.schema([(f.name, STORED[f.stored]) for f in self.fields])

    def artifacts(self) -> Iterator[str]:
        """Hashes of all artifacts that the rows stand in, blobs apart."""
        for part in self.parts:
            yield part.fragment
            if part.selection is not None:
                yield part.selection.hash
            yield from (overlay for _, overlay in part.labels)
        review = self.parameters.get("review")
        if isinstance(review, str):
            yield review

    def render(self) -> bytes:
        """Write the one form of these facts: keys sorted, no spaces."""
        return _bytes(
            {
                "code": self.code,
                "format": FORMAT,
                "operation": self.operation,
                "parameters": dict(self.parameters),
                "parents": list(self.parents),
                "parts": self._parts(),
                "schema": self._schema(),
            }
        )

    @classmethod
    def parse(cls, data: bytes | str, *, where: str = "manifest") -> Manifest:
        """Read what `render` wrote.

        Raises
        ------
        DataError
            Where it is no manifest, or of a newer format.
        """
        try:
            found = json.loads(data)
            if found["format"] != FORMAT:
                raise DataError(
                    f"This manifest has the format {found['format']!r}, but {FORMAT!r} is known.",
                    where=where,
                    hint="Use the version of Tidemill that wrote it, or a newer one.",
                )
            return cls(
                tuple(Field(name, SemanticType(kind), stored, blob) for name, kind, stored, blob in found["schema"]),
                tuple(Part.from_json(part) for part in found["parts"]),
                tuple(found["parents"]),
                found["operation"],
                found["parameters"],
                found["code"],
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"This manifest can't be read: {error}.", where=where) from error

    def _parts(self) -> list[Any]:
        return [part.to_json() for part in self.parts]

    def _schema(self) -> list[Any]:
        return [[f.name, f.type.value, f.stored, f.blob] for f in self.fields]


def fields_of(schema: Schema, table: pa.Schema) -> tuple[Field, ...]:
    """Describe the columns of a canonical table."""
    return tuple(
        Field(c.name, c.type, str(table.field(c.name).type), c.unit if (c.unit or "").startswith(BLOB) else "")  # type: ignore[arg-type]
        for c in schema
    )


def plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Bring parameters into plain JSON, so that they hash alike before and after they were stored.

    Raises
    ------
    OptionError
        For values that JSON doesn't know, NaN and infinities among them.
    """
    try:
        return dict(json.loads(json.dumps(dict(parameters), allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise OptionError(f"The parameters of a dataset version must be plain JSON: {error}.") from error


@functools.lru_cache(maxsize=64)
def code_hash(module: str) -> str:
    """SHA-256 of the source of an operation's module; of its name where there is no source file."""
    path = getattr(sys.modules.get(module), "__file__", None)
    source = Path(path).read_bytes() if path and Path(path).is_file() else module.encode()
    return hashlib.sha256(source).hexdigest()


def _bytes(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
