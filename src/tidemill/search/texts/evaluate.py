"""One trial on texts, as a worker runs it: a model is trained on most, and judged on those that were held out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.texts.readers import read_all
from tidemill.data.texts.packed import read_texts
from tidemill.models.text import pool
from tidemill.models.text._base import FittedText, TextData, TextProfile, Texts
from tidemill.search.heldout.trial import BATCH, HeldOutTrial, measure_graph
from tidemill.search.latency import Speed

CALL = "tidemill.search.texts.evaluate:run_trial"
"""The name under which an executor finds `run_trial`."""
LIGHT = frozenset({"ngrams"})
"""Families that do without PyTorch, which takes seconds to load."""


def measure(model: FittedText, x: Texts, held_out: NDArray[np.int64]) -> Speed:
    """Export a model and time it on texts of about the middle length."""
    order = held_out[np.argsort([len(str(text)) for text in x[held_out]], kind="stable")]
    middle = order[max(0, (len(order) - BATCH) // 2) :][:BATCH]
    some = x[middle[np.arange(BATCH) % len(middle)]]

    def write() -> bytes:
        graph = GraphBuilder()
        for reader in model.readers:
            reader.declare(graph)
        graph.output(model.emit(graph, ""), "scores", np.float32, ["N", "K"])
        return bytes(graph.model().SerializeToString())

    feed = read_all(model.readers, [str(text) for text in some])
    return measure_graph(write, feed, lambda: model.predict(some))


run_trial = HeldOutTrial(pool, TextProfile.from_json, read_texts, TextData, measure, LIGHT)
"""Trains one config."""
