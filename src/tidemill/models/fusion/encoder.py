"""The encoder of a table with embedded columns: what the others give, and beside it the numbers of the embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.fusion.embedding import Embedding, cost_of
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.runner.fusion.rows import row_batches
from tidemill.core.errors import DataError
from tidemill.core.schema import EMBEDDED, Columns, Schema, SemanticType
from tidemill.core.trial import Cost
from tidemill.models.tabular._base import Feature, FeatureKind, Matrix
from tidemill.models.tabular.encode import Encoder

_REMEMBERED = 100_000
"""Texts whose numbers are kept in memory: a report asks for the same ones again and again."""


@dataclass(frozen=True)
class FusedEncoder:
    """Turns physical columns into the float32 matrix that every model starts from; an `EncoderPart`.

    Parameters
    ----------
    embeddings : tuple of Embedding
        One for each embedded column.
    inner : Encoder or None
        Of all other columns; None where there are none.
    """

    embeddings: tuple[Embedding, ...]
    inner: Encoder | None
    _known: dict[str, dict[str, NDArray[np.float32]]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    @classmethod
    def fit(cls, columns: Columns, schema: Schema, embeddings: tuple[Embedding, ...]) -> FusedEncoder:
        """Learn the encoder of the columns that are not embedded.

        Parameters
        ----------
        columns : Columns
            Training rows.
        schema : Schema
            All columns.
        embeddings : tuple of Embedding
            Those that are embedded.

        Raises
        ------
        DataError
            If there is nothing to learn from.
        """
        hidden = {each.column for each in embeddings}
        rest = Schema(tuple(c for c in schema if c.name not in hidden))
        if not rest.features and not embeddings:
            raise DataError("No column is left that a model could learn from.")
        return cls(embeddings, Encoder.fit(columns, rest) if rest.features else None)

    @property
    def features(self) -> tuple[Feature, ...]:
        """What the columns of the matrix are."""
        inner = () if self.inner is None else self.inner.features
        numbers = (Feature(name, e.column, FeatureKind.NUMBER) for e in self.embeddings for name in e.names)
        return (*inner, *numbers)

    @property
    def cost(self) -> Cost:
        """What the embedded columns add to every model."""
        return cost_of(self.embeddings)

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows; shape (n, n_features).

        An embedded column holds its cells, or the numbers that were made of them: float32 of shape (n, numbers).
        """
        parts: list[Matrix] = [] if self.inner is None else [self.inner.transform(columns)]
        parts += [self._numbers(each, columns[each.column]) for each in self.embeddings]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the encoder into a graph, from tokens or pixels where a column is embedded."""
        parts = [] if self.inner is None else [self.inner.emit(graph, inputs)]
        return graph.concat(*parts, *(each.emit(graph, inputs[each.column]) for each in self.embeddings))

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that `restore` understands."""
        inner = None if self.inner is None else self.inner.checkpoint()
        return {"inner": inner, "embeddings": [each.checkpoint() for each in self.embeddings]}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> FusedEncoder:
        """Undo `checkpoint`."""
        inner = None if state["inner"] is None else Encoder.restore(state["inner"])
        return cls(tuple(map(Embedding.restore, state["embeddings"])), inner)

    def remember(self, column: str, cells: NDArray[Any], numbers: Matrix) -> None:
        """Take in what is known of cells of a column, so that nobody needs to ask its encoder about them.

        Cells are texts, or names of images, which stand for them from then on.
        """
        self._known.setdefault(column, {}).update(zip(cells.tolist(), numbers, strict=True))

    def marked(self, schema: Schema) -> Schema:
        """The schema in which embedded columns say so."""
        kinds = {each.column: each.kind for each in self.embeddings}
        return Schema(tuple(replace(c, type=kinds[c.name], unit=EMBEDDED) if c.name in kinds else c for c in schema))

    def _numbers(self, embedding: Embedding, cells: NDArray[Any]) -> Matrix:
        if cells.ndim == 2 and cells.dtype == np.float32:
            return cells
        known = self._known.setdefault(embedding.column, {})
        if embedding.kind is SemanticType.IMAGE and not all(isinstance(cell, str) and cell in known for cell in cells):
            return embed_cells(embedding, cells)
        fresh = np.array(list(dict.fromkeys(text for text in cells if text not in known)), dtype=object)
        if len(fresh):
            if len(known) + len(fresh) > _REMEMBERED:
                known.clear()
                fresh = np.array(list(dict.fromkeys(cells)), dtype=object)
            known.update(zip(fresh.tolist(), embed_cells(embedding, fresh), strict=True))
        out = np.empty((len(cells), len(embedding.names)), dtype=np.float32)
        for place, text in enumerate(cells):
            out[place] = known[text]
        return out


def embed_cells(embedding: Embedding, cells: NDArray[Any]) -> Matrix:
    """Numbers of cells by the graph: float32 (n, numbers)."""
    out = np.empty((len(cells), len(embedding.names)), dtype=np.float32)
    described = [{"column": embedding.column, "unit": "embedded", "type": embedding.kind.value}]
    for places in row_batches(described, {embedding.column: cells}):
        out[places] = embedding.whole.run(None, embedding.feed(cells[places]))[0]
    return out
