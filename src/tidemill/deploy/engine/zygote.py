"""The warm process that workers are forked from: onnxruntime and numpy are loaded once, a model starts in milliseconds.

It is a program of its own (``main``), started by a front. It has one thread of ours, computes a single number when it
begins, and ends when the socket to its front closes. Each order comes with the worker's end of a socket pair; what
it tells back are process ids.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from tidemill.bundle import golden as _golden  # noqa: F401  loaded here, so that no worker loads it
from tidemill.core.errors import TidemillError
from tidemill.deploy.engine import golden, worker  # noqa: F401  as above
from tidemill.deploy.engine.encoders import base as encoders

_ORDER_BYTES = 1 << 16
_SMALLEST = (
    b"\x08\x08\x3a\x33\x0a\x0c\x0a\x01x\x12\x01y\x22\x04Relu\x12\x01g"
    b"\x5a\x0f\x0a\x01x\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
    b"\x62\x0f\x0a\x01y\x12\x0a\x0a\x08\x08\x01\x12\x04\x0a\x02\x08\x01"
    b"\x42\x02\x10\x0d"
)
"""An ONNX file with one operator on one number."""


def main(arguments: Sequence[str]) -> None:
    """Run a zygote; the argument is the descriptor of the socket to the front."""
    orders = socket.socket(fileno=int(arguments[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm()
    # Pages that no one writes stay shared: keep the collector from marking what was loaded.
    gc.disable()
    gc.collect()
    gc.freeze()
    alarm, bell = socket.socketpair()
    alarm.setblocking(False)
    bell.setblocking(False)
    signal.set_wakeup_fd(bell.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # any handler: it makes the wake-up byte come
    try:
        while True:
            readable, _, _ = select.select([orders, alarm], [], [])
            if alarm in readable:
                alarm.recv(4096)
                _reap(orders)
            if orders in readable and not _take(orders, [alarm, bell]):
                return
    except (BrokenPipeError, ConnectionError):
        return
    finally:
        signal.set_wakeup_fd(-1)


def warm() -> None:
    """Load a model and run it: onnxruntime makes its registry of operators with the first one, and workers inherit it.

    No thread is left behind, which a fork would lose.
    """
    session = worker.open_session(_SMALLEST)
    session.run(None, {"x": np.zeros(1, np.float32)})


def _take(orders: socket.socket, mine: list[socket.socket]) -> bool:
    data, handles, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 2)
    if not data:
        return False
    order = json.loads(data)
    _prepare(order)
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        worker.reset_signals()
        orders.close()
        for one in mine:
            one.close()
        gc.enable()
        worker.live(socket.socket(fileno=handles[0]), order, handles[1] if len(handles) > 1 else None)
    for handle in handles:
        os.close(handle)
    orders.send(json.dumps({"born": order["worker"], "pid": pid}).encode())
    return True


_prepared: set[str] = set()
"""Encoders whose packages are loaded."""


def _prepare(order: dict[str, Any]) -> None:
    """Load what the worker's encoder needs before the first one is forked: the others then start as quickly as any."""
    name = str(order["encoding"]["name"]) if "encoding" in order else ""
    if not name or name in _prepared:
        return
    _prepared.add(name)
    with contextlib.suppress(ImportError, TidemillError):  # the worker itself tells what is wrong
        encoders.warm(name)
    gc.freeze()


def _reap(orders: socket.socket) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        told: dict[str, Any] = {"dead": pid, "status": os.waitstatus_to_exitcode(status)}
        orders.send(json.dumps(told).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)
