"""Images of one size side by side: a graph takes a stack of equally large images at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

MOST_IMAGES = 64
"""Images of a stack."""
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
        if image is None:
            continue
        full = len(waiting) >= MOST_IMAGES or (waiting and (len(waiting) + 1) * image.nbytes > MOST_STACK_BYTES)
        if waiting and (full or image.shape != waiting[0].shape):
            yield places, np.stack(waiting)
            places, waiting = [], []
        places.append(place)
        waiting.append(image)
    if waiting:
        yield places, np.stack(waiting)
