"""How answers are written as CSV, by the shipped ``run.py`` and by Tidemill alike: the same rows, the same bytes."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any, TextIO


def answer_header(classes: Sequence[str]) -> list[str]:
    """Column names: ``prediction``, then ``proba_<label>`` for each class.

    >>> answer_header(["no", "yes"])
    ['prediction', 'proba_no', 'proba_yes']
    """
    return ["prediction", *(f"proba_{label}" for label in classes)]


def write_answers(file: TextIO, outputs: Mapping[str, Any]) -> None:
    r"""Write one chunk of graph outputs; a float32 has the fewest digits that give it back.

    >>> import io, numpy as np
    >>> out = io.StringIO()
    >>> write_answers(out, {"prediction": np.float32([0.1, 2])})
    >>> out.getvalue()
    '0.1\n2.0\n'
    """
    writer = csv.writer(file, lineterminator="\n")
    if "prediction" in outputs:
        writer.writerows([str(value)] for value in outputs["prediction"])
        return
    for label, row in zip(outputs["label"], outputs["probabilities"], strict=True):
        writer.writerow([label, *map(str, row)])
