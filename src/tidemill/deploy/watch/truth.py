"""The truth that comes late, beside what was predicted."""

from __future__ import annotations

import orjson

from tidemill.deploy.labels import compare, number
from tidemill.deploy.watch.recent import Place
from tidemill.deploy.watch.window import Window

MOST_PAIRS = 2500
"""Pairs of true and predicted label that are counted by name: fifty classes."""
REST = "…"


def count_truth(window: Window, label_json: str, place: Place, *, several: bool | None = None) -> bool | None:
    """Add one row's truth to a window.

    Parameters
    ----------
    window : Window
        Of the revision that answered.
    label_json : str
        The truth as it was told.
    place : Place
        The row.
    several : bool, optional
        Whether the model may give a row several labels, as for `tidemill.deploy.labels.compare`.

    Returns
    -------
    bool or None
        Whether the truth was predicted; None for a regression and for answers without labels.
    """
    window.feedback += 1
    truth = orjson.loads(label_json)
    if place.batch.labels is not None:
        predicted = place.batch.labels[place.index]
        right, text = compare(truth, predicted, several=several)
        window.feedback_right += right
        window.feedback_wrong += not right
        pair = f"{text}\t{predicted}"
        window.confusion[
            pair if pair in window.confusion or len(window.confusion) < MOST_PAIRS else f"{REST}\t{REST}"
        ] += 1
        return right
    truth_value, values = number(truth), place.batch.values
    if truth_value is not None and values is not None:
        error = truth_value - float(values[place.index])
        window.feedback_error_sum += abs(error)
        window.feedback_square_sum += error * error
    return None
