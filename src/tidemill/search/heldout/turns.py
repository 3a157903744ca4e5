"""Who is tried first where a training takes most of the time that there is: a short turn for each, a long one then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tidemill.core.protocols import Sampler
from tidemill.core.space import Space
from tidemill.core.trial import Config, Trial, TrialState
from tidemill.search.samplers.chain import ChainSampler, Listed

LEADER = "leader"
"""Origin of the trial that gets the long turn."""
_IN_VAIN = (TrialState.FAILED, TrialState.REJECTED)


class TurnsSampler(ChainSampler):
    """Runs through a first round, proposes its best config once more, and goes on as any chain.

    It is for trainings that cut themselves to the time they get, and whose learning rate comes to its end in it: what a
    short turn gives can be compared and shipped, but not gone on with, so that the leader begins anew. Of a round of
    one the long turn begins at once. Where several are going to answer together, every worker gives it to one, or to
    one after the other, each from a seed of its own.

    Parameters
    ----------
    round_ : Listed
        Configs of the first round.
    first, then
        As `ChainSampler` takes them.
    losses : callable
        Losses of finished trials by number.
    share : float
        Share of the time that the first round may take, all its turns together; the long one may take the rest.
    workers : int
        How many train side by side the turns of the first round, and after that the leader.
    times : int
        So often each of them does, one after the other in the long turn.
    """

    def __init__(
        self,
        round_: Listed,
        first: Sequence[Listed],
        then: Sampler | None,
        losses: Callable[[Sequence[Trial]], Mapping[int, float]],
        share: float,
        workers: int = 1,
        times: int = 1,
    ) -> None:
        super().__init__([round_, *first], then)
        self._round = round_
        self._losses = losses
        self._share = share
        self._workers, self._times = workers, times

    def turn(self, space: Space, origin: str, number: int) -> float | None:
        """Share of the time that a trial of the first round may take, or a long one; None for others.

        The last ones may take all that is left.
        """
        count = self._short(space)
        if origin == LEADER:
            round_ = self._share * -(-count // self._workers) / count if count else 0.0
            return 1.0 if number >= count + self._workers * (self._times - 1) else (1 - round_) / self._times
        return self._share / count if count and origin == "baseline" else None

    def ask(self, space: Space, history: Sequence[Trial], number: int) -> tuple[Config, str] | None:
        """Return a config as a chain does, behind the first round its leader; None while a turn is under way."""
        count = self._short(space)
        if number < count:
            return super().ask(space, history, number)
        turns = [t for t in history if t.number < count]
        if any(t.state is TrialState.RUNNING for t in turns):
            return None
        leaders = [t for t in history if t.origin == LEADER]
        led = len(leaders)
        over = led >= self._workers * self._times or any(t.state in _IN_VAIN for t in leaders)
        best = self._best(turns) if count else next(iter(self._round.configs(space)), None)
        if best is None or over:
            # A round of one stands in the chain's list, too.
            return super().ask(space, history, number - led + (led > 0 and not count))
        return dict(best), LEADER

    def _best(self, turns: Sequence[Trial]) -> Config | None:
        """Config of the turn that ended best; None where none did."""
        known = self._losses(turns)
        by_number = {t.number: t for t in turns}
        return by_number[min(known, key=lambda n: (known[n], n))].config if known else None

    def _short(self, space: Space) -> int:
        """Configs of the first round, where there is one to choose from."""
        count = len(self._round.configs(space))
        return count if count > 1 else 0
