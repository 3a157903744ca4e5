"""What makes a search reproducible, as one small value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from tidemill.core.errors import OptionError

SCHEDULES = ("full", "rows", "rungs")
"""How much of a training a config gets at first."""


@dataclass(frozen=True)
class SearchSettings:
    """How a study searches; stored with it, so that a resumed study asks the same questions.

    Parameters
    ----------
    seed : int
        Everything random is drawn from it.
    folds : int
        Folds of the cross-validation; 0 chooses by the number of rows.
    repeats : int
        How often the folds are drawn anew; 0 chooses by the number of rows.
    lag : int
        Trial ``i`` is chosen from what is known of trials up to ``i - lag``. A study limited by a number of trials
        waits for those, so that its trials are the same for up to ``lag`` workers.
    families : tuple of str
        Families to search; empty means all that support the task.
    test_share : float
        Share of the rows that is locked away when there is no test file.
    race : bool
        Stop a trial after its first fold when it is clearly worse than the best.
    schedule : str
        ``"full"``; ``"rows"`` to try configs on a share of the rows first; ``"rungs"`` to train all configs a little
        and the better ones on, where trainings can pause.
    epochs : int
        Epochs of a whole training on rungs.
    brackets : int
        On how many rungs, from the lowest, trials begin (Hyperband); at most all but the highest.
    ensemble_rounds : int
        Rounds of greedy selection.
    ensemble_size_bytes : int
        Upper bound of the shipped graph where the objective names none.
    rejections : int
        How many configs in a row may break a constraint before the search ends.

    Examples
    --------
    >>> SearchSettings(seed=1).resolved(rows=500).repeats
    2
    """

    seed: int = 0
    folds: int = 0
    repeats: int = 0
    lag: int = 4
    families: tuple[str, ...] = ()
    test_share: float = 0.15
    race: bool = True
    schedule: str = "full"
    epochs: int = 27
    brackets: int = 1
    ensemble_rounds: int = 40
    ensemble_size_bytes: int = 40_000_000
    rejections: int = 64

    def __post_init__(self) -> None:
        wrong = []
        if self.folds < 0 or self.folds == 1:
            wrong.append(f"`folds` must be 0 or at least 2, but got {self.folds}")
        if self.repeats < 0:
            wrong.append(f"`repeats` must not be negative, but got {self.repeats}")
        if self.lag < 1:
            wrong.append(f"`lag` must be at least 1, but got {self.lag}")
        if not 0 <= self.test_share < 1:
            wrong.append(f"`test_share` must lie in [0, 1), but got {self.test_share}")
        if self.schedule not in SCHEDULES:
            wrong.append(f"`schedule` must be one of {', '.join(SCHEDULES)}, but got {self.schedule!r}")
        if self.epochs < 1:
            wrong.append(f"`epochs` must be at least 1, but got {self.epochs}")
        if self.brackets < 1:
            wrong.append(f"`brackets` must be at least 1, but got {self.brackets}")
        if wrong:
            raise OptionError("; ".join(wrong) + ".")

    def resolved(self, rows: int) -> SearchSettings:
        """Return the settings with folds and repeats chosen for so many training rows.

        Few rows make scores noisy and training cheap, so they are split often; many rows the other way round.
        """
        folds = self.folds or (8 if rows < 6_000 else 5 if rows < 150_000 else 3)
        repeats = self.repeats or (2 if rows < 1_000 else 1)
        return replace(self, folds=max(2, min(folds, rows // 2)), repeats=repeats)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), "families": list(self.families)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SearchSettings:
        """Rebuild from `to_json`; keys of other rooms are left alone."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        return cls(**{**known, "families": tuple(known.get("families", ()))})
