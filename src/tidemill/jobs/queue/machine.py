"""What this machine has for jobs."""

from __future__ import annotations

import shutil
import subprocess

import psutil

from tidemill.core.budget import available_cpus
from tidemill.jobs.queue.types import USABLE, Capacity, Device

_ASK = ("--query-gpu=index,memory.total", "--format=csv,noheader,nounits")


def capacity(
    cpus: int | None = None, memory_bytes: int | None = None, devices: tuple[Device, ...] | None = None
) -> Capacity:
    """Give what a worker on this machine has, as far as nobody says otherwise.

    Parameters
    ----------
    cpus : int, optional
        Default all that this process may use.
    memory_bytes : int, optional
        Default nine tenths of the machine's.
    devices : tuple of Device, optional
        Default those that ``nvidia-smi`` shows.

    Examples
    --------
    >>> capacity(2, 10**9, ()).cpus
    2
    """
    return Capacity(
        cpus=available_cpus() if cpus is None else cpus,
        memory_bytes=int(USABLE * psutil.virtual_memory().total) if memory_bytes is None else memory_bytes,
        devices=find_devices() if devices is None else devices,
    )


def find_devices() -> tuple[Device, ...]:
    """List the NVIDIA devices of this machine; none where the driver's program is absent or does not answer."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        said = subprocess.run([program, *_ASK], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_devices(said)


def read_devices(said: str) -> tuple[Device, ...]:
    """Read what ``nvidia-smi`` says: index and MiB on each line; lines of another form are no devices.

    Examples
    --------
    >>> read_devices("0, 143771")
    (Device(name='cuda:0', memory_bytes=150754820096),)
    """
    found = []
    for line in said.splitlines():
        index, _, size = (part.strip() for part in line.partition(","))
        if index.isdigit() and size.isdigit():
            found.append(Device(f"cuda:{index}", int(size) * 2**20))
    return tuple(found)
