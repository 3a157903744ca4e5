"""Workers die, stop and run out of memory under load: who caused it fails alone, everybody else is answered."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.deploy.engine.conftest import Running, Start
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME, Ask, Load, Records, doubled, until

from tidemill.deploy.engine.limits import MIB, Limits
from tidemill.deploy.registry import Mode
from tidemill.deploy.types import Endpoint

Models = Callable[[str], Path]
POISON = 6


def _index(value: int) -> bytes:
    return json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [value]}]}).encode()


def _indexed(rng: random.Random) -> Ask:
    value = rng.choice([k for k in range(8) if k != POISON])
    return Ask(f"/v2/models/{NAME}/infer", _index(value), lambda got: got["outputs"][0]["data"] == [float(value)])


class Reaper:
    """Kills each worker that has a poisoned request in hand, as a bug in a kernel would."""

    def __init__(self, server: Running, poison: bytes) -> None:
        self._server = server
        self._poison = poison
        self._stop = threading.Event()
        self.kills = 0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Reaper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        dead: set[int] = set()
        while not self._stop.is_set():
            time.sleep(0.0005)
            for worker in list(self._server.model(NAME).workers):
                flights = list(worker.flights)
                held = flights and any(self._poison in bytes(j.query.pieces[0]) for j in list(flights[0].jobs))
                if held and worker.pid and worker.pid not in dead:
                    dead.add(worker.pid)
                    self.kills += 1
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)


def test_a_poisoned_request_fails_alone_under_load(start: Start, models: Models) -> None:
    """Each time it is tried its worker stops before it can answer, and is then killed; its neighbours are answered."""
    server = start({NAME: models("turns")}, settings=Endpoint("base", min_replicas=2, max_replicas=2))
    server.model(NAME).line.learn([(1, 0.5), (8, 0.5), (16, 0.6)])  # so that requests share batches
    poison = 40_000_000  # so many turns take minutes: time enough to be killed in the middle

    def turning(rng: random.Random) -> Ask:
        value = rng.randrange(20)
        return Ask(f"/v2/models/{NAME}/infer", _index(value), lambda got: got["outputs"][0]["data"] == [float(value)])

    with Load(server.port, turning, clients=6) as load, Reaper(server, poison.to_bytes(8, "little")) as reaper:
        load.more(50)
        for _ in range(3):
            status, got = server.ask(f"/v2/models/{NAME}/infer", json.loads(_index(poison)))
            assert (status, got["code"]) == (500, "model_failed"), got
            assert "died of it, 3 times" in got["error"]
        load.more(50)
    load.assert_whole(100)
    assert reaper.kills == 9


def test_a_request_for_more_memory_than_a_worker_may_hold_fails_alone_under_load(start: Start, models: Models) -> None:
    """There would be enough in the machine: it is the worker's own limit that is met."""
    server = start({NAME: models("grows"), "by": models("by_index")}, settings=Endpoint("base", min_replicas=1))
    model = server.model(NAME)
    limit = model.order()["memory"]
    elements = limit // 4 + (64 << 20)  # float32: some 256 MB more than it may have
    assert psutil.virtual_memory().total > 2 * limit

    def beside(rng: random.Random) -> Ask:
        value = rng.randrange(8)
        return Ask("/v2/models/by/infer", _index(value), lambda got: got["outputs"][0]["data"] == [float(value)])

    def small(rng: random.Random) -> Ask:
        value = rng.randrange(1, 9)
        return Ask(f"/v2/models/{NAME}/infer", _index(value), lambda got: got["outputs"][0]["data"] == [float(value)])

    most = 0
    with Load(server.port, beside, clients=2) as other, Load(server.port, small, clients=2) as load:
        for _ in range(3):
            status, got = server.ask(f"/v2/models/{NAME}/infer", json.loads(_index(elements)))
            assert (status, got["code"]) == (500, "model_failed"), got
            most = max([most, *(_peak(w.pid) for w in model.workers)])
        load.more(20)
        other.more(20)
    load.assert_whole(20)
    other.assert_whole(20)
    assert most < limit + 512 * MIB


def _peak(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return next((int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")), 0)
    return 0


def test_workers_that_stop_are_ended_by_the_watchdog_again_and_again(start: Start, models: Models) -> None:
    limits, settings = Limits(hang_floor_s=1.0), Endpoint("base", min_replicas=2, max_replicas=2)
    server = start({NAME: models("double")}, limits=limits, settings=settings)
    stopped: set[int] = set()
    with Load(server.port, doubled) as load:
        for _ in range(4):
            until(lambda: len([w for w in server.model(NAME).workers if w.pid]) == 2)
            pid = server.model(NAME).workers[0].pid
            stopped.add(pid)
            os.kill(pid, signal.SIGSTOP)
            until(lambda p=pid: p not in [w.pid for w in server.model(NAME).workers])
        load.more(30)
    load.assert_whole(50)
    until(lambda: not any(psutil.pid_exists(p) for p in stopped))


def test_all_workers_and_the_zygote_die_at_once(start: Start, models: Models) -> None:
    settings = Endpoint("base", min_replicas=2, max_replicas=2)
    server = start({NAME: models("double")}, settings=settings)
    zygote = server.server.engine.zygote
    with Load(server.port, doubled) as load:
        for _ in range(2):
            load.more(30)
            restarts = zygote.restarts
            for pid in [p for p in (zygote.pid, *(w.pid for w in server.model(NAME).workers)) if p]:
                os.kill(pid, signal.SIGKILL)
            until(lambda r=restarts: zygote.restarts > r)
            load.more(30)
    load.assert_whole(100)


def test_requests_of_many_rows_survive_the_death_of_their_worker(start: Start, models: Models) -> None:
    """They go in slices, each of which may be lost and replayed by itself; they come back whole and in order."""
    server = start({NAME: models("double")}, settings=Endpoint("base", min_replicas=2, max_replicas=2))
    server.model(NAME).line.learn([(1, 0.01), (16, 0.02), (32, 0.2)])

    def wide(rng: random.Random) -> Ask:
        rows = rng.randrange(100, 400)
        data = [float(rng.randrange(1000)) for _ in range(4 * rows)]
        tensor = {"name": "x", "shape": [rows, 4], "datatype": "FP32", "data": data}
        body = json.dumps({"inputs": [tensor]}).encode()

        def right(got: Any) -> bool:
            return got["outputs"][0]["shape"] == [rows, 4] and got["outputs"][0]["data"] == [2 * v for v in data]

        return Ask(f"/v2/models/{NAME}/infer", body, right)

    rng = random.Random(3)
    with Load(server.port, wide) as load:
        for _ in range(6):
            load.more(10)
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(rng.choice([w.pid for w in server.model(NAME).workers if w.pid]), signal.SIGKILL)
        load.more(10)
    load.assert_whole(70)


def test_a_shadow_whose_workers_die_costs_nobody_anything(site: MakeSite, pair: tuple[Path, Path], other: Path) -> None:
    here = site()
    old = here.deploy(pair[0])
    shadow = here.deploy(other, mode=Mode.SHADOW)
    served = here.front.server.serving.find(NAME)
    until(lambda: served.shadow is not None)
    with Load(here.front.port, Records(pair[0], other).ask) as load:
        for _ in range(4):
            load.more(30)
            for worker in served.by_id[shadow].workers:
                if worker.pid:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(worker.pid, signal.SIGKILL)
    load.assert_whole(100)
    assert set(load.revisions) == {old}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT])
def test_a_worker_that_dies_while_it_loads_is_tried_again(start: Start, models: Models, number: signal.Signals) -> None:
    server = start({NAME: models("double")}, settings=Endpoint("base", min_replicas=0, idle_s=0.05))
    model = server.model(NAME)
    body = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}
    for _ in range(3):
        until(lambda: not model.alive)
        zygote = psutil.Process(server.server.engine.zygote.pid)
        stop = threading.Event()

        def strike(zygote: psutil.Process = zygote, stop: threading.Event = stop) -> None:
            """Kill the first child that is born, before it is ready where that is quick enough."""
            while not stop.is_set():
                for child in zygote.children():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        child.send_signal(number)
                        return

        thread = threading.Thread(target=strike)
        thread.start()
        assert server.ask(f"/v2/models/{NAME}/infer", body)[0] == 200
        stop.set()
        thread.join(60)
