"""Requests that need each other: checked, and put into an order in which each comes after what it needs."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.jobs.queue.types import Request


def in_order(requests: Sequence[Request]) -> list[int]:
    """Give the places of requests, each after those that it needs by name; otherwise as they were given.

    Raises
    ------
    NotFoundError
        For a name that no request of the call has.
    OptionError
        For a name that several have and somebody needs, or for requests that wait for each other.

    Examples
    --------
    >>> from tidemill.jobs.queue.types import Until
    >>> in_order([Request("b", needs={"a": Until.DONE}), Request("a")])
    [1, 0]
    """
    places = places_of(requests)
    needs = [sorted({places[n] for n in r.needs if isinstance(n, str)}) for r in requests]
    order: list[int] = []
    done: set[int] = set()
    while len(order) < len(requests):
        free = [i for i in range(len(requests)) if i not in done and done.issuperset(needs[i])]
        if not free:
            stuck = sorted(requests[i].called for i in range(len(requests)) if i not in done)
            raise OptionError(f"These jobs wait for each other: {', '.join(stuck[:10])}.")
        order.append(free[0])
        done.add(free[0])
    return order


def places_of(requests: Sequence[Request]) -> dict[str, int]:
    """Give the place of each request that another one needs, by name."""
    wanted = {n for r in requests for n in r.needs if isinstance(n, str)}
    places: dict[str, int] = {}
    for place, request in enumerate(requests):
        if request.called in places and request.called in wanted:
            raise OptionError(f"Two jobs are called {request.called!r}, and another one needs it.")
        places.setdefault(request.called, place)
    for name in sorted(wanted):
        if name not in places:
            raise NotFoundError.of("job in this call named", name, places)
    return places
