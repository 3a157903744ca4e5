"""A task for SkyPilot."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import OptionError
from tidemill.jobs.emit.launch import PORT, Launch, remarks


def write(launch: Launch) -> str:
    """Write a task; the folder in which it is launched goes along.

    Raises
    ------
    OptionError
        For devices without the name of their kind, and for a time limit, which a task can't have.
    """
    import yaml

    if launch.devices and not launch.accelerator:
        raise OptionError("SkyPilot asks which accelerator: name it, for example H100.", where="--accelerator")
    if launch.time_s is not None:
        raise OptionError("A task of SkyPilot has no time limit.", where="--time", hint="Leave it out.")
    task: dict[str, Any] = {"name": launch.name, "workdir": ".", "num_nodes": launch.nodes}
    resources: dict[str, Any] = {}
    if launch.devices:
        resources["accelerators"] = f"{launch.accelerator}:{launch.devices}"
    if launch.cpus:
        resources["cpus"] = f"{launch.cpus}+"
    if launch.memory_bytes:
        resources["memory"] = f"{-(-launch.memory_bytes // 10**9)}+"
    if launch.image:
        resources["image_id"] = f"docker:{launch.image}"
    if resources:
        task["resources"] = resources
    task["run"] = _run(launch)
    return "".join(f"# {line}\n" for line in remarks("a SkyPilot task")) + yaml.safe_dump(task, sort_keys=False)


def _run(launch: Launch) -> str:
    words = launch.torchrun(nodes='"$SKYPILOT_NUM_NODES"', meet=f'"$head:{PORT}"', identity='"$SKYPILOT_TASK_ID"')
    lines = [f"{' '.join(words)} {launch.quoted}"]
    if launch.nodes > 1:
        lines.insert(0, 'read -r head <<< "$SKYPILOT_NODE_IPS"')
    return "\n".join(lines) + "\n"
