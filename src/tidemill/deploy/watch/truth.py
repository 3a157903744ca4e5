"""The truth that comes late, beside what was predicted."""

from __future__ import annotations

from typing import Any

import orjson

from tidemill.core import transcripts
from tidemill.deploy.labels import compare, label_text, number
from tidemill.deploy.watch.recent import Place
from tidemill.deploy.watch.window import Window

MOST_PAIRS = 2500
"""Pairs of true and predicted label that are counted by name: fifty classes."""
REST = "…"


def count_truth(
    window: Window, label_json: str, place: Place, *, several: bool | None = None, folded: bool = False
) -> bool | None:
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
    folded : bool
        Whether upper and lower case count as the same in texts that are read.

    Returns
    -------
    bool or None
        Whether the truth was predicted, of a text the whole; None for a regression and for answers of another kind.
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
    if place.batch.texts is not None:
        return _count_text(window, truth, place.batch.texts[place.index], folded)
    truth_value, values = number(truth), place.batch.values
    if truth_value is not None and values is not None:
        error = truth_value - float(values[place.index])
        window.feedback_error_sum += abs(error)
        window.feedback_square_sum += error * error
    return None


def _count_text(window: Window, truth: Any, read: str, folded: bool) -> bool:
    """A text is right as a whole; how many of its characters are, is counted as the character error rate does."""
    told, seen = (transcripts.to_codes([transcripts.cleaned(text)]) for text in (label_text(truth), read))
    if folded:
        told, seen = transcripts.folded(told), transcripts.folded(seen)
    errors = int(transcripts.edit_distances(told, seen)[0])
    window.feedback_characters += int(transcripts.lengths(told)[0])
    window.feedback_character_errors += errors
    window.feedback_right += not errors
    window.feedback_wrong += bool(errors)
    return not errors
