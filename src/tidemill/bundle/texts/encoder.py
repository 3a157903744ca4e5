"""The encoder of texts: it hands them on, for each model reads them in its own way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.schema import Columns


@dataclass(frozen=True)
class TextEncoder:
    """Picks the column with the texts.

    Parameters
    ----------
    column : str
        Its name.

    Examples
    --------
    >>> TextEncoder("review").transform({"review": np.array(["good"], dtype=object)}).tolist()
    ['good']
    """

    column: str

    def transform(self, columns: Columns) -> NDArray[Any]:
        """Texts of shape (n,), objects."""
        return np.asarray(columns[self.column], dtype=object)

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write nothing: the graph begins behind the readers (`tidemill.bundle.texts.assemble`)."""
        return ""

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> TextEncoder:
        """Undo `checkpoint`."""
        return cls(str(state["column"]))
