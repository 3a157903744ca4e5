"""Workers for trials that train nets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tidemill.core.budget import Budget
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.search.settings import SearchSettings
from tidemill.train.extra import need_torch

PLANNING = ("torch", "torch.fx.experimental.symbolic_shapes", "torch._dynamo")
"""What the planner's first look at a net would load else, in every trial anew: nearly a second."""
PRELOAD = (*PLANNING, "tidemill.search.images.evaluate", "tidemill.models.vision._net")
"""What the workers' host loads once, while the caller reads the images."""
_GPU = Path("/dev/nvidiactl")


def open_executor(
    budget: Budget, settings: SearchSettings, cluster: Cluster | None = None
) -> ProcessExecutor | RayExecutor:
    """Start the workers.

    Two nets on one core each learn more than one net on two, which would wait for each other; beyond four cores each
    gets more than one. A GPU is not shared. On a cluster every node has as many workers as it would have alone.

    Raises
    ------
    MissingExtraError
        Where PyTorch is not installed.
    """
    need_torch("to learn from images")
    if cluster is not None:
        return on_cluster(cluster, budget, settings, PRELOAD)
    workers = workers_for(budget, settings)
    return ProcessExecutor(workers, PRELOAD, budget.memory_bytes, threads=max(1, budget.cores // workers))


def workers_for(budget: Budget, settings: SearchSettings) -> int:
    """Number of workers that train nets side by side."""
    return 1 if on_gpu(budget) else _side_by_side(budget.cores, settings)


def on_gpu(budget: Budget) -> bool:
    """Whether nets are trained on this machine's GPUs, over which the planner spreads each training."""
    return budget.device != "cpu" and _GPU.exists()


def _side_by_side(cores: int, settings: SearchSettings) -> int:
    return max(1, min(settings.lag, cores if cores < 4 else cores // 2))


def on_cluster(
    cluster: Cluster,
    budget: Budget,
    settings: SearchSettings,
    preload: tuple[str, ...],
    alone: Callable[[int, SearchSettings], int] = _side_by_side,
) -> RayExecutor:
    """Start workers for nets on a cluster, on every node as many as it would have alone, which its cores tell.

    Each takes a GPU where the cluster has some, unless processors were asked for.
    """
    cores = min(cluster.cores, budget.cpus or cluster.cores)
    gpus = 0 if budget.device == "cpu" else cluster.gpus
    threads = max(1, cores // (gpus or alone(cores, settings)))
    return RayExecutor(cluster, budget.cpus // threads or None, preload, threads=threads, gpus=min(gpus, 1))
