"""Starts the warm process (`tidemill.deploy.engine.zygote`) before anything else is loaded: then both load at once."""

from __future__ import annotations

import os
import socket
import subprocess
import sys


def launch() -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start a warm process; gives it with our end of its socket. It loads onnxruntime while we do other things."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    mine.setblocking(False)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tidemill.deploy.engine.zygote", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL)
    theirs.close()
    return process, mine


def end(ahead: tuple[subprocess.Popen[bytes], socket.socket]) -> None:
    """End what `launch` gave; it has ended before, where a server has run."""
    ahead[0].kill()
    ahead[0].wait()
    ahead[1].close()
