"""How long an answer takes, measured where it matters: on the exported graph with onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.latency import measure_latency_ms, session

BATCH = 1_024
"""Rows of the batch that is timed."""


class Emitting(Protocol):
    """What can write itself into a graph."""

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Write the part of the graph from ``x`` to the raw scores."""

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answer in the training library itself."""


@dataclass(frozen=True)
class Speed:
    """How one model ran on this machine, on one thread.

    Parameters
    ----------
    row_ms : float
        Milliseconds of a single warm row with onnxruntime.
    batch_us : float
        Microseconds of one row among many with onnxruntime.
    model_us : float
        Microseconds of one row among many in the training library.
    build_s : float
        Seconds to write the graph and to load it.
    size_bytes : int
        Bytes of the graph.
    """

    row_ms: float
    batch_us: float
    model_us: float
    build_s: float
    size_bytes: int

    def times(self, models: float, work: float = 1.0) -> Speed:
        """Speed of so many models, each of which does so many times the work of the measured one.

        Half of a single row's time is overhead that doesn't grow with the model; among many rows it is next to nothing.

        Examples
        --------
        >>> Speed(1.0, 10.0, 20.0, 0.1, 1000).times(2, work=3.0)
        Speed(row_ms=4.0, batch_us=60.0, model_us=120.0, build_s=0.6, size_bytes=6000)
        """
        whole = models * work
        return Speed(
            row_ms=self.row_ms * models * (0.5 + 0.5 * work),
            batch_us=self.batch_us * whole,
            model_us=self.model_us * whole,
            build_s=round(self.build_s * whole, 9),
            size_bytes=round(self.size_bytes * whole),
        )


def measure(model: Emitting, x: NDArray[np.float32], n_outputs: int) -> Speed:
    """Export a model and time it, on one row and on many; some tenths of a second for a large one."""
    begun = time.perf_counter()
    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", int(x.shape[1])])
    graph.output(model.emit(graph, inlet), "scores", np.float32, ["N", n_outputs])
    data = graph.model().SerializeToString()
    run = session(data)
    build_s = time.perf_counter() - begun
    row = {"x": np.ascontiguousarray(x[:1], dtype=np.float32)}
    many = np.ascontiguousarray(x[np.arange(BATCH) % len(x)], dtype=np.float32)
    # The session stays on this thread, whose own seconds don't count what others take from the machine.
    batch_s = min(_seconds(lambda: run.run(None, {"x": many}), time.thread_time) for _ in range(3))
    return Speed(
        row_ms=measure_latency_ms(data, row, seconds=0.02),
        batch_us=batch_s / BATCH * 1e6,
        model_us=_seconds(lambda: model.predict(many)) / BATCH * 1e6,
        build_s=build_s,
        size_bytes=len(data),
    )


def _seconds(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    begun = clock()
    call()
    return clock() - begun
