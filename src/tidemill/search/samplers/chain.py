"""One sampler after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tidemill.core.protocols import Sampler
from tidemill.core.space import Space, config_key
from tidemill.core.trial import Config, Trial


class Listed(Protocol):
    """A sampler that knows all its configs beforehand."""

    def configs(self, space: Space) -> list[Config]:
        """All configs in order."""

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """As in `tidemill.core.protocols.Sampler`."""


class ChainSampler:
    """Runs through listed samplers, then asks an endless one.

    Which sampler answers depends on ``number`` and the space alone. A config that an earlier list already has is
    left out of a later one.

    Parameters
    ----------
    first : sequence of Listed
        Samplers with a list, in order.
    then : Sampler or None
        Who is asked after the lists; None ends the study there.
    """

    def __init__(self, first: Sequence[Listed], then: Sampler | None) -> None:
        self._first = tuple(first)
        self._then = then
        self._known: tuple[Space, list[tuple[Config, str]]] | None = None

    def listed(self, space: Space) -> list[tuple[Config, str]]:
        """Configs of all lists in order, each once, with their origins."""
        if self._known is None or self._known[0] is not space:
            out: dict[str, tuple[Config, str]] = {}
            for sampler in self._first:
                for place in range(len(sampler.configs(space))):
                    asked = sampler.ask(space, (), place)
                    if asked is not None:
                        out.setdefault(config_key(asked[0]), asked)
            self._known = (space, list(out.values()))
        return self._known[1]

    def turn(self, space: Space, origin: str, number: int) -> float | None:
        """Share of the time that a trial may take, where so much is left; None for as much as any trial."""
        return None

    def needs_history(self, space: Space, number: int) -> bool:
        """True where the answer for ``number`` depends on the history."""
        return number >= len(self.listed(space))

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Return the listed config at place ``number``, then whatever the last sampler says."""
        listed = self.listed(space)
        if number < len(listed):
            config, origin = listed[number]
            return dict(config), origin
        return None if self._then is None else self._then.ask(space, history, number)
