"""Workers for trials on lines."""

from __future__ import annotations

from functools import partial

from tidemill.core.budget import Budget
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.search.images.executor import PLANNING, on_cluster, on_gpu
from tidemill.search.settings import SearchSettings
from tidemill.train.extra import need_torch

PRELOAD = (
    *PLANNING,
    "tidemill.search.lines.evaluate",
    "tidemill.models.recognition._net",
    "tidemill.models.recognition.learning",
)
"""What the workers' host loads once, while the caller reads the images."""
_CORES = 4
"""So many cores train one net."""
_TOGETHER = 4
"""So many nets are trained side by side that are going to read together."""


def open_executor(
    budget: Budget, settings: SearchSettings, cluster: Cluster | None = None, *, together: bool = False
) -> ProcessExecutor | RayExecutor:
    """Start the workers.

    The best net does most of the reading, so up to four cores train one: it learns more than each of several on fewer
    cores would. Where several are going to read together, each core trains one, and no more than four are trained side
    by side. A GPU is not shared. On a cluster every node has as many workers as it would have alone.

    Raises
    ------
    MissingExtraError
        Where PyTorch is not installed.
    """
    need_torch("to learn to read lines")
    if cluster is not None:
        return on_cluster(cluster, budget, settings, PRELOAD, partial(_side_by_side, together=together))
    workers = workers_for(budget, settings, together=together)
    return ProcessExecutor(workers, PRELOAD, budget.memory_bytes, threads=max(1, budget.cores // workers))


def workers_for(budget: Budget, settings: SearchSettings, *, together: bool = False) -> int:
    """Number of workers that train nets side by side, which may be going to read together.

    Examples
    --------
    >>> [workers_for(Budget(cpus=cores), SearchSettings()) for cores in (1, 2)]
    [1, 1]
    >>> workers_for(Budget(cpus=2), SearchSettings(), together=True)
    2
    """
    return 1 if on_gpu(budget) else _side_by_side(budget.cores, settings, together=together)


def _side_by_side(cores: int, settings: SearchSettings, *, together: bool) -> int:
    return max(1, min(settings.lag, _TOGETHER, cores) if together else min(settings.lag, cores // _CORES))
