"""What to train next: a pure function of how far all trials have come."""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.core.errors import OptionError
from tidemill.search.rungs.brackets import next_bracket, shares
from tidemill.search.rungs.ladder import Ladder
from tidemill.search.rungs.promotion import cap_of, promotable
from tidemill.search.rungs.standing import Action, Climb, Standing, Start, Stop, Wait, finished


class RungSchedule:
    """Trains all trials a little and the better ones on.

    Whoever is among the best third of a level goes on to the next as soon as that is known, without waiting for
    the others of its level; where nobody may, a new trial begins. Levels above the second are opened only when the
    highest one has changed the order of its trials. When no trial may begin any more, the leaders are trained to
    the end.

    Parameters
    ----------
    ladder : Ladder
        Epochs by level.
    brackets : int
        How many levels trials begin on; 1 is the lowest alone.
    growing : bool
        Open levels only when they are needed; otherwise all are open.
    finals : int
        How many leaders are trained to the end.

    Examples
    --------
    >>> schedule = RungSchedule(Ladder(1, 9))
    >>> schedule.next([], True)
    Start(level=0)
    >>> schedule.next([Standing(n, losses={0: float(n)}) for n in range(3)], True)
    Climb(number=0, level=1)
    """

    def __init__(self, ladder: Ladder, *, brackets: int = 1, growing: bool = True, finals: int = 1) -> None:
        if brackets < 1 or finals < 1:
            raise OptionError(f"There must be a bracket and a final, but got ({brackets=}, {finals=}).")
        self.ladder = ladder
        # Who begins at the top is no final: nobody chose him.
        self._shares = shares(len(ladder.levels), ladder.factor, max(1, min(brackets, ladder.top)))
        self._growing = growing
        self._finals = finals

    def next(self, standings: Sequence[Standing], may_start: bool, *, hurry: bool = False) -> Action:
        """Decide what to do with a free worker.

        Parameters
        ----------
        standings : sequence of Standing
            All trials; what was decided before must be seen in them (`Standing.aim`).
        may_start : bool
            Whether a new trial may begin: there is budget for it, and for the finals after it.
        hurry : bool
            Only the finals, at once: there is no time for anything else.

        Returns
        -------
        Start, Climb, Wait or Stop
            Depends on the arguments alone.
        """
        if hurry:
            return self._final(standings)
        top = self.ladder.top
        cap = cap_of(standings, top) if self._growing else top
        going_on = promotable(standings, self.ladder.factor, cap)
        if going_on is not None:
            return going_on
        if may_start:
            return Start(next_bracket(standings, self._shares))
        if any(s.aim is not None and s.aim < top for s in standings):
            return Wait()  # a leader may come from there
        return self._final(standings)

    def _final(self, standings: Sequence[Standing]) -> Action:
        """Train the leaders to the end, one level after the other."""
        top = self.ladder.top
        places = self._finals - len([s for s in standings if s.started == top and not s.over])
        if places > 0:
            for level in range(top - 1, -1, -1):
                for one in finished(standings, level):
                    if one.started == level and not one.over:
                        return Climb(one.number, level + 1)
        return Wait() if any(s.aim is not None for s in standings) else Stop()
