"""A workspace with a dataset of two versions and a feature group."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest

from tidemill.data.features.push import push
from tidemill.data.features.registry import register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup
from tidemill.data.infer import infer_schema
from tidemill.data.ingest._base import RawTable
from tidemill.data.versions import write_version
from tidemill.store.workspace import Workspace

START = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


def people(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "age": pa.array(rng.uniform(15, 80, rows).round(1), mask=rng.random(rows) < 0.05),
            "score": rng.normal(size=rows).round(4),
            "region": rng.choice(["north", "south", "west"], rows, p=[0.6, 0.3, 0.1]),
            "seen": pa.array([START + dt.timedelta(hours=int(h)) for h in rng.integers(0, 240, rows)]),
            "label": rng.choice(["yes", "no"], rows, p=[0.2, 0.8]),
        }
    )


@pytest.fixture
def workspace(tmp_path):
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


@pytest.fixture
def write(workspace):
    def write(table, name="people", target="label"):
        raw = RawTable(table, name)
        return write_version(workspace, name, raw, infer_schema(raw, target))

    return write


@pytest.fixture
def group(workspace):
    made = FeatureGroup(
        "user",
        (EntityKey("user_id"),),
        (Feature("age"), Feature("city", DType.CATEGORY, default="none"), Feature("visits", DType.INT64),
         Feature("active", DType.BOOL), Feature("rate", default=0.5)),
    )  # fmt: skip
    register(workspace, made)
    push(
        workspace,
        "user",
        pa.table(
            {
                "user_id": [1, 2, 3, 1],
                "event_time": [START, START, START, START + dt.timedelta(days=2)],
                "age": pa.array([20, 30, None, 21], pa.float32()),
                "city": ["Ulm", None, "Kiel", "Bonn"],
                "visits": pa.array([1, 2, None, 2**40]),
                "active": pa.array([True, False, None, False]),
                "rate": pa.array([0.1, None, 0.3, None], pa.float32()),
            }
        ),
    )
    return made
