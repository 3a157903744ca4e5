"""What 5,000 dimensions × 300 million entities take: unit costs measured here, and the arithmetic that follows.

    .venv/bin/python bench/features/scale.py --out scale.json --write docs/scale.md   # 16 shards × 200,000, int8
    .venv/bin/python bench/features/scale.py --entities 2000 --features 500 --beside 500 --reads 5000    # a try

Sixteen LMDB stores are filled one after the other, as sixteen machines would be side by side, laid out by the same
consistent hashing that a cluster would use; then all are read as one. They hold int8 by default: float32 would need
2.5 times the disk. The other packings are measured in one store of `--beside` entities each.
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
from tidemill.data.features.online.keys import SHARDS, key_maker
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.placement import ShardedStore, move_shards, place
from tidemill.data.features.online.rows import Layout
from tidemill.data.features.types import EntityKey, Feature, FeatureGroup, Packing, Validation

BATCH = 4000
POOL = 4000
"""Different rows that are written again and again under other keys: LMDB does not compress, so it costs the same."""
ENTITIES, FEATURES, MACHINES, COPIES = 300_000_000, 5000, 16, 2
"""What is planned for."""

Units = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=16, help="stores")
    parser.add_argument("--entities", type=int, default=200_000, help="for each store, on average")
    parser.add_argument("--features", type=int, default=FEATURES)
    parser.add_argument("--packing", default="int8", choices=[p.value for p in Packing])
    parser.add_argument(
        "--beside", type=int, default=20_000, help="entities for each of the other packings; 0 for none"
    )
    parser.add_argument("--reads", type=int, default=100_000)
    parser.add_argument(
        "--minutes", type=float, default=15.0, help="end early where the first store says it takes longer"
    )
    parser.add_argument("--folder", type=Path, help="where the stores are made; default a temporary folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--write", type=Path, help="write the page docs/scale.md from what was measured")
    given = parser.parse_args()
    if given.write and given.features != FEATURES:
        parser.error(f"the page is about {FEATURES:,} features")
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        _check_disk(given, Path(folder))
        units = {given.packing: whole(given, Path(folder))}
        for packing in ("float32", "float16", "int8") if given.beside else ():
            if packing != given.packing:
                units[packing] = beside(given, packing, Path(folder))
    report = {
        "asked": {k: str(v) for k, v in vars(given).items()},
        "cores": os.cpu_count(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "load": os.getloadavg(),
        "units": units,
        "plan": {packing: plan(costs) for packing, costs in units.items()},
    }
    print(json.dumps(report, indent=2))
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")
    if given.write:
        given.write.write_text(page(report, given))


def say(words: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {words}", file=sys.stderr, flush=True)


def group_of(features: int, packing: str) -> FeatureGroup:
    rule = Validation(low=-10, high=10) if packing == "int8" else Validation()
    listed = tuple(Feature(f"f{i:05d}", validation=rule) for i in range(features))
    return FeatureGroup("wide", (EntityKey("id"),), listed, packing=Packing(packing))


def page_bytes(group: FeatureGroup, page: int = 4096) -> int:
    """Bytes that a row takes in LMDB: whole pages, of which the first has a header of 16 bytes; small rows share."""
    row = Layout.of(group).bitmap_at
    return row if row < page // 2 else -(-(row + 16) // page) * page


def _check_disk(given: argparse.Namespace, folder: Path) -> None:
    need = given.shards * given.entities * page_bytes(group_of(given.features, given.packing)) * 1.15
    need += given.beside * sum(2.3 * page_bytes(group_of(given.features, p.value)) for p in Packing)
    free = shutil.disk_usage(folder).free
    say(f"needs about {need / 1e9:.1f} GB of disk; {free / 1e9:.1f} GB are free")
    if need > free * 0.8:
        sys.exit("That is too much; take int8, fewer features or fewer entities.")


# ---------------------------------------------------------------------------------------------------------- measuring


def whole(given: argparse.Namespace, folder: Path) -> Units:
    """Measure all stores together."""
    names = [f"s{i:02d}" for i in range(given.shards)]
    # Flushed at the end of each store: a load can be repeated, so that not every batch needs a flush of its own.
    stores: dict[str, OnlineStore] = {name: LmdbStore(folder / name, sync=False) for name in names}
    group = group_of(given.features, given.packing)
    total = given.shards * given.entities
    block = block_of(given.features)
    rates, begin = [], time.perf_counter()
    for number, ids in enumerate(ids_by_store(group, names, total)):
        took = load(OnlineGroup(group, stores[names[number]]), ids, block, folder / names[number])
        rates.append(len(ids) / took)
        left = (time.perf_counter() - begin) / (number + 1) * (given.shards - number - 1)
        say(f"{names[number]}: {len(ids):,} rows in {took:.1f} s, {rates[-1]:,.0f} rows/s; {left / 60:.1f} min left")
        if number == 0 and left > given.minutes * 60:
            sys.exit(f"This would take {left / 60:.0f} minutes; raise --minutes, or take fewer --entities.")
    sharded = ShardedStore(stores)
    used = [disk_of(folder / name) for name in names]
    shares = [sum(1 for s in range(SHARDS) if place(s, names) == n) / SHARDS for n in names]
    units: Units = {
        "stores": given.shards,
        "entities": total,
        "load_rows_per_s": float(np.median(rates)),
        "load_rows_per_s_slowest": min(rates),
        "bytes_on_disk": sum(used),
        "bytes_per_entity": sum(used) / total,
        "row_bytes": Layout.of(group).bitmap_at,
        "largest_share_of_a_store": max(shares) * given.shards,
    }
    say("reading")
    units |= reads(OnlineGroup(group, sharded), total, given.reads)
    say("copying virtual shards into a new store")
    mine = [s for s in range(SHARDS) if place(s, names) == names[0]]
    units |= rebuild(stores[names[0]], folder / "new", mine)
    sharded.close()
    return units


def beside(given: argparse.Namespace, packing: str, folder: Path) -> Units:
    """Measure one store in another packing."""
    group, place_ = group_of(given.features, packing), folder / packing
    store = LmdbStore(place_, sync=False)
    online = OnlineGroup(group, store)
    took = load(online, np.arange(given.beside), block_of(given.features), place_)
    say(f"{packing}: {given.beside:,} rows in {took:.1f} s")
    used = disk_of(place_)
    units: Units = {
        "stores": 1,
        "entities": given.beside,
        "load_rows_per_s": given.beside / took,
        "bytes_on_disk": used,
        "bytes_per_entity": used / given.beside,
        "row_bytes": Layout.of(group).bitmap_at,
    }
    units |= reads(online, given.beside, given.reads // 5)
    units |= rebuild(store, folder / f"{packing}-new", list(range(SHARDS)))
    store.close()
    return units


def block_of(features: int) -> np.ndarray[Any, Any]:
    normal = np.random.default_rng(1).standard_normal((POOL + BATCH, features), dtype=np.float32)
    return np.clip(normal, -9, 9, out=normal)


def ids_by_store(group: FeatureGroup, names: list[str], total: int) -> list[np.ndarray[Any, Any]]:
    """Give the entities of each store: a machine loads its own."""
    key = key_maker(group)
    shards = np.fromiter((k[0] << 8 | k[1] for k in map(key, range(total))), np.int64, total)
    homes = np.array([names.index(place(shard, names)) for shard in range(SHARDS)])[shards]
    return [np.flatnonzero(homes == number) for number in range(len(names))]


def load(online: OnlineGroup, ids: np.ndarray[Any, Any], block: np.ndarray[Any, Any], folder: Path) -> float:
    """Write rows and flush them; gives the seconds."""
    now = time.time_ns() - 10**9
    start = time.perf_counter()
    for begin in range(0, len(ids), BATCH):
        keys = ids[begin : begin + BATCH].tolist()
        at = begin // BATCH * 997 % POOL
        times = [now] * len(keys)
        online.put_matrix(keys, block[at : at + len(keys)], times, times)
    _flush(folder)
    return time.perf_counter() - start


def _flush(folder: Path) -> None:
    for file in folder.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def disk_of(folder: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in folder.iterdir())


def reads(online: OnlineGroup, total: int, count: int) -> Units:
    """Read at random over everything, then a part of it again: the first time may wait for the disk."""
    chosen = np.random.default_rng(2).integers(0, total, count).tolist()
    first = one_by_one(online, chosen)
    again = chosen[-max(10, count // 10) :]
    one_by_one(online, again)
    warm = one_by_one(online, again)
    names = [f.name for f in online.group.features[:: max(1, len(online.group.features) // 300)]][:300]
    some = again[: max(10, len(again) // 5)]
    start = time.perf_counter()
    for entity in some:
        online.read([entity], names)
    subset = time.perf_counter() - start
    start = time.perf_counter()
    for begin in range(0, len(some), 100):
        online.read(some[begin : begin + 100])
    many = time.perf_counter() - start
    return {
        "first_p50_us": float(np.percentile(first, 50) * 1e6),
        "first_p99_us": float(np.percentile(first, 99) * 1e6),
        "warm_p50_us": float(np.percentile(warm, 50) * 1e6),
        "warm_p99_us": float(np.percentile(warm, 99) * 1e6),
        "reads_per_s_of_a_core": len(warm) / float(warm.sum()),
        "subset_of_300_us": subset / len(some) * 1e6,
        "in_batches_of_100_rows_per_s": len(some) / many,
    }


def one_by_one(online: OnlineGroup, entities: list[int]) -> np.ndarray[Any, Any]:
    took = np.empty(len(entities))
    for n, entity in enumerate(entities):
        start = time.perf_counter()
        online.row(entity)
        took[n] = time.perf_counter() - start
    return took


def rebuild(store: OnlineStore, folder: Path, mine: list[int]) -> Units:
    """Copy some virtual shards into a new store, as a machine that comes or is replaced would get them."""
    target = LmdbStore(folder, sync=False)
    start = time.perf_counter()
    moved = 0
    for shard in mine:
        moved += move_shards(store, target, [shard])
        if moved >= 50_000:
            break
    _flush(folder)
    took = time.perf_counter() - start
    target.close()
    return {"rebuild_rows_per_s": moved / took, "rebuilt_rows": moved}


# --------------------------------------------------------------------------------------------------------- arithmetic


def plan(units: Units) -> dict[str, float]:
    """Extrapolate to 300 million entities × 5,000 on 16 machines with two copies; every line is one multiplication."""
    row, load_, rebuilt = units["bytes_per_entity"], units["load_rows_per_s"], units["rebuild_rows_per_s"]
    per_machine = ENTITIES * COPIES / MACHINES
    return {
        "bytes_per_entity": row,
        "one_copy_tb": ENTITIES * row / 1e12,
        "all_copies_tb": ENTITIES * COPIES * row / 1e12,
        "per_machine_gb": per_machine * row / 1e9,
        "virtual_shard_entities": ENTITIES / SHARDS,
        "virtual_shard_gb": ENTITIES / SHARDS * row / 1e9,
        "load_h": per_machine / load_ / 3600,
        "load_mb_per_s_of_a_machine": load_ * row / 1e6,
        "reads_per_s_of_a_core": units["reads_per_s_of_a_core"],
        "reads_per_s_of_25_gbit": 25e9 * 0.8 / 8 / units["row_bytes"],
        "lost_machine_rebuilt_h": per_machine / (rebuilt * (MACHINES - 1)) / 3600,
        "cache_for_a_tenth_gb_per_machine": per_machine * row / 1e9 / 10,
    }


MEASURED = [
    ("stores", "stores", ",d"),
    ("entities", "entities", ",d"),
    ("bytes of a packed row", "row_bytes", ",d"),
    ("bytes for each entity, on disk", "bytes_per_entity", ",.0f"),
    ("rows loaded per second, one writer", "load_rows_per_s", ",.0f"),
    ("whole row read for the first time, p50, µs", "first_p50_us", ",.1f"),
    ("… p99, µs", "first_p99_us", ",.1f"),
    ("whole row read again, p50, µs", "warm_p50_us", ",.1f"),
    ("… p99, µs", "warm_p99_us", ",.1f"),
    ("300 of the features, one entity, µs", "subset_of_300_us", ",.0f"),
    ("rows per second in questions of 100", "in_batches_of_100_rows_per_s", ",.0f"),
    ("rows copied per second into a new store", "rebuild_rows_per_s", ",.0f"),
]
PLANNED = [
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


def page(report: dict[str, Any], given: argparse.Namespace) -> str:
    """Write the plan for people."""
    units = report["units"][given.packing]
    command = f"bench/features/scale.py --shards {given.shards} --entities {given.entities} --packing {given.packing}"
    int8, row = page_bytes(group_of(given.features, "int8")), Layout.of(group_of(given.features, "int8")).bitmap_at
    return TEXT.format(
        command=command,
        cores=report["cores"],
        memory=report["memory_gb"],
        load=report["load"][0],
        measured=table(MEASURED, report["units"]),
        planned=table(PLANNED, report["plan"]),
        packing=given.packing,
        features=given.features,
        stores=given.shards,
        on_disk=units["bytes_on_disk"] / 1e9,
        share=units["largest_share_of_a_store"],
        slowest=units["load_rows_per_s_slowest"],
        row=row,
        pages=int8 // 4096,
        slack=100 * (1 - row / int8),
    )


def table(lines: list[tuple[str, str, str]], columns: dict[str, dict[str, Any]]) -> str:
    names = [p for p in ("float32", "float16", "int8") if p in columns]
    rows = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for words, key, spec in lines:
        rows.append(f"| {words} | " + " | ".join(format(columns[name][key], spec) for name in names) + " |")
    return "\n".join(rows)


TEXT = """# 5,000 dimensions × 300 million entities

This page is written by `{command} --write docs/scale.md`;
the arithmetic is its function `plan`. {stores} stores stood on one machine ({cores} cores, {memory:.0f} GB of memory,
load {load:.1f} at the end) and were filled one after the other by one writer, each with the entities that consistent
hashing gives it. Rows have {features:,} features. The {stores} stores hold {packing} ({on_disk:.1f} GB on disk); it is
also what we would take at this size: its error is half a step of each feature's range (`tidemill features show`). The
other packings were measured in one store each.

## Measured here

{measured}

The largest store has {share:.2f} times an even share; the slowest took {slowest:,.0f} rows per second.

## What follows for sixteen machines and two copies

{planned}

## How it is laid out

- An entity's **virtual shard** is the CRC-32 of its key modulo 1,024; it never changes. All groups of an entity share
  it, so that one machine answers for all of them. The shard is the first two bytes of every key: a shard is a range of
  keys, and is copied as one (`placement.move_shards`).
- **Which machine holds a shard** is decided by rendezvous hashing over the machines' names. Adding the 17th machine
  moves a 17th of the shards, all of them to it. `ShardedStore` does this over any stores that pass the conformance
  suite.
- In Redis the shard is the hash tag of the key, so that a cluster keeps the rows of a shard in one slot.
- A row is one value. LMDB keeps large values in whole pages of 4 kB: of {features:,} int8 values ({row:,} bytes) in
  {pages} pages {slack:.0f} % are slack. A store that packs values tightly (RocksDB, Scylla) has no such step.

## What this does not show

- All stores share one disk; no network lies between them, and only one of them is written at a time.
- A row that is read for the first time comes from the disk or from memory, as the system has kept it; with data far
  beyond memory every first read waits for the disk.
- Two copies are a second `put_many` to the next machine of the ranking; nothing here writes or repairs the second
  copy by itself. A cluster store (Redis, Scylla, Aerospike) does, under the same keys and rows.
"""


if __name__ == "__main__":
    main()
