"""How long one row takes, measured where it matters: on the exported graph with onnxruntime."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import measure_latency_ms


class Emitting(Protocol):
    """What can write itself into a graph."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the part of the graph from ``x`` to the raw scores."""


def measure(model: Emitting, x: NDArray[np.float32], n_outputs: int) -> tuple[float, int]:
    """Export a model and time it on one row.

    Returns
    -------
    tuple of float and int
        Median milliseconds of a warm row on one thread, and bytes of the graph.
    """
    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", int(x.shape[1])])
    graph.output(model.emit(graph, inlet), "scores", np.float32, ["N", n_outputs])
    data = graph.model().SerializeToString()
    row = {"x": np.ascontiguousarray(x[:1], dtype=np.float32)}
    return measure_latency_ms(data, row, seconds=0.02), len(data)
