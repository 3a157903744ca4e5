"""Small parts to build bundles from without training anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.graph import ML, GraphBuilder
from tidemill.bundle.parts import Member, Recipe
from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.core.task import Task, TaskKind


class PlainEncoder:
    """Numbers as they are, NaN as 0; text as its place in a short vocabulary.

    Parameters
    ----------
    schema : Schema
        Its features are encoded in order.
    words : sequence of str
        The vocabulary; other words are -1.
    """

    def __init__(self, schema: Schema, words: Sequence[str] = ("a", "b", "c")) -> None:
        self.schema = schema
        self.words = list(words)

    def transform(self, columns: Columns) -> NDArray[np.float32]:
        """Encode with numpy."""
        codes = {w: float(i) for i, w in enumerate(self.words)}
        out = [
            np.array([codes.get(v, -1.0) for v in columns[c.name]])
            if c.type.is_string
            else np.nan_to_num(columns[c.name], nan=0.0, posinf=np.inf, neginf=-np.inf)
            for c in self.schema.features
        ]
        return np.stack(out, axis=1).astype(np.float32)

    def emit(self, graph: GraphBuilder, inputs: Mapping[str, str]) -> str:
        """Encode with ONNX."""
        out: list[str] = []
        for column in self.schema.features:
            value = inputs[column.name]
            if column.type.is_string:
                codes = [float(i) for i in range(len(self.words))]
                table: dict[str, Any] = {"keys_strings": self.words, "values_floats": codes, "default_float": -1.0}
                out.append(graph.op("LabelEncoder", value, domain=ML, **table))
            else:
                single = graph.cast(value, np.float32)
                out.append(graph.op("Where", graph.op("IsNaN", single), graph.const(np.float32(0)), single))
        return graph.concat(*out)


class LinearPart:
    """``softmax(x @ weights + bias)``, or the bare sum for a regression.

    Parameters
    ----------
    weights : array of shape (n_features, n_outputs)
        Its only parameters beside the bias.
    bias : array of shape (n_outputs,)
        Added to every row.
    probabilities : bool
        True for a classification.
    skew : float
        Added to the bias in the graph alone: a part whose export is wrong.
    """

    def __init__(self, weights: Any, bias: Any, *, probabilities: bool, skew: float = 0.0) -> None:
        self.weights = np.asarray(weights, dtype=np.float32)
        self.bias = np.asarray(bias, dtype=np.float32)
        self.probabilities = probabilities
        self.skew = skew

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict with numpy in double precision."""
        z = x.astype(np.float64) @ self.weights + self.bias
        if not self.probabilities:
            return z.astype(np.float32)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return np.asarray(e / e.sum(axis=1, keepdims=True), dtype=np.float32)

    def emit(self, graph: GraphBuilder, x: str) -> str:
        """Predict with ONNX."""
        shift = self.bias.copy()
        shift[-1] += np.float32(self.skew)
        z = graph.op("Gemm", x, graph.const(self.weights), graph.const(shift))
        return graph.op("Softmax", z, axis=1) if self.probabilities else z


class MeanStack:
    """A stack layer that takes the plain mean of its members."""

    def predict(self, scores: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Predict with numpy."""
        return np.asarray(np.mean(np.stack(list(scores)), axis=0), dtype=np.float32)

    def emit(self, graph: GraphBuilder, scores: Sequence[str]) -> str:
        """Predict with ONNX."""
        return graph.op("Mean", *scores)


def small_schema(target: str = "y") -> Schema:
    """Two numbers, a category and a target."""
    return Schema(
        (
            Column("size", SemanticType.NUMBER, unit="cm", low=-3.0, high=3.0),
            Column("colour", SemanticType.CATEGORY, distinct=3),
            Column("weight", SemanticType.NUMBER),
            Column("id", SemanticType.IDENTIFIER, reason="differs in every row"),
            Column(target, SemanticType.TARGET),
        )
    )


def small_columns(rows: int, seed: int = 0) -> Columns:
    """Columns for `small_schema`, some of them missing and some unseen."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=rows)
    size[rng.random(rows) < 0.05] = np.nan
    colour = rng.choice(np.array(["a", "b", "c", "", "unseen"], dtype=object), rows, p=[0.4, 0.3, 0.2, 0.05, 0.05])
    return {"size": size, "colour": colour, "weight": rng.normal(size=rows)}


def small_task(kind: TaskKind | str = "binary", *, target: str = "y") -> Task:
    """A task of the kind: yes or no, one of three, or a number."""
    kind = TaskKind(kind)
    if kind is TaskKind.BINARY:
        return Task(kind, target, ("no", "yes"), positive="yes")
    if kind is TaskKind.MULTICLASS:
        return Task(kind, target, ("x", "y, quoted", "ž"))
    return Task(kind, target, label_type="number")


def small_recipe(kind: TaskKind | str = "binary", *, seed: int = 0, skew: float = 0.0, **changes: Any) -> Recipe:
    """A recipe of two linear members, the second with two parts; ``changes`` replace fields of it."""
    rng = np.random.default_rng(seed)
    task, schema = small_task(kind), small_schema()
    k, classes = task.n_outputs, task.kind.is_classification

    def part() -> LinearPart:
        return LinearPart(rng.normal(size=(3, k)), rng.normal(size=k), probabilities=classes, skew=skew)

    members = (Member(0.7, [part()], "linear-0"), Member(0.3, [part(), part()], "linear-1"))
    fields: dict[str, Any] = {"task": task, "schema": schema, "encoder": PlainEncoder(schema), "members": members}
    return Recipe(**{**fields, **changes})
