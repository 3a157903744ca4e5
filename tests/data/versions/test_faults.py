"""Killed, starved of disk, or two at once: the old state or the new one, and nothing lost."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.data.versions.conftest import make, rows_of

from tidemill.core.errors import WorkspaceError
from tidemill.data.versions import list_versions
from tidemill.data.versions.collect import collect
from tidemill.data.versions.ledger import lease
from tidemill.data.versions.operations import append, merge, relabel
from tidemill.data.versions.verify import verify
from tidemill.store import artifacts
from tidemill.store.workspace import Workspace

ROWS = [("a", 1.0, "p", "u"), ("b", 2.0, "q", "v")]
WRITER = """
import sys
import numpy as np, pyarrow as pa
from tidemill.data.versions.operations import append, relabel_by_key
from tidemill.store.workspace import Workspace
folder, who, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with Workspace.open(folder) as workspace:
    for i in range(count):
        rows = pa.table({"key": [f"{who}{i}"], "x": [float(i)], "word": ["p"], "y": ["u"]})
        append(workspace, "d", rows)
        relabel_by_key(workspace, "d", pa.table({"key": [f"{who}{i}"], "y": [who]}), ["key"])
        print(i, flush=True)
"""


def start(folder: Path, who: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", WRITER, str(folder), who, str(count)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_writers_at_once_lose_neither_row_nor_label(workspace: Workspace) -> None:
    make(workspace, ROWS)
    writers = [start(workspace.path, who, 4) for who in ("left", "right")]
    for writer in writers:
        go(writer)
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        assert writer.returncode == 0, said
    got = {r[0]: r[3] for r in rows_of(workspace, "d")}
    wanted = {f"{who}{i}": who for who in ("left", "right") for i in range(4)}
    assert got == {"a": "u", "b": "v", **wanted}


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_writer_leaves_whole_versions_and_what_it_promised(workspace: Workspace, seed: int) -> None:
    make(workspace, ROWS)
    writer = start(workspace.path, "w", 10_000)
    go(writer)
    assert writer.stdout is not None
    promised = int(writer.stdout.readline()) + 1
    time.sleep(random.Random(seed).uniform(0.0, 0.5))
    os.kill(writer.pid, signal.SIGKILL)
    promised += len(writer.communicate(timeout=30)[0].splitlines())
    for version in list_versions(workspace):
        assert verify(workspace, version) == []
        assert len(rows_of(workspace, version)) == version.rows
    got = {r[0]: r[3] for r in rows_of(workspace, "d")}
    assert all(got[f"w{i}"] == "w" for i in range(promised))
    collect(workspace, grace_s=0.0, now=time.time() + 1)
    assert {r[0]: r[3] for r in rows_of(workspace, "d")} == got


def test_a_write_that_fails_at_any_step_changes_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    base = make(workspace, ROWS)
    other = make(workspace, [("c", 3.0, "p", "u")], "o")
    before = list_versions(workspace)
    real_put, real_record = workspace.artifacts.put, workspace.metadata.put_dataset_version
    jobs = [
        lambda: make(workspace, [("z", 9.0, "p", "u")], "new"),
        lambda: relabel(workspace, base.hash, np.array([0]), ["w"]),
        lambda: merge(workspace, [base.hash, other.hash], identity=["key"], rule="both"),
        lambda: merge(workspace, [base.hash, other.hash]),
    ]
    for job in jobs:
        for step in range(20):
            left = [step]

            def failing(real: object, left: list[int] = left) -> object:
                def call(value: object) -> object:
                    if left[0] == 0:
                        raise WorkspaceError("The disk is full.")
                    left[0] -= 1
                    return real(value)  # type: ignore[operator]

                return call

            monkeypatch.setattr(workspace.artifacts, "put", failing(real_put))
            monkeypatch.setattr(workspace.metadata, "put_dataset_version", failing(real_record))
            try:
                job()
            except WorkspaceError:
                assert list_versions(workspace) == before
                continue
            finally:
                monkeypatch.setattr(workspace.artifacts, "put", real_put)
                monkeypatch.setattr(workspace.metadata, "put_dataset_version", real_record)
            break
        else:
            pytest.fail("the job never came to an end")
        assert step >= 1
        assert len(list_versions(workspace)) == len(before) + 1
        before = list_versions(workspace)
    for version in before:
        assert verify(workspace, version) == []


def test_a_full_disk_is_said_and_nothing_is_lost(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    make(workspace, ROWS)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifacts.os, "fsync", full)
        with pytest.raises(WorkspaceError, match="disk is full"):
            append(workspace, "d", _more())
    assert rows_of(workspace, "d") == ROWS
    assert append(workspace, "d", _more()).rows == 3


def test_a_lease_of_a_dead_holder_is_taken_over(workspace: Workspace) -> None:
    with lease(workspace, "d", clock=lambda: 100.0):
        with (
            pytest.raises(WorkspaceError, match="Another process"),
            lease(workspace, "d", patience_s=0.05, clock=lambda: 110.0),
        ):
            pass
        with lease(workspace, "d", patience_s=0.05, clock=lambda: 131.0):
            pass
    with lease(workspace, "d", patience_s=0.05):
        pass


def _more():  # type: ignore[no-untyped-def]
    import pyarrow as pa

    return pa.table({"key": ["z"], "x": [9.0], "word": ["p"], "y": ["u"]})
