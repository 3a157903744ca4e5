"""One trial on images, as a worker runs it: a net is trained on most, and judged on those that were held out."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.models.vision import pool
from tidemill.models.vision._base import FittedNet, ImageData, ImageProfile
from tidemill.search.heldout.trial import BATCH, HeldOutTrial, measure_graph
from tidemill.search.latency import Speed

CALL = "tidemill.search.images.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""


def measure(net: FittedNet, x: NDArray[np.uint8], held_out: NDArray[np.int64]) -> Speed:
    """Export a net and time it."""
    some = x[held_out[:BATCH]]
    many = np.ascontiguousarray(some[np.arange(BATCH) % len(some)], dtype=np.float32)

    def write() -> bytes:
        graph = GraphBuilder()
        inlet = graph.input("x", np.float32, ["N", *x.shape[1:]])
        graph.output(net.emit(graph, inlet), "scores", np.float32, ["N", "K"])
        return bytes(graph.model().SerializeToString())

    return measure_graph(write, {"x": many}, lambda: net.predict(many))


run_trial = HeldOutTrial(pool, ImageProfile.from_json, partial(np.load, mmap_mode="r"), ImageData, measure)
"""Trains one config; pixels are mapped into memory."""
