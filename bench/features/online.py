"""Newest values by entity: reads and writes of rows of 5,000 float32, against rivals in the same run.

    .venv/bin/python bench/features/online.py --out online.json          # as large as the figures in docs
    .venv/bin/python bench/features/online.py --only http                # one section
    .venv/bin/python bench/features/online.py --entities 500 --reads 2000 --features 500 --runs 1    # a try

Each bar is a section of its own (`--only embedded,http,feast_array,feast_columns,beside`). Each system runs in a
process of its own, systems take turns, and medians over the runs are compared with the bars. Feast needs
bench/features/environments.sh first; a rival that is absent is left out and named. `tidemill_redis` and `redis_blob`
need TIDEMILL_TEST_REDIS (scripts/services.sh).

Every store is read warm: each entity once before the clock starts, for 5 s at most.

Over HTTP the clients are those of `wrk` where it is installed (`--seconds` for each form), else Python's: those need as
much time as the server and, on two cores, measure themselves. The run says which it was (`http_client`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
FEAST = HERE.parent / ".environments" / "feast" / "bin" / "python"
CLIENTS = 8
WARM_S = 5.0
BARS = {
    "p99_us": ("embedded p99, µs", 20.0, "most"),
    "reads_per_s": ("embedded reads/s on one core", 100_000.0, "least"),
    "write_rows_per_s": ("rows written/s", 10_000.0, "least"),
    "http_p99_ms": (f"HTTP, {CLIENTS} clients, packed, p99 ms", 3.0, "most"),
    "http_arrow_p99_ms": (f"HTTP, {CLIENTS} clients, Arrow, p99 ms", 3.0, "most"),
    "http_json_p99_ms": (f"HTTP, {CLIENTS} clients, JSON, p99 ms", 3.0, "most"),
    "times_feast_array": ("p50 of Feast with one array feature : ours", 50.0, "least"),
    "times_feast_columns": ("p50 of Feast with a column for each : ours", 10_000.0, "least"),
}
SECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # name: systems that it needs, bars that it shows
    "embedded": (("tidemill",), ("p99_us", "reads_per_s", "write_rows_per_s")),
    "http": (("tidemill_http",), ("http_p99_ms", "http_arrow_p99_ms", "http_json_p99_ms")),
    "feast_array": (("tidemill", "feast_array"), ("times_feast_array",)),
    "feast_columns": (("tidemill", "feast_columns"), ("times_feast_columns",)),
    "beside": (("tidemill_int8", "tidemill_sqlite", "tidemill_redis", "redis_blob", "duckdb_array"), ()),
}

Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=5000)
    parser.add_argument("--entities", type=int, default=20_000)
    parser.add_argument("--reads", type=int, default=50_000)
    parser.add_argument("--requests", type=int, default=8000, help="over HTTP from Python, for each form of answer")
    parser.add_argument("--seconds", type=int, default=5, help="over HTTP from wrk; 0 asks from Python")
    parser.add_argument("--feast-entities", type=int, default=200, help="for Feast with one column for each feature")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one system")
    parser.add_argument("--folder", type=Path, help="where stores are made; default a temporary folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--system", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.system:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            print(json.dumps(SYSTEMS[given.system](given, Path(folder))))
        return
    sections = given.only.split(",")
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        sys.exit(f"There is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}.")
    systems = list(dict.fromkeys(system for name in sections for system in SECTIONS[name][0]))
    found: dict[str, list[Run]] = {system: [] for system in systems}
    for run in range(given.runs):  # systems take turns, so that a busy moment meets all of them
        for system in systems:
            found[system].append(measure(system, given))
            print(f"run {run + 1}: {system}: {shown(found[system][-1])}", file=sys.stderr, flush=True)
    report = {"machine": machine(), "asked": {k: str(v) for k, v in vars(given).items()}, "systems": found}
    report["bars"] = bars(found, [bar for name in sections for bar in SECTIONS[name][1]])
    show(report["bars"])
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


def measure(name: str, given: argparse.Namespace) -> Run:
    """Run one system in a process of its own."""
    python = str(FEAST) if name.startswith("feast") else sys.executable
    if not Path(python).exists():
        return {"absent": f"{python} is not there; run bench/features/environments.sh"}
    words = ["--features", "--entities", "--reads", "--requests", "--seconds", "--feast-entities"]
    values = [given.features, given.entities, given.reads, given.requests, given.seconds, given.feast_entities]
    command = [python, __file__, "--system", name]
    command += [str(w) for pair in zip(words, values, strict=True) for w in pair]
    command += ["--folder", str(given.folder)] if given.folder else []
    load = os.getloadavg()[0]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=given.timeout, check=True, env={**os.environ, **QUIET}
        )
        return {**json.loads(done.stdout.splitlines()[-1]), "load": load}
    except subprocess.TimeoutExpired:
        return {"failed": f"not done within {given.timeout:g} s", "load": load}
    except subprocess.CalledProcessError as error:
        return {"failed": error.stderr[-2000:], "load": load}


QUIET = {"OMP_NUM_THREADS": "1", "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}


def bars(found: dict[str, list[Run]], wanted: list[str]) -> dict[str, Any]:
    """Compare medians with the bars; a ratio is of median latencies within one run."""
    out = {}
    for key in wanted:
        words, bar, sense = BARS[key]
        values = _values(found, key)
        middle = statistics.median(values) if values else None
        met = None if middle is None else (middle <= bar if sense == "most" else middle >= bar)
        out[key] = {"what": words, "bar": bar, "sense": sense, "median": middle, "runs": values, "met": met}
    return out


def _values(found: dict[str, list[Run]], key: str) -> list[float]:
    """Give a figure of every run that has it."""
    ours = found.get("tidemill", [])
    if key.startswith("times_"):
        rival = found.get(key.removeprefix("times_"), [])
        pairs = zip(rival, ours, strict=True)
        return [r["p50_us"] / o["p50_us"] for r, o in pairs if "p50_us" in r and "p50_us" in o]
    return [run[key] for run in (found.get("tidemill_http", []) if key.startswith("http_") else ours) if key in run]


def show(found: dict[str, Any]) -> None:
    """Print one line for each bar."""
    for one in found.values():
        bound = f"{'≤' if one['sense'] == 'most' else '≥'} {one['bar']:,g}"
        if one["median"] is None:
            print(f"{one['what']:45s} not measured                        bar {bound}")
            continue
        span = f"({min(one['runs']):,.1f}-{max(one['runs']):,.1f})"
        print(f"{one['what']:45s} {one['median']:12,.1f} {span:22s} bar {bound:9s} {'pass' if one['met'] else 'MISS'}")


def shown(run: Run) -> str:
    """Give the figures of a run on one line."""
    return ", ".join(f"{k} {v:,.1f}" if isinstance(v, float) else f"{k} {v}" for k, v in run.items())


def latencies(read: Callable[[int], Any], entities: int, reads: int) -> dict[str, float]:
    """Read entities at random one by one; microseconds."""
    clock = time.perf_counter
    deadline = clock() + WARM_S
    for i in range(entities):
        read(i)
        if clock() > deadline:
            break
    chosen = np.random.default_rng(5).integers(0, entities, reads).tolist()
    took = np.empty(reads)
    for n, i in enumerate(chosen):
        start = clock()
        read(i)
        took[n] = clock() - start
    begin = clock()
    for i in chosen:
        read(i)
    whole = clock() - begin
    return {
        "p50_us": float(np.percentile(took, 50) * 1e6),
        "p99_us": float(np.percentile(took, 99) * 1e6),
        "reads_per_s": reads / whole,
        "reads": reads,
    }


def values(given: argparse.Namespace, entities: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(size=(entities, given.features)).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------ systems


def _group(given: argparse.Namespace, packing: str = "float32") -> Any:
    from tidemill.data.features.types import EntityKey, Feature, FeatureGroup, Packing, Validation

    rule = Validation(low=-10, high=10) if packing == "int8" else Validation()
    features = tuple(Feature(f"f{i:05d}", validation=rule) for i in range(given.features))
    return FeatureGroup("wide", (EntityKey("id"),), features, packing=Packing(packing))


def _write(group: Any, given: argparse.Namespace, entities: int, batch: int = 1000) -> float:
    """Write batches that are ready in memory; gives rows per second, flushes included."""
    block, now = values(given, min(entities, 5000)), time.time_ns() - 10**9
    took = 0.0
    for begin in range(0, entities, batch):
        keys = list(range(begin, min(begin + batch, entities)))
        rows = block[np.arange(len(keys)) + begin % max(1, len(block) - batch + 1)] if len(block) >= batch else block
        rows = rows[: len(keys)]
        start = time.perf_counter()
        done = group.put_matrix(keys, rows, [now] * len(keys), [now] * len(keys))
        took += time.perf_counter() - start
        assert done.written == len(keys)
    return entities / took


def _embedded(store: Any, given: argparse.Namespace, packing: str = "float32", entities: int | None = None) -> Any:
    from tidemill.data.features.online.group import OnlineGroup

    count = entities or given.entities
    group = OnlineGroup(_group(given, packing), store)
    facts = {"write_rows_per_s": _write(group, given, count), "entities": count}
    facts |= latencies(lambda i: group.row(i).numbers, count, given.reads)
    names = [f"f{i:05d}" for i in range(0, given.features, max(1, given.features // 50))][:50]
    some = latencies(lambda i: group.read([i], names).numbers, count, max(100, given.reads // 10))
    facts["of_50_features_p50_us"] = some["p50_us"]
    chosen = list(range(0, count, max(1, count // 100)))[:100]
    many = latencies(lambda _: group.read(chosen).numbers, 20, max(20, given.reads // 500))
    facts["of_100_entities_p50_us"] = many["p50_us"]
    return facts


def tidemill(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """LMDB, every batch of 1,000 rows flushed to the disk."""
    from tidemill.data.features.online.lmdb_store import LmdbStore

    return _embedded(LmdbStore(folder / "online"), given)


def tidemill_int8(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from tidemill.data.features.online.lmdb_store import LmdbStore

    return _embedded(LmdbStore(folder / "online"), given, "int8")


def tidemill_sqlite(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from tidemill.data.features.online.sqlite_store import SqliteStore

    return _embedded(SqliteStore(folder / "online.db"), given)


def tidemill_redis(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from tidemill.data.features.online.redis_store import RedisStore

    url = os.environ.get("TIDEMILL_TEST_REDIS")
    if not url:
        return {"absent": "TIDEMILL_TEST_REDIS is not set"}
    store = RedisStore(url, namespace=f"bench-{os.getpid()}")
    try:
        return _embedded(store, given, entities=min(given.entities, 5000))
    finally:
        store.delete([key for key, _ in store.scan()])


def tidemill_http(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The platform's API in a process of its own, 8 clients in another one, in all forms of answers."""
    from tidemill.data.features.online.features import OnlineFeatures
    from tidemill.data.features.registry import register
    from tidemill.store.workspace import Workspace

    entities = min(given.entities, 5000)
    with Workspace.open(folder / "ws") as workspace:
        register(workspace, _group(given))
        with OnlineFeatures(workspace) as online:
            _write(online.group("wide"), given, entities)
    command = [sys.executable, "-m", "tidemill.api", "--workspace", str(folder / "ws"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            return _clients(url, entities, given, folder)
        finally:
            server.terminate()


FORMS = {
    "": "application/vnd.tidemill.features",
    "arrow_": "application/vnd.apache.arrow.stream",
    "json_": "application/json",
}


WRK = """
math.randomseed(9)
request = function()
  local body = string.format('{"features":["wide"],"keys":{"id":[%%d]},"names":false}', math.random(0, %d))
  return wrk.format("POST", "/api/v1/features/get", {["Content-Type"] = "application/json", ["Accept"] = "%s"}, body)
end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\n{"p50_us": %%f, "p99_us": %%f, "requests": %%d, "seconds": %%f, "errors": %%d}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests, summary.duration / 1e6,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def _clients(url: str, entities: int, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import uvloop

    tool = shutil.which("wrk") if given.seconds else None
    facts: dict[str, Any] = {"clients": CLIENTS, "http_client": "wrk" if tool else "python"}
    for name, accept in FORMS.items():
        if tool:
            uvloop.run(_ask(url, entities, 10 * CLIENTS, accept))  # wrk looks at the status alone
            found = _wrk(tool, url, entities, accept, given.seconds, folder)
        else:
            took = np.array(uvloop.run(_ask(url, entities, given.requests, accept))) * 1e6
            found = {"p50_us": np.percentile(took, 50), "p99_us": np.percentile(took, 99)}
        facts |= {f"http_{name}{p}_ms": float(found[f"{p}_us"]) / 1e3 for p in ("p50", "p99")}
        if tool:
            facts[f"http_{name}requests_per_s"] = found["requests"] / found["seconds"]
    return facts


def _wrk(tool: str, url: str, entities: int, accept: str, seconds: int, folder: Path) -> dict[str, float]:
    script = folder / "ask.lua"
    script.write_text(WRK % (entities - 1, accept))
    for duration in (1, seconds):  # the first one warms
        command = [tool, "-t1", f"-c{CLIENTS}", f"-d{duration}s", "--latency", "-s", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60 + duration)
        found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
        assert not found["errors"], done.stdout
    return found


async def _ask(url: str, entities: int, requests: int, accept: str) -> list[float]:
    """Ask over kept connections, written by hand: a client library would cost more than the server."""
    import asyncio

    host, port = url.removeprefix("http://").split(":")
    chance = np.random.default_rng(9)
    took: list[float] = []

    async def client(count: int, keep: bool) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for entity in chance.integers(0, entities, count).tolist():
            body = json.dumps({"features": ["wide"], "keys": {"id": [entity]}, "names": False}).encode()
            head = (
                f"POST /api/v1/features/get HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
                f"Accept: {accept}\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            start = time.perf_counter()
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            assert answer.startswith(b"http/1.1 200"), answer
            await reader.readexactly(int(answer.split(b"content-length:")[1].split(b"\r\n")[0]))
            if keep:
                took.append(time.perf_counter() - start)
        writer.close()

    await asyncio.gather(*(client(50, False) for _ in range(CLIENTS)))
    await asyncio.gather(*(client(requests // CLIENTS, True) for _ in range(CLIENTS)))
    return took


def feast_array(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Feast on SQLite, all features in one array."""
    return _feast(given, folder, as_array=True, entities=min(given.entities, 1000))


def feast_columns(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Feast on SQLite, one column for each feature, as users write it."""
    return _feast(given, folder, as_array=False, entities=given.feast_entities)


def _feast(given: argparse.Namespace, folder: Path, *, as_array: bool, entities: int) -> dict[str, Any]:
    import datetime as dt

    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Array, Float32

    now = dt.datetime.now(dt.timezone.utc)
    names = ["vector"] if as_array else [f"f{i:05d}" for i in range(given.features)]
    (folder / "data").mkdir()
    block = values(given, entities)
    facts = {"vector": list(block)} if as_array else {n: block[:, i] for i, n in enumerate(names)}
    frame = pd.DataFrame({"id": np.arange(entities), "at": now, **facts})
    frame.head(1).to_parquet(folder / "data" / "wide.parquet")
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )
    entity = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="wide",
        entities=[entity],
        ttl=dt.timedelta(days=3650),
        schema=[Field(name=n, dtype=Array(Float32) if as_array else Float32) for n in names],
        source=FileSource(path=str(folder / "data" / "wide.parquet"), timestamp_field="at"),
    )
    store.apply([entity, view])
    took, step = 0.0, max(1, min(entities, 100 if as_array else 20))
    for begin in range(0, entities, step):
        start = time.perf_counter()
        store.write_to_online_store("wide", frame.iloc[begin : begin + step])
        took += time.perf_counter() - start
    asked = [f"wide:{n}" for n in names]
    reads = max(100, given.reads // 50) if as_array else max(10, min(50, given.reads // 1000))
    read = latencies(lambda i: store.get_online_features(asked, [{"id": i}]).to_dict(), entities, reads)
    answer = store.get_online_features(asked, [{"id": 0}]).to_dict()
    assert (answer["vector"][0] if as_array else answer[names[0]])[0] is not None
    return {"write_rows_per_s": entities / took, "entities": entities, **read}


def redis_blob(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A blob under a key in Redis, by hand."""
    import redis

    url = os.environ.get("TIDEMILL_TEST_REDIS")
    if not url:
        return {"absent": "TIDEMILL_TEST_REDIS is not set"}
    client, entities = redis.Redis.from_url(url), min(given.entities, 5000)
    block, start = values(given, entities), time.perf_counter()
    for begin in range(0, entities, 1000):
        with client.pipeline(transaction=False) as pipe:
            for i in range(begin, min(begin + 1000, entities)):
                pipe.set(f"bench:{i}", block[i].tobytes())
            pipe.execute()
    rate = entities / (time.perf_counter() - start)
    read = latencies(lambda i: np.frombuffer(client.get(f"bench:{i}"), np.float32), entities, given.reads // 5)
    client.delete(*[f"bench:{i}" for i in range(entities)])
    return {"write_rows_per_s": rate, "entities": entities, **read}


def duckdb_array(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A DuckDB table with an indexed key and one array."""
    import duckdb
    import pyarrow as pa

    entities = min(given.entities, 2000)
    block = values(given, entities)
    array = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), given.features)
    table = pa.table({"id": np.arange(entities), "v": array})
    base = duckdb.connect(str(folder / "online.duckdb"))
    base.execute(f"create table rows (id bigint primary key, v float[{given.features}])")
    start = time.perf_counter()
    base.register("incoming", table)
    base.execute("insert into rows select * from incoming")
    rate = entities / (time.perf_counter() - start)
    read = latencies(
        lambda i: base.execute("select v from rows where id = ?", [i]).fetchnumpy(),
        entities,
        max(50, given.reads // 100),
    )
    return {"write_rows_per_s": rate, "entities": entities, **read}


SYSTEMS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "tidemill": tidemill,
    "tidemill_int8": tidemill_int8,
    "tidemill_sqlite": tidemill_sqlite,
    "tidemill_redis": tidemill_redis,
    "tidemill_http": tidemill_http,
    "redis_blob": redis_blob,
    "duckdb_array": duckdb_array,
    "feast_array": feast_array,
    "feast_columns": feast_columns,
}


def machine() -> dict[str, Any]:
    import platform

    return {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()}


if __name__ == "__main__":
    main()
