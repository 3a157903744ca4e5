"""What must not be lost: kills, full disks, damaged files, several writers."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.data.features.histories import moment

from tidemill.core.errors import ConflictError, DataError, WorkspaceError
from tidemill.data.features import history as history_module
from tidemill.data.features import push as push_module
from tidemill.data.features import segment as segment_module
from tidemill.data.features.compact import compact
from tidemill.data.features.history import read_history, sweep, verify
from tidemill.data.features.join import historical
from tidemill.data.features.latest import latest
from tidemill.data.features.push import push
from tidemill.data.features.registry import register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup
from tidemill.store.workspace import Workspace

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def group(workspace: Workspace) -> FeatureGroup:
    features = (Feature("x"), Feature("y", DType.STRING))
    return register(workspace, FeatureGroup("g", (EntityKey("id"),), features, event_time="at"))


def some(begin: int, end: int) -> pa.Table:
    ids = np.arange(begin, end)
    return pa.table({"id": ids, "at": [moment(0)] * len(ids), "x": ids / 2, "y": [str(i) for i in ids]})


def ids(workspace: Workspace) -> list[int]:
    return sorted(latest(workspace, "g").entities["id"].to_pylist())


def values_are_right(workspace: Workspace, known: list[int]) -> bool:
    spine = pa.table({"id": known, "day": [moment(1)] * len(known)})
    got = historical(workspace, spine, "g", label_time="day").to_arrow()
    return got["x"].to_pylist() == [i / 2 for i in known] and got["y"].to_pylist() == [str(i) for i in known]


WRITER = """
import sys
from pathlib import Path
import numpy as np
from tests.data.features.test_faults import some
from tidemill.data.features.push import push
from tidemill.store.workspace import Workspace

with Workspace.open(sys.argv[1]) as workspace:
    begin, step, times = map(int, sys.argv[2:5])
    print("ready", flush=True)
    for i in range(times):
        push(workspace, "g", some(begin + i * step, begin + (i + 1) * step))
        print(begin + (i + 1) * step, flush=True)
"""


def writer(workspace: Workspace, begin: int, step: int, times: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(workspace.path), str(begin), str(step), str(times)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("delay_s", [0.0, 0.03, 0.11, 0.3])
def test_a_writer_that_is_killed_loses_nothing_that_it_acknowledged(workspace: Workspace, delay_s: float) -> None:
    process = writer(workspace, 0, 20, 500)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    first = process.stdout.readline()
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    acknowledged = int([first, *rest.split()][-1])
    found = ids(workspace)
    assert found == list(range(len(found)))  # pushes are whole or absent, in order
    assert len(found) >= acknowledged
    assert len(found) % 20 == 0
    assert values_are_right(workspace, found)
    assert verify(workspace, "g") == []
    assert push(workspace, "g", some(0, len(found) + 20)).added == 20  # and one can go on


@pytest.mark.slow
def test_two_writers_in_two_processes_lose_nothing(workspace: Workspace) -> None:
    processes = [writer(workspace, begin, 5, 15) for begin in (0, 1000)]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    assert ids(workspace) == [*range(75), *range(1000, 1075)]
    assert values_are_right(workspace, ids(workspace))


def test_a_writer_on_another_machine_between_read_and_write_loses_nothing(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, others = push_module.write_history, iter([some(10, 12), some(12, 14)])

    def beaten(workspace, name, segments, *, expect, retired=()):  # another machine does not see our lock file
        rows = next(others, None)
        if rows is not None:
            monkeypatch.setattr(push_module, "write_history", plain)
            threading_free_push(workspace, rows)
            monkeypatch.setattr(push_module, "write_history", beaten)
        return plain(workspace, name, segments, expect=expect, retired=retired)

    monkeypatch.setattr(push_module, "write_history", beaten)
    push(workspace, "g", some(0, 2))
    assert ids(workspace) == [0, 1, 10, 11, 12, 13]


def threading_free_push(workspace: Workspace, rows: pa.Table) -> None:
    """Push as another machine would: without waiting for this one's lock."""
    from contextlib import nullcontext
    from unittest.mock import patch

    with patch.object(push_module, "one_writer", lambda *_: nullcontext()):
        push(workspace, "g", rows)


def test_a_history_that_changed_meanwhile_is_not_overwritten(workspace: Workspace) -> None:
    push(workspace, "g", some(0, 2))
    before = read_history(workspace, "g")
    push(workspace, "g", some(2, 4))
    with pytest.raises(ConflictError):
        history_module.write_history(workspace, "g", before.segments, expect=before.version)
    assert ids(workspace) == [0, 1, 2, 3]


@pytest.mark.parametrize("place", ["fragment", "packed"])
def test_a_full_disk_is_said_and_leaves_the_old_state(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    push(workspace, "g", some(0, 5))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if place == "fragment":
            patch.setattr("tidemill.store.artifacts.LocalArtifactStore._write", full)
        else:
            patch.setattr(segment_module, "_write_ipc", full)
        with pytest.raises(WorkspaceError, match="disk is full"):
            push(workspace, "g", some(5, 10))
    assert ids(workspace) == list(range(5))
    assert [p.name for p in segment_module.segments_folder(workspace, "g").glob("tmp-*")] == []
    assert push(workspace, "g", some(5, 10)).added == 5


def test_a_disk_that_is_really_full_is_said(workspace: Workspace) -> None:
    """A limit on the size of files stops a real write in the middle."""
    program = """
import resource, signal, sys
from tests.data.features.test_faults import some
from tidemill.core.errors import WorkspaceError
from tidemill.data.features.push import push
from tidemill.store.workspace import Workspace

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Workspace.open(sys.argv[1]) as workspace:
    rows = some(0, 200_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    try:
        push(workspace, "g", rows)
    except WorkspaceError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(workspace.path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "disk is full" in done.stdout, done.stdout + done.stderr
    assert ids(workspace) == []


def damage(path: Path) -> None:
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def test_a_damaged_fragment_is_named(workspace: Workspace) -> None:
    push(workspace, "g", some(0, 5))
    key = read_history(workspace, "g").segments[0].parts[0][0]
    path = workspace.path / "artifacts" / key[:2] / key[2:4] / key
    damage(path)
    assert values_are_right(workspace, [0, 1])  # the packed form is whole
    assert [re.search("damaged", line) is not None and str(path) in line for line in verify(workspace, "g")] == [True]
    shutil.rmtree(segment_module.segments_folder(workspace, "g"))
    with pytest.raises(DataError) as caught:
        ids(workspace)
    assert str(path) in str(caught.value)
    assert "5 rows is damaged" in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=f"fragment of feature group 'g' is missing: {key[:12]}"):
        ids(workspace)


def test_a_damaged_packed_file_is_named_by_verify(workspace: Workspace) -> None:
    push(workspace, "g", some(0, 5))
    path = next(segment_module.segments_folder(workspace, "g").glob("*/matrix.npy"))
    damage(path)
    found = verify(workspace, "g")
    assert len(found) == 1
    assert str(path) in found[0]
    shutil.rmtree(path.parent)
    assert values_are_right(workspace, list(range(5)))
    assert verify(workspace, "g") == []


@pytest.mark.parametrize("loss", ["folder", "one file", "cut short", "meta"])
def test_the_packed_form_is_made_again_byte_for_byte(workspace: Workspace, loss: str) -> None:
    push(workspace, "g", some(0, 50))
    folder = next(p for p in segment_module.segments_folder(workspace, "g").iterdir() if p.is_dir())
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    if loss == "folder":
        shutil.rmtree(folder)
    elif loss == "one file":
        (folder / "event.npy").unlink()
    elif loss == "cut short":
        os.truncate(folder / "matrix.npy", 130)
    else:
        (folder / "meta.json").write_text("{")
    assert values_are_right(workspace, list(range(50)))
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_what_a_crash_left_is_swept_after_a_day_and_what_is_needed_stays(workspace: Workspace) -> None:
    push(workspace, "g", some(0, 5))
    folder = segment_module.segments_folder(workspace, "g")
    (folder / "tmp-left").mkdir()
    sweep(workspace, "g")
    assert (folder / "tmp-left").exists()
    sweep(workspace, "g", clock=time.time() + 2 * 86400)
    assert not (folder / "tmp-left").exists()
    assert values_are_right(workspace, list(range(5)))


def test_compaction_keeps_what_is_pushed_meanwhile(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from tidemill.data.features import compact as module

    with monkeypatch.context() as patch:
        patch.setattr(push_module, "compact", lambda *_: False)
        for i in range(9):
            push(workspace, "g", some(i, i + 1))
        plain = module.write_history

        def beaten(workspace, name, segments, *, expect, retired=()):
            patch.setattr(module, "write_history", plain)
            push(workspace, "g", some(9, 10))
            return plain(workspace, name, segments, expect=expect, retired=retired)

        patch.setattr(module, "write_history", beaten)
        assert compact(workspace, "g")
    assert len(read_history(workspace, "g").segments) == 2
    assert ids(workspace) == list(range(10))
    assert values_are_right(workspace, ids(workspace))


def test_readers_see_whole_pushes_only(workspace: Workspace) -> None:
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        with Workspace.open(workspace.path) as mine:
            while not stop.is_set():
                seen.append(len(latest(mine, "g")))

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(6):
        push(workspace, "g", some(i * 10, i * 10 + 10))
    stop.set()
    reader.join(timeout=60)
    assert seen == sorted(seen)
    assert set(seen) <= {0, 10, 20, 30, 40, 50, 60}


def test_fragments_that_compaction_replaced_go_after_a_day_unless_a_kept_state_needs_them(workspace: Workspace) -> None:
    from tidemill.data.features.registry import get_group
    from tidemill.data.features.snapshot import keep_state, load_state

    push(workspace, "g", some(0, 1))
    state = keep_state(workspace, get_group(workspace, "g"), read_history(workspace, "g"))
    for i in range(1, 8):
        push(workspace, "g", some(i, i + 1))
    history = read_history(workspace, "g")
    assert len(history.segments) == 1
    retired = [key for key, _ in history.retired]
    assert len(retired) == 8
    assert all(workspace.artifacts.exists(key) for key in retired)
    sweep(workspace, "g", clock=time.time() + 2 * 86400)
    assert [workspace.artifacts.exists(key) for key in retired] == [True] + [False] * 7
    assert read_history(workspace, "g").retired == ()
    assert values_are_right(workspace, list(range(8)))
    _, old = load_state(workspace, state)
    group = get_group(workspace, "g")
    opened = segment_module.open_segment(workspace, group, old.segments[0])  # made again from its fragment
    assert opened.matrix.tolist() == [[0.0]]
