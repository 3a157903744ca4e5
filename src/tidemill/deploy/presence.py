"""Which platforms serve a workspace just now: a small record that each keeps fresh."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from tidemill.core.protocols import RecordStore

PLATFORM = "platform"
"""Kind of the records."""

BEAT_S = 2.0
"""How often a platform says that it lives."""
_LOST_S = 5 * BEAT_S


def platform_key() -> str:
    """Key of this process's record.

    Examples
    --------
    >>> platform_key().endswith(f":{os.getpid()}")
    True
    """
    return f"{socket.gethostname()}:{os.getpid()}"


def beat(records: RecordStore, facts: Mapping[str, Any]) -> None:
    """Say that this process lives, and where it listens."""
    records.put(PLATFORM, platform_key(), dict(facts))


def end(records: RecordStore) -> None:
    """Say that this process has ended."""
    records.delete(PLATFORM, platform_key())


def living(records: RecordStore, now: float | None = None) -> list[dict[str, Any]]:
    """Facts of the platforms that were alive a moment ago; empty where none serves the workspace."""
    now = time.time() if now is None else now
    # A beat from the future is of a clock that was set back since; whoever lives has beaten again.
    return [dict(r.body) for r in records.find(PLATFORM) if abs(r.updated_at - now) < _LOST_S]
