"""Which models share the memory there is: admission by what was measured, and who is let go for whom. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

M = TypeVar("M")
_MIB = 1 << 20


@dataclass(frozen=True)
class Holder(Generic[M]):
    """A model that has workers.

    Parameters
    ----------
    model : object
        Which.
    bytes : int
        What its workers may hold.
    last_used : float
        When it last answered.
    idle : bool
        True where it may be let go.
    """

    model: M
    bytes: int
    last_used: float
    idle: bool


@dataclass(frozen=True)
class Shortage:
    """There is no room, even if every idle model were let go."""

    needed: int
    held: int
    idle: int
    limit: int

    def describe(self, name: str) -> str:
        """For people, with the numbers."""
        return (
            f"{name!r} needs {self.needed // _MIB:,} MiB, but of {self.limit // _MIB:,} MiB "
            f"{self.held // _MIB:,} MiB are held by models at work, and {self.idle // _MIB:,} MiB by idle ones."
        )


def plan(limit: int, needed: int, holders: Sequence[Holder[M]]) -> list[M] | Shortage:
    """Say which idle models to let go so that ``needed`` bytes fit; the least recently used first.

    Examples
    --------
    >>> plan(100, 50, [Holder("a", 40, 1.0, True), Holder("b", 30, 2.0, True)])
    ['a']
    >>> plan(100, 50, [Holder("a", 60, 1.0, False)])
    Shortage(needed=50, held=60, idle=0, limit=100)
    """
    used = sum(h.bytes for h in holders)
    gone: list[M] = []
    for holder in sorted((h for h in holders if h.idle), key=lambda h: h.last_used):
        if used + needed <= limit:
            break
        gone.append(holder.model)
        used -= holder.bytes
    if used + needed <= limit:
        return gone
    idle = sum(h.bytes for h in holders if h.idle)
    return Shortage(needed, sum(h.bytes for h in holders) - idle, idle, limit)
