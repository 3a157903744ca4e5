"""The comparison of serving: what a request costs, what is lost, what waits.

Run it from the repository: ``.venv/bin/python -m bench.serving.run --out results.json [--only cost,kill,…] [--quick]``.
Costs are CPU time (user and system) of the whole process tree for each request, because wall time on a shared machine
says little; every part prints its bar beside what it measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench.serving import calls, load, models, systems
from bench.serving.load import Call

Report = dict[str, Any]


def raw_us(path: Path, values: np.ndarray, seconds: float) -> float:
    """CPU microseconds of one call of plain onnxruntime, the best of several measurements."""
    session = calls.session(path)
    feed = {"input": values}
    for _ in range(20):
        session.run(None, feed)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin, count = time.process_time(), 0
        while time.process_time() - begin < 0.05:
            session.run(None, feed)
            count += 1
        best = min(best, (time.process_time() - begin) / count * 1e6)
    return best


def cost(paths: dict[str, Path], seconds: float) -> list[Report]:
    """CPU of the server for each request, by system, model and number of clients."""
    out: list[Report] = []
    for model in ("lightgbm", "network"):
        row, picture = calls.rows(1)[0], calls.picture()
        raw = raw_us(paths[model], row[None] if model == "lightgbm" else picture, seconds / 2)
        for name in systems.available():
            bodies = ("json", "binary") if name == "tidemill" else ("json",)
            try:
                with systems.serve(name, paths[model]) as (server, path):
                    time.sleep(1.5)
                    for body in bodies:
                        if model == "lightgbm" and body == "json":
                            call = calls.json_call(path, row)
                        elif model == "lightgbm":
                            call = calls.binary_call(path, row[None])
                        else:
                            call = (
                                calls.picture_json_call(path, picture)
                                if body == "json"
                                else calls.binary_call(path, picture)
                            )
                        for clients in (1, 8, 64):
                            about = {"system": name, "model": model, "body": body, "clients": clients}
                            about |= {"raw_us": round(raw, 2), "start_s": round(server.started_s, 2)}
                            out.append(about | _cost(server, call, clients, seconds))
                            out[-1]["memory_mb"] = round(server.memory_mb(), 1)
                            out[-1]["of_raw"] = round(raw / out[-1]["cpu_us"], 3)
                            print(out[-1], flush=True)
            except Exception as error:
                out.append({"system": name, "model": model, "error": f"{type(error).__name__}: {error}"})
                print(out[-1], flush=True)
    return out


def _cost(server: Any, call: Call, clients: int, seconds: float) -> Report:
    load.wrk(server.port, call, clients, 1)
    before = server.cpu_s()
    got = load.wrk(server.port, call, clients, seconds)
    spent = server.cpu_s() - before
    requests = max(1.0, got["requests"])
    return {"cpu_us": round(spent / requests * 1e6, 2), "per_s": round(requests / seconds), **got}


def _doubles(path: Path, count: int) -> tuple[list[Call], Callable[[int, bytes], bool]]:
    """Requests to the tree model with their right answers."""
    rows = calls.rows(count)
    wanted = calls.session(path).run(None, {"input": rows})

    def check(index: int, body: bytes) -> bool:
        found = {o["name"]: o["data"] for o in json.loads(body)["outputs"]}
        near = np.allclose(found["probabilities"], wanted[1][index], rtol=1e-5, atol=1e-6)
        return bool(near and found["label"] == [int(wanted[0][index])])

    return [calls.json_call("/v2/models/m/infer", row) for row in rows], check


def kill(paths: dict[str, Path], kills: int) -> Report:
    """A worker is killed about every second while 16 clients check every answer. Bar: 0 lost, 0 wrong, 30 kills."""
    many, check = _doubles(paths["lightgbm"], 200)
    done = {"kills": 0}
    stop = threading.Event()
    with systems.tidemill(paths["lightgbm"], "--replicas", "2") as server:
        time.sleep(2)

        def killer() -> None:
            rng = random.Random(0)
            while done["kills"] < kills and not stop.wait(rng.uniform(0.7, 1.3)):
                leaves = [p for p in server.family() if not p.children() and p.ppid() != server.process.pid]
                if leaves:
                    os.kill(rng.choice(leaves).pid, signal.SIGKILL)
                    done["kills"] += 1
            stop.set()

        thread = threading.Thread(target=killer)
        thread.start()
        seen = asyncio.run(load.closed_loop(server.port, many, 16, kills * 1.05 + 1, check))
        stop.set()
        thread.join()
        alive = server.process is not None and server.process.poll() is None
    return seen.summary() | done | {"alive": alive, "bar": "wrong 0, errors {}, refused 0"}


def overload(paths: dict[str, Path], seconds: float) -> Report:
    """Three times what the server can do. Bar: goodput ≥ 90 % of its peak, refusals typed and within 10 ms."""
    call = calls.json_call("/v2/models/m/infer", np.ones(8, np.float32))
    with systems.tidemill(paths["slow"], "--deadline-ms", "250") as server:
        time.sleep(3)
        peak = asyncio.run(load.closed_loop(server.port, [call], 4, seconds, lambda *_: True)).summary()
        rate = 3 * float(peak["per_s"] or 1)
        flood = asyncio.run(load.open_loop(server.port, call, rate, seconds, 512)).summary()
    goodput = float(flood["per_s"] or 0) / float(peak["per_s"] or 1)
    return {"peak": peak, "flood": flood, "goodput": round(goodput, 3), "bar": "goodput ≥ 0.9, refused_p99_ms < 10"}


def zero(paths: dict[str, Path], trials: int) -> Report:
    """From no worker to the first answer. Bar: p99 < 150 ms."""
    body = calls.json_call("/v2/models/m/infer", calls.rows(1)[0])
    off = Call("/v2/repository/models/m/unload", b"{}")
    on = Call("/v2/repository/models/m/load", b"{}")
    times: list[float] = []

    async def go(port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)

        async def ask(call: Call) -> int:
            writer.write(call.raw())
            status, _, _ = await load.read_answer(reader)
            return status

        for _ in range(trials):
            assert await ask(off) == 200
            await asyncio.sleep(0.05)
            begin = time.perf_counter()
            assert await ask(on) == 200
            assert await ask(body) == 200
            times.append((time.perf_counter() - begin) * 1e3)
        writer.close()

    with systems.tidemill(paths["lightgbm"]) as server:
        time.sleep(2)
        asyncio.run(go(server.port))
    return {
        "trials": trials, "p50_ms": round(float(np.percentile(times, 50)), 1),
        "p99_ms": round(float(np.percentile(times, 99)), 1), "bar": "p99_ms < 150",
    }  # fmt: skip


def neighbour(paths: dict[str, Path], seconds: float) -> Report:
    """A latency model beside a saturating bulk model. Bar: p99 ≤ 2 × alone."""
    from bench.serving.pair import Pair

    return Pair(paths, seconds).measure()


def memory(paths: dict[str, Path], requests: int, cycles: int) -> Report:
    """Memory after many requests and after many times load and unload. Bar: flat."""
    call = calls.json_call("/v2/models/m/infer", calls.rows(1)[0])
    off, on = Call("/v2/repository/models/m/unload", b"{}"), Call("/v2/repository/models/m/load", b"{}")

    async def turn(port: int, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            for one in (off, on):
                writer.write(one.raw())
                status, _, _ = await load.read_answer(reader)
                assert status == 200
        writer.close()

    with systems.tidemill(paths["lightgbm"]) as server:
        time.sleep(2)
        load.wrk(server.port, call, 64, 3)
        points = [round(server.memory_mb(), 2)]
        done = 0.0
        while done < requests:
            done += load.wrk(server.port, call, 64, 10)["requests"]
        points.append(round(server.memory_mb(), 2))
        asyncio.run(turn(server.port, 20))
        points.append(round(server.memory_mb(), 2))
        asyncio.run(turn(server.port, cycles))
        points.append(round(server.memory_mb(), 2))
    names = ["warm", f"after {int(done):,} requests", "after 20 cycles", f"after {cycles:,} more cycles"]
    return {"mb": dict(zip(names, points, strict=True)), "bar": "flat"}


def begin(bundle: Path | None, trials: int) -> Report:
    """From the command line to the first answer. Bar: ≤ 2 s."""
    if bundle is None:
        return {"skipped": "give --bundle"}
    times = []
    for _ in range(trials):
        with systems.tidemill(bundle) as server:
            times.append(server.started_s)
    return {"median_s": round(float(np.median(times)), 2), "max_s": round(max(times), 2), "bar": "≤ 2 s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--only", default="cost,kill,overload,zero,neighbour,memory,begin")
    parser.add_argument("--bundle", type=Path, default=None, help="a bundle for the part `begin`")
    parser.add_argument("--quick", action="store_true", help="a short run to see that all works")
    options = parser.parse_args()
    quick = options.quick
    parts: dict[str, Callable[[dict[str, Path]], Any]] = {
        "cost": lambda p: cost(p, 2 if quick else 5),
        "kill": lambda p: kill(p, 5 if quick else 35),
        "overload": lambda p: overload(p, 4 if quick else 15),
        "zero": lambda p: zero(p, 20 if quick else 300),
        "neighbour": lambda p: neighbour(p, 4 if quick else 20),
        "memory": lambda p: memory(p, 50_000 if quick else 1_000_000, 30 if quick else 1000),
        "begin": lambda _: begin(options.bundle, 2 if quick else 7),
    }
    report: Report = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        paths = models.make_all(Path(folder))
        for name in options.only.split(","):
            report[name] = parts[name](paths)
            print(name, json.dumps(report[name], indent=1), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
