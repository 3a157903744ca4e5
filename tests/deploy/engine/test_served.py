"""Endpoints follow what they should be: new beside old, swapped by one pointer, nothing lost on the way."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.deploy.engine import made
from tests.deploy.engine.conftest import Start, until
from tests.deploy.engine.test_faults import Load
from tests.deploy.engine.test_server import _v2

from tidemill.core.errors import BundleError
from tidemill.deploy.engine.facts import Facts, read_facts
from tidemill.deploy.engine.observing import NullObserver
from tidemill.deploy.types import BatchEvent, Endpoint, RequestEvent, Revision

Models = Callable[[str], Path]


class FakeSource:
    """Desired state that a test writes."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self.paths = paths
        self.number = 1
        self.wanted: list[Endpoint] = []
        self.told: list[tuple[str, str, str]] = []
        self.broken = False

    def want(self, *endpoints: Endpoint) -> None:
        self.wanted = list(endpoints)
        self.number += 1

    def change_number(self) -> int:
        if self.broken:
            raise OSError("the database is away")
        return self.number

    def endpoints(self) -> Sequence[Endpoint]:
        return self.wanted

    def facts(self, revision: Revision) -> Facts:
        if revision.id not in self.paths:
            raise BundleError("There is no such bundle.")
        return read_facts(self.paths[revision.id])

    def ready(self, endpoint: str, revision: str) -> None:
        self.told.append(("ready", endpoint, revision))

    def refused(self, endpoint: str, revision: str, reason: str) -> None:
        self.told.append(("refused", revision, reason))

    def turn(self, endpoint: str, on: bool, actor: str) -> bool:
        return False

    def online(self) -> None:
        return None


class Recorder(NullObserver):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.requests: list[RequestEvent] = []
        self.batches: list[tuple[str, list[str]]] = []
        self.deaths: list[str] = []
        self._lock = threading.Lock()

    def request(self, event: RequestEvent) -> None:
        with self._lock:
            self.requests.append(event)

    def batch(self, endpoint: str, revision: str, columns: Any, outputs: Any, request_ids: Sequence[str]) -> None:
        rows = {len(v) for v in columns.values()} | {len(v) for v in outputs.values()}
        assert rows == {len(request_ids)}
        self.batches.append((revision, list(request_ids)))

    def death(self, endpoint: str, revision: str, reason: str) -> None:
        self.deaths.append(reason)


def _endpoint(traffic: dict[str, float], *ids: str, **more: Any) -> Endpoint:
    return Endpoint("m", tuple(Revision(i, i, 0.0, "ready") for i in ids), traffic, **more)


def _source(models: Models) -> FakeSource:
    path = models("double")
    return FakeSource(dict.fromkeys(("r1", "r2", "r3"), path))


def test_hot_swaps_splits_and_rollbacks_lose_nothing(start: Start, models: Models) -> None:
    source = _source(models)
    source.want(_endpoint({"r1": 1.0}, "r1"))
    server = start(source)
    load = Load(server)
    try:
        for traffic in ({"r2": 1.0}, {"r1": 0.5, "r2": 0.5}, {"r3": 1.0}, {"r1": 1.0}):
            source.want(_endpoint(traffic, "r1", "r2", "r3"))
            until(lambda t=traffic: {m.revision for _, m in server.server.serving.find("m").routing} == set(t))
            until(lambda n=load.answers: load.answers > n + 10)
    finally:
        load.end()
    assert (load.wrong, load.lost) == (0, [])
    assert load.answers > 10
    until(lambda: [m.revision for m in server.server.engine.models] == ["r1"])


def test_weights_hold_and_sticky_callers_meet_one_revision(start: Start, models: Models) -> None:
    source = _source(models)
    source.want(_endpoint({"r1": 0.75, "r2": 0.25}, "r1", "r2"))
    server = start(source)
    served = server.server.serving.find("m")
    until(lambda: len(served.routing) == 2)
    picked = [served.pick().revision for _ in range(4000)]
    assert abs(picked.count("r2") / 4000 - 0.25) < 0.04
    before = {k: served.pick(b"%d" % k).revision for k in range(500)}
    assert before == {k: served.pick(b"%d" % k).revision for k in range(500)}
    source.want(_endpoint({"r1": 0.5, "r2": 0.5}, "r1", "r2"))
    until(lambda: served.routing[0][0] < 0.6)
    after = {k: served.pick(b"%d" % k).revision for k in range(500)}
    assert all(after[k] == "r2" for k, r in before.items() if r == "r2")


def test_golden_rows_that_differ_keep_a_revision_from_traffic(start: Start, models: Models, tmp_path: Path) -> None:
    import hashlib

    from tidemill.bundle import manifest

    good, bad = models("binary"), tmp_path / "bad.tm"
    shutil.copytree(good, bad)
    other = made.bundle(tmp_path / "other.tm", "binary", rows=150)
    golden = bad / "tests/golden.npz"
    from tidemill.bundle.golden import parse, render

    inputs, outputs = parse(golden.read_bytes())
    outputs["probabilities"] = outputs["probabilities"][:, ::-1].copy()
    golden.write_bytes(render(inputs, outputs))
    files = {
        p.relative_to(bad).as_posix(): manifest.entry_of(p)
        for p in bad.rglob("*")
        if p.is_file() and p.name != manifest.NAME
    }
    (bad / manifest.NAME).write_bytes(manifest.render(files))
    assert hashlib.sha256((bad / manifest.NAME).read_bytes()).hexdigest()
    source = FakeSource({"r1": good, "r2": bad, "r3": other})
    source.want(_endpoint({"r1": 1.0}, "r1"))
    server = start(source)
    source.want(_endpoint({"r2": 1.0}, "r1", "r2"))
    until(lambda: any(t[:2] == ("refused", "r2") for t in source.told))
    assert "other probabilities" in next(t[2] for t in source.told if t[0] == "refused")
    row = {"size": 0.5, "colour": "a", "weight": 2}
    status, got = server.ask("/v1/predict/m", row)
    assert (status, got["revision"]) == (200, "r1")
    source.want(_endpoint({"r9": 1.0}, "r1", "r9"))
    until(lambda: any(t[:2] == ("refused", "r9") for t in source.told))
    assert server.ask("/v1/predict/m", row)[1]["revision"] == "r1"
    source.want(_endpoint({"r3": 1.0}, "r1", "r3"))
    until(lambda: server.ask("/v1/predict/m", row)[1]["revision"] == "r3")
    until(lambda: ("ready", "m", "r3") in source.told)


def test_a_front_goes_on_without_its_source(start: Start, models: Models) -> None:
    source = _source(models)
    source.want(_endpoint({"r1": 1.0}, "r1"))
    server = start(source)
    source.broken = True
    until(lambda: "away" in server.server.serving.problem)
    assert server.ask("/v2/models/m/infer", _v2(np.ones((1, 4))))[0] == 200
    source.broken = False
    source.want(_endpoint({"r2": 1.0}, "r1", "r2"))
    until(lambda: server.model("m").revision == "r2")


def test_an_endpoint_that_is_gone_answers_404(start: Start, models: Models) -> None:
    source = _source(models)
    source.want(_endpoint({"r1": 1.0}, "r1"), replace(_endpoint({"r2": 1.0}, "r2"), name="n"))
    server = start(source)
    source.want(_endpoint({"r1": 1.0}, "r1"))
    until(lambda: server.ask("/v2/models/n/infer", _v2(np.ones((1, 4))))[0] == 404)
    assert server.ask("/v2/models/m/infer", _v2(np.ones((1, 4))))[0] == 200


def test_the_observer_is_told_everything_once(start: Start, models: Models) -> None:
    source = _source(models)
    source.want(_endpoint({"r1": 1.0}, "r1", "r2", shadow="r2"))
    seen = Recorder()
    server = start(source, observer=seen)
    until(lambda: server.server.serving.find("m").shadow is not None)
    ids = []
    for _ in range(5):
        _, headers, _ = server.request("/v2/models/m/infer", _v2(np.ones((2, 4))))
        ids.append(headers["x-request-id"])
    server.ask("/v2/models/m/infer", {"inputs": []})
    until(lambda: len(seen.requests) == 11)
    mine = [e for e in seen.requests if not e.shadow]
    copies = [e for e in seen.requests if e.shadow]
    assert [e.request_id for e in mine][:5] == ids
    assert sorted(e.request_id for e in copies) == sorted(ids)
    assert {(e.status, e.rows, e.revision) for e in mine[:5]} == {(200, 2, "r1")}
    assert (mine[5].status, mine[5].error) == (400, "bad_request")
    assert {(e.status, e.revision) for e in copies} == {(200, "r2")}
    assert all(e.total_ms >= e.model_ms >= 0 for e in mine)
    for revision in ("r1", "r2"):
        told = [i for r, batch in seen.batches if r == revision for i in batch]
        assert sorted(told) == sorted(ids * 2)
    assert server.server.serving.find("m").shadow.line.bulk


class Whole(Recorder):
    """An observer that wants to be told of batches with their requests."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[BatchEvent] = []

    def answered(self, event: BatchEvent) -> None:
        self.events.append(event)


def test_the_times_of_a_request_add_up(start: Start, models: Models) -> None:
    seen = Whole()
    source = _source(models)
    source.want(_endpoint({"r1": 1.0}, "r1"))
    server = start(source, observer=seen)
    server.model("m").line.learn([(1, 0.01), (16, 0.02), (32, 0.2)])
    rows = np.ones((40, 4), np.float32)
    names: list[str] = []
    for _ in range(5):
        names.append(server.request("/v2/models/m/infer", _v2(rows[:2]))[1]["x-request-id"])
    divided = server.request("/v2/models/m/infer", _v2(rows))[1]["x-request-id"]
    until(lambda: len(seen.requests) == 1)
    told = [one for event in seen.events for one in event.requests()]
    assert [one.request_id for one in told] == names
    for one in told:
        parts = one.queue_ms, one.wait_ms, one.model_ms, one.encode_ms
        assert min(parts) >= 0
        assert one.wait_ms > 0
        assert sum(parts) <= one.total_ms * 1.001
        assert (one.rows, one.status) == (2, 200)
    assert (seen.requests[0].request_id, seen.requests[0].rows) == (divided, 40)
    assert seen.batches == []
    slices = [(event.request_ids, dict(event.parts)) for event in seen.events if event.parts]
    assert sum(len(ids) for ids, _ in slices) == 40
    assert {first for _, parts in slices for first in parts.values()} == {0, 16, 32}


def test_a_shadow_and_many_revisions_take_the_long_way(start: Start, models: Models) -> None:
    source = _source(models)
    source.want(_endpoint({"r1": 1.0}, "r1"))
    server = start(source)
    served = server.server.serving.find("m")
    assert served.plain is served.main
    source.want(_endpoint({"r1": 1.0}, "r1", "r2", shadow="r2"))
    until(lambda: served.shadow is not None)
    assert served.plain is None
    source.want(_endpoint({"r1": 0.5, "r2": 0.5}, "r1", "r2"))
    until(lambda: len(served.routing) == 2)
    assert served.plain is None
    source.want(_endpoint({"r2": 1.0}, "r1", "r2"))
    until(lambda: served.plain is not None)
    assert served.plain.revision == "r2"
