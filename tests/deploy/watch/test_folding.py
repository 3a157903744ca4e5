"""Fronts write segments; a program of its own makes Parquet of them, whatever it is killed at."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.deploy.watch.test_capture import NOW, outputs, watching

from tidemill.deploy.types import CapturePolicy, Endpoint, Feedback
from tidemill.deploy.watch import feedback, folding, segments
from tidemill.deploy.watch.capture import collect
from tidemill.deploy.watch.feedback import FeedbackLog
from tidemill.deploy.watch.folding import fold_ended, is_due, keep_folding, main, prune
from tidemill.deploy.watch.observer import Watch
from tidemill.store.workspace import Workspace
from tidemill.testing.clock import Clock

KEPT = CapturePolicy(sample=1.0)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "ws") as opened:
        yield opened


def hours(workspace: Workspace, count: int, clock: Clock) -> Watch:
    """A front that has captured two rows in each of some hours."""
    watch = watching(workspace, KEPT, clock)
    for hour in range(count):
        watch.batch("fraud", "a1", {"x": np.arange(2.0) + 10 * hour}, outputs(0.9, 0.8), [f"r{hour}"] * 2)
        watch.fold()
        clock.now += 3600
    return watch


def kinds(workspace: Workspace) -> tuple[int, int]:
    """Numbers of segments and of Parquet files."""
    root = workspace.path / "watch"
    return len(list(root.rglob("*.seg"))), len(list(root.rglob("*.parquet")))


def test_a_front_folds_nothing_itself_and_nothing_is_missing_before_or_after(workspace: Workspace) -> None:
    clock = Clock(NOW)
    watch = hours(workspace, 3, clock)
    watch.feedback("fraud", [Feedback("r0", "no", row=1)])
    watch.fold()
    before = collect(workspace, "fraud").to_pylist()
    assert (kinds(workspace)[1], len(before)) == (0, 6)
    assert fold_ended(workspace.path) == 3
    assert kinds(workspace) == (1, 3)  # the feedback still gets records
    assert sorted(map(str, collect(workspace, "fraud").to_pylist())) == sorted(map(str, before))
    watch.close()
    assert is_due(workspace.path)
    assert fold_ended(workspace.path) == 1
    assert kinds(workspace) == (0, 4)
    assert not is_due(workspace.path)
    assert sorted(map(str, collect(workspace, "fraud").to_pylist())) == sorted(map(str, before))
    assert collect(workspace, "fraud")["capture.truth"].to_pylist().count("no") == 1


def test_a_front_loads_no_arrow_when_an_hour_ends(tmp_path: Path) -> None:
    program = """
import sys
import numpy as np
from tidemill.deploy.types import Feedback
from tidemill.deploy.watch.observer import Watch
from tidemill.store.workspace import Workspace

now = [1_800_000_000.0]
with Workspace.open(sys.argv[1]) as workspace:
    watch = Watch(workspace, clock=lambda: now[0], start=False)
    for hour in range(3):
        outputs = {"label": np.array(["a"], object), "probabilities": np.array([[0.5, 0.5]])}
        watch.batch("m", "a1", {"x": np.ones(1)}, outputs, [f"r{hour}"])
        watch.feedback("m", [Feedback(f"r{hour}", "b")])
        watch.fold()
        now[0] += 3600.0
    watch._recover()
    watch.close()
heavy = {"pyarrow", "pandas", "onnx"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "ws")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert main(["--workspace", str(tmp_path / "ws")]) == 0
    with Workspace.open(tmp_path / "ws") as workspace:
        assert kinds(workspace)[0] == 0
        assert collect(workspace, "m").num_rows == 1  # one content
        assert feedback.read_all(workspace.path / "watch" / "m" / "feedback").num_rows == 3


def test_killed_in_between_the_next_one_ends_the_work(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    hours(workspace, 2, Clock(NOW)).close()
    before = collect(workspace, "fraud").num_rows

    def killed(path: Path, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(segments, "write_file", killed)
        with pytest.raises(KeyboardInterrupt):
            fold_ended(workspace.path)
    assert collect(workspace, "fraud").num_rows == before
    # The mark of the first is off: it is folded when its writer is dead, and read until then.
    monkeypatch.setattr(folding, "is_dead", lambda front: True)
    assert fold_ended(workspace.path) == 2
    assert collect(workspace, "fraud").num_rows == before
    assert kinds(workspace)[0] == 0


def test_a_segment_that_can_t_be_folded_holds_no_other_up(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    hours(workspace, 2, Clock(NOW)).close()
    first = next(segments.segments_of(workspace.path / "watch" / "fraud" / "captured"))
    whole = first.read_bytes()
    first.write_bytes(segments.MAGIC + segments.frame(b"no JSON"))
    segments.finish(first)
    assert fold_ended(workspace.path) == 1
    assert "can't be folded" in caplog.text
    first.write_bytes(whole)
    assert collect(workspace, "fraud").num_rows == 4


def test_old_feedback_goes_after_the_days_of_its_endpoint(workspace: Workspace) -> None:
    from tidemill.deploy.types import ENDPOINT

    kept = Endpoint("fraud", capture=CapturePolicy(days=2.0))
    workspace.records.put(ENDPOINT, "fraud", kept.to_json())
    folder = workspace.path / "watch" / "fraud" / "feedback"
    log = FeedbackLog(folder, "999999999-here-dead", clock=lambda: 1000.0)
    log.append([Feedback("r1", 1)])
    log.close()
    assert fold_ended(workspace.path) == 1
    assert prune(workspace, 1000.0 + 86_400) == 0
    assert prune(workspace, 1001.0 + 2 * 86_400) == 1


def test_the_program_is_started_when_there_is_something_to_do(workspace: Workspace) -> None:
    hours(workspace, 2, Clock(NOW)).close()
    stop = threading.Event()
    thread = threading.Thread(target=keep_folding, args=(workspace.path, stop), kwargs={"every_s": 0.05})
    thread.start()
    try:
        end = time.monotonic() + 60
        while kinds(workspace)[0]:
            assert time.monotonic() < end
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert collect(workspace, "fraud").num_rows == 4
