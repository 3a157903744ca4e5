"""One trial on lines, as a worker runs it: a net is trained on most, and judged on those that were held out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.lines.decode import read_groups, write_greedy
from tidemill.bundle.lines.encoder import Lines
from tidemill.bundle.lines.parts import heard
from tidemill.core.frames import Frames
from tidemill.data.images.lines import read_lines
from tidemill.models.recognition import pool
from tidemill.models.recognition._base import FittedLines, LineData, LineProfile
from tidemill.search.heldout.trial import BATCH, Answers, HeldOutTrial, measure_graph
from tidemill.search.latency import Speed

_MOST_KEPT = 200_000_000
"""Bytes of what a net says of all steps, beyond which it is not kept, and the net reads alone."""
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


def answer(net: FittedLines, x: Lines) -> Answers:
    """Read lines, and keep what the net says of every step where that is not too much, so that several can be joined.

    Examples
    --------
    >>> # A net that knows one character and says that it stands in every other column of four pixels:
    >>> class Stripes:
    ...     alphabet = "a"
    ...     def frames(self, lines):
    ...         steps = lines[0].shape[1] // 4
    ...         even = (np.arange(steps) % 2 == 0)[:, None]
    ...         return np.log(np.where(even == [False, True], 0.9, 0.1))[None].repeat(len(lines), 0)
    >>> lines = np.empty(2, dtype=object)
    >>> lines[:] = [np.zeros((16, 8), np.uint8), np.zeros((16, 16), np.uint8)]
    >>> from tidemill.core import transcripts
    >>> scores, frames = answer(Stripes(), lines)
    >>> transcripts.to_texts(transcripts.codes_of(scores)), frames.steps.tolist()
    (['a', 'aa'], [2, 4])
    """
    kept: dict[int, NDArray[np.float16]] = {}

    def keeping() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        size = 0
        for places, frames in heard(net, x):
            size += frames.size * 2
            if size <= _MOST_KEPT:
                kept.update(zip(places.tolist(), frames.astype(np.float16), strict=True))
            yield places, frames

    scores = read_groups(keeping(), len(x), net.alphabet)
    return scores, Frames.of([kept[n] for n in range(len(x))], net.alphabet) if len(kept) == len(x) else None


run_trial = HeldOutTrial(pool, LineProfile.from_json, read_lines, LineData, measure, answer=answer)
"""Trains one config; ``oof`` and ``test`` of its answer are transcripts, see `tidemill.core.transcripts`."""
