"""Answers that are kept for callers that try again with the same key, so that a retry is not a second request."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from tidemill.deploy.engine.refusal import Refusal


class Receiver(Protocol):
    """Who gets an answer."""

    def send(self, out: bytes) -> None:
        """Take a whole HTTP response."""


class Entry:
    """One key: the answer, or who waits for it."""

    __slots__ = ("_kept", "at", "digest", "key", "out", "waiting")

    def __init__(self, kept: Kept, key: Any, digest: bytes, at: float) -> None:
        self._kept = kept
        self.key = key
        self.digest = digest
        self.at = at
        self.out: bytes | None = None
        self.waiting: list[Receiver] = []

    def answered(self, out: bytes, status: int) -> None:
        """The first request was answered: so are those that wait. What may go better next time is not kept."""
        self.out = out
        self._kept.settle(self, keep=status < 429 or status == 500)
        for receiver in self.waiting:
            receiver.send(out)
        self.waiting.clear()


class Kept:
    """Answers by key, for some time and up to some size; the oldest go first.

    Parameters
    ----------
    seconds : float
        How long.
    most_bytes : int
        How much.
    clock : callable
        Seconds, monotonic.
    """

    def __init__(self, seconds: float, most_bytes: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._clock = clock
        self._entries: OrderedDict[Any, Entry] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def begin(self, key: Any, body: bytes, receiver: Receiver) -> Entry | None:
        """Register a request; None where the receiver gets the answer of an earlier one with the same key.

        Raises
        ------
        Refusal
            422 where the earlier one had another body.
        """
        now = self._clock()
        while self._entries and next(iter(self._entries.values())).at < now - self._seconds:
            self._forget(next(iter(self._entries)))
        digest = hashlib.blake2b(body, digest_size=16).digest()
        found = self._entries.get(key)
        if found is None:
            entry = self._entries[key] = Entry(self, key, digest, now)
            return entry
        if found.digest != digest:
            raise Refusal(422, "key_reused", "This idempotency key came with another body before.")
        if found.out is None:
            found.waiting.append(receiver)
        else:
            receiver.send(found.out)
        return None

    def settle(self, entry: Entry, *, keep: bool) -> None:
        """Count an answer, or forget its key."""
        if not keep or self._entries.get(entry.key) is not entry:
            if self._entries.get(entry.key) is entry:
                del self._entries[entry.key]
            return
        self._bytes += len(entry.out or b"")
        while self._bytes > self._most_bytes and len(self._entries) > 1:
            self._forget(next(iter(self._entries)))

    def _forget(self, key: Any) -> None:
        entry = self._entries.pop(key)
        if entry.out is not None:
            self._bytes -= len(entry.out)
