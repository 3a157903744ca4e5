from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tidemill.core.errors import DataError, InputError, NotFoundError, OptionError, RoleError
from tidemill.data.features.types import DType, KeyType, Packing
from tidemill.sdk import data, features

CSV = """user_id,at,age,city,income
1,2026-11-01T00:00:00Z,31,Ulm,2.5
2,2026-11-02T00:00:00Z,28,,3.5
1,2026-11-03T00:00:00Z,32,Bonn,
"""


@pytest.fixture
def ws(tmp_path: Path) -> Path:
    (tmp_path / "rows.csv").write_text(CSV)
    return tmp_path


def register(ws: Path, **options: Any) -> None:
    group = features.infer_group("user", ws / "rows.csv", entity=["user_id"], event_time="at", **options)
    features.register(group, workspace=ws / "ws")


def test_a_group_is_inferred_from_a_table(ws: Path) -> None:
    group = features.infer_group("user", ws / "rows.csv", entity=["user_id"], event_time="at", ttl="2d")
    assert [(f.name, f.dtype) for f in group.features] == [
        ("age", DType.INT64),
        ("city", DType.STRING),
        ("income", DType.FLOAT32),
    ]
    assert group.entity[0].type is KeyType.INT64
    assert group.ttl_s == 172_800
    small = features.infer_group("user", ws / "rows.csv", entity=["user_id"], event_time="at", packing="int8")
    assert small.packing is Packing.INT8
    assert small.feature("income").validation.low == pytest.approx(2.4)
    with pytest.raises(NotFoundError, match="'user_id'"):
        features.infer_group("user", ws / "rows.csv", entity=["userid"], event_time="at")


def test_what_is_pushed_as_text_is_answered_in_its_types(ws: Path) -> None:
    register(ws)
    place = ws / "ws"
    assert features.push("user", ws / "rows.csv", workspace=place) == {
        "group": "user", "rows": 3, "added": 3, "online": 2, "older": 0, "ahead": 0,
    }  # fmt: skip
    assert features.push("user", ws / "rows.csv", workspace=place)["added"] == 0
    rows = features.get("user", [1, 2, 9], workspace=place).facts([1, 2, 9])
    assert [r["values"] for r in rows] == [
        {"age": 32, "city": "Bonn", "income": None},
        {"age": 28, "city": None, "income": 3.5},
        {"age": None, "city": None, "income": None},
    ]
    done = features.push(
        "user", [{"user_id": 2, "at": "2026-11-05T00:00:00Z", "city": "Kiel"}], changes=True, workspace=place
    )
    assert done["online"] == 1
    assert features.get("user", [2], ["city", "age"], workspace=place).to_rows() == [{"city": "Kiel", "age": 28}]
    assert features.materialize("user", workspace=place)["entities"] == 2
    assert features.groups(workspace=place)[0]["rows"] == 4
    assert features.describe("user", workspace=place)["entities"] == 2


def test_history_and_samples_come_through_the_same_door(ws: Path) -> None:
    register(ws)
    place = ws / "ws"
    features.push("user", ws / "rows.csv", offline=True, workspace=place)
    (ws / "spine.csv").write_text("user_id,t,y\n1,2026-11-02T00:00:00Z,1\n7,2026-11-02T00:00:00Z,0\n")
    with features.historical(ws / "spine.csv", "user:age", label_time="t", workspace=place) as joined:
        assert joined.to_arrow()["age"].to_pylist() == [31, None]
    found = features.match("user", "age > 30", out=ws / "m.parquet", name="older", workspace=place)
    assert (found["total"], found["matched"], found["size"]) == (2, 1, 1)
    assert pq.read_table(ws / "m.parquet")["age"].to_pylist() == [32]
    assert len(found["version"]) == 64


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_definition_may_stand_in_a_file(ws: Path, suffix: str) -> None:
    text = {"name": "u", "entity": "id", "ttl": "1h", "features": ["a", {"name": "b", "dtype": "category"}]}
    path = ws / f"u.{suffix}"
    path.write_text(json.dumps(text))  # JSON is YAML
    group = features.register(path, workspace=ws / "ws")
    assert group.ttl_s == 3600
    assert group.feature("b").dtype is DType.CATEGORY
    text["features"].append("c")  # type: ignore[attr-defined]
    with pytest.raises(OptionError, match="defined otherwise"):
        features.register(text, workspace=ws / "ws")
    assert features.register(text, grow=True, workspace=ws / "ws").schema_version == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "name: u\n",
        "name: u\nentity: id\nfeatures: [{dtype: x}]\n",
        "name: u\nnmae: v\n",
        "a: [",
        "name: u\nentity: 3\nfeatures: a",
    ],
)
def test_a_definition_that_cannot_be_used_is_refused_with_words(ws: Path, text: str) -> None:
    (ws / "bad.yaml").write_text(text)
    with pytest.raises(InputError):
        features.register(ws / "bad.yaml", workspace=ws / "ws")


def test_keys_are_read_from_text_and_durations_too(ws: Path) -> None:
    entity = ["shop", {"name": "user", "type": "string"}]
    pair = features.register({"name": "p", "entity": entity, "features": ["a"]}, workspace=ws / "ws")
    assert features.parse_key(pair, "user=x,shop=3") == (3, "x")
    for bad in ("3", "shop=a,user=b", "shop=3"):
        with pytest.raises(DataError):
            features.parse_key(pair, bad)
    with pytest.raises(OptionError, match="30d"):
        features.duration_s("soon")


def test_a_cell_that_is_no_number_is_refused_by_column(ws: Path) -> None:
    register(ws)
    (ws / "bad.csv").write_text(CSV.replace("3.5", "many"))
    with pytest.raises(DataError, match="'income'"):
        features.push("user", ws / "bad.csv", workspace=ws / "ws")


def test_roles_hold_for_every_use(ws: Path) -> None:
    register(ws, owner="mia")
    place = ws / "ws"
    features.push("user", ws / "rows.csv", workspace=place, actor="eve")  # open as long as there are no roles
    said = {"roles": {"ben": "reader"}, "description": "people", "freshness": "30d"}
    told = features.say("user", **said, workspace=place, actor="mia")
    assert (told["roles"], told["description"], told["freshness_s"]) == ({"ben": "reader"}, "people", 2_592_000)
    (ws / "spine.csv").write_text("user_id,t\n1,2026-11-02T00:00:00Z\n")

    def join(actor: str, name: str) -> str:
        spine = ws / "spine.csv"
        with features.historical(spine, "user:age", label_time="t", workspace=place, actor=actor) as joined:
            return joined.to_version(name).hash

    def sample(actor: str) -> int:
        return int(features.match("user", "age > 1", name="sample", workspace=place, actor=actor)["size"])

    reads = (
        lambda who: features.get("user", ["1"], workspace=place, actor=who).to_rows()[0]["age"],
        lambda who: features.describe("user", workspace=place, actor=who)["roles"],
        lambda who: features.audit_log("user", workspace=place, actor=who)[0]["what"],
        lambda who: join(who, f"joined-{who}"),
        sample,
    )
    writes = (
        lambda who: features.push("user", ws / "rows.csv", workspace=place, actor=who),
        lambda who: features.push("user", ws / "rows.csv", offline=True, workspace=place, actor=who),
        lambda who: features.materialize("user", workspace=place, actor=who),
        lambda who: features.forget("user", [1], dry_run=True, workspace=place, actor=who),
        lambda who: features.say("user", roles={"eve": "owner"}, workspace=place, actor=who),
        lambda who: features.register(
            features.infer_group("user", ws / "rows.csv", entity=["user_id"], event_time="at"),
            grow=True, workspace=place, actor=who,
        ),
    )  # fmt: skip
    for use in (*reads, *writes):
        with pytest.raises(RoleError, match="eve may not"):
            use("eve")
    for use in writes:
        with pytest.raises(RoleError, match="ben may not"):
            use("ben")
    for use in reads:
        assert use("ben")
    assert features.groups(workspace=place, actor="eve") == []
    assert len(features.groups(workspace=place, actor="ben")) == 1
    for dataset in ("joined-ben", "sample"):  # copies are no more open than the group
        facts = data.facts(dataset, workspace=place, actor="ben")
        assert (facts["owner"], facts["roles"]) == ("ben", {"ben": "reader", "mia": "owner"})
        with pytest.raises(RoleError, match="eve may not"):
            data.facts(dataset, workspace=place, actor="eve")
    for use in writes[:4]:
        assert use("mia")
