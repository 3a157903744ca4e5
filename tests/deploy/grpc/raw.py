"""A client that writes the frames of HTTP/2 itself, and so may send a message in pieces, or never to its end."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_LONGEST = 16_384


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    return bytes((len(value),)) + value.encode()


def prefix(length: int) -> bytes:
    """What stands before a message of this length."""
    return b"\x00" + length.to_bytes(4, "big")


class Raw:
    """One connection.

    `answered` has the headers of all answers by stream, `settings` what the server asks for by number, and `room` how
    much a stream may send.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self.answered: dict[int, bytes] = {}
        self.settings: dict[int, int] = {}
        self.ended = False
        self._sent: dict[int, int] = {}
        self._given: dict[int, int] = {0: 65_535}
        self._come = b""
        no_table = (1).to_bytes(2, "big") + (0).to_bytes(4, "big")  # so that headers of answers are written out
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, no_table))
        self.until(lambda: bool(self.settings))

    def begin(self, stream: int, call: str = "ModelInfer") -> None:
        """Send the headers of a call."""
        pairs = [(":path", f"/inference.GRPCInferenceService/{call}"), (":authority", "a")]
        pairs += [("content-type", "application/grpc"), ("te", "trailers")]
        block = b"\x83\x86" + b"".join(b"\x00" + _text(n) + _text(v) for n, v in pairs)  # POST, http
        self._socket.sendall(_frame(_HEADERS, _END_HEADERS, stream, block))

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send bytes of a message, as soon as the server takes them."""
        while data:
            self.until(lambda: min(self.room(stream), self.room(0)) > 0)
            piece = data[: min(self.room(stream), self.room(0), _LONGEST)]
            data = data[len(piece) :]
            for one in (0, stream):
                self._sent[one] = self._sent.get(one, 0) + len(piece)
            self._socket.sendall(_frame(_DATA, 0, stream, piece))
        if end:
            self._socket.sendall(_frame(_DATA, _END_STREAM, stream))

    def room(self, stream: int) -> int:
        """Bytes that may be sent on a stream now; of 0 on the connection."""
        first = self.settings.get(4, 65_535) if stream else 0
        return first + self._given.get(stream, 0) - self._sent.get(stream, 0)

    def sent(self, stream: int) -> int:
        """Bytes that were sent on a stream."""
        return self._sent.get(stream, 0)

    def take_back(self, stream: int) -> None:
        """End a call as one whose answer nobody wants."""
        self._socket.sendall(_frame(_RST_STREAM, 0, stream, (8).to_bytes(4, "big")))

    def until(self, law: Callable[[], bool], seconds: float = 60) -> None:
        """Read until something holds."""
        end = time.monotonic() + seconds
        while not law():
            assert time.monotonic() < end
            assert not self.ended
            self.read(0.05)

    def read(self, seconds: float) -> None:
        """Read what comes within a time."""
        self._socket.settimeout(seconds)
        try:
            got = self._socket.recv(1 << 16)
        except TimeoutError:
            return
        except ConnectionError:
            got = b""
        finally:
            self._socket.settimeout(60)
        self.ended = not got
        self._come += got
        while len(self._come) >= 9 and len(self._come) >= (size := 9 + int.from_bytes(self._come[:3], "big")):
            head, payload = self._come[:9], self._come[9:size]
            self._come = self._come[size:]
            self._look(head[3], head[4], int.from_bytes(head[5:], "big"), payload)

    def _look(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            self.answered[stream] = self.answered.get(stream, b"") + payload
        elif kind == _WINDOW_UPDATE:
            self._given[stream] = self._given.get(stream, 0) + int.from_bytes(payload, "big")
        elif kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(payload), 6):
                number, value = payload[at : at + 2], payload[at + 2 : at + 6]
                self.settings[int.from_bytes(number, "big")] = int.from_bytes(value, "big")
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, payload))

    def status(self, stream: int) -> int | None:
        """Status of an answer, once it is there."""
        _, found, after = self.answered.get(stream, b"").partition(b"grpc-status")
        return int(after[1 : 1 + after[0]]) if found else None

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
