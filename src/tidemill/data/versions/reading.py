"""From a manifest to rows: fragments, the labels over them, the rows chosen, without those that are forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.core.errors import DataError, NotFoundError
from tidemill.core.protocols import ArtifactStore
from tidemill.data.versions.erased import Erased
from tidemill.data.versions.fragments import read_fragment, scan_fragment, side_by_side
from tidemill.data.versions.labels import get_overlay, lay_over
from tidemill.data.versions.manifest import Manifest, Part
from tidemill.data.versions.selections import Rows, get_rows, put_selections
from tidemill.store.workspace import Workspace


@dataclass(frozen=True)
class Piece:
    """The rows of one part, found.

    Parameters
    ----------
    part : Part
        As in the manifest; its selection is no longer asked.
    chosen : ndarray of int64 or None
        Row numbers in the fragment, rising; None is every row.
    """

    part: Part
    chosen: Rows | None

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.part.rows if self.chosen is None else len(self.chosen)

    @property
    def rows(self) -> Rows:
        """Row numbers in the fragment."""
        return np.arange(self.part.rows, dtype=np.int64) if self.chosen is None else self.chosen

    def take(self, places: Rows) -> Piece:
        """Keep the rows at some places of this piece."""
        if len(places) == self.count:
            return self
        return replace(self, chosen=places.copy() if self.chosen is None else self.chosen[places])


class Layout:
    """Where the rows of a version stand; row ``i`` of the version is found by counting through the pieces.

    Parameters
    ----------
    store : ArtifactStore
        Holds the files.
    manifest : Manifest
        The version.
    pieces : sequence of Piece
        Its rows.
    erased : Erased
        What was forgotten; the pieces are without it.
    """

    def __init__(self, store: ArtifactStore, manifest: Manifest, pieces: Sequence[Piece], erased: Erased) -> None:
        self.store = store
        self.manifest = manifest
        self.pieces = tuple(pieces)
        self.erased = erased
        self.starts = np.concatenate([[0], np.cumsum([p.count for p in self.pieces])]).astype(np.int64)

    @classmethod
    def of(cls, workspace: Workspace, manifest: Manifest, erased: Erased | None = None) -> Layout:
        """Find the rows of a manifest."""
        store = workspace.artifacts
        erased = Erased.of(workspace) if erased is None else erased
        kept: dict[str, Rows] = {}
        pieces = []
        for part in manifest.parts:
            chosen = None
            if part.selection is not None:
                if part.selection.hash not in kept:
                    kept[part.selection.hash] = get_rows(store, part.selection.hash)
                chosen = kept[part.selection.hash][part.selection.start : part.selection.stop]
            if len(erased.gone(part.fragment)):
                every = np.arange(part.rows, dtype=np.int64) if chosen is None else chosen
                chosen = erased.keep(part.fragment, every)
            pieces.append(Piece(part, chosen))
        return cls(store, manifest, pieces, erased)

    @property
    def rows(self) -> int:
        """Number of rows, without the forgotten ones."""
        return int(self.starts[-1])

    def select(self, rows: Rows) -> list[Piece]:
        """Pieces of some rows of the version, given by rising numbers."""
        cuts = np.searchsorted(rows, self.starts)
        pieces = []
        for i, piece in enumerate(self.pieces):
            places = rows[cuts[i] : cuts[i + 1]] - self.starts[i]
            if len(places):
                pieces.append(piece.take(places))
        return pieces

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read all rows, or some columns of them."""
        schema = self._schema(columns)
        tables = side_by_side(lambda piece: self.read(piece, schema), self.pieces)
        return pa.concat_tables(tables) if tables else schema.empty_table()

    def batches(self, columns: Sequence[str] | None = None, *, most: int = 1 << 16) -> Iterator[pa.RecordBatch]:
        """Read row group by row group, so that memory stays bounded whatever the size of the version."""
        schema = self._schema(columns)
        for piece in self.pieces:
            for table in self._groups(piece, schema):
                yield from table.combine_chunks().to_batches(max_chunksize=most)

    def read(self, piece: Piece, schema: pa.Schema) -> pa.Table:
        """Read one piece as columns of the given schema."""
        fragment = piece.part.fragment
        file, whole = self.erased.file(fragment)
        table = read_fragment(self.store, file, schema.names)
        table = self._shape(table, piece.part, schema, 0)
        if piece.chosen is None and not len(self.erased.gone(fragment)):
            return table
        places = self.erased.places(fragment, piece.rows)
        if not whole and len(places) == table.num_rows:
            return table
        return table.take(pa.array(places))

    def _groups(self, piece: Piece, schema: pa.Schema) -> Iterator[pa.Table]:
        fragment = piece.part.fragment
        places = self.erased.places(fragment, piece.rows)
        start = 0
        for group in scan_fragment(self.store, self.erased.file(fragment)[0], schema.names):
            stop = start + group.num_rows
            low, high = np.searchsorted(places, [start, stop])
            if high > low:
                shaped = self._shape(group, piece.part, schema, start)
                inside = places[low:high] - start
                yield shaped if len(inside) == group.num_rows else shaped.take(pa.array(inside))
            start = stop

    def _shape(self, table: pa.Table, part: Part, schema: pa.Schema, start: int) -> pa.Table:
        """Bring rows of a file, from place ``start`` on, into the version's columns, and lay the labels over."""
        rows = table.num_rows
        columns = {f.name: _as(table, f, part.fragment, rows) for f in schema}
        for name, key in part.labels:
            if name not in columns:
                continue
            overlay = get_overlay(self.store, key, self.erased)
            alive = ~np.isin(overlay.rows, self.erased.gone(part.fragment))
            places = self.erased.places(part.fragment, overlay.rows[alive]) - start
            values = overlay.values.filter(pa.array(alive))
            inside = (places >= 0) & (places < rows)
            columns[name] = lay_over(columns[name], places[inside], values.filter(pa.array(inside)))
        return pa.Table.from_arrays(list(columns.values()), schema=schema) if columns else table.select([])

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        schema = self.manifest.schema
        if columns is None:
            return schema
        for name in columns:
            if name not in schema.names:
                raise NotFoundError.of("column", name, schema.names)
        return pa.schema([schema.field(name) for name in columns])


def parts_of(store: ArtifactStore, pieces: Iterable[Piece | Part]) -> tuple[Part, ...]:
    """Name pieces in a manifest; all row numbers go into one artifact, parts stay as they are."""
    pieces = [p for p in pieces if p.count]
    selections = iter(put_selections(store, [p.rows for p in pieces if _is_some(p)]))
    return tuple(
        p if isinstance(p, Part) else replace(p.part, selection=next(selections) if _is_some(p) else None)
        for p in pieces
    )


def _is_some(piece: Piece | Part) -> TypeGuard[Piece]:
    return isinstance(piece, Piece) and piece.count < piece.part.rows


def _as(table: pa.Table, field: pa.Field, fragment: str, rows: int) -> pa.ChunkedArray:
    """One column in the version's type; null in every row where the fragment lacks it."""
    if field.name not in table.column_names:
        return pa.chunked_array([pa.nulls(rows, field.type)])
    column = table[field.name]
    if column.type == field.type:
        return column
    try:
        return pc.cast(column, field.type)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"The column {field.name!r} of the fragment {fragment[:12]}… holds {column.type} that is no {field.type}: "
            f"{str(error).splitlines()[0]}."
        ) from error
