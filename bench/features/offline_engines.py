"""One point-in-time join by one engine in a process of its own; prints one line of JSON.

Time runs from the moment the engine's packages are imported until the result is an Arrow table (polars: its frame) in
memory. Opening the workspace or the store and resolving the features is part of it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

Result = tuple[float, Any]


def tidemill(folder: Path, names: list[str]) -> Result:
    from tidemill.data.features.join import historical
    from tidemill.store.workspace import Workspace

    begin = time.perf_counter()
    with Workspace.open(folder / "tidemill") as workspace:
        table = historical(workspace, folder / "spine.parquet", "user", label_time="label_time").to_arrow()
    return begin, table


def tidemill_matrix(folder: Path, names: list[str]) -> Result:
    import pyarrow as pa

    from tidemill.data.features.join import historical
    from tidemill.store.workspace import Workspace

    begin = time.perf_counter()
    with Workspace.open(folder / "tidemill") as workspace:
        matrix = historical(workspace, folder / "spine.parquet", "user", label_time="label_time").matrix()
    took = time.perf_counter()
    table = pa.table({names[0]: matrix[:, 0], **{f"c{i}": matrix[:, i] for i in range(1, matrix.shape[1])}})
    return begin + (time.perf_counter() - took), table  # the table is for the check alone


def duckdb(folder: Path, names: list[str]) -> Result:
    import duckdb as engine
    import pyarrow  # noqa: F401  # the result's form; imported before the clock starts, as for the others

    begin = time.perf_counter()
    query = f"""
        SELECT s.*, f.* EXCLUDE (user_id, event_time) FROM '{folder}/spine.parquet' s
        ASOF LEFT JOIN '{folder}/features.parquet' f ON s.user_id = f.user_id AND s.label_time >= f.event_time
    """
    return begin, engine.sql(query).to_arrow_table()


def polars(folder: Path, names: list[str]) -> Result:
    import polars as pl

    begin = time.perf_counter()
    spine = pl.read_parquet(folder / "spine.parquet").sort("label_time")
    features = pl.scan_parquet(folder / "features.parquet").set_sorted("event_time")
    frame = (
        spine.lazy()
        .join_asof(features, left_on="label_time", right_on="event_time", by="user_id", check_sortedness=False)
        .collect()
    )
    return begin, frame


def feast(folder: Path, names: list[str]) -> Result:
    import pandas as pd
    from feast import FeatureStore

    begin = time.perf_counter()
    store = FeatureStore(repo_path=str(folder / "feast"))
    spine = pd.read_parquet(folder / "spine.parquet").rename(columns={"label_time": "event_timestamp"})
    asked = [f"user_view:{n}" for n in names]
    return begin, store.get_historical_features(entity_df=spine, features=asked).to_arrow()


ENGINES = {
    "tidemill": tidemill, "tidemill_matrix": tidemill_matrix, "duckdb": duckdb, "polars": polars, "feast": feast,
}  # fmt: skip


def apply_feast(folder: Path, names: list[str]) -> None:
    """Describe the features to Feast: not timed."""
    from datetime import timedelta

    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
    from feast.types import Float32

    repo = folder / "feast"
    repo.mkdir(exist_ok=True)
    (repo / "feature_store.yaml").write_text(
        "project: bench\nprovider: local\nregistry: registry.db\noffline_store:\n  type: duckdb\n"
        "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = FileSource(name="features", path=str(folder / "features.parquet"), timestamp_field="event_time")
    view = FeatureView(
        name="user_view", entities=[user], ttl=timedelta(days=0), source=source,
        schema=[Field(name=n, dtype=Float32) for n in names],
    )  # fmt: skip
    FeatureStore(repo_path=str(repo)).apply([user, source, view])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True, choices=[*ENGINES, "apply_feast"])
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    names = json.loads((given.folder / "names.json").read_text())
    if given.engine == "apply_feast":
        apply_feast(given.folder, names)
        return
    begin, table = ENGINES[given.engine](given.folder, names)
    took = time.perf_counter() - begin
    frame = hasattr(table, "height")  # polars
    column = table[names[0]].to_numpy()
    rows, columns = (table.height, table.width) if frame else (table.num_rows, table.num_columns)
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    total = np.nansum(column, dtype=np.float64)
    print(json.dumps({"join_s": took, "rows": rows, "columns": columns, "sum": float(total), "peak_mb": round(peak)}))


if __name__ == "__main__":
    main()
