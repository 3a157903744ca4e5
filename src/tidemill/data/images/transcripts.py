"""Texts of lines as they are learned and compared: composed characters, without the space around them."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.data import vector


def transcripts_of(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    r"""Transcripts of a column, objects of shape (n,); the empty text where there is none.

    Letters with marks are composed (Unicode's form NFC), so that one sign is one character; space around a text and
    breaks of lines are no part of it.

    Examples
    --------
    >>> transcripts_of(pa.array([" a\u0308b\n", None])).tolist()
    ['äb', '']
    """
    texts = vector.plain(column).to_pylist()
    out = np.empty(len(texts), dtype=object)
    for place, text in enumerate(texts):
        out[place] = "" if text is None else _clean(str(text))
    return out


def _clean(text: str) -> str:
    whole = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate stands for nothing
    return " ".join(unicodedata.normalize("NFC", whole).splitlines()).strip()
