"""The batch curve of a model on this machine: measured once, kept, and used again by the next process.

A workspace keeps it beside the bundle. `tidemill serve` has none, and keeps it in a folder of the user's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

FORMAT = 1


@dataclass(frozen=True)
class Curve:
    """What was measured.

    Parameters
    ----------
    points : tuple of (int, float)
        Milliseconds by batch size.
    memory_bytes : int
        What the worker held.
    """

    points: tuple[tuple[int, float], ...]
    memory_bytes: int


@lru_cache(maxsize=4)
def machine_key(provider: str) -> str:
    """Name what a curve holds for: the processor, the version of onnxruntime, and the execution provider.

    Examples
    --------
    >>> machine_key("cpu").endswith("cpu")
    True
    """
    version = "?"
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version(name)
            break
    return f"{_processor()}, onnxruntime {version}, {provider}"


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def user_folder(environment: Mapping[str, str] | None = None) -> Path | None:
    """Folder of this user for curves, which nobody else may write to; None where there can't be one.

    Parameters
    ----------
    environment : mapping, optional
        In place of this process's own; ``XDG_CACHE_HOME`` says where caches are, default ``~/.cache``.
    """
    told = os.environ if environment is None else environment
    given = told.get("XDG_CACHE_HOME", "")
    try:
        root = Path(given) if given.startswith("/") else Path.home() / ".cache"
        folder = root / "tidemill" / "curves"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.stat()
    except (OSError, RuntimeError):  # no home, or a disk that may not be written to
        return None
    mine = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
    return folder if mine and not facts.st_mode & 0o022 else None


def read(path: Path, key: str) -> Curve | None:
    """Read the curve for a machine; None where there is none, or none that can be read: it is then measured again."""
    try:
        held = _load(path)[key]
        points = tuple((int(batch), float(ms)) for batch, ms in held["points"])
        memory = int(held["memory_bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    good = points and memory >= 0 and all(batch > 0 and ms > 0 for batch, ms in points)
    return Curve(points, memory) if good else None


def write(path: Path, key: str, curve: Curve) -> None:
    """Keep a curve beside those of other machines. A file that can't be read is begun anew.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    try:
        curves = _load(path)
    except (OSError, ValueError, KeyError, TypeError):
        curves = {}
    curves[key] = {"points": [list(p) for p in curve.points], "memory_bytes": curve.memory_bytes}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"format": FORMAT, "curves": curves}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _load(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_bytes())
    if document["format"] != FORMAT or not isinstance(document["curves"], dict):
        raise ValueError("another format")
    return dict(document["curves"])
