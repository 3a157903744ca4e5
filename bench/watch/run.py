"""What watching costs: the drift sketch by row, the whole side thread by row, and Evidently on the same rows.

    .venv/bin/python bench/watch/run.py [--rows 100000] [--out bench/watch/results.json]

CPU time of the process, the least of several rounds: what a busy machine adds is not ours.
Evidently runs where ``bench/.environments/evidently`` has it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.bundle.parts import Answers
from tidemill.bundle.reference.build import build
from tidemill.bundle.reference.file import Reference
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.core.task import Task, TaskKind
from tidemill.deploy.engine.layout import Layout, TensorSpec
from tidemill.deploy.engine.observing import Columns
from tidemill.deploy.types import BatchEvent
from tidemill.deploy.watch.judge import judge
from tidemill.deploy.watch.observer import Watch
from tidemill.deploy.watch.recent import Batch
from tidemill.deploy.watch.sketch import CHUNK, Sketcher
from tidemill.store.workspace import Workspace

HERE = Path(__file__).resolve().parent
FEATURES = 30
BATCH = 32
BAR_US = 2.0
TASK = Task(TaskKind.MULTICLASS, "y", ("a", "b", "c"))


def columns(rows: int, *, seed: int, categories: int = 0) -> dict[str, Any]:
    """Normal numbers, and some columns of fifty categories."""
    rng = np.random.default_rng(seed)
    out: dict[str, Any] = {f"x{k}": rng.normal(size=rows) for k in range(FEATURES - categories)}
    words = np.array([f"word-{k}" for k in range(50)], dtype=object)
    for k in range(categories):
        out[f"c{k}"] = words[rng.integers(0, 50, rows)]
    return out


def reference(categories: int) -> Reference:
    known = columns(20_000, seed=0, categories=categories)
    types = {n: SemanticType.CATEGORY if n[0] == "c" else SemanticType.NUMBER for n in known}
    schema = Schema((*(Column(n, t) for n, t in types.items()), Column("y", SemanticType.TARGET)))
    p = probabilities(20_000, 0)
    return build(schema, TASK, known, Answers(p.astype(np.float32), p.argmax(axis=1)))


def probabilities(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], rows)


def batches(rows: int, size: int, categories: int = 0) -> list[Batch]:
    seen, p = columns(rows, seed=1, categories=categories), probabilities(rows, 1)
    labels = np.array(TASK.classes, dtype=object)[p.argmax(axis=1)]
    return [
        Batch(
            "a1",
            {n: v[i : i + size] for n, v in seen.items()},
            {"label": labels[i : i + size], "probabilities": p[i : i + size]},
            [f"r{k}" for k in range(i, min(i + size, rows))],
            0.0,
        )
        for i in range(0, rows, size)
    ]


def cpu_us(work: Callable[[], None], rows: int, rounds: int) -> float:
    times: list[float] = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times) / rows * 1e6


def sketching(rows: int, rounds: int, *, categories: int, answers: bool, size: int) -> float:
    held = reference(categories)
    told = batches(rows, size, categories)
    if not answers:
        held = Reference(held.features, ())
        told = [Batch(b.revision, b.columns, {}, b.request_ids, b.at) for b in told]

    def work() -> None:
        sketcher = Sketcher(held, TASK.classes if answers else ())
        for batch in told:
            sketcher.add(batch)
        sketcher.flush()

    return cpu_us(work, rows, rounds)


def events(rows: int) -> list[BatchEvent]:
    """What an engine tells: batches of 32 rows, each row a request of its own, its numbers as the bytes that came."""
    names = tuple(f"x{k}" for k in range(FEATURES))
    layout = Layout(tuple(TensorSpec(n, "FP64", (None, 1)) for n in names), (), True, True, (names,))
    whole = np.stack(list(columns(rows, seed=1).values()), axis=1)
    p = probabilities(rows, 1).astype(np.float32)
    labels = np.array(TASK.classes, dtype=object)[p.argmax(axis=1)]
    out: list[BatchEvent] = []
    for start in range(0, rows, BATCH):
        stop = min(start + BATCH, rows)
        count = stop - start
        pieces = [[row.tobytes()] for row in whole[start:stop]]
        held = Columns(layout, count, pieces, ((FEATURES,),))
        outputs = {"label": labels[start:stop], "probabilities": p[start:stop]}
        times = [1.0 + 1e-5 * k for k in range(count)]
        out.append(
            BatchEvent(
                "e", "a1", held, outputs, [f"r{k}" for k in range(start, stop)], list(range(count)), [1] * count,
                times, [t + 1e-4 for t in times], [t + 2e-3 for t in times], 1.0005, 1.0012, 0.4, [0] * count,
            )
        )  # fmt: skip
    return out


def observing(rows: int, rounds: int) -> dict[str, float]:
    """The hot path and the side thread's work apart."""
    hot: list[float] = []
    side: list[float] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, Workspace.open(folder) as workspace:
            watch = Watch(workspace, start=False, sources=Described(folder))
            watch._endpoint("e").revision("a1").sketcher = Sketcher(reference(0), TASK.classes)
            # The hour's reservoirs are filled once; what is measured is all that comes after.
            for event in events(rows):
                watch.answered(event)
            watch.fold()
            told = events(rows)
            start = time.process_time()
            for event in told:
                watch.answered(event)
            hot.append(time.process_time() - start)
            start = time.process_time()
            watch.fold()
            side.append(time.process_time() - start)
            watch.close()
    return {
        "hot_path_us_per_request": min(hot) / rows * 1e6,
        "side_thread_us_per_row": min(side) / rows * 1e6,
    }


class Described:
    """One endpoint with the usual policy, and no bundle."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def refresh(self) -> None:
        """Nothing changes."""

    def endpoint(self, name: str) -> None:
        """Not described."""

    def bundle(self, endpoint: str, revision: str) -> None:
        """Not known."""


EVIDENTLY = """
import json, sys, time
import numpy as np, pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset
rows, features = int(sys.argv[1]), int(sys.argv[2])
names = [f"x{k}" for k in range(features)]
known = pd.DataFrame(np.random.default_rng(0).normal(size=(20000, features)), columns=names)
seen = pd.DataFrame(np.random.default_rng(1).normal(size=(rows, features)), columns=names)
start = time.process_time()
Report([DataDriftPreset()]).run(seen, known).dict()
print(json.dumps(time.process_time() - start))
"""


def evidently(rows: int) -> dict[str, Any]:
    python = HERE.parent / ".environments" / "evidently" / "bin" / "python"
    if not python.exists():
        return {"skipped": "bench/.environments/evidently is not there"}
    done = subprocess.run(
        [str(python), "-W", "ignore", "-c", EVIDENTLY, str(rows), str(FEATURES)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    if done.returncode:
        return {"failed": done.stderr.strip().splitlines()[-1:]}
    return {"us_per_row": float(done.stdout) / rows * 1e6, "rows": rows}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    rows, rounds = given.rows, given.rounds
    measured: dict[str, Any] = {
        "rows": rows,
        "sketch_us_per_row": sketching(rows, rounds, categories=0, answers=False, size=BATCH),
        "sketch_us_per_row_10_categories": sketching(rows, rounds, categories=10, answers=False, size=BATCH),
        "sketch_and_estimate_us_per_row": sketching(rows, rounds, categories=0, answers=True, size=BATCH),
        "sketch_us_per_row_chunks_of_1024": sketching(rows, rounds, categories=0, answers=False, size=CHUNK),
        "bar_us_per_row": BAR_US,
        **observing(min(rows, 50_000), rounds),
    }
    held = reference(0)
    sketcher = Sketcher(held)
    for batch in batches(10_000, CHUNK):
        sketcher.add(batch)
    sketcher.flush()
    sketch = sketcher.take()
    measured["judge_ms"] = cpu_us(lambda: judge(held, sketch) and None, 1, 20) / 1e3
    measured["evidently"] = evidently(min(rows, 10_000))
    text = json.dumps(measured, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    if measured["sketch_us_per_row"] > BAR_US:
        raise SystemExit(f"The sketch takes {measured['sketch_us_per_row']:.2f} µs a row; the bar is {BAR_US}.")


if __name__ == "__main__":
    main()
