"""Who is tried first where a training takes most of the time that there is: a short turn for each, a long one then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tidemill.core.protocols import Sampler
from tidemill.core.space import Space
from tidemill.core.trial import Config, Trial, TrialState
from tidemill.search.samplers.chain import ChainSampler, Listed

LEADER = "leader"
"""Origin of the trial that gets the long turn."""


class TurnsSampler(ChainSampler):
    """Runs through a first round, proposes its best config once more, and goes on as any chain.

    It is for trainings that cut themselves to the time they get, and whose learning rate comes to its end in it: what a
    short turn gives can be compared and shipped, but not gone on with, so that the leader begins anew. A round of one
    is none: its config gets the long turn at once.

    Parameters
    ----------
    round_ : Listed
        Configs of the first round.
    first, then
        As `ChainSampler` takes them.
    losses : callable
        Losses of finished trials by number.
    share : float
        Share of the time that the first round may take, all its turns together.
    """

    def __init__(
        self,
        round_: Listed,
        first: Sequence[Listed],
        then: Sampler | None,
        losses: Callable[[Sequence[Trial]], Mapping[int, float]],
        share: float,
    ) -> None:
        super().__init__([round_, *first], then)
        self._round = round_
        self._losses = losses
        self._share = share

    def turn(self, space: Space) -> float | None:
        """Share of the time that each config of the first round may take; None where there is no round."""
        count = len(self._round.configs(space))
        return self._share / count if count > 1 else None

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Return a config as a chain does, behind the first round its leader; None while a turn is under way."""
        count = len(self._round.configs(space))
        if count < 2 or number < count:
            return super().ask(space, history, number)
        if any(t.origin == LEADER for t in history):
            return super().ask(space, history, number - 1)
        turns = {t.number: t for t in history if t.number < count}
        if any(t.state is TrialState.RUNNING for t in turns.values()):
            return None
        known = self._losses(list(turns.values()))
        if not known:
            return super().ask(space, history, number)
        return dict(turns[min(known, key=lambda n: (known[n], n))].config), LEADER
