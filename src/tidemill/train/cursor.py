"""Which samples a step works on, whoever does the work: the order depends on seed and step alone.

Samples form an endless stream, one permutation after another; step ``k`` takes the ``batch`` samples from place
``k * batch``. The place in the stream is therefore all that a resume needs, on any number of processes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Cursor:
    """The stream of sample numbers.

    Parameters
    ----------
    samples : int
        How many there are.
    batch : int
        Samples of one step.
    seed : int
        Of the permutations.

    Examples
    --------
    >>> cursor = Cursor(samples=5, batch=2, seed=0)
    >>> seen = np.concatenate([cursor.indices(step) for step in range(5)])
    >>> sorted(seen[:5].tolist()), sorted(seen[5:].tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        self.samples = samples
        self.batch = batch
        self.seed = seed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def indices(self, step: int) -> NDArray[np.int64]:
        """Give the sample numbers of a step, in the order of the stream."""
        place, end = step * self.batch, (step + 1) * self.batch
        parts = []
        while place < end:
            epoch, offset = divmod(place, self.samples)
            take = min(end - place, self.samples - offset)
            parts.append(self._order(epoch)[offset : offset + take])
            place += take
        return np.concatenate(parts)

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            self._orders = {e: o for e, o in self._orders.items() if e >= epoch - 1}
            self._orders[epoch] = np.random.default_rng([self.seed, epoch]).permutation(self.samples).astype(np.int64)
        return self._orders[epoch]


def pieces(batch: int, rank: int, world: int, micro_batch: int) -> list[tuple[int, int]]:
    """Cut a batch for one process: places ``[start, stop)`` in the batch, one pair for each forward pass.

    Every process gets the same number of pieces, since sharded passes are made together; sizes differ by one at most,
    and a piece is empty where there are fewer samples than processes.

    Parameters
    ----------
    batch : int
        Samples of the step.
    rank, world : int
        Which process of how many.
    micro_batch : int
        Most samples of a piece.

    Examples
    --------
    >>> pieces(10, rank=0, world=2, micro_batch=3), pieces(10, rank=1, world=2, micro_batch=3)
    ([(0, 3), (3, 5)], [(5, 8), (8, 10)])
    >>> pieces(1, rank=1, world=2, micro_batch=4)
    [(1, 1)]
    """
    share = -(-batch // world)  # of the process with most
    count = -(-share // micro_batch)
    first, last = _cut(0, batch, rank, world)
    return [_cut(first, last, piece, count) for piece in range(count)]


def _cut(start: int, stop: int, number: int, parts: int) -> tuple[int, int]:
    size, more = divmod(stop - start, parts)
    begin = start + number * size + min(number, more)
    return begin, begin + size + (number < more)


def generator(seed: int, step: int, place: int) -> np.random.Generator:
    """Give the randomness of the piece that begins at ``place`` of the batch of ``step``."""
    return np.random.default_rng([seed, step, place])


def torch_seed(seed: int, step: int, place: int) -> int:
    """Give the same as one number, for libraries that are seeded by one."""
    return int(np.random.SeedSequence([seed, step, place]).generate_state(1, np.uint64)[0] >> np.uint64(1))
