"""Images of one size side by side: a graph takes a stack of equally large images at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

MOST_IMAGES = 16
"""Images of a stack, which begins anew at every multiple of so many places: whoever answers some of many images, from
such a multiple on, has the same stacks, and the same bits. Larger ones are no quicker on one thread."""
MOST_STACK_BYTES = 1 << 26
"""A stack of large images ends earlier, but holds at least one."""


def stacks(images: Iterable[Any]) -> Iterator[tuple[list[int], Any]]:
    """Give places and a stack (n, height, width, 3) for neighbours of one size, in order; what is None is left out.

    >>> images = [np.zeros((2, 2, 3)), np.zeros((2, 2, 3)), None, np.zeros((4, 2, 3))]
    >>> [(places, stack.shape) for places, stack in stacks(images)]
    [([0, 1], (2, 2, 2, 3)), ([3], (1, 4, 2, 3))]
    """
    places: list[int] = []
    waiting: list[Any] = []
    for place, image in enumerate(images):
        if waiting and (place % MOST_IMAGES == 0 or not _joins(image, waiting)):
            yield places, np.stack(waiting)
            places, waiting = [], []
        if image is None:
            continue
        places.append(place)
        waiting.append(image)
    if waiting:
        yield places, np.stack(waiting)


def _joins(image: Any, waiting: list[Any]) -> bool:
    """Whether what comes next leaves a stack open."""
    if image is None:
        return True
    return bool(image.shape == waiting[0].shape and (len(waiting) + 1) * image.nbytes <= MOST_STACK_BYTES)
