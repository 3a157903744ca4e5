"""The device that a training runs on: found by name, with its memory, its precision and the errors it raises."""

from __future__ import annotations

import contextlib
import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch

from tidemill.core.errors import OptionError, TrialError

_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "alloc_cpu", "status_alloc_failed")
_LOST = ("CUDA error", "device-side assert", "NCCL error", "cuDNN error", "CUBLAS_STATUS")
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(name: str, rank: int = 0) -> torch.device:
    """Find the device that is meant.

    Parameters
    ----------
    name : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    rank : int
        Number of the process on this machine; with ``auto`` and ``cuda`` each takes a GPU of its own.

    Raises
    ------
    OptionError
        Where it is not there.
    """
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not there):
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cuda") or (number and not number.isdecimal()):
        raise OptionError(f"{name!r} is not a device.", hint="Write auto, cpu, cuda or cuda:N.")
    if not there:
        built = "this PyTorch is built without CUDA" if torch.version.cuda is None else "PyTorch sees none"
        raise OptionError(
            f"A GPU was asked for ({name}), but there is none: {built}.",
            hint="Use cpu or auto, or install a CUDA build.",
        )
    index = int(number) if number else rank
    if index >= there:
        raise OptionError(f"There is no GPU number {index}; this machine has {there}.", hint=f"Take cuda:{there - 1}.")
    return torch.device("cuda", index)


def precision_on(wanted: str, device: torch.device) -> str:
    """Decide the precision: what is wanted, or for ``auto`` what is quick on the device and safe."""
    if wanted != "auto":
        return wanted
    return "bf16" if device.type == "cuda" and computes_bf16(device) else "fp32"


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bf16; a processor of which PyTorch doesn't tell has none."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not in every version that is supported; what isn't told of is not tried, for emulation takes many times as long.
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return device.type == "cpu" and bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def arithmetic(precision: str, device: torch.device) -> torch.autocast:
    """Give the context in which a forward pass computes in that precision."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def free_bytes(device: torch.device, limit: int | None) -> int:
    """Memory that this process may still take on the device."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = int(torch.cuda.mem_get_info(device)[0]) + idle
        return free if limit is None else min(free, limit - torch.cuda.memory_allocated(device))
    free = int(psutil.virtual_memory().available)
    return free if limit is None else min(free, limit - resident_bytes())


def give_back(device: torch.device) -> None:
    """Give memory that is kept for later use back to the system, so that what is held is what is needed.

    PyTorch keeps a GPU's memory, and the C library keeps that of tensors which are gone: hundreds of MB after some
    trainings. Nothing happens where the C library has no such call.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif (trim := _trim()) is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return getattr(ctypes.CDLL(None), "malloc_trim", None)
    except (OSError, TypeError):  # no C library that is asked by this way, such as on Windows
        return None


def resident_bytes() -> int:
    """Memory that this process holds now."""
    return int(psutil.Process().memory_info().rss)


def forget_peak(device: torch.device) -> None:
    """Begin to count the peak anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the peak is then that of the whole process
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_bytes(device: torch.device) -> int:
    """Most memory held since `forget_peak`: allocated on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    except OSError:  # not Linux
        pass
    return resident_bytes()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device's memory was not enough."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _NO_MEMORY)


def is_lost(error: BaseException) -> bool:
    """Whether an error means that the device itself has failed; it is of no use to this process any more."""
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST)


def lost(error: BaseException, device: torch.device, step: int, *, resumable: bool) -> TrialError:
    """Say that the device has failed."""
    line = str(error).strip().splitlines()[0][:200]
    go_on = (
        "Run it again: it goes on from the last checkpoint." if resumable else "Run it again, with a folder to resume."
    )
    return TrialError(f"The device {device} failed at step {step}: {line}.", hint=go_on)
