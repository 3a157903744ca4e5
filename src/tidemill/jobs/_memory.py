"""How much memory a process and its descendants hold for themselves.

What counts is anonymous and shared memory, with swap. Files that are mapped (arrays by path) don't count, because
the kernel takes their pages back at need; pages that a forked child still shares with its siblings count in part.
"""

from __future__ import annotations

from pathlib import Path

_CHEAP = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_EXACT = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")


def family(pid: int) -> list[int]:
    """Give a process and its living descendants.

    Examples
    --------
    >>> import os
    >>> os.getpid() in family(os.getpid())
    True
    """
    found = [pid]
    for one in found:  # grows while it is walked
        found.extend(children(one))
    return found


def children(pid: int) -> list[int]:
    """Give the children of a process; none where it is gone."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found.extend(int(child) for child in (task / "children").read_bytes().split())
    except (FileNotFoundError, ProcessLookupError):  # ended while we looked
        pass
    return found


def held_at_most(pids: list[int]) -> int:
    """Bytes that processes hold, counting shared pages fully: an upper bound that costs microseconds."""
    return sum(_sum(f"/proc/{pid}/status", _CHEAP) for pid in pids)


def held(pids: list[int]) -> int:
    """Bytes that processes hold, shared pages in equal parts; costs some milliseconds for each gigabyte."""
    return sum(_sum(f"/proc/{pid}/smaps_rollup", _EXACT) for pid in pids)


def _sum(path: str, fields: tuple[bytes, ...]) -> int:
    try:
        with open(path, "rb") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, ProcessLookupError):  # ended while we looked
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(fields))
