"""One trial on lines, as a worker runs it: a net is trained on most, and judged on those that were held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.decode import write_greedy
from tidemill.bundle.lines.encoder import Lines
from tidemill.data.images.lines import read_lines
from tidemill.models.recognition import pool
from tidemill.models.recognition._base import FittedLines, LineData, LineProfile
from tidemill.search.heldout.trial import BATCH, HeldOutTrial, measure_graph
from tidemill.search.latency import Speed

CALL = "tidemill.search.lines.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""


def measure(net: FittedLines, x: Lines, held_out: NDArray[np.int64]) -> Speed:
    """Export a net and time it on lines of the middle width, down to their texts."""
    from tidemill.models.recognition.samples import side_by_side  # loads torch

    widths = [line.shape[1] for line in x[held_out]]
    middle = x[held_out[int(np.argsort(widths, kind="stable")[len(widths) // 2])]]
    lines = np.empty(BATCH, dtype=object)
    for place in range(BATCH):
        lines[place] = middle
    many = side_by_side(list(lines))

    def write() -> bytes:
        graph = GraphBuilder()
        inlet = graph.input("x", np.float32, ["N", 1, many.shape[2], "V"])
        text, confidence = write_greedy(graph, net.emit(graph, inlet), net.alphabet)
        graph.output(text, "text", str, ["N"])
        graph.output(confidence, "confidence", np.float32, ["N"])
        return bytes(graph.model().SerializeToString())

    return measure_graph(write, {"x": many}, lambda: net.predict(lines))


run_trial = HeldOutTrial(pool, LineProfile.from_json, read_lines, LineData, measure)
"""Trains one config; ``oof`` and ``test`` of its answer are transcripts, see `tidemill.core.transcripts`."""
