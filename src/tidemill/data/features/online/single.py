"""One entity, whole groups, packed numbers: the question that is asked most, answered in fewer steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidemill.data.features.instants import shown
from tidemill.data.features.online import wire
from tidemill.data.features.online.answer import ABSENT
from tidemill.data.features.online.features import OnlineFeatures


def packed_single(online: OnlineFeatures, features: Sequence[str], keys: Mapping[str, Sequence[Any]]) -> bytes | None:
    """Answer as `wire.ask` and `wire.to_packed` without names do, byte for byte; None where that is another question.

    It answers questions about one entity and groups that have one key column and packed numbers alone. A thousand
    entities share the cost of setting up arrays; one pays it alone, and it is several times that of the read.

    Raises
    ------
    NotFoundError
        For an unknown group.
    DataError
        For a key that is missing or of the wrong type.
    """
    if len(keys) != 1 or len(set(features)) != len(features):
        return None
    ((column, values),) = keys.items()
    if len(values) != 1:
        return None
    if ":" in "".join(features):
        return None
    groups = [online.group(name) for name in features]
    if not groups or not all(group.all.plain and group.entity_names == (column,) for group in groups):
        return None
    if sum([group.all.width for group in groups]) > wire.MAX_VALUES:
        return None  # it is refused with its reasons there
    heads, matrices = [], []
    for group in groups:
        row = group.row(values[0])
        event = "null" if row.state == ABSENT else f'"{shown(row.event_ns)}"'
        heads.append(group.all.front % (row.state.encode(), event.encode()))
        matrices.append(row.numbers.data)
    return wire.packed(b'{"rows":1,"groups":[' + b",".join(heads) + b"]}", matrices)
