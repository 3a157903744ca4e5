"""Erasure of entities from feature groups: every row, every kept state, every byte, and nobody else's."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.core.errors import DataError, NotFoundError
from tidemill.data.features import forget as module
from tidemill.data.features.forget import forget
from tidemill.data.features.history import read_history, sweep, verify
from tidemill.data.features.join import historical
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.online.push import materialize
from tidemill.data.features.online.push import push as push_both
from tidemill.data.features.push import push
from tidemill.data.features.registry import AUDIT, grow, register
from tidemill.data.features.segment import open_segment
from tidemill.data.features.snapshot import load_state
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType
from tidemill.data.versions import find_version
from tidemill.store.workspace import Workspace

T0 = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
SECRET = "Zweibrückenstraße"


def at(seconds: float) -> dt.datetime:
    return T0 + dt.timedelta(seconds=seconds)


def rows(users: list[int], second: int, note: str = "") -> list[dict[str, Any]]:
    return [{"user": u, "at": at(second), "x": u + second / 100, "note": note or f"n{u}"} for u in users]


@pytest.fixture
def group(workspace: Workspace) -> FeatureGroup:
    features = (Feature("x"), Feature("note", DType.STRING))
    return register(workspace, FeatureGroup("g", (EntityKey("user"),), features, event_time="at"))


def known(workspace: Workspace, users: list[int], second: int = 1000) -> list[tuple[Any, Any]]:
    spine = pa.table({"user": pa.array(users, pa.int64()), "t": [at(second)] * len(users)})
    found = historical(workspace, spine, "g", label_time="t").to_arrow()
    return list(zip(found["x"].to_pylist(), found["note"].cast(pa.string()).to_pylist(), strict=True))


def labels(user: int) -> pa.Table:
    return pa.table({"user": [user] * 3, "t": [at(5)] * 3, "z": [0.5, 1.5, 2.75], "y": ["u", "v", "u"]})


def bytes_of(workspace: Workspace) -> bytes:
    """All that is on disk but the database."""
    return b"".join(p.read_bytes() for p in Path(workspace.path).rglob("*") if p.is_file() and ".db" not in p.name)


def test_an_entity_leaves_the_history_and_others_stay(workspace: Workspace, group: FeatureGroup) -> None:
    for second in range(3):
        push(workspace, "g", rows([1, 2, 3], second))
    before = known(workspace, [1, 3])
    told = forget(workspace, "g", [2, 99], dry_run=True)
    assert (told.rows, told.segments) == (3, 3)
    assert known(workspace, [2])[0][1] == "n2"
    told = forget(workspace, "g", [2, 99], actor="mia")
    assert (told.rows, told.segments, told.versions) == (3, 3, ())
    assert known(workspace, [2]) == [(None, None)]
    assert known(workspace, [1, 3]) == before
    assert verify(workspace, "g") == []
    assert read_history(workspace, "g").rows == 6
    assert forget(workspace, "g", [2]).rows == 0
    entry = [e for e in workspace.journal.read(AUDIT, subject="g", limit=100) if e.kind == "features forgot"]
    assert [(e.actor, e.payload["rows"]) for e in entry] == [("mia", 3)]


def test_no_byte_of_it_is_left_though_it_was_compacted_and_kept(workspace: Workspace, group: FeatureGroup) -> None:
    push(workspace, "g", rows([7], 0, SECRET) + rows([8], 0))
    joined = historical(workspace, labels(8), "g", label_time="t")
    version = joined.to_version("train", target="y")
    for second in range(1, 9):  # the first ones are joined, and what they were waits for a day
        push(workspace, "g", rows([7], second, SECRET) + rows([8], second))
    assert SECRET.encode() in bytes_of(workspace)
    state, before = version.parents[0], known(workspace, [8])
    told = forget(workspace, "g", [7])
    assert told.rows == 9
    assert told.versions == (version.ref,)
    assert SECRET.encode() not in bytes_of(workspace)
    assert read_history(workspace, "g").retired == ()
    old_group, old = load_state(workspace, state)
    assert old.rows == 1
    assert open_segment(workspace, old_group, old.segments[0]).entities.size == 1
    assert find_version(workspace, "train").parents == version.parents
    assert known(workspace, [8]) == before
    assert forget(workspace, "g", [8]).rows == 9
    assert load_state(workspace, state)[1].segments == ()
    assert read_history(workspace, "g").segments == ()
    push(workspace, "g", rows([8], 50))
    assert known(workspace, [8]) == [(pytest.approx(8.5), "n8")]


def test_states_of_an_older_schema_stay_readable(workspace: Workspace, group: FeatureGroup) -> None:
    push(workspace, "g", rows([1, 2], 0))
    version = historical(workspace, labels(1), "g", label_time="t").to_version("train", target="y")
    grow(workspace, "g", [Feature("more", default=4.0)])
    push(workspace, "g", [{**r, "more": 5.0} for r in rows([1, 2], 1)])
    forget(workspace, "g", [2])
    old_group, old = load_state(workspace, version.parents[0])
    assert [f.name for f in old_group.features] == ["x", "note"]
    assert open_segment(workspace, old_group, old.segments[0]).matrix.shape == (1, 1)
    spine = pa.table({"user": [1, 1, 2], "t": [at(0.5), at(5), at(5)]})
    assert historical(workspace, spine, "g:more", label_time="t").to_arrow()["more"].to_pylist() == [4.0, 5.0, 4.0]


def test_a_crash_before_the_files_are_deleted_is_made_good(
    workspace: Workspace, group: FeatureGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(workspace, "g", rows([7], 0, SECRET) + rows([8], 0))

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "_remove_folders", crash)
        with pytest.raises(KeyboardInterrupt):
            forget(workspace, "g", [7])
    assert known(workspace, [7, 8]) == [(None, None), (8.0, "n8")]
    sweep(workspace, "g")
    kept = [p for p in Path(workspace.path, "artifacts").rglob("*") if p.is_file()]
    assert not any(SECRET.encode() in p.read_bytes() for p in kept)


def test_an_entity_leaves_the_online_store_and_does_not_come_back(workspace: Workspace, group: FeatureGroup) -> None:
    with OnlineFeatures(workspace) as online:
        push_both(online, "g", rows([1, 2], 0))
        assert online.row("g", 2).state == "fresh"
        forget(workspace, "g", [2])
        assert online.group("g").delete([2, 99]) == 1
        materialize(online, "g")
        assert [online.row("g", u).state for u in (1, 2)] == ["fresh", "absent"]


def test_keys_of_several_columns(workspace: Workspace) -> None:
    keys = (EntityKey("shop", KeyType.STRING), EntityKey("user"))
    register(workspace, FeatureGroup("pair", keys, (Feature("x"),), event_time="at"))
    push(workspace, "pair", [{"shop": s, "user": u, "at": at(0), "x": 1.0} for s in "ab" for u in (1, 2)])
    assert forget(workspace, "pair", [("a", 2), {"shop": "b", "user": 1}]).rows == 2
    assert read_history(workspace, "pair").rows == 2
    with pytest.raises(DataError, match="'user'"):
        forget(workspace, "pair", [("a", "2")])
    with pytest.raises(NotFoundError, match="pair"):
        forget(workspace, "pear", [1])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pushes=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True), min_size=1, max_size=6),
    gone=st.sets(st.integers(0, 6), max_size=4),
)
def test_what_is_left_is_what_would_be_there_had_they_never_come(
    tmp_path_factory: pytest.TempPathFactory, pushes: list[list[int]], gone: set[int]
) -> None:
    features = (Feature("x"), Feature("note", DType.STRING))
    found = []
    for without in (False, True):
        with Workspace.open(tmp_path_factory.mktemp("ws") / "ws") as workspace:
            register(workspace, FeatureGroup("g", (EntityKey("user"),), features, event_time="at"))
            for second, users in enumerate(pushes):
                here = [u for u in users if not (without and u in gone)]
                if here:
                    push(workspace, "g", rows(here, second))
            if not without:
                forget(workspace, "g", sorted(gone))
            found.append([known(workspace, list(range(7)), s) for s in (0, 2, 20)])
    assert found[0] == found[1]
