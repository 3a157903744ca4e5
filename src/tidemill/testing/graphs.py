"""Runs a part of a graph on its own, for tests that hold it against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder

Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def compile_matrix(emit: Callable[[GraphBuilder, str], str], n_inputs: int, n_outputs: int) -> Run:
    """Make a function of what ``emit`` writes.

    Parameters
    ----------
    emit : callable
        Writes nodes that turn a float32 (N, n_inputs) value into a float32 (N, n_outputs) one.
    n_inputs, n_outputs : int
        Columns of the two.

    Returns
    -------
    callable
        From matrix to matrix, by onnxruntime on one thread.

    Examples
    --------
    >>> import numpy as np
    >>> double = compile_matrix(lambda graph, x: graph.op("Add", x, x), 1, 1)
    >>> double(np.float32([[3.0]]))
    array([[6.]], dtype=float32)
    """
    graph = GraphBuilder()
    name = graph.input("x", np.float32, ["N", n_inputs])
    graph.output(emit(graph, name), "y", np.float32, ["N", n_outputs])
    run = session(graph)

    def call(x: NDArray[np.float32]) -> NDArray[np.float32]:
        out: NDArray[np.float32] = run.run(None, {"x": x})[0]
        return out

    return call


def session(graph: GraphBuilder) -> Any:
    """Load a graph into onnxruntime, on one thread and without a word."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(graph.model().SerializeToString(), options, providers=["CPUExecutionProvider"])
