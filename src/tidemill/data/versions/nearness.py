"""Rows that are nearly the same: rounded numbers, MinHash of texts, average hashes of images."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

_HASHES, _BANDS = 64, 16
_PRIME = (1 << 61) - 1
_WORD = re.compile(r"\w+")
IMAGE_PLACES = 5
"""Images whose average hashes differ in at most so many of 64 places are the same image, scaled or compressed anew."""


def rounded(values: NDArray[np.float64], tolerance: float) -> NDArray[np.float64]:
    """Round to multiples of ``tolerance`` times the standard deviation.

    Examples
    --------
    >>> len(set(rounded(np.array([1.0, 1.0001, 5.0]), 0.1).tolist()))
    2
    """
    finite = values[np.isfinite(values)]
    step = float(finite.std()) * tolerance if len(finite) else 0.0
    return np.asarray(np.round(values / step) if step > 0 else values)


def shingles(text: str) -> frozenset[str]:
    """The three-word pieces of a text in lower case; the words themselves where there are fewer."""
    words = _WORD.findall(text.lower())
    return frozenset(" ".join(words[i : i + 3]) for i in range(len(words) - 2)) or frozenset(words)


def minhash(pieces: frozenset[str]) -> NDArray[np.uint64]:
    """Sketch a set: equal places in two sketches are as many as the sets overlap (Broder 1997).

    Examples
    --------
    >>> bool((minhash(frozenset({"a", "b"})) == minhash(frozenset({"b", "a"}))).all())
    True
    """
    if not pieces:
        return np.zeros(_HASHES, dtype=np.uint64)
    digests = [hashlib.blake2b(p.encode(), digest_size=4).digest() for p in sorted(pieces)]
    values = np.frombuffer(b"".join(digests), dtype=np.uint32).astype(np.uint64)
    return np.asarray(((values[:, None] * _FACTORS + _SHIFTS) % np.uint64(_PRIME)).min(axis=0))


_rng = np.random.default_rng(1997)
_FACTORS = _rng.integers(1, 1 << 29, _HASHES, dtype=np.uint64)
_SHIFTS = _rng.integers(0, 1 << 60, _HASHES, dtype=np.uint64)


def join_similar_texts(group: NDArray[np.int64], texts: Sequence[str | None], similarity: float) -> NDArray[np.int64]:
    """Cut groups where texts differ, keeping together what overlaps by ``similarity`` or more."""
    sketches = np.stack([minhash(shingles(t or "")) for t in texts]) if texts else np.empty((0, _HASHES), np.uint64)
    rows = _HASHES // _BANDS
    pairs: dict[tuple[int, int, bytes], list[int]] = defaultdict(list)
    for i, sketch in enumerate(sketches):
        for band in range(_BANDS):
            pairs[(int(group[i]), band, sketch[band * rows : (band + 1) * rows].tobytes())].append(i)
    return _joined(
        len(texts),
        ((members[0], other) for members in pairs.values() for other in members[1:]),
        lambda a, b: bool((sketches[a] == sketches[b]).mean() >= similarity),
    )


def join_similar_hashes(group: NDArray[np.int64], hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Cut groups where image hashes differ in more than `IMAGE_PLACES` places."""
    members: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    # Of 6 stretches at least one is equal where at most 5 places differ.
    cuts = np.linspace(0, 64, IMAGE_PLACES + 2).astype(int)
    for i, value in enumerate(hashes.tolist()):
        for band in range(IMAGE_PLACES + 1):
            low, high = int(cuts[band]), int(cuts[band + 1])
            members[(int(group[i]), band, (value >> low) & ((1 << (high - low)) - 1))].append(i)
    found = ((a, b) for same in members.values() for n, b in enumerate(same[1:], 1) for a in same[max(0, n - 64) : n])
    return _joined(len(hashes), found, lambda a, b: (int(hashes[a]) ^ int(hashes[b])).bit_count() <= IMAGE_PLACES)


def _joined(count: int, pairs: Iterable[tuple[int, int]], alike: Callable[[int, int], bool]) -> NDArray[np.int64]:
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        x, y = root(a), root(b)
        if x != y and alike(a, b):
            parent[max(x, y)] = min(x, y)
    return np.array([root(i) for i in range(count)], dtype=np.int64)
