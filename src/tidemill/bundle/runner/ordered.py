"""Works ahead of a consumer on several threads, without running away from it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def in_order(function: Callable[[Any], T], items: Iterable[Any], threads: int) -> Iterator[T]:
    """Give ``function(item)`` for every item, in order; at most ``2 * threads`` items are in hand at a time.

    >>> list(in_order(lambda v: v * v, range(4), threads=2))
    [0, 1, 4, 9]
    """
    if threads <= 1:
        yield from map(function, items)
        return
    ahead: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                ahead.append(pool.submit(function, item))
                if len(ahead) >= 2 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
