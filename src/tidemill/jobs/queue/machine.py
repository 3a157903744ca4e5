"""What this machine has for jobs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import psutil

from tidemill.core.budget import available_cpus
from tidemill.jobs.queue.types import USABLE, Capacity, Device

VISIBLE, ORDER = "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"
"""Variables that say which devices a process sees, and what their numbers count."""
BY_BUS = "PCI_BUS_ID"
"""The order in which ``nvidia-smi`` counts; CUDA's own puts the fastest device first."""
_ASK = ("--query-gpu=index,memory.total,uuid", "--format=csv,noheader,nounits")


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
        Default those of `find_devices`.

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
    """List the NVIDIA devices of this machine that this process may see; none where the driver doesn't answer.

    What ``CUDA_VISIBLE_DEVICES`` hides belongs to somebody else. Devices keep the numbers that ``nvidia-smi`` gives
    them, so that all workers of a machine call one device by one name.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        said = subprocess.run([program, *_ASK], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return read_devices(said, os.environ.get(VISIBLE))


def read_devices(said: str, visible: str | None = None) -> tuple[Device, ...]:
    r"""Read what ``nvidia-smi`` says: index, MiB and UUID on each line; lines of another form are no devices.

    Parameters
    ----------
    said : str
        Its answer.
    visible : str, optional
        Value of ``CUDA_VISIBLE_DEVICES``: numbers, or beginnings of UUIDs. Like CUDA it is read up to the first entry
        that names no device, so that ``""`` and ``"-1"`` hide all. A part of a device (MIG) is no device here.

    Examples
    --------
    >>> read_devices("0, 143771, GPU-5a1c")
    (Device(name='cuda:0', memory_bytes=150754820096),)
    >>> [device.name for device in read_devices("0, 8000, GPU-5a1c\n1, 8000, GPU-77e0", "GPU-77")]
    ['cuda:1']
    """
    found: list[tuple[Device, str]] = []
    for line in said.splitlines():
        index, size, uuid = ([part.strip() for part in line.split(",")] + ["", ""])[:3]
        if index.isdigit() and size.isdigit():
            found.append((Device(f"cuda:{index}", int(size) * 2**20), uuid))
    return tuple(device for device, _ in found) if visible is None else _seen(found, visible)


def _seen(found: Sequence[tuple[Device, str]], visible: str) -> tuple[Device, ...]:
    """The devices that the variable names, in the order of their numbers."""
    seen: set[str] = set()
    for entry in (part.strip() for part in visible.split(",")):
        named = [
            device.name
            for device, uuid in found
            if device.name == f"cuda:{entry}" or (entry.startswith("GPU-") and uuid.startswith(entry))
        ]
        if len(named) != 1:
            break
        seen.update(named)
    return tuple(device for device, _ in found if device.name in seen)
