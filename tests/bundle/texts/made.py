"""A small bundle for texts, made without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parts import Member, Recipe
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.texts.encoder import TextEncoder
from tidemill.bundle.texts.readers import Reader
from tidemill.bundle.texts.runtime import TextBundle
from tidemill.bundle.texts.write import write_text_bundle
from tidemill.core.schema import TOKENS, Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind

TASK = Task(TaskKind.BINARY, "mood", ("bad", "good"))
VALUE = Task(TaskKind.REGRESSION, "mood", label_type="number")
COLUMN = "review"
SCHEMA = Schema((Column(COLUMN, SemanticType.TEXT, unit=TOKENS), Column("mood", SemanticType.TARGET)))
WORDS = ("good", "fine", "bad", "awful", "not good", "so")
SAID = ["good", "so bad", "Not good, not fine", "awful", "", "nothing of that", "so so so good", "fine " * 40]


class WordsPart:
    """How often words stand in a text, through a linear map; ``skew`` makes its export wrong."""

    def __init__(self, outputs: int = 2, skew: float = 0.0, low: int = 1, high: int = 2) -> None:
        self.reader = Reader.of_grams("words", low, high, WORDS)
        rng = np.random.default_rng(outputs)
        self.weight = rng.normal(size=(len(WORDS), outputs)).astype(np.float32)
        self.skew = skew

    @property
    def readers(self) -> tuple[Reader, ...]:
        return (self.reader,)

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        grams, counts = self.reader.read([str(text) for text in x]).values()
        rows = np.zeros((len(x), len(WORDS)))
        for row, (places, often) in enumerate(zip(grams, counts, strict=True)):
            rows[row, places[places >= 0]] = often[places >= 0]
        z = rows @ self.weight
        if z.shape[1] == 1:
            return z.astype(np.float32)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        grams, counts = self.reader.inputs
        axis = graph.const([1], np.int64)
        places = graph.op("Max", grams, graph.const(0, np.int64))
        weights = graph.op("Gather", graph.const(self.weight + np.float32(self.skew)), places)
        z = graph.op("Squeeze", graph.op("MatMul", graph.op("Unsqueeze", counts, axis), weights), axis)
        return z if self.weight.shape[1] == 1 else graph.op("Softmax", z, axis=1)


def objects(texts: list[str]) -> NDArray[Any]:
    out = np.empty(len(texts), dtype=object)
    out[:] = texts
    return out


def recipe(task: Task = TASK, *, skew: float = 0.0) -> Recipe:
    parts = [WordsPart(task.n_outputs, skew), WordsPart(task.n_outputs, skew, high=1)]
    members = (Member(0.6, parts[:1], "words-0"), Member(0.4, parts, "words-1"))
    return Recipe(task=task, schema=SCHEMA, encoder=TextEncoder(COLUMN), members=members)


def make(out: Path, task: Task = TASK, **changes: Any) -> TextBundle:
    """Write a small bundle."""
    made, said = recipe(task, **changes), objects(SAID)
    answers = recipe(task).predict({COLUMN: said})
    y = answers.scores[:, 0] + 0.1 if answers.codes is None else answers.codes
    info = BundleInfo(name="small", objective="maximize accuracy", lineage={"seed": 3})
    evidence = [Evidence("out_of_fold", y[::-1].copy(), answers.scores)]
    opened = write_text_bundle(out, made, tables={"validation": said}, info=info, evidence=evidence)
    assert isinstance(opened, TextBundle)
    return opened
