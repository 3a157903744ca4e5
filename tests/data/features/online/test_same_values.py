"""The law of the house: online and offline give the same value for the same entity and time."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.data.features import push as history
from tidemill.data.features.join import historical
from tidemill.data.features.online.changes import push_changes
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.push import materialize, push
from tidemill.data.features.registry import register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType, Packing, Validation
from tidemill.store.workspace import Workspace

START = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Hundreds of small writes, each flushed: in memory where there is a folder for it."""
RANGE = Validation(low=-10, high=10)

FEATURES = ("x", "exact", "count", "seen", "yes", "city")

entities = st.sampled_from([(1, "a"), (1, "b"), (2, "a"), (-3, "ü\0")])
number = st.none() | st.floats(-10, 10, width=32)
events = st.fixed_dictionaries(
    {
        "entity": entities,
        "event": st.integers(0, 8),
        "delay": st.integers(0, 12),
        "x": number,
        "exact": st.none() | st.floats(allow_nan=False),
        "count": st.none() | st.integers(-(2**63), 2**63 - 1),
        "seen": st.none() | st.integers(0, 2**40),
        "yes": st.none() | st.booleans(),
        "city": st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    }
)
pushes = st.lists(st.lists(events, min_size=1, max_size=4), min_size=1, max_size=6)


def group_of(packing: Packing, ttl_s: float | None, defaults: bool) -> FeatureGroup:
    return FeatureGroup(
        "user",
        (EntityKey("shop"), EntityKey("user", KeyType.STRING)),
        (
            Feature("x", validation=RANGE, default=0.5 if defaults else None),
            Feature("exact", DType.FLOAT64, default=0.1 if defaults else None),
            Feature("count", DType.INT64, default=7 if defaults else None),
            Feature("seen", DType.TIMESTAMP),
            Feature("yes", DType.BOOL, default=True if defaults else None),
            Feature("city", DType.CATEGORY, default="Ulm" if defaults else None),
        ),
        event_time="event",
        created_time="created",
        ttl_s=ttl_s,
        packing=packing,
    )


def table_of(rows: list[dict[str, Any]], taken: set[tuple[Any, int, int]]) -> list[dict[str, Any]]:
    """Give rows as they are pushed; of those with the same entity and times only the first may be there."""
    table = []
    for row in rows:
        mark = (row["entity"], row["event"], row["delay"])
        if mark in taken:
            continue
        taken.add(mark)
        at = START + dt.timedelta(seconds=row["event"])
        table.append(
            {k: v for k, v in row.items() if k not in ("entity", "delay", "event", "seen")}
            | {
                "shop": row["entity"][0],
                "user": row["entity"][1],
                "event": at,
                "created": at + dt.timedelta(seconds=row["delay"]),
                "seen": None if row["seen"] is None else START + dt.timedelta(microseconds=row["seen"]),
            }
        )
    return table


def plain(column: Any) -> list[Any]:
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    return [None if v is None else v for v in column.to_pylist()]


@given(
    pushes=pushes,
    now_s=st.integers(0, 10),
    ttl_s=st.none() | st.integers(1, 8),
    packing=st.sampled_from(Packing),
    defaults=st.booleans(),
    ways=st.lists(st.sampled_from(["both", "both", "both", "change", "change", "history"]), min_size=6, max_size=6),
    changed=st.lists(st.sets(st.sampled_from(FEATURES), min_size=1), min_size=6, max_size=6),
)
@settings(max_examples=30)
def test_online_gives_what_the_history_gives_for_now(
    pushes: list[list[dict[str, Any]]],
    now_s: int,
    ttl_s: int | None,
    packing: Packing,
    defaults: bool,
    ways: list[str],
    changed: list[set[str]],
) -> None:
    now = START + dt.timedelta(seconds=now_s)
    now_ns = int(now.timestamp()) * 1_000_000_000
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, Workspace.open(folder) as workspace:
        group = register(workspace, group_of(packing, ttl_s, defaults))
        taken: set[tuple[Any, int, int]] = set()
        with OnlineFeatures(workspace, clock=lambda: now_ns) as online:
            for rows, way, names in zip(pushes, ways, changed, strict=False):
                table = table_of(rows, taken)
                if not table:
                    continue
                if way == "both":
                    push(online, "user", table)
                elif way == "change":
                    unchanged = set(FEATURES) - names
                    push_changes(online, "user", [{k: v for k, v in r.items() if k not in unchanged} for r in table])
                else:
                    history.push(workspace, "user", table)
            if "history" in ways[: len(pushes)]:
                materialize(online, "user")
            asked = [(1, "a"), (1, "b"), (2, "a"), (-3, "ü\0"), (9, "never")]
            spine = [{"shop": shop, "user": user, "now": now} for shop, user in asked]
            expected = historical(workspace, spine, "user", label_time="now").to_arrow()
            answer = online.read("user", asked)
            some = online.read("user", asked, ["city", "x"])
            for name in group.feature_names:
                assert plain(answer.columns()[name]) == plain(expected[name]), name
                assert answer.columns()[name].type == expected[name].type
            assert plain(some.columns()["x"]) == plain(expected["x"])
            assert plain(some.columns()["city"]) == plain(expected["city"])
            singles = np.array([online.row("user", entity).numbers for entity in asked])
            assert np.array_equal(singles, answer.numbers, equal_nan=True)
