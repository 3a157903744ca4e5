"""Workers for trials on texts."""

from __future__ import annotations

from tidemill.core.budget import Budget
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.jobs.executors.ray.executor import RayExecutor
from tidemill.models.text.extra import need_text
from tidemill.search.images.executor import PLANNING, on_cluster, workers_for
from tidemill.search.settings import SearchSettings

_LIGHT = ("tidemill.search.texts.evaluate", "tidemill.models.text.families.ngrams", "sklearn.linear_model")
_NETS = (*PLANNING, "transformers", "tidemill.models.text._net")


def open_executor(
    budget: Budget, settings: SearchSettings, weights: tuple[str, ...], cluster: Cluster | None = None
) -> ProcessExecutor | RayExecutor:
    """Start the workers; without trained encoders nothing heavy is loaded.

    On a cluster every node keeps what encoders said of the texts for itself.

    Raises
    ------
    MissingExtraError
        Where encoders are named and what opens them is not installed.
    """
    if weights:
        need_text("to begin from trained encoders")
    preload = (*_LIGHT, *(_NETS if weights else ()))
    if cluster is not None:
        return on_cluster(cluster, budget, settings, preload)
    workers = workers_for(budget, settings)
    return ProcessExecutor(workers, preload, budget.memory_bytes, threads=max(1, budget.cores // workers))
