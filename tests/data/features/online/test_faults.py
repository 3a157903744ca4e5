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

import pytest

from tidemill.core.errors import WorkspaceError
from tidemill.data.features.online.lmdb_store import LmdbStore
from tidemill.data.features.online.redis_store import RedisStore
from tidemill.data.features.online.sqlite_store import SqliteStore
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
        free.bind(("127.0.0.1", 0))
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
