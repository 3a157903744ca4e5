"""Workers for trials on texts."""

from __future__ import annotations

from tidemill.core.budget import Budget
from tidemill.jobs.executors.pool import ProcessExecutor
from tidemill.models.text.extra import need_text
from tidemill.search.images.executor import workers_for
from tidemill.search.settings import SearchSettings

_LIGHT = ("tidemill.search.texts.evaluate", "tidemill.models.text.families.ngrams", "sklearn.linear_model")
_NETS = ("torch", "transformers", "tidemill.models.text._net")


def open_executor(budget: Budget, settings: SearchSettings, weights: tuple[str, ...]) -> ProcessExecutor:
    """Start the workers; without trained encoders nothing heavy is loaded.

    Raises
    ------
    MissingExtraError
        Where encoders are named and what opens them is not installed.
    """
    if weights:
        need_text("to begin from trained encoders")
    workers = workers_for(budget, settings)
    preload = (*_LIGHT, *(_NETS if weights else ()))
    return ProcessExecutor(workers, preload, budget.memory_bytes, threads=max(1, budget.cores // workers))
