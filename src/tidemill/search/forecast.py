"""How long a trial will take, from what trials of its family took."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tidemill.core.trial import Config, Trial, TrialState

# Microseconds per row, feature and model on one core of an ordinary machine: guesses for the time before the first
# trial of a family; only their order of magnitude matters.
_PRIOR_US: Mapping[str, float] = {
    "linear": 1.5,
    "bayes": 0.2,
    "neighbours": 3.0,
    "lightgbm": 4.0,
    "xgboost": 5.0,
    "catboost": 12.0,
    "forest": 8.0,
    "mlp": 12.0,
    "tabm": 25.0,
}
_FIXED_S = 0.15


class Forecast:
    """Learns the speed of families from finished trials.

    Parameters
    ----------
    rows, features, models : int
        Size of the table, and models per trial.
    """

    def __init__(self, rows: int, features: int, models: int) -> None:
        self._size = rows * max(1, features) * models
        self._models = models
        self._seen: dict[str, list[float]] = {}

    def learn(self, trials: Iterable[Trial]) -> None:
        """Take in trials that went through all folds."""
        for trial in trials:
            if trial.state is TrialState.COMPLETE and trial.folds >= self._models and trial.usage.wall_s > 0:
                self._seen.setdefault(trial.family, []).append(trial.usage.wall_s)

    def learn_late(self, family: str, time_s: float) -> None:
        """Take in that a trial didn't fit into so many seconds."""
        self._seen.setdefault(family, []).append(1.5 * time_s)

    def seconds(self, config: Config) -> float:
        """Seconds that a trial of ``config`` will probably take."""
        family = str(config.get("family"))
        seen = self._seen.get(family)
        if seen:
            # Configs of a family differ; rather too long than too short.
            return float(np.quantile(seen, 0.7))
        return _FIXED_S + _PRIOR_US.get(family, 8.0) * 1e-6 * self._size
