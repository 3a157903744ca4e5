"""The truth that comes late, beside what was predicted."""

from __future__ import annotations

import math
from typing import Any

import orjson

from tidemill.deploy.watch.recent import Place
from tidemill.deploy.watch.window import Window

MOST_PAIRS = 2500
"""Pairs of true and predicted label that are counted by name: fifty classes."""
REST = "…"


def label_text(value: Any) -> str:
    """Write a label as the graph writes it: whole numbers without a point, booleans in lower case.

    Examples
    --------
    >>> label_text(1.0), label_text(True), label_text(" yes "), label_text("True")
    ('1', 'true', 'yes', 'True')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    return str(value).strip()


def same_label(truth: str, predicted: str) -> bool:
    """True where two labels are one: the same text, the same number, or the same truth value.

    Examples
    --------
    >>> same_label("1", "1.0"), same_label("True", "true"), same_label("yes", "no")
    (True, True, False)
    """
    if truth == predicted:
        return True
    if {truth.lower(), predicted.lower()} <= {"true", "false"}:
        return truth.lower() == predicted.lower()
    a, b = number(truth), number(predicted)
    return a is not None and a == b


def number(value: Any) -> float | None:
    """Read a finite number; None where there is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def is_right(label_json: str, place: Place) -> bool | None:
    """Whether the truth was predicted; None for a regression and for answers without labels."""
    labels = place.batch.labels
    if labels is None:
        return None
    return same_label(label_text(orjson.loads(label_json)), labels[place.index])


def count_truth(window: Window, label_json: str, place: Place) -> bool | None:
    """Add one row's truth to a window; gives `is_right`."""
    window.feedback += 1
    right = is_right(label_json, place)
    if right is not None:
        window.feedback_right += right
        window.feedback_wrong += not right
        predicted = (place.batch.labels or [""])[place.index]
        truth = predicted if right else label_text(orjson.loads(label_json))
        pair = f"{truth}\t{predicted}"
        window.confusion[
            pair if pair in window.confusion or len(window.confusion) < MOST_PAIRS else f"{REST}\t{REST}"
        ] += 1
        return right
    truth_value, values = number(orjson.loads(label_json)), place.batch.values
    if truth_value is not None and values is not None:
        error = truth_value - float(values[place.index])
        window.feedback_error_sum += abs(error)
        window.feedback_square_sum += error * error
    return None
