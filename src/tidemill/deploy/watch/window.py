"""What one process counted of one revision of an endpoint: numbers that only grow, as plain JSON.

Every serving process writes its own as a record of the kind `DEPLOY_WINDOW` under the key
``<endpoint>/<revision>/<front>``. Numbers only grow, so that the sum over all fronts only grows, and the difference of
two readings is what happened between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import DataError

DEPLOY_WINDOW = "deploy_window"
"""Kind of the records that hold windows."""

STAGES = ("queue", "wait", "model", "encode", "total")
"""Parts of a request's time, in the order of `tidemill.deploy.types.RequestEvent`."""

LATENCY_BOUNDS_MS: tuple[float, ...] = tuple(0.05 * 2 ** (k / 2) for k in range(41))
"""Upper bounds of the latency cells in milliseconds, 0.05 to 52,429; one more cell holds what took longer."""

SCORE_CELLS = 20
"""Cells of the score histogram: equal parts of 0..1."""

BATCH_BOUNDS = tuple(2**k for k in range(13))
"""Upper bounds of the batch-size cells: 1, 2, 4 … 4,096; one more cell holds larger ones."""

SLO_CELL_S = 300
"""Seconds of one cell of the service-level account."""
SLO_SPAN_S = 6 * 3600
"""How far back the account goes."""


@dataclass
class Window:
    r"""Counters of one revision.

    Parameters
    ----------
    requests, errors, refusals, retries, deaths : int
        Answers; of them those with a status of 500 and more that are no refusals; 429, 503 and 507; replays because
        a worker died; worker deaths.
    slow : int
        Answers that took longer than the endpoint's ``target_ms``.
    rows : int
        Rows that the model answered.
    batches : int
        Calls of the model.
    status_counts : dict
        Answers by HTTP status.
    latency_counts : dict of str to list of int
        By stage one count for each of `LATENCY_BOUNDS_MS` and one more.
    latency_sums_us : dict of str to int
        By stage, whole microseconds, so that sums are exact.
    batch_counts : list of int
        One count for each of `BATCH_BOUNDS` and one more.
    label_counts : dict
        Rows by predicted label; at most `MOST_LABELS`, the rest under ``"…"``.
    score_counts : list of int
        Rows by the highest probability (two classes: that of the second), in `SCORE_CELLS` equal parts of 0..1; for a
        regression by the reference's cells of the prediction, empty without a reference.
    compared, disagreements : int
        Rows that another revision answered too, and of them those with another label.
    feedback, feedback_right, feedback_wrong : int
        Rows whose truth came and that were found; for a regression right and wrong stay 0.
    feedback_error_sum, feedback_square_sum : float
        Of a regression, sums of absolute and squared errors.
    feedback_characters, feedback_character_errors : int
        Of texts that were read: characters of the true ones, and how many to insert, delete or replace.
    confusion : dict of str to int
        Feedback by ``"<true>\t<predicted>"``.
    shadow_requests : int
        Copies that were answered as shadow; they are not among ``requests``.
    slo : dict of str to list
        ``[answers, bad ones]`` by number of the `SLO_CELL_S`-second cell since 1970; the newest `SLO_SPAN_S`.
    drift : dict
        The newest judgement, see `tidemill.deploy.watch.judge`.
    estimate : dict
        The newest estimated accuracy, see `tidemill.deploy.watch.estimate`.
    at : float
        When it was written, seconds since 1970.

    Examples
    --------
    >>> Window.from_json(Window(requests=3).to_json()).requests
    3
    """

    requests: int = 0
    errors: int = 0
    refusals: int = 0
    retries: int = 0
    deaths: int = 0
    slow: int = 0
    rows: int = 0
    batches: int = 0
    shadow_requests: int = 0
    compared: int = 0
    disagreements: int = 0
    feedback: int = 0
    feedback_right: int = 0
    feedback_wrong: int = 0
    feedback_error_sum: float = 0.0
    feedback_square_sum: float = 0.0
    feedback_characters: int = 0
    feedback_character_errors: int = 0
    status_counts: Counter[str] = field(default_factory=Counter)
    latency_counts: dict[str, list[int]] = field(default_factory=lambda: {s: _cells() for s in STAGES})
    latency_sums_us: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    batch_counts: list[int] = field(default_factory=lambda: [0] * (len(BATCH_BOUNDS) + 1))
    label_counts: Counter[str] = field(default_factory=Counter)
    score_counts: list[int] = field(default_factory=list)
    confusion: Counter[str] = field(default_factory=Counter)
    death_reasons: Counter[str] = field(default_factory=Counter)
    slo: dict[str, list[int]] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    estimate: dict[str, Any] = field(default_factory=dict)
    at: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in _COUNTERS:
            out[name] = dict(out[name])
        out["latency_counts"] = {s: list(v) for s, v in self.latency_counts.items()}
        out["latency_sums_us"] = dict(self.latency_sums_us)
        out["slo"] = {k: list(v) for k, v in self.slo.items()}
        out["batch_counts"] = list(self.batch_counts)
        out["score_counts"] = list(self.score_counts)
        return out

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Window:
        """Rebuild from `to_json`; fields of a newer version are left out.

        Raises
        ------
        DataError
            If it is no window.
        """
        known = {f.name for f in fields(cls)}
        try:
            values = {k: v for k, v in data.items() if k in known}
            values.update({k: Counter(values[k]) for k in _COUNTERS if k in values})
            window = cls(**values)
            shapes = [len(window.latency_counts[s]) == len(LATENCY_BOUNDS_MS) + 1 for s in STAGES]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"These are no counters of an endpoint ({error}).") from error
        if not all(shapes):
            raise DataError("These counters have other latency cells than this version.")
        return window


MOST_LABELS = 100
"""Labels that are counted by name."""
_COUNTERS = ("status_counts", "label_counts", "confusion", "death_reasons")
_SUMS = tuple(
    f.name for f in fields(Window) if f.type in ("int", "float") and f.name != "at"
)  # annotations are text in this file


def _cells() -> list[int]:
    return [0] * (len(LATENCY_BOUNDS_MS) + 1)


def merge(windows: Iterable[Window]) -> Window:
    """Add the counters of several fronts; judgements are those of the newest.

    Examples
    --------
    >>> merge([Window(requests=2), Window(requests=3)]).requests
    5
    """
    out = Window()
    for window in windows:
        for name in _SUMS:
            setattr(out, name, getattr(out, name) + getattr(window, name))
        for name in _COUNTERS:
            getattr(out, name).update(getattr(window, name))
        for stage in STAGES:
            out.latency_counts[stage] = _add(out.latency_counts[stage], window.latency_counts[stage])
            out.latency_sums_us[stage] += window.latency_sums_us[stage]
        out.batch_counts = _add(out.batch_counts, window.batch_counts)
        out.score_counts = _add(out.score_counts, window.score_counts)
        for cell, (answers, bad) in window.slo.items():
            held = out.slo.setdefault(cell, [0, 0])
            out.slo[cell] = [held[0] + answers, held[1] + bad]
        if window.at >= out.at:
            out.at = window.at
            out.drift = window.drift or out.drift
            out.estimate = window.estimate or out.estimate
    return out


def _add(a: list[int], b: list[int]) -> list[int]:
    if len(a) != len(b):
        return list(a or b)  # one of them is empty; two references of one bundle have the same cells
    return [x + y for x, y in zip(a, b, strict=True)]


def quantile_ms(counts: Iterable[int], share: float) -> float | None:
    """Latency below which a share of the answers lies, interpolated inside its cell; None without answers.

    Examples
    --------
    >>> cells = [0] * 42
    >>> cells[2] = 100  # 0.0707 to 0.1 ms
    >>> round(quantile_ms(cells, 0.5), 3)
    0.085
    """
    cells: NDArray[np.int64] = np.asarray(list(counts), dtype=np.int64)
    total = int(cells.sum())
    if not total:
        return None
    wanted = share * total
    before = 0
    for k, count in enumerate(cells.tolist()):
        if count and before + count >= wanted:
            if k == len(LATENCY_BOUNDS_MS):
                return LATENCY_BOUNDS_MS[-1]
            low = LATENCY_BOUNDS_MS[k - 1] if k else 0.0
            return float(low + (LATENCY_BOUNDS_MS[k] - low) * (wanted - before) / count)
        before += count
    return LATENCY_BOUNDS_MS[-1]


def burn_rate(slo: Mapping[str, list[int]], now: float, span_s: float, objective: float) -> float | None:
    """How many times too fast the error budget is used up: 1 spends exactly the budget, None without answers.

    Parameters
    ----------
    slo : mapping
        Of a `Window`.
    now, span_s : float
        The last ``span_s`` seconds before ``now``.
    objective : float
        Share of answers that must be good, in (0, 1).

    Examples
    --------
    >>> burn_rate({"0": [100, 2]}, 100.0, 3600.0, 0.99)
    2.0
    """
    first = (now - span_s) / SLO_CELL_S
    inside = [v for cell, v in slo.items() if first < int(cell) + 1 and int(cell) <= now / SLO_CELL_S]
    answers = sum(v[0] for v in inside)
    return round(float(sum(v[1] for v in inside)) / answers / (1 - objective), 9) if answers else None


def key_of(endpoint: str, revision: str, front: str) -> str:
    """Key of a record.

    Examples
    --------
    >>> key_of("fraud", "0123456789ab", "front-1")
    'fraud/0123456789ab/front-1'
    """
    return f"{endpoint}/{revision}/{front}"
