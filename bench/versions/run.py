"""Merge and sample versions of a large table, beside Delta and Lance where they are installed.

    bash bench/versions/environments.sh                          # once: Delta and Lance in an environment of their own
    .venv/bin/python bench/versions/run.py                       # two tables of 1,000,000 x 20, five times
    .venv/bin/python bench/versions/run.py --only tidemill --rows 100000

Each system runs in a process of its own, with the Python given for it, and they take turns. Prints a Markdown table of
medians, then each bar with what was reached and "pass" or "MISS". About 2 GB of memory at full size.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = ("write A", "merge A+B", "merge MB", "sample 10 %", "sample MB", "read C", "read sample", "merge by key")
SYSTEMS = ("tidemill", "delta", "lance")
NEEDS = {"delta": "deltalake", "lance": "lance"}
RIVALS = Path(__file__).resolve().parents[1] / ".environments" / "versions" / "bin" / "python"
BARS = (("merge A+B", 0.010, "s"), ("merge MB", 0.001, "MB"), ("sample 10 %", 0.3, "s"))
"""What it must show at full size: two versions of a million rows merged in less than 10 ms with no data written."""


def main() -> None:
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of A and of B")
    parser.add_argument("--columns", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", default=",".join(SYSTEMS))
    parser.add_argument(
        "--python", default=str(RIVALS) if RIVALS.exists() else sys.executable, help="Python of the rivals' environment"
    )
    parser.add_argument("--folder", type=Path, help="where to write; default a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.measure, given.rows, given.columns, given.folder)))
        return
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(given.repeats):  # systems take turns, so that a busy moment hits all of them
        for system in given.only.split(","):
            result = run(system, given, turn)
            if isinstance(result, str):
                print(f"{system}: {result}", file=sys.stderr)
            else:
                found.setdefault(system, []).append(result)
    print(table(found, given.rows, given.columns, given.repeats))
    print(bars(found, given.rows))
    if given.out:
        facts = {"rows": given.rows, "columns": given.columns, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
        given.out.write_text(json.dumps({**facts, "runs": found}, indent=2) + "\n", encoding="utf-8")


def run(system: str, given: argparse.Namespace, turn: int) -> dict[str, float] | str:
    """Measure one system in a process of its own."""
    python = sys.executable if system == "tidemill" else given.python
    with tempfile.TemporaryDirectory(dir=given.folder, prefix=f"{system}-{turn}-") as folder:
        command = [python, __file__, "--measure", system, "--rows", str(given.rows), "--columns", str(given.columns)]
        done = subprocess.run([*command, "--folder", folder], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(system: str, rows: int, columns: int, folder: Path) -> dict[str, float]:
    """Time every step; the same tables for all."""
    need = NEEDS.get(system)
    if need is not None and importlib.util.find_spec(need) is None:
        sys.exit(f"skipped, the package {need!r} is not installed here (see --python)")
    return {"tidemill": tidemill, "delta": delta, "lance": lance}[system](rows, columns, folder)


def make_table(rows: int, columns: int, seed: int) -> Any:
    """Make half of the columns noise, the rest whole numbers and words; a key that overlaps by a tenth."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    words = np.array([f"word-{i}" for i in range(50)])
    data: dict[str, Any] = {"key": np.arange(rows) + seed * int(0.9 * rows)}
    for i in range(columns - 2):
        if i % 4 < 2:
            data[f"c{i}"] = rng.normal(size=rows)
        elif i % 4 == 2:
            data[f"c{i}"] = rng.integers(0, 1000, rows).astype(float)
        else:
            data[f"c{i}"] = pa.array(words).take(pa.array(rng.integers(0, 50, rows)))
    data["y"] = pa.array(np.array(["no", "yes"])).take(pa.array(rng.integers(0, 2, rows)))
    return pa.table(data)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds and result."""
    begin = time.perf_counter()
    value = call()
    return time.perf_counter() - begin, value


def megabytes(folder: Path) -> float:
    """Size of the files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6


def tidemill(rows: int, columns: int, folder: Path) -> dict[str, float]:
    """Versions of this house."""
    from tidemill.core.schema import Column, Schema, SemanticType
    from tidemill.data.versions import load_version, write_version
    from tidemill.data.versions.operations import merge, sample
    from tidemill.store.workspace import Workspace

    a, b = (make_table(rows, columns, seed) for seed in (0, 1))
    kinds = {"key": SemanticType.INTEGER, "y": SemanticType.TARGET}
    schema = Schema(
        tuple(
            Column(f.name, kinds.get(f.name, SemanticType.NUMBER if str(f.type) == "double" else SemanticType.CATEGORY))
            for f in a.schema
        )
    )
    out: dict[str, float] = {}
    with Workspace.open(folder / "workspace") as workspace:
        out["write A"], one = timed(lambda: write_version(workspace, "a", a, schema))
        two = write_version(workspace, "b", b, schema)
        merge(workspace, [sample(workspace, "a", size=10).hash, "b"], name="warm")  # the first SQL is compiled once
        before = len(workspace.artifacts.keys()), megabytes(folder / "workspace" / "artifacts")
        out["merge A+B"], done = timed(lambda: merge(workspace, [one.hash, two.hash], name="c"))
        if len(workspace.artifacts.keys()) != before[0] or done.version.rows != 2 * rows:
            sys.exit("the merge has written data")
        out["merge MB"] = megabytes(folder / "workspace" / "artifacts") - before[1]
        before = 0, megabytes(folder / "workspace" / "artifacts")
        out["sample 10 %"], child = timed(lambda: sample(workspace, done.version.hash, size=0.1))
        out["sample MB"] = megabytes(folder / "workspace" / "artifacts") - before[1]
        out["read C"], _ = timed(lambda: load_version(workspace, done.version.hash))
        out["read sample"], _ = timed(lambda: load_version(workspace, child.hash))
        out["merge by key"], _ = timed(lambda: merge(workspace, ["a", "b"], identity=["key"], name="k"))
    return out


def delta(rows: int, columns: int, folder: Path) -> dict[str, float]:
    """Delta tables: a merge is a copy of A and an append of B."""
    import numpy as np
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake

    a, b = (make_table(rows, columns, seed) for seed in (0, 1))
    out: dict[str, float] = {}
    out["write A"], _ = timed(lambda: write_deltalake(str(folder / "a"), a))
    write_deltalake(str(folder / "b"), b)

    def read(name: str) -> Any:
        return pa.table(DeltaTable(str(folder / name)).to_pyarrow_table())

    def merge() -> None:
        write_deltalake(str(folder / "c"), read("a"))
        write_deltalake(str(folder / "c"), read("b"), mode="append")

    def sample() -> None:
        table = read("c")
        chosen = np.sort(np.random.default_rng(0).permutation(table.num_rows)[: table.num_rows // 10])
        write_deltalake(str(folder / "s"), table.take(pa.array(chosen)))

    out["merge A+B"], _ = timed(merge)
    out["merge MB"] = megabytes(folder / "c")
    out["sample 10 %"], _ = timed(sample)
    out["sample MB"] = megabytes(folder / "s")
    out["read C"], _ = timed(lambda: read("c"))
    out["read sample"], _ = timed(lambda: read("s"))
    return out


def lance(rows: int, columns: int, folder: Path) -> dict[str, float]:
    """Lance datasets: a merge is a copy of A and an append of B."""
    import lance as package
    import numpy as np

    a, b = (make_table(rows, columns, seed) for seed in (0, 1))
    out: dict[str, float] = {}
    out["write A"], _ = timed(lambda: package.write_dataset(a, str(folder / "a")))
    package.write_dataset(b, str(folder / "b"))

    def read(name: str) -> Any:
        return package.dataset(str(folder / name)).to_table()

    def merge() -> None:
        package.write_dataset(read("a"), str(folder / "c"))
        package.write_dataset(read("b"), str(folder / "c"), mode="append")

    def sample() -> None:
        source = package.dataset(str(folder / "c"))
        count = source.count_rows()
        chosen = np.sort(np.random.default_rng(0).permutation(count)[: count // 10])
        package.write_dataset(source.take(chosen), str(folder / "s"))

    out["merge A+B"], _ = timed(merge)
    out["merge MB"] = megabytes(folder / "c")
    out["sample 10 %"], _ = timed(sample)
    out["sample MB"] = megabytes(folder / "s")
    out["read C"], _ = timed(lambda: read("c"))
    out["read sample"], _ = timed(lambda: read("s"))
    return out


def table(found: dict[str, list[dict[str, float]]], rows: int, columns: int, repeats: int) -> str:
    """Medians as Markdown; times in ms."""
    lines = [f"A and B: {rows:,} rows × {columns} columns each; medians of {repeats}; times in ms.", ""]
    lines.append("| | " + " | ".join(STEPS) + " |")
    lines.append("|---" * (len(STEPS) + 1) + "|")
    for system, runs in found.items():
        cells = []
        for step in STEPS:
            values = [r[step] for r in runs if step in r]
            scale = 1 if step.endswith("MB") else 1000
            cells.append(f"{statistics.median(values) * scale:,.1f}" if values else "–")
        lines.append(f"| {system} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def bars(found: dict[str, list[dict[str, float]]], rows: int) -> str:
    """Each bar with what was reached, and how many times as much the rivals need."""
    lines = ["", "| bar | wanted | reached | verdict | rivals, as a multiple |", "|---|---|---|---|---|"]
    for step, most, unit in BARS:
        values = {s: statistics.median([r[step] for r in runs]) for s, runs in found.items()}
        ours = values.pop("tidemill", None)
        if ours is None:
            continue
        scale, shown = (1000, "ms") if unit == "s" else (1, unit)
        times = ", ".join(f"{s} {v / ours:,.1f}x" for s, v in values.items()) if ours > 0 else "–"
        verdict = "pass" if ours <= most else "MISS"
        lines.append(
            f"| {step} | ≤ {most * scale:,.3g} {shown} | {ours * scale:,.3g} {shown} | {verdict} | {times or '–'} |"
        )
    if rows < 1_000_000:
        lines.append(f"\nThe bars are for 1,000,000 rows each; this run had {rows:,}.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
