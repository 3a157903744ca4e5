"""The front's side of zygote and workers: starting them, and talking to them without ever blocking the loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from tidemill.deploy.engine import wire
from tidemill.deploy.engine.launching import launch

_BUFFER = 4 << 20
_AREA = 4 << 20
"""Bytes of each of the two areas of shared memory; pages that are never written take no room."""
_QUICK_S = 1.0
"""A warm process that lived shorter than this is not started again at once."""


class Worker(asyncio.Protocol):
    """A worker process, seen from the front.

    Parameters
    ----------
    number : int
        Its name between front and zygote.
    on_frame : callable
        Gets this worker, kind, ticket, number of tensors, milliseconds, and the whole frame.
    on_end : callable
        Gets this worker when its socket closes: it is dead, or was let go.
    """

    def __init__(
        self,
        number: int,
        on_frame: Callable[[Worker, int, int, int, float, bytes], None],
        on_end: Callable[[Worker], None],
    ) -> None:
        self.number = number
        self.pid = 0
        self.ready = False
        self.bulk = False
        self.released = False
        self.killed_for = ""
        self.status: int | None = None
        self.flights: deque[Any] = deque()
        self.last_used = 0.0
        self._on_frame = on_frame
        self._on_end = on_end
        self._transport: Any = None
        self._buffer = bytearray()
        self._areas: list[memoryview] = []
        self._memory: mmap.mmap | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is ours."""
        self._transport = transport  # uvloop's is no subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        """Bytes from the worker."""
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < 4 + int.from_bytes(self._buffer[:4], "little"):
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        at, end = 0, len(data)
        while end - at >= wire.HEAD.size:
            size, kind, count, _, ticket, ms = wire.HEAD.unpack_from(data, at)
            if end - at < size + 4:
                break
            whole = data if at == 0 and end == size + 4 else data[at : at + size + 4]
            at += size + 4
            self._on_frame(self, kind, ticket, count, ms, whole)
        if at < end:
            self._buffer += data[at:]

    def connection_lost(self, error: Exception | None) -> None:
        """The worker is gone."""
        self._transport = None
        self._unshare()
        self._on_end(self)

    def share(self) -> int | None:
        """Make the memory for large data; gives its file, None where the system has no such thing."""
        if not hasattr(os, "memfd_create"):
            return None
        handle = os.memfd_create("tidemill", os.MFD_CLOEXEC)
        try:
            os.ftruncate(handle, 2 * _AREA)
            self._memory = mmap.mmap(handle, 2 * _AREA)
        except OSError:
            os.close(handle)
            return None
        whole = memoryview(self._memory)
        self._areas = [whole[:_AREA], whole[_AREA:]]
        whole.release()
        return handle

    def area(self, number: int) -> memoryview | None:
        """One of the two areas, 1 or 2."""
        return self._areas[number - 1] if self._areas else None

    def _unshare(self) -> None:
        for area in self._areas:
            area.release()
        self._areas = []
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def send(self, data: bytes) -> None:
        """Send a frame; does nothing where the worker is gone, whose end is then told by `on_end`."""
        if self._transport is not None:
            self._transport.write(data)

    def release(self) -> None:
        """Let the worker end when it has read what was sent."""
        self.released = True
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """Close the socket whatever was not read yet."""
        if self._transport is not None:
            self._transport.abort()

    def kill(self, why: str) -> None:
        """End a worker that hangs."""
        self.killed_for = self.killed_for or why
        if self.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.cut()


class Zygote:
    """The warm process, and the orders to it. It is started anew when it dies; workers live on without it.

    Parameters
    ----------
    loop : asyncio.AbstractEventLoop
        Where messages are handled.
    ahead : optional
        What `launch` gave before there was a loop.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ahead: tuple[subprocess.Popen[bytes], socket.socket] | None = None
    ) -> None:
        self._loop = loop
        self._ahead = ahead
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._workers: dict[int, Worker] = {}
        self._by_pid: dict[int, Worker] = {}
        self._open: set[Worker] = set()
        self._pending: deque[tuple[dict[str, Any], socket.socket, int | None]] = deque()
        self._count = 0
        self._closed = False
        self._begun = 0.0
        self.restarts = -1

    @property
    def pid(self) -> int:
        """Its process id; 0 where it does not run."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it; workers may be ordered at once."""
        self._process, self._socket = self._ahead or launch()
        self._ahead = None
        self._begun = self._loop.time()
        self.restarts += 1
        self._loop.add_reader(self._socket.fileno(), self._read)

    async def order(
        self,
        job: Mapping[str, Any],
        on_frame: Callable[[Worker, int, int, int, float, bytes], None],
        on_end: Callable[[Worker], None],
    ) -> Worker:
        """Start a worker; it tells ``READY`` or ``FAILED`` as its first frame."""

        def ended(worker: Worker) -> None:
            self._open.discard(worker)
            on_end(worker)

        self._count += 1
        worker = Worker(self._count, on_frame, ended)
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (mine, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        mine.setblocking(False)
        theirs.setblocking(True)
        try:
            await self._loop.create_unix_connection(lambda: worker, sock=mine)
        except BaseException:  # the server ends just now: nobody else knows of them
            worker.release()
            _close(theirs, None)
            mine.close()
            raise
        self._open.add(worker)
        self._workers[worker.number] = worker
        order = {**job, "worker": worker.number}
        self._pending.append((order, theirs, worker.share()))
        self._flush()
        return worker

    def _flush(self) -> None:
        while self._pending and self._socket is not None:
            order, theirs, shared = self._pending[0]
            handles = [theirs.fileno(), *([] if shared is None else [shared])]
            try:
                socket.send_fds(self._socket, [json.dumps(order).encode()], handles)
            except BlockingIOError:
                self._loop.call_later(0.005, self._flush)
                return
            except OSError:
                return  # it is gone: `_read` starts another one, which takes the rest
            _close(theirs, shared)
            self._pending.popleft()

    def _read(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        told = json.loads(data)
        if "born" in told:
            worker = self._workers.pop(told["born"], None)
            if worker is not None:
                worker.pid = told["pid"]
                self._by_pid[worker.pid] = worker
                if worker.killed_for:
                    worker.kill(worker.killed_for)
        else:
            worker = self._by_pid.pop(told["dead"], None)
            if worker is not None:
                worker.status = told["status"]

    def _lost(self) -> None:
        self._drop_socket()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        # Whoever was ordered and not born will never be: its end of the socket is closed, which its owner sees.
        self._workers.clear()
        if self._closed:
            return
        if self._loop.time() - self._begun < _QUICK_S:
            self._loop.call_later(_QUICK_S, self._restart)
        else:
            self._restart()

    def _restart(self) -> None:
        if not self._closed and self._socket is None:
            self.start()
            self._flush()

    def _drop_socket(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    async def settle(self, within_s: float = 0.5) -> None:
        """Wait until the sockets of the workers are closed, which were let go; who doesn't read by then is cut off."""
        end = self._loop.time() + within_s
        while self._open and self._loop.time() < end:
            await asyncio.sleep(0.001)
        for worker in list(self._open):
            worker.cut()
        while self._open:  # an aborted socket is closed in the loop's next round
            await asyncio.sleep(0)

    def close(self) -> None:
        """End it; workers end with their own sockets."""
        self._closed = True
        self._drop_socket()
        for _, theirs, shared in self._pending:
            _close(theirs, shared)
        self._pending.clear()
        if self._process is not None:
            try:
                self._process.wait(timeout=2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _close(theirs: socket.socket, shared: int | None) -> None:
    """Close what was given to a worker."""
    theirs.close()
    if shared is not None:
        os.close(shared)
