"""Revisions change under load, through the HTTP door: nothing is lost, and every answer is of the revision it names."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from tests.deploy.engine.conftest import Running, Start
from tests.deploy.faults.conftest import MakeSite
from tests.deploy.faults.sites import NAME, Ask, Load, Records, until

from tidemill.deploy.audit import read_audit
from tidemill.deploy.canary import Bars
from tidemill.deploy.controller import read_bars
from tidemill.deploy.engine.limits import MIB, Limits
from tidemill.deploy.engine.sources import WorkspaceSource
from tidemill.deploy.registry import BARS, Mode
from tidemill.deploy.types import CanaryStep, Endpoint

Models = Callable[[str], Path]
PATH = f"/v1/predict/{NAME}"
ROW = {"size": 1, "colour": "a", "weight": 2}


def test_a_swap_loses_nothing_and_a_rollback_holds_at_once(
    site: MakeSite, pair: tuple[Path, Path], other: Path
) -> None:
    here = site()
    old = here.deploy(pair[0])
    here.serves(old)
    with Load(here.front.port, Records(pair[0], other).ask) as load:
        load.more(50)
        new = here.deploy(other)
        here.serves(new)
        load.more(50)
        begin = time.monotonic()
        here.registry.rollback(NAME, reason="it says other things")
        written = time.monotonic() - begin
        here.serves(old)
        load.more(100)
    load.assert_whole(200)
    assert set(load.revisions) == {old, new}
    # A second, and what a slow machine adds; no request that was sent later was answered by what was left.
    assert written < 10.0
    assert load.last[new] - begin < 10.0
    assert load.last[old] > begin


def test_a_canary_that_does_harm_goes_back_by_itself_and_its_reason_is_kept(
    site: MakeSite, pair: tuple[Path, Path], other: Path
) -> None:
    here = site()
    here.registry.note(BARS, NAME, {**vars(Bars()), "latency": 50.0}, "gate", {})  # this machine may be busy
    old = here.deploy(pair[0])
    here.serves(old)
    here.control()
    with Load(here.front.port, Records(pair[0], other).ask, clients=6) as load:
        load.more(300)
        # A step that never ends by itself: only harm ends this canary.
        new = here.deploy(other, mode=Mode.CANARY, steps=(CanaryStep(0.5, 10**6, 3600.0), CanaryStep(1.0)))
        here.serves(old, new)
        until(lambda: here.registry.get(NAME).canary is None, 120)
        here.serves(old)
        load.revisions.clear()
        load.more(50)
    load.assert_whole(400)
    now = here.registry.get(NAME)
    assert now.traffic == {old: 1.0}
    reason = next(r.reason for r in now.revisions if r.id == new)
    assert reason.startswith("drift"), reason
    line = read_audit(here.workspace.journal, stream=f"deploy/{NAME}")[-1]
    assert (line["what"], line["actor"]) == ("canary_rollback", "controller")
    assert line["facts"]["reason"] == reason


def test_a_canary_that_does_no_harm_takes_its_steps_and_loses_nothing(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site()
    here.registry.note(BARS, NAME, {**vars(Bars()), "latency": 50.0}, "gate", {})
    assert read_bars(here.workspace, NAME).latency == 50.0  # this machine is busy; that is not what is tested
    old = here.deploy(pair[0])
    here.serves(old)
    here.control()
    with Load(here.front.port, Records(*pair).ask) as load:
        load.more(100)
        steps = (CanaryStep(0.1, 10, 0.2), CanaryStep(0.5, 20, 0.2), CanaryStep(1.0))
        new = here.deploy(pair[1], mode=Mode.CANARY, steps=steps)
        until(lambda: here.registry.get(NAME).traffic == {new: 1.0}, 120)
        here.serves(new)
        load.more(50)
    load.assert_whole(150)
    kinds = [line["what"] for line in read_audit(here.workspace.journal, stream=f"deploy/{NAME}")]
    assert kinds.count("canary_step") == 2
    assert here.registry.rollback(NAME).traffic == {old: 1.0}


def test_a_canary_that_finds_no_room_is_sent_back(site: MakeSite, pair: tuple[Path, Path]) -> None:
    """It answers nothing wrong, it answers nothing at all: 507 is no error of the model, and no answer either."""
    here = site()
    old = here.deploy(pair[0], options={"min_replicas": 1})
    here.serves(old)
    new = here.deploy(pair[1], mode=Mode.CANARY, steps=(CanaryStep(0.5, 100, 0.1), CanaryStep(1.0)))
    here.serves(old, new)
    engine, served = here.front.server.engine, here.front.server.serving.find(NAME)
    late = served.by_id[new]
    first = served.by_id[old]
    engine.memory_bytes = first.alive * first.memory_bytes + MIB
    here.front.loop.call_soon_threadsafe(engine.cool, late)
    until(lambda: not late.alive)
    here.control()
    with Load(here.front.port, Records(*pair).ask) as load:
        until(lambda: here.registry.get(NAME).canary is None, 120)
        here.serves(old)
        lost = len(load.lost)
        load.more(50)
    assert {(status, got["code"]) for status, got in load.lost} == {(507, "no_room")}
    assert len(load.lost) <= lost + 4  # what was under way
    assert load.wrong == []
    assert here.registry.get(NAME).traffic == {old: 1.0}
    reason = next(r.reason for r in here.registry.get(NAME).revisions if r.id == new)
    assert reason.startswith("refusals"), reason


def test_callers_with_a_key_meet_one_revision_and_only_move_towards_the_new_one(
    site: MakeSite, pair: tuple[Path, Path]
) -> None:
    here = site()
    old = here.deploy(pair[0])
    new = here.deploy(pair[1], mode=Mode.WEIGHT, weight=0.3)
    here.serves(old, new)

    def met() -> dict[int, str]:
        return {
            caller: here.front.request(PATH, ROW, {"X-Sticky-Key": f"caller-{caller}"})[1]["x-revision"]
            for caller in range(60)
        }

    before = met()
    assert before == met()
    assert set(before.values()) == {old, new}
    here.registry.set_traffic(NAME, {old: 0.3, new: 0.7})
    until(lambda: here.front.server.serving.find(NAME).routing[0][0] < 0.5)
    after = met()
    assert all(after[c] == new for c, r in before.items() if r == new)
    assert sum(r == new for r in after.values()) > sum(r == new for r in before.values())


def test_a_shadow_gets_copies_at_low_priority_and_its_answers_reach_nobody(
    site: MakeSite, pair: tuple[Path, Path], other: Path
) -> None:
    here = site()
    old = here.deploy(pair[0], options={"capture": {"sample": 0.0, "confidence": 0.0}})
    shadow = here.deploy(other, mode=Mode.SHADOW)
    served = here.front.server.serving.find(NAME)
    until(lambda: served.shadow is not None)
    with Load(here.front.port, Records(pair[0], other).ask) as load:
        load.more(200)
    load.assert_whole(200)
    assert set(load.revisions) == {old}
    assert served.shadow is not None
    assert served.shadow.line.bulk
    nice = {m.revision: {psutil.Process(w.pid).nice() for w in m.workers if w.pid} for m in served.models}
    assert min(nice[shadow]) > max(nice[old])
    until(lambda: here.watch.window(NAME, shadow).shadow_requests >= 200)
    window = here.watch.window(NAME, shadow)
    assert window.requests == 0
    assert 0 < window.disagreements <= window.compared
    from tidemill.deploy.watch.capture import collect

    here.watch.fold()
    until(lambda: collect(here.workspace, NAME, reasons=["disagreement"]).num_rows > 0)


def test_a_first_revision_that_finds_no_room_is_told_with_the_numbers_and_serves_when_there_is_some(
    site: MakeSite, pair: tuple[Path, Path]
) -> None:
    here = site(limits=Limits(memory_bytes=MIB))
    revision = here.registry.deploy(pair[0], NAME).id
    until(lambda: here.front.request(PATH, ROW)[0] == 507)
    status, got = here.front.ask(PATH, ROW)
    assert (status, got["code"]) == (507, "no_room")
    assert "MiB" in got["error"]
    assert "of 1 MiB" in got["error"]
    assert here.registry.get(NAME).revisions[0].state == "checking"
    here.front.server.engine.memory_bytes = 1 << 40
    until(lambda: here.registry.get(NAME).traffic == {revision: 1.0})
    until(lambda: here.front.request(PATH, ROW)[0] == 200)


def test_a_new_revision_that_finds_no_room_leaves_the_old_one_alone(site: MakeSite, pair: tuple[Path, Path]) -> None:
    here = site()
    old = here.deploy(pair[0], options={"min_replicas": 1})
    here.serves(old)
    engine = here.front.server.engine
    engine.memory_bytes = engine.memory_in_use() + MIB
    new = here.registry.deploy(pair[1], NAME).id
    with Load(here.front.port, Records(*pair).ask) as load:
        until(lambda: "needs" in here.front.server.serving.problem)
        load.more(30)
        assert set(load.revisions) == {old}
        engine.memory_bytes = 1 << 40
        here.serves(new)
        load.more(30)
    load.assert_whole(60)


def test_replicas_follow_the_load_between_their_bounds(start: Start, models: Models) -> None:
    settings = Endpoint("base", min_replicas=1, max_replicas=3, idle_s=0.3, target_ms=4.0, deadline_ms=60_000)
    server = start({NAME: models("turns")}, settings=settings)
    body = json.dumps({"inputs": [{"name": "x", "shape": [1], "datatype": "INT64", "data": [1500]}]}).encode()
    model = server.model(NAME)
    alive: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            alive.append(model.alive)

    watcher = threading.Thread(target=watch)
    watcher.start()
    ask = Ask(f"/v2/models/{NAME}/infer", body, lambda got: got["outputs"][0]["data"] == [1500.0])
    with Load(server.port, lambda _: ask, clients=12) as load:
        until(lambda: model.alive == 3, 60)
        load.more(50)
    until(lambda: model.alive == 1, 60)
    stop.set()
    watcher.join()
    alive.append(model.alive)
    load.assert_whole(50)
    assert (min(alive), max(alive)) == (1, 3)


def test_the_least_recently_used_endpoint_makes_room(site: MakeSite, pair: tuple[Path, Path], other: Path) -> None:
    """Three endpoints and room for two: whoever is asked is loaded, whoever was not asked longest is let go."""
    here = site()
    for name, folder in zip("abc", (*pair, other), strict=True):
        here.serves(here.deploy(folder, name), name=name)
    engine, serving = here.front.server.engine, here.front.server.serving
    held = {name: serving.find(name).main for name in "abc"}
    for name in "abc":
        assert here.front.request(f"/v1/predict/{name}", ROW)[0] == 200
    need = max(m.memory_bytes for m in held.values())
    engine.memory_bytes = int(2.5 * need)
    here.front.loop.call_soon_threadsafe(lambda: [engine.cool(m) for m in held.values()])
    until(lambda: not engine.memory_in_use())
    recent: list[str] = []
    rng = random.Random(1)
    for _ in range(12):
        name = rng.choice("abc")
        assert here.front.request(f"/v1/predict/{name}", ROW)[0] == 200
        recent = [*(n for n in recent if n != name), name]
        assert engine.memory_in_use() <= engine.memory_bytes
        assert {n for n, m in held.items() if m.alive} == set(recent[-2:])


def test_a_revision_that_is_no_more_wanted_while_it_waits_for_room_is_forgotten(
    site: MakeSite, pair: tuple[Path, Path]
) -> None:
    here = site(limits=Limits(memory_bytes=MIB))
    here.registry.deploy(pair[0], NAME)
    until(lambda: here.front.request(PATH, ROW)[0] == 507)
    here.registry.undeploy(NAME)
    until(lambda: here.front.request(PATH, ROW)[0] == 404)
    until(lambda: not here.front.server.engine.models)


def test_an_endpoint_is_unloaded_on_every_front_and_it_is_written_down(
    site: MakeSite, start: Start, pair: tuple[Path, Path]
) -> None:
    here = site(keys=True)
    assert here.ring is not None
    here.deploy(pair[0], options={"min_replicas": 1})
    other = start(WorkspaceSource(here.workspace), authorise=here.ring.authorise)
    key, token = here.keys.create("ops", ["deploy", "predict"])
    _, weak = here.keys.create("shop", ["predict"])
    here.ring.refresh()
    records = Records(pair[0])
    row = {"records": records.records[:1]}

    def ask(front: Running, path: str, body: object, token: str = token) -> int:
        return int(front.ask(path, body, {"authorization": f"Bearer {token}"})[0])

    fronts = (here.front, other)
    assert [ask(f, f"/v1/predict/{NAME}", row) for f in fronts] == [200, 200]
    assert ask(other, f"/v2/repository/models/{NAME}/unload", {}, weak) == 403
    assert ask(here.front, f"/v2/repository/models/{NAME}/unload", {}) == 200
    assert ask(here.front, f"/v1/predict/{NAME}", row) == 503
    until(lambda: ask(other, f"/v1/predict/{NAME}", row) == 503)
    until(lambda: not any(f.model(NAME).alive for f in fronts))
    assert not here.registry.get(NAME).loaded
    # Who comes later is told the same, and whoever loads it again does so for all.
    third = start(WorkspaceSource(here.workspace), ready=False)
    until(lambda: third.ask(f"/v1/predict/{NAME}", row)[0] == 503)
    assert ask(other, f"/v2/repository/models/{NAME}/load", {}) == 200
    assert ask(other, f"/v1/predict/{NAME}", row) == 200
    until(lambda: ask(here.front, f"/v1/predict/{NAME}", row) == 200)
    until(lambda: third.ask(f"/v1/predict/{NAME}", row)[0] == 200)
    lines = [x for x in read_audit(here.workspace.journal, subject=NAME) if x["what"] in ("load", "unload")]
    assert [(x["what"], x["actor"]) for x in lines] == [("unload", f"key:{key.id}"), ("load", f"key:{key.id}")]
