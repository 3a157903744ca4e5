"""Folds what the engine told into the counters of a `Window`, many events at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.deploy.types import RequestEvent
from tidemill.deploy.watch.recent import Batch
from tidemill.deploy.watch.window import (
    BATCH_BOUNDS,
    LATENCY_BOUNDS_MS,
    MOST_LABELS,
    SCORE_CELLS,
    SLO_CELL_S,
    SLO_SPAN_S,
    STAGES,
    Window,
)

REFUSED = frozenset({429, 503, 507})
"""Statuses of a refusal: too many requests, not in time, no room."""
REST = "…"
"""Name under which labels beyond the bound are counted."""

_LATENCY = np.asarray(LATENCY_BOUNDS_MS)


def count_requests(window: Window, events: Sequence[RequestEvent], *, target_ms: float, now: float) -> None:
    """Add answers to a window; copies for a shadow count apart, with the model's time alone."""
    real = [e for e in events if not e.shadow]
    window.shadow_requests += len(events) - len(real)
    if len(real) < len(events):
        _add_times(window, "model", np.array([e.model_ms for e in events if e.shadow]))
    if not real:
        return
    window.requests += len(real)
    window.retries += sum(e.retries for e in real)
    statuses = Counter(e.status for e in real)
    window.status_counts.update({str(k): n for k, n in statuses.items()})
    window.refusals += sum(n for k, n in statuses.items() if k in REFUSED)
    window.errors += sum(n for k, n in statuses.items() if k >= 500 and k not in REFUSED)
    times = np.array([(e.queue_ms, e.wait_ms, e.model_ms, e.encode_ms, e.total_ms) for e in real], dtype=np.float64)
    status = np.array([e.status for e in real])
    refused = np.isin(status, list(REFUSED))
    answered = ~refused  # a refusal takes no time: among the latencies it would flatter them
    for k, stage in enumerate(STAGES):
        _add_times(window, stage, times[answered, k])
    slow = answered & (times[:, 4] > target_ms)
    window.slow += int(slow.sum())
    _account(window, len(real), int((slow | refused | (status >= 500)).sum()), now)


def count_batches(window: Window, batches: Sequence[Batch]) -> None:
    """Add the rows, sizes, labels and scores of some batches to a window."""
    window.batches += len(batches)
    for batch in batches:
        window.rows += batch.rows
        window.batch_counts[bisect_left(BATCH_BOUNDS, batch.rows)] += 1
    labels: Counter[str] = Counter()
    scores: list[NDArray[Any]] = []
    for batch in batches:
        labels.update(batch.labels or ())
        shown = batch.probabilities
        if shown is not None and batch.confidence is not None:
            scores.append(shown[:, 1] if shown.shape[1] == 2 else batch.confidence)
    _add_labels(window.label_counts, labels)
    if scores:
        cells = np.nan_to_num(np.concatenate(scores).astype(np.float64), posinf=1.0, neginf=0.0) * SCORE_CELLS
        counts = np.bincount(np.clip(cells.astype(np.int64), 0, SCORE_CELLS - 1), minlength=SCORE_CELLS)
        held = window.score_counts or [0] * SCORE_CELLS
        window.score_counts = [a + b for a, b in zip(held, counts.tolist(), strict=True)]


def _add_labels(held: Counter[str], found: Counter[str]) -> None:
    for label, count in found.items():
        held[label if label in held or len(held) < MOST_LABELS else REST] += count


def _add_times(window: Window, stage: str, times_ms: NDArray[np.float64]) -> None:
    times_ms = np.clip(np.nan_to_num(times_ms), 0.0, 1e9)
    cells = np.bincount(np.searchsorted(_LATENCY, times_ms), minlength=len(_LATENCY) + 1)
    held = window.latency_counts[stage]
    window.latency_counts[stage] = [a + b for a, b in zip(held, cells.tolist(), strict=True)]
    window.latency_sums_us[stage] += int(np.rint(times_ms * 1e3).sum())


def _account(window: Window, answers: int, bad: int, now: float) -> None:
    cell = str(int(now // SLO_CELL_S))
    held = window.slo.get(cell)
    if held is None:
        oldest = (now - SLO_SPAN_S) / SLO_CELL_S - 1
        window.slo = {k: v for k, v in window.slo.items() if int(k) >= oldest}
        held = [0, 0]
    window.slo[cell] = [held[0] + answers, held[1] + bad]
