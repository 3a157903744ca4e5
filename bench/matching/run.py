"""Three conditions on a wide table: Tidemill beside DuckDB and Polars, in one run, on the same rows.

    .venv/bin/python bench/matching/run.py                               # 1,000,000 x 200
    .venv/bin/python bench/matching/run.py --rows 100000 --columns 50

Measured, as the median of several repeats after one that is not counted: the numbers of the matching rows; a balanced
sample of them with its preview; the matching rows with all columns. Rivals hold their data in memory, too, and read the
same Parquet file where "Parquet" is said. Every answer is compared with that of the first system; each bar is printed
with "pass" or "MISS". About 6 GB of memory at full size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CONDITION = "f0000 between 0.2 and 0.4 and f0001 > 0.7 and f0002 < 0.1"
"""Three ranges, about 0.6 % of the rows."""
BARS = {"ids": 10.0, "matching rows, all columns": 300.0}
"""Milliseconds that Tidemill may take at full size, 1,000,000 rows of 200 columns that are resident."""


def main() -> None:
    options = _options()
    table = _table(options.rows, options.columns)
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        file = Path(folder) / "rows.parquet"
        pq.write_table(table, file)
        runs: dict[str, Callable[[], Any]] = {}
        runs |= _tidemill(table, Path(folder), options.source)
        runs |= _duckdb(table, file)
        runs |= _polars(table, file)
        report = _measure(runs, options.repeats)
    facts = {"rows": options.rows, "columns": options.columns, "source": options.source, "cores": os.cpu_count()}
    bars = _bars(report, options.rows, options.columns)
    text = json.dumps(facts | {"load": os.getloadavg()[0], "results": report, "bars": bars}, indent=2)
    print(text)
    if options.out:
        Path(options.out).write_text(text + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--source", choices=("group", "version"), default="group", help="what Tidemill matches from")
    parser.add_argument("--scratch", help="folder for temporary files")
    parser.add_argument("--out", help="JSON file for the results")
    return parser.parse_args()


def _table(rows: int, columns: int) -> pa.Table:
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {
        "user_id": np.arange(rows),
        "event_time": pa.array(rng.integers(0, 10**15, rows), pa.timestamp("us", "UTC")),
        "region": pa.array(rng.choice(["north", "south", "west"], rows)),
    }
    return pa.table(out | {f"f{i:04d}": rng.random(rows, dtype=np.float32) for i in range(columns)})


def _tidemill(table: pa.Table, folder: Path, source: str) -> dict[str, Callable[[], Any]]:
    from tidemill.data.matching import Resident, match, open_source, parse
    from tidemill.store.workspace import Workspace

    workspace = Workspace.open(folder / "workspace")
    begin = time.perf_counter()
    resident = Resident(open_source(workspace, _keep(workspace, table, source)))
    print(f"written in {time.perf_counter() - begin:.1f} s", flush=True)
    begin = time.perf_counter()
    resident.frame(resident.source.names)
    print(f"{resident.memory_bytes / 1e9:.2f} GB resident in {time.perf_counter() - begin:.1f} s", flush=True)
    condition = parse(CONDITION, resident.types)

    def ids() -> Any:
        return condition.rows_of(resident.frame(condition.columns))

    def sample() -> Any:
        return match(workspace, resident, CONDITION, balance="region", size=3000, seed=1).size

    def whole() -> Any:
        return match(workspace, resident, CONDITION).table().num_rows

    return {
        "tidemill: ids": lambda: len(ids()),
        "tidemill: balanced sample of 3,000 with preview": sample,
        "tidemill: matching rows, all columns": whole,
    }


def _keep(workspace: Any, table: pa.Table, source: str) -> str:
    if source == "version":
        from tidemill.data.infer import infer_schema
        from tidemill.data.ingest._base import RawTable
        from tidemill.data.versions import write_version

        raw = RawTable(table, "bench")
        return write_version(workspace, "bench", raw, infer_schema(raw)).ref
    from tidemill.data.features.push import push
    from tidemill.data.features.registry import register
    from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup

    names = [n for n in table.column_names if n.startswith("f")]
    features = (Feature("region", DType.CATEGORY), *(Feature(n) for n in names))
    register(workspace, FeatureGroup("bench", (EntityKey("user_id"),), features))
    push(workspace, "bench", table)
    return "group:bench"


def _duckdb(table: pa.Table, file: Path) -> dict[str, Callable[[], Any]]:
    import duckdb

    connection = duckdb.connect(":memory:")
    connection.register("arrow_rows", table)
    connection.execute("create table kept as select * from arrow_rows")
    connection.unregister("arrow_rows")

    def ids(source: str) -> int:
        return len(connection.execute(f"select user_id from {source} where {CONDITION}").fetchnumpy()["user_id"])

    def whole(source: str) -> int:
        return int(connection.sql(f"select * from {source} where {CONDITION}").to_arrow_table().num_rows)

    return {
        "duckdb: ids": lambda: ids("kept"),
        "duckdb: ids, Parquet": lambda: ids(f"'{file}'"),
        "duckdb: matching rows, all columns": lambda: whole("kept"),
        "duckdb: matching rows, all columns, Parquet": lambda: whole(f"'{file}'"),
    }


def _polars(table: pa.Table, file: Path) -> dict[str, Callable[[], Any]]:
    import polars as pl

    frame = pl.from_arrow(table)
    condition = pl.col("f0000").is_between(0.2, 0.4) & (pl.col("f0001") > 0.7) & (pl.col("f0002") < 0.1)
    return {
        "polars: ids": lambda: frame.lazy().filter(condition).select("user_id").collect().height,
        "polars: ids, Parquet": lambda: pl.scan_parquet(file).filter(condition).select("user_id").collect().height,
        "polars: matching rows, all columns": lambda: frame.lazy().filter(condition).collect().height,
        "polars: matching rows, all columns, Parquet": lambda: pl.scan_parquet(file).filter(condition).collect().height,
    }


def _measure(runs: dict[str, Callable[[], Any]], repeats: int) -> list[dict[str, Any]]:
    out = []
    wanted: Any = None
    for name, run in runs.items():
        found = run()
        wanted = found if wanted is None else wanted
        seconds = []
        for _ in range(repeats if "all columns, Parquet" not in name else 1):
            begin = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - begin)
        line = {"run": name, "median_ms": round(1000 * statistics.median(seconds), 3), "answer": found}
        if "sample" not in name and found != wanted:
            line["differs"] = f"wanted {wanted}"
        print(line, flush=True)
        out.append(line | {"all_ms": [round(1000 * s, 3) for s in seconds]})
    return out


def _bars(report: list[dict[str, Any]], rows: int, columns: int) -> list[dict[str, Any]]:
    """Hold what was measured against the bars, and say how many times as long each rival took."""
    found = {line["run"]: line["median_ms"] for line in report}
    out = []
    for step, most in BARS.items():
        ours = found[f"tidemill: {step}"]
        rivals = {name: t for name, t in found.items() if step in name and not name.startswith("tidemill")}
        ratios = {name: round(t / max(ours, 1e-9), 1) for name, t in rivals.items()}
        line = {"bar": step, "wanted_ms": most, "reached_ms": ours, "verdict": "pass" if ours <= most else "MISS"}
        out.append({**line, "times_as_long": ratios})
        print(f"{step}: {ours:.1f} ms, at most {most:.0f} wanted: {line['verdict']}; rivals {ratios}", flush=True)
    if (rows, columns) != (1_000_000, 200):
        print(f"The bars are for 1,000,000 x 200; this run had {rows:,} x {columns:,}.", flush=True)
    return out


if __name__ == "__main__":
    main()
