"""What a search tells those who watch it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tidemill.core.trial import Trial
from tidemill.search.signals import CurvePoint

STAGES = ("prepare", "baselines", "portfolio", "search", "ensemble", "done")
"""Stages of a search, in order."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a search.

    Parameters
    ----------
    kind : str
        ``"stage"``, ``"started"``, ``"point"`` (a net that is being trained was evaluated, see ``point``),
        ``"finished"``, ``"paused"``, ``"failed"``, ``"rejected"`` (these six are about ``trial``), ``"notice"``
        (something to know, in ``message``), ``"tick"`` (nothing new but the time).
    stage : str
        One of `STAGES`.
    study : str
        Name of the study.
    trial : Trial or None
        The trial that it is about.
    message : str
        In words, where there is more to say.
    finished, failed, rejected, running : int
        Numbers of trials so far.
    best : float or None
        The best value of the study's metric so far, as the metric is printed.
    best_trial : str or None
        Name of the trial that has it.
    metric : str
        Name of the metric.
    elapsed_s : float
        Seconds since the job began.
    left_s : float or None
        Seconds left for trials; None without a time limit.
    point : CurvePoint or None
        What was measured, of a ``"point"``.
    """

    kind: str
    stage: str
    study: str
    metric: str
    elapsed_s: float
    trial: Trial | None = None
    message: str = ""
    finished: int = 0
    failed: int = 0
    rejected: int = 0
    running: int = 0
    best: float | None = None
    best_trial: str | None = None
    left_s: float | None = None
    point: CurvePoint | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON, the trial in short."""
        trial = self.trial
        return {
            "event": self.kind,
            "stage": self.stage,
            "study": self.study,
            "metric": self.metric,
            "elapsed_s": round(self.elapsed_s, 3),
            "left_s": None if self.left_s is None else round(self.left_s, 3),
            "message": self.message,
            "finished": self.finished,
            "failed": self.failed,
            "rejected": self.rejected,
            "running": self.running,
            "best": self.best,
            "best_trial": self.best_trial,
            "point": None if self.point is None else asdict(self.point),
            "trial": None
            if trial is None
            else {
                "number": trial.number,
                "name": trial.name,
                "family": trial.family,
                "origin": trial.origin,
                "state": trial.state.value,
                "scores": trial.scores,
                "folds": trial.folds,
                "wall_s": round(trial.usage.wall_s, 3),
                "error": trial.error,
            },
        }


Listener = Callable[[Event], None]
"""Called from the search's thread, for every event; must return quickly. An exception ends the search."""


def ignore(event: Event) -> None:
    """Listen to nothing."""
