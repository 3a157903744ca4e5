"""A process that does nothing but load a model and answer; started by `tidemill.bundle.latency.profile`.

It stands on onnxruntime and numpy alone, so that its memory is that of a process in production.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

WARM_UP = 1
LEAST_CALLS = 3
SECONDS_PER_BATCH = 0.06
SECONDS_IN_ALL = 1.5


def main(folder: Path) -> None:
    """Read the request in ``folder``, measure, and write the answer on standard output."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    start = time.perf_counter()
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    load_ms = (time.perf_counter() - start) * 1e3
    stored = np.load(folder / "rows.npz", allow_pickle=False)
    rows = {name: stored[f"i{k}"] for k, name in enumerate(request["names"])}
    rows = {name: v.astype(object) if v.dtype.kind == "U" else v for name, v in rows.items()}
    curve: list[tuple[int, float]] = []
    begin = time.perf_counter()
    for batch in request["batches"]:
        if curve and time.perf_counter() - begin + batch / curve[-1][0] * curve[-1][1] / 1e3 > SECONDS_IN_ALL:
            break  # a wide or slow model: its largest batches would take longer than all else
        index = np.arange(batch) % request["rows"]
        feed = {name: v[index] for name, v in rows.items()}
        curve.append((batch, measure_ms(session, feed)))
    answer = {"curve": curve, "load_ms": load_ms, "peak_memory_bytes": peak_memory_bytes()}
    sys.stdout.write(json.dumps(answer))


def measure_ms(session: onnxruntime.InferenceSession, feed: "dict[str, np.ndarray]") -> float:
    """Median milliseconds of one call."""
    for _ in range(WARM_UP):
        session.run(None, feed)
    times: list[float] = []
    end = time.perf_counter() + SECONDS_PER_BATCH
    while len(times) < LEAST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; ``ru_maxrss`` alone would begin with the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
