"""How long the work of a job may take, so that the job ends within its time."""

from __future__ import annotations

from tidemill.core.budget import parse_duration_s
from tidemill.jobs.queue.context import JobContext

SHARE = 0.95
"""Share of a job's time that its work may take: a fit keeps its limit to within 5 %."""
AROUND_S = 3.0
"""Seconds of a job's time that its work does not see: its process loads modules before, and tells its end after it."""
LEAST_S = 1.0
"""Work gets so many seconds at least: of a study that was begun they are enough to choose from what is there."""


def time_s(context: JobContext, asked: str | float | None) -> float | None:
    """Give the seconds that the work of a job may take; None for any.

    Parameters
    ----------
    context : JobContext
        The job. What it has left is the most, less what comes before and after the work.
    asked : str, float or None
        The time of the work in all attempts together; what earlier ones took is taken off.
    """
    most = float("inf") if asked is None else parse_duration_s(asked) - context.spent_s
    found = min(most, SHARE * context.left_s() - AROUND_S)
    return None if found == float("inf") else max(LEAST_S, found)
