"""A bounded uniform sample of a stream of batches."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tidemill.data.ingest._base import SAMPLE_SEED


def sample_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema, memory_bytes: int) -> tuple[pa.Table, int]:
    """Keep a uniform sample that takes at most ``memory_bytes``, in the order of the stream.

    Every row draws a random key; the rows with the smallest keys are kept. When the kept rows outgrow the memory, half
    of them go, and from then on only keys below the new bar are let in: each row of the stream has the same chance.

    Returns
    -------
    tuple
        The sample, and the number of rows in the stream.
    """
    rng = np.random.default_rng(SAMPLE_SEED)
    parts: list[pa.Table] = []
    keys: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
    bar, total, size = 1.0, 0, 0
    for batch in batches:
        drawn = rng.random(batch.num_rows)
        total += batch.num_rows
        keep = np.flatnonzero(drawn < bar)
        if not len(keep):
            continue
        part = pa.table(batch.take(pa.array(keep)))
        parts.append(part)
        keys.append(drawn[keep])
        size += part.nbytes
        while size > memory_bytes and sum(map(len, keys)) > 1:
            bar /= 2
            parts = [p.filter(pa.array(k < bar)) for p, k in zip(parts, keys, strict=True)]
            keys = [k[k < bar] for k in keys]
            parts = [pa.concat_tables(parts).combine_chunks()]
            keys = [np.concatenate(keys)]
            size = parts[0].nbytes
    return (pa.concat_tables(parts) if parts else schema.empty_table()), total


def sample_notice(kept: int, total: int, memory_bytes: int) -> str:
    """Say that only a sample was read."""
    return (
        f"The file is larger than the memory set aside for it ({memory_bytes / 1e9:.2g} GB): a uniform sample of "
        f"{kept:,} of {total:,} rows ({kept / total:.1%}) was read."
    )
