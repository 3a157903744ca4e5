"""From a recipe to one ONNX model: raw columns in, labels and probabilities out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from tidemill.bundle.graph import GraphBuilder
from tidemill.bundle.parts import Recipe, utility_form
from tidemill.core.calibration import SMALLEST, Calibration
from tidemill.core.schema import EMBEDDED, Column, Schema, SemanticType
from tidemill.core.task import JOINT, Task, TaskKind

LABEL = "label"
PROBABILITIES = "probabilities"
PREDICTION = "prediction"
CONFIDENCE = "confidence"
OUTPUTS = (LABEL, PROBABILITIES, PREDICTION)
"""Names of graph outputs; no input may have one of them."""

_DENSE_MIX = 4096
"""Largest number of joined score columns for which a weighted mean is one matrix product."""


def input_names(schema: Schema) -> dict[str, str]:
    """Name of the graph input of every feature column.

    It is the column's own name, except where ONNX has no room for it: nameless columns, and columns that are called
    like an output.

    Examples
    --------
    >>> from tidemill.core.schema import EMBEDDED, Column, Schema, SemanticType
    >>> input_names(Schema((Column("age", SemanticType.NUMBER), Column("label", SemanticType.CATEGORY))))
    {'age': 'age', 'label': 'input_label'}
    """
    columns = [c.name for c in schema.features]
    taken = {*columns, *OUTPUTS}
    names: dict[str, str] = {}
    for column in columns:
        name = column
        while name in OUTPUTS or not name or (name != column and name in taken):
            name = f"input_{name}"
        names[column] = name
        taken.add(name)
    return names


def assemble(recipe: Recipe) -> onnx.ModelProto:
    """Write the whole recipe as one graph.

    Inputs are the feature columns by name, each of shape (N, 1): ``string`` for category and text with the empty
    string for missing, ``double`` for the rest with NaN for missing. An image is ``uint8`` of shape (N, H, W, 3), RGB,
    of any size. Outputs are ``label`` (string, N) and ``probabilities`` (float, N × K), or ``prediction`` (float, N)
    for regression. Where a row has several labels they stand in ``label`` with a semicolon between them.
    """
    graph = GraphBuilder()
    names = input_names(recipe.schema)
    inputs = {c.name: declare(graph, names[c.name], c) for c in recipe.schema.features}
    return finish(graph, recipe, recipe.encoder.emit(graph, inputs))


def finish(graph: GraphBuilder, recipe: Recipe, x: str, more: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Write what stands behind the encoder: members, calibration, decision, outputs and metadata.

    Parameters
    ----------
    graph : GraphBuilder
        With its inputs.
    recipe : Recipe
        What to write.
    x : str
        What the encoder gave.
    more : mapping, optional
        Further metadata.
    """
    scores = _combine(graph, recipe, x)
    if recipe.task.kind.has_labels:
        if recipe.calibration is not None and not recipe.calibration.is_identity:
            scores = _calibrate(graph, recipe.calibration, scores)
        graph.output(_label(graph, recipe, scores), LABEL, str, ["N"])
        graph.output(scores, PROBABILITIES, np.float32, ["N", recipe.task.n_classes])
    else:
        graph.output(graph.op("Squeeze", scores, graph.const([1], np.int64)), PREDICTION, np.float32, ["N"])
    model = graph.model()
    onnx.helper.set_model_props(model, {**about(recipe.task, recipe.schema), **(more or {})})
    return model


def declare(graph: GraphBuilder, name: str, column: Column) -> str:
    """Add the input of a column; one that is embedded has sizes of its own."""
    own = f"_{name}" if column.unit == EMBEDDED else ""
    if column.type is SemanticType.IMAGE:
        return graph.input(name, np.uint8, ["N", f"H{own}", f"W{own}", 3])
    if column.type is SemanticType.TEXT and own:
        return graph.input(name, np.int64, ["N", f"L{own}"])
    return graph.input(name, str if column.type.is_string else np.float64, ["N", 1])


def about(task: Task, schema: Schema) -> dict[str, str]:
    """Metadata of the model: what a program needs to know that has nothing but the file."""
    names = input_names(schema)
    inputs = [{"column": c.name, "input": names[c.name], "type": c.type.value, "unit": c.unit} for c in schema.features]
    return {"tidemill.task": json.dumps(task.to_json()), "tidemill.inputs": json.dumps(inputs)}


def _combine(graph: GraphBuilder, recipe: Recipe, x: str) -> str:
    width = recipe.task.n_outputs
    if recipe.stack is not None:
        means = []
        for member in recipe.members:
            scores = [part.emit(graph, x) for part in member.parts]
            means.append(_mix(graph, scores, [1 / len(scores)] * len(scores), width))
        return recipe.stack.emit(graph, means)
    # One flat mean over all parts of all members: fewer nodes than a mean of means.
    weighted = [(part.emit(graph, x), m.weight / len(m.parts)) for m in recipe.members for part in m.parts]
    return _mix(graph, [s for s, _ in weighted], [w for _, w in weighted], width)


def _mix(graph: GraphBuilder, scores: Sequence[str], weights: Sequence[float], width: int) -> str:
    """Weighted mean with as few nodes as there are ways: one row's latency is the number of nodes."""
    if len(scores) == 1:
        return scores[0]
    if np.ptp(weights) == 0:
        return graph.op("Mean", *scores)
    if len(scores) * width > _DENSE_MIX:
        parts = [graph.op("Mul", s, graph.const([w], np.float32)) for s, w in zip(scores, weights, strict=True)]
        return graph.op("Sum", *parts)
    matrix = np.kron(np.asarray(weights)[:, None], np.eye(width))
    return graph.op("MatMul", graph.concat(*scores), graph.const(matrix.astype(np.float32)))


def _calibrate(graph: GraphBuilder, calibration: Calibration, scores: str) -> str:
    """``softmax(log(clip(p)) / T)``, as in `Calibration.apply`."""
    low, high = graph.const(np.float32(SMALLEST)), graph.const(np.float32(1))
    logits = graph.op("Log", graph.op("Clip", scores, low, high))
    scaled = graph.op("Mul", logits, graph.const(np.float32(1 / calibration.temperature)))
    return graph.op("Softmax", scaled, axis=1)


def _label(graph: GraphBuilder, recipe: Recipe, scores: str) -> str:
    if recipe.task.kind is TaskKind.MULTILABEL:
        return _joined_labels(graph, recipe, scores)
    matrix = utility_form(recipe.decision, recipe.task.n_classes).astype(np.float32)
    factors = np.diag(matrix)
    if np.any(matrix != np.diag(factors)):
        scores = graph.op("MatMul", scores, graph.const(matrix))
    elif np.any(factors != 1):
        scores = graph.op("Mul", scores, graph.const(factors))
    utilities = graph.op("Sub", scores, graph.const(recipe.handicap().astype(np.float32)))
    code = graph.op("ArgMax", utilities, axis=1, keepdims=0)
    return graph.op("Gather", graph.const(list(recipe.task.classes)), code, axis=0)


def _joined_labels(graph: GraphBuilder, recipe: Recipe, scores: str) -> str:
    """Names of the labels whose probability is above its bar, joined in the order of the classes.

    Every label but the first of a row brings the separator along. Neighbours are joined pair by pair, so that there are
    as many steps as the logarithm of the number of labels.
    """
    names = list(recipe.task.classes)
    chosen = graph.op("Greater", scores, graph.const(recipe.bars()))
    before = graph.op("CumSum", graph.cast(chosen, np.float32), graph.const(1, np.int64), exclusive=1)
    later = graph.op("Greater", before, graph.const(np.float32(0)))
    named = graph.op("Where", later, graph.const([JOINT + name for name in names]), graph.const(names))
    pieces = graph.op("Where", chosen, named, graph.const([""]))
    width = len(names)
    while width > 1:
        even = width - width % 2
        pair = graph.op("StringConcat", _every_other(graph, pieces, 0, even), _every_other(graph, pieces, 1, even))
        if width % 2:
            last = graph.op("Slice", pieces, *(graph.const([v], np.int64) for v in (even, width, 1)))
            pair = graph.concat(pair, last)
        pieces, width = pair, (width + 1) // 2
    return graph.op("Squeeze", pieces, graph.const([1], np.int64))


def _every_other(graph: GraphBuilder, value: str, start: int, stop: int) -> str:
    """Columns ``start``, ``start + 2``… below ``stop``."""
    return graph.op("Slice", value, *(graph.const([v], np.int64) for v in (start, stop, 1, 2)))
