"""How long a graph takes to answer, and how much memory a process needs that does nothing else."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tidemill.core.errors import BundleError

BATCHES = (1, 8, 64, 512, 4096)
"""Batch sizes of the latency curve."""


def session(model: bytes | str | Path) -> onnxruntime.InferenceSession:
    """Start onnxruntime on a model; every call runs on one thread, and several calls may run at the same time.

    Threads inside one call would have to wait for each other after every operator, which on a busy machine takes longer
    than the work, and would make sums depend on their number.

    Parameters
    ----------
    model : bytes, str or Path
        The serialised model, or its file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def measure_latency_ms(model: bytes, feed: Mapping[str, NDArray[Any]], *, seconds: float = 0.05) -> float:
    """Measure the median time of one call on one thread, in milliseconds.

    Parameters
    ----------
    model : bytes
        The serialised model.
    feed : mapping
        Its inputs; one row to ask for the latency of a single row.
    seconds : float
        About how long to measure; at least 11 calls are made after 3 to warm up.
    """
    return _median_ms(session(model), feed, seconds)


@dataclass(frozen=True)
class LatencyPoint:
    """One point of the latency curve."""

    batch: int
    p50_ms: float

    @property
    def rows_per_s(self) -> float:
        """Throughput at this batch size."""
        return self.batch / self.p50_ms * 1e3


@dataclass(frozen=True)
class Performance:
    """How a bundle's graph ran on the machine that wrote it, in a process of its own.

    Parameters
    ----------
    curve : tuple of LatencyPoint
        Median time by batch size.
    peak_memory_bytes : int
        Largest resident memory of a process that loads onnxruntime and the model and answers the largest batch.
    load_ms : float
        Time to start a session.
    """

    curve: tuple[LatencyPoint, ...]
    peak_memory_bytes: int
    load_ms: float

    @property
    def best_batch(self) -> int:
        """The smallest batch within a tenth of the best throughput."""
        best = max(p.rows_per_s for p in self.curve)
        return min(p.batch for p in self.curve if p.rows_per_s >= 0.9 * best)

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {
            "latency": [
                {"batch": p.batch, "p50_ms": round(p.p50_ms, 4), "rows_per_s": round(p.rows_per_s)} for p in self.curve
            ],
            "best_batch": self.best_batch,
            "peak_memory_bytes": self.peak_memory_bytes,
            "load_ms": round(self.load_ms, 2),
            "threads": 1,
        }


def profile(model: bytes, rows: Mapping[str, NDArray[Any]], *, batches: Sequence[int] = BATCHES) -> Performance:
    """Measure the latency curve of one thread, and the peak memory, in a fresh process.

    Parameters
    ----------
    model : bytes
        The serialised model.
    rows : mapping
        Graph inputs of shape (n, 1); repeated to fill the batches.
    batches : sequence of int
        Batch sizes to measure.
    """
    n = len(next(iter(rows.values())))
    with tempfile.TemporaryDirectory(prefix="tidemill-") as folder:
        (Path(folder) / "model.onnx").write_bytes(model)
        # No pickle: strings travel as fixed-width text, cut to what a probe needs.
        plain = {f"i{k}": v.astype("U64") if v.dtype == object else v for k, v in enumerate(rows.values())}
        np.savez(Path(folder) / "rows.npz", allow_pickle=False, **plain)
        request = {"names": list(rows), "rows": n, "batches": list(batches)}
        (Path(folder) / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "tidemill.bundle._probe", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise BundleError(f"The model could not be measured in a process of its own: {done.stderr.strip()[-500:]}")
    answer = json.loads(done.stdout)
    return Performance(
        curve=tuple(LatencyPoint(int(b), float(ms)) for b, ms in answer["curve"]),
        peak_memory_bytes=int(answer["peak_memory_bytes"]),
        load_ms=float(answer["load_ms"]),
    )


def _median_ms(run: onnxruntime.InferenceSession, feed: Mapping[str, NDArray[Any]], seconds: float) -> float:
    inputs = dict(feed)
    for _ in range(3):
        run.run(None, inputs)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 11 or time.perf_counter() < end:
        start = time.perf_counter()
        run.run(None, inputs)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3
