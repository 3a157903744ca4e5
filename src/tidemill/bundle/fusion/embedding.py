"""An embedded column: texts or images that a trained encoder, which stays as it is, turns into numbers.

There is one implementation, the graph: training runs with onnxruntime what is shipped (`tidemill.bundle.images.encoder`
does the same), so that nothing behind it can see other numbers than it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.bundle.latency import session
from tidemill.bundle.runner.fusion.rows import placed_rows
from tidemill.bundle.splice import splice
from tidemill.bundle.texts.readers import Reader
from tidemill.core.errors import InternalError
from tidemill.core.schema import EMBEDDED, SemanticType
from tidemill.core.trial import FREE, Cost

INPUT = "cells"
"""What the one input of an encoder's graph is called, and that of `Embedding.session`."""


_GRAPH_BYTES = 1_000
"""About so many bytes of the graph stand around the encoder of a column."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """How one column becomes numbers.

    A cell that holds nothing (an empty text, an image that is missing or black all over) gives zeros, whatever the
    encoder would say of it.

    Parameters
    ----------
    column : str
        Whose cells.
    encoder : str
        Name of the encoder, for people.
    model : bytes
        Graph of the encoder: from tokens (N, L), or from the pixels of ``pixels``, to features (N, width).
    width : int
        Number of features.
    reader : Reader or None
        What reads texts; None for images.
    pixels : ImageEncoder or None
        What resizes images; None for texts.
    mean, axes : ndarray or None
        Middle (width,) and directions (width, kept) of a projection on fewer numbers; None keeps all features.
    flagged : bool
        Whether a further number says that a cell holds nothing.
    params : int or None
        Numbers that the encoder has learned; None where nobody counted them.
    work : tuple of float
        Operations of the encoder for one cell, as coefficients of a polynomial in the tokens of the cell, the constant
        first; empty where nobody counted them.
    tokens : int
        Tokens of a usual cell; 0 for images.
    row_ms : float or None
        Milliseconds of the encoder for a usual cell, alone on one thread; None where nobody measured them.
    """

    column: str
    encoder: str
    model: bytes
    width: int
    reader: Reader | None = None
    pixels: ImageEncoder | None = None
    mean: NDArray[np.float32] | None = None
    axes: NDArray[np.float32] | None = None
    flagged: bool = False
    params: int | None = None
    work: tuple[float, ...] = ()
    tokens: int = 0
    row_ms: float | None = None

    def __post_init__(self) -> None:
        if (self.reader is None) == (self.pixels is None) or (self.mean is None) != (self.axes is None):
            raise InternalError("An embedding reads texts or images, and projects wholly or not at all.")

    @property
    def kind(self) -> SemanticType:
        """What its cells are."""
        return SemanticType.TEXT if self.reader is not None else SemanticType.IMAGE

    @property
    def kept(self) -> int:
        """Numbers that are left of the features."""
        return self.width if self.axes is None else int(self.axes.shape[1])

    @property
    def names(self) -> tuple[str, ...]:
        """What its numbers are called, for people."""
        numbers = tuple(f"{self.column}: embedding {i + 1}" for i in range(self.kept))
        return (*numbers, f"{self.column}: is missing") if self.flagged else numbers

    @cached_property
    def key(self) -> str:
        """Names what gives the features, by content: the encoder's graph, and how cells reach it."""
        how = self.reader.key if self.reader is not None else repr(self.pixels)
        return sha256(sha256(self.model).digest() + how.encode()).hexdigest()[:32]

    @property
    def flops(self) -> int | None:
        """Operations for a usual cell, of encoder and projection; None where nobody counted them."""
        if not self.work:
            return None
        own = sum(each * float(self.tokens) ** power for power, each in enumerate(self.work))
        return round(own) + (0 if self.axes is None else 2 * self.axes.size)

    def in_words(self) -> str:
        """One sentence for people."""
        less = f", reduced to {self.kept}" if self.axes is not None else ""
        return f"Column {self.column!r} is read by the encoder {self.encoder!r}: {self.width} numbers{less}."

    # ------------------------------------------------------------------------------------------------ as a graph

    def emit(self, graph: GraphBuilder, cells: str) -> str:
        """Write it into a graph, from tokens or pixels of any size to float32 (N, len(names))."""
        there = self._there(graph, cells)
        x = self.emit_features(graph, cells)
        if self.mean is not None and self.axes is not None:
            x = graph.op("MatMul", graph.op("Sub", x, graph.const(self.mean)), graph.const(self.axes))
        x = graph.op("Where", there, x, graph.const(np.float32(0)))
        return graph.concat(x, graph.cast(graph.op("Not", there), np.float32)) if self.flagged else x

    def emit_features(self, graph: GraphBuilder, cells: str) -> str:
        """Write the encoder alone: float32 (N, width)."""
        inlet = cells if self.pixels is None else self.pixels.emit(graph, {IMAGE: cells})
        return splice(graph, self._model, {INPUT: inlet})[0]

    def _there(self, graph: GraphBuilder, cells: str) -> str:
        """Say of each cell whether it holds anything, bool (N, 1)."""
        if self.reader is None:
            brightest = graph.op("ReduceMax", cells, graph.const([1, 2, 3], np.int64), keepdims=0)
            count = graph.op("Unsqueeze", graph.cast(brightest, np.int64), graph.const([1], np.int64))
            return graph.op("Greater", count, graph.const(0, np.int64))
        known = graph.cast(graph.op("GreaterOrEqual", cells, graph.const(0, np.int64)), np.int64)
        count = graph.op("ReduceSum", known, graph.const([1], np.int64), keepdims=1)
        return graph.op("Greater", count, graph.const(self._bare, np.int64))

    @cached_property
    def _bare(self) -> int:
        """Tokens of an empty text: those that stand around every text."""
        assert self.reader is not None
        (tokens,) = self.reader.read([""]).values()
        return int(tokens.shape[1]) if tokens.shape[1] > 1 else 0

    @cached_property
    def _model(self) -> onnx.ModelProto:
        return onnx.load_model_from_string(self.model)

    def _session(self, *, whole: bool) -> Any:
        graph = GraphBuilder()
        if self.reader is not None:
            cells = graph.input(INPUT, np.int64, ["N", "L"])
        else:
            cells = graph.input(INPUT, np.uint8, ["N", "H", "W", 3])
        out = self.emit(graph, cells) if whole else self.emit_features(graph, cells)
        width = len(self.names) if whole else self.width
        graph.output(out, EMBEDDED, np.float32, ["N", width])
        return session(graph.model().SerializeToString())

    # --------------------------------------------------------------------------------------------- as a function

    @cached_property
    def whole(self) -> Any:
        """Session from cells, as `feed` gives them, to the numbers."""
        return self._session(whole=True)

    @cached_property
    def bare(self) -> Any:
        """Session from cells to all features of the encoder."""
        return self._session(whole=False)

    def feed(self, cells: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Input of the sessions for some cells: texts, or images of one size and None."""
        return {INPUT: self.input_of(cells)}

    def input_of(self, cells: NDArray[Any]) -> NDArray[Any]:
        """Tokens, or a stack of pixels."""
        if self.reader is not None:
            (tokens,) = self.reader.read([str(cell) for cell in cells]).values()
            return np.asarray(tokens)
        return np.asarray(placed_rows(cells.tolist()))

    def project(self, features: NDArray[np.float32], empty: NDArray[np.bool_]) -> NDArray[np.float32]:
        """From features of cells to the numbers, up to the last bits what the graph gives."""
        x = features if self.mean is None or self.axes is None else (features - self.mean) @ self.axes
        out = np.where(empty[:, None], 0.0, x).astype(np.float32)
        return np.concatenate([out, empty[:, None].astype(np.float32)], axis=1) if self.flagged else out

    # ---------------------------------------------------------------------------------------------------- to keep

    def checkpoint(self) -> dict[str, Any]:
        """State as plain values and arrays."""
        return {
            "column": self.column, "encoder": self.encoder, "model": self.model, "width": self.width,
            "reader": None if self.reader is None else {"data": self.reader.data, "length": self.reader.length},
            "pixels": None if self.pixels is None else self.pixels.checkpoint(),
            "mean": self.mean, "axes": self.axes, "flagged": self.flagged, "params": self.params,
            "work": list(self.work), "tokens": self.tokens, "row_ms": self.row_ms,
        }  # fmt: skip

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Embedding:
        """Undo `checkpoint`."""
        reader, pixels = state["reader"], state["pixels"]
        return cls(
            str(state["column"]), str(state["encoder"]), bytes(state["model"]), int(state["width"]),
            None if reader is None else Reader("tokens", bytes(reader["data"]), int(reader["length"])),
            None if pixels is None else ImageEncoder.restore(pixels),
            None if state["mean"] is None else np.asarray(state["mean"], dtype=np.float32),
            None if state["axes"] is None else np.asarray(state["axes"], dtype=np.float32),
            bool(state["flagged"]), state.get("params"), tuple(state.get("work", ())), int(state.get("tokens", 0)),
            state.get("row_ms"),
        )  # fmt: skip


def cost_of(embeddings: Sequence[Embedding]) -> Cost:
    """What embedded columns add to a graph; unknown where nobody counted it.

    An encoder that reads several columns works for each of them, but the graph keeps it once.

    Examples
    --------
    >>> cost_of([])
    Cost(params=0, flops=0, size_bytes=0, latency_ms=0.0, batch_us=0.0)
    """
    known = {sha256(each.model).digest(): each for each in embeddings}
    out = FREE
    for each in known.values():
        out += Cost(each.params, 0, len(each.model), 0.0, 0.0)
    for each in embeddings:
        numbers = 0 if each.mean is None or each.axes is None else each.mean.size + each.axes.size
        out += Cost(numbers, each.flops, 4 * numbers + _GRAPH_BYTES, each.row_ms, None)
    return out
