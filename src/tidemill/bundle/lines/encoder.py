"""From an image of a line to the pixels that a recogniser sees, written once: training runs what is shipped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import GREY, IMAGE
from tidemill.bundle.latency import session
from tidemill.bundle.runner.stacks import stacks
from tidemill.core.errors import OptionError
from tidemill.core.schema import Columns

STEP = 16
"""Widths are filled up to a multiple of this, so that few of them differ and lines can be read side by side."""
Lines = NDArray[Any]
"""Shape (n,), objects that are uint8 arrays of shape (height, width): widths differ, the height doesn't."""


@dataclass(frozen=True)
class LineEncoder:
    """Resizes a line to one height, its width in proportion; grey, whole numbers 0 to 255.

    What is missing to a multiple of `STEP` repeats the right edge. A line that would become wider than ``most_width``
    is squeezed into it.

    Parameters
    ----------
    height : int
        In pixels.
    most_width : int
        In pixels, a multiple of `STEP`.

    Examples
    --------
    >>> encoder = LineEncoder(4, 64)
    >>> [line.shape for line in encoder.transform({"image": [np.full((8, 40, 3), 7, np.uint8)]})]
    [(4, 32)]
    """

    height: int
    most_width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.most_width < STEP or self.most_width % STEP:
            raise OptionError(
                f"Lines are resized to at least one pixel of height and a multiple of {STEP} of width, but got "
                f"{self.height} × {self.most_width}."
            )

    def width(self, height: int, width: int) -> int:
        """Width of a line as models see it, from the size of its image.

        Examples
        --------
        >>> LineEncoder(32, 512).width(60, 175), LineEncoder(32, 512).width(1, 1), LineEncoder(32, 512).width(9, 9000)
        (96, 32, 512)
        """
        own = min(max((2 * width * self.height + height) // (2 * height), 1), self.most_width)
        return -(-own // STEP) * STEP

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the encoder; from uint8 (N, H, W, 3) to float32 (N, 1, height, width) of whole numbers."""
        x = graph.cast(graph.op("Transpose", inputs[IMAGE], perm=[0, 3, 1, 2]), np.float32)
        x = graph.op("ReduceSum", graph.op("Mul", x, graph.const(_SHARES)), graph.const([1], np.int64), keepdims=1)
        own = self._own_width(graph, x)
        sizes = graph.concat(graph.const([self.height], np.int64), own, axis=0)
        x = graph.op(
            "Resize", x, "", "", sizes,
            axes=[2, 3], mode="linear", antialias=1, coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
        low, high = graph.const(np.float32(0)), graph.const(np.float32(255))
        x = graph.op("Clip", graph.op("Round", x), low, high)
        step = graph.const([STEP], np.int64)
        filled = graph.op("Div", graph.op("Add", own, graph.const([STEP - 1], np.int64)), step)
        missing = graph.op("Sub", graph.op("Mul", filled, step), own)
        none = graph.const([0, 0, 0, 0, 0, 0, 0], np.int64)
        return graph.op("Pad", x, graph.concat(none, missing, axis=0), mode="edge")

    def _own_width(self, graph: GraphBuilder, x: str) -> str:
        """Width in proportion, rounded half up, as `width` has it."""
        height, width = (graph.op("Shape", x, start=a, end=a + 1) for a in (2, 3))
        two = graph.const([2], np.int64)
        above = graph.op("Add", graph.op("Mul", width, graph.const([2 * self.height], np.int64)), height)
        own = graph.op("Div", above, graph.op("Mul", height, two))
        own = graph.op("Max", own, graph.const([1], np.int64))
        return graph.op("Min", own, graph.const([self.most_width], np.int64))

    def transform(self, columns: Mapping[str, Sequence[Any]] | Columns) -> Lines:
        """Encode ``columns["image"]``: one array (n, height, width, 3), or n arrays (height, width, 3) of any size."""
        images = columns[IMAGE]
        out = np.empty(len(images), dtype=object)
        for places, stack in stacks(images):
            for place, line in zip(places, self.encode(stack), strict=True):
                out[place] = line
        return out

    def encode(self, stack: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Encode images of one size, shape (n, height, width, 3); gives (n, height, width)."""
        run = _session(self)
        found: NDArray[np.float32] = run.run(None, {IMAGE: np.ascontiguousarray(stack, dtype=np.uint8)})[0]
        return found[:, 0].astype(np.uint8)

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> LineEncoder:
        """Undo `checkpoint`."""
        return cls(int(state["height"]), int(state["most_width"]))


_SHARES = np.array(GREY, dtype=np.float32).reshape(1, 3, 1, 1)


@lru_cache(maxsize=8)
def _session(encoder: LineEncoder) -> Any:
    graph = GraphBuilder()
    image = graph.input(IMAGE, np.uint8, ["N", "H", "W", 3])
    graph.output(encoder.emit(graph, {IMAGE: image}), "pixels", np.float32, ["N", 1, encoder.height, "V"])
    return session(graph.model().SerializeToString())
