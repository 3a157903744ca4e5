"""What a model answered as people read it: labels in the type of the training data and probabilities, values, texts."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from tidemill.core.decision import lists_of
from tidemill.core.task import Task, TaskKind
from tidemill.deploy.engine.query import Outputs

_LABEL, _PROBABILITIES, _PREDICTION, _CONFIDENCE = "label", "probabilities", "prediction", "confidence"


def answers_of(task: Task, outputs: Outputs, start: int, stop: int) -> list[dict[str, Any]]:
    """Labels and probabilities, values, or texts and how sure they are, for some rows of a batch."""
    found = outputs.by_name()
    if task.kind is TaskKind.RECOGNITION:
        texts, sure = found[_PREDICTION][start:stop], _plain(found[_CONFIDENCE][start:stop])
        return [{"text": str(text), "confidence": value} for text, value in zip(texts, sure, strict=True)]
    if _LABEL not in found:
        return [{"value": v} for v in _plain(found[_PREDICTION][start:stop])]
    labels = labels_of(task, found[_LABEL][start:stop])
    name = "labels" if task.kind is TaskKind.MULTILABEL else "label"
    return [
        {name: label, "probabilities": dict(zip(task.classes, row, strict=True))}
        for label, row in zip(labels, found[_PROBABILITIES][start:stop].tolist(), strict=True)
    ]


def labels_of(task: Task, texts: NDArray[Any]) -> list[Any]:
    """Labels in the type that they had in the training data, as `Bundle.label_values` gives them; lists of several."""
    if task.kind is TaskKind.MULTILABEL:
        return list(lists_of(texts))
    kind = task.label_type
    if kind == "integer":
        return [int(v) for v in texts]
    if kind == "number":
        return [float(v) for v in texts]
    if kind == "boolean":
        return [str(v).lower() == "true" for v in texts]
    return [str(v) for v in texts]


def _plain(values: NDArray[Any]) -> list[Any]:
    return [v if math.isfinite(v) else None for v in values.tolist()]
