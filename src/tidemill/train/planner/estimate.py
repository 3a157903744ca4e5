"""Memory and time of a placement: a ledger for the first, a roofline with exchanges for the second.

Absolute times are rough; what counts is their order, and a short run corrects them (`Correction`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tidemill.train.planner.hardware import Hardware
from tidemill.train.planner.ledger import Ledger
from tidemill.train.planner.trace import Pass
from tidemill.train.types import Placement

_REACHED = {"cuda": 0.5, "cpu": 0.6}
"""Share of the peak rate that large products reach, with all that is between them."""
_BACKWARD = 2 / 3
"""Share of a pass that is backward, behind which exchanges can hide on a GPU."""
_EXPOSED = 0.1
"""Share of an exchange that never hides."""


@dataclass(frozen=True)
class Correction:
    """What short runs on a device have shown: measured over planned.

    Parameters
    ----------
    memory, time : float
        Factors.
    runs : int
        How many runs they come from.
    """

    memory: float = 1.0
    time: float = 1.0
    runs: int = 0

    def after(self, memory: float, time: float) -> Correction:
        """Take in another run's factors (of the uncorrected plan); the last ones count most.

        Examples
        --------
        >>> Correction().after(memory=1.2, time=2.0).after(memory=1.0, time=2.0).memory
        1.1
        """
        share = 1.0 if not self.runs else 0.5
        return Correction(
            memory=(1 - share) * self.memory + share * memory,
            time=(1 - share) * self.time + share * time,
            runs=self.runs + 1,
        )


@dataclass(frozen=True)
class Estimate:
    """What a placement takes.

    Parameters
    ----------
    memory_bytes : int
        Most that one device holds.
    host_bytes : int
        Most that one machine holds for its devices besides.
    step_s : float
        One optimiser step.
    pieces : int
        Passes that a process makes for it.
    memory : mapping
        Bytes by what they are for.
    time : mapping
        Seconds of a step by what they are for.
    """

    memory_bytes: int
    host_bytes: int
    step_s: float
    pieces: int
    memory: Mapping[str, int]
    time: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return asdict(self)


def estimate(
    placement: Placement, batch: int, ledger: Ledger, run: Pass, hardware: Hardware, precision: str, fix: Correction
) -> Estimate:
    """Estimate a placement whose ``micro_batch`` is set.

    Parameters
    ----------
    placement : Placement
        What is estimated.
    batch : int
        Of one optimiser step.
    ledger, run : Ledger, Pass
        Of the model, with the placement's recomputation.
    hardware : Hardware
        Where.
    precision : str
        Of the arithmetic.
    fix : Correction
        What was learned about the device.
    """
    size = placement.micro_batch or 1
    share = -(-batch // placement.world)
    pieces = -(-share // size)
    size = -(-share // pieces)
    memory, host = _memory(placement, size, pieces, ledger, run, hardware)
    time = _time(placement, size, pieces, ledger, run, hardware, precision)
    return Estimate(
        memory_bytes=int(fix.memory * sum(memory.values())),
        host_bytes=host,
        step_s=fix.time * sum(time.values()),
        pieces=pieces,
        memory=memory,
        time={name: fix.time * value for name, value in time.items()},
    )


def _memory(
    placement: Placement, size: int, pieces: int, ledger: Ledger, run: Pass, hardware: Hardware
) -> tuple[dict[str, int], int]:
    """Bytes on one device by purpose, and bytes on its machine."""
    parts = placement.shards
    sharded = parts > 1 or placement.offload
    standing = {
        "weights": ledger.weights // parts,
        "gradients": ledger.gradients // parts,
        "optimizer": ledger.state // parts,
        "kept": (ledger.average + ledger.best) // parts,
    }
    host = 0
    if placement.offload:
        host = min(placement.world, hardware.devices) * sum(standing.values())
        standing = dict.fromkeys(standing, 0)
    # Whole weights of the block that runs and of the one that comes, and whole gradients of the one that ran.
    gathered = (2 * ledger.rest + 3 * ledger.block if ledger.blocks else 2 * ledger.rest) if sharded else 0
    # The fused update needs nothing besides; shards on processors don't have it (see `make_optimizer`).
    update = 2 * ledger.largest // parts if sharded and hardware.kind != "cuda" else 0
    activations = int(run.memory.at(size))
    if pieces == 1 and placement.world == 1 and not placement.offload:  # else gradients are there before a pass begins
        activations = min(activations, max(0, int(run.whole.at(size)) - ledger.gradients))
    passing = activations + gathered
    standing["buffers"] = ledger.buffers
    standing["activations"] = activations
    standing["gathered"] = gathered
    standing["update"] = max(0, update - passing)
    return standing, host


def _time(
    placement: Placement, size: int, pieces: int, ledger: Ledger, run: Pass, hardware: Hardware, precision: str
) -> dict[str, float]:
    compute = run.flops.at(size) / (hardware.rate(precision) * _REACHED[hardware.kind])
    traffic = run.traffic.at(size) / hardware.memory_rate
    passing = max(compute, traffic, run.operations * hardware.launch_s)
    update = (2 * ledger.weights + 2 * ledger.gradients + 2 * ledger.state) / placement.shards / hardware.memory_rate
    found = {"passes": pieces * passing, "exchange": 0.0, "update": update}
    hides = passing if hardware.kind == "cuda" else 0.0
    if placement.shards > 1:
        found["exchange"] += pieces * _exposed(_gathering(placement, ledger, hardware), hides)
    if placement.replicas > 1:
        once = _averaging(placement, ledger, hardware)
        found["exchange"] += _exposed(once, _BACKWARD * hides)
    if placement.offload:
        moved = (2 * ledger.weights + ledger.gradients) / placement.shards
        found["offload"] = pieces * moved / hardware.host_rate
        found["update"] = 4 * update  # by the host's processors
    return found


def _gathering(placement: Placement, ledger: Ledger, hardware: Hardware) -> float:
    """Seconds of a pass's exchanges between shards: weights gathered twice, gradients scattered once."""
    rate = hardware.node_rate if placement.shards <= hardware.devices else hardware.net_rate
    moved = (2 * ledger.weights + ledger.gradients) * (placement.shards - 1) / placement.shards
    return moved / rate + 3 * (ledger.blocks + 1) * hardware.latency_s


def _averaging(placement: Placement, ledger: Ledger, hardware: Hardware) -> float:
    """Seconds of a step's exchange between replicas: each sends and receives gradients nearly twice (a ring)."""
    rate = hardware.node_rate if placement.world <= hardware.devices else hardware.net_rate
    copies = placement.replicas
    moved = 2 * (copies - 1) / copies * ledger.gradients / placement.shards
    return moved / rate + 2 * (copies - 1) * hardware.latency_s


def _exposed(exchange: float, hides: float) -> float:
    return max(_EXPOSED * exchange, exchange - (1 - _EXPOSED) * hides)
