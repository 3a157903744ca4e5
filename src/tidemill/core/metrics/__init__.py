"""Metrics by name; each file holds one group of them."""

from __future__ import annotations

import re

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.metrics import decision, labels, probability, ranking, regression, transcripts
from tidemill.core.metrics._base import Evidence, Metric, confusion_matrix
from tidemill.core.metrics.regression import pinball
from tidemill.core.task import TaskKind

__all__ = ["Evidence", "Metric", "confusion_matrix", "default_metric", "get_metric", "metric_names", "metrics_for"]

_METRICS: dict[str, Metric] = {
    m.name: labels.widened(m)
    for group in (ranking, probability, decision, regression, labels, transcripts)
    for m in group.METRICS
}
_PINBALL = re.compile(r"pinball@(?P<alpha>\d*\.?\d+(?:e-?\d+)?)", re.ASCII)
_DEFAULTS = {
    TaskKind.BINARY: "roc_auc",
    TaskKind.MULTICLASS: "log_loss",
    TaskKind.REGRESSION: "rmse",
    TaskKind.MULTILABEL: "log_loss",
    TaskKind.RECOGNITION: "cer",
}


def metric_names() -> tuple[str, ...]:
    """Names of all metrics, group by group."""
    return tuple(_METRICS)


def get_metric(name: str) -> Metric:
    """Find a metric by its name.

    Parameters
    ----------
    name : str
        One of `metric_names`, or ``"pinball@0.9"`` for another quantile.

    Raises
    ------
    NotFoundError
        With the nearest names.
    OptionError
        For a quantile outside of (0, 1).

    Examples
    --------
    >>> get_metric("f1_macro").greater_is_better
    True
    >>> get_metric("pinball@0.9").name
    'pinball@0.9'
    """
    if name in _METRICS:
        return _METRICS[name]
    match = _PINBALL.fullmatch(name)
    if match is None:
        raise NotFoundError.of("metric", name, _METRICS)
    alpha = float(match["alpha"])
    if not 0 < alpha < 1:
        raise OptionError(f"The quantile of the pinball loss must lie between 0 and 1, but got {alpha}.")
    return pinball(alpha)


def metrics_for(kind: TaskKind) -> tuple[Metric, ...]:
    """All metrics that fit a kind of task without asking for more than a name (so not ``cost``).

    Examples
    --------
    >>> [m.name for m in metrics_for(TaskKind.REGRESSION)]
    ['rmse', 'mae', 'r2', 'rmsle', 'mape', 'pinball']
    """
    return tuple(m for m in _METRICS.values() if m.fits(kind) and m.name != "cost")


def default_metric(kind: TaskKind) -> Metric:
    """Return the metric that is optimised when nobody says which: roc_auc, log_loss, rmse, log_loss, cer.

    Examples
    --------
    >>> default_metric(TaskKind.MULTICLASS).name
    'log_loss'
    """
    return _METRICS[_DEFAULTS[kind]]
