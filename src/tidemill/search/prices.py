"""What an ensemble costs to keep and to run, as a price in units of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tidemill.core.objective import Constraint, Objective
from tidemill.core.trial import FREE, Cost

UNIT = 1e-3
"""Differences of a thousandth of the loss are what people begin to care about; prices are fractions of that."""
SIZE_BYTES = 10_000_000
LATENCY_MS = 1.0
BATCH_US = 30.0
"""On one thread, so that two answer 50,000 rows in a second and there is room for what the members share."""
MANY_ROWS = 20_000
"""With fewer rows to learn from, nobody is expected to have millions to predict."""
ROOM = 0.95
"""Estimates of costs are trusted up to this share of a bound."""
PRESSING = 0.7
"""Share of the bound on time from which on it is near."""
SHARED = Cost(params=0, flops=0, size_bytes=20_000, latency_ms=0.15, batch_us=3.0)
"""Allowance for what the members share: the encoder, calibration and decision."""


@dataclass(frozen=True)
class Prices:
    """Price of a combination: ``inf`` where it breaks a bound, else small and growing with size and latency.

    Up to 10 MB, 1 ms for a row and, on large tables, 30 µs for a row of many, a member has to earn little; beyond that
    the price of size and latency rises steeply, since a model that doesn't fit where it is needed is worth nothing.
    Each doubling of the time for many rows beyond 30 µs has to earn two thousandths of the loss; on tables of fewer
    than 20,000 rows that time is free.

    Parameters
    ----------
    costs : mapping
        Cost of every trial.
    objective : Objective
        With its bounds.
    loss : float
        Size of the loss, which makes the price relative.
    most_bytes : int
        Bound on the size where the objective has none.
    rows : int
        Training rows: how much it matters to predict many rows quickly.
    most_us : float
        Bound on the microseconds for a row of many: what can be proven in the time that is left.
    thrift : float
        Factor of the price; 0 looks at bounds alone.
    shared : Cost
        What the members share beside the allowance: encoders of columns. It counts for bounds and has no price, since
        no choice of members changes it.
    """

    costs: Mapping[int, Cost]
    objective: Objective
    loss: float
    most_bytes: int
    rows: int = 0
    most_us: float = float("inf")
    thrift: float = 1.0
    shared: Cost = FREE

    def __call__(self, weights: Mapping[int, float]) -> float:
        """Price of the trials that have a weight."""
        size, latency, params, flops, batch_us = 0.0, 0.0, 0.0, 0.0, 0.0
        for number, weight in weights.items():
            if weight > 0:
                cost = self.costs[number]
                size += cost.size_bytes or 0
                latency += cost.latency_ms or 0.0
                params += cost.params or 0
                flops += cost.flops or 0
                batch_us += _batch_us(cost)
        total = {
            "size_bytes": size + (SHARED.size_bytes or 0) + (self.shared.size_bytes or 0),
            "latency_ms": latency + (SHARED.latency_ms or 0.0) + (self.shared.latency_ms or 0.0),
            "params": params + (self.shared.params or 0),
            "flops": flops + (self.shared.flops or 0),
        }
        bounds = self.objective.cost_constraints
        if any(total[c.subject] > _room(c) for c in bounds):
            return float("inf")
        if size > self.most_bytes and not any(c.subject == "size_bytes" for c in bounds):
            return float("inf")
        if batch_us > self.most_us:
            return float("inf")
        price = _steep(size / SIZE_BYTES) + _steep(latency / LATENCY_MS)
        if self.for_many:
            price += _doublings(batch_us / BATCH_US)
        return self.thrift * UNIT * abs(self.loss) * price

    @property
    def for_many(self) -> bool:
        """True where it counts how quickly many rows are answered."""
        return self.rows >= MANY_ROWS

    def presses(self, weights: Mapping[int, float]) -> bool:
        """True where the bound on time is near, so that thin bags may leave room for members that are worth more."""
        return sum(_batch_us(self.costs[n]) for n, w in weights.items() if w > 0) > PRESSING * self.most_us


def _batch_us(cost: Cost) -> float:
    return _guess_us(cost) if cost.batch_us is None else cost.batch_us


def _guess_us(cost: Cost) -> float:
    """Guess microseconds for one row of a large batch: multiplying matrices is quick, walking down trees is not.

    A net does two operations with each number it has learned, a tree looks at few of them.
    """
    flops = cost.flops or 0
    dense = flops >= (cost.params or 0)
    return flops * (1e-4 if dense else 1.5e-3)


def _room(constraint: Constraint) -> float:
    # What is counted is exact; what is estimated keeps a distance.
    return constraint.bound * (1.0 if constraint.subject in ("params", "flops") else ROOM)


def _steep(share: float) -> float:
    return 0.1 * share if share <= 1 else 0.1 + (share - 1)


def _doublings(share: float) -> float:
    return 0.1 * share if share <= 1 else 0.1 + 2.0 * float(np.log2(share))


def total(costs: Mapping[int, Cost], numbers: Mapping[int, float], shared: Cost = FREE) -> Cost:
    """Cost of the whole combination, what is shared included; unknown where a member's is unknown."""
    out = SHARED + shared
    for number in numbers:
        out = out + costs[number]
    return out


def with_models(costs: Mapping[int, Cost], models: Mapping[int, int], used: Mapping[int, int]) -> dict[int, Cost]:
    """Costs where only some models of each bag are used."""
    return {n: _share(c, used[n] / models[n]) for n, c in costs.items()}


def thinness(weights: Mapping[int, float], used: Mapping[int, int], loss: float) -> float:
    """What is lost by small bags, in units of the loss.

    Out-of-fold predictions can't tell: each comes from a single model. The variance that a bag of ``m`` takes away
    grows as ``1 - 1/m``; all of it is taken to be worth a thousandth of the loss.
    """
    return UNIT * abs(loss) * sum(w / used[n] for n, w in weights.items())


def _share(cost: Cost, share: float) -> Cost:
    if share >= 1:
        return cost

    def part(value: float | None) -> float | None:
        return None if value is None else value * share

    params, flops, size = part(cost.params), part(cost.flops), part(cost.size_bytes)
    return Cost(
        params=None if params is None else int(np.ceil(params)),
        flops=None if flops is None else int(np.ceil(flops)),
        size_bytes=None if size is None else int(np.ceil(size)),
        latency_ms=part(cost.latency_ms),
        batch_us=part(cost.batch_us),
    )
