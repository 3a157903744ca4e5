"""What was acknowledged stays: torn tails, full disks, killed processes."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.core.errors import OptionError, WorkspaceError
from tidemill.deploy.types import Feedback
from tidemill.deploy.watch import feedback, segments
from tidemill.deploy.watch.feedback import FeedbackLog, FeedbackTail
from tidemill.deploy.watch.segments import MAGIC, Segment, frame

RECORDS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@given(RECORDS)
def test_frames_round_trip(records: list[bytes]) -> None:
    data = b"".join(map(frame, records))
    assert segments.parse(data) == (records, len(data))


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=5))
def test_a_file_cut_at_any_byte_keeps_every_whole_record(
    tmp_path_factory: pytest.TempPathFactory, records: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    data = MAGIC + b"".join(map(frame, records))
    ends = [len(MAGIC)]
    for record in records:
        ends.append(ends[-1] + len(frame(record)))
    for cut in range(len(data) + 1):
        path = folder / f"{cut}.seg"
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends[1:])
        assert segments.read(path) == records[:whole]
        segment = Segment(path)
        segment.append([b"after"])
        segment.close()
        assert segments.read(path) == [*records[:whole], b"after"]


@given(st.lists(st.binary(min_size=1, max_size=12), min_size=1, max_size=5), st.data())
def test_a_changed_byte_is_never_taken_for_a_record(records: list[bytes], data: st.DataObject) -> None:
    stored = bytearray(b"".join(map(frame, records)))
    at = data.draw(st.integers(0, len(stored) - 1))
    stored[at] ^= 1 << data.draw(st.integers(0, 7))
    found = segments.parse(bytes(stored)).records
    assert found == records[: len(found)]
    assert len(found) < len(records)


def test_cut_bytes_are_kept_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.seg"
    path.write_bytes(MAGIC + frame(b"whole") + b"torn")
    Segment(path).close()
    assert [p.read_bytes() for p in tmp_path.glob("*.torn-*")] == [b"torn"]


def test_a_strange_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.seg"
    path.write_bytes(b"something else")
    with pytest.raises(WorkspaceError, match="no segment"):
        Segment(path)
    assert path.read_bytes() == b"something else"


def test_threads_share_a_file_and_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    real, segment = os.fsync, Segment(tmp_path / "a.seg")

    def slow(handle: int) -> None:
        end = time.monotonic() + 60
        while not syncs and len(segment._pending) < 5 and time.monotonic() < end:  # others come meanwhile
            time.sleep(0.01)
        syncs.append(handle)
        real(handle)

    monkeypatch.setattr(os, "fsync", slow)
    threads = [threading.Thread(target=segment.append, args=([f"{k}".encode()],)) for k in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(int, segments.read(segment.path))) == list(range(40))
    assert len(syncs) <= 40 - 4
    segment.close()


def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FeedbackLog(tmp_path, "front-1")
    log.append([Feedback("r1", "yes")])
    real = os.pwrite

    def full(handle: int, data: memoryview, at: int) -> int:
        if len(data) > 10:
            return real(handle, data[:10], at)  # some bytes still fit
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(WorkspaceError, match="No space left"):
            log.append([Feedback("r2", "no")])
    log.append([Feedback("r3", "no")])
    log.close()
    assert feedback.read_all(tmp_path)["request_id"].to_pylist() == ["r1", "r3"]


def test_after_a_failed_sync_another_file_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = FeedbackLog(tmp_path, "front-1")
    log.append([Feedback("r1", "yes")])

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", broken)
        with pytest.raises(WorkspaceError):
            log.append([Feedback("r2", "no")])
    log.append([Feedback("r3", "no")])
    log.close()
    assert len(list(tmp_path.glob("*.seg"))) == 2
    assert feedback.read_all(tmp_path)["request_id"].to_pylist() == ["r1", "r3"]


WRITER = """
import os, sys, threading
from pathlib import Path
from tidemill.deploy.types import Feedback
from tidemill.deploy.watch.feedback import FeedbackLog

log = FeedbackLog(Path(sys.argv[1]), sys.argv[2])

def work(name):
    k = 0
    while True:
        items = [Feedback(f"{name}-{k}", {"label": k}), Feedback(f"{name}-{k}", "x", row=1)]
        log.append(items)
        os.write(1, f"{name}-{k}\\n".encode())   # the 200 of this test
        if k % 50 == 0 and name == "a":
            log.roll(force=True)
        k += 1

for name in "abc":
    threading.Thread(target=work, args=(name,), daemon=True).start()
threading.Event().wait()
"""


@pytest.mark.parametrize("round_", range(3))
def test_nothing_that_was_acknowledged_is_lost_to_kill_9(tmp_path: Path, round_: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "front-1"], stdout=subprocess.PIPE, bufsize=0
    )
    assert process.stdout is not None
    told = b""
    wanted = 50 + 130 * round_
    while told.count(b"\n") < wanted:
        told += process.stdout.read(4096)
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read()
    process.wait(timeout=30)
    process.stdout.close()
    acknowledged = {line for line in told.decode().split("\n")[:-1] if line}
    assert feedback.recover(tmp_path, lambda front: True) >= 1
    kept = feedback.read_all(tmp_path)
    by_row = {(r["request_id"], r["row"]) for r in kept.to_pylist()}
    assert {(name, row) for name in acknowledged for row in (0, 1)} <= by_row
    assert len(by_row) == kept.num_rows  # and nothing is there twice


def test_folding_ends_what_a_killed_fold_began(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, "front-1")
    log.append([Feedback(f"r{k}", k) for k in range(100)])
    log.close()
    path = next(segments.segments_of(tmp_path))
    data = path.read_bytes()
    target = feedback.fold(path)
    assert target is not None
    path.write_bytes(data)  # killed between the file and the removal
    assert feedback.read_all(tmp_path).num_rows == 100
    feedback.recover(tmp_path, lambda front: front == "front-1")
    assert not path.exists()
    found = feedback.read_all(tmp_path, request_ids=["r7", "r50", "none"])
    assert found["label"].to_pylist() == ["50", "7"]


def test_the_tail_gives_each_item_once_while_others_write(tmp_path: Path) -> None:
    one, two = FeedbackLog(tmp_path, "front-1"), FeedbackLog(tmp_path, "front-2")
    one.append([Feedback("before", 1)])
    tail = FeedbackTail(tmp_path)
    assert tail.news() == []
    one.append([Feedback("r1", 1)])
    two.append([Feedback("r2", 1)])
    assert [i["request_id"] for i in tail.news()] == ["r1", "r2"]
    two.append([Feedback("r3", 1)])
    assert [i["request_id"] for i in tail.news()] == ["r3"]
    assert tail.news() == []
    one.close()
    two.close()


@pytest.mark.parametrize(
    "item",
    [
        Feedback("", 1), Feedback("r", None), Feedback("r", float("nan")), Feedback("r", object()),
        Feedback("r", 1, row=-1), Feedback("r" * 5000, 1), Feedback("r", "x" * 5000), Feedback("r", 1, note="x" * 5000),
    ],
    ids=["no id", "no label", "nan", "object", "row", "long id", "long label", "long note"],
)  # fmt: skip
def test_what_is_no_feedback_is_refused_as_a_whole(tmp_path: Path, item: Feedback) -> None:
    log = FeedbackLog(tmp_path, "front-1")
    with pytest.raises(OptionError):
        log.append([Feedback("good", 1), item])
    log.close()
    assert feedback.read_all(tmp_path).num_rows == 0


def test_old_feedback_is_removed_with_its_rows(tmp_path: Path) -> None:
    log = FeedbackLog(tmp_path, "front-1", clock=lambda: 1000.0)
    log.append([Feedback("r1", 1)])
    path = log.roll(force=True)
    assert path is not None
    assert segments.finished(tmp_path) == [path]
    assert feedback.fold(path) is not None
    assert segments.finished(tmp_path) == []
    assert feedback.prune(tmp_path, 1000.0) == 0
    assert feedback.prune(tmp_path, 1001.0) == 1
