"""Which samples a step works on, whoever does the work: the order depends on seed and step alone.

Samples form an endless stream, one permutation after another; step ``k`` takes the ``batch`` samples from place
``k * batch``. The place in the stream is therefore all that a resume needs, on any number of processes. Samples that
differ in width, which are filled up to the widest of a batch, may stand beside others that are about as wide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidemill.train.types import Samples

_POOLED = 16
"""Of so many batches at a time such of about one width are made; the fewer, the more of a permutation is by chance."""


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
    widths : ndarray of int, shape (samples,), optional
        Of samples that differ in it.

    Examples
    --------
    >>> cursor = Cursor(samples=5, batch=2, seed=0)
    >>> seen = np.concatenate([cursor.indices(step) for step in range(5)])
    >>> sorted(seen[:5].tolist()), sorted(seen[5:].tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    """

    def __init__(self, samples: int, batch: int, seed: int, widths: NDArray[np.integer[Any]] | None = None) -> None:
        self.samples = samples
        self.batch = batch
        self.seed = seed
        self.widths = widths
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
            rng = np.random.default_rng([self.seed, epoch])
            order = rng.permutation(self.samples).astype(np.int64)
            if self.widths is not None:
                first = -epoch * self.samples % self.batch  # so many complete the last batch of the epoch before
                order[first:] = _alike(order[first:], self.widths, self.batch, rng)
            self._orders[epoch] = order
        return self._orders[epoch]


def _alike(
    order: NDArray[np.int64], widths: NDArray[np.integer[Any]], batch: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Put samples of about one width into one batch; which batch comes when stays left to chance."""
    out = []
    for start in range(0, len(order), _POOLED * batch):
        pool = order[start : start + _POOLED * batch]
        pool = pool[np.argsort(widths[pool], kind="stable")]
        spare = len(pool) % batch  # of the last pool; chosen by chance, so that it isn't always the widest
        rest = np.sort(rng.permutation(len(pool))[: len(pool) - spare])
        whole = pool[rest].reshape(-1, batch)
        out += [*whole[rng.permutation(len(whole))], np.delete(pool, rest)]
    return np.concatenate(out) if out else order


def cursor_of(samples: Samples, batch: int, seed: int) -> Cursor:
    """Give the stream of samples; such as say their ``widths`` are put beside others that are about as wide."""
    widths: NDArray[np.integer[Any]] | None = getattr(samples, "widths", None)
    differ = widths is not None and len(widths) > 0 and widths.min() < widths.max()
    return Cursor(len(samples), batch, seed, widths if differ else None)


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
