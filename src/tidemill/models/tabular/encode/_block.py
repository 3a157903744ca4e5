"""What one kind of column contributes to the encoded matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.schema import Columns
from tidemill.models.tabular._base import Feature, Matrix


class Block(Protocol):
    """Encodes all columns of one kind together, so that a table of 5,000 columns stays a small graph."""

    @property
    def features(self) -> tuple[Feature, ...]:
        """One for each column that `transform` gives."""

    def transform(self, columns: Columns) -> Matrix:
        """Encode rows with numpy."""

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the same into ``graph``; ``inputs`` gives the (N, 1) value of each raw column."""

    def checkpoint(self) -> dict[str, Any]:
        """Plain values that rebuild the block."""
