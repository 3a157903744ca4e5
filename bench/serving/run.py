"""The comparison of serving: what a request costs, what is lost, what waits.

Run it from the repository: ``.venv/bin/python -m bench.serving.run --out results.json [--only cost,kill,…] [--quick]``.
Costs are CPU time (user and system) of the server's whole process tree for each request, because wall time on a shared
machine says little; what sends the requests is another process and not counted. Every part prints its bars with what it
measured, and the last lines say which were kept.
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
from bench.serving.bars import Report, bar, show
from bench.serving.load import Call

RIVALS = {"fastapi": 5.0, "litserve": 20.0, "mlserver": 20.0, "bentoml": 20.0}
"""How many times as much CPU each must take for a request to the trees."""


def raw_us(path: Path, values: np.ndarray, seconds: float) -> float:
    """CPU microseconds of one call of plain onnxruntime: the median of many slices of a twentieth of a second."""
    session = calls.session(path)
    feed = {session.get_inputs()[0].name: values}
    for _ in range(20):
        session.run(None, feed)
    slices: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not slices:
        begin, count = time.process_time(), 0
        while time.process_time() - begin < 0.05:
            for _ in range(20):
                session.run(None, feed)
            count += 20
        slices.append((time.process_time() - begin) / count * 1e6)
    return float(np.median(slices))


def cost(paths: dict[str, Path], seconds: float, names: list[str]) -> Report:
    """CPU of the server for each request, by system, model, form and number of clients.

    Plain onnxruntime is measured right before and right after each server, so that both saw the same machine.
    """
    rows: list[Report] = []
    for model in ("lightgbm", "network"):
        row, picture = calls.rows(1)[0], calls.picture()
        values = row[None] if model == "lightgbm" else picture
        for name in names:
            about: Report = {"system": name, "model": model}
            try:
                before = raw_us(paths[model], values, seconds / 2)
                measured = _measured(name, model, paths[model], row, picture, seconds)
                raw = (before + raw_us(paths[model], values, seconds / 2)) / 2
            except Exception as error:
                rows.append(about | {"error": f"{type(error).__name__}: {error}"})
                print(rows[-1], flush=True)
                continue
            for found in measured:
                shares = {"raw_us": round(raw, 2), "of_raw": round(raw / found["cpu_us"], 3)}
                rows.append(about | found | shares | {"load_average": os.getloadavg()[0]})
                print(rows[-1], flush=True)
    return {"rows": rows, "bars": _cost_bars(rows)}


def _measured(name: str, model: str, path: Path, row: np.ndarray, picture: np.ndarray, seconds: float) -> list[Report]:
    out: list[Report] = []
    with systems.serve(name, path) as (server, target):
        time.sleep(2.5)  # it has measured its batches by now
        for body in ("json", "binary") if name == "tidemill" else ("json",):
            if model == "lightgbm":
                call = calls.json_call(target, row) if body == "json" else calls.binary_call(target, row[None])
            elif body == "json":
                call = calls.picture_json_call(target, picture)
            else:
                call = calls.binary_call(target, picture)
            for clients in (1, 8, 64):
                found = {"body": body, "clients": clients} | _cost(server, call, clients, seconds)
                out.append(found | {"start_s": round(server.started_s, 2), "memory_mb": round(server.memory_mb(), 1)})
    return out


def _cost(server: Any, call: Call, clients: int, seconds: float) -> Report:
    load.wrk(server.port, call, clients, 1)
    before = server.cpu_s()
    got = load.wrk(server.port, call, clients, seconds)
    spent = server.cpu_s() - before
    requests = max(1.0, got["requests"])
    return {"cpu_us": round(spent / requests * 1e6, 2), "per_s": round(requests / seconds), **got}


def _cost_bars(rows: list[Report]) -> list[Report]:
    def at(system: str, model: str, body: str) -> Report:
        wanted = {"system": system, "model": model, "body": body, "clients": 64}
        return next((r for r in rows if wanted.items() <= r.items()), {})

    trees, network = at("tidemill", "lightgbm", "json"), at("tidemill", "network", "binary")
    out: list[Report] = []
    if trees:
        out.append(bar("trees, JSON, 64 clients: CPU of a request", trees["cpu_us"], "≤", 25, "µs"))
        out.append(bar("trees: share of plain onnxruntime", trees["of_raw"], "≥", 0.35))
        for rival, times in RIVALS.items():
            other = at(rival, "lightgbm", "json")
            if other:
                ratio = round(other["cpu_us"] / trees["cpu_us"], 1)
                out.append(bar(f"trees: times the CPU that {rival} takes", ratio, "≥", times))
    if network:
        out.append(bar("network, binary, 64 clients: CPU of a request", network["cpu_us"], "≤", 60, "µs"))
    return out


def watched(paths: dict[str, Path], seconds: float) -> Report:
    """What the watch adds to a request: the trees as a bundle on a front of the platform, and without the watch.

    A bundle's graph takes its columns one by one and costs more than the bare trees, so the bar is held by the cost of
    the bare trees and what the watch adds, its side thread included.
    """
    call = calls.json_call("/v2/models/m/infer", calls.rows(1)[0])

    def of(server: Any) -> float:
        time.sleep(2.5)
        load.wrk(server.port, call, 64, seconds / 2)  # the reservoirs of captured rows are filled once an hour
        return float(_cost(server, call, 64, seconds)["cpu_us"])

    with_watch, without = [], []
    with systems.tidemill(paths["lightgbm"]) as server:
        trees = of(server)
    for _ in range(2):
        with (
            tempfile.TemporaryDirectory(prefix="serving-") as text,
            systems.platform(Path(text), paths["bundle"]) as server,
        ):
            with_watch.append(of(server))
        with systems.tidemill(paths["bundle"]) as server:
            without.append(of(server))
    adds = round(float(np.mean(with_watch) - np.mean(without)), 2)
    return {
        "trees_us": trees, "bundle_us": without, "bundle_watched_us": with_watch, "watch_adds_us": adds,
        "load_average": os.getloadavg()[0],
        "bars": [bar("trees and what the watch adds: CPU of a request", round(trees + adds, 2), "≤", 25, "µs")],
    }  # fmt: skip


def sketch(rows: int, rounds: int) -> Report:
    """The drift sketch alone, by row of 30 features, and the whole side thread."""
    from bench.watch import run as watch

    found = watch.sketching(rows, rounds, categories=0, answers=False, size=watch.BATCH)
    whole = watch.observing(min(rows, 50_000), rounds)
    return {"sketch_us": round(found, 3), **whole, "bars": [bar("drift sketch by row", round(found, 2), "≤", 2, "µs")]}


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
    lost = sum(seen.errors.values()) + len(seen.refused_ms)
    bars = [bar("kills", done["kills"], "≥", min(30, kills)), bar("answers that were lost", lost, "=", 0)]
    bars.append(bar("answers that were wrong", seen.wrong, "=", 0))
    return seen.summary() | done | {"alive": alive, "bars": bars}


def overload(paths: dict[str, Path], seconds: float) -> Report:
    """Three times what the server can do. Bar: goodput ≥ 90 % of its peak, refusals typed and within 10 ms."""
    call = calls.json_call("/v2/models/m/infer", np.ones(8, np.float32))
    with systems.tidemill(paths["slow"], "--deadline-ms", "250") as server:
        time.sleep(3)
        peak = asyncio.run(load.closed_loop(server.port, [call], 4, seconds, lambda *_: True)).summary()
        rate = 3 * float(peak["per_s"] or 1)
        flood = asyncio.run(load.open_loop(server.port, call, rate, seconds, 512)).summary()
    goodput = round(float(flood["per_s"] or 0) / float(peak["per_s"] or 1), 3)
    bars = [
        bar("goodput under three-fold load, share of the peak", goodput, "≥", 0.9),
        bar("refusals: 99 of 100 within", flood["refused_p99_ms"], "<", 10, "ms"),
        bar("answers that are neither 200 nor a typed refusal", sum(flood["errors"].values()), "=", 0),
    ]
    return {"peak": peak, "flood": flood, "goodput": goodput, "load_average": os.getloadavg()[0], "bars": bars}


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
    p50, p99 = (round(float(np.percentile(times, q)), 1) for q in (50, 99))
    bars = [bar("from no worker to the first answer: 99 of 100 within", p99, "<", 150, "ms")]
    return {"trials": trials, "p50_ms": p50, "p99_ms": p99, "load_average": os.getloadavg()[0], "bars": bars}


def neighbour(paths: dict[str, Path], seconds: float) -> Report:
    """A latency model beside a saturating bulk model. Bar: p99 ≤ 2 × alone."""
    from bench.serving.pair import Pair

    found = Pair(paths, seconds).measure()
    return found | {"bars": [bar("p99 beside bulk, times alone", found["ratio"], "≤", 2)]}


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
    grown = round(max(points[1] - points[0], points[3] - points[2]), 1)
    bars = [bar("memory that requests, or cycles, added", grown, "≤", 5, "MB")]
    return {"mb": dict(zip(names, points, strict=True)), "bars": bars}


def begin(bundle: Path, trials: int) -> Report:
    """From the command line to the first answer of a bundle."""
    body = calls.json_call("/v2/models/m/infer", calls.rows(1)[0])
    times = []
    for _ in range(trials):
        start = time.perf_counter()
        with systems.tidemill(bundle) as server:
            assert asyncio.run(load.once(server.port, body)) == 200
            times.append(time.perf_counter() - start)
    median = round(float(np.median(times)), 2)
    bars = [bar("from the command line to the first answer", median, "≤", 2, "s")]
    return {"median_s": median, "max_s": round(max(times), 2), "load_average": os.getloadavg()[0], "bars": bars}


PARTS = ("cost", "watched", "sketch", "kill", "overload", "zero", "neighbour", "memory", "begin")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument(
        "--systems", default="", help="for the part `cost`, some of tidemill and its rivals; default all"
    )
    parser.add_argument("--bundle", type=Path, default=None, help="for the part `begin`, in place of one that is made")
    parser.add_argument("--models", type=Path, default=None, help="folder in which the models are made, once")
    parser.add_argument("--quick", action="store_true", help="a short run to see that all works")
    options = parser.parse_args()
    quick = options.quick
    names = options.systems.split(",") if options.systems else systems.available()
    parts: dict[str, Callable[[dict[str, Path]], Report]] = {
        "cost": lambda p: cost(p, 2 if quick else 5, names),
        "watched": lambda p: watched(p, 3 if quick else 10),
        "sketch": lambda _: sketch(20_000 if quick else 100_000, 3 if quick else 7),
        "kill": lambda p: kill(p, 5 if quick else 35),
        "overload": lambda p: overload(p, 4 if quick else 15),
        "zero": lambda p: zero(p, 20 if quick else 300),
        "neighbour": lambda p: neighbour(p, 4 if quick else 20),
        "memory": lambda p: memory(p, 50_000 if quick else 1_000_000, 30 if quick else 1000),
        "begin": lambda p: begin(options.bundle or p["bundle"], 2 if quick else 7),
    }
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(parts):
        parser.error(f"There is no part {sorted(unknown)[0]!r}.")
    report: Report = {"cores": os.cpu_count(), "load_average": os.getloadavg(), "quick": quick}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        paths = models.make_all(options.models or Path(folder))
        for name in wanted:
            report[name] = parts[name](paths)
            print(name, json.dumps(report[name], indent=1), flush=True)
            if options.out is not None:  # what was measured stays, whatever the next part does
                options.out.write_text(json.dumps(report, indent=1) + "\n")
    show([one for name in wanted for one in report[name]["bars"]])


if __name__ == "__main__":
    main()
