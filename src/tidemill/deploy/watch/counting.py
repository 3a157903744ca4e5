"""Folds what the engine told into the counters of a `Window`, many events at a time."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.deploy.types import BatchEvent, RequestEvent
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


def count_answers(window: Window, events: Sequence[BatchEvent], *, target_ms: float, now: float) -> None:
    """Add the requests that some batches answered as a whole to a window."""
    times = stage_times(events)
    answers = times.shape[1]
    if not answers:
        return
    window.requests += answers
    window.retries += sum([sum(e.retries) for e in events])
    window.status_counts["200"] += answers
    for stage, row in zip(STAGES, times, strict=True):
        _add_times(window, stage, row)
    slow = int((times[-1] > target_ms).sum())
    window.slow += slow
    _account(window, answers, slow, now)


def stage_times(events: Sequence[BatchEvent]) -> NDArray[np.float64]:
    """Milliseconds by stage (`STAGES`) and request, in the order of the events.

    Examples
    --------
    >>> event = BatchEvent("e", "r", {}, {}, ["a"], [0], [1], [1.0], [1.001], [1.008], 1.002, 1.006, 3.0)
    >>> stage_times([event]).ravel().round(3).tolist()
    [1.0, 1.0, 3.0, 2.0, 8.0]
    """
    sizes = [len(e.ended) for e in events]
    whole = sum(sizes)

    def joined(parts: list[Sequence[float]]) -> NDArray[np.float64]:
        return np.fromiter(chain.from_iterable(parts), dtype=np.float64, count=whole)

    arrived, queued, ended = (joined([getattr(e, n) for e in events]) for n in ("arrived", "queued", "ended"))
    batches = np.array([(e.sent, e.landed, e.model_ms) for e in events], dtype=np.float64).reshape(-1, 3)
    sent, landed, model_ms = np.repeat(batches, sizes, axis=0).T
    wait_ms = np.maximum((landed - sent) * 1e3 - model_ms, 0.0)
    return np.stack([(sent - queued) * 1e3, wait_ms, model_ms, (ended - landed) * 1e3, (ended - arrived) * 1e3])


def count_sizes(window: Window, sizes: Sequence[int]) -> None:
    """Add calls of the model by the number of their rows."""
    window.batches += len(sizes)
    window.rows += sum(sizes)
    for size, count in Counter(sizes).items():
        window.batch_counts[bisect_left(BATCH_BOUNDS, size)] += count


def count_rows(window: Window, batches: Sequence[Batch]) -> None:
    """Add labels and scores of some batches."""
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


def count_batches(window: Window, batches: Sequence[Batch]) -> None:
    """Add the rows, sizes, labels and scores of some batches to a window."""
    count_sizes(window, [batch.rows for batch in batches])
    count_rows(window, batches)


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
