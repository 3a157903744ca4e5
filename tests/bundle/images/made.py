"""A small bundle for images, made without training anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.images.encoder import IMAGE, ImageEncoder
from tidemill.bundle.images.runtime import ImageBundle
from tidemill.bundle.images.write import write_image_bundle
from tidemill.bundle.parts import Member, Recipe
from tidemill.bundle.spec import BundleInfo
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.data.images.pictures import ArrayPictures

TASK = Task(TaskKind.MULTICLASS, "tone", ("dark", "middle", "light"))
VALUE = Task(TaskKind.REGRESSION, "tone", label_type="number")
SCHEMA = Schema((Column(IMAGE, SemanticType.IMAGE), Column("tone", SemanticType.TARGET)))


class TonePart:
    """The mean of all pixels through a linear map; ``skew`` makes its export wrong."""

    def __init__(self, outputs: int = 3, skew: float = 0.0) -> None:
        rng = np.random.default_rng(outputs)
        self.weight = rng.normal(size=(1, outputs)).astype(np.float32)
        self.bias = rng.normal(size=outputs).astype(np.float32)
        self.skew = skew
        self.outputs = outputs

    def predict(self, x: NDArray[Any]) -> NDArray[np.float32]:
        z = (x.astype(np.float64).mean(axis=(1, 2, 3))[:, None] / 255) @ self.weight + self.bias
        if self.outputs == 1:
            return z.astype(np.float32)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        axes = graph.const([1, 2, 3], np.int64)
        mean = graph.op("Div", graph.op("ReduceMean", x, axes, keepdims=1), graph.const(np.float32(255)))
        flat = graph.op("Reshape", mean, graph.const([-1, 1], np.int64))
        z = graph.op("Gemm", flat, graph.const(self.weight), graph.const(self.bias + np.float32(self.skew)[None]))
        return z if self.outputs == 1 else graph.op("Softmax", z, axis=1)


def pictures(count: int = 12, *, seed: int = 0) -> ArrayPictures:
    """Images of several sizes, some of them grey."""
    rng = np.random.default_rng(seed)
    sizes = [(8, 8), (8, 8), (20, 13), (40, 40), (1, 1)]
    return ArrayPictures([rng.integers(0, 256, (*sizes[i % 5], 3)).astype(np.uint8) for i in range(count)])


def recipe(task: Task = TASK, *, skew: float = 0.0, channels: int = 3) -> Recipe:
    parts = [TonePart(task.n_outputs, skew), TonePart(task.n_outputs, skew)]
    members = (Member(0.6, parts[:1], "tone-0"), Member(0.4, parts[1:], "tone-1"))
    return Recipe(task=task, schema=SCHEMA, encoder=ImageEncoder(8, 8, channels), members=members)


def make(out: Path, task: Task = TASK, **changes: Any) -> ImageBundle:
    """Write a small bundle."""
    made, seen = recipe(task, **changes), pictures()
    images = np.empty(len(seen), dtype=object)
    for i in range(len(seen)):
        images[i] = seen.pixels(i)
    answers = made.predict({IMAGE: images})
    y = answers.scores[:, 0] + 0.1 if answers.codes is None else answers.codes
    info = BundleInfo(name="small", objective="maximize accuracy", lineage={"seed": 3})
    evidence = [Evidence("out_of_fold", y[::-1].copy(), answers.scores)]
    opened = write_image_bundle(out, made, tables={"validation": seen}, info=info, evidence=evidence)
    assert isinstance(opened, ImageBundle)
    return opened
