"""Labels as people tell them, in the spelling of answers: what is told at the door and what is counted is the same."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import orjson

from tidemill.core.task import JOINT


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


def labels_told(value: Any) -> tuple[str, ...]:
    """Labels of a row as feedback tells them, each once: a list, or a text with all of them.

    A text is the JSON list that it looks like, or is taken apart at `tidemill.core.task.JOINT`, which joins them in
    answers. Labels are spelled as those of a table's cells are (`tidemill.data.multilabel`, which a front never loads).

    Examples
    --------
    >>> labels_told([" sea", "boat", "sea"]), labels_told("boat; sea"), labels_told('["sea", 1.0]'), labels_told([])
    (('sea', 'boat'), ('boat', 'sea'), ('sea', '1'), ())
    """
    parts: Sequence[Any] = value if isinstance(value, list) else _parts(value)
    return tuple(dict.fromkeys(text for part in parts if part is not None and (text := label_text(part))))


def _parts(value: Any) -> Sequence[Any]:
    if not isinstance(value, str):
        return [value]
    text = value.strip()
    if text.startswith("[") and text.endswith("]"):
        with contextlib.suppress(ValueError):
            found = orjson.loads(text)
            if not any(isinstance(part, (list, dict)) for part in found):
                return list(found)
    return text.split(JOINT)


def same_label(truth: str, predicted: str) -> bool:
    """True where two labels are one: the same text, the same number, or the same truth value.

    Examples
    --------
    >>> same_label("1", "1.0"), same_label("True", "true"), same_label("yes", "no")
    (True, True, False)
    """
    return truth == predicted or _meant(truth) == _meant(predicted)


def compare(truth: Any, predicted: str, *, several: bool | None = None) -> tuple[bool, str]:
    """Whether a truth was predicted, and the truth as text, in the spelling of the prediction where they are one.

    Several labels of a row are right where they are the same set: their order and how often one is named say nothing.
    One that the model doesn't know makes the row wrong, as it does where a row has one label.

    Parameters
    ----------
    truth : Any
        As it was told.
    predicted : str
        As the graph wrote it.
    several : bool, optional
        Whether the model may give a row several labels; None where that is not known, and only a list has several.

    Examples
    --------
    >>> compare(["sea", "boat"], "boat;sea", several=True), compare("sea;fish", "boat;sea", several=True)
    ((True, 'boat;sea'), (False, 'fish;sea'))
    >>> compare(1.0, "1"), compare("no", "yes")
    ((True, '1'), (False, 'no'))
    """
    if not (several or (several is None and isinstance(truth, list))):
        text = label_text(truth)
        return (True, predicted) if same_label(text, predicted) else (False, text)
    given = set(predicted.split(JOINT)) if predicted else set()
    spellings = {_meant(label): label for label in sorted(given)}
    told = {label if label in given else spellings.get(_meant(label), label) for label in labels_told(truth)}
    return (True, predicted) if told == given else (False, JOINT.join(sorted(told)))


def number(value: Any) -> float | None:
    """Read a finite number; None where there is none."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _meant(label: str) -> str | float:
    """What spellings of one label have in common: the number or the truth value that they are, else the text."""
    if label.lower() in ("true", "false"):
        return label.lower()
    found = number(label)
    return label if found is None else found
