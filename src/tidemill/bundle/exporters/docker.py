"""A container: Dockerfile, compose file, and the bundle beside them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.bundle.exporters._launch import DRAIN_S, PORT, Launch, copy_bundle, launch_of, serve_command, write_yaml
from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.runtime import Bundle

_PROBE = (
    "import sys, urllib.request as u; "
    f"sys.exit(u.urlopen('http://127.0.0.1:{PORT}/v2/health/ready', timeout=3).status != 200)"
)


@dataclass(frozen=True)
class Container:
    """Writes what ``docker build`` and ``docker compose up`` need."""

    description: str = "a Dockerfile and a compose file"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write the folder."""
        launch = launch_of(bundle)
        with atomic_folder(out) as folder:
            copy_bundle(bundle, folder / "bundle")
            (folder / "Dockerfile").write_text(dockerfile(launch), encoding="utf-8")
            (folder / ".dockerignore").write_text("*\n!bundle\n", encoding="utf-8")
            about = "docker compose up --build; then http://127.0.0.1:8080/"
            write_yaml(folder / "compose.yaml", compose(launch), about=about)
        return out


def dockerfile(launch: Launch) -> str:
    """Text of the Dockerfile: no compiler, no root, nothing written."""
    command = json.dumps(serve_command("/bundle", launch.name))
    return (
        f"# {launch.name}, bundle {launch.digest}\n"
        "FROM python:3.12-slim\n"
        f'RUN pip install --no-cache-dir "tidemill=={launch.version}" \\\n'
        "    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin tidemill\n"
        "COPY --chown=root:root bundle /bundle\n"
        "USER 10001\n"
        "ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1\n"
        f"EXPOSE {PORT}\n"
        "STOPSIGNAL SIGTERM\n"
        "HEALTHCHECK --interval=10s --timeout=5s --start-period=30s "
        f"CMD {json.dumps(['python', '-c', _PROBE])}\n"
        f"ENTRYPOINT {command}\n"
    )


def compose(launch: Launch) -> dict[str, Any]:
    """The compose file as plain values: reachable from this machine alone until somebody changes that."""
    service = {
        "build": ".",
        "image": launch.image,
        "ports": [f"127.0.0.1:{PORT}:{PORT}"],
        "restart": "unless-stopped",
        "read_only": True,
        "tmpfs": ["/tmp"],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": f"{launch.memory_mib}m",
        "pids_limit": 512,
        "stop_grace_period": f"{DRAIN_S}s",
    }
    return {"services": {launch.name: service}}


EXPORTER = Container()
