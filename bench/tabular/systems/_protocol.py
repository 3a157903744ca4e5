"""What every system's script shares: arguments in, answers and timings out. Needs numpy and pandas only."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    """Read the common arguments."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--time", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--variant", default="")
    given = parser.parse_args()
    given.meta = json.loads((given.folder / "meta.json").read_text())
    return given


def timed(call: Callable[[], Any], *, at_least_s: float = 1.0, at_most: int = 200) -> float:
    """Median seconds of a warm call."""
    call()
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < at_most and (time.perf_counter() - begin < at_least_s or len(seconds) < 3):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[len(seconds) // 2]


def folder_bytes(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(os.path.getsize(Path(root) / f) for root, _, files in os.walk(path) for f in files)


def write(out: Path, **facts: Any) -> None:
    """Leave the facts where the conductor reads them."""
    (out / "facts.json").write_text(json.dumps(facts, default=float))
