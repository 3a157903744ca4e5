"""Hardware as numbers: described in a file, known by name, or measured here."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from tidemill.core.budget import available_cpus, parse_size_bytes
from tidemill.core.errors import DataError, NotFoundError, OptionError, TrialMemoryError

_SIZES = ("memory_bytes", "host_memory_bytes")
_GB, _TB = 10**9, 10**12
_HALVINGS = 6
"""How often what a device is measured with is halved where it does not fit."""


@dataclass(frozen=True)
class Hardware:
    """Machines that are all alike, with devices that are all alike.

    Parameters
    ----------
    name : str
        For people, and for what is remembered about it.
    kind : {"cpu", "cuda"}
        Of the devices.
    nodes, devices : int
        Machines, and devices in each. A machine's processors count as one device, unless a description says otherwise.
    memory_bytes : int
        Of one device.
    flops : mapping
        Peak rate by precision (``fp32``, ``bf16``, ``fp16``), operations per second; ``fp32`` must be there, ``bf16``
        only where the device has instructions for it.
    memory_rate : float
        Bytes per second between a device and its memory.
    node_rate, net_rate : float
        Bytes per second that a device sends inside its machine, and to other machines.
    latency_s : float
        Of one exchange between devices.
    launch_s : float
        Of one operation, however small.
    host_memory_bytes : int
        Of one machine.
    host_rate : float
        Bytes per second between a device and its machine's memory.
    context_bytes : int
        What a device's libraries take before anything is computed.

    Raises
    ------
    OptionError
        For numbers that can't be.
    """

    name: str
    kind: str
    memory_bytes: int
    flops: Mapping[str, float]
    memory_rate: float
    nodes: int = 1
    devices: int = 1
    node_rate: float = 10 * _GB
    net_rate: float = 3 * _GB
    latency_s: float = 20e-6
    launch_s: float = 5e-6
    host_memory_bytes: int = 64 * _GB
    host_rate: float = 20 * _GB
    context_bytes: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("cpu", "cuda"):
            raise NotFoundError.of("kind of device", self.kind, ("cpu", "cuda"))
        if "fp32" not in self.flops:
            raise OptionError("Hardware needs its rate in fp32.", where=self.name)
        positive = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "kind", "flops")}
        wrong = [
            n for n, v in positive.items() if not (v > 0 or ((n.endswith("_s") or n == "context_bytes") and v == 0))
        ]
        if wrong or not all(v > 0 for v in self.flops.values()):
            raise OptionError(f"These must be positive: {', '.join(wrong) or 'flops'}.", where=self.name)

    @property
    def world(self) -> int:
        """Devices in all."""
        return self.nodes * self.devices

    def precision(self, wanted: str) -> str:
        """Say in which precision a training computes, as `tidemill.train.device.precision_on` does on a device.

        Examples
        --------
        >>> preset("h100").precision("auto"), preset("t4").precision("auto"), preset("t4").precision("fp16")
        ('bf16', 'fp32', 'fp16')
        """
        if wanted != "auto":
            return wanted
        return "bf16" if self.kind == "cuda" and "bf16" in self.flops else "fp32"

    def rate(self, precision: str) -> float:
        """Peak rate in a precision; what has no rate of its own runs at that of fp32."""
        return float(self.flops.get(precision, self.flops["fp32"]))

    def to_json(self) -> dict[str, Any]:
        """Give the description as plain JSON."""
        return {**asdict(self), "flops": dict(self.flops)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], *, where: str | None = None) -> Hardware:
        """Read a description; sizes may be words.

        A ``preset`` names one to begin with; the other entries replace what it says.

        Examples
        --------
        >>> Hardware.from_json({"preset": "h100", "devices": 4, "memory_bytes": "40GB"}).memory_bytes
        40000000000

        Raises
        ------
        NotFoundError
            For an entry or preset that is not known.
        OptionError
            For what can't be a number.
        """
        given = dict(values)
        base = preset(str(given.pop("preset"))).to_json() if "preset" in given else {}
        known = {f.name for f in fields(cls)}
        for name in given:
            if name not in known:
                raise NotFoundError.of("entry of a hardware description", str(name), {*known, "preset"})
        both = {**base, **given}
        missing = [
            f.name
            for f in fields(cls)
            if f.name in ("kind", "memory_bytes", "flops", "memory_rate") and f.name not in both
        ]
        if missing:
            raise OptionError(
                f"A hardware description lacks: {', '.join(missing)}.", hint="Or name a preset.", where=where
            )
        try:
            for name, value in both.items():
                both[name] = _read(name, value)
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"A hardware description has a number that can't be read: {error}.", where=where
            ) from error
        return cls(**{"name": where or "described", **both})


def _read(name: str, value: Any) -> Any:
    if name in ("name", "kind"):
        return str(value)
    if name in _SIZES or name == "context_bytes":
        return value if value == 0 else parse_size_bytes(value if isinstance(value, str) else int(value))
    if name == "flops":
        return {str(k): float(v) for k, v in dict(value).items()}
    return int(value) if name in ("nodes", "devices") else float(value)


def _gpu(name: str, memory: int, half: float, fp32: float, memory_tb: float, node_gb: float, **more: Any) -> Hardware:
    """A GPU whose rates in bf16 and fp16 are the same."""
    return Hardware(
        name=name,
        kind="cuda",
        memory_bytes=memory * _GB,
        flops={"fp32": fp32 * _TB, "bf16": half * _TB, "fp16": half * _TB},
        memory_rate=memory_tb * _TB,
        node_rate=node_gb * _GB,
        context_bytes=500_000_000,
        **more,
    )


def _without_bf16(gpu: Hardware) -> Hardware:
    return replace(gpu, flops={name: rate for name, rate in gpu.flops.items() if name != "bf16"})


PRESETS: Mapping[str, Hardware] = {
    # From the makers' data sheets: dense rates, and links in one direction.
    "h200": _gpu("h200", 141, 989, 67, 4.8, 450, net_rate=50.0 * _GB, host_rate=55.0 * _GB),
    "h100": _gpu("h100", 80, 989, 67, 3.35, 450, net_rate=50.0 * _GB, host_rate=55.0 * _GB),
    "a100-80": _gpu("a100-80", 80, 312, 19.5, 2.04, 300, net_rate=25.0 * _GB, host_rate=25.0 * _GB),
    "a100-40": _gpu("a100-40", 40, 312, 19.5, 1.56, 300, net_rate=25.0 * _GB, host_rate=25.0 * _GB),
    "l40s": _gpu("l40s", 48, 362, 91.6, 0.864, 25, net_rate=12.0 * _GB, host_rate=25.0 * _GB),
    "l4": _gpu("l4", 24, 121, 30.3, 0.3, 12, net_rate=6.0 * _GB, host_rate=12.0 * _GB),
    "rtx4090": _gpu("rtx4090", 24, 165, 82.6, 1.01, 12, host_rate=25.0 * _GB),
    "v100-32": _without_bf16(_gpu("v100-32", 32, 125, 15.7, 0.9, 150, host_rate=12.0 * _GB)),
    "v100-16": _without_bf16(_gpu("v100-16", 16, 125, 15.7, 0.9, 150, host_rate=12.0 * _GB)),
    "t4": _without_bf16(_gpu("t4", 16, 65, 8.1, 0.32, 12, net_rate=6.0 * _GB, host_rate=12.0 * _GB)),
    # A desktop's processor, in round numbers; `detect` measures the one that is here.
    "cpu": Hardware("cpu", "cpu", 16 * _GB, {"fp32": 200e9}, 20e9, node_rate=5.0 * _GB, host_memory_bytes=16 * _GB),
}


def preset(text: str) -> Hardware:
    """Give hardware by name, with counts before it: ``h100``, ``8xh100`` (devices), ``4x8xh100`` (machines of them).

    Raises
    ------
    NotFoundError
        With the nearest names.
    """
    match = re.fullmatch(r"(?:(?P<nodes>\d{1,4})x)?(?:(?P<devices>\d{1,4})x)?(?P<name>[a-z].*)", text.strip().lower())
    name = match["name"] if match else text
    if match is None or name not in PRESETS:
        raise NotFoundError.of("hardware", name, PRESETS)
    first, second = match["nodes"], match["devices"]
    nodes, devices = (int(first), int(second)) if second else (1, int(first or 1))
    return replace(PRESETS[name], name=text.strip().lower(), nodes=nodes, devices=devices)


def read_hardware(text: str) -> Hardware:
    """Give the hardware that a word means: a file (YAML or JSON), ``here``, or a preset.

    Raises
    ------
    DataError
        For a file that can't be read.
    """
    path = Path(text).expanduser()
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(f"The hardware description can't be read: {error}.", where=str(path)) from error
        if not isinstance(values, dict):
            raise DataError("A hardware description is a mapping of names to numbers.", where=str(path))
        return Hardware.from_json({"name": path.stem, **values}, where=str(path))
    return detect() if text == "here" else preset(text)


def detect() -> Hardware:
    """Measure this machine: its GPUs where there are some, else its processors; takes some tenths of a second."""
    import psutil
    import torch

    from tidemill.train.device import computes_bf16

    host = int(psutil.virtual_memory().available)
    if not torch.cuda.is_available():
        device = torch.device("cpu")
        return Hardware(
            name=f"cpu-{available_cpus()}",
            kind="cpu",
            memory_bytes=host,
            flops={"fp32": _matmul_rate(device, torch.float32)},
            memory_rate=_copy_rate(device),
            host_memory_bytes=host,
        )
    device = torch.device("cuda", 0)
    free = int(torch.cuda.mem_get_info(device)[0])
    rates = {"fp32": _matmul_rate(device, torch.float32)}
    if computes_bf16(device):
        rates["bf16"] = rates["fp16"] = _matmul_rate(device, torch.bfloat16)
    else:  # emulated it takes many times as long
        rates["fp16"] = _matmul_rate(device, torch.float16)
    like = [
        h for n, h in PRESETS.items() if n.split("-")[0] in torch.cuda.get_device_name(device).lower().replace(" ", "")
    ]
    return Hardware(
        name=torch.cuda.get_device_name(device),
        kind="cuda",
        memory_bytes=free,
        flops=rates,
        memory_rate=_copy_rate(device),
        devices=torch.cuda.device_count(),
        node_rate=like[0].node_rate if like else 12.0 * _GB,  # links are not measured
        host_memory_bytes=host,
        context_bytes=0,  # what is free is already without it
    )


def _matmul_rate(device: Any, dtype: Any) -> float:
    import torch

    def rate(size: int) -> float:
        a = torch.ones((size, size), dtype=dtype, device=device)
        return 2.0 * size**3 / _seconds(lambda: a @ a, device)

    return _fitting(rate, 512 if device.type == "cpu" else 4096, device)


def _copy_rate(device: Any) -> float:
    import torch

    def rate(size: int) -> float:
        a = torch.ones(size, device=device)
        b = torch.empty_like(a)
        return 2.0 * a.nbytes / _seconds(lambda: b.copy_(a), device)

    return _fitting(rate, 16 * 2**20 if device.type == "cpu" else 256 * 2**20, device)


def _fitting(rate: Callable[[int], float], size: int, device: Any) -> float:
    """Measure with tensors of a size, and with smaller ones where a device that others use has no room for them.

    Raises
    ------
    TrialMemoryError
        Where not even small ones fit.
    """
    import torch

    for _ in range(_HALVINGS):
        try:
            return rate(size)
        except torch.OutOfMemoryError:
            size //= 2
    raise TrialMemoryError(
        f"The device {device} is full: there is no room to measure how fast it is.",
        hint="End what else runs there, or describe the hardware: --hardware, with a preset or a file.",
    )


def _seconds(call: Any, device: Any) -> float:
    """Best of three, after one to warm up."""
    import torch

    best = float("inf")
    for attempt in range(4):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if attempt:
            best = min(best, time.perf_counter() - began)
    return max(best, 1e-9)
