"""The short way for one entity says what the long way says, byte for byte."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError, NotFoundError, TidemillError
from tidemill.data.features.instants import shown
from tidemill.data.features.online import wire
from tidemill.data.features.online.changes import push_changes
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.push import push
from tidemill.data.features.online.single import packed_single
from tidemill.data.features.registry import register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType, Packing, Validation
from tidemill.store.workspace import Workspace

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
RANGE = Validation(low=-10, high=10)
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnlineFeatures]:
    with Workspace.open(tmp_path_factory.mktemp("single") / "ws") as workspace:
        for packing in Packing:
            x, y = Feature("x", validation=RANGE), Feature("y", validation=RANGE, default=0.5)
            register(
                workspace,
                FeatureGroup(
                    packing.value,
                    (EntityKey("id"),),
                    (x, y),
                    event_time="at",
                    packing=packing,
                    ttl_s=60,
                    freshness_s=30,
                ),
            )
        plain = tuple(Feature(f"w{i}") for i in range(40))
        register(workspace, FeatureGroup("plain", (EntityKey("id"),), plain, event_time="at"))
        register(workspace, FeatureGroup("named", (EntityKey("id", KeyType.STRING),), plain, event_time="at"))
        register(workspace, FeatureGroup("text", (EntityKey("id"),), (Feature("c", DType.CATEGORY),), event_time="at"))
        now = int((T0.timestamp() + 65) * SECOND)
        with OnlineFeatures(workspace, clock=lambda: now) as opened:
            _fill(opened)
            yield opened


def _fill(online: OnlineFeatures) -> None:
    def clock() -> float:
        return online.clock() / SECOND

    for packing in Packing:
        rows = [{"id": i, "at": T0 + dt.timedelta(seconds=20 * i), "x": i / 3, "y": None} for i in range(4)]
        push(online, packing.value, rows, clock=clock)
    row = {"id": 1, "at": T0 + dt.timedelta(seconds=1.25)} | {f"w{i}": float(i) for i in range(40)}
    push(online, "plain", [row], clock=clock)
    push_changes(online, "plain", [{"id": 1, "at": T0 + dt.timedelta(seconds=9), "w3": -1.0}], clock=clock)
    push(online, "named", [row | {"id": "a"}], clock=clock)


names = st.sampled_from([*(p.value for p in Packing), "plain", "plain:w3", "text", "named"])


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, min_size=1, max_size=3), st.integers(-1, 5), st.integers(1, 2))
def test_one_entity_is_answered_as_many_are(online: OnlineFeatures, features: list[str], entity: int, n: int) -> None:
    keys = {"id": [entity] * n}
    expected = _said(lambda: wire.to_packed(wire.ask(online, features, keys)))
    found = _said(lambda: packed_single(online, features, keys))
    short = n == 1 and len(set(features)) == len(features) and not {"plain:w3", "text", "named"} & set(features)
    assert short == isinstance(found, bytes)
    assert found in (None, expected)


def _said(ask: Callable[[], bytes | None]) -> bytes | str | None:
    try:
        return ask()
    except TidemillError as error:
        return str(error)


def test_text_keys_go_the_short_way_too(online: OnlineFeatures) -> None:
    keys = {"id": ["a"]}
    assert packed_single(online, ["named"], keys) == wire.to_packed(wire.ask(online, ["named"], keys))


@pytest.mark.parametrize("keys", [{}, {"id": []}, {"id": [1], "other": [2]}, {"other": [1]}])
def test_what_is_no_plain_question_goes_the_long_way(online: OnlineFeatures, keys: dict[str, list[int]]) -> None:
    assert packed_single(online, ["plain"], keys) is None
    assert packed_single(online, [], {"id": [1]}) is None


def test_what_is_wrong_is_said(online: OnlineFeatures) -> None:
    with pytest.raises(NotFoundError, match="plain"):
        packed_single(online, ["plan"], {"id": [1]})
    with pytest.raises(DataError, match="id"):
        packed_single(online, ["plain"], {"id": ["x"]})


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_times_are_written_as_numpy_writes_them(nanos: int) -> None:
    assert shown(nanos) == f"{np.datetime64(nanos, 'ns')}Z"
