"""Small bundles of tables with embedded columns, made without training anything; their encoders are written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tests.models.text.made import tokenizer_json

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.fusion.embedding import INPUT, Embedding
from tidemill.bundle.fusion.parts import Rows
from tidemill.bundle.fusion.runtime import FusedBundle
from tidemill.bundle.fusion.write import write_fused_bundle
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import ImageEncoder
from tidemill.bundle.parts import Member, Recipe
from tidemill.bundle.spec import BundleInfo
from tidemill.bundle.texts.readers import Reader
from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.models.fusion.encoder import FusedEncoder
from tidemill.testing.parts import LinearPart

TASK = Task(TaskKind.MULTICLASS, "animal", ("a", "b", "c"))
VALUE = Task(TaskKind.REGRESSION, "animal", label_type="number")
TEXT, PHOTO = "review", "photo"
SCHEMA = Schema(
    (
        Column("age", SemanticType.NUMBER),
        Column(TEXT, SemanticType.TEXT),
        Column("city", SemanticType.CATEGORY),
        Column("animal", SemanticType.TARGET),
    )
)
SAID = ["the red fox", "a blue whale of the sea", "", "green frog near a pond", "nothing known", "red red fox den " * 9]
WIDTH, TONES = 24, 6
"""Features of the two encoders."""


def text_encoder() -> bytes:
    """From tokens to the share of each word."""
    graph = GraphBuilder()
    cells = graph.input(INPUT, np.int64, ["N", "L"])
    table = np.eye(32, WIDTH, dtype=np.float32)
    axis = graph.const([1], np.int64)
    places = graph.op("Max", cells, graph.const(0, np.int64))
    known = graph.cast(graph.op("GreaterOrEqual", cells, graph.const(0, np.int64)), np.float32)
    weights = graph.op("Unsqueeze", known, graph.const([2], np.int64))
    whole = graph.op("ReduceSum", graph.op("Mul", graph.op("Gather", graph.const(table), places), weights), axis,
                     keepdims=0)  # fmt: skip
    graph.output(
        graph.op("Div", whole, graph.op("ReduceSum", known, axis, keepdims=1)), "out", np.float32, ["N", WIDTH]
    )
    return bytes(graph.model().SerializeToString())


def image_encoder() -> bytes:
    """From pixels to sums of the means of their channels."""
    graph = GraphBuilder()
    cells = graph.input(INPUT, np.float32, ["N", 3, 4, 4])
    mean = graph.op("ReduceMean", cells, graph.const([2, 3], np.int64), keepdims=0)
    mix = np.random.default_rng(1).normal(size=(3, TONES)).astype(np.float32) / 255
    graph.output(graph.op("MatMul", mean, graph.const(mix)), "out", np.float32, ["N", TONES])
    return bytes(graph.model().SerializeToString())


def text_embedding(column: str = TEXT, *, kept: int | None = 4, flagged: bool = True) -> Embedding:
    mean, axes = _projection(WIDTH, kept)
    reader = Reader.of_tokens(tokenizer_json(), 16)
    return Embedding(
        column, "words", text_encoder(), WIDTH, reader=reader, mean=mean, axes=axes, flagged=flagged,
        params=32 * WIDTH, work=(0.0, 2.0 * WIDTH), tokens=16,
    )  # fmt: skip


def image_embedding(column: str = PHOTO, *, kept: int | None = None, flagged: bool = True) -> Embedding:
    mean, axes = _projection(TONES, kept)
    pixels = ImageEncoder(4, 4)
    return Embedding(column, "tones", image_encoder(), TONES, pixels=pixels, mean=mean, axes=axes, flagged=flagged)


def _projection(width: int, kept: int | None) -> tuple[Any, Any]:
    if kept is None:
        return None, None
    rng = np.random.default_rng(kept)
    return rng.normal(size=width).astype(np.float32), rng.normal(size=(width, kept)).astype(np.float32)


def objects(cells: list[Any]) -> NDArray[Any]:
    out = np.empty(len(cells), dtype=object)
    for place, cell in enumerate(cells):
        out[place] = cell
    return out


def columns(rows: int = 48, seed: int = 0) -> Columns:
    """Rows of `SCHEMA`, some cells missing."""
    rng = np.random.default_rng(seed)
    age = rng.normal(size=rows)
    age[3] = np.nan
    said = objects([SAID[i % len(SAID)] for i in range(rows)])
    return {"age": age, TEXT: said, "city": rng.choice(np.array(["Ulm", "Rom", ""], dtype=object), rows)}


def recipe(task: Task = TASK, *, schema: Schema = SCHEMA, skew: float = 0.0, **embeddings: Embedding) -> Recipe:
    """A linear model behind the encoder of a table with embedded columns."""
    made = tuple(embeddings.values()) or (text_embedding(),)
    encoder = FusedEncoder.fit(columns(), schema, made)
    rng = np.random.default_rng(2)
    outputs = task.n_outputs
    numbers = len(encoder.features)
    weights = 0.5 * rng.normal(size=(numbers, outputs)).astype(np.float32)
    weights[[f.source == "age" for f in encoder.features]] = 0  # which may be missing
    part = LinearPart(weights, np.zeros(outputs), probabilities=task.kind.is_classification, skew=skew)
    return Recipe(task, encoder.marked(schema), encoder, (Member(1.0, [_Known(part)], "linear-0"),))


class _Known:
    """A part behind which a missing number is 0."""

    def __init__(self, part: LinearPart) -> None:
        self.part = part

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.part.predict(np.nan_to_num(x))

    def emit(self, graph: GraphBuilder, x: str) -> str:
        return self.part.emit(graph, graph.op("Where", graph.op("IsNaN", x), graph.const(np.float32(0)), x))


def make(
    out: Path, task: Task = TASK, rows: Rows | None = None, made: Recipe | None = None, **changes: Any
) -> FusedBundle:
    """Write a small bundle."""
    made = made or recipe(task, **changes)
    rows = rows or Rows(columns())
    answers = made.predict(rows.read())
    y = answers.scores[:, 0] + 0.1 if answers.codes is None else answers.codes
    info = BundleInfo(name="small", objective="maximize accuracy", lineage={"seed": 3})
    evidence = [Evidence("out_of_fold", y[::-1].copy(), answers.scores)]
    tables = {"train": rows}
    opened = write_fused_bundle(out, made, tables=tables, columns=rows.columns, info=info, evidence=evidence)
    assert isinstance(opened, FusedBundle)
    return opened
