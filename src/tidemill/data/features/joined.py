"""The result of a point-in-time join: where each value is, and the ways to fetch them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tidemill.core.errors import MissingExtraError, OptionError
from tidemill.data.features.arrays import arrow_of
from tidemill.data.features.gather import gather_columns, gather_others, gather_rows
from tidemill.data.features.history import History
from tidemill.data.features.instants import ARROW_TIME, to_arrow
from tidemill.data.features.segment import Segment
from tidemill.data.features.types import DType, Feature, FeatureGroup
from tidemill.data.ingest._base import memory_limit
from tidemill.store.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from tidemill.data.versions import DatasetVersion

Ints = NDArray[np.int64]

_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """What a join found in one group.

    Parameters
    ----------
    group : FeatureGroup
        The group.
    names : tuple of str
        Features asked for.
    segments : tuple of Segment
        Where the values are.
    history : History
        The state of the group that was read.
    holder, rows : int64 arrays of shape (spine rows,)
        Segment and row within it; a row of -1 where nothing was known.
    event : int64 array of shape (spine rows,)
        Event time of the values, where there are any.
    """

    group: FeatureGroup
    names: tuple[str, ...]
    segments: tuple[Segment, ...]
    history: History
    holder: Ints
    rows: Ints
    event: Ints


class Joined:
    """Spine rows and where their values are; each ``to_…`` fetches them.

    Parameters
    ----------
    workspace : Workspace
        For dataset versions.
    spine : pyarrow.Table
        The rows asked for.
    parts : tuple of Part
        One per group.
    prefix, times : bool
        See `historical`.
    memory_bytes : int or None
        Most that a result may take in one piece.
    threads : int
        Threads that fetch values.
    asked : mapping
        What was asked for, for lineage.
    """

    def __init__(
        self,
        workspace: Workspace,
        spine: pa.Table,
        parts: tuple[Part, ...],
        *,
        prefix: bool = False,
        times: bool = False,
        memory_bytes: int | None = None,
        threads: int = 1,
        asked: Mapping[str, Any] | None = None,
    ) -> None:
        self.spine, self.parts = spine, parts
        self._workspace, self._prefix, self._times = workspace, prefix, times
        self._memory_bytes, self._threads, self._asked = memory_bytes, threads, dict(asked or {})
        self.actor = ""
        """Who asks, where somebody does: owns the versions that are made of it, and must be let write them."""
        self._check_names()

    def __len__(self) -> int:
        return int(self.spine.num_rows)

    @property
    def found(self) -> dict[str, int]:
        """For each group the number of spine rows that have values."""
        return {p.group.name: int((p.rows >= 0).sum()) for p in self.parts}

    @property
    def nbytes(self) -> int:
        """About how many bytes the whole result takes."""
        return int(self.spine.nbytes) + len(self) * self._row_bytes

    def batches(self, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """Give the result in order, batch by batch, each as large as is good for speed or as is asked for."""
        step = rows or max(1, min(_BATCH_BYTES, self._limit) // max(1, self._row_bytes))
        for begin in range(0, len(self), step):
            yield from self._slice(begin, min(begin + step, len(self))).combine_chunks().to_batches()

    def to_arrow(self) -> pa.Table:
        """Give the whole result; raises `OptionError` where it is larger than the memory set aside for it."""
        self._check_memory()
        return self._slice(0, len(self))

    def to_pandas(self) -> pd.DataFrame:
        """Give the whole result as a pandas frame; missing numbers are NaN."""
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtraError.of("pandas", "to give a pandas frame", extra="dataframes") from None
        self._check_memory()
        frames = [self.spine.to_pandas()]
        for part in self.parts:
            frames.append(self._frame(part, pd))
        whole: pd.DataFrame = pd.concat(frames, axis=1)
        return whole

    def to_polars(self) -> pl.DataFrame:
        """Give the whole result as a polars frame."""
        try:
            import polars as pl
        except ImportError:
            raise MissingExtraError.of("polars", "to give a polars frame", extra="dataframes") from None
        frame = pl.from_arrow(self.to_arrow())
        if not isinstance(frame, pl.DataFrame):
            raise OptionError("The result has no columns.")
        return frame

    def matrix(self) -> NDArray[np.float32]:
        """Give the numbers of all groups as one row-major matrix, shape (spine rows, packed features asked for).

        This is what a model takes, and the cheapest form to fetch. Features that packed rows don't hold are left out.
        """
        self._check_memory()
        blocks = []
        for part in self.parts:
            features, columns = _packed(part)
            block = gather_rows(part.group, part.segments, part.holder, part.rows, columns, threads=self._threads)
            for j, feature in enumerate(features):
                if feature.default is not None:
                    column = block[:, j]
                    column[np.isnan(column)] = feature.default
            blocks.append(block)
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def write_parquet(self, path: str | Path) -> int:
        """Write the result to a Parquet file batch by batch, in bounded memory; gives the number of rows."""
        import pyarrow.parquet as pq

        with pq.ParquetWriter(str(path), self._slice(0, 0).schema) as writer:
            for batch in self.batches():
                writer.write_batch(batch)
        return len(self)

    def to_version(
        self, name: str, *, target: str | None = None, types: Mapping[str, Any] | None = None
    ) -> DatasetVersion:
        """Keep the result as a dataset version whose parents are the states of the groups it was made from.

        A new dataset is no more open than they are.

        Parameters
        ----------
        name : str
            Name of the dataset.
        target : str, optional
            Column of the spine that is to be predicted.
        types : mapping, optional
            Semantic types by column, where a person knows better.
        """
        from tidemill.data.features.access import facts_of
        from tidemill.data.features.snapshot import keep_state
        from tidemill.data.infer import infer_schema
        from tidemill.data.versions import write_version
        from tidemill.data.versions.governance import Role, check_access, inherit

        if self.actor:
            check_access(self._workspace, name, self.actor, Role.WRITER)
        table = self.to_arrow()
        states = {p.group.name: keep_state(self._workspace, p.group, p.history) for p in self.parts}
        version = write_version(
            self._workspace,
            name,
            table,
            infer_schema(table, target, types=types),
            parents=list(states.values()),
            operation="features",
            parameters={**self._asked, "groups": states},
        )
        told = [facts_of(self._workspace, group) for group in states]
        inherit(self._workspace, version, actor=self.actor, also=told)
        return version

    # ------------------------------------------------------------------------------------------------------ fetching

    def _slice(self, begin: int, end: int) -> pa.Table:
        columns, names = list(self.spine.slice(begin, end - begin).columns), list(self.spine.column_names)
        for part in self.parts:
            found = self._columns(part, begin, end)
            columns += [found[name] for name in part.names]
            names += [self._shown(part, name) for name in part.names]
            if self._times:
                mask = part.rows[begin:end] < 0
                columns.append(arrow_of(np.where(mask, 0, part.event[begin:end]), ARROW_TIME, missing=mask))
                names.append(_time_name(part))
        return pa.Table.from_arrays(columns, names=names)

    def _columns(self, part: Part, begin: int, end: int) -> dict[str, Any]:
        features, columns = _packed(part)
        holder, rows = part.holder[begin:end], part.rows[begin:end]
        found: dict[str, Any] = {}
        if features:
            block, gaps = gather_columns(part.group, part.segments, holder, rows, columns, threads=self._threads)
            gone = _Gone(rows < 0)
            found |= {f.name: _numbers(block[j], f, None if gaps[j] else gone) for j, f in enumerate(features)}
        others = [n for n in part.names if n not in found]
        if others:
            table = gather_others(part.group, part.segments, holder, rows, others)
            found |= {n: _filled(table[n], part.group.feature(n)) for n in others}
        return found

    def _frame(self, part: Part, pd: Any) -> Any:
        """Give the columns of one group as a frame; the numbers stay in the block that they were fetched into."""
        features, columns = _packed(part)
        plain = all(f.dtype is DType.FLOAT32 for f in features) and len(features) == len(part.names)
        if not plain or self._times:
            skip = self.spine.num_columns
            at = [self._shown(part, n) for n in part.names] + ([_time_name(part)] if self._times else [])
            alone = Joined(
                self._workspace, self.spine, (part,), prefix=self._prefix, times=self._times, threads=self._threads
            )
            return alone._slice(0, len(self)).select(range(skip, skip + len(at))).to_pandas()
        block = gather_rows(part.group, part.segments, part.holder, part.rows, columns, threads=self._threads)
        for j, feature in enumerate(features):
            if feature.default is not None:
                column = block[:, j]
                column[np.isnan(column)] = feature.default
        return pd.DataFrame(block, columns=[self._shown(part, f.name) for f in features], copy=False)

    def _shown(self, part: Part, name: str) -> str:
        return f"{part.group.name}__{name}" if self._prefix else name

    def _check_names(self) -> None:
        seen = dict.fromkeys(self.spine.column_names, "the spine")
        for part in self.parts:
            names = [self._shown(part, n) for n in part.names] + ([_time_name(part)] if self._times else [])
            for name in names:
                if name in seen:
                    raise OptionError(
                        f"The column {name!r} would stand twice: in {seen[name]} and in group {part.group.name!r}.",
                        hint="Say `prefix` to name columns group__feature, or rename the column of the spine.",
                    )
                seen[name] = f"group {part.group.name!r}"

    @property
    def _row_bytes(self) -> int:
        return sum(_cell_bytes(p.group.feature(n)) for p in self.parts for n in p.names) + 8 * len(self.parts)

    @property
    def _limit(self) -> int:
        return memory_limit(self._memory_bytes)

    def _check_memory(self) -> None:
        if self.nbytes > self._limit:
            raise OptionError(
                f"The result takes {self.nbytes / 1e9:.1f} GB, and {self._limit / 1e9:.1f} GB are set aside for it.",
                hint="Take `batches`, write it with `write_parquet`, ask for fewer features, or raise `memory_bytes`.",
            )


def _packed(part: Part) -> tuple[list[Feature], Ints | None]:
    """Give the packed features asked for, and their places in the packed row; None for all in order."""
    place = {f.name: i for i, f in enumerate(part.group.packed)}
    if part.names == part.group.feature_names:
        return list(part.group.packed), None
    features = [part.group.feature(n) for n in part.names if n in place]
    return features, np.array([place[f.name] for f in features], dtype=np.int64)


class _Gone:
    """The rows that were not found, in the form that Arrow wants: most columns miss these and no others."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.mask = mask
        self.count = int(mask.sum())
        self.bits = pa.py_buffer(np.packbits(~mask, bitorder="little")) if self.count else None


def _numbers(values: NDArray[np.float32], feature: Feature, whole: _Gone | None) -> pa.Array:
    """Make an Arrow column around fetched numbers; NaN becomes null, or the default.

    Parameters
    ----------
    values : float32 array
        One column.
    feature : Feature
        What it is.
    whole : _Gone or None
        The rows without value, where it is known that there are no others.
    """
    if whole is not None and feature.default is None and feature.dtype is DType.FLOAT32:
        buffers = [whole.bits, pa.py_buffer(values)]
        return pa.Array.from_buffers(pa.float32(), len(values), buffers, whole.count)
    gone = np.isnan(values) if whole is None else whole.mask
    if feature.default is not None and gone.any():
        values[gone] = feature.default
        gone = np.zeros(len(values), dtype=bool)
    if feature.dtype is DType.FLOAT32:
        return arrow_of(values, missing=gone)
    plain = np.where(gone, np.float32(0), values)
    kept = plain != 0 if feature.dtype is DType.BOOL else plain.astype(feature.dtype.value)
    return arrow_of(kept, missing=gone)


def _filled(column: pa.ChunkedArray, feature: Feature) -> pa.ChunkedArray:
    if feature.default is None or not column.null_count:
        return column
    if feature.dtype is DType.CATEGORY:
        return column.cast(pa.large_string()).fill_null(feature.default).dictionary_encode()
    default = feature.default
    if feature.dtype is DType.TIMESTAMP:
        from tidemill.data.features.instants import instant_nanos

        return column.fill_null(to_arrow(np.array([instant_nanos(default, "default")]))[0])
    return column.fill_null(pa.scalar(default, column.type))


def _cell_bytes(feature: Feature) -> int:
    if feature.dtype.is_text:
        return 24
    return 4 if feature.dtype not in (DType.FLOAT64, DType.INT64, DType.TIMESTAMP) else 8


def _time_name(part: Part) -> str:
    return f"{part.group.name}__event_time"
