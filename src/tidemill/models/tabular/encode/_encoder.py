"""The encoder: every raw column to numbers, blind to the target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import DataError
from tidemill.core.schema import Columns, Schema, SemanticType
from tidemill.models.tabular._base import Feature, Matrix
from tidemill.models.tabular.encode._block import Block
from tidemill.models.tabular.encode._calendar import CalendarBlock
from tidemill.models.tabular.encode._categories import CategoryBlock
from tidemill.models.tabular.encode._numbers import NumberBlock
from tidemill.models.tabular.encode._texts import TextBlock

_NUMBERS = (SemanticType.NUMBER, SemanticType.INTEGER, SemanticType.BOOLEAN)
_MAX_CELLS = 50_000_000
"""Numbers that the word counts of all texts together may fill (200 MB)."""
_MIN_TOKENS = 16


@dataclass(frozen=True)
class Encoder:
    """Turns physical columns into the float32 matrix that every model starts from.

    Fitted once per dataset version, on training rows, without a look at the target; so one encoder serves all
    trials of a study, and its part of the shipped graph is shared by all members of an ensemble.

    Examples
    --------
    >>> import numpy as np
    >>> from tidemill.core.schema import Column, Schema, SemanticType
    >>> schema = Schema((Column("age", SemanticType.NUMBER), Column("city", SemanticType.CATEGORY)))
    >>> columns = {"age": np.array([31.0, np.inf]), "city": np.array(["Ulm", ""], dtype=object)}
    >>> encoder = Encoder.fit(columns, schema)
    >>> encoder.transform(columns)
    array([[31.,  0.],
           [nan, nan]], dtype=float32)
    >>> encoder.transform({"age": np.array([5.0]), "city": np.array(["Rom"], dtype=object)})
    array([[ 5., -1.]], dtype=float32)
    """

    blocks: tuple[Block, ...]

    @classmethod
    def fit(cls, columns: Columns, schema: Schema, *, max_tokens: int = 300) -> Encoder:
        """Learn vocabularies, the calendar's origin and the frequent words.

        Parameters
        ----------
        columns : dict
            Physical training columns; those that are not features are ignored.
        schema : Schema
            What each column means.
        max_tokens : int
            Words and word pairs kept per text column; fewer where the matrix would grow too large.

        Raises
        ------
        DataError
            If the schema has no feature.
        """
        features = schema.features
        if not features:
            raise DataError(
                "No column is left that a model could learn from.", hint="Look at the reasons in the data checks."
            )

        def named(*types: SemanticType) -> tuple[str, ...]:
            return tuple(c.name for c in features if c.type in types)

        blocks: list[Block] = []
        if numbers := named(*_NUMBERS):
            blocks.append(NumberBlock.fit(numbers, columns))
        if categories := named(SemanticType.CATEGORY):
            blocks.append(CategoryBlock.fit(categories, columns))
        if datetimes := named(SemanticType.DATETIME):
            blocks.append(CalendarBlock.fit(datetimes, columns))
        texts = named(SemanticType.TEXT)
        if texts:
            affordable = _MAX_CELLS // (max(len(columns[texts[0]]), 1) * len(texts))
            tokens = max(_MIN_TOKENS, min(max_tokens, affordable))
            blocks += [TextBlock.fit(name, columns, tokens) for name in texts]
        return cls(tuple(blocks))

    @property
    def features(self) -> tuple[Feature, ...]:
        """What the columns of the matrix are."""
        return tuple(f for block in self.blocks for f in block.features)

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows; shape (n, n_features)."""
        parts = [block.transform(columns) for block in self.blocks]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the encoder into a graph.

        Parameters
        ----------
        graph : GraphBuilder
            Where the nodes go.
        inputs : mapping
            For each raw feature the name of its (N, 1) value: double, or string for categories and texts.

        Returns
        -------
        str
            Name of the float32 (N, n_features) value; equal to `transform` bit by bit.
        """
        return graph.concat(*(block.emit(graph, inputs) for block in self.blocks))

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that `restore` understands."""
        return {"blocks": [{"kind": type(b).__name__, **b.checkpoint()} for b in self.blocks]}

    @classmethod
    def restore(cls, state: dict[str, Any]) -> Encoder:
        """Undo `checkpoint`."""
        return cls(tuple(_KINDS[s["kind"]].restore(s) for s in state["blocks"]))


_KINDS: dict[str, Any] = {k.__name__: k for k in (NumberBlock, CategoryBlock, CalendarBlock, TextBlock)}
