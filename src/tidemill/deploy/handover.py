"""Listening sockets that a service manager hands over (systemd's socket activation)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

FIRST_FD = 3
"""Number of the first file that is handed over."""


def handed_over(environment: Mapping[str, str] | None = None) -> list[int]:
    """File numbers of the sockets that were handed to this process; empty where there are none.

    Parameters
    ----------
    environment : mapping, optional
        In place of this process's own.

    Examples
    --------
    >>> handed_over({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2"})
    [3, 4]
    >>> handed_over({"LISTEN_PID": "1", "LISTEN_FDS": "2"})
    []
    """
    told = os.environ if environment is None else environment
    count = told.get("LISTEN_FDS", "")
    if told.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return []
    return list(range(FIRST_FD, FIRST_FD + int(count)))


def listening() -> list[socket.socket] | None:
    """The sockets themselves; None where none were handed over."""
    return [socket.socket(fileno=fd) for fd in handed_over()] or None
