"""What the files that start a bundle elsewhere have in common: names, sizes, the command."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill import __version__
from tidemill.bundle import manifest
from tidemill.bundle.runtime import Bundle

PORT = 8080
DRAIN_S = 45
"""Seconds that requests under way have when the server is told to end; more than the server itself takes."""
_BASE_BYTES = 256 << 20
"""What the serving process needs beside its workers."""
_MIB = 1 << 20


@dataclass(frozen=True)
class Launch:
    """How a bundle is started.

    Parameters
    ----------
    name : str
        Lower-case letters, digits and ``-``, at most 50: fits all systems.
    version : str
        Of Tidemill.
    digest : str
        First 12 digits of the bundle's hash.
    memory_mib : int
        That the server and one worker may hold: measured peak, half as much again, and the front.
    """

    name: str
    version: str
    digest: str
    memory_mib: int

    @property
    def image(self) -> str:
        """Name of the container image."""
        return f"tidemill-{self.name}:{self.digest}"


def launch_of(bundle: Bundle) -> Launch:
    """Find how a bundle is started."""
    plain = re.sub(r"[^a-z0-9]+", "-", bundle.info.name.lower()).strip("-")[:50].strip("-")
    peak = int(bundle.spec.performance.get("peak_memory_bytes", 0))
    memory = -(-(int(1.5 * peak) + _BASE_BYTES) // _MIB)
    digest = hashlib.sha256((bundle.path / manifest.NAME).read_bytes()).hexdigest()[:12]
    return Launch(plain if plain[:1].isalpha() else f"m-{plain}".strip("-"), __version__, digest, memory)


def serve_command(place: str, name: str, host: str = "0.0.0.0") -> list[str]:
    """Words that serve a bundle.

    Examples
    --------
    >>> serve_command("/bundle", "fraud")[:3]
    ['tidemill', 'serve', '/bundle']
    """
    return ["tidemill", "serve", place, "--name", name, "--host", host, "--port", str(PORT), "--public"]


def copy_bundle(bundle: Bundle, folder: Path) -> None:
    """Copy the files that the manifest names, and the manifest."""
    listed = manifest.parse((bundle.path / manifest.NAME).read_bytes())
    for name in [*listed, manifest.NAME]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle.path / name, folder / name)


def write_yaml(path: Path, *documents: Mapping[str, Any], about: str = "") -> None:
    """Write documents of YAML under a comment."""
    import yaml

    head = "".join(f"# {line}\n" for line in about.splitlines())
    body = yaml.safe_dump_all(documents, sort_keys=False, default_flow_style=False, width=120, allow_unicode=True)
    path.write_text(head + body, encoding="utf-8")
