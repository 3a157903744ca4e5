"""Launch files for other schedulers: the same command under torchrun, Slurm, Kubernetes with Kueue, or SkyPilot.

They are written, not run: what comes out is checked against the published form of each, and says so in its first lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidemill.core.errors import NotFoundError
from tidemill.jobs.emit import kubernetes, skypilot, slurm, torchrun
from tidemill.jobs.emit.launch import Launch as Launch


@dataclass(frozen=True)
class Target:
    """A scheduler that a launch file can be written for.

    Parameters
    ----------
    write : callable
        From a `Launch` to the text of the file.
    ending : str
        Of the file's name.
    start : str
        How the file is started, ``{file}`` for its name.
    """

    write: Callable[[Launch], str]
    ending: str
    start: str


TARGETS: dict[str, Target] = {
    "torchrun": Target(torchrun.write, ".sh", "on every node: bash {file}"),
    "slurm": Target(slurm.write, ".sbatch", "sbatch {file}"),
    "kubernetes": Target(kubernetes.write, ".yaml", "kubectl create -f {file}"),
    "skypilot": Target(skypilot.write, ".sky.yaml", "sky launch {file}"),
}


def emit(target: str, launch: Launch) -> str:
    """Write a launch file.

    Parameters
    ----------
    target : str
        One of `TARGETS`.
    launch : Launch
        What to run, on what.

    Raises
    ------
    NotFoundError
        For another target; the nearest are offered.
    OptionError
        For what the target can't express.

    Examples
    --------
    >>> print(emit("torchrun", Launch(("train.py",), processes=2)).splitlines()[-1])
    exec torchrun --standalone --nproc-per-node=2 --max-restarts=3 train.py
    """
    if target not in TARGETS:
        raise NotFoundError.of("target", target, TARGETS)
    return TARGETS[target].write(launch)
