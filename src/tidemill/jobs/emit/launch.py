"""What a launch file is written from."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from tidemill.core.errors import OptionError

PORT = 29400
"""Where processes meet; torchrun's own default."""
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", re.ASCII)
_PYTHON = re.compile(r"(.*/)?python(\d(\.\d+)?)?", re.ASCII)


@dataclass(frozen=True)
class Launch:
    """A Python program, and the machines that it wants.

    Parameters
    ----------
    command : tuple of str
        ``("train.py", "--epochs", "3")`` or ``("-m", "package.module", …)``; a leading ``python`` is left out, because
        torchrun brings its own.
    name : str
        Lower-case letters, digits and hyphens, up to 50: it becomes the name of jobs and hosts.
    nodes : int
        Machines.
    processes : int
        Processes on each; with devices as many as these.
    devices : int
        Accelerators of each machine.
    accelerator : str
        Their name, where the scheduler asks for it: ``"H100"``.
    cpus, memory_bytes : int
        Of each machine; 0 leaves it to the scheduler.
    time_s : float or None
        Ended after so long.
    queue : str
        Partition of Slurm, local queue of Kueue.
    image : str
        Container image, for Kubernetes and SkyPilot.
    restarts : int
        How often torchrun starts all processes again after one has died.
    """

    command: tuple[str, ...]
    name: str = "tidemill"
    nodes: int = 1
    processes: int = 0
    devices: int = 0
    accelerator: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    time_s: float | None = None
    queue: str = ""
    image: str = ""
    restarts: int = 3

    def __post_init__(self) -> None:
        wrong = []
        if not self.program:
            wrong.append("there is no program to run")
        elif self.program[0] == "-c" or (self.program[0] == "-m" and len(self.program) < 2):
            wrong.append("the command must name a file, or a module with -m")
        if any("\n" in word or "\0" in word for word in self.command):
            wrong.append("a word of the command holds a line break")
        if not _NAME.fullmatch(self.name):
            wrong.append(f"the name must be of lower-case letters, digits and hyphens, up to 50, but is {self.name!r}")
        for noun, text in (("queue", self.queue), ("image", self.image), ("accelerator", self.accelerator)):
            if text and (not text.isprintable() or any(c.isspace() for c in text)):
                wrong.append(f"the {noun} must be one printable word, but is {text!r}")
        if self.nodes < 1 or min(self.processes, self.devices, self.cpus, self.memory_bytes, self.restarts) < 0:
            wrong.append("there must be a node, and no number may be negative")
        if self.devices and self.processes not in (0, self.devices):
            wrong.append(f"with {self.devices} devices there are as many processes, not {self.processes}")
        if self.time_s is not None and not 0 < self.time_s < float("inf"):
            wrong.append(f"the time must be positive and finite, but is {self.time_s} s")
        if wrong:
            raise OptionError(f"No launch file can be written: {'; '.join(wrong)}.")

    @property
    def program(self) -> tuple[str, ...]:
        """The command without a leading ``python``."""
        rest = self.command[1:] if self.command and _PYTHON.fullmatch(self.command[0]) else self.command
        return tuple(rest)

    @property
    def per_node(self) -> int:
        """Processes on each machine."""
        return self.devices or self.processes or 1

    def torchrun(self, *, nodes: str = "", meet: str = "", identity: str = "") -> list[str]:
        """Words of the torchrun call without the program; the three say how several machines find each other."""
        together = [f"--nnodes={nodes}", f"--rdzv-id={identity}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meet}"]
        head = ["--standalone"] if self.nodes == 1 else together
        return ["torchrun", *head, f"--nproc-per-node={self.per_node}", f"--max-restarts={self.restarts}"]

    @property
    def quoted(self) -> str:
        """The program as a shell reads it."""
        return shlex.join(self.program)


def mebibytes(size: int) -> int:
    """Bytes as MiB, rounded up."""
    return -(-size // 2**20)


def remarks(form: str) -> list[str]:
    """The first lines of every file, without their comment sign."""
    return [f"Written by tidemill jobs emit, in the published form of {form}.", "Unverified: it was not run there."]
