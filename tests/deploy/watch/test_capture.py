"""Captured rows: by reason, bounded, once, without what must not be kept, and still there after a kill."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.deploy.types import CapturePolicy, Endpoint, Feedback, RequestEvent
from tidemill.deploy.watch.blobs import BlobFolder
from tidemill.deploy.watch.capture import collect
from tidemill.deploy.watch.folding import fold_ended, is_due
from tidemill.deploy.watch.observer import Watch, machine
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock

NOW = 1_800_000_000.0
NONE = CapturePolicy(sample=0.0, confidence=0.0)


class Described:
    """Sources of a test: one endpoint, bundles by revision."""

    def __init__(self, policy: CapturePolicy, bundles: Mapping[str, Path] | None = None) -> None:
        self.policy = policy
        self.bundles = dict(bundles or {})

    def refresh(self) -> None: ...

    def endpoint(self, name: str) -> Endpoint:
        return Endpoint(name, capture=self.policy)

    def bundle(self, endpoint: str, revision: str) -> Path | None:
        return self.bundles.get(revision)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


def outputs(*second: float) -> dict[str, np.ndarray]:
    p = np.array(second, dtype=np.float64)
    label = np.array(["yes" if v > 0.5 else "no" for v in second], dtype=object)
    return {"label": label, "probabilities": np.stack([1 - p, p], axis=1)}


def event(request_id: str, **changes: Any) -> RequestEvent:
    return RequestEvent(**{
        "endpoint": "fraud", "revision": "a1", "request_id": request_id, "status": 200, "rows": 1, "queue_ms": 0.0,
        "wait_ms": 0.0, "model_ms": 0.0, "encode_ms": 0.0, "total_ms": 1.0, **changes,
    })  # fmt: skip


def watching(workspace: Workspace, policy: CapturePolicy, clock: Clock | None = None, **more: Any) -> Watch:
    return Watch(workspace, sources=Described(policy), clock=clock or Clock(NOW), seed=1, start=False, **more)


def test_each_reason_finds_its_rows(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = watching(workspace, CapturePolicy(sample=0.0, confidence=0.6, slow_ms=50.0), clock)
    x = np.arange(6.0)[:, None]
    watch.batch("fraud", "a1", {"x": x}, outputs(0.99, 0.45, 0.9, 0.1, 0.97, 0.98), [f"r{k}" for k in range(6)])
    watch.request(event("r2", total_ms=80.0))
    watch.request(event("r9", status=500, error="ValueError: no"))
    watch.batch("fraud", "b2", {"x": x[3:4]}, outputs(0.9), ["r3"])
    watch.feedback("fraud", [Feedback("r4", "no"), Feedback("r5", "yes")])
    clock.now += 5
    watch.fold()
    table = collect(workspace, "fraud")
    rows = {r["capture.request_id"]: r for r in table.to_pylist()}
    reasons = {k: r["capture.reason"] for k, r in rows.items()}
    assert reasons == {
        "r1": "low_confidence", "r2": "slow", "r9": "error", "r3": "disagreement", "r4": "wrong", "r5": "feedback",
    }  # fmt: skip
    assert rows["r2"] | {"x": 2.0, "capture.label": "yes", "capture.confidence": 0.9, "capture.revision": "a1",
                         "capture.total_ms": 80.0} == rows["r2"]  # fmt: skip
    assert rows["r4"]["capture.truth"] == "no"
    assert (rows["r3"]["capture.other"], rows["r3"]["capture.other_revision"]) == ("yes", "b2")
    assert rows["r9"]["capture.error"] == "ValueError: no"
    assert collect(workspace, "fraud", reasons=["slow"]).num_rows == 1
    assert collect(workspace, "fraud", since=clock.now + 1).num_rows == 0
    with pytest.raises(OptionError, match="no reason 'late'"):
        collect(workspace, "fraud", reasons=["late"])


def test_a_reservoir_is_bounded_and_fair(workspace: Workspace) -> None:
    watch = watching(workspace, CapturePolicy(sample=1.0, confidence=0.0, per_hour=200))
    for k in range(10):
        x = np.arange(500.0) + 500 * k
        watch.batch("fraud", "a1", {"x": x}, outputs(*[0.9] * 500), [f"r{k}-{i}" for i in range(500)])
    watch.close()
    kept = collect(workspace, "fraud")["x"].to_numpy()
    assert len(kept) == len(set(kept.tolist())) == 200
    quarters = np.histogram(kept, bins=4, range=(0, 5000))[0]
    assert quarters.min() >= 30  # 50 are to be expected, 30 are three deviations less


def test_the_same_content_is_kept_once(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = watching(workspace, CapturePolicy(sample=1.0, confidence=0.6, per_hour=50), clock)
    for hour in range(2):
        watch.batch("fraud", "a1", {"x": np.ones(40)}, outputs(*[0.5] * 40), [f"r{hour}-{i}" for i in range(40)])
        watch.fold()
        clock.now += 3600
    watch.batch("fraud", "a1", {"x": np.array([2.0])}, outputs(0.5), ["other"])
    watch.close()
    rows = collect(workspace, "fraud").to_pylist()
    assert sorted(r["x"] for r in rows) == [1.0, 2.0]
    assert {r["capture.reason"] for r in rows} == {"low_confidence, sample"}


def test_a_flood_of_one_row_leaves_room_for_another(workspace: Workspace) -> None:
    watch = watching(workspace, CapturePolicy(sample=1.0, confidence=0.0, per_hour=5))
    watch.batch("fraud", "a1", {"x": np.ones(100)}, outputs(*[0.9] * 100), [f"r{i}" for i in range(100)])
    watch.batch("fraud", "a1", {"x": np.arange(100.0)}, outputs(*[0.9] * 100), [f"s{i}" for i in range(100)])
    watch.close()
    assert collect(workspace, "fraud").num_rows == 5


def test_redacted_values_are_nowhere_on_disk(workspace: Workspace) -> None:
    policy = CapturePolicy(sample=1.0, redact=("name",))
    watch = watching(workspace, policy)
    columns = {"name": np.array(["Erika Mustermann"], dtype=object), "x": np.array([1.0])}
    watch.batch("fraud", "a1", columns, outputs(0.5), ["r1"])
    watch.request(event("r2", status=500, error="bad value 'Erika Mustermann'"))
    watch.fold()
    watch.close()
    rows = collect(workspace, "fraud").to_pylist()
    assert {r["name"] for r in rows} == {None}
    for path in (workspace.path / "watch").rglob("*"):
        if path.is_file():
            assert b"Mustermann" not in path.read_bytes()


def test_a_dead_process_leaves_its_rows(workspace: Workspace) -> None:
    watch = watching(workspace, CapturePolicy(sample=1.0), front=f"999999999-{machine()}-dead")
    watch.batch("fraud", "a1", {"x": np.arange(3.0)}, outputs(0.9, 0.9, 0.9), ["r1", "r1", "r2"])
    watch.fold()  # and no close: it was killed
    assert collect(workspace, "fraud").num_rows == 3
    assert is_due(workspace.path)
    assert fold_ended(workspace.path) == 1
    assert not is_due(workspace.path)
    folder = workspace.path / "watch" / "fraud" / "captured"
    assert list(folder.glob("*.seg")) == []
    rows = collect(workspace, "fraud").to_pylist()
    assert [(r["capture.request_id"], r["capture.row"]) for r in rows] == [("r1", 0), ("r1", 1), ("r2", 0)]


def test_large_values_are_blobs(workspace: Workspace) -> None:
    watch = watching(workspace, CapturePolicy(sample=1.0))
    image = np.arange(12.0, dtype=np.float32).reshape(1, 3, 2, 2)
    columns = {"image": image, "note": np.array(["x" * 5000], dtype=object)}
    watch.batch("fraud", "a1", columns, outputs(0.9), ["r1"])
    watch.close()
    row = collect(workspace, "fraud").to_pylist()[0]
    blobs = BlobFolder(workspace.path / "watch" / "fraud" / "captured" / "blobs")
    assert np.array_equal(blobs.get(row["image"]), image[0])
    assert blobs.get(row["note"]) == "x" * 5000
    blobs.prune(2e9)
    with pytest.raises(NotFoundError, match="gone"):
        blobs.get(row["note"])


def test_rows_older_than_the_policy_are_removed(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = watching(workspace, CapturePolicy(sample=1.0, days=2.0), clock)
    for day in range(5):
        watch.batch("fraud", "a1", {"x": np.array([float(day)])}, outputs(0.9), [f"r{day}"])
        watch.fold()
        clock.now += 86_400
    watch.fold()
    watch.close()
    assert collect(workspace, "fraud")["x"].to_pylist() == [3.0, 4.0]


def test_a_full_disk_costs_rows_and_nothing_else(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = watching(workspace, CapturePolicy(sample=1.0))

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        watch.batch("fraud", "a1", {"x": np.arange(3.0)}, outputs(0.9, 0.9, 0.9), ["r1", "r2", "r3"])
        watch.request(event("r1"))
        watch.fold()
    assert watch.window("fraud", "a1").requests == 1
    assert any(
        line.startswith("tidemill_watch_refused_by_disk_total{") and line.endswith(" 3")
        for line in watch.render_metrics().splitlines()
    )
    watch.close()


def test_truth_that_comes_much_later_is_found_by_collect(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = watching(workspace, CapturePolicy(sample=1.0), clock)
    watch.batch("fraud", "a1", {"x": np.arange(2.0)}, outputs(0.9, 0.8), ["r1", "r1"])
    watch.close()
    clock.now += 86_400
    later = watching(workspace, NONE, clock)
    later.feedback("fraud", [Feedback("r1", "no", row=1), Feedback("never", "no")])
    later.feedback("fraud", [Feedback("r1", "yes", row=1)])  # the last word holds
    later.fold()
    assert collect(workspace, "fraud")["capture.truth"].to_pylist() == [None, "yes"]
    assert later.window("fraud", "a1").feedback == 0
    later.close()
