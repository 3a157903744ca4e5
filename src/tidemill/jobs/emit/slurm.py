"""A batch script for Slurm."""

from __future__ import annotations

from tidemill.jobs.emit.launch import PORT, Launch, mebibytes, remarks

NOTICE_S = 120
"""So long before its time is over a job is told, so that it can write a checkpoint."""
_WAITED_S = 110
"""So long torchrun waits for it, instead of half a minute."""


def write(launch: Launch) -> str:
    """Write a script for ``sbatch``: one task on each machine, which is torchrun."""
    options = [f"--job-name={launch.name}", f"--nodes={launch.nodes}", "--ntasks-per-node=1"]
    if launch.queue:
        options.append(f"--partition={launch.queue}")
    if launch.cpus:
        options.append(f"--cpus-per-task={launch.cpus}")
    if launch.memory_bytes:
        options.append(f"--mem={mebibytes(launch.memory_bytes)}M")
    if launch.devices:
        kind = f"{launch.accelerator.lower()}:" if launch.accelerator else ""
        options.append(f"--gpus-per-node={kind}{launch.devices}")
    if launch.time_s is not None:
        options += [f"--time={_time(launch.time_s)}", f"--signal=TERM@{NOTICE_S}"]
    options += ["--requeue", "--output=%x-%j.log"]
    words = launch.torchrun(nodes='"$SLURM_NNODES"', meet=f'"$head:{PORT}"', identity='"$SLURM_JOB_ID"')
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options)]
    lines += [*(f"# {line}" for line in remarks("sbatch, Slurm 23 and newer")), "set -euo pipefail"]
    if launch.time_s is not None:
        lines.append(f"export TORCH_ELASTIC_SHUTDOWN_TIMEOUT={_WAITED_S}")
    if launch.nodes > 1:
        lines.append('read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")')
    return "\n".join([*lines, f"srun {' '.join(words)} {launch.quoted}"]) + "\n"


def _time(seconds: float) -> str:
    """Days, hours, minutes and seconds as Slurm reads them, rounded up.

    Examples
    --------
    >>> _time(90000)
    '1-01:00:00'
    """
    whole = -(-seconds // 1)
    days, rest = divmod(int(whole), 86_400)
    return f"{days}-{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
