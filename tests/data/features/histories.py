"""Random histories of features, and the as-of rule written out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType

BEGIN = datetime(2026, 1, 1, tzinfo=timezone.utc)
TIME = pa.timestamp("us", "UTC")


def moment(second: int) -> datetime:
    """Give a time on the histories' clock."""
    return BEGIN + timedelta(seconds=second)


def plain_group(
    name: str = "user", *, created: bool = True, ttl_s: float | None = None, **options: Any
) -> FeatureGroup:
    """Give a group with a key of two columns and features of every way of keeping."""
    return FeatureGroup(
        name,
        (EntityKey("id"), EntityKey("region", KeyType.STRING)),
        (
            Feature("score"),
            Feature("count", DType.INT64),
            Feature("city", DType.CATEGORY),
            Feature("level", DType.INT8, default=-1),
        ),
        event_time="at",
        created_time="known" if created else None,
        ttl_s=ttl_s,
        **options,
    )


@dataclass(frozen=True)
class Row:
    """One row of a history; times in seconds after `BEGIN`."""

    id: int
    region: str
    at: int
    known: int
    score: float | None
    count: int | None
    city: str | None
    level: int | None

    @property
    def entity(self) -> tuple[int, str]:
        return (self.id, self.region)


def rows(most: int = 25) -> st.SearchStrategy[list[Row]]:
    """Rows of few entities at few times, so that late, repeated and out-of-order ones are common."""
    row = st.builds(
        Row,
        id=st.integers(0, 3),
        region=st.sampled_from(["", "ä", "b"]),
        at=st.integers(0, 12),
        known=st.integers(0, 16),
        score=st.none() | st.floats(-5, 5, width=32),
        count=st.none() | st.integers(-(2**62), 2**62),
        city=st.none() | st.sampled_from(["Ulm", "Bonn", ""]),
        level=st.none() | st.integers(-128, 127),
    )
    return st.lists(row, max_size=most, unique_by=lambda r: (r.entity, r.at, r.known))


def table(history: list[Row], *, created: bool = True) -> pa.Table:
    """Give rows as they are pushed."""
    columns = {
        "id": pa.array([r.id for r in history], pa.int32()),
        "region": pa.array([r.region for r in history], pa.string()),
        "at": pa.array([moment(r.at) for r in history], TIME),
        "score": pa.array([r.score for r in history], pa.float64()),
        "count": pa.array([r.count for r in history], pa.int64()),
        "city": pa.array([r.city for r in history], pa.string()),
        "level": pa.array([r.level for r in history], pa.int16()),
    }
    if created:
        columns["known"] = pa.array([moment(r.known) for r in history], TIME)
    return pa.table(columns)


def known_row(
    history: list[Row], entity: tuple[int, str], label: int, cutoff: int | None = None, ttl_s: float | None = None
) -> Row | None:
    """Find the row that was known, by looking at every row."""
    seen = [r for r in history if r.entity == entity and r.at <= label and (cutoff is None or r.known <= cutoff)]
    best = max(seen, key=lambda r: (r.at, r.known), default=None)
    return None if best is None or (ttl_s is not None and label - best.at > ttl_s) else best


def values(row: Row | None) -> dict[str, Any]:
    """Give what a join answers for a row."""
    if row is None:
        return {"score": None, "count": None, "city": None, "level": -1}
    return {"score": row.score, "count": row.count, "city": row.city, "level": -1 if row.level is None else row.level}
