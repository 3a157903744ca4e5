"""Counters as Prometheus text (exposition format 0.0.4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from tidemill.deploy.watch.window import BATCH_BOUNDS, LATENCY_BOUNDS_MS, STAGES, Window, burn_rate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OBJECTIVE = 0.99
"""Share of answers that should be free of errors and within ``target_ms``."""
_EVERY = 2
"""Every second latency bound is shown: cells add up, and half the series tell as much."""

Labels = Mapping[str, str]


class Page:
    r"""Collects samples by metric, each metric once with its help and type.

    Examples
    --------
    >>> page = Page()
    >>> page.add("tidemill_rows_total", "counter", "Rows.", {"endpoint": 'a"b'}, 3)
    >>> print(page.text(), end="")
    # HELP tidemill_rows_total Rows.
    # TYPE tidemill_rows_total counter
    tidemill_rows_total{endpoint="a\"b"} 3
    """

    def __init__(self) -> None:
        self._heads: dict[str, str] = {}
        self._samples: dict[str, list[str]] = {}

    def add(self, name: str, kind: str, about: str, labels: Labels, value: float) -> None:
        """Add one sample of a counter or gauge."""
        self._head(name, kind, about)
        self._samples[name].append(f"{name}{_labels(labels)} {_number(value)}")

    def histogram(
        self, name: str, about: str, labels: Labels, cells: Iterable[tuple[float, int]], total: float
    ) -> None:
        """Add a histogram from ``(upper bound, count in the cell)`` pairs, the last bound infinite, and its sum."""
        self._head(name, "histogram", about)
        below = 0
        for bound, count in cells:
            below += count
            self._samples[name].append(f"{name}_bucket{_labels({**labels, 'le': _number(bound)})} {below}")
        self._samples[name].append(f"{name}_sum{_labels(labels)} {_number(total)}")
        self._samples[name].append(f"{name}_count{_labels(labels)} {below}")

    def text(self) -> str:
        """Render the page."""
        return "".join(
            f"{head}" + "".join(f"{line}\n" for line in self._samples[name]) for name, head in self._heads.items()
        )

    def _head(self, name: str, kind: str, about: str) -> None:
        if name not in self._heads:
            text = about.replace("\\", r"\\").replace("\n", r"\n")
            self._heads[name] = f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
            self._samples[name] = []


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{k}="{_escaped(v)}"' for k, v in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if float(value).is_integer() and abs(value) < 2**53 else repr(float(value))


_COUNTS = (
    ("requests", "tidemill_requests_total", "Answers, refusals and errors included."),
    ("errors", "tidemill_errors_total", "Answers with a status of 500 and more that are no refusals."),
    ("refusals", "tidemill_refusals_total", "Requests that were refused: 429, 503, 507."),
    ("retries", "tidemill_retries_total", "Replays of requests whose worker died."),
    ("slow", "tidemill_slow_total", "Answers that took longer than the endpoint's target."),
    ("rows", "tidemill_rows_total", "Rows that the model answered."),
    ("batches", "tidemill_batches_total", "Calls of the model."),
    ("shadow_requests", "tidemill_shadow_requests_total", "Copies that were answered as shadow."),
    ("compared", "tidemill_compared_rows_total", "Rows that another revision answered too."),
    ("disagreements", "tidemill_disagreements_total", "Of the compared rows, those with another label."),
    ("feedback", "tidemill_feedback_total", "Rows whose truth came."),
    ("feedback_right", "tidemill_feedback_right_total", "Rows whose truth came and was predicted."),
    ("feedback_wrong", "tidemill_feedback_wrong_total", "Rows whose truth came and was not predicted."),
    ("feedback_characters", "tidemill_feedback_characters_total", "Characters of true texts that came."),
    ("feedback_character_errors", "tidemill_feedback_character_errors_total", "Characters to insert, delete, replace."),
)


def add_window(page: Page, window: Window, labels: Labels, *, now: float) -> None:
    """Add everything that a window counts."""
    for name, metric, about in _COUNTS:
        page.add(metric, "counter", about, labels, getattr(window, name))
    for status, count in sorted(window.status_counts.items()):
        page.add("tidemill_answers_total", "counter", "Answers by status.", {**labels, "status": status}, count)
    for reason, count in sorted(window.death_reasons.items()):
        page.add("tidemill_worker_deaths_total", "counter", "Worker deaths.", {**labels, "reason": reason}, count)
    for label, count in sorted(window.label_counts.items()):
        page.add("tidemill_predictions_total", "counter", "Rows by label.", {**labels, "label": label}, count)
    for stage in STAGES:
        about = "Time of a request by stage: queue, wait for the batch, model, encode, total."
        cells = _latency_cells(window.latency_counts[stage])
        total = window.latency_sums_us[stage] / 1e6
        page.histogram("tidemill_latency_seconds", about, {**labels, "stage": stage}, cells, total)
    sizes = list(zip([*map(float, BATCH_BOUNDS), math.inf], window.batch_counts, strict=True))
    page.histogram("tidemill_batch_rows", "Rows of a batch.", labels, sizes, window.rows)
    _add_judgements(page, window, labels, now)


def _add_judgements(page: Page, window: Window, labels: Labels, now: float) -> None:
    for hours in (1, 6):
        rate = burn_rate(window.slo, now, hours * 3600.0, OBJECTIVE)
        if rate is not None:
            about = "How many times too fast the error budget is used up."
            page.add("tidemill_slo_burn_rate", "gauge", about, {**labels, "window": f"{hours}h"}, rate)
    for feature in window.drift.get("features", ()):
        named = {**labels, "feature": str(feature["name"])}
        for measure in ("psi", "ks", "missing", "out_of_range", "new"):
            value = feature.get(measure)
            if value is not None:
                about = "Distance of a feature's distribution from the reference, and rates of odd values."
                page.add("tidemill_drift", "gauge", about, {**named, "measure": measure}, value)
        alarm = "1 where a feature was beyond its limits two windows in a row."
        page.add("tidemill_drift_alarm", "gauge", alarm, named, float(bool(feature.get("alarm"))))
    for metric, value in window.estimate.get("values", {}).items():
        if value is not None:
            about = "Accuracy estimated without labels."
            page.add("tidemill_estimated", "gauge", about, {**labels, "metric": metric}, value)


def _latency_cells(counts: list[int]) -> list[tuple[float, int]]:
    cells: list[tuple[float, int]] = []
    held = 0
    for k, count in enumerate(counts):
        held += count
        if k == len(LATENCY_BOUNDS_MS):
            cells.append((math.inf, held))
        elif k % _EVERY == 0:
            cells.append((round(LATENCY_BOUNDS_MS[k] / 1e3, 9), held))
            held = 0
    return cells
