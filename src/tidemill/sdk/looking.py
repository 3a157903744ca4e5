"""Images looked at one after the other, whatever is learned from them: which can be read, and which stand twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.bundle.runner.stacks import stacks
from tidemill.core.errors import DataError
from tidemill.core.schema import Columns
from tidemill.data.checks import Finding
from tidemill.data.images.pictures import Unreadable, look
from tidemill.data.images.source import ImageTable

NAMED = 5
"""So many files are named in a message."""


def decoded(
    table: ImageTable, columns: Columns, notices: list[str], take: Callable[[list[int], Any], None]
) -> NDArray[np.int64]:
    """Decode all images, some at a time.

    Parameters
    ----------
    table : ImageTable
        The images.
    columns : Columns
        Gets their ``height`` and ``width``.
    notices : list of str
        Gets a word about those that can't be read.
    take : callable
        Called with the places of some images and a stack of them.

    Returns
    -------
    ndarray of int64
        Numbers of those that can be read.

    Raises
    ------
    DataError
        Where none can be read.
    """
    bad: list[Unreadable] = []

    def seen() -> Iterator[NDArray[np.uint8] | None]:
        for place, found in enumerate(look(table.pictures)):
            if isinstance(found, Unreadable):
                bad.append(found)
                yield None
                continue
            columns["height"][place], columns["width"][place] = found.shape[:2]
            yield found

    kept: list[int] = []
    for places, stack in stacks(seen()):
        take(places, stack)
        kept += places
    if not kept:
        raise DataError("None of the images can be read.", where=table.source, hint=f"The first: {bad[0]}.")
    if bad:
        shown = "; ".join(str(b) for b in bad[:NAMED]) + ("; …" if len(bad) > NAMED else "")
        notices.append(f"{len(bad):,} of {len(table.pictures):,} images can't be read and are left out: {shown}.")
    return np.array(kept, dtype=np.int64)


def marks_of(images: Iterable[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """Numbers that are the same where images look the same.

    Examples
    --------
    >>> one, other = np.zeros((1, 2, 2), np.uint8), np.ones((1, 2, 2), np.uint8)
    >>> marks = marks_of([one, other, one])
    >>> bool(marks[0] == marks[2]), bool(marks[0] == marks[1])
    (True, False)
    """
    return np.array(
        [int.from_bytes(blake2b(image.tobytes(), digest_size=8).digest(), "big") for image in images], dtype=np.uint64
    )


def in_both(marks: NDArray[np.uint64], train: NDArray[np.int64], test: NDArray[np.int64], noun: str) -> list[Finding]:
    """Say how many of the locked images stand among the training images, too."""
    shared = np.intersect1d(marks[train], marks[test])
    if not len(shared):
        return []
    count = int(np.isin(marks[test], shared).sum())
    return [Finding(
        "warning", "image_in_train_and_test", None,
        f"{count:,} of {len(test):,} locked {noun} stand among the training {noun}, too.",
        f"Figures on the locked {noun} are too good; remove the copies.",
    )]  # fmt: skip
