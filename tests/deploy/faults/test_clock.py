"""The clock on the wall may jump: no wait, no deadline and no rate reads it, and counts stay exact."""

from __future__ import annotations

import ast
import threading
import time
from pathlib import Path

import pytest
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME, Load, Records, until

import tidemill.deploy
from tidemill.deploy.presence import beat, living
from tidemill.deploy.types import Feedback

ROOM = Path(tidemill.deploy.__file__).parent
READERS = {"presence.living", "engine.told._item"}
"""Functions that ask what time it is, because a moment is what they are about. This set may only shrink."""
WALL = ("time.time", "datetime.now", "dt.datetime.now")
DAY_S = 86_400.0


class Wall:
    """A clock on the wall that somebody sets."""

    def __init__(self) -> None:
        self.off = 0.0
        self._real = time.time

    def __call__(self) -> float:
        return self._real() + self.off


def _readers(path: Path) -> set[str]:
    """Functions of a module that call ``time.time``; a clock that is handed in is not called by that name."""
    name = path.relative_to(ROOM).with_suffix("").as_posix().replace("/", ".")
    found: set[str] = set()
    for outer in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(outer, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for inner in ast.walk(outer):
            called = inner.func if isinstance(inner, ast.Call) else None
            if isinstance(called, ast.Attribute) and ast.unparse(called) in WALL:
                found.add(f"{name}.{outer.name}")
    return found


def test_only_what_is_about_a_moment_reads_the_clock_on_the_wall() -> None:
    found = set().union(*(_readers(path) for path in ROOM.rglob("*.py")))
    assert found <= READERS, sorted(found - READERS)


def test_a_clock_that_jumps_loses_no_request_no_count_and_no_feedback(
    site: MakeSite, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = Wall()
    monkeypatch.setattr(time, "time", wall)
    here = site(clock=wall)
    revision = here.deploy(pair[0], options={"min_replicas": 1, "idle_s": 60.0, "deadline_ms": 60_000.0})
    here.serves(revision)
    served = here.front.server.serving.find(NAME)
    worker = served.main.workers[0].pid
    stop = threading.Event()

    def jump() -> None:
        for number in range(10_000):
            wall.off = (DAY_S, -DAY_S, 3600.0, -0.5, 0.0)[number % 5]
            if stop.wait(0.05):
                return

    jumping = threading.Thread(target=jump)
    jumping.start()
    with Load(here.front.port, Records(pair[0]).ask) as load:
        load.more(100)
        here.watch.feedback(NAME, [Feedback(f"r{k}", "yes") for k in range(20)])
        load.more(200)
    stop.set()
    jumping.join(60)
    wall.off = 0.0
    load.assert_whole(300)
    assert [w.pid for w in served.main.workers] == [worker]  # nothing was taken for idle or for hanging
    until(lambda: here.watch.window(NAME, revision).requests >= load.ok)
    window = here.watch.window(NAME, revision)
    assert (window.requests, window.errors, window.refusals, window.deaths) == (load.ok, 0, 0, 0)
    assert here.front.request("/metrics")[0] == 200
    from tidemill.deploy.watch import feedback
    from tidemill.deploy.watch.sources import folder_of

    assert feedback.read_all(folder_of(here.workspace, NAME) / "feedback").num_rows == 20


def test_a_key_that_is_limited_by_rate_gains_nothing_from_a_jump(site: MakeSite, pair: tuple[Path, Path]) -> None:
    wall = Wall()
    here = site(clock=wall, keys=True)
    here.serves(here.deploy(pair[0]))
    _, token = here.keys.create("shop", ["predict"], rate=0.01, burst=2)
    assert here.ring is not None
    here.ring._steady = time.monotonic  # as where no clock is handed in
    here.ring.refresh()
    row, head = {"size": 1, "colour": "a", "weight": 2}, {"Authorization": f"Bearer {token}"}
    statuses: list[int] = []
    for off in (0.0, DAY_S, -DAY_S, 30 * DAY_S, 0.0):
        wall.off = off
        statuses.append(here.front.request(f"/v1/predict/{NAME}", row, head)[0])
    assert statuses == [200, 200, 429, 429, 429]


def test_a_beat_of_another_time_is_no_sign_of_life(site: MakeSite) -> None:
    here = site()
    beat(here.workspace.records, {"port": 1})
    assert living(here.workspace.records) == [{"port": 1}]
    for off in (DAY_S, -DAY_S):
        assert living(here.workspace.records, time.time() + off) == []
