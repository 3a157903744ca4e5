"""What a recogniser must be able to do beside other models to travel in a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.decode import read_groups
from tidemill.bundle.lines.encoder import Lines
from tidemill.bundle.parts import TIE_MARGIN, Recipe
from tidemill.core.errors import InternalError
from tidemill.core.frames import joined

_BATCH = 32
"""Lines of one width that are read at a time."""


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


@dataclass(frozen=True)
class Chorus:
    """Several nets that read together, as one `LinePart`: see `tidemill.core.frames`.

    Parameters
    ----------
    parts : sequence of LinePart
        At least one; all write the same characters.
    weights : sequence of float
        One for each; they sum to 1.
    """

    parts: Sequence[LinePart]
    weights: Sequence[float]

    def __post_init__(self) -> None:
        if len({part.alphabet for part in self.parts}) != 1:
            raise InternalError("Nets that read together must write the same characters.")

    @property
    def alphabet(self) -> str:
        """The characters of all of them."""
        return self.parts[0].alphabet

    def predict(self, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
        """Read lines by the library that trained."""
        return read(self, x, margin)

    def frames(self, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Logarithms of probabilities (n, steps, K + 1) for lines of one width."""
        return joined([part.frames(lines) for part in self.parts], self.weights)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write all nets into ``graph``, and what joins them."""
        total = ""
        for part, weight in zip(self.parts, self.weights, strict=True):
            said = graph.op("Mul", part.emit(graph, x), graph.const(np.float32(weight)))
            total = graph.op("Add", total, said) if total else said
        return graph.op("LogSoftmax", total, axis=2)


def heard(part: LinePart, x: Lines) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Ask a net about lines, those of one width together.

    Yields
    ------
    tuple
        Numbers of lines, and logarithms of probabilities (lines, steps, K + 1).
    """
    widths = np.array([line.shape[1] for line in x], dtype=np.int64)
    for width in np.unique(widths):
        same = np.flatnonzero(widths == width)
        for start in range(0, len(same), _BATCH):
            places = same[start : start + _BATCH]
            yield places, part.frames([x[i] for i in places])


def read(part: LinePart, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
    """Read lines by the best path: scores as `tidemill.core.transcripts` has them."""
    return read_groups(heard(part, x), len(x), part.alphabet, margin)


def the_parts(recipe: Recipe) -> list[LinePart]:
    """All nets of a recipe in their order."""
    return [part for member in recipe.members for part in member.parts]  # type: ignore[misc]  # it knows parts of any kind


def the_part(recipe: Recipe) -> LinePart:
    """What the graph of a recipe reads by: its net, or all of them as one.

    Where texts are searched for behind the graph, several nets are joined there; the graph alone reads by the first.
    """
    parts = the_parts(recipe)
    if len(parts) == 1 or recipe.decode:
        return parts[0]
    weights = [member.weight / len(member.parts) for member in recipe.members for _ in member.parts]
    return Chorus(parts, [weight / sum(weights) for weight in weights])
