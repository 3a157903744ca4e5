"""From an image of any size to the pixels that a model sees, written once: training runs the graph that is shipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import session
from tidemill.bundle.runner.stacks import stacks
from tidemill.core.errors import OptionError
from tidemill.core.schema import Columns

IMAGE = "image"
"""The column, and the graph's input."""
GREY = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness (ITU-R BT.601)."""


@dataclass(frozen=True)
class ImageEncoder:
    """Resizes to one size, with smoothing where it gets smaller, to whole numbers 0 to 255; grey where that is enough.

    There is no second implementation that could differ: `transform` runs what `emit` writes with onnxruntime. An image
    that has the size already keeps its pixels exactly.

    Parameters
    ----------
    height, width : int
        Size that models see, in pixels.
    channels : int
        3 for colour, 1 for grey.

    Examples
    --------
    >>> ImageEncoder(2, 2, 1).transform({"image": np.full((1, 4, 4, 3), 7, np.uint8)}).tolist()
    [[[[7.0, 7.0], [7.0, 7.0]]]]
    """

    height: int
    width: int
    channels: int = 3

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.channels not in (1, 3):
            raise OptionError(
                f"Images are resized to at least one pixel of 1 or 3 channels, but got {self.height} × {self.width} of "
                f"{self.channels}."
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image as models see it: (channels, height, width)."""
        return self.channels, self.height, self.width

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Write the encoder; from uint8 (N, H, W, 3) to float32 (N, channels, height, width) of whole numbers."""
        x = graph.cast(graph.op("Transpose", inputs[IMAGE], perm=[0, 3, 1, 2]), np.float32)
        if self.channels == 1:
            shares = graph.const(np.array(GREY, dtype=np.float32).reshape(1, 3, 1, 1))
            x = graph.op("ReduceSum", graph.op("Mul", x, shares), graph.const([1], np.int64), keepdims=1)
        size = graph.const([self.height, self.width], np.int64)
        x = graph.op(
            "Resize", x, "", "", size,
            axes=[2, 3], mode="linear", antialias=1, coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
        low, high = graph.const(np.float32(0)), graph.const(np.float32(255))
        return graph.op("Clip", graph.op("Round", x), low, high)

    def transform(self, columns: Columns) -> NDArray[np.float32]:
        """Encode ``columns["image"]``: one array (n, height, width, 3), or n arrays (height, width, 3) of any size."""
        images = columns[IMAGE]
        out = np.empty((len(images), *self.shape), dtype=np.float32)
        for places, stack in stacks(images):
            out[places] = self.encode(stack)
        return out

    def encode(self, stack: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode images of one size, shape (n, height, width, 3)."""
        run = _session(self)
        found: NDArray[np.float32] = run.run(None, {IMAGE: np.ascontiguousarray(stack, dtype=np.uint8)})[0]
        return found

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values."""
        return asdict(self)

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> ImageEncoder:
        """Undo `checkpoint`."""
        return cls(int(state["height"]), int(state["width"]), int(state["channels"]))


@lru_cache(maxsize=8)
def _session(encoder: ImageEncoder) -> Any:
    graph = GraphBuilder()
    image = graph.input(IMAGE, np.uint8, ["N", "H", "W", 3])
    graph.output(encoder.emit(graph, {IMAGE: image}), "pixels", np.float32, ["N", *encoder.shape])
    return session(graph.model().SerializeToString())
