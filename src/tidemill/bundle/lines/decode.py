"""From what a net says of every step along a line to the text: the best step by step, repetitions and blanks left out.

This is best-path decoding of connectionist temporal classification (Graves et al., 2006, section 3.2). It is written
twice, with numpy and as a graph, because the graph has to hold it; the proof of a bundle holds the two against each
other. What is searched for behind the graph stands in `tidemill.bundle.runner.beams`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parts import TIE_MARGIN
from tidemill.bundle.runner.beams import BLANK, handicap
from tidemill.core import transcripts

__all__ = ["BLANK", "best_path", "greedy", "handicap", "read_groups", "write_greedy"]


def greedy(frames: NDArray[Any], alphabet: str, margin: float = TIE_MARGIN) -> tuple[list[str], NDArray[np.float32]]:
    """Decode by the best output of every step.

    Parameters
    ----------
    frames : ndarray, shape (n, steps, K + 1)
        Logarithms of probabilities; the first output is the blank.
    alphabet : str
        The K characters.
    margin : float
        An output wins over an earlier one only when it is ahead by this much for each place between them, so that near
        ties come out alike wherever they are computed.

    Returns
    -------
    (list of str, ndarray of float32)
        Texts, and the probability of each one's best path.

    Examples
    --------
    >>> p = np.array([[[0.1, 0.9, 0], [0.2, 0.8, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    >>> texts, confidence = greedy(np.log(np.maximum(p, 1e-30)), "ab")
    >>> texts, round(float(confidence[0]), 2)
    (['aab'], 0.72)
    """
    frames = np.asarray(frames, dtype=np.float32)
    said = best_path((frames - handicap(len(alphabet), margin)).argmax(axis=2))
    texts = ["".join(alphabet[i - 1] for i in row[row != transcripts.END].tolist()) for row in said]
    confidence = np.exp(frames.max(axis=2).astype(np.float64).sum(axis=1))
    return texts, confidence.astype(np.float32)


def read_groups(
    groups: Iterable[tuple[NDArray[np.int64], NDArray[Any]]], count: int, alphabet: str, margin: float = TIE_MARGIN
) -> NDArray[np.float32]:
    """Read lines that come in groups of one length: scores as `tidemill.core.transcripts` has them.

    Parameters
    ----------
    groups : iterable of tuple
        Numbers of lines, and what is said of them as `greedy` takes it; each line once.
    count : int
        Lines in all.
    alphabet, margin
        As `greedy` takes them.

    Examples
    --------
    >>> said = np.log(np.array([[[0.1, 0.9], [0.8, 0.2]]]))
    >>> scores = read_groups([(np.array([1]), said), (np.array([0]), said[:, 1:])], 2, "a")
    >>> transcripts.to_texts(transcripts.codes_of(scores))
    ['', 'a']
    """
    texts = np.empty(count, dtype=object)
    sure = np.empty(count, dtype=np.float32)
    for places, frames in groups:
        found, sure[places] = greedy(frames, alphabet, margin)
        for place, text in zip(places, found, strict=True):
            texts[place] = text
    return transcripts.to_scores(sure, texts)


def best_path(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave repetitions and blanks out of what is said at every step, shape (n, steps).

    What is left stands at the beginning of a row, `tidemill.core.transcripts.END` behind it.

    Examples
    --------
    >>> best_path(np.array([[2, 2, 0, 2, 1], [0, 0, 3, 3, 0]])).tolist()
    [[2, 2, 1, -1, -1], [3, -1, -1, -1, -1]]
    """
    before = np.concatenate([np.full((len(ids), 1), BLANK), ids[:, :-1]], axis=1)
    said = np.where((ids == before) | (ids == BLANK), transcripts.END, ids)
    order = np.argsort(said == transcripts.END, axis=1, kind="stable")
    return np.asarray(np.take_along_axis(said, order, axis=1), dtype=np.int64)


def write_greedy(graph: GraphBuilder, frames: str, alphabet: str, margin: float = TIE_MARGIN) -> tuple[str, str]:
    """Write `greedy` into a graph; gives the names of texts, string (N), and confidences, float32 (N)."""
    first, second = graph.const([0], np.int64), graph.const([1], np.int64)
    ahead = graph.op("Sub", frames, graph.const(handicap(len(alphabet), margin)))
    ids = graph.op("ArgMax", ahead, axis=2, keepdims=0)
    blank = graph.op("Mul", graph.op("Slice", ids, first, second, second), graph.const(np.int64(0)))
    before = graph.concat(blank, graph.op("Slice", ids, first, graph.const([-1], np.int64), second), axis=1)
    written = graph.op("Where", graph.op("Equal", ids, before), graph.const(np.int64(BLANK)), ids)
    table = graph.const(["", *alphabet])
    steps = graph.op("Transpose", written, perm=[1, 0])
    count = graph.op("Squeeze", graph.op("Shape", steps, start=0, end=1), first)
    empty = graph.op("Gather", table, graph.op("Squeeze", blank, second), axis=0)
    text = graph.op("Loop", count, graph.const(True), empty, body=_appending(graph, steps, table))
    best = graph.cast(graph.op("ReduceMax", frames, graph.const([2], np.int64), keepdims=0), np.float64)
    path = graph.op("Exp", graph.op("ReduceSum", best, second, keepdims=0))
    return text, graph.cast(path, np.float32)


def _appending(graph: GraphBuilder, steps: str, table: str) -> onnx.GraphProto:
    """Body of a loop that appends the characters of one step to the texts of all lines.

    Texts are looked up one by one in a table of one axis: of rows of texts onnxruntime 1.31 gathers the first alone.
    """
    names = ("step", "go", "text", "still", "ids", "column", "text")
    step, going, text, still, ids, column, longer = (graph.fresh(n) for n in names)
    value = helper.make_tensor_value_info
    given = value(step, TensorProto.INT64, [])
    return helper.make_graph(
        [
            helper.make_node("Identity", [going], [still]),
            helper.make_node("Gather", [steps, step], [ids], axis=0),
            helper.make_node("Gather", [table, ids], [column], axis=0),
            helper.make_node("StringConcat", [text, column], [longer]),
        ],
        "appending",
        [given, value(going, TensorProto.BOOL, []), value(text, TensorProto.STRING, ["N"])],
        [value(still, TensorProto.BOOL, []), value(longer, TensorProto.STRING, ["N"])],
    )
