"""What an acknowledged write survives, and what a broken connection leaves."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import WorkspaceError
from tidemill.data.features.history import read_history
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.push import materialize, push
from tidemill.data.features.online.redis_store import RedisStore
from tidemill.data.features.online.sqlite_store import SqliteStore
from tidemill.data.features.registry import register
from tidemill.data.features.types import EntityKey, Feature, FeatureGroup
from tidemill.store.workspace import Workspace
from tidemill.testing.online_store import row

ITEMS = [(b"k%04d" % i, row(1, bytes([i % 256]) * 20_000)) for i in range(200)]

_WRITER = """
import sys
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.sqlite_store import SqliteStore
from tidemill.testing.online_store import row
store = LmdbStore(sys.argv[2], map_bytes=1 << 20) if sys.argv[1] == "lmdb" else SqliteStore(sys.argv[2])
n = 0
while True:
    n += 1
    store.put_many([(b"k%02d" % i, row(n, n.to_bytes(4, "big") * 2000)) for i in range(20)])
    print(n, flush=True)
"""


class Cable:
    """A connection to a server that can be cut after so many bytes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.left: int | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._open += [near, far]
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, there: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if there and self.left is not None:
                    if len(data) >= self.left:
                        target.sendall(data[: self.left])
                        break
                    self.left -= len(data)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self._listening.close()
        for end in self._open:
            end.close()


@pytest.fixture
def cable(redis_url: str) -> Iterator[Cable]:
    made = Cable(int(redis_url.rsplit(":", 1)[1].split("/")[0]))
    yield made
    made.close()


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_a_connection_that_breaks_in_a_push_leaves_nothing_half_done_and_the_push_can_be_repeated(
    redis_url: str, cable: Cable, share: float
) -> None:
    name = f"test-{uuid.uuid4().hex}"
    direct = RedisStore(redis_url, namespace=name)
    through = RedisStore(f"redis://127.0.0.1:{cable.port}/0", namespace=name)
    cable.left = int(sum(len(v) for _, v in ITEMS) * share)
    with pytest.raises(WorkspaceError, match=r"Nothing is acknowledged.*repeat"):
        through.put_many(ITEMS)
    assert list(direct.scan()) == []
    cable.left = None
    assert through.put_many(ITEMS) == len(ITEMS)
    assert direct.get_many([key for key, _ in ITEMS]) == [(value, None) for _, value in ITEMS]
    direct.delete([key for key, _ in ITEMS])
    direct.close()
    through.close()


def test_a_server_that_is_not_there_is_an_error_with_its_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nobody listens
        port = free.getsockname()[1]
        with pytest.raises(WorkspaceError, match=f"127.0.0.1:{port}"):
            RedisStore(f"redis://127.0.0.1:{port}/0")


def test_the_password_of_a_server_is_in_no_message() -> None:
    with pytest.raises(WorkspaceError) as caught:
        RedisStore("redis://user:secret@127.0.0.1:1/0")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["lmdb", "sqlite"])
def test_a_writer_that_is_killed_loses_no_acknowledged_push_and_leaves_no_half_one(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "store"
    command = [sys.executable, "-c", _WRITER, kind, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        said = [int(writer.stdout.readline()) for _ in range(5)]
        writer.send_signal(signal.SIGKILL)
        said += [int(line) for line in writer.stdout.read().split("\n")[:-1]]
    store = LmdbStore(place) if kind == "lmdb" else SqliteStore(place)
    rows = {cell[0] for cell in store.get_many([b"k%02d" % i for i in range(20)])}
    assert len(rows) == 1
    (found,) = rows
    assert found is not None
    number = int.from_bytes(found[16:20], "big")
    assert number >= said[-1]
    assert found == row(number, number.to_bytes(4, "big") * 2000)
    store.close()


GROUP = FeatureGroup("wide", (EntityKey("id"),), tuple(Feature(f"f{i:03d}") for i in range(500)), event_time="at")


def _table() -> pa.Table:
    block = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float32)
    columns = {"id": pa.array(range(400)), "at": pa.array([0] * 400, pa.timestamp("us", "UTC"))}
    return pa.table(columns | {f.name: block[:, i] for i, f in enumerate(GROUP.features)})


def test_redis_gone_in_the_middle_of_a_push_keeps_the_history_and_the_push_can_be_repeated(
    redis_url: str, cable: Cable, tmp_path: Path
) -> None:
    name = f"test-{uuid.uuid4().hex}"
    direct = RedisStore(redis_url, namespace=name)
    with Workspace.open(tmp_path / "ws") as workspace:
        register(workspace, GROUP)
        through = RedisStore(f"redis://127.0.0.1:{cable.port}/0", namespace=name)
        with OnlineFeatures(workspace, through) as online:
            cable.left = 300_000
            with pytest.raises(WorkspaceError, match=r"Nothing is acknowledged.*repeat"):
                push(online, "wide", _table())
            assert read_history(workspace, "wide").rows == 400  # offline first
            assert list(direct.scan()) == []
            cable.left = None
            done = push(online, "wide", _table())
            assert (done.offline.added, done.online.written) == (0, 400)
            assert online.row("wide", 399).state == "fresh"
    direct.delete([key for key, _ in direct.scan()])
    direct.close()


def test_a_push_that_fills_the_map_keeps_the_history_and_materializes_once_there_is_room(tmp_path: Path) -> None:
    with Workspace.open(tmp_path / "ws") as workspace:
        register(workspace, GROUP)
        small = LmdbStore(tmp_path / "online", map_bytes=1 << 20, max_bytes=1 << 20)
        with OnlineFeatures(workspace, small) as online, pytest.raises(WorkspaceError, match="map size"):
            push(online, "wide", _table())
        assert read_history(workspace, "wide").rows == 400
        with OnlineFeatures(workspace, LmdbStore(tmp_path / "online", max_bytes=1 << 26)) as online:
            assert online.row("wide", 0).state == "absent"
            assert materialize(online, "wide").written == 400
            assert online.row("wide", 399).state == "fresh"


def test_a_disk_that_is_full_says_so_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    """A limit on the size of files stops real writes in the middle."""
    program = """
import resource, signal, sys
from tidemill.core.errors import WorkspaceError
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.testing.online_store import row

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = LmdbStore(sys.argv[1])
many = [(b"n%03d" % i, row(1, bytes(20_000))) for i in range(200)]
assert store.put_many([(b"k", row(1, b"old"))]) == 1
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for items in (many[:10], many, [(b"k", row(2, bytes(600_000)))]):
    try:
        store.put_many(items)
        print("written", len(items))
    except WorkspaceError as error:
        print("refused:", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.close()
store = LmdbStore(sys.argv[1])
print([cell[0] for cell in store.get_many([b"k"])] == [row(1, b"old")])
print([cell[0] for cell in store.get_many([b"n009", b"n010"])] == [many[9][1], None])
print(store.put_many(many))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "online")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    lines = done.stdout.splitlines()
    assert lines[0] == "written 10", done.stdout + done.stderr
    assert all(line.startswith("refused:") and "disk is full" in line for line in lines[1:3]), done.stdout
    assert lines[3:] == ["True", "True", "200"]
