"""What must not be shared by two parts of the data: rows, entities and time across splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.checks._base import SEVERITIES, Finding

_SHOWN = 5


def check_splits(
    train: pa.Table,
    test: pa.Table,
    *,
    features: Sequence[str] | None = None,
    entity: str | None = None,
    time: str | None = None,
) -> list[Finding]:
    """Look for what the test rows share with the training rows, and should not.

    Parameters
    ----------
    train, test : pyarrow.Table
        Rows of both parts.
    features : sequence of str, optional
        Columns by which rows are compared; default all that both have, but for ``entity`` and ``time``.
    entity : str, optional
        Column that names who or what a row is about; nobody should be in both.
    time : str, optional
        Column that says when; training should end before testing begins.

    Returns
    -------
    list of Finding
        Worst first.

    Raises
    ------
    NotFoundError
        For a column that one part lacks.

    Examples
    --------
    >>> a, b = pa.table({"x": [1.0, 2.0], "who": [1, 2]}), pa.table({"x": [2.0, 3.0], "who": [9, 1]})
    >>> sorted(f.code for f in check_splits(a, b, entity="who"))
    ['entity_overlap', 'row_overlap']
    """
    for name in [*(features or ()), *(n for n in (entity, time) if n)]:
        for table in (train, test):
            if name not in table.column_names:
                raise NotFoundError.of("column", name, table.column_names)
    if features is None:
        features = [n for n in train.column_names if n in set(test.column_names) and n not in (entity, time)]
    found = [*_rows(train, test, features), *_entities(train, test, entity), *_times(train, test, time)]
    return sorted(found, key=lambda f: SEVERITIES.index(f.severity))


def _rows(train: pa.Table, test: pa.Table, features: Sequence[str]) -> Iterator[Finding]:
    from tidemill.data.versions.identity import groups, row_ids  # a check must not need the store to be imported

    if not features or not train.num_rows or not test.num_rows:
        return
    ids = [row_ids(_alike(t, train, features)) for t in (train, test)]
    codes, _ = groups(np.concatenate(ids))
    both = int(np.isin(codes[train.num_rows :], codes[: train.num_rows]).sum())
    if both:
        share = both / test.num_rows
        yield Finding(
            "error" if share > 0.01 else "warning", "row_overlap", None,
            f"{both:,} of {test.num_rows:,} test rows ({share:.2%}) also stand in training.",
            "Drop duplicates before you split, or split by entity.",
        )  # fmt: skip


def _alike(table: pa.Table, like: pa.Table, names: Sequence[str]) -> pa.Table:
    """Bring both parts to the types of the first, so that equal values have equal hashes."""
    columns = []
    for name in names:
        kind = like.schema.field(name).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        try:
            columns.append(table[name].cast(kind))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"The column {name!r} is {kind} in training and {table.schema.field(name).type} in the test rows."
            ) from error
    return pa.Table.from_arrays(columns, names=list(names))


def _entities(train: pa.Table, test: pa.Table, entity: str | None) -> Iterator[Finding]:
    if entity is None:
        return
    known = pc.unique(_alike(train, train, [entity])[entity]).drop_null()
    asked = _alike(test, train, [entity])[entity]
    hit = pc.fill_null(pc.is_in(asked, value_set=known), False)
    rows = int(pc.sum(hit.cast(pa.int64())).as_py() or 0)
    if rows:
        who = pc.unique(asked.filter(hit)).to_pylist()
        yield Finding(
            "error", "entity_overlap", entity,
            f"{len(who):,} values of {entity!r} stand in both parts, in {rows:,} test rows, such as "
            f"{', '.join(map(repr, who[:_SHOWN]))}.",
            "Split by entity: a model that has seen somebody knows them.",
        )  # fmt: skip


def _times(train: pa.Table, test: pa.Table, time: str | None) -> Iterator[Finding]:
    if time is None:
        return
    last, begin = pc.max(train[time]).as_py(), pc.min(test[time]).as_py()
    if last is None or begin is None or last < begin:
        return
    late = int(pc.sum(pc.greater_equal(train[time], pa.scalar(begin, train[time].type)).cast(pa.int64())).as_py() or 0)
    yield Finding(
        "warning", "time_overlap", time,
        f"{late:,} training rows are not older than the first test row ({begin}); training goes on to {last}.",
        "Cut by time: what happened later must not teach about what came before.",
    )  # fmt: skip
