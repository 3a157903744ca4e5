"""Writers and collectors on several machines: nobody collects while another writes, and the dead are not waited for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.data.versions.conftest import make, rows_of

from tidemill.core.errors import InternalError, WorkspaceError
from tidemill.data.versions import leases, list_versions, locks
from tidemill.data.versions.collect import collect
from tidemill.data.versions.governance import drop
from tidemill.data.versions.operations import append
from tidemill.data.versions.verify import verify
from tidemill.store.workspace import Workspace

ROWS = [("a", 1.0, "p", "u"), ("b", 2.0, "q", "v")]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases of a second, so that the dead are found soon."""
    monkeypatch.setattr(leases, "LEASE_S", 1.0)


@pytest.fixture
def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Workspace, Workspace]]:
    """Two folders as on two machines, with one database and one artifact store; the database counts as a server."""
    monkeypatch.setattr(locks, "is_shared", lambda _: True)
    place = {"database_url": f"sqlite:///{tmp_path / 'shared.db'}", "artifact_url": str(tmp_path / "artifacts")}
    with Workspace.open(tmp_path / "one", **place) as one, Workspace.open(tmp_path / "two", **place) as two:
        yield one, two


def busy(workspace: Workspace) -> list[str]:
    return [r.key.partition("/")[0] for r in workspace.records.find(leases.BUSY)]


def test_writers_do_not_wait_for_each_other_and_leave_nothing(machines: tuple[Workspace, Workspace]) -> None:
    one, two = machines
    with locks.writing(one), locks.writing(two), locks.writing(one):
        assert busy(one) == ["writer", "writer"]
    assert busy(one) == []


def test_a_collector_waits_for_a_writer_on_another_machine(machines: tuple[Workspace, Workspace]) -> None:
    one, two = machines
    order: list[str] = []
    begun = threading.Event()

    def gather() -> None:
        begun.set()
        with locks.collecting(two):
            order.append("collected")

    with locks.writing(one):
        thread = threading.Thread(target=gather)
        thread.start()
        begun.wait(60)
        time.sleep(0.3)
        order.append("written")
    thread.join(60)
    assert order == ["written", "collected"]


def test_a_writer_waits_for_a_collector_on_another_machine(machines: tuple[Workspace, Workspace]) -> None:
    one, two = machines
    order: list[str] = []

    def write() -> None:
        with locks.writing(two):
            order.append("written")

    with locks.collecting(one):
        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.3)
        order.append("collected")
    thread.join(60)
    assert order == ["collected", "written"]


def test_two_collectors_follow_on_each_other(machines: tuple[Workspace, Workspace]) -> None:
    inside, most = [0], [0]
    lock = threading.Lock()

    def gather(workspace: Workspace) -> None:
        for _ in range(3):
            with locks.collecting(workspace):
                with lock:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                time.sleep(0.02)
                with lock:
                    inside[0] -= 1

    threads = [threading.Thread(target=gather, args=(w,)) for w in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1]
    assert busy(machines[0]) == []


def test_the_dead_are_overtaken_by_the_lookers_own_clock(workspace: Workspace, short: None) -> None:
    records = workspace.records
    for key in ("writer/dead", "collector"):
        records.put(leases.BUSY, key, {"who": "somebody whose clock is wrong"})
    begin = time.monotonic()
    lease = leases.collect(records, patience_s=120)
    assert 0.9 < time.monotonic() - begin < 90
    assert busy(workspace) == ["collector"]
    lease.release()
    assert busy(workspace) == []


def test_a_lease_is_renewed_while_it_is_held(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 3.0)
    monkeypatch.setattr(leases, "_BEAT", 0.03)  # so often that some may come late
    lease = leases.write(workspace.records)
    with pytest.raises(WorkspaceError, match=r"process \d+ on .* writes in this workspace"):
        leases.collect(workspace.records, patience_s=4.0)
    lease.confirm()
    lease.release()
    leases.collect(workspace.records, patience_s=5).release()


def test_who_was_taken_for_dead_changes_nothing(
    machines: tuple[Workspace, Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = machines
    base = make(one, ROWS)
    with locks.writing(one):
        for record in two.records.find(leases.BUSY):
            two.records.delete(leases.BUSY, record.key)
        monkeypatch.setattr(leases, "LEASE_S", -1.0)  # as if it had stood still
        with pytest.raises(WorkspaceError, match="took it for dead"):
            make(one, ROWS[:1], "late")
    assert [v.hash for v in list_versions(two)] == [base.hash]


def test_a_collection_within_a_write_is_a_bug(workspace: Workspace) -> None:
    with locks.writing(workspace), pytest.raises(InternalError), locks.collecting(workspace):
        pass


def test_collectors_and_writers_on_two_machines_at_once_lose_nothing(machines: tuple[Workspace, Workspace]) -> None:
    """One machine drops and collects again and again what the other one is about to use once more."""
    one, two = machines
    make(one, ROWS)
    failed: list[Exception] = []

    def write() -> None:
        try:
            for i in range(12):
                make(two, [(f"k{i % 3}", 1.0, "p", "u"), *ROWS], "again")
                append(two, "d", _table(i))
        except Exception as error:  # noqa: BLE001  told by the test itself
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    while thread.is_alive():
        for version in list_versions(one, "again"):
            drop(one, f"again@{version.hash}")
        collect(one, grace_s=0.0, now=time.time() + 1)
    thread.join()
    assert not failed, failed
    for version in list_versions(one):
        assert verify(one, version) == []
    assert len(rows_of(one, "d")) == 2 + 12


WRITER = """
import sys, time
from tidemill.data.versions import locks
from tidemill.store.workspace import Workspace
with Workspace.open(sys.argv[1]) as workspace:
    assert locks.is_shared(workspace)
    with locks.writing(workspace):
        print("writing", flush=True)
        time.sleep(600)
"""


def test_a_writer_that_is_killed_on_a_server_is_overtaken(tmp_path: Path, short: None, postgres_url: str) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tidemill.toml").write_text(f'database_url = "{postgres_url}"\n')
    with Workspace.open(tmp_path / "two") as two:
        before = len(two.records.find(leases.BUSY))
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "one")], stdout=subprocess.PIPE, text=True
        )
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            assert len(two.records.find(leases.BUSY)) == before + 1
        finally:
            writer.kill()
            writer.communicate(timeout=30)
        with locks.collecting(two):
            assert "collector" in busy(two)


def _table(i: int):  # type: ignore[no-untyped-def]
    import pyarrow as pa

    return pa.table({"key": [f"z{i}"], "x": [float(i)], "word": ["p"], "y": ["u"]})
