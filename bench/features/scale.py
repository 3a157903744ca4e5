"""What 5,000 dimensions × 300 million entities take: unit costs measured here, and the arithmetic that follows.

    .venv/bin/python bench/features/scale.py --out scale.json            # 16 shards × 200,000 entities, int8: 16 GB
    .venv/bin/python bench/features/scale.py --entities 2000 --features 500     # a try

Sixteen LMDB stores, one after the other as sixteen machines would do side by side, laid out by the same consistent
hashing that a cluster would use. Rows are int8 by default: float32 would need four times the disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tidemill.data.features.online._base import OnlineStore
from tidemill.data.features.online.group import OnlineGroup
from tidemill.data.features.online.keys import SHARDS
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.placement import ShardedStore, move_shards, place
from tidemill.data.features.online.rows import Layout
from tidemill.data.features.types import EntityKey, Feature, FeatureGroup, Packing, Validation

BATCH = 2000
POOL = 4000
"""Different rows that are written again and again under other keys: LMDB does not compress, so it costs the same."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=16, help="stores")
    parser.add_argument("--entities", type=int, default=200_000, help="for each store, on average")
    parser.add_argument("--features", type=int, default=5000)
    parser.add_argument("--packing", default="int8", choices=[p.value for p in Packing])
    parser.add_argument("--reads", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where the stores are made; default a temporary folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", type=Path, help="write the page docs/scale.md from what was measured")
    given = parser.parse_args()
    group = group_of(given.features, given.packing)
    need = given.shards * given.entities * page_bytes(group) * 1.15
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        free = shutil.disk_usage(folder).free
        if need > free * 0.8:
            sys.exit(
                f"This needs about {need / 1e9:.0f} GB, and {free / 1e9:.0f} GB are free; take int8 or fewer features."
            )
        units = measure(given, group, Path(folder))
    report = {
        "asked": {k: str(v) for k, v in vars(given).items()},
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "units": units,
        "plan": {packing: plan(units, given, packing) for packing in ("float32", "float16", "int8")},
    }
    print(json.dumps(report, indent=2))
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    if given.write:
        given.write.write_text(page(report, given))


def group_of(features: int, packing: str) -> FeatureGroup:
    rule = Validation(low=-10, high=10) if packing == "int8" else Validation()
    listed = tuple(Feature(f"f{i:05d}", validation=rule) for i in range(features))
    return FeatureGroup("wide", (EntityKey("id"),), listed, packing=Packing(packing))


def page_bytes(group: FeatureGroup, page: int = 4096) -> int:
    """Bytes that a row takes in LMDB: whole pages, of which the first has a header of 16 bytes; small rows share."""
    row = Layout.of(group).bitmap_at
    return row if row < page // 2 else -(-(row + 16) // page) * page


def measure(given: argparse.Namespace, group: FeatureGroup, folder: Path) -> dict[str, Any]:
    names = [f"s{i:02d}" for i in range(given.shards)]
    # Flushed at the end of each store: a load can be repeated, so that not every batch needs a flush of its own.
    stores: dict[str, OnlineStore] = {name: LmdbStore(folder / name, sync=False) for name in names}
    sharded = ShardedStore(stores)
    online = OnlineGroup(group, sharded)
    chance = np.random.default_rng(1)
    block = np.clip(chance.normal(size=(POOL + BATCH, given.features)), -9, 9).astype(np.float32)
    total = given.shards * given.entities
    now = time.time_ns() - 10**9
    start = time.perf_counter()
    for begin in range(0, total, BATCH):
        keys = list(range(begin, min(begin + BATCH, total)))
        at = begin % POOL
        times = [now] * len(keys)
        online.put_matrix(keys, block[at : at + len(keys)], times, times)
    for name in names:
        _flush(folder / name)
    load_s = time.perf_counter() - start
    counts = [sum(1 for s in range(SHARDS) if place(s, names) == n) / SHARDS for n in names]
    used = [sum(f.stat().st_blocks * 512 for f in (folder / n).iterdir()) for n in names]
    units: dict[str, Any] = {
        "entities": total,
        "load_rows_per_s": total / load_s,
        "bytes_per_entity": sum(used) / total,
        "row_bytes": Layout.of(group).bitmap_at,
        "largest_share_of_a_store": max(counts) * given.shards,
    }
    units |= reads(online, total, given.reads)
    units |= rebuild(stores[names[0]], folder, names, total)
    sharded.close()
    return units


def _flush(folder: Path) -> None:
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def reads(online: OnlineGroup, total: int, count: int) -> dict[str, Any]:
    """Read at random over all stores; the first read of a page may come from the disk."""
    chosen = np.random.default_rng(2).integers(0, total, count).tolist()
    took = np.empty(count)
    for n, entity in enumerate(chosen):
        start = time.perf_counter()
        online.row(entity)
        took[n] = time.perf_counter() - start
    names = [f.name for f in online.group.features[:: max(1, len(online.group.features) // 300)]][:300]
    some = chosen[: max(10, count // 50)]
    start = time.perf_counter()
    for entity in some:
        online.read([entity], names)
    subset = time.perf_counter() - start
    start = time.perf_counter()
    for begin in range(0, len(some), 100):
        online.read(some[begin : begin + 100])
    many = time.perf_counter() - start
    return {
        "read_p50_us": float(np.percentile(took, 50) * 1e6),
        "read_p99_us": float(np.percentile(took, 99) * 1e6),
        "reads_per_s_of_a_core": count / float(took.sum()),
        "subset_of_300_us": subset / len(some) * 1e6,
        "in_batches_of_100_rows_per_s": len(some) / many,
    }


def rebuild(store: OnlineStore, folder: Path, names: list[str], total: int) -> dict[str, Any]:
    """Copy some virtual shards into a new store, as a machine that comes or is replaced would get them."""
    mine = [s for s in range(SHARDS) if place(s, names) == names[0]][:16]
    target = LmdbStore(folder / "new", sync=False)
    start = time.perf_counter()
    moved = move_shards(store, target, mine)
    _flush(folder / "new")
    took = time.perf_counter() - start
    target.close()
    return {"rebuild_rows_per_s": moved / took, "rebuilt_rows": moved, "entities_per_virtual_shard": total / SHARDS}


def plan(units: dict[str, Any], given: argparse.Namespace, packing: str) -> dict[str, Any]:
    """Extrapolate to 300 million entities × 5,000 on 16 machines with two copies; every line is one multiplication.

    Reads and writes of another packing than the measured one are scaled by bytes, which is on the safe side for
    the smaller ones: part of the cost is by row.
    """
    entities, features, machines, copies = 300_000_000, 5000, 16, 2
    measured = page_bytes(group_of(given.features, given.packing))
    wanted = page_bytes(group_of(features, packing))
    overhead = units["bytes_per_entity"] / measured
    row = wanted * overhead
    scale = wanted / measured
    per_machine = entities * copies / machines
    return {
        "bytes_per_entity": row,
        "one_copy_tb": entities * row / 1e12,
        "all_copies_tb": entities * copies * row / 1e12,
        "per_machine_gb": per_machine * row / 1e9,
        "virtual_shard_entities": entities / SHARDS,
        "virtual_shard_gb": entities / SHARDS * row / 1e9,
        "load_rows_per_s_of_a_machine": units["load_rows_per_s"] / scale,
        "load_h": per_machine / (units["load_rows_per_s"] / scale) / 3600,
        "load_mb_per_s_of_a_machine": units["load_rows_per_s"] / scale * row / 1e6,
        "reads_per_s_of_a_core": units["reads_per_s_of_a_core"] / max(1.0, scale),
        "reads_per_s_of_25_gbit": 25e9 * 0.8 / 8 / Layout.of(group_of(features, packing)).bitmap_at,
        "lost_machine_rebuilt_h": per_machine / (units["rebuild_rows_per_s"] / scale * (machines - 1)) / 3600,
        "cache_for_a_tenth_gb_per_machine": per_machine * row / 1e9 / 10,
    }


def page(report: dict[str, Any], given: argparse.Namespace) -> str:
    """Write the plan for people."""
    units, plans = report["units"], report["plan"]
    command = f"bench/features/scale.py --shards {given.shards} --entities {given.entities} --packing {given.packing}"
    measured = [
        ("entities", f"{units['entities']:,}"),
        ("bytes for each, on disk", f"{units['bytes_per_entity']:,.0f} (a packed row has {units['row_bytes']:,})"),
        ("rows loaded per second, one writer", f"{units['load_rows_per_s']:,.0f}"),
        ("whole row read, p50 / p99", f"{units['read_p50_us']:.1f} / {units['read_p99_us']:.1f} µs"),
        ("300 of the features, one entity", f"{units['subset_of_300_us']:.0f} µs"),
        ("rows per second in questions of 100", f"{units['in_batches_of_100_rows_per_s']:,.0f}"),
        ("rows copied per second into a new store", f"{units['rebuild_rows_per_s']:,.0f}"),
        ("largest store, against an even share", f"{units['largest_share_of_a_store']:.2f} ×"),
    ]
    lines = [
        ("bytes per entity", "bytes_per_entity", ",.0f"),
        ("one copy, TB", "one_copy_tb", ",.2f"),
        ("two copies, TB", "all_copies_tb", ",.2f"),
        ("a machine of 16, GB", "per_machine_gb", ",.0f"),
        ("a virtual shard, GB", "virtual_shard_gb", ",.2f"),
        ("full load, one writer on each machine, h", "load_h", ",.2f"),
        ("disk during it, MB/s on each machine", "load_mb_per_s_of_a_machine", ",.0f"),
        ("whole rows read per second and core", "reads_per_s_of_a_core", ",.0f"),
        ("whole rows per second that 25 Gbit/s carry", "reads_per_s_of_25_gbit", ",.0f"),
        ("a lost machine made anew from the 15 others, h", "lost_machine_rebuilt_h", ",.2f"),
        ("memory for the hottest tenth, GB on each machine", "cache_for_a_tenth_gb_per_machine", ",.0f"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in measured)
    rows = "\n".join(
        f"| {name} | " + " | ".join(format(plans[p][key], spec) for p in ("float32", "float16", "int8")) + " |"
        for name, key, spec in lines
    )
    return TEXT.format(
        command=command, cores=report["cores"], load=report["load"][0], table=table, rows=rows, packing=given.packing,
        features=given.features,
    )  # fmt: skip


TEXT = """# 5,000 dimensions × 300 million entities

This page is written by `{command} --write docs/scale.md`;
the arithmetic is its function `plan`. Sixteen stores stood on one machine ({cores} cores, load {load:.1f} at the end),
and one writer filled them. Rows have {features:,} features in {packing}. At 16 × 200,000 entities float32 takes 66 GB
and int8 26 GB; int8 is also what we would take at this size (its error is half a step of each feature's range:
`tidemill features show` says how much).

## Measured here

| | |
|---|---|
{table}

## What follows for sixteen machines and two copies

| | float32 | float16 | int8 |
|---|---|---|---|
{rows}

Costs of the packings that were not measured are scaled by their bytes on disk.

## How it is laid out

- An entity's **virtual shard** is the CRC-32 of its key modulo 1,024; it never changes. All groups of an entity share
  it, so that one machine answers for all of them. The shard is the first two bytes of every key: a shard is a range of
  keys, and is copied as one (`placement.move_shards`).
- **Which machine holds a shard** is decided by rendezvous hashing over the machines' names. Adding the 17th machine
  moves a 17th of the shards, all of them to it. `ShardedStore` does this over any stores that pass the conformance
  suite.
- In Redis the shard is the hash tag of the key, so that a cluster keeps the rows of a shard in one slot.
- A row is one value. LMDB keeps large values in whole pages of 4 kB: of 5,000 int8 values (5,048 bytes) in two pages
  38 % are slack. 4,000 features fit one page; a store that packs values tightly (RocksDB, Scylla) has no such step.

## What this does not show

- Sixteen stores on one machine share its disk and cores; no network lies between them.
- Pages were mostly in the page cache. With data far beyond memory a read waits for the disk.
- Two copies are a second `put_many` to the next machine of the ranking; nothing here writes or repairs the second
  copy by itself. A cluster store (Redis, Scylla, Aerospike) does, under the same keys and rows.
"""


if __name__ == "__main__":
    main()
