"""Transcripts as numbers: how texts that were read from images travel through metrics, ledger and graph.

A transcript is a row of Unicode code points, filled up with `END` behind its last character. The raw scores of a
recogniser are a confidence and such a row side by side, as floats: every code point is below 2^21, and float32 holds
whole numbers up to 2^24, so that nothing is lost.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

END = -1
"""Stands behind the last character of a row."""
GREEDY, BEAM = "greedy", "beam"
"""How a text is decoded from what a net says of a line: the best path through it, or a search by beams.

Trials are judged by best paths: what a study says of its models, it says of these.
"""

Codes = NDArray[np.int32]
"""Shape (n, length of the longest)."""


def cleaned(text: str) -> str:
    r"""Write a text as it is learned and compared.

    Letters with marks are composed (Unicode's form NFC), so that one sign is one character; space around a text and
    breaks of lines are no part of it.

    Examples
    --------
    >>> cleaned(" a\u0308b\n")
    'äb'
    """
    whole = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate stands for nothing
    return " ".join(unicodedata.normalize("NFC", whole).splitlines()).strip()


def to_codes(texts: Sequence[str] | NDArray[Any]) -> Codes:
    """Turn texts into rows of code points.

    Examples
    --------
    >>> to_codes(["ab", ""]).tolist()
    [[97, 98], [-1, -1]]
    """
    rows = [[ord(c) for c in str(text)] for text in texts]
    out = np.full((len(rows), max(map(len, rows), default=0)), END, dtype=np.int32)
    for row, codes in zip(out, rows, strict=True):
        row[: len(codes)] = codes
    return out


def to_texts(codes: NDArray[Any]) -> list[str]:
    """Undo `to_codes`; takes code points as floats, too.

    Examples
    --------
    >>> to_texts(to_codes(["böse", ""]))
    ['böse', '']
    """
    whole = np.asarray(codes).astype(np.int64)
    return ["".join(map(chr, row[row >= 0].tolist())) for row in whole]


def to_scores(confidence: NDArray[Any], texts: Sequence[str] | NDArray[Any]) -> NDArray[np.float32]:
    """Put confidences (n,) before transcripts: raw scores of shape (n, 1 + length of the longest).

    Examples
    --------
    >>> to_scores(np.array([0.5]), ["ab"]).tolist()
    [[0.5, 97.0, 98.0]]
    """
    return np.column_stack([np.asarray(confidence, dtype=np.float32), to_codes(texts).astype(np.float32)])


def confidence_of(scores: NDArray[Any]) -> NDArray[np.float64]:
    """Confidences of raw scores, shape (n,)."""
    return np.asarray(scores[:, 0], dtype=np.float64)


def codes_of(scores: NDArray[Any]) -> Codes:
    """Code points of raw scores."""
    return np.asarray(scores[:, 1:]).astype(np.int32)


def lengths(codes: NDArray[Any]) -> NDArray[np.int64]:
    """Characters of each row.

    Examples
    --------
    >>> lengths(to_codes(["ab", "", "c"])).tolist()
    [2, 0, 1]
    """
    return np.asarray((codes != END).sum(axis=1), dtype=np.int64)


def folded(codes: NDArray[Any]) -> Codes:
    """Turn every row into lower case, as `str.casefold` does where that keeps the number of characters.

    Examples
    --------
    >>> to_texts(folded(to_codes(["AbÖ"])))
    ['abö']
    """
    known, places = np.unique(codes, return_inverse=True)
    return np.array([_folded(int(c)) for c in known], dtype=np.int32)[places].reshape(codes.shape)


def _folded(code: int) -> int:
    if code < 0:
        return code
    text = chr(code).casefold()
    return ord(text) if len(text) == 1 else code


def edit_distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Fewest characters to insert, delete or replace that turn each row of ``a`` into that of ``b`` (Levenshtein).

    All rows are worked on at once, one character of ``a`` after the other: an insertion is a running minimum.

    Parameters
    ----------
    a, b : ndarray of int, shapes (n, any)
        As `to_codes` gives them.

    Returns
    -------
    ndarray of int64, shape (n,)

    Examples
    --------
    >>> edit_distances(to_codes(["kitten", "a", ""]), to_codes(["sitting", "a", "xy"])).tolist()
    [3, 0, 2]
    """
    out = np.zeros(len(a), dtype=np.int64)
    differ = np.flatnonzero(~same(a, b))
    if len(differ):
        out[differ] = _distances(np.asarray(a)[differ], np.asarray(b)[differ])
    return out


def same(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are the same text, shape (n,).

    Examples
    --------
    >>> same(to_codes(["ab", "b"]), to_codes(["ab", "bcd"])).tolist()
    [True, False]
    """
    width = min(a.shape[1], b.shape[1])
    equal = (a[:, :width] == b[:, :width]).all(axis=1)
    return np.asarray(equal & (a[:, width:] == END).all(axis=1) & (b[:, width:] == END).all(axis=1))


def _distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    ends_a, ends_b = lengths(a), lengths(b)
    steps = np.arange(int(ends_b.max()) + 1, dtype=np.int32)
    b = b[:, : len(steps) - 1]
    row = np.tile(steps, (len(a), 1))  # distances of the empty text from each beginning of b
    for i in range(int(ends_a.max())):
        inside = np.flatnonzero(i < ends_a)
        before = row[inside]
        now = before + 1  # delete the character of a
        replaced = before[:, :-1] + (b[inside] != a[inside, i, None])
        now[:, 1:] = np.minimum(now[:, 1:], replaced)
        row[inside] = np.minimum.accumulate(now - steps, axis=1) + steps  # insert characters of b
    return np.asarray(row[np.arange(len(a)), ends_b], dtype=np.int64)


def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Put rows of different widths under each other; shorter ones are filled up with `END`.

    Examples
    --------
    >>> joined([to_codes(["a"]), to_codes(["bcd"])]).tolist()
    [[97, -1, -1], [98, 99, 100]]
    """
    width = max((part.shape[1] for part in parts), default=0)
    rows = sum(len(part) for part in parts)
    out = np.full((rows, width), END, dtype=parts[0].dtype if parts else np.int32)
    start = 0
    for part in parts:
        out[start : start + len(part), : part.shape[1]] = part
        start += len(part)
    return out
