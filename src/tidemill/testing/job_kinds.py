"""Jobs for tests: well-behaved, failing, deaf and dying ones."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tidemill.core.errors import OptionError
from tidemill.jobs.queue.context import JobContext
from tidemill.jobs.queue.kinds import Argument, Kind, Kinds

_ANY = {name: Argument(kind, "For tests.") for name, kind in (("value", "object"), ("path", "path"))}
_SECONDS = {"seconds": Argument("number", "How long.")}


def kinds() -> Kinds:
    """Every function below as a kind."""
    functions = (answer, nap, steps, deaf, fail, fail_kindly, fail_until, die, leave_a_child, know, unplain)
    arguments = {**_ANY, **_SECONDS, "times": Argument("integer", "How often."), "words": Argument("string", "What.")}
    return Kinds([Kind(f.__name__, f"{__name__}:{f.__name__}", "For tests.", arguments) for f in functions])


def answer(context: JobContext, *, value: Any = None, words: str = "") -> Any:
    """Print, then return the argument."""
    if words:
        sys.stdout.write(words + "\n")
    return value


def nap(context: JobContext, *, seconds: float, path: str | None = None) -> dict[str, float]:
    """Sleep in small steps, and stop between two of them; a file holds the process's number meanwhile."""
    if path is not None:
        _put(Path(path), str(os.getpid()))
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        context.stop_here()
        time.sleep(0.02)
    return {"slept": time.monotonic() - begun}


def steps(context: JobContext, *, times: int, path: str, seconds: float = 0.0) -> dict[str, int]:
    """Count to a number, keep each count, go on from the last; the file gets a line for every count."""
    kept = context.checkpoint / "count"
    done = int(kept.read_text()) if kept.exists() else 0
    for count in range(done + 1, times + 1):
        context.stop_here()
        time.sleep(seconds)
        with Path(path).open("a", encoding="ascii") as file:
            file.write(f"{context.attempt} {count} {os.getpid()}\n")
        _put(kept, str(count))
        context.progress(count / times, f"count {count}")
    return {"count": times}


def deaf(context: JobContext, *, seconds: float, path: str) -> None:
    """Sleep, whatever anybody asks, with SIGTERM ignored; and with a child."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end = time.monotonic() + seconds
    with subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})"]) as child:
        _put(Path(path), f"{os.getpid()} {child.pid}")
        while time.monotonic() < end:
            time.sleep(0.05)


def fail(context: JobContext) -> None:
    """Raise an ordinary error."""
    raise ValueError("it went wrong")


def fail_kindly(context: JobContext) -> None:
    """Raise an error that another attempt would only raise again."""
    raise OptionError("It is too low.", hint="Raise it.")


def fail_until(context: JobContext, *, times: int) -> int:
    """Fail so many times, then give the number of the attempt."""
    if context.attempt <= times:
        raise RuntimeError(f"attempt {context.attempt} fails")
    return context.attempt


def die(context: JobContext, *, times: int = 100) -> int:
    """Kill the own process so many times, then give the number of the attempt."""
    if context.attempt <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return context.attempt


def leave_a_child(context: JobContext, *, path: str) -> None:
    """Start a process and end without it."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    _put(Path(path), str(child.pid))


def know(context: JobContext) -> dict[str, Any]:
    """Tell what the job knows, and what its process was given."""
    return {
        "job": context.job,
        "attempt": context.attempt,
        "owner": context.owner,
        "cpus": context.cpus,
        "devices": list(context.devices),
        "limited": context.deadline < float("inf"),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "checkpoint": context.checkpoint.is_dir(),
    }


def unplain(context: JobContext) -> object:
    """Return what is no JSON."""
    return object()


def _put(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="ascii")
    temporary.replace(path)
