"""Workers for trials on lines."""

from __future__ import annotations

from tidemill.core.budget import Budget
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.search.settings import SearchSettings
from tidemill.train.extra import need_torch

PRELOAD = ("torch", "tidemill.search.lines.evaluate", "tidemill.models.recognition._net")
"""What the workers' host loads once, while the caller reads the images."""
_CORES = 4
"""So many cores train one net."""


def open_executor(budget: Budget, settings: SearchSettings) -> ProcessExecutor:
    """Start the workers.

    One net is shipped, so up to four cores train one: it learns more than each of several on fewer cores would.

    Raises
    ------
    MissingExtraError
        Where PyTorch is not installed.
    """
    need_torch("to learn to read lines")
    workers = workers_for(budget, settings)
    return ProcessExecutor(workers, PRELOAD, budget.memory_bytes, threads=max(1, budget.cores // workers))


def workers_for(budget: Budget, settings: SearchSettings) -> int:
    """Number of workers that train nets side by side.

    Examples
    --------
    >>> [workers_for(Budget(cpus=cores), SearchSettings()) for cores in (1, 2)]
    [1, 1]
    """
    return max(1, min(settings.lag, budget.cores // _CORES))
