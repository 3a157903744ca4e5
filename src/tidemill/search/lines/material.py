"""Lines of text as what a search learns from. Nothing here loads torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from tidemill.core.budget import Budget
from tidemill.core.metrics import get_metric
from tidemill.core.objective import Objective
from tidemill.core.task import Task
from tidemill.data.images.lines import write_lines
from tidemill.models.recognition import pool
from tidemill.search import board
from tidemill.search.heldout.material import HeldOutMaterial, Pool
from tidemill.search.heldout.turns import TurnsSampler
from tidemill.search.lines.evaluate import CALL
from tidemill.search.lines.executor import workers_for
from tidemill.search.modality import LINE
from tidemill.search.samplers.baseline import BaselineSampler
from tidemill.search.samplers.chain import ChainSampler
from tidemill.search.samplers.portfolio import PortfolioSampler
from tidemill.search.samplers.tpe import TPESampler
from tidemill.search.settings import SearchSettings

PARTS = 8
"""One of so many is held out: a recogniser needs every line."""
TURNS = 0.15
"""Share of the time in which every family shows for a short turn what it can."""
TIMES = 2
"""Of nets that are going to read together each worker trains two: on captcha8, one that learned twice as long read 1
point more, and two together 5 points more than each."""
ENOUGH_S = 400.0
"""It does so where each of them has so long."""
WORTH_S = 300.0
"""In less time short turns would tell nothing: nets that read say nothing at all for their first hundreds of steps."""


@dataclass(frozen=True)
class LineMaterial(HeldOutMaterial):
    """Encoded training lines, objects of shape (n,), and all that `HeldOutMaterial` holds.

    The encoder is a `LineEncoder`, the profile a `LineProfile`, ``y`` code points of shape (n, length); columns are the
    properties of the images: width, height, brightness, contrast.

    Parameters
    ----------
    together : bool
        Whether nets are going to be read together by whole texts, so that every worker trains one.
    """

    modality: ClassVar[str] = LINE
    call: ClassVar[str] = CALL
    share: ClassVar[float] = 0.85
    """A net that reads takes long to learn: most of the time that is left goes into the next one."""
    kinds: ClassVar[str] = "Wanted are those of a study of lines, of a family that is searched here."

    together: bool = False

    @property
    def pool(self) -> Pool:
        """Families for lines."""
        return pool

    def sampler(self, task: Task, objective: Objective, settings: SearchSettings, budget: Budget) -> ChainSampler:
        """A short turn for each family and a long one for the best of them, where there is time for that.

        On rungs every config has short turns anyway, and goes on from them.
        """
        if settings.schedule == "rungs" or budget.time_s is None or budget.time_s < WORTH_S:
            return super().sampler(task, objective, settings, budget)
        metric = get_metric(objective.metric)
        first = BaselineSampler([{"family": name} for name in pool.families(settings.families or None)])
        then = TPESampler(settings.seed, lambda trials: board.losses(trials, metric))
        return TurnsSampler(
            first, [BaselineSampler(pool.QUICK), PortfolioSampler(pool.PORTFOLIO)], then,
            lambda trials: board.losses(trials, metric), TURNS,
            *self._leaders(settings, budget),
        )  # fmt: skip

    def _leaders(self, settings: SearchSettings, budget: Budget) -> tuple[int, int]:
        """How many train the leader side by side, and how often each of them."""
        if not self.together:
            return 1, 1
        long = 0.0 if budget.time_s is None else (1 - TURNS) * budget.time_s
        return workers_for(budget, settings, together=True), max(1, min(TIMES, int(long // ENOUGH_S)))

    def settled(self, settings: SearchSettings) -> SearchSettings:
        """Choose how many parts there are, of which the first is held out."""
        folds = settings.folds or PARTS
        return replace(settings, folds=max(2, min(folds, len(self.x) // 2)), repeats=1)

    def files(self, folder: Path) -> dict[str, str]:
        """Write the lines as plain arrays."""
        out = {"x": write_lines(self.x, folder / "x")}
        if self.x_test is not None:
            out["x_test"] = write_lines(self.x_test, folder / "x_test")
        return out
