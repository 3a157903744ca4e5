"""Messages between a process executor and its host: pickles on a private socket pair, large ones by memory file.

Both ends are the same program run by the same person, and nobody else can reach the socket; this is no trust boundary.
"""

from __future__ import annotations

import os
import pickle
import socket
from collections import deque
from dataclasses import dataclass

_INLINE_BYTES = 2**16  # what fits into one packet of a socket with its default buffers
_PACKET_BYTES = 2**18


@dataclass(frozen=True)
class Run:
    """To the host: run this when a slot is free."""

    ticket: int
    name: str
    time_s: float | None
    memory_bytes: int | None
    threads: int


@dataclass(frozen=True)
class Cancel:
    """To the host: forget or end this; no `Ended` need follow."""

    ticket: int


@dataclass(frozen=True)
class Ready:
    """From the host: all modules are loaded, a step would start at once."""


@dataclass(frozen=True)
class Ended:
    """From the host: a step's process is gone.

    ``killed`` says which limit the host enforced (``"time"``, ``"memory"``, ``"shared"``), with ``used`` in its unit.
    Without it, ``status`` is as ``os.waitstatus_to_exitcode`` gives it: negative for a signal.
    """

    ticket: int
    status: int
    killed: str | None
    used: float
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    output: str


Message = Run | Cancel | Ready | Ended


class Channel:
    """One end of the private socket pair. Sending never blocks: what doesn't fit now goes with the next `flush`."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.socket = end
        self._outbox: deque[tuple[bytes, int | None]] = deque()

    @property
    def waiting(self) -> bool:
        """True while something is left to flush."""
        return bool(self._outbox)

    def send(self, message: Message, body: bytes | int = b"") -> None:
        """Queue a message with a body, given as bytes or as a memory file (whose descriptor is taken over)."""
        if isinstance(body, int) and os.fstat(body).st_size <= _INLINE_BYTES:
            inline = read_memory_file(body)
        elif isinstance(body, int):
            self._outbox.append((pickle.dumps((message, None)), body))
            return
        elif len(body) > _INLINE_BYTES:
            self._outbox.append((pickle.dumps((message, None)), memory_file(body)))
            return
        else:
            inline = body
        self._outbox.append((pickle.dumps((message, inline)), None))

    def flush(self) -> None:
        """Send what can be sent without blocking; raises ``BrokenPipeError`` where the other end is gone."""
        while self._outbox:
            data, handle = self._outbox[0]
            try:
                socket.send_fds(self.socket, [data], [] if handle is None else [handle])
            except BlockingIOError:
                return
            self._outbox.popleft()
            if handle is not None:
                os.close(handle)

    def receive(self) -> tuple[Message, bytes] | None:
        """Take the next message and its body; None where none has come. Raises ``EOFError`` at the end."""
        try:
            data, handles, _, _ = socket.recv_fds(self.socket, _PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return None
        except ConnectionResetError as error:
            raise EOFError from error
        if not data:
            raise EOFError
        message, inline = pickle.loads(data)  # noqa: S301  from our own other end
        return message, inline if inline is not None else read_memory_file(handles[0])

    def close(self) -> None:
        """Close this end and what was never sent."""
        self.socket.close()
        for _, handle in self._outbox:
            if handle is not None:
                os.close(handle)
        self._outbox.clear()


def memory_file(data: bytes = b"") -> int:
    """Make an anonymous file in memory and return its descriptor."""
    handle = os.memfd_create("tidemill")
    with os.fdopen(handle, "wb", closefd=False) as file:
        file.write(data)
    return handle


def read_memory_file(handle: int) -> bytes:
    """Read a memory file whole and close it."""
    with os.fdopen(handle, "rb") as file:
        file.seek(0)
        return file.read()
