"""Every placement that can be had: processes, replicas by shards, recomputation, offload, pieces of the batch.

Other ways to cut a model (tensors, layers, classes of its head) come in here: a further field of `Placement`, a
further loop in `every_placement`, and its terms in `estimate`.
"""

from __future__ import annotations

from collections.abc import Iterator

from tidemill.train.planner.hardware import Hardware
from tidemill.train.planner.ledger import Ledger
from tidemill.train.types import Placement

KINDS = ("one process", "replicas", "shards", "replicas of shards")


def every_placement(batch: int, ledger: Ledger, hardware: Hardware) -> Iterator[Placement]:
    """Give the placements that divide the devices and the batch, simplest kinds first.

    Parameters
    ----------
    batch : int
        Samples of a step; each process gets at least ``ledger.least`` of them.
    ledger : Ledger
        Whether there are blocks to recompute, and the fewest samples of a pass.
    hardware : Hardware
        How many devices.

    Yields
    ------
    Placement
        With its ``micro_batch``.
    """
    policies = ("none", "blocks") if ledger.blocks else ("none",)
    for world in divisors(hardware.world):
        if batch < world * ledger.least:
            continue
        for shards in divisors(world):
            for recompute in policies:
                for offload in (False, True) if hardware.kind == "cuda" else (False,):
                    for size in piece_sizes(-(-batch // world), ledger.least):
                        yield Placement(
                            device=hardware.kind,
                            replicas=world // shards,
                            shards=shards,
                            micro_batch=size,
                            recompute=recompute,
                            offload=offload,
                        )


def kind_of(placement: Placement) -> str:
    """Name a placement's kind, recomputation and offload included: what plans are told apart by.

    Examples
    --------
    >>> kind_of(Placement(shards=2, recompute="blocks"))
    'shards, recomputing'
    """
    kind = KINDS[(placement.replicas > 1) + 2 * (placement.shards > 1)]
    kind += ", recomputing" if placement.recompute != "none" else ""
    return kind + (", offloaded" if placement.offload else "")


def complexity(placement: Placement) -> tuple[int, ...]:
    """Order placements from simple to involved.

    Examples
    --------
    >>> complexity(Placement()) < complexity(Placement(recompute="blocks")) < complexity(Placement(shards=2))
    True
    """
    return (
        int(placement.offload),
        (placement.replicas > 1) + 2 * (placement.shards > 1),
        int(placement.recompute != "none"),
        placement.world,
        -(placement.micro_batch or 0),
    )


def divisors(number: int) -> list[int]:
    """Give the divisors of a number, rising.

    Examples
    --------
    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    low = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return low + [number // d for d in reversed(low) if d * d != number]


def piece_sizes(share: int, least: int) -> list[int]:
    """Give the sizes into which a process may cut its share: in 1, 2, 4, 8… pieces of equal size.

    Examples
    --------
    >>> piece_sizes(100, least=2)
    [100, 50, 25, 13, 7, 4, 2]
    """
    sizes: list[int] = []
    pieces = 1
    while True:
        size = -(-share // pieces)
        if sizes and (size < least or size == sizes[-1]):
            return sizes
        sizes.append(size)
        pieces *= 2
