"""What is lost when processes die and revisions change under load: nothing may be.

Run it from the repository: ``.venv/bin/python -m bench.serving.faults --kills 30 --out faults.json``.

A real platform (``tidemill up``), closed loops over raw sockets, every answer held against what the bundle of that
revision answers by itself. A request is *lost* where it was sent and got neither a prediction nor a typed refusal. A
connection that is refused before anything was sent is counted apart: nothing was taken in.

======  ==========================================================================================  ===================
part    what happens                                                                                bar
======  ==========================================================================================  ===================
kill    a worker is killed (``kill -9``) about every second                                         0 lost, 0 wrong
change  hot swap, rollback, shadow, canary to the end; control and API killed; a front drained      0 lost, 0 wrong;
        (SIGTERM); the platform killed and taken over by another; the end (SIGTERM)                 rollback < 1 s
front   a front is killed (``kill -9``), the callers use `tidemill.deploy.client.Client`            0 failed calls
======  ==========================================================================================  ===================
"""

from __future__ import annotations

import argparse
import contextlib
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

from bench.serving.platform import NAME, Clients, Platform, Questions, Tally, bundle

Row = dict[str, Any]
_HELD = {"min_replicas": 2, "max_replicas": 2}
COLUMNS = ("what", "took_s", "effect_s", "ok", "lost", "wrong", "refused", "unreachable", "longest_ms")


def kill(folder: Path, kills: int, clients: int = 16) -> list[Row]:
    """Kill a random worker again and again.

    Parameters
    ----------
    folder : Path
        An empty place for the workspace and the bundle.
    kills : int
        How often.
    clients : int
        Closed loops.
    """
    one = bundle(folder / "one")
    rng, done = random.Random(0), 0
    with Platform(folder / "ws") as platform:
        platform.deploy(one, **_HELD)
        platform.wait_served(_id(one))
        begin = time.perf_counter()
        with Clients(platform.port, Questions.of([one]), clients) as load:
            time.sleep(1.0)
            while done < kills:
                time.sleep(rng.uniform(0.7, 1.3))
                workers = platform.workers()
                with contextlib.suppress(ProcessLookupError, IndexError):  # the next one is being started
                    os.kill(rng.choice(workers), signal.SIGKILL)
                    done += 1
            time.sleep(1.5)
            tally = load.turn()
            time.sleep(0.5)  # what was under way still counts in the old tally
        row = {"what": f"{kills} workers killed", "took_s": round(time.perf_counter() - begin, 1), **tally.summary()}
        time.sleep(0.5)
        facts = {"replayed": platform.counter("tidemill_retries_total")}
        facts["deaths"] = platform.counter("tidemill_worker_deaths_total")
    return [{**row, **facts, "bar": "lost 0, wrong 0"}]


class _Changes:
    """Runs one change after the other under load, with a row for each."""

    def __init__(self, load: Clients, settle_s: float) -> None:
        self._load = load
        self._settle_s = settle_s
        self.rows: list[Row] = []

    def run(self, what: str, change: Callable[[], dict[str, float] | None], bar: str = "lost 0, wrong 0") -> None:
        """Make a change, let the load go on for a while, and count."""
        self._note("between", self._load.turn())
        begin = time.perf_counter()
        facts = change() or {}
        took = time.perf_counter() - begin
        time.sleep(self._settle_s)
        tally = self._load.turn()
        time.sleep(0.3)
        self.rows.append({"what": what, "took_s": round(took, 3), **facts, **tally.summary(), "bar": bar})
        print(table(self.rows[-1:], head=len(self.rows) == 1), flush=True)

    def _note(self, what: str, tally: Tally) -> None:
        """Keep what was lost where nothing was changed, too."""
        if tally.lost or tally.wrong:
            self.rows.append({"what": what, **tally.summary(), "bar": "lost 0, wrong 0"})


def change(folder: Path, settle_s: float = 2.0, clients: int = 8) -> list[Row]:
    """Change everything that may be changed, while clients ask.

    Parameters
    ----------
    folder : Path
        An empty place for workspace and bundles.
    settle_s : float
        How long the load goes on after each change.
    clients : int
        Closed loops.
    """
    first, same, other = bundle(folder / "a"), bundle(folder / "b", rows=202), bundle(folder / "c", seed=1)
    a, b, c = _id(first), _id(same), _id(other)
    path = f"/api/v1/endpoints/{NAME}"
    with Platform(folder / "ws", "--fronts", "2") as platform:
        platform.deploy(first, min_replicas=1)
        platform.wait_served(a)
        with Clients(platform.port, Questions.of([first, same, other]), clients) as load:
            changes = _Changes(load, settle_s)

            def swap() -> None:
                platform.deploy(other)

            def back(to: str, away: str) -> dict[str, float]:
                begin = time.perf_counter()
                platform.ask("POST", f"{path}/rollback", {})
                written = time.perf_counter() - begin
                time.sleep(1.5)
                # From when on no request was answered by the revision that was left, whenever it was sent.
                effect = max(0.0, load.last.get(away, 0.0) - begin)
                assert load.last[to] > begin
                return {"written_s": round(written, 3), "effect_s": round(effect, 3)}

            def shadow() -> None:
                platform.ask("PUT", f"{path}/shadow", {"revision": c})

            def canary() -> None:
                platform.deploy(same, hold=True)
                # What is counted here is loss; on a machine as busy as this one a new worker is slower for a while.
                platform.ask("PATCH", f"{path}/gate", {"latency": 20.0})
                steps = {"steps": [0.1, 0.5, 1.0], "step_requests": 50, "step_seconds": 1.0}
                platform.ask("POST", f"{path}/canary", {"revision": b, **steps})
                platform.wait_traffic({b: 1.0})

            changes.run("nothing", lambda: None)
            changes.run("hot swap", swap)
            changes.run("rollback", lambda: back(a, c), "lost 0, wrong 0, effect_s < 1")
            changes.run("shadow", shadow)
            changes.run("canary to the end", canary)
            changes.run("rollback again", lambda: back(a, b), "lost 0, wrong 0, effect_s < 1")
            changes.run("control killed", lambda: platform.strike("control", signal.SIGKILL))
            changes.run("api killed", lambda: platform.strike("api", signal.SIGKILL))
            for front in platform.fronts:
                changes.run(f"{front} drained", lambda f=front: platform.strike(f, signal.SIGTERM))
            port = str(platform.port)
            platform.kill()
            changes.run("platform killed", lambda: None)
            with contextlib.ExitStack() as held:
                successor: list[Platform] = []

                def take_over() -> None:
                    successor.append(Platform(folder / "ws", "--fronts", "2", "--port", port))
                    held.callback(successor[0].end)

                changes.run("taken over by another", take_over)
                changes.run("the end", lambda: _ended(successor[0]))
    return changes.rows


def front(folder: Path, kills: int = 3, callers: int = 4) -> list[Row]:
    """Kill a front again and again; the callers try again under the same idempotency key.

    Parameters
    ----------
    folder : Path
        An empty place for the workspace and the bundle.
    kills : int
        How often.
    callers : int
        Threads.
    """
    from tidemill.deploy.client import Client, ServingError

    one = bundle(folder / "one")
    questions, ident = Questions.of([one]), _id(one)
    counts = {"ok": 0, "wrong": 0, "lost": 0}
    lock, stop = threading.Lock(), threading.Event()

    def call(number: int, url: str) -> None:
        rng = random.Random(number)
        with Client(url, attempts=8) as client:
            while not stop.is_set():
                index = rng.randrange(len(questions.records))
                try:
                    answer = client.predict(NAME, questions.records[index])
                    what = "ok" if questions.right(index, json.dumps(answer).encode()) == ident else "wrong"
                except ServingError:
                    what = "lost"
                with lock:
                    counts[what] += 1

    with Platform(folder / "ws", "--fronts", "2") as platform:
        platform.deploy(one, **_HELD)
        platform.wait_served(ident)
        threads = [threading.Thread(target=call, args=(n, platform.urls["front-1"])) for n in range(callers)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for number in range(kills):
            time.sleep(1.0)
            platform.strike(platform.fronts[number % 2], signal.SIGKILL)
        time.sleep(1.0)
        stop.set()
        for thread in threads:
            thread.join(60)
        took = round(time.perf_counter() - begin, 1)
    return [{"what": f"{kills} fronts killed, callers try again", "took_s": took, **counts, "bar": "lost 0, wrong 0"}]


def held(row: Row) -> bool:
    """True where a row holds its bar."""
    return not row["lost"] and not row["wrong"] and float(row.get("effect_s", 0.0)) < 1.0


def table(rows: list[Row], *, head: bool = True) -> str:
    """Rows as text."""
    lines = [" ".join(f"{c:>11}" if c != "what" else f"{c:<36}" for c in (*COLUMNS, "held"))] if head else []
    for row in rows:
        cells = [str(row.get(c, "")) for c in COLUMNS[1:]] + ["yes" if held(row) else "NO"]
        lines.append(f"{row['what']:<36} " + " ".join(f"{c:>11}" for c in cells))
        if "why" in row:
            lines.append(f"    {row['why']}")
    return "\n".join(lines)


def _ended(platform: Platform) -> None:
    code = platform.end()
    assert code == 0, f"the platform ended with {code}"


def _id(folder: Path) -> str:
    from bench.serving.platform import revision_of

    return revision_of(folder)


def main() -> int:
    """Run the parts; gives 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="kill,change,front")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--settle", type=float, default=3.0, help="seconds of load after each change")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    parts: dict[str, Callable[[Path], list[Row]]] = {
        "kill": lambda f: kill(f, options.kills),
        "change": lambda f: change(f, options.settle),
        "front": lambda f: front(f, max(2, options.kills // 5)),
    }
    report: dict[str, list[Row]] = {}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            report[name] = parts[name](Path(folder))
        print(f"\n{name}\n{table(report[name])}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps({"cores": os.cpu_count(), **report}, indent=1) + "\n")
    return 0 if all(held(row) for rows in report.values() for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
