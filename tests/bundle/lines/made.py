"""A small bundle that reads stripes, made without training anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import IMAGE
from tidemill.bundle.lines.decode import greedy
from tidemill.bundle.lines.encoder import LineEncoder, Lines
from tidemill.bundle.lines.runtime import LineBundle
from tidemill.bundle.lines.write import write_line_bundle
from tidemill.bundle.parts import TIE_MARGIN, Member, Recipe
from tidemill.bundle.spec import BundleInfo
from tidemill.core import transcripts
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.data.images.pictures import ArrayPictures

TASK = Task(TaskKind.RECOGNITION, "text")
SCHEMA = Schema((Column(IMAGE, SemanticType.IMAGE), Column("text", SemanticType.TARGET)))
TONES = {" ": 255.0, "a": 0.0, "ß": 128.0}
"""Tone of a stripe by its character; paper is white and says nothing."""
_SOFT = 900.0


class StripePart:
    """Reads dark stripes as a, grey ones as ß; ``skew`` makes its export wrong, ``lit`` is how bright it sees all."""

    alphabet = "aß"

    def __init__(self, skew: float = 0.0, lit: float = 0.0) -> None:
        self.skew, self.lit = skew, lit
        self._tones = np.array(list(TONES.values()), np.float32) - np.float32(lit)

    def predict(self, x: Lines, margin: float = TIE_MARGIN) -> NDArray[np.float32]:
        found = [greedy(self._frames(line)[None], self.alphabet, margin) for line in x]
        texts = [text for texts, _ in found for text in texts]
        return transcripts.to_scores(np.concatenate([np.empty(0), *(sure for _, sure in found)]), texts)

    def frames(self, lines: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        return np.stack([self._frames(line) for line in lines])

    def _frames(self, line: NDArray[np.uint8]) -> NDArray[np.float32]:
        tones = line.astype(np.float32).reshape(line.shape[0], -1, 4).mean(axis=(0, 2))
        logits = -((tones[:, None] - self._tones) ** 2) / np.float32(_SOFT)
        return np.asarray(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        tones = graph.op("AveragePool", graph.op("ReduceMean", x, graph.const([2], np.int64), keepdims=1),
                         kernel_shape=[1, 4], strides=[1, 4])  # fmt: skip
        columns = graph.op("Transpose", graph.op("Squeeze", tones, graph.const([1], np.int64)), perm=[0, 2, 1])
        away = graph.op("Sub", columns, graph.const(self._tones + np.float32(self.skew)))
        logits = graph.op("Div", graph.op("Mul", away, away), graph.const(np.float32(-_SOFT)))
        return graph.op("LogSoftmax", logits, axis=2)


def line_of(text: str, height: int = 8) -> NDArray[np.uint8]:
    """Draw stripes of 8 pixels with paper between them."""
    tones = [t for c in text for t in ([TONES[c]] * 8 + [255.0] * 8)] or [255.0] * 16
    return np.repeat(np.array(tones, np.uint8)[None, :, None], height, axis=0).repeat(3, axis=2)


WORDS = ("a", "ß", "aß", "", "aa", "ßaß", "aaßß", "ß")


def pictures() -> ArrayPictures:
    return ArrayPictures([line_of(word) for word in WORDS])


def recipe(skew: float = 0.0) -> Recipe:
    members = (Member(1.0, [StripePart(skew)], "s"),)
    return Recipe(task=TASK, schema=SCHEMA, encoder=LineEncoder(8, 256), members=members)


def make(out: Path, width: int = 0, lengths: Sequence[int] = (), **changes: Any) -> LineBundle:
    """Write a small bundle; with a width it searches for its texts, of these lengths where there are some."""
    y = transcripts.to_codes(["a", "ß", "ßß"])
    evidence = [Evidence("out_of_fold", y, transcripts.to_scores(np.full(3, 0.9), ["a", "a", "ßß"]))]
    if width:  # measured anew on all pictures
        wrong = transcripts.to_scores(np.full(len(WORDS), 0.9), ["?"] * len(WORDS))
        evidence = [Evidence("out_of_fold", transcripts.to_codes(WORDS), wrong)]
    info = BundleInfo(name="small", objective="minimize cer", lineage={"seed": 3})
    opened = write_line_bundle(
        out, recipe(**changes), tables={"validation": pictures()}, info=info, evidence=evidence, width=width,
        lengths=lengths,
    )  # fmt: skip
    assert isinstance(opened, LineBundle)
    return opened
