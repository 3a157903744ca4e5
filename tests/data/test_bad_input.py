"""Each kind of bad input that the data platform is to answer in words: what is wrong, where, and what to do."""

from __future__ import annotations

import datetime as dt
import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidemill.core.errors import DataError, NotFoundError, OptionError, PredicateError, TidemillError, WorkspaceError
from tidemill.core.schema import Column, Schema, SemanticType
from tidemill.data.features.join import historical
from tidemill.data.features.online.features import OnlineFeatures
from tidemill.data.features.push import push
from tidemill.data.features.registry import register
from tidemill.data.features.types import DType, EntityKey, Feature, FeatureGroup, KeyType
from tidemill.data.matching import match
from tidemill.data.versions import fragments, list_versions, load_version, manifest_of, write_version
from tidemill.data.versions.blame import blame
from tidemill.data.versions.forget import forget
from tidemill.data.versions.operations import append, filter_version, merge, sample, split
from tidemill.store import artifacts
from tidemill.store.workspace import Workspace

T = SemanticType
NOW = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(tmp_path / "w") as opened:
        yield opened


def keep(workspace: Workspace, name: str, table: dict[str, Any], **kinds: SemanticType) -> Any:
    schema = Schema(tuple(Column(n, kinds.get(n, T.NUMBER)) for n in table))
    return write_version(workspace, name, pa.table(table), schema)


def people(workspace: Workspace) -> Any:
    return keep(
        workspace, "people", {"age": [20.0, 30.0, 40.0], "region": ["n", "s", "n"], "y": ["a", "b", "a"]},
        region=T.CATEGORY, y=T.TARGET,
    )  # fmt: skip


def group(workspace: Workspace, key: KeyType = KeyType.INT64) -> FeatureGroup:
    made = FeatureGroup("user", (EntityKey("user_id", key),), (Feature("age"), Feature("city", DType.CATEGORY)))
    register(workspace, made)
    return made


def row(**changes: Any) -> dict[str, Any]:
    return {"user_id": 1, "event_time": NOW, "age": 3.0, "city": "Ulm", **changes}


# 1 ------------------------------------------------------------------------------------ schema conflict in a merge


def test_a_merge_of_other_columns_names_every_column_and_both_types(workspace: Workspace) -> None:
    keep(workspace, "a", {"k": ["x"], "n": [1.0], "t": ["2020-01-01"]}, k=T.CATEGORY, t=T.DATETIME)
    keep(workspace, "b", {"k": ["x"], "n": [True], "t": ["word"]}, k=T.CATEGORY, n=T.BOOLEAN, t=T.CATEGORY)
    with pytest.raises(DataError) as caught:
        merge(workspace, ["a", "b"])
    said = str(caught.value)
    for words in ("'n' is", "number (double)", "boolean (bool)", "'t' is", "datetime", "category (string)", "--like"):
        assert words in said
    assert len(list_versions(workspace)) == 2


# 2 ------------------------------------------------------------------------------------------ times without a zone


def test_times_without_a_zone_are_refused_unless_they_are_said_to_be_utc(workspace: Workspace) -> None:
    group(workspace)
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(DataError, match=r"event_time.*zone|zone.*event_time"):
        push(workspace, "user", [row(event_time=naive)])
    with pytest.raises(DataError, match="zone"):
        push(workspace, "user", [row(event_time="2026-01-01T00:00:00")])
    assert push(workspace, "user", [row(event_time=naive)], assume_utc=True).added == 1
    with pytest.raises(DataError, match="zone"):
        historical(workspace, pa.table({"user_id": [1], "t": [naive]}), "user", label_time="t")


# 3 ------------------------------------------------------------------------------- entity keys: null, of another type


@pytest.mark.parametrize(
    ("key", "words"),
    [(None, "missing|null"), ("seven", "whole number|int64|type"), (1.5, "whole number|int64|type")],
    ids=["null", "text", "fraction"],
)
def test_entity_keys_must_be_there_and_of_their_type(workspace: Workspace, key: Any, words: str) -> None:
    group(workspace)
    with pytest.raises(DataError, match=words) as caught:
        push(workspace, "user", [row(user_id=key)])
    assert "user_id" in str(caught.value)


# 4 -------------------------------------------------------------------- the same entity and time, with other values


def test_two_values_of_one_entity_and_time_are_refused_and_equal_ones_are_one(workspace: Workspace) -> None:
    group(workspace)
    with pytest.raises(DataError, match=r"user_id|entity"):
        push(workspace, "user", [row(age=1.0), row(age=2.0)])
    assert push(workspace, "user", [row(), row()]).added == 1
    with pytest.raises(DataError):
        push(workspace, "user", [row(age=9.0)])
    assert push(workspace, "user", [row(age=9.0)], correct=True).added == 1


# 5 -------------------------------------------------------------------------------------------------- unknown feature


def test_an_unknown_feature_or_group_offers_the_nearest(workspace: Workspace) -> None:
    group(workspace)
    push(workspace, "user", [row()])
    spine = pa.table({"user_id": [1], "t": [NOW]})
    with pytest.raises(NotFoundError, match="Did you mean 'age'"):
        historical(workspace, spine, "user:agee", label_time="t")
    with pytest.raises(NotFoundError, match="Did you mean 'user'"):
        historical(workspace, spine, "usr", label_time="t")
    with OnlineFeatures(workspace) as online, pytest.raises(NotFoundError, match="Did you mean 'city'"):
        online.read("user", [1], ["ctiy"])
    with pytest.raises(NotFoundError, match="age"):
        push(workspace, "user", [{"user_id": 1, "event_time": NOW, "aeg": 1.0, "city": "Ulm"}])


# 6 ---------------------------------------- map size full: tests/data/features/online/test_features.py, test_faults


# 7 --------------------------------------------------------------------------------------------------- corrupt fragment


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_corrupt_fragment_is_named_with_its_file(workspace: Workspace, damage: str) -> None:
    version = people(workspace)
    key = manifest_of(workspace, version).parts[0].fragment
    path = workspace.path / "artifacts" / key[:2] / key[2:4] / key
    whole = path.read_bytes()
    path.chmod(0o644)
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-1] + b"x" if damage == "flipped" else whole[: len(whole) // 2])
    fragments._seen.clear()  # as in a new process
    calls: list[Callable[[], Any]] = [
        lambda: load_version(workspace, "people"),
        lambda: match(workspace, "people", "age > 3"),
        lambda: filter_version(workspace, "people", "age > 3"),
        lambda: sample(workspace, "people", way="balanced", by=["region"], size=2),
    ]
    for call in calls:
        with pytest.raises(TidemillError) as caught:
            call()
        assert key[:12] in str(caught.value)
        assert str(workspace.path) in str(caught.value.where)


# 8 ------------------------------------------------------ Redis gone: tests/data/features/online/test_faults.py


# 9 ------------------------------------------------------------------------------------------------------- disk full


def test_a_full_disk_is_said_and_the_old_state_stays(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    before = people(workspace)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    more = pa.table({"age": [1.0], "region": ["n"], "y": ["a"]})
    jobs: list[Callable[[], Any]] = [
        lambda: append(workspace, "people", more),
        lambda: keep(workspace, "other", {"x": [1.0, 2.0]}),
        lambda: sample(workspace, "people", size=2),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(artifacts.os, "fsync", full)
        for job in jobs:
            with pytest.raises(WorkspaceError, match="disk is full") as caught:
                job()
            assert "Free some space" in str(caught.value.hint)
    assert list_versions(workspace) == [before]
    assert append(workspace, "people", more).rows == 4


# 10, 11 ------------------------------------------------------------- predicates that don't parse, or that would write


BROKEN = {
    "age >": "age >",
    "age > 3 and (": "(",
    "agee > 3": "agee",
    "age between 1": "between",
    "age = 'x": "'x",
    "age > 3 order by age": "order",
    "region > 3": "region",
    "": "",
}
WRITING = (
    "age > 3; drop table people",
    "delete from people",
    "update people set age = 3",
    "insert into people values (1)",
    "age > (select max(age) from people)",
    "exists (select 1)",
    "copy people to 'x.csv'",
    "attach 'x.db'",
    "pragma database_list",
    "age > 3 -- \n; create table x (y int)",
    "read_csv('/etc/passwd') is not null",
    "age in (select age from people)",
    "system('true') = 0",
)
ASKS: list[Callable[[Workspace, str], Any]] = [
    lambda w, text: filter_version(w, "people", text, name="f"),
    lambda w, text: match(w, "people", text),
    lambda w, text: blame(w, where=text),
    lambda w, text: forget(w, text),
]


@pytest.mark.parametrize("text", list(BROKEN), ids=lambda t: t or "nothing")
@pytest.mark.parametrize("ask", ASKS, ids=["filter", "match", "blame", "forget"])
def test_a_condition_that_can_not_be_read_is_marked_where_it_breaks(
    workspace: Workspace, ask: Callable[[Workspace, str], Any], text: str
) -> None:
    people(workspace)
    with pytest.raises(PredicateError) as caught:
        ask(workspace, text)
    assert 0 <= caught.value.position <= len(text)
    if text:
        *_, shown, mark = str(caught.value).splitlines()
        assert mark.strip() == "^"
        assert mark.index("^") <= len(shown)


@pytest.mark.parametrize("text", WRITING)
@pytest.mark.parametrize("ask", ASKS, ids=["filter", "match", "blame", "forget"])
def test_a_condition_that_would_do_more_than_ask_is_refused_and_changes_nothing(
    workspace: Workspace, ask: Callable[[Workspace, str], Any], text: str
) -> None:
    version = people(workspace)
    before = sorted(p.name for p in workspace.path.rglob("*") if p.is_file() and not p.name.startswith("metadata"))
    with pytest.raises(PredicateError) as caught:
        ask(workspace, text)
    assert caught.value.position < len(text)
    after = sorted(p.name for p in workspace.path.rglob("*") if p.is_file() and not p.name.startswith("metadata"))
    assert set(after) - set(before) <= {"datasets.lock"}
    assert list_versions(workspace) == [version]
    assert load_version(workspace, "people")[0].num_rows == 3


def test_numbers_that_make_no_sense_are_told(workspace: Workspace) -> None:
    people(workspace)
    calls: list[Callable[[], Any]] = [
        lambda: sample(workspace, "people", size=0),
        lambda: sample(workspace, "people", size=-3),
        lambda: sample(workspace, "people", size=float("nan")),
        lambda: sample(workspace, "people", size=float("inf")),
        lambda: sample(workspace, "people", way="entity", by=["region"], size=float("nan")),
        lambda: split(workspace, "people", {"a": float("nan"), "b": 0.5}),
        lambda: split(workspace, "people", {"a": 0.5, "b": 0.5}, seed=-1),
        lambda: sample(workspace, "people", size=2, seed=-1),
        lambda: match(workspace, "people", size=0),
        lambda: match(workspace, "people", seed=-1),
    ]
    for call in calls:
        with pytest.raises(OptionError):
            call()
    assert np.isfinite(load_version(workspace, "people")[0]["age"].to_numpy()).all()
