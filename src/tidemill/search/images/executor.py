"""Workers for trials that train nets."""

from __future__ import annotations

from pathlib import Path

from tidemill.core.budget import Budget
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.search.settings import SearchSettings
from tidemill.train.extra import need_torch

PRELOAD = ("torch", "tidemill.search.images.evaluate", "tidemill.models.vision._net")
"""What the workers' host loads once, while the caller reads the images."""
_GPU = Path("/dev/nvidiactl")


def open_executor(budget: Budget, settings: SearchSettings) -> ProcessExecutor:
    """Start the workers.

    Two nets on one core each learn more than one net on two, which would wait for each other; beyond four cores each
    gets more than one. A GPU is not shared.

    Raises
    ------
    MissingExtraError
        Where PyTorch is not installed.
    """
    need_torch("to learn from images")
    cores = budget.cores
    workers = 1 if _GPU.exists() else max(1, min(settings.lag, cores if cores < 4 else cores // 2))
    return ProcessExecutor(workers, PRELOAD, budget.memory_bytes, threads=max(1, cores // workers))
