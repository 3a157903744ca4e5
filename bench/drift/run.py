"""Drift over all columns: Tidemill beside Evidently, in one run, on the same rows.

    bash bench/drift/environments.sh                                      # once: Evidently in an environment of its own
    .venv/bin/python bench/drift/run.py                                  # 100,000 x 5,000; Evidently up to its limit
    .venv/bin/python bench/drift/run.py --rows 2000 --columns 50 --rival-limit 60

Two tables of the same shape lie in memory; every tenth column of the second has moved. Measured for Tidemill: counting
the histograms of both tables, bins included, and comparing them; the page. Evidently runs its drift preset (its own
choice of tests) in a process of its own, on growing sizes, until one takes longer than the limit; Tidemill is measured
on those sizes, too. "found" counts the columns called drifted, of those that moved and of those that did not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
RIVAL = HERE.parent / ".environments" / "evidently" / "bin" / "python"
SIZES = ((1_000, 20), (5_000, 50), (10_000, 100), (10_000, 300), (20_000, 1_000), (100_000, 1_000), (100_000, 5_000))
BAR_S = 15.0
"""Seconds for histograms and comparison of 100,000 rows and 5,000 columns on 2 cores."""
EVERY = 10
"""Every so many columns one has moved, by half a standard deviation."""


def main() -> None:
    options = _options()
    facts: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "threads": options.threads}
    tables = _tables(options.rows, options.columns)
    facts["tidemill"] = [_tidemill(*tables, options.threads)]
    del tables
    facts["evidently"] = []
    for rows, columns in SIZES if RIVAL.exists() and options.rival_limit else ():
        if rows * columns > options.rows * options.columns:
            break
        facts["tidemill"].append(_tidemill(*_tables(rows, columns), options.threads))
        line = _evidently(rows, columns, options.rival_limit, options.scratch)
        facts["evidently"].append(line)
        if "seconds" not in line:
            break
    facts["bar"] = _bar(facts)
    text = json.dumps(facts, indent=2)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=5_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rival-limit", type=float, default=900.0, help="seconds; 0 leaves Evidently out")
    parser.add_argument("--scratch", help="folder for temporary files")
    parser.add_argument("--out", help="JSON file for the results")
    return parser.parse_args()


def _tables(rows: int, columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32], list[str]]:
    rng = np.random.default_rng(0)
    before = rng.standard_normal((rows, columns), dtype=np.float32)
    after = rng.standard_normal((rows, columns), dtype=np.float32)
    after[:, ::EVERY] += 0.5
    return before, after, [f"f{i:04d}" for i in range(columns)]


def _tidemill(
    before: NDArray[np.float32], after: NDArray[np.float32], names: list[str], threads: int
) -> dict[str, Any]:
    from tidemill.data.drift.compare import drift
    from tidemill.data.drift.page import render_page
    from tidemill.data.drift.sketch import sketch_matrix

    begin = time.perf_counter()
    one = sketch_matrix(before, names, threads=threads)
    two = sketch_matrix(after, names, one.grid, threads=threads)
    counted = time.perf_counter()
    found = drift(one, two)
    compared = time.perf_counter()
    page = render_page("bench", drift=found)
    drawn = time.perf_counter()
    called = {c.column for c in found.drifted}
    line = {
        "rows": len(before),
        "columns": len(names),
        "seconds": round(compared - begin, 3),
        "histograms_s": round(counted - begin, 3),
        "comparison_s": round(compared - counted, 3),
        "page_s": round(drawn - compared, 3),
        "page_bytes": len(page),
        **_found(called, names),
    }
    print("tidemill", line, flush=True)
    return line


def _found(called: set[str], names: list[str]) -> dict[str, int]:
    moved = set(names[::EVERY])
    return {"moved": len(moved), "found_moved": len(called & moved), "found_others": len(called - moved)}


def _evidently(rows: int, columns: int, limit_s: float, scratch: str | None) -> dict[str, Any]:
    line: dict[str, Any] = {"rows": rows, "columns": columns}
    before, after, names = _tables(rows, columns)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        files = [Path(folder) / name for name in ("before.npy", "after.npy")]
        for file, table in zip(files, (before, after), strict=True):
            np.save(file, table)
        del before, after
        command = [str(RIVAL), str(HERE / "run_evidently.py"), *map(str, files)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=True)
        except subprocess.TimeoutExpired:
            line["stopped"] = f"not finished after {limit_s:.0f} s"
        except subprocess.CalledProcessError as error:
            line["failed"] = error.stderr[-500:]
        else:
            answer = json.loads(done.stdout.splitlines()[-1])
            line |= {"seconds": answer["seconds"], "whole_process_s": answer["process_s"]}
            line |= _found(set(answer["drifted"]), names)
    print("evidently", line, file=sys.stdout, flush=True)
    return line


def _bar(facts: dict[str, Any]) -> dict[str, Any]:
    """Hold the first measurement against the bar, and compare the largest size that the rival finished."""
    first = facts["tidemill"][0]
    line = {"bar": f"{first['rows']:,} x {first['columns']:,}", "wanted_s": BAR_S, "reached_s": first["seconds"]}
    line["verdict"] = "pass" if first["seconds"] <= BAR_S else "MISS"
    print(
        f"drift of {line['bar']}: {first['seconds']:.1f} s, at most {BAR_S:.0f} wanted: {line['verdict']}", flush=True
    )
    if (first["rows"], first["columns"]) != (100_000, 5_000):
        print("The bar is for 100,000 x 5,000.", flush=True)
    done = [e for e in facts["evidently"] if "seconds" in e]
    if done:
        rival = done[-1]
        size = (rival["rows"], rival["columns"])
        ours = next(t for t in facts["tidemill"][1:] if (t["rows"], t["columns"]) == size)
        line |= {"rival_size": list(size), "rival_s": rival["seconds"], "ours_s": ours["seconds"]}
        line["ratio"] = round(rival["seconds"] / max(ours["seconds"], 1e-9), 1)
        told = f"{rival['seconds']:.1f} s, Tidemill {ours['seconds']:.3f} s, {line['ratio']:,.0f} times"
        print(f"Evidently's largest, {size[0]:,} x {size[1]:,}: {told}", flush=True)
    return line


if __name__ == "__main__":
    main()
