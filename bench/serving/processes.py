"""Servers under test: started, waited for, and their whole process tree measured from outside."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class ServerUnderTest:
    """A server's process tree.

    Parameters
    ----------
    command : sequence of str
        What starts it.
    port : int
        Where it listens.
    ready : str
        Path that answers 200 when it is ready.
    environment : mapping, optional
        Added to ours.
    """

    command: Sequence[str]
    port: int
    ready: str
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    _gone_s: float = 0.0
    _seen: dict[int, float] = field(default_factory=dict)

    def __enter__(self) -> ServerUnderTest:
        begin = time.perf_counter()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.environment}
        self.process = subprocess.Popen(
            list(self.command), env=environment, cwd=self.folder, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while time.perf_counter() - begin < 120:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.command[0]} ended with {self.process.returncode}")
            if self._answers():
                self.started_s = time.perf_counter() - begin
                return self
            time.sleep(0.02)
        self.__exit__()
        raise RuntimeError(f"{self.command[0]} was not ready within 120 s")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.ready}", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def __exit__(self, *_: Any) -> None:
        assert self.process is not None
        family = self.family()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for one in family:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue

    def family(self) -> list[psutil.Process]:
        """The server and all that came of it."""
        assert self.process is not None
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def cpu_s(self) -> float:
        """User and system time of the tree, dead members included as far as they were seen."""
        for one in self.family():
            try:
                times = one.cpu_times()
                self._seen[one.pid] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return sum(self._seen.values())

    def memory_mb(self) -> float:
        """Memory of the tree, shared pages in equal parts."""
        total = 0
        for one in self.family():
            try:
                text = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
        return total / 1024
