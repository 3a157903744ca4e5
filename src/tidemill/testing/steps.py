"""Functions for steps: well-behaved, failing, greedy and dying ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.core.errors import OptionError


def echo(value: Any = None) -> Any:
    """Return the argument."""
    return value


def pause(seconds: float, value: Any = None) -> Any:
    """Sleep, then return."""
    time.sleep(seconds)
    return value


def spin(seconds: float) -> None:
    """Compute for so many seconds."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def fail(message: str) -> None:
    """Raise an ordinary error."""
    raise ValueError(message)


def fail_kindly() -> None:
    """Raise one of our own errors, with all its parts."""
    raise OptionError("It is too low.", hint="Raise it.", where="--low")


def fail_strangely() -> None:
    """Raise an error that can't be pickled."""

    class LocalError(Exception):
        pass

    raise LocalError("only here")


def fail_two_armed() -> None:
    """Raise an error that pickles but can't be rebuilt."""
    raise TwoArmedError("left", "right")


class TwoArmedError(Exception):
    """Wants two arguments and passes one on."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__(left + right)


def leave(code: int) -> None:
    """Try to leave the process the polite way."""
    sys.exit(code)


def exhaust() -> None:
    """Run out of memory as Python reports it."""
    raise MemoryError("cannot allocate 1 TB")


def lock() -> Any:
    """Return what can't be pickled."""
    return threading.Lock()


def numbers(count: int) -> NDArray[np.float64]:
    """Return an array."""
    return np.arange(count, dtype=np.float64)


def die(signal_number: int) -> None:
    """Be killed by a signal."""
    os.kill(os.getpid(), signal_number)
    time.sleep(60)


def crash(code: int) -> None:
    """Leave the process the impolite way, as a crashing library does."""
    os._exit(code)


def hold(until: str, told: str = "", seconds: float = 120.0) -> None:
    """Wait until a file is there, at most so long; make another file once it waits."""
    if told:
        Path(told).touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not Path(until).exists():
        time.sleep(0.05)


def hog(size_bytes: int, seconds: float = 60.0, until: str = "", told: str = "") -> int:
    """Hold memory for so long, or less: until a file is there; make another file once it is held."""
    held = np.ones(size_bytes, dtype=np.uint8)
    if told:
        Path(told).touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (until and Path(until).exists()):
        time.sleep(min(0.1, seconds))
    return int(held.size)


def hog_in_a_child(size_bytes: int) -> None:
    """Hold memory in a child of the step's process."""
    program = f"a = b'1' * {size_bytes}; import time; time.sleep(60)"
    subprocess.run([sys.executable, "-c", program], check=True)


def read_mapped(path: str) -> float:
    """Sum a mapped array."""
    return float(np.load(path, mmap_mode="r").sum())


def start_child(path: str, *, wait: bool, session: bool = False) -> None:
    """Start a process, write its id to a file, and wait for it or leave it behind."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=session)
    Path(path).write_text(f"{os.getpid()} {child.pid}", encoding="ascii")
    if wait:
        child.wait()
    else:
        time.sleep(0.2)  # long enough to be seen
        child.returncode = 0  # no warning about the child that is left behind


def babble(lines: int, then: str) -> None:
    """Print, then fail or not."""
    for i in range(lines):
        print(f"line {i}")  # noqa: T201  printing is what is tested
    print("last words", file=sys.stderr, flush=True)  # noqa: T201
    if then == "fail":
        raise ValueError("after much talk")
    if then == "crash":
        sys.stdout.flush()
        os._exit(9)


def identify() -> tuple[int, int]:
    """Return ids of process and group."""
    return os.getpid(), os.getpgid(0)


def environment(name: str) -> str | None:
    """Return a variable of the environment."""
    return os.environ.get(name)


def begin_again(path: str, times: int = 1) -> int:
    """Add the process's id to a file and wait to be killed; after so many times, return how often it began."""
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")
    begun = len(Path(path).read_text(encoding="ascii").split())
    if begun <= times:
        time.sleep(300)
    return begun


def read_places(text: str, paths: list[str]) -> tuple[str, list[str], list[bytes]]:
    """Return the text, the paths, and the content of the files there; of a folder, of all its files by name."""
    found = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        found.append(b"|".join(p.read_bytes() for p in inside))
    return text, paths, found
