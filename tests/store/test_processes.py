"""Many processes may open, create and write one ledger at once; a killed one loses nothing that it was promised."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tidemill.store.metadata import SqlMetadataStore
from tidemill.store.workspace import Workspace
from tidemill.testing.metadata_store import example_study

WRITER = """
import sys
from tidemill.core.errors import OptionError
from tidemill.store.metadata import SqlMetadataStore
from tidemill.testing.metadata_store import example_study, example_trial

url, which, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
store = SqlMetadataStore(url)
try:
    store.create_study(example_study())
except OptionError:
    pass  # another was quicker
for i in range(count):
    store.put_trial(example_trial(number=10_000 * which + i))
    store.update_study("income", artifacts={f"{which}-{i}": "ab" * 32})
    print(i, flush=True)
store.close()
"""


def start(url: str, which: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", WRITER, url, str(which), str(count)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_processes_that_create_and_write_at_once_lose_nothing(database_url: str) -> None:
    writers = [start(database_url, which, 25) for which in range(4)]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        go(writer)
    for writer in writers:
        _, said = writer.communicate(timeout=60)
        assert writer.returncode == 0, said
    store = SqlMetadataStore(database_url)
    assert [t.number for t in store.trials("income")] == [10_000 * w + i for w in range(4) for i in range(25)]
    assert len(store.get_study("income").artifacts) == 1 + 4 * 25
    store.close()


def test_a_killed_process_loses_no_acknowledged_trial(database_url: str) -> None:
    writer = start(database_url, 0, 100_000)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    go(writer)
    for _ in range(30):
        writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged = 30 + len(writer.communicate(timeout=30)[0].splitlines())
    store = SqlMetadataStore(database_url)
    kept = [trial.number for trial in store.trials("income")]
    assert kept[:acknowledged] == list(range(acknowledged))
    assert len(kept) <= acknowledged + 1
    store.update_study("income", state="interrupted")  # nothing is left locked
    store.close()


def test_processes_that_make_one_workspace_at_once_do_not_collide(tmp_path: Path) -> None:
    program = """
import sys
from tidemill.store.workspace import Workspace
print("ready", flush=True)
for line in sys.stdin:
    with Workspace.open(line.strip()) as workspace:
        workspace.artifacts.put(b"a")
        print(len(workspace.metadata.studies()), flush=True)
"""
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for attempt in range(10):
        folder = tmp_path / str(attempt) / "deep" / "workspace"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write(f"{folder}\n")
            process.stdin.flush()
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "0\n"
        with Workspace.open(folder) as workspace:
            workspace.metadata.create_study(example_study())
            assert len(workspace.artifacts.keys()) == 1
    for process in processes:
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
