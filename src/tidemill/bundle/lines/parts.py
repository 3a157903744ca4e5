"""What a recogniser must be able to do beside other models to travel in a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.encoder import Lines
from tidemill.bundle.parts import TIE_MARGIN, Recipe
from tidemill.core.errors import InternalError


class LinePart(Protocol):
    """A net that says of every step along a line which character stands there, or none."""

    @property
    def alphabet(self) -> str:
        """Its characters; the first output is for none, the others are these."""

    def predict(self, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
        """Read lines by the library that trained: scores as `tidemill.core.transcripts` has them.

        ``margin`` as in `tidemill.bundle.lines.decode.greedy`. Called from several threads at once.
        """

    def frames(self, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Logarithms of probabilities (n, steps, K + 1) for lines of one width, by the library that trained."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the net into ``graph``: from (N, 1, height, width) to logarithms of probabilities (N, steps, K + 1)."""


def the_part(recipe: Recipe) -> LinePart:
    """The one net of a recipe: transcripts of several can't be averaged."""
    parts = [part for member in recipe.members for part in member.parts]
    if len(parts) != 1:
        raise InternalError(f"A bundle for lines holds one net, but the recipe has {len(parts)}.")
    part: LinePart = parts[0]  # type: ignore[assignment]  # a recipe knows its parts as models of any kind
    return part
