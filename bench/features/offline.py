"""Point-in-time joins: Tidemill beside Feast (DuckDB store), DuckDB ASOF and Polars join_asof, on the same files.

Each engine joins in a fresh process, one after the other, so many times; medians, ratios and bars are printed. Before
each run all files are read once, so that they lie in the page cache; with ``--cold`` they are put out of it instead.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).resolve().parent
SIZES = {
    # name: rows, features, entities, spine rows
    "narrow": (1_000_000, 200, 100_000, 200_000),
    "wide": (100_000, 5_000, 20_000, 20_000),
}
BARS = {
    # name: how many times as fast as each engine Tidemill must be
    "narrow": {"polars": 3.0, "duckdb": 3.0, "feast": 10.0},
    "wide": {"feast": 15.0},
}
DAYS = 90
FIELDS = [
    "size", "rows", "features", "spine", "engine", "run", "cache", "join_s", "process_s", "peak_mb", "sum", "loadavg",
    "note",
]  # fmt: skip


def main() -> None:
    """Read the arguments, make the data, run the engines, print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(SIZES), help="sections, separated by commas")
    parser.add_argument("--engines", default="tidemill,tidemill_matrix,polars,duckdb,feast")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows; 0.05 for a trial")
    parser.add_argument("--work", type=Path, default=HERE / ".work")
    parser.add_argument("--out", type=Path, default=HERE / "offline.csv")
    parser.add_argument("--environments", type=Path, default=HERE.parent / ".environments")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for one run")
    parser.add_argument("--cold", action="store_true", help="put the files out of the page cache before each run")
    given = parser.parse_args()
    with given.out.open("a", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        if file.tell() == 0:
            table.writeheader()
        for size in given.only.split(","):
            folder = given.work / f"{size}-{given.scale:g}"
            facts = prepare(folder, size, given.scale)
            engines = given.engines.split(",")
            if "feast" in engines:
                python = given.environments / "feast" / "bin" / "python"
                subprocess.run([python, HERE / "offline_engines.py", "--engine", "apply_feast", "--folder", folder],
                               check=True, capture_output=True)  # fmt: skip
            for engine in engines:  # once for nothing: packages get compiled
                measure(folder, engine, given)
            rows = []
            for run in range(given.runs):  # interleaved: a disturbance meets all engines
                for engine in engines:
                    row = facts | {"engine": engine, "run": run} | measure(folder, engine, given)
                    print(
                        f"run {run + 1}: {engine}: {row.get('join_s')} s {row.get('note')}", file=sys.stderr, flush=True
                    )
                    rows.append(row)
                    table.writerow({k: row.get(k) for k in FIELDS})
                    file.flush()
            show(size, rows)


def prepare(folder: Path, size: str, scale: float) -> dict[str, Any]:
    """Make the files and push them to a workspace, once; says what that took."""
    rows, features, entities, spine = SIZES[size]
    rows, entities, spine = (max(100, int(n * scale)) for n in (rows, entities, spine))
    facts = {"size": size, "rows": rows, "features": features, "spine": spine}
    if (folder / "pushed.json").exists():
        return facts
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    names = [f"f{i:04d}" for i in range(features)]
    begin = np.datetime64("2026-01-01T00:00:00", "us").astype(np.int64)
    clock = pa.timestamp("us", "UTC")
    times = np.sort(begin + rng.integers(0, DAYS * 86_400_000_000, rows))
    columns = {"user_id": pa.array(rng.integers(0, entities, rows)), "event_time": pa.array(times).cast(clock)}
    columns |= {n: pa.array(rng.standard_normal(rows, dtype=np.float32)) for n in names}
    pq.write_table(pa.table(columns), folder / "features.parquet", compression="snappy", row_group_size=122_880)
    labels = begin + rng.integers(0, DAYS * 86_400_000_000, spine)
    asked = {"user_id": pa.array(rng.integers(0, entities, spine)), "label_time": pa.array(labels).cast(clock)}
    pq.write_table(pa.table(asked), folder / "spine.parquet")
    (folder / "names.json").write_text(json.dumps(names))
    took = push(folder, names)
    (folder / "pushed.json").write_text(json.dumps({"push_s": took}))
    print(f"{size}: {rows:,} x {features:,} pushed (checked, sorted, Parquet and packed, on disk) in {took:.1f} s")
    return facts


def push(folder: Path, names: list[str]) -> float:
    """Push the features' file to a fresh workspace; gives the seconds."""
    from tidemill.data.features.push import push as push_rows
    from tidemill.data.features.registry import register
    from tidemill.data.features.types import EntityKey, Feature, FeatureGroup
    from tidemill.store.workspace import Workspace

    begin = time.perf_counter()
    with Workspace.open(folder / "tidemill") as workspace:
        register(workspace, FeatureGroup("user", (EntityKey("user_id"),), tuple(Feature(n) for n in names)))
        push_rows(workspace, "user", folder / "features.parquet")
    return time.perf_counter() - begin


def measure(folder: Path, engine: str, given: argparse.Namespace) -> dict[str, Any]:
    """Run one engine once in a process of its own."""
    python = given.environments / "feast" / "bin" / "python" if engine == "feast" else Path(sys.executable)
    touch(folder, cold=given.cold)
    row: dict[str, Any] = {"cache": "cold" if given.cold else "warm", "loadavg": round(os.getloadavg()[0], 1)}
    begin = time.perf_counter()
    try:
        script = [str(HERE / "offline_engines.py"), "--engine", engine, "--folder", str(folder)]
        done = subprocess.run(
            [str(python), "-W", "ignore", *script],
            capture_output=True, text=True, timeout=given.limit, env=environment(given.work),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return row | {"note": f"stopped after {given.limit:g} s"}
    row["process_s"] = round(time.perf_counter() - begin, 3)
    if done.returncode:
        return row | {"note": "FAILED: " + done.stderr[-300:].replace("\n", " ")}
    facts = json.loads(done.stdout.splitlines()[-1])
    row |= {"join_s": round(facts["join_s"], 3), "peak_mb": facts["peak_mb"], "sum": round(facts["sum"], 2)}
    return row | {"note": f"{facts['rows']} rows"}


def environment(work: Path) -> dict[str, str]:
    """Let every engine find its packages compiled: compiling them is no part of a join."""
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONPYCACHEPREFIX": str(work.absolute() / "pycache")}


def touch(folder: Path, *, cold: bool) -> None:
    """Bring all files into the page cache, or put them out of it."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        with path.open("rb") as file:
            if cold:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while file.read(1 << 24):
                    pass


def show(size: str, rows: list[dict[str, Any]]) -> None:
    """Print medians, how many times as long as Tidemill each engine takes, and whether that is enough."""
    medians: dict[str, float] = {}
    for engine in dict.fromkeys(r["engine"] for r in rows):
        mine = [r for r in rows if r["engine"] == engine]
        good = [r for r in mine if "join_s" in r]
        if not good:
            print(f"{size} {engine}: {mine[-1].get('note')}")
            continue
        times = [r["join_s"] for r in good]
        medians[engine] = statistics.median(times)
        ratio = f"{medians[engine] / medians['tidemill']:.1f} x" if "tidemill" in medians else ""
        whole = statistics.median(r["process_s"] for r in good)
        print(
            f"{size} {engine:16s} {medians[engine]:8.3f} s ({min(times):.3f}-{max(times):.3f}) {ratio:>8s}  "
            f"whole process {whole:.2f} s, peak {good[-1]['peak_mb']} MB, sum {good[-1]['sum']}, {good[-1]['note']}"
        )
    sums = [r["sum"] for r in rows if "sum" in r]
    if sums and max(sums) - min(sums) > 0.02:
        print(f"{size}: THE ANSWERS DIFFER, see the column sum")
    ours = medians.get("tidemill")
    for engine, bar in BARS[size].items():
        if ours is None or engine not in medians:
            print(f"{size} bar: {engine} was not measured ({bar:g} x wanted)")
            continue
        ratio = medians[engine] / ours
        runs = [r["join_s"] / ours for r in rows if r["engine"] == engine and "join_s" in r]
        words = f"{ratio:.1f} x as fast as {engine} ({min(runs):.1f}-{max(runs):.1f}), at least {bar:g}"
        print(f"{size} bar: {words}: {'pass' if ratio >= bar else 'MISS'}")


if __name__ == "__main__":
    main()
