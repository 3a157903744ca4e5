"""What an evaluation could not use as it should: rows without a known target, images that can't be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

NAMED = 5
"""So many are named; all are counted."""


@dataclass(frozen=True)
class Gap:
    """Rows or images of one fault.

    Parameters
    ----------
    count, of : int
        How many there are, and of how many.
    noun : str
        What they are: ``"rows"``, ``"images"``.
    what : str
        What is wrong with them, and what became of them.
    named : tuple of str
        The first of them.

    Examples
    --------
    >>> print(Gap.of_names(["a.png", "b.png"], 9, "images", "can't be read and are left out"))
    2 of 9 images can't be read and are left out: a.png; b.png.
    """

    count: int
    of: int
    noun: str
    what: str
    named: tuple[str, ...] = ()

    @classmethod
    def of_names(cls, names: Sequence[str], of: int, noun: str, what: str) -> Gap:
        """Count them all, and name the first."""
        return cls(len(names), of, noun, what, tuple(names[:NAMED]))

    def __str__(self) -> str:
        more = "; …" if len(self.named) < self.count else ""
        named = f": {'; '.join(self.named)}{more}" if self.named else ""
        return f"{self.count:,} of {self.of:,} {self.noun} {self.what}{named}."

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {"count": self.count, "of": self.of, "what": f"{self.noun} {self.what}", "first": list(self.named)}


OnGap = Callable[[Gap], None]
"""Is told of every gap of an evaluation."""


def ignore(gap: Gap) -> None:
    """Hear nothing of gaps."""
