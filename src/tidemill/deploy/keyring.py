"""What a serving process asks about every request: may this key do this, now? Answered from memory in microseconds.

The keys and what they have used are read anew in a thread about once a second, so that a revoked key ends everywhere
within that time, whatever the database does. A quota is counted in records, one for each front, written by the same
thread: a front that is killed forgets about a second of its counts.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from tidemill.core.errors import TidemillError
from tidemill.core.protocols import Change, RecordStore
from tidemill.deploy.keys import KEY, PERIODS, USAGE, AccessError, Key, find_key, period_number

REFRESH_S = 0.5
"""How often keys and counts are read and written."""


class KeyRing:
    """Checks keys; ``authorise`` is what a front takes.

    Parameters
    ----------
    records : RecordStore
        Of the workspace.
    fronts : int
        Processes that share the traffic: each lets through its part of a key's rate.
    clock : callable
        Gives the time in seconds since 1970.
    steady : callable, optional
        Gives seconds on a clock that nobody sets, for rates; default the machine's, or ``clock`` where it is given.
    """

    def __init__(
        self,
        records: RecordStore,
        *,
        fronts: int = 1,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] | None = None,
    ) -> None:
        self._records = records
        self._share = 1 / max(1, fronts)
        self._clock = clock
        self._steady = steady or (time.monotonic if clock is time.time else clock)
        self._front = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._keys: Mapping[str, Key] = {}
        self._version = -1
        self._buckets: dict[str, tuple[float, float]] = {}
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._written: dict[str, int] = {}
        self._elsewhere: Mapping[str, int] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.refresh()

    def start(self) -> KeyRing:
        """Begin to follow the records."""
        self._thread = threading.Thread(target=self._follow, name="keyring", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """Write the last counts, and stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)
        self.refresh()

    def authorise(self, token: str | None, scope: str, endpoint: str) -> None:
        """Let a request through, or raise.

        Parameters
        ----------
        token : str or None
            What the caller sent.
        scope : str
            What the request is for; see `tidemill.deploy.keys.SCOPES`.
        endpoint : str
            Which endpoint it is for; empty for none.

        Raises
        ------
        AccessError
            401, 403 or 429, with the seconds after which it may be tried again.
        """
        self.identify(token, scope, endpoint)

    def identify(self, token: str | None, scope: str, endpoint: str) -> Key:
        """Do as `authorise` does, and give the key."""
        now = self._clock()
        key = find_key(self._keys, token)
        key.check(scope, endpoint, now)
        with self._lock:
            if key.rate:
                self._take(key, self._steady())
            if key.quota:
                self._count(key, now)
        return key

    def refresh(self) -> None:
        """Read keys and counts, write our own counts."""
        number = self._records.change_number(KEY)
        if number != self._version:
            self._keys = {r.key: Key.from_json(r.body) for r in self._records.find(KEY)}
            self._version = number
        self._exchange_counts()

    def _take(self, key: Key, now: float) -> None:
        """Take one token from the bucket; it fills with the key's rate up to its burst."""
        most = max(1.0, key.burst * self._share)
        level, at = self._buckets.get(key.id, (most, now))
        level = min(most, level + max(0.0, now - at) * key.rate * self._share)
        if level < 1:
            self._buckets[key.id] = (level, now)
            wait = (1 - level) / (key.rate * self._share)
            raise AccessError(
                429, f"The API key {key.id} may make {key.rate:g} requests per second.", retry_after_s=round(wait, 3)
            )
        self._buckets[key.id] = (level - 1, now)

    def _count(self, key: Key, now: float) -> None:
        number = period_number(key.period, now)
        mark = f"{key.id}/{number}"
        if self._elsewhere.get(mark, 0) + self._counts[mark] >= key.quota:
            left = (number + 1) * PERIODS[key.period] - now
            raise AccessError(
                429,
                f"The API key {key.id} has used its {key.quota:,} requests of this {key.period}.",
                retry_after_s=round(left, 3),
            )
        self._counts[mark] += 1

    def _exchange_counts(self) -> None:
        now = self._clock()
        with self._lock:
            mine = dict(self._counts)
        changed = {m: c for m, c in mine.items() if self._written.get(m) != c}
        if changed:
            self._records.put_all([Change(USAGE, f"{m}/{self._front}", {"count": c}) for m, c in changed.items()])
            self._written.update(changed)
        self._elsewhere = self._read_counts(now)
        with self._lock:
            for mark in [m for m in self._counts if self._is_over(m, now)]:
                del self._counts[mark]
                self._written.pop(mark, None)

    def _read_counts(self, now: float) -> dict[str, int]:
        """What the other fronts counted in the running periods; counts of periods that are over are removed."""
        elsewhere: dict[str, int] = {}
        for key in self._keys.values():
            if not key.quota or key.revoked_at:
                continue
            mark = f"{key.id}/{period_number(key.period, now)}"
            for record in self._records.find(USAGE, f"{key.id}/"):
                if record.key.startswith(f"{mark}/"):
                    ours = record.key == f"{mark}/{self._front}"
                    elsewhere[mark] = elsewhere.get(mark, 0) + (0 if ours else int(record.body["count"]))
                elif self._is_over(record.key, now):
                    self._records.delete(USAGE, record.key)
        return elsewhere

    def _is_over(self, mark: str, now: float) -> bool:
        """Whether the period of a count ended a whole period ago: clocks of fronts may differ a little."""
        ident, number = mark.split("/")[:2]
        key = self._keys.get(ident)
        return key is None or int(number) < period_number(key.period, now) - 1

    def _follow(self) -> None:
        while not self._stop.wait(REFRESH_S):
            try:
                self.refresh()
            except TidemillError:  # without its database a front goes on with the keys that it knows
                continue
