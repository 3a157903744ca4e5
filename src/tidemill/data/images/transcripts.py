"""Texts of lines as they are learned and compared: composed characters, without the space around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.transcripts import cleaned
from tidemill.data import vector


def transcripts_of(column: pa.ChunkedArray | pa.Array) -> NDArray[Any]:
    r"""Transcripts of a column, objects of shape (n,), `cleaned`; the empty text where there is none.

    Examples
    --------
    >>> transcripts_of(pa.array([" a\u0308b\n", None])).tolist()
    ['äb', '']
    """
    texts = vector.plain(column).to_pylist()
    out = np.empty(len(texts), dtype=object)
    for place, text in enumerate(texts):
        out[place] = "" if text is None else cleaned(str(text))
    return out
