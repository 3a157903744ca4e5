"""Describes how features and answers looked when a bundle was made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.reference.answers import CONFIDENCE, confidence
from tidemill.bundle.reference.columns import ColumnReference, Limit, texts_of
from tidemill.bundle.reference.file import Reference
from tidemill.bundle.reference.limits import limited
from tidemill.core.decision import labels_of, undecided
from tidemill.core.schema import Columns, Schema, SemanticType

if TYPE_CHECKING:  # a serving process reads references without loading onnx
    from tidemill.bundle.parts import Answers
    from tidemill.bundle.spec import MetricValue
    from tidemill.core.task import Task

CELLS = 20
"""Cells of a number: quantiles of the reference."""
NAMED = 50
"""Categories that have a cell of their own."""
KNOWN = 2000
"""Categories that are known by name; a value beyond them counts as new, here and in production."""
_MOST_ROWS = 100_000
_SEED = 20


def build(
    schema: Schema,
    task: Task,
    columns: Columns,
    answers: Answers,
    *,
    source: str = "train",
    metrics: Sequence[MetricValue] = (),
) -> Reference:
    """Describe features and answers.

    Parameters
    ----------
    schema, task : Schema, Task
        Of the bundle.
    columns : Columns
        Rows of training; at most 100,000 of them are looked at.
    answers : Answers
        Of rows that the model was not trained on, where there are any.
    source : str
        Which rows those are.
    metrics : sequence of MetricValue
        How good the bundle is.
    """
    from tidemill.bundle.assemble import LABEL, PREDICTION, input_names
    from tidemill.core import transcripts
    from tidemill.core.task import TaskKind

    names = input_names(schema)
    rows = _sample(len(next(iter(columns.values()))) if columns else 0)
    features = [describe(c.name, names[c.name], _kind(c.type), columns[c.name][rows]) for c in schema.features]
    picked = _sample(len(answers.scores))
    scores = np.asarray(answers.scores[picked], dtype=np.float64)
    if task.kind.has_labels:
        codes = answers.codes if answers.codes is not None else undecided(task).apply(answers.scores)
        labels = labels_of(task, codes[picked])
        predictions = [
            describe(LABEL, LABEL, "category", labels),
            describe(CONFIDENCE, CONFIDENCE, "number", confidence(scores)),
        ]
    elif task.kind is TaskKind.RECOGNITION:
        texts = np.array([*transcripts.to_texts(transcripts.codes_of(scores)), ""], dtype=object)[:-1]
        predictions = [
            describe(PREDICTION, PREDICTION, "text", texts),
            describe(CONFIDENCE, CONFIDENCE, "number", transcripts.confidence_of(scores)),
        ]
    else:
        predictions = [describe(PREDICTION, PREDICTION, "number", scores[:, 0])]
    memo: dict[tuple[Any, ...], tuple[Limit, ...]] = {}
    described = [limited(c, len(features) + len(predictions), memo) for c in (*features, *predictions)]
    shown = [m for m in metrics if m.source == (metrics[-1].source if metrics else "")]
    return Reference(
        tuple(described[: len(features)]),
        tuple(described[len(features) :]),
        source,
        {m.name: m.value for m in shown},
        shown[0].rows if shown else 0,
    )


def _sample(rows: int) -> NDArray[np.intp]:
    if rows <= _MOST_ROWS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(_SEED).choice(rows, _MOST_ROWS, replace=False))


def _kind(meaning: SemanticType) -> str:
    named = {SemanticType.CATEGORY: "category", SemanticType.TEXT: "text", SemanticType.DATETIME: "date"}
    return named.get(meaning, "number")


def describe(name: str, carrier: str, kind: str, values: NDArray[Any]) -> ColumnReference:
    """Count a column of some kind in cells of its own; ``carrier`` is the graph's input or output."""
    empty = ColumnReference(name, carrier, kind)
    if kind == "category":
        ranked = [v for v, _ in sorted(Counter(texts_of(values)).items(), key=lambda x: (-x[1], x[0])) if v][:KNOWN]
        empty = ColumnReference(name, carrier, kind, values=tuple(ranked[:NAMED]), others=tuple(ranked[NAMED:]))
    elif kind != "date":
        empty = ColumnReference(name, carrier, kind, edges=_edges(_lengths(values) if kind == "text" else values))
    counts = np.bincount(empty.cells(values), minlength=empty.size)
    return ColumnReference(name, carrier, kind, empty.edges, empty.values, empty.others, tuple(int(v) for v in counts))


def _lengths(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.array([len(v) or np.nan for v in texts_of(values)], dtype=np.float64)


def _edges(values: NDArray[Any]) -> tuple[float, ...]:
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return (0.0, 0.0)
    cuts = np.quantile(known, np.linspace(0, 1, CELLS + 1), method="inverted_cdf")
    low, high = float(cuts[0]), float(cuts[-1])
    inner = sorted({float(c) for c in cuts[1:-1]} - {high})
    return (low, *inner, high)
