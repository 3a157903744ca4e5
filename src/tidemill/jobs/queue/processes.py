"""Processes that are told from those that get their numbers later, and how they are ended with all their kin."""

from __future__ import annotations

import os
import secrets
import signal
import socket
from functools import lru_cache
from pathlib import Path

import psutil

from tidemill.jobs._memory import family


def host_name() -> str:
    """Name of this machine."""
    return socket.gethostname()


def mark_of(pid: int) -> str:
    """Give what tells a living process from another of the same number: the machine's start and its own.

    Returns
    -------
    str
        Empty where there is no such process, or only its remains.

    Examples
    --------
    >>> mark_of(os.getpid()) == mark_of(os.getpid()) != ""
    True
    """
    try:
        # Ticks since the machine's start are exact; times of day move with the clock.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else f"{_boot()}:{fields[19]}"
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return ""
    try:  # a system without /proc
        process = psutil.Process(pid)
        return "" if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""


@lru_cache(maxsize=1)
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()[:8]
    except OSError:
        return "boot"


def lives(pid: int | None, mark: str) -> bool:
    """Whether the very process runs that had this number and mark.

    Examples
    --------
    >>> lives(os.getpid(), mark_of(os.getpid())), lives(os.getpid(), "another"), lives(None, "")
    (True, False, False)
    """
    return pid is not None and mark != "" and mark_of(pid) == mark


def worker_id() -> str:
    """Make a name for a worker in this process: machine, process, mark, and what tells it from the next one here."""
    return f"{host_name()}|{os.getpid()}|{mark_of(os.getpid())}|{secrets.token_hex(4)}"


def worker_lives(worker: str) -> bool:
    """Whether a worker of this machine runs, by its id."""
    _, pid, mark, _ = worker.rsplit("|", 3)
    return lives(int(pid), mark)


def end_group(pid: int, mark: str, number: signal.Signals) -> bool:
    """Send a signal to a job's process, its group and, for SIGKILL, to all that descends from it.

    Returns
    -------
    bool
        False where the process has gone: nothing was sent, because its number may be another's by now.
    """
    if not lives(pid, mark):
        return False
    kin = family(pid)[1:] if number is signal.SIGKILL else []  # before they lose their parent
    kill_group(pid, number)
    for one in kin:
        kill_group(one, number)
    return True


def kill_group(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a process, and to its group where it leads one."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, number)
        except (ProcessLookupError, PermissionError):  # gone, no group of its own, or (a zombie's group) not ours
            continue
