"""A shell script that starts a program with torchrun."""

from __future__ import annotations

from tidemill.jobs.emit.launch import PORT, Launch, remarks


def write(launch: Launch) -> str:
    """Write a script; on several machines it is started on each, with ``HEAD`` set to the address of one of them."""
    words = launch.torchrun(nodes=str(launch.nodes), meet=f'"$HEAD:{PORT}"', identity=launch.name)
    lines = ["#!/usr/bin/env bash", *(f"# {line}" for line in remarks("torchrun, PyTorch 2")), "set -euo pipefail"]
    if launch.nodes > 1:
        lines.append(': "${HEAD:?set it to the address of one of the nodes, the same on all}"')
    return "\n".join([*lines, f"exec {' '.join(words)} {launch.quoted}"]) + "\n"
